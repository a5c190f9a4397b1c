# shellcheck shell=bash
# What every part of the lab shares: names, places, messages, deadlines, processes that survive this shell.
# shellcheck disable=SC2034  # the parts use each other's variables

LAB_NAME=${FLOTTA_LAB:-flotta}
LAB_SUBNET=${FLOTTA_LAB_SUBNET:-10.231.0}
LAB_HOST=$LAB_SUBNET.1
LAB_STATE=$(realpath -m "${FLOTTA_LAB_DIR:-$LAB_ROOT/../../target/lab/$LAB_NAME}")
LAB_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/flotta/lab
LAB_BRIDGE=$LAB_NAME
LAB_REGISTRY=$LAB_HOST:5000

say() { printf '%s\n' "$*" >&2; }
die() { say "lab: $*"; exit 2; }

[[ $LAB_NAME =~ ^[a-z][a-z0-9]{0,9}$ ]] || die "FLOTTA_LAB must be at most ten lower-case letters and digits: it names a bridge"
[[ $LAB_SUBNET =~ ^10\.[0-9]+\.[0-9]+$ ]] || die "FLOTTA_LAB_SUBNET must be three octets of a 10.0.0.0/8 network, as 10.231.0"

# timed WHAT COMMAND...: runs the command, and prints how long it took if that was more than a second.
timed() {
  local what=$1 began=$EPOCHREALTIME status=0 ms
  shift
  "$@" || status=$?
  ms=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000))
  ((ms < 1000)) || say "lab: $what: $((ms / 1000)).$((ms % 1000 / 100)) s"
  return $status
}

# wait_for SECONDS WHAT COMMAND...: waits until the command succeeds, and fails after so many seconds.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    ((SECONDS < deadline)) || { say "lab: gave up waiting until $what"; return 1; }
    sleep 0.1
  done
}

# A process is known by its id and its start time: an id alone may have been given to another one meanwhile.
started_at() {
  local -a stat
  local line
  line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra stat <<<"${line##*) }"
  printf '%s' "${stat[19]}"
}
remember_process() { printf '%s %s\n' "$2" "$(started_at "$2")" >"$1.new" && mv "$1.new" "$1"; }
# process_of FILE: prints the id of the process if it still runs.
process_of() {
  local pid start
  read -r pid start 2>/dev/null <"$1" || return 1
  [[ $(started_at "$pid") == "$start" ]] || return 1
  printf '%s' "$pid"
}
# end_process FILE SIGNAL: ends the process, waits until it is gone, and removes the file.
end_process() {
  local pid
  if pid=$(process_of "$1"); then
    kill "-$2" "$pid" 2>/dev/null || true
    wait_for 20 "process $pid has ended" gone "$1" || { kill -KILL "$pid" 2>/dev/null || true; }
  fi
  rm -f "$1"
}
gone() { ! process_of "$1" >/dev/null; }

# scratch DIR: makes a new folder inside DIR, which is removed when this shell ends, however it ends. Sets SCRATCH to its path.
SCRATCHES=()
scratch() {
  mkdir -p "$1"
  SCRATCH=$(mktemp -d "$1/.new.XXXXXX")
  SCRATCHES+=("$SCRATCH")
}
remove_scratches() { ((${#SCRATCHES[@]} == 0)) || rm -rf "${SCRATCHES[@]}"; }
trap remove_scratches EXIT
trap 'exit 130' INT TERM HUP

# locked COMMAND...: runs the command while no other shell of this lab runs one this way. What outlives it must close $LOCK.
locked() {
  local status=0
  mkdir -p "$LAB_STATE"
  exec {LOCK}>"$LAB_STATE/lock"
  flock "$LOCK"
  "$@" || status=$?
  exec {LOCK}>&-
  return $status
}

need_root() { [[ $(id -u) == 0 ]] || die "needs root: it makes network bridges and boots systemd in namespaces. Without root, 'cargo test' and 'flotta render' still work"; }
