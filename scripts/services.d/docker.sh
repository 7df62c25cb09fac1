# shellcheck shell=bash
# The same services as containers of docker-compose.yml.
# .services/NAME/docker says that a container is in use, and whether `up` started it or found it running:
# someone's own `docker compose up` is theirs to stop.

docker_works() {
  [[ ${ROOST_SERVICES:-} != local ]] && have docker &&
    docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

compose() { docker compose -f "$ROOT/docker-compose.yml" --profile services "$@"; }

in_docker() { [[ -e $STATE/$1/docker ]] && docker_works; }

docker_runs() { [[ -n $(compose ps -q --status running "$1" 2>/dev/null) ]]; }

docker_up() {
  local name origin
  for name in "$@"; do
    origin=found
    docker_runs "$name" || { origin=started && require_free "$name" "$(wanted_port "$name")"; }
    mkdir -p "$STATE/$name"
    echo "$origin" >"$STATE/$name/docker.part"
  done
  compose up -d --wait "$@" >&2
  for name in "$@"; do
    wanted_port "$name" >"$STATE/$name/port"
    mv "$STATE/$name/docker.part" "$STATE/$name/docker"
  done
}

docker_down() {
  [[ $(cat "$STATE/$1/docker") == found ]] || compose stop "$1" >&2
  rm -f "$STATE/$1"/{docker,port}
}

docker_wipe() {
  if docker_runs "$1"; then
    say "$1 runs in Docker, and not because of this script: its data stays"
  else
    compose down --volumes "$1" >&2
  fi
}
