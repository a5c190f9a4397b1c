# shellcheck shell=bash
# The root file systems: of a device, Debian trixie with systemd 257 and Podman 5.4, and of a server's machine, with what its
# package depends on. Each is made once and cached by content.

ROOTFS=device
SERVER_PACKAGES=systemd,systemd-sysv,dbus,git,iproute2,procps
DEVICE_PACKAGES=systemd,systemd-sysv,dbus,podman,runc,netavark,aardvark-dns,iptables,nftables,iproute2,ca-certificates,curl,ostree,procps,catatonit,passt,busybox-static
HOST_COMMANDS=(mmdebstrap systemd-nspawn skopeo docker-registry jq curl ip as objcopy git pgrep faketime)
HOST_PACKAGES=(mmdebstrap systemd-container skopeo docker-registry jq curl iproute2 binutils git ca-certificates procps faketime)

install_host_packages() {
  local command missing=()
  for command in "${HOST_COMMANDS[@]}"; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "needs ${missing[*]}, and knows only apt-get to install them: install them and try again"
  say "lab: installing ${missing[*]}"
  # A build machine's packages must not start services of their own.
  local guard=/usr/sbin/policy-rc.d
  if [[ ! -e $guard ]]; then
    printf '#!/bin/sh\nexit 101\n' >$guard
    chmod 755 $guard
    trap 'rm -f /usr/sbin/policy-rc.d' RETURN
  fi
  local -a apt=(apt-get -y --no-install-recommends -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300)
  export DEBIAN_FRONTEND=noninteractive
  "${apt[@]}" -qq update >&2
  "${apt[@]}" -qq install "${HOST_PACKAGES[@]}" >/dev/null 2>&1 || "${apt[@]}" install "${HOST_PACKAGES[@]}" >&2
}

# Where this machine gets Debian from; an Ubuntu machine has no such line and must say.
debian_mirror() {
  if [[ -n ${FLOTTA_LAB_MIRROR:-} ]]; then
    printf '%s' "$FLOTTA_LAB_MIRROR"
    return
  fi
  # shellcheck disable=SC2016  # apt's own variables
  apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" && $2 ~ /\/debian\/?$/ { print $2; exit }'
}

rootfs_packages() { if [[ $ROOTFS == server ]]; then printf '%s' "$SERVER_PACKAGES"; else printf '%s' "$DEVICE_PACKAGES"; fi; }
rootfs_key() {
  { printf '%s\n' trixie "$(rootfs_packages)"
    sha256sum <"$LAB_ROOT/lib/rootfs.sh"
    (cd "$LAB_ROOT/rootfs" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  } | sha256sum | cut -c1-16
}
rootfs_path() { printf '%s/rootfs-%s' "$LAB_CACHE" "$(rootfs_key)"; }

make_rootfs() {
  local path mirror fresh
  path=$(rootfs_path)
  [[ -d $path ]] && return 0
  [[ $(uname -m) == x86_64 ]] || die "the lab's test images are for x86_64, this machine is $(uname -m)"
  mirror=$(debian_mirror)
  scratch "$LAB_CACHE"
  fresh=$SCRATCH
  say "lab: making a root file system (once; about a minute)"
  mmdebstrap --quiet --aptopt='Acquire::Retries "5"' --variant=minbase --include="$(rootfs_packages)" trixie "$fresh/root" ${mirror:+"$mirror"} >"$fresh/log" 2>&1 ||
    { cat "$fresh/log" >&2; die "mmdebstrap failed; on a machine that is not Debian name a mirror in FLOTTA_LAB_MIRROR"; }
  cp -a "$LAB_ROOT/rootfs/." "$fresh/root/"
  chown -R 0:0 "$fresh/root/etc/containers" "$fresh/root/etc/systemd/journald.conf.d"
  local unit root=$fresh/root
  # Kernel modules, timers that fetch from the network, and Podman's own restarts have no place in a device of the lab.
  for unit in systemd-modules-load.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    podman-auto-update.timer podman-restart.service systemd-firstboot.service systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
  mkdir -p "$root/etc/systemd/system/"{multi-user,sockets}.target.wants "$root/var/log/journal"
  ln -sf /usr/lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
  [[ $ROOTFS != device ]] || ln -sf /usr/lib/systemd/system/podman.socket "$root/etc/systemd/system/sockets.target.wants/"
  rm -f "$root/etc/machine-id" "$root/var/lib/dbus/machine-id" "$root/etc/hostname" "$root/etc/resolv.conf"
  rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists"
  mv "$root" "$path"
}
