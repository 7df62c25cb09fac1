# shellcheck shell=bash
# A local Kafka broker, or three of one cluster, from the jars that scripts/kafka/pom.xml names: what it needs, how it
# starts, whether it answers.

missing_kafka() {
  have java || echo default-jre-headless
  kafka_jars_current || have mvn || echo maven
}

# The pom.xml that the jars came from lies beside them, so that a new version in it is noticed.
kafka_jars_current() { cmp -s "$ROOT/scripts/kafka/pom.xml" "$STATE/kafka/libs/pom.xml"; }

fetch_kafka_jars() {
  local libs=$STATE/kafka/libs log=$STATE/kafka/prepare.log
  ! kafka_jars_current || return 0
  say "fetching Kafka's jars with Maven (about 43 MB, once)"
  rm -rf "$libs" "$libs.part"
  mvn -q -B -f "$ROOT/scripts/kafka/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$libs.part" >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    die "Maven could not fetch Kafka's jars: it needs the network, or a mirror in its settings.xml, this once"
  }
  cp "$ROOT/scripts/kafka/pom.xml" "$libs.part/"
  mv "$libs.part" "$libs"
}

# With KAFKA_GATE_PORT there is a second listener, two ports above the first, whose clients are told to go on at the
# gate's port: whoever runs a proxy there (the chaos run) can cut them off.
# kafka_listeners PORT GATE
kafka_listeners() {
  local port=$1 gate=$2
  local plain="PLAINTEXT://127.0.0.1:$port" controller="CONTROLLER://127.0.0.1:$((port + 1))"
  echo "controller.listener.names=CONTROLLER"
  echo "listeners=$plain,$controller${gate:+,GATED://127.0.0.1:$((port + 2))}"
  [[ -z $gate ]] || cat <<CONFIG
advertised.listeners=$plain,GATED://127.0.0.1:$gate
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GATED:PLAINTEXT
CONFIG
}

# kafka_properties NAME: of the only broker, or of one of three, each of which keeps a copy of everything; two of them
# must have a record before it is confirmed.
kafka_properties() {
  local name=$1 port id=1 copies=1 synced=1 voters gate=${KAFKA_GATE_PORT:-} broker
  port=$(wanted_port "$name")
  voters="1@127.0.0.1:$((port + 1))"
  if [[ $name == kafka-3-* ]]; then
    id=${name#kafka-3-} copies=3 synced=2 voters=
    gate=${gate:+$((port + 3))}
    for broker in "${BROKERS[@]}"; do
      voters+="${voters:+,}${broker#kafka-3-}@127.0.0.1:$(($(wanted_port "$broker") + 1))"
    done
  fi
  kafka_listeners "$port" "$gate"
  cat <<CONFIG
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$voters
log.dirs=$STATE/$name/data
auto.create.topics.enable=false
default.replication.factor=$copies
min.insync.replicas=$synced
offsets.topic.replication.factor=$copies
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$synced
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$synced
# A first consumer does not wait for others, and the first commit does not create fifty partitions.
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
CONFIG
}

# A cluster id: sixteen random bytes, and not one that would read as an option.
# The second and the third broker have that of the first.
kafka_cluster_id() {
  local id=-
  [[ $1 != kafka-3-[23] ]] || id=$(sed -n 's/^cluster.id=//p' "$STATE/kafka-3-1/data/meta.properties")
  while [[ $id == -* ]]; do
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
  done
  echo "$id"
}

start_kafka() { start_broker kafka -Xmx512m; }
start_kafka-3-1() { start_broker kafka-3-1 -Xmx320m -XX:+UseSerialGC; }
start_kafka-3-2() { start_broker kafka-3-2 -Xmx320m -XX:+UseSerialGC; }
start_kafka-3-3() { start_broker kafka-3-3 -Xmx320m -XX:+UseSerialGC; }

# start_broker NAME OPTION...
start_broker() {
  local name=$1 dir=$STATE/$1 libs=$STATE/kafka/libs major
  shift
  major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  ((${major:-0} >= 17)) || die "Kafka 4 needs Java 17 or later, and \`java\` is ${major:-of an unknown version}:" \
    "install one, for example the package openjdk-17-jre-headless"
  mkdir -p "$dir" "$STATE/kafka"
  fetch_kafka_jars
  kafka_properties "$name" >"$dir/server.properties"
  if [[ ! -e $dir/data/meta.properties ]]; then
    rm -rf "$dir/data"
    java -cp "$libs/*" kafka.tools.StorageTool format -t "$(kafka_cluster_id "$name")" -c "$dir/server.properties" \
      >"$dir/prepare.log" 2>&1 || die "Kafka could not prepare its data directory; see $dir/prepare.log"
  fi
  start_process "$name" java "$@" -XX:+ExitOnOutOfMemoryError \
    -Dorg.slf4j.simpleLogger.showDateTime=true \
    -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS \
    -Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn \
    -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn \
    -cp "$libs/*" kafka.Kafka "$dir/server.properties"
}

answers_kafka() { lists_brokers kafka '0[1-9]'; }
answers_kafka-3-1() { lists_brokers kafka-3-1 03; }
answers_kafka-3-2() { lists_brokers kafka-3-2 03; }
answers_kafka-3-3() { lists_brokers kafka-3-3 03; }

# lists_brokers NAME PATTERN: asks for the metadata of all topics (request 3, version 0, https://kafka.apache.org/protocol)
# and wants so many brokers listed, the one that is asked among them once it serves: no client has to be installed.
lists_brokers() {
  local answer
  answer=$(
    exec 3<>"/dev/tcp/127.0.0.1/$(port_of "$1")" || exit 1
    printf '\0\0\0\016\0\003\0\0\0\0\0\001\377\377\0\0\0\0' >&3
    timeout 2 head -c 12 <&3 | od -An -v -tx1 # length, correlation id, number of brokers
  ) || return 1
  [[ $answer =~ ^(\ [0-9a-f]{2}){4}\ 00\ 00\ 00\ 01\ 00\ 00\ 00\ $2$ ]]
} 2>/dev/null
