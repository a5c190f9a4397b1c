# shellcheck shell=bash disable=SC2034
# The test images: OCI layouts made by hand from one assembly file, bit for bit the same each time, so that their digests
# can be in the examples. The file digests, next to the source, says what they must be.

IMAGES=$LAB_ROOT/images

# image NAME TAG TEXT ENTRYPOINT-JSON CMD-JSON: writes OUT/NAME-TAG as an OCI layout, prints NAME TAG DIGEST.
image() {
  local name=$1 tag=$2 text=$3 entrypoint=$4 cmd=$5 layout=$OUT/$1-$2 tree layer config manifest
  tree=$(mktemp -d "$OUT/tree.XXXXXX")
  cp "$OUT/hello" "$tree/hello"
  printf '%s\n' "$text" >"$tree/index.txt"
  chmod 755 "$tree" "$tree/hello"
  chmod 644 "$tree/index.txt"
  mkdir -p "$layout/blobs/sha256"
  tar -C "$tree" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$OUT/layer" hello index.txt
  layer=$(blob "$OUT/layer")
  jq -cjn --arg layer "sha256:$layer" --argjson entrypoint "$entrypoint" --argjson cmd "$cmd" '{
      created: "1970-01-01T00:00:00Z", architecture: "amd64", os: "linux",
      config: {Entrypoint: $entrypoint, Cmd: $cmd},
      rootfs: {type: "layers", diff_ids: [$layer]}}' >"$OUT/config"
  config=$(blob "$OUT/config")
  jq -cjn --arg layer "sha256:$layer" --arg config "sha256:$config" \
    --argjson layer_size "$(stat -c %s "$OUT/layer")" --argjson config_size "$(stat -c %s "$OUT/config")" '{
      schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $config, size: $config_size},
      layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar", digest: $layer, size: $layer_size}]}' >"$OUT/manifest"
  manifest=$(blob "$OUT/manifest")
  jq -cjn --arg manifest "sha256:$manifest" --argjson size "$(stat -c %s "$OUT/manifest")" '{
      schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $manifest, size: $size}]}' >"$layout/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  rm -rf "$tree"
  printf '%s %s sha256:%s\n' "$name" "$tag" "$manifest"
}
# blob FILE: keeps it in the layout under its digest, prints the digest.
blob() {
  local digest
  digest=$(sha256sum <"$1" | cut -d' ' -f1)
  cp "$1" "$layout/blobs/sha256/$digest"
  printf '%s' "$digest"
}

make_images() {
  local key path
  key=$(cat "$IMAGES/hello.S" "$IMAGES/digests" "$LAB_ROOT/lib/images.sh" 2>/dev/null | sha256sum | cut -c1-16)
  path=$LAB_CACHE/images-$key
  if [[ ! -d $path ]]; then
    scratch "$LAB_CACHE"
    OUT=$SCRATCH
    as "$IMAGES/hello.S" -o "$OUT/hello.o"
    objcopy -O binary -j .text "$OUT/hello.o" "$OUT/hello"
    { image exits 1 exits '["/hello","exit"]' '["1"]'
      image hello 1 "hello 1" '["/hello"]' '["8080","/index.txt"]'
      image hello 2 "hello 2" '["/hello"]' '["8080","/index.txt"]'
    } >"$OUT/digests"
    if [[ ${1:-} != --accept ]] && ! diff -u "$IMAGES/digests" "$OUT/digests" >&2; then
      die "the images are not what ci/lab/images/digests says: same source, other bytes. If the source was changed: lab images --accept"
    fi
    cp "$OUT/digests" "$IMAGES/digests.new"
    if cmp -s "$IMAGES/digests.new" "$IMAGES/digests"; then rm "$IMAGES/digests.new"; else mv "$IMAGES/digests.new" "$IMAGES/digests"; fi
    [[ ${1:-} == --accept ]] || mv "$OUT" "$path"
  fi
  IMAGES_BUILT=$path
}
