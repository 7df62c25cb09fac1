# shellcheck shell=bash
# Processes that outlive this script: started in the background, found again by pid and start time,
# asked to stop before they are killed. Knows nothing of what they are.

STOP_S=10 # a service that ignores its stop signal this long is killed

# When a process started, in ticks since boot: with its pid this names one process for good, where a
# pid alone may by now belong to someone else. Fails for a process that is gone or a zombie.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -r -a stat <<<"${stat##*) }" # what follows the command's name, which may hold spaces
  [[ ${stat[0]} != Z ]] && echo "${stat[19]}"
}

local_pid() {
  local pid since
  pid=$(cat "$STATE/$1/pid" 2>/dev/null) && since=$(cat "$STATE/$1/since" 2>/dev/null) || return 1
  [[ $(started_at "$pid") == "$since" ]] && echo "$pid"
}

# start_process NAME COMMAND...: in a session of its own, so that Ctrl-C here does not reach it.
start_process() {
  local name=$1 dir=$STATE/$1 pid
  shift
  [[ ! -e $dir/log ]] || mv "$dir/log" "$dir/log.1"
  wanted_port "$name" >"$dir/port"
  (cd / && exec setsid "$@") </dev/null >"$dir/log" 2>&1 9>&- &
  pid=$!
  echo "$pid" >"$dir/pid"
  started_at "$pid" >"$dir/since" || true # `await` reports one that died at once
}

# await NAME: until it answers; if it does not, nothing that this call started is left behind.
await() {
  local name=$1 deadline=$((SECONDS + WAIT_S)) why=
  until "answers_$name"; do
    if ! local_pid "$name" >/dev/null; then
      why="$name stopped while it was starting"
    elif ((SECONDS >= deadline)); then
      why="$name did not answer within $WAIT_S s"
    fi
    [[ -z $why ]] || give_up "$name" "$why"
    sleep 0.1
  done
}

give_up() {
  local name
  say "the end of $STATE/$1/log:"
  tail -n 15 "$STATE/$1/log" >&2 || true
  for name in ${STARTED[@]+"${STARTED[@]}"}; do stop_process "$name"; done
  die "$2"
}

# The last of its threads, which may end after its main one, has its ports until then.
await_threads() {
  local tenths
  local -a threads
  for ((tenths = 0; tenths < STOP_S * 10; tenths++)); do
    threads=(/proc/"$1"/task/*)
    if ((${#threads[@]} < 2)) && ! living_thread "${threads[0]}"; then return; fi
    sleep 0.1
  done
}

living_thread() { grep -qv ") Z " "$1/stat" 2>/dev/null; }

stop_process() {
  local name=$1 pid signal=TERM tenths
  if pid=$(local_pid "$name"); then
    # PostgreSQL takes TERM as "when the last client has left" and INT as "now, cleanly".
    [[ $name != postgres ]] || signal=INT
    kill -s "$signal" "$pid"
    kill -s CONT "$pid" 2>/dev/null || true # a paused process would not see the signal
    for ((tenths = 0; tenths < STOP_S * 10; tenths++)); do
      local_pid "$name" >/dev/null || break
      sleep 0.1
    done
    if local_pid "$name" >/dev/null; then
      kill -s KILL "$pid" 2>/dev/null || true
      say "$name did not stop within $STOP_S s and was killed (pid $pid)"
    else
      say "$name stopped"
    fi
    await_threads "$pid"
  fi
  rm -f "$STATE/$name"/{pid,since,port}
}
