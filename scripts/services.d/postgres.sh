# shellcheck shell=bash
# A local PostgreSQL: what it needs, how it starts, whether it answers.
# It refuses to run as root; for root it runs as the user `postgres` that its package made.

AS_POSTGRES=()
[[ $EUID -ne 0 ]] || AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --init-groups --)
ELSEWHERE=/var/tmp/roost-postgres # where its data goes if that user cannot reach the checkout

missing_postgres() { postgres_bin >/dev/null || echo postgresql; }

# Where the programs are: of the version that wrote the data, else the newest from 15 on.
postgres_bin() {
  local version
  version=$(cat "$STATE/postgres/data/PG_VERSION" 2>/dev/null) ||
    version=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort -n | tail -n 1)
  [[ ${version:-0} -ge 15 && -x /usr/lib/postgresql/$version/bin/initdb ]] || return 1
  echo "/usr/lib/postgresql/$version/bin"
}

as_postgres() { (cd / && exec "${AS_POSTGRES[@]}" "$@"); }

make_postgres_data() {
  local data=$STATE/postgres/data elsewhere
  mkdir -p "$STATE/postgres"
  [[ ! -d $data ]] || return 0
  if [[ $EUID -ne 0 ]]; then
    mkdir -m 700 "$data"
  elif as_postgres test -x "$STATE/postgres"; then
    install -d -o postgres -g postgres -m 700 "$data"
  else
    elsewhere=$(as_postgres mktemp -d "$ELSEWHERE.XXXXXX")
    ln -sfn "$elsewhere" "$data"
    say "the user postgres cannot reach $STATE, so its data is in $elsewhere"
  fi
}

start_postgres() {
  local data bin log=$STATE/postgres/prepare.log tls=off
  bin=$(postgres_bin) || die "no PostgreSQL of version 15 or later under /usr/lib/postgresql: install one"
  make_postgres_data
  data=$(readlink -f "$STATE/postgres/data")
  if [[ ! -e $data/roost-initialised ]]; then
    find "$data" -mindepth 1 -delete # what an interrupted initdb left
    # Trust: the password in DATABASE_URL is no secret, and only this machine can connect.
    as_postgres "$bin/initdb" -D "$data" --username=roost --auth=trust --encoding=UTF8 --locale=C \
      >"$log" 2>&1 || die "PostgreSQL could not prepare its data directory; see $log"
    make_certificate "$data" >>"$log" 2>&1 || say "without openssl PostgreSQL has no TLS; see $log"
    as_postgres touch "$data/roost-initialised"
  fi
  [[ ! -e $data/server.crt ]] || tls=on
  forget_dead_postmaster "$data/postmaster.pid"
  start_process postgres "${AS_POSTGRES[@]}" "$bin/postgres" -D "$data" -p "$(wanted_port postgres)" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c ssl="$tls"
}

# An authority of its own, and what that has signed for 127.0.0.1: `env` says where the authority is.
make_certificate() (
  have openssl && cd / || return 1
  new=(as_postgres openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout)
  "${new[@]}" "$1/ca.key" -x509 -days 3650 -subj "/CN=roost test authority" -out "$1/ca.crt" &&
    "${new[@]}" "$1/server.key" -subj "/CN=127.0.0.1" -addext "subjectAltName=IP:127.0.0.1" -out "$1/server.csr" &&
    as_postgres openssl x509 -req -in "$1/server.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -days 3650 \
      -copy_extensions copy -out "$1/server.crt" && cp "$1/ca.crt" "$STATE/postgres/ca.crt"
)

# A postmaster that was killed and that a slow init has not reaped yet looks alive to the next one,
# which then refuses to start. PostgreSQL itself sees to a lock file whose process is gone.
forget_dead_postmaster() {
  local pid
  pid=$(head -n 1 "$1" 2>/dev/null) || return 0
  [[ ! -d /proc/$pid ]] || started_at "$pid" >/dev/null || rm -f "$1"
}

# It answers once the database `roost` does; the first call that gets through creates that.
answers_postgres() {
  sql roost 'select 1' || sql postgres 'create database roost'
} >/dev/null 2>&1

sql() {
  timeout 2 "$(postgres_bin)/psql" -XqAt -h 127.0.0.1 -p "$(port_of postgres)" -U roost -d "$1" -c "$2" </dev/null
}
