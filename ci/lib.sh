# shellcheck shell=bash
# What the project's scripts share: messages, timed steps, and the installation of what is missing.

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

# step WHAT COMMAND...: runs the command, and prints what it does and how long it took.
step() {
  local what=$1 began=$SECONDS status=0
  shift
  say "== $what"
  "$@" || status=$?
  ((status == 0)) || { say "== $what: failed after $((SECONDS - began)) s"; return $status; }
  say "== $what: $((SECONDS - began)) s"
}

can_lab() { [[ $(id -u) == 0 && $(uname -m) == x86_64 ]] && command -v apt-get >/dev/null; }

# install PACKAGE...: installs packages with apt, as root on Debian or Ubuntu; otherwise says what is needed, and exits.
install() {
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "installing $*"
    local -a apt=(apt-get -qq -y --no-install-recommends -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" install "$@" >/dev/null 2>&1 || { "${apt[@]}" update && "${apt[@]}" install "$@" >/dev/null; }
  else
    die "needs: $* (Debian's names). Install them, or run this as root on Debian or Ubuntu."
  fi
}

export CARGO_NET_RETRY=${CARGO_NET_RETRY:-10}
need_rust() {
  local -a missing=()
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  command -v git >/dev/null || missing+=(git)
  ((${#missing[@]} == 0)) || install "${missing[@]}"
  command -v cargo >/dev/null || die "needs Rust: see https://rustup.rs"
}

# need_clients: installs the programs of others that the tests of the contract run. If it cannot, those tests say so.
need_clients() {
  local -a missing=()
  command -v openssl >/dev/null || missing+=(openssl)
  python3 -c 'import cryptography' 2>/dev/null || /usr/bin/python3 -c 'import cryptography' 2>/dev/null ||
    missing+=(python3 python3-cryptography)
  # a subshell, as `install` exits where it cannot install
  ((${#missing[@]} == 0)) || (install "${missing[@]}") || say "left out: tests that need ${missing[*]}"
}

# A clone without a target directory of its own shares one with other clones, so that unchanged crates are not built again.
use_cached_target() { [[ -d target/debug || -n ${CARGO_TARGET_DIR:-} ]] || cached_target target; }
# cached_target NAME: makes cargo use this target directory of the cache.
cached_target() {
  export CARGO_TARGET_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/flotta/$1
  # Cargo compares only times: it would take what another clone built after these files were written for built from them.
  local last=$CARGO_TARGET_DIR/clone
  [[ $(cat "$last" 2>/dev/null) != "$PWD" ]] || return 0
  find . \( -name .git -o -name target \) -prune -o -type f -exec touch {} +
  mkdir -p "$CARGO_TARGET_DIR"
  printf '%s\n' "$PWD" >"$last"
}

# Builds what the lab's tests run: the agent as it ships, one with fail points, and the lab itself.
build_for_lab() {
  local target=${CARGO_TARGET_DIR:-target}
  step "build with fail points" cargo build --quiet --locked --workspace --features flotta-agent/faults
  cp "$target/debug/flotta-agent" "$target/debug/flotta-agent-faults"
  step "build" cargo build --quiet --locked --workspace
  step "lab" ci/lab/lab setup
}

# tool NAME: installs a cargo subcommand that the checks use. It is built once and kept in the cache.
tool() {
  local tools=${XDG_CACHE_HOME:-$HOME/.cache}/flotta/tools
  export PATH=$tools/bin:$PATH
  command -v "$1" >/dev/null || step "$1" cargo install --quiet --locked "$1" --root "$tools"
}

# can_cross TRIPLE: whether static programs for it can be built here. Installs Rust's library for it, and Zig as the C compiler and
# linker.
can_cross() {
  local tools=${XDG_CACHE_HOME:-$HOME/.cache}/flotta/tools/zig-0.15.2
  if [[ ! -x $tools/bin/cargo-zigbuild ]]; then
    # Debian's python3 alone has no ensurepip. A subshell, as `install` exits where it cannot install.
    python3 -c 'import ensurepip, venv' 2>/dev/null || (install python3 python3-venv) || return 1
    if ! { python3 -m venv "$tools" && "$tools/bin/pip" install --quiet ziglang==0.15.2 cargo-zigbuild==0.24.1; }; then
      rm -rf "$tools"
      say "Zig cannot be installed from PyPI"
      return 1
    fi
  fi
  export PATH=$tools/bin:$PATH
  rustup target add "$1" >/dev/null 2>&1 || { say "rustup cannot install $1"; return 1; }
}

# check_packages: makes the packages that ship, and checks their content. On a machine that cannot make them, it says so.
check_packages() {
  local arch triple folder package program
  command -v dpkg-deb >/dev/null || { say "left out: dpkg is not there"; return 0; }
  for arch in amd64 arm64; do
    triple=x86_64-unknown-linux-musl
    [[ $arch == amd64 ]] || triple=aarch64-unknown-linux-musl
    can_cross "$triple" || { say "left out: the packages for $arch cannot be built here"; continue; }
    ci/package --arch "$arch" || return 1
    for package in flotta flotta-agent; do
      folder=$(mktemp -d)
      dpkg-deb --extract "${CARGO_TARGET_DIR:-target}/packages/$package-$arch.deb" "$folder" || return 1
      [[ $(dpkg-deb --field "${CARGO_TARGET_DIR:-target}/packages/$package-$arch.deb" Architecture) == "$arch" ]] || return 1
      program=$folder/usr/bin/$package
      runs_here "$arch" "$program" || return 1
      rm -rf "$folder"
    done
  done
}
# runs_here ARCH PROGRAM: starts the program, emulated where needed, and prints its version.
runs_here() {
  if [[ $(uname -m) == x86_64 && $1 == arm64 ]]; then
    command -v qemu-aarch64-static >/dev/null || { can_lab && install qemu-user-static; } ||
      { say "$2 was not started: qemu-aarch64-static is not there"; return 0; }
    qemu-aarch64-static "$2" --version
  else
    "$2" --version
  fi
}

check_scripts() {
  command -v shellcheck >/dev/null || { can_lab && install shellcheck; } || { say "shellcheck is not there: left out"; return 0; }
  shellcheck -x .ci/run ci/test ci/package ci/demo ci/bench ci/fuzz ci/soak ci/lib.sh ci/dependencies ci/lab/lab deploy/debian/*/postrm
}
