# shellcheck shell=bash
# Virtual devices: systemd-nspawn with a systemd of its own as process 1, Podman and Quadlet inside, on the lab's bridge.
# A device is a folder with root/ (its disk), address, and, while it runs, pid (nspawn's) and leader (its process 1).

device_dir() {
  [[ $1 =~ ^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$ ]] || die "'$1' is not a device name: lower-case letters, digits and '-'"
  printf '%s/devices/%s' "$LAB_STATE" "$1"
}
have_device() {
  DEVICE=$(device_dir "$1")
  [[ -d $DEVICE ]] || die "no device $1: make it with 'lab device create $1'"
}

device_create() {
  DEVICE=$(device_dir "$1")
  [[ -d $DEVICE ]] && return 0
  make_rootfs
  locked make_device "$@"
}
# make_layer PACKAGE...: makes the root file system with these packages installed, once for each content. Sets LAYER to its path.
make_layer() {
  local key
  LAYER=$(rootfs_path)
  (($#)) || return 0
  key=$(cat "$@" | sha256sum | cut -c1-16)
  LAYER=$LAB_STATE/layers/$(basename "$LAYER")-$key
  [[ ! -d $LAYER ]] || return 0
  # the others have older builds of the packages, which are not needed again
  rm -rf "$LAB_STATE"/layers/*
  scratch "$LAB_STATE/layers"
  cp -a --reflink=auto "$(rootfs_path)" "$SCRATCH/root"
  install -D -t "$SCRATCH/root/root/packages" "$@"
  # as a user would, on a machine that does not run
  chroot "$SCRATCH/root" sh -c 'dpkg --install /root/packages/*.deb' >"$SCRATCH/log" 2>&1 ||
    { cat "$SCRATCH/log" >&2; die "the packages cannot be installed"; }
  rm -r "$SCRATCH/root/root/packages"
  mv "$SCRATCH/root" "$LAYER"
}
# make_device NAME [PACKAGE...]
make_device() {
  local fresh root octet
  make_layer "${@:2}"
  scratch "$LAB_STATE/devices"
  fresh=$SCRATCH
  cp -a --reflink=auto "$LAYER" "$fresh/root"
  root=$fresh/root
  for ((octet = 10; octet < 250; octet++)); do
    grep -qsx "$LAB_SUBNET.$octet" "$LAB_STATE"/devices/*/address "$LAB_STATE"/devices/.new.*/address || break
  done
  printf '%s\n' "$LAB_SUBNET.$octet" >"$fresh/address"
  printf '%s\n' "$1" >"$root/etc/hostname"
  tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
  printf '127.0.0.1 localhost %s\n%s flotta.example\n' "$1" "$LAB_HOST" >"$root/etc/hosts"
  printf '[Match]\nName=host0\n[Network]\nAddress=%s/24\nGateway=%s\nLinkLocalAddressing=no\n' \
    "$LAB_SUBNET.$octet" "$LAB_HOST" >"$root/etc/systemd/network/10-lab.network"
  mkdir -p "$root/etc/containers/registries.conf.d"
  printf '[[registry]]\nprefix = "registry.example"\nlocation = "%s"\ninsecure = true\n' "$LAB_REGISTRY" \
    >"$root/etc/containers/registries.conf.d/lab.conf"
  mv "$fresh" "$DEVICE"
}

leader() { process_of "$DEVICE/leader" || die "device $(basename "$DEVICE") is not running"; }
inside() { nsenter -t "$(leader)" -a -- "$@"; }
is_up() {
  local state
  # is-system-running exits 1 for "degraded", which is up as well
  state=$(inside systemctl is-system-running 2>/dev/null || true)
  [[ $state == running || $state == degraded ]] || return 1
  # systemd does not wait until the cable is plugged in
  inside cat /proc/net/fib_trie | grep -qF "$(cat "$DEVICE/address")"
}
why_not_up() {
  tail -n 30 "$DEVICE/console"
  inside systemctl is-system-running
  inside systemctl list-jobs --no-pager
  inside systemctl --failed --no-pager
  inside ps -e -o pid,ppid,stat,etimes,wchan:20,args
  inside journalctl --boot --no-pager --lines 60
} >&2 || true
# The leader is nspawn's child once that child is the process 1 of another PID namespace.
find_leader() {
  local child
  child=$(pgrep -P "$1" | head -n 1) || return 1
  [[ -n $child && $(readlink "/proc/$child/ns/pid") != "$(readlink /proc/self/ns/pid)" ]] || return 1
  grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$child/status" || return 1
  remember_process "$DEVICE/leader" "$child"
}

# The control group of a device. Each device has its own: systemd kills a unit by its control group, so that with a shared one
# a SIGKILL to web.service on one device would kill web.service on every device.
CGROUPS=/sys/fs/cgroup/unified
[[ $(stat -f -c %T /sys/fs/cgroup) != cgroup2fs ]] || CGROUPS=/sys/fs/cgroup
device_cgroup() { printf '%s/lab-%s-%s' "$CGROUPS" "$LAB_NAME" "$(basename "$DEVICE")"; }
enter_cgroup() {
  if [[ ! -f $CGROUPS/cgroup.procs ]]; then
    mkdir -p "$CGROUPS"
    mount -t cgroup2 cgroup2 "$CGROUPS"
  fi
  mkdir -p "$(device_cgroup)"
  printf '%s\n' "$BASHPID" >"$(device_cgroup)/cgroup.procs"
}
leave_cgroup() { [[ ! -d $(device_cgroup) ]] || find "$(device_cgroup)" -depth -type d -exec rmdir {} + 2>/dev/null || true; }

device_boot() {
  have_device "$1"
  network_up
  if ! process_of "$DEVICE/pid" >/dev/null; then
    rm -f "$DEVICE/leader"
    (
      locked enter_cgroup
      export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
      exec setsid systemd-nspawn --quiet -D "$DEVICE/root" --register=no --keep-unit \
        --network-bridge="$LAB_BRIDGE" --machine="$LAB_NAME-$1" --boot --capability=all --resolv-conf=off \
        --system-call-filter='@mount @keyring bpf' --console=pipe
    ) </dev/null >"$DEVICE/console" 2>&1 &
    remember_process "$DEVICE/pid" $!
    wait_for 20 "$1 has a process 1" find_leader "$(process_of "$DEVICE/pid")" || { cat "$DEVICE/console" >&2; exit 2; }
  fi
  # Longer than systemd's limit of 90 s for a start that hangs: after that, systemd ends it, reports it and tries again.
  wait_for 150 "$1 is up" is_up || { why_not_up; exit 2; }
  cat "$DEVICE/address"
}

# The host's end of the device's cable.
device_cable() {
  local index
  index=$(inside cat /sys/class/net/host0/iflink)
  ip -o link | awk -F': ' -v index_="$index" '$1 == index_ { sub(/@.*/, "", $2); print $2 }'
}
device_net() {
  have_device "$1"
  [[ $2 == up || $2 == down ]] || die "net takes up or down"
  ip link set "$(device_cable)" "$2"
}

# SIGKILL to process 1 kills everything in its PID namespace, and nspawn exits after it: the disk stays as it is.
device_cut() {
  have_device "$1"
  local pid
  if pid=$(process_of "$DEVICE/leader"); then kill -KILL "$pid"; fi
  device_wait_off "$1"
}
device_wait_off() {
  if ! wait_for 45 "$1 is off" gone "$DEVICE/pid"; then end_process "$DEVICE/pid" KILL; fi
  rm -f "$DEVICE/pid" "$DEVICE/leader"
  leave_cgroup
}
device_shutdown() {
  have_device "$1"
  process_of "$DEVICE/leader" >/dev/null || return 0
  inside systemctl poweroff >/dev/null 2>&1 || true
  device_wait_off "$1"
}

device_rm() {
  DEVICE=$(device_dir "$1")
  [[ -d $DEVICE ]] || return 0
  device_cut "$1"
  # The overlay mounts of a cut device's containers are gone with its namespaces: only files are left.
  chattr -R -i "$DEVICE/root" 2>/dev/null || true
  rm -rf "$DEVICE"
}

device_list() {
  local dir
  for dir in "$LAB_STATE"/devices/*/; do
    [[ -d $dir ]] || continue
    printf '%-20s %-14s %s\n' "$(basename "$dir")" "$(cat "$dir/address")" "$(process_of "$dir/leader" >/dev/null && echo up || echo off)"
  done
}

device() {
  local verb=${1:-} name=${2:-}
  [[ $verb == list ]] && { device_list; return; }
  [[ -n $name ]] || die "device VERB NAME: see 'lab help'"
  shift 2
  case $verb in
    create) timed "made device $name" device_create "$name" "$@" ;;
    create-server) ROOTFS=server; timed "made machine $name" device_create "$name" "$@" ;;
    boot) timed "booted $name" device_boot "$name" ;;
    exec) [[ ${1:-} == -- ]] && shift; have_device "$name"; inside "$@" ;;
    copy) have_device "$name"; install -D -p "$1" "$DEVICE/root/$2" ;;
    addr) have_device "$name"; cat "$DEVICE/address" ;;
    dir) have_device "$name"; printf '%s\n' "$DEVICE" ;;
    net) device_net "$name" "${1:-}" ;;
    shutdown) timed "shut $name down" device_shutdown "$name" ;;
    reboot) timed "shut $name down" device_shutdown "$name"; timed "booted $name" device_boot "$name" ;;
    cut) device_cut "$name" ;;
    rm) device_rm "$name" ;;
    *) die "no such verb: device $verb" ;;
  esac
}
