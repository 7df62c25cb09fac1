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
