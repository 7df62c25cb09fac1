# shellcheck shell=bash
# A local Redis: what it needs, how it starts, whether it answers.

missing_redis() { { have redis-server && have redis-cli; } || echo redis-server; }

start_redis() {
  local version
  version=$(redis-server --version)
  if [[ ! $version =~ v=([0-9]+) ]] || ((BASH_REMATCH[1] < 7)); then
    die "Redis 7 or later is needed, this is: $version"
  fi
  mkdir -p "$STATE/redis/data"
  start_process redis redis-server --bind 127.0.0.1 --port "$(wanted_port redis)" \
    --dir "$STATE/redis/data" --appendonly yes --save '' --maxmemory-policy noeviction --stream-node-max-bytes 1024
}

answers_redis() {
  [[ $(timeout 2 redis-cli -h 127.0.0.1 -p "$(port_of redis)" ping 2>/dev/null) == PONG ]]
}
