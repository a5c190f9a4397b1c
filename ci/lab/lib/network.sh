# shellcheck shell=bash
# One bridge with the host on it, and an image registry on the host's address.

# Two tests may start at once: the second one finds the work done.
network_up() { locked make_network; }
make_network() {
  # with one subnet on two bridges, neither can be reached
  local other
  other=$(ip -4 -json addr show | jq -r --arg host "$LAB_HOST" --arg own "$LAB_BRIDGE" \
    '.[] | select(.ifname != $own and any(.addr_info[]; .local == $host)) | .ifname')
  [[ -z $other ]] || die "$LAB_HOST is already on $other: end that lab (FLOTTA_LAB=$other ci/lab/lab down), or set FLOTTA_LAB_SUBNET"
  ip link show dev "$LAB_BRIDGE" >/dev/null 2>&1 || ip link add name "$LAB_BRIDGE" type bridge
  ip addr replace "$LAB_HOST/24" dev "$LAB_BRIDGE"
  ip link set dev "$LAB_BRIDGE" up
}
network_down() { ip link del dev "$LAB_BRIDGE" 2>/dev/null || true; }

registry_answers() { curl -fs -o /dev/null "http://$LAB_REGISTRY/v2/"; }

registry_up() {
  network_up
  locked start_registry
  cat "$LAB_STATE/registry/images"
}
start_registry() {
  make_images
  mkdir -p "$LAB_STATE/registry"
  if ! process_of "$LAB_STATE/registry/pid" >/dev/null; then
    jq -n --arg data "$LAB_STATE/registry/data" --arg address "$LAB_REGISTRY" \
      '{version: 0.1, log: {level: "warn"}, storage: {filesystem: {rootdirectory: $data}, delete: {enabled: true}}, http: {addr: $address}}' \
      >"$LAB_STATE/registry/config.yml"
    setsid docker-registry serve "$LAB_STATE/registry/config.yml" </dev/null >"$LAB_STATE/registry/log" 2>&1 {LOCK}>&- &
    remember_process "$LAB_STATE/registry/pid" $!
    wait_for 20 "the registry answers" registry_answers || { cat "$LAB_STATE/registry/log" >&2; exit 2; }
  fi
  local name tag digest
  while read -r name tag digest; do
    if ! curl -fs -o /dev/null -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$LAB_REGISTRY/v2/$name/manifests/$digest"; then
      skopeo copy -q --preserve-digests --dest-tls-verify=false "oci:$IMAGES_BUILT/$name-$tag" "docker://$LAB_REGISTRY/$name:$tag" >&2
    fi
    printf 'registry.example/%s@%s  %s\n' "$name" "$digest" "$tag"
  done <"$IMAGES_BUILT/digests" >"$LAB_STATE/registry/images"
}
registry_down() {
  end_process "$LAB_STATE/registry/pid" TERM
  rm -rf "$LAB_STATE/registry"
}
