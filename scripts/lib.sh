# shellcheck shell=bash
# What the scripts here share: words on stderr (stdout is for output another program reads), and what
# to do about a missing program. Source it; it only defines things.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT

say() { printf '%s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# need_cmd NAME "how to get it"
need_cmd() { have "$1" || die "$1 is missing; $2"; }

# apt_need PACKAGE...: installs as root, otherwise names the command to type.
apt_need() {
  (($# > 0)) || return 0
  have apt-get || die "please install with this system's package manager (Debian's names): $*"
  [[ $EUID -eq 0 ]] || die "please install first: sudo apt-get install --no-install-recommends $*"
  say "installing $*"
  (without_daemons apt_install "$@") || exit 1
}

apt_install() {
  local -x DEBIAN_FRONTEND=noninteractive
  local -a install=(apt-get install -qq -y --no-install-recommends "$@")
  ! "${install[@]}" >&2 || return 0
  say "refreshing the package lists and trying again"
  { apt-get update -qq >&2 && "${install[@]}" >&2; } || die "apt-get could not install: $*"
}

# For `node --test --test-concurrency`.
NODE_MIN=20.10

need_node() {
  local version major minor
  need_cmd node "install Node $NODE_MIN or newer (https://nodejs.org/en/download)"
  need_cmd npm "install npm (it comes with Node; Debian: sudo apt-get install npm)"
  version=$(node --version) || die "node does not run (see above)"
  IFS=. read -r major minor _ <<<"${version#v}"
  ((major > ${NODE_MIN%.*} || (major == ${NODE_MIN%.*} && minor >= ${NODE_MIN#*.}))) ||
    die "node $version is too old: install Node $NODE_MIN or newer (https://nodejs.org/en/download)"
}

# The browser of the tests, for this script and those that it runs: CHROMIUM, or the system's.
need_chromium() {
  [[ -n ${CHROMIUM:-} ]] || have chromium || apt_need chromium
  export CHROMIUM="${CHROMIUM:-$(command -v chromium)}"
  [[ -x $CHROMIUM ]] || die "CHROMIUM is no program: $CHROMIUM"
}

# node_test [OPTION...] FILE...: one after the other. A file that hangs is ended, one that only left something open too,
# where this Node knows how (20.14).
node_test() {
  local known option
  local -a ends=()
  known=$(node --help)
  for option in --test-force-exit --test-timeout=900000; do
    [[ $known != *"${option%%=*}"* ]] || ends+=("$option")
  done
  node --test --test-concurrency=1 "${ends[@]}" "$@"
}

# Debian starts a server as soon as its package is installed, on the very port we are about to use;
# a policy-rc.d that answers 101 is the documented way to say no. Runs in the caller's subshell.
without_daemons() {
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    # shellcheck disable=SC2064  # the path is meant to be fixed now
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  "$@"
}
