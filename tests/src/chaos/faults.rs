//! What is done to the cluster: each fault from its beginning to its end.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{bail, ensure};
use rand::RngExt;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use redis::cmd;
use roost_proto::events::PARTITIONS;
use tokio::time::sleep;

use super::outside::Service;
use super::scenario::{GATED, NODES, Scenario};
use crate::processes::{LIMIT, Signal, until};

/// Between the death of a node and that of the one that takes most of what it had.
const SUCCESSOR_AFTER: Duration = Duration::from_millis(500);
/// A frozen process sleeps for so many leases.
const FROZEN_LEASES: f64 = 2.5;
/// What a reader that reads nothing is sent: 40 messages of 16 KiB a second are more than the buffers of all
/// sockets on the way take within a second or ten.
const SHOUTS_EVERY: Duration = Duration::from_millis(50);
const SHOUT_BYTES: usize = 16 * 1024;
/// Records that nobody can read, in one fault.
const POISON: usize = 40;
/// All clients are cut, and may come back at once after that.
const STORM: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    NodeTerm,
    NodeKill,
    SuccessorKilled,
    NodeFrozen,
    RedisStopped,
    RedisRestartedEmpty,
    RedisRestartedOld,
    ResyncOld,
    RedisFlushed,
    KafkaStopped,
    KafkaFrozen,
    KafkaRestarted,
    BrokerKilled,
    BrokerStopped,
    BrokerFrozen,
    CoordinatorsDead,
    LeaderFrozen,
    Twin,
    NodeCutFromRedis,
    NodeCutFromAll,
    DeadReader,
    ReconnectStorm,
    PoisonRecord,
}

impl Fault {
    pub const ALL: [Self; 23] = [
        Self::NodeTerm,
        Self::NodeKill,
        Self::SuccessorKilled,
        Self::NodeFrozen,
        Self::RedisStopped,
        Self::RedisRestartedEmpty,
        Self::RedisRestartedOld,
        Self::ResyncOld,
        Self::RedisFlushed,
        Self::KafkaStopped,
        Self::KafkaFrozen,
        Self::KafkaRestarted,
        Self::BrokerKilled,
        Self::BrokerStopped,
        Self::BrokerFrozen,
        Self::CoordinatorsDead,
        Self::LeaderFrozen,
        Self::Twin,
        Self::NodeCutFromRedis,
        Self::NodeCutFromAll,
        Self::DeadReader,
        Self::ReconnectStorm,
        Self::PoisonRecord,
    ];
    /// Of a run of a minute or two.
    pub const SHORT: [Self; 6] = [
        Self::NodeTerm,
        Self::NodeKill,
        Self::NodeFrozen,
        Self::RedisFlushed,
        Self::KafkaRestarted,
        Self::CoordinatorsDead,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::NodeTerm => "node_term",
            Self::NodeKill => "node_kill",
            Self::SuccessorKilled => "successor_killed",
            Self::NodeFrozen => "node_frozen",
            Self::RedisStopped => "redis_stopped",
            Self::RedisRestartedEmpty => "redis_restarted_empty",
            Self::RedisRestartedOld => "redis_restarted_old",
            Self::ResyncOld => "resync_old",
            Self::RedisFlushed => "redis_flushed",
            Self::KafkaStopped => "kafka_stopped",
            Self::KafkaFrozen => "kafka_frozen",
            Self::KafkaRestarted => "kafka_restarted",
            Self::BrokerKilled => "broker_killed",
            Self::BrokerStopped => "broker_stopped",
            Self::BrokerFrozen => "broker_frozen",
            Self::CoordinatorsDead => "coordinators_dead",
            Self::LeaderFrozen => "leader_frozen",
            Self::Twin => "twin",
            Self::NodeCutFromRedis => "node_cut_from_redis",
            Self::NodeCutFromAll => "node_cut_from_all",
            Self::DeadReader => "dead_reader",
            Self::ReconnectStorm => "reconnect_storm",
            Self::PoisonRecord => "poison_record",
        }
    }

    pub fn needs_three_brokers(self) -> bool {
        matches!(self, Self::BrokerKilled | Self::BrokerStopped | Self::BrokerFrozen)
    }

    /// For the reader of a table.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NodeTerm => "SIGTERM to a node; started again when it has ended",
            Self::NodeKill => "SIGKILL to a node; started again after a lease",
            Self::SuccessorKilled => {
                "SIGKILL to a node, half a second later to the one with the most vnodes of the others"
            }
            Self::NodeFrozen => "SIGSTOP to a node for 2.5 leases, then SIGCONT",
            Self::RedisStopped => "SIGSTOP to Redis for an outage, then SIGCONT",
            Self::RedisRestartedEmpty => "SIGKILL to Redis; started without data",
            Self::RedisRestartedOld => "SIGKILL to Redis; started with its files of some seconds before",
            Self::ResyncOld => {
                "Redis made the replica of a server with its files of some seconds before, and a primary again"
            }
            Self::RedisFlushed => "FLUSHALL",
            Self::KafkaStopped => "Kafka stopped in order for an outage, then started",
            Self::KafkaFrozen => "SIGSTOP to Kafka for an outage, then SIGCONT",
            Self::KafkaRestarted => "Kafka stopped in order and started at once",
            Self::BrokerKilled => "SIGKILL to one of three brokers; started again after an outage",
            Self::BrokerStopped => "one of three brokers stopped in order; started again after an outage",
            Self::BrokerFrozen => "SIGSTOP to one of three brokers for an outage, then SIGCONT",
            Self::CoordinatorsDead => "SIGKILL to all coordinators; started again after two outages",
            Self::LeaderFrozen => "SIGSTOP to the leading coordinator for 2.5 leases, then SIGCONT",
            Self::Twin => "a second process with the NODE_ID of a living one",
            Self::NodeCutFromRedis => "one node's way to Redis silent, or refused, for 2.5 leases",
            Self::NodeCutFromAll => {
                "one node's ways to Redis and Kafka silent, or refused, for a lease and the grace"
            }
            Self::DeadReader => "a client takes nothing for two outages while it is sent 640 KiB/s",
            Self::ReconnectStorm => "all connections of all clients cut at once",
            Self::PoisonRecord => "40 records of garbage in the topic of one node",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::ALL.into_iter().find(|fault| fault.name() == text) {
            Some(fault) => Ok(fault),
            None => bail!("'{text}' is no fault; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

impl Scenario<'_> {
    /// Does it, from before its beginning until what was done is undone.
    ///
    /// # Errors
    /// If it could not be done: the run is void.
    pub async fn inject(&mut self, fault: Fault) -> anyhow::Result<()> {
        let outage = self.options.outage();
        let frozen = self.options.lease().mul_f64(FROZEN_LEASES);
        match fault {
            Fault::NodeTerm => self.node_term().await?,
            Fault::NodeKill => self.node_kill().await,
            Fault::SuccessorKilled => self.successor_killed().await,
            Fault::NodeFrozen => self.node_frozen(frozen).await,
            Fault::RedisStopped => self.frozen(Service::Redis, outage).await?,
            Fault::KafkaFrozen => self.frozen(Service::Kafka, outage).await?,
            Fault::RedisRestartedEmpty => {
                self.outage_begins("");
                self.data_lost(outage);
                self.stage.outside.restart_redis_empty().await?;
                self.outage_ends();
            }
            Fault::RedisRestartedOld => self.redis_restarted_old().await?,
            Fault::ResyncOld => self.resync_old().await?,
            Fault::RedisFlushed => {
                self.begins("", self.everybody());
                self.data_lost(outage);
                self.stage.cluster.redis::<()>(&cmd("FLUSHALL")).await;
                self.ends();
            }
            Fault::KafkaStopped => self.kafka_away(outage).await?,
            Fault::KafkaRestarted => self.kafka_away(Duration::ZERO).await?,
            Fault::BrokerKilled => self.broker_away("KILL", outage).await?,
            Fault::BrokerStopped => self.broker_away("", outage).await?,
            Fault::BrokerFrozen => self.broker_frozen(outage).await?,
            Fault::CoordinatorsDead => self.coordinators_dead(2 * outage).await,
            Fault::LeaderFrozen => self.leader_frozen(frozen).await?,
            Fault::Twin => self.twin().await?,
            Fault::NodeCutFromRedis => self.node_cut_from_redis(frozen).await,
            Fault::NodeCutFromAll => self.node_cut_from_all().await,
            Fault::DeadReader => self.dead_reader(2 * outage).await,
            Fault::ReconnectStorm => self.reconnect_storm().await,
            Fault::PoisonRecord => self.poison_record().await?,
        }
        Ok(())
    }

    async fn node_term(&mut self) -> anyhow::Result<()> {
        let name = self.node();
        let affected = self.users_of(name).await;
        self.begins(name, affected);
        let node = self.stage.cluster.node_mut(name);
        node.process.signal(Signal::Terminate).await;
        let code = node.process.ended().await;
        ensure!(code.success(), "{name} was asked to stop and ended with {code}");
        self.stage.start_node(name).await;
        self.ends();
        Ok(())
    }

    async fn node_kill(&mut self) {
        let name = self.node();
        let affected = self.users_of(name).await;
        self.begins(name, affected);
        self.stage.cluster.node_mut(name).process.kill();
        sleep(self.options.lease()).await;
        self.stage.start_node(name).await;
        self.ends();
    }

    async fn successor_killed(&mut self) {
        let first = self.node();
        let ring = self.ring().await;
        let others = NODES.into_iter().filter(|name| *name != first);
        let busiest = others.max_by_key(|name| ring.of(&self.stage.cluster.node_id(name)).len());
        let second = busiest.expect("three nodes");
        let mut affected = self.users_of(first).await;
        affected.extend(self.users_of(second).await);
        self.begins(format!("{first}, {second}"), affected);
        self.stage.cluster.node_mut(first).process.kill();
        sleep(SUCCESSOR_AFTER).await;
        self.stage.cluster.node_mut(second).process.kill();
        sleep(self.options.lease()).await;
        self.stage.start_node(first).await;
        self.stage.start_node(second).await;
        self.ends();
    }

    async fn node_frozen(&mut self, time: Duration) {
        let name = self.node();
        let affected = self.users_of(name).await;
        self.begins(name, affected);
        self.stage.cluster.node(name).process.signal(Signal::Stop).await;
        sleep(time).await;
        self.stage.cluster.node(name).process.signal(Signal::Continue).await;
        self.ends();
    }

    async fn frozen(&mut self, service: Service, time: Duration) -> anyhow::Result<()> {
        self.outage_begins("");
        self.stage.outside.signal(service, "STOP").await?;
        sleep(time).await;
        self.stage.outside.signal(service, "CONT").await?;
        self.outage_ends();
        Ok(())
    }

    async fn redis_restarted_old(&mut self) -> anyhow::Result<()> {
        self.stage.outside.keep_snapshot()?;
        let age = self.options.outage().mul_f64(self.rng.random_range(0.1..0.4));
        sleep(age).await;
        self.outage_begins(format!("{age:.1?} old"));
        self.data_lost(2 * age);
        self.stage.outside.restart_redis_with_snapshot().await?;
        self.outage_ends();
        Ok(())
    }

    async fn resync_old(&mut self) -> anyhow::Result<()> {
        self.stage.outside.keep_snapshot()?;
        let age = self.options.outage().mul_f64(self.rng.random_range(0.1..0.4));
        sleep(age).await;
        self.outage_begins(format!("{age:.1?} old"));
        self.data_lost(2 * age);
        self.stage.outside.resync_redis_with_snapshot().await?;
        self.outage_ends();
        Ok(())
    }

    fn broker(&mut self) -> Service {
        Service::Broker(self.rng.random_range(0..3))
    }

    /// Killed, or stopped in order.
    async fn broker_away(&mut self, signal: &str, time: Duration) -> anyhow::Result<()> {
        let broker = self.broker();
        self.begins(format!("{broker:?}"), self.everybody());
        match signal {
            "" => self.stage.outside.down(broker).await?,
            signal => self.stage.outside.signal(broker, signal).await?,
        }
        sleep(time).await;
        self.stage.outside.up(broker).await?;
        self.ends();
        Ok(())
    }

    async fn broker_frozen(&mut self, time: Duration) -> anyhow::Result<()> {
        let broker = self.broker();
        self.begins(format!("{broker:?}"), self.everybody());
        self.stage.outside.signal(broker, "STOP").await?;
        sleep(time).await;
        self.stage.outside.signal(broker, "CONT").await?;
        self.ends();
        Ok(())
    }

    async fn kafka_away(&mut self, time: Duration) -> anyhow::Result<()> {
        self.outage_begins("");
        self.stage.outside.down(Service::Kafka).await?;
        sleep(time).await;
        self.stage.outside.up(Service::Kafka).await?;
        self.outage_ends();
        Ok(())
    }

    async fn coordinators_dead(&mut self, time: Duration) {
        self.begins("", self.everybody());
        let all = 0..self.stage.cluster.coordinators().len();
        all.clone().for_each(|i| self.stage.cluster.kill_coordinator(i));
        sleep(time).await;
        all.for_each(|i| self.stage.cluster.start_coordinator(i));
        self.ends();
    }

    async fn leader_frozen(&mut self, time: Duration) -> anyhow::Result<()> {
        let leading = until("a coordinator leads", LIMIT, async || self.stage.cluster.leading().await).await;
        self.begins(format!("coordinator {leading}"), self.everybody());
        let Some(process) = &self.stage.cluster.coordinators()[leading].process else {
            bail!("the leader does not run");
        };
        process.signal(Signal::Stop).await;
        sleep(time).await;
        process.signal(Signal::Continue).await;
        self.ends();
        Ok(())
    }

    async fn twin(&mut self) -> anyhow::Result<()> {
        let name = self.node();
        let affected = self.users_of(name).await;
        self.begins(name, affected);
        let Some((mut earlier, _way)) = self.stage.start_node(name).await else {
            bail!("{name} has no process")
        };
        let code = earlier.process.ended().await;
        ensure!(code.code() == Some(1), "a replaced node ends as a failure, not with {code}");
        self.ends();
        Ok(())
    }

    async fn node_cut_from_redis(&mut self, time: Duration) {
        let (name, refused) = (self.node(), self.rng.random());
        let affected = self.users_of(name).await;
        self.begins(format!("{name}, {}", if refused { "refused" } else { "silent" }), affected);
        let gate = &self.stage.redis_gates[name];
        if refused {
            gate.cut()
        } else {
            gate.shut()
        }
        sleep(time).await;
        gate.restore();
        self.ends();
    }

    async fn node_cut_from_all(&mut self) {
        let refused = self.rng.random();
        let affected = self.users_of(GATED).await;
        self.begins(format!("{GATED}, {}", if refused { "refused" } else { "silent" }), affected);
        let gates = || std::iter::once(&self.stage.redis_gates[GATED]).chain(&self.stage.kafka_gates);
        gates().for_each(|gate| if refused { gate.cut() } else { gate.shut() });
        sleep(self.options.lease() + self.options.grace()).await;
        gates().for_each(|gate| gate.restore());
        self.ends();
    }

    async fn dead_reader(&mut self, time: Duration) {
        let reader = self.rng.random_range(0..self.everybody().len());
        let person = &self.talk.people[reader];
        self.begins(person.name.clone(), vec![reader]);
        self.note(crate::history::What::Outage { round: self.round });
        self.talk.people[reader].reads.send_replace(false);
        let shouting = self.talk.speak_padded(self.shouters, &[reader], SHOUTS_EVERY, SHOUT_BYTES);
        sleep(time).await;
        self.talk.people[reader].reads.send_replace(true);
        self.outage_ends();
        shouting.end().await;
    }

    async fn reconnect_storm(&mut self) {
        self.begins("", self.everybody());
        self.stage.client_gates.values().for_each(crate::proxy::Proxy::cut);
        sleep(STORM).await;
        self.stage.client_gates.values().for_each(crate::proxy::Proxy::restore);
        self.ends();
    }

    async fn poison_record(&mut self) -> anyhow::Result<()> {
        let name = self.node();
        let topic = format!("messages-{}", self.stage.cluster.node_id(name));
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", self.stage.outside.kafka()).create()?;
        let affected = self.users_of(name).await;
        self.begins(name, affected);
        for i in 0..POISON {
            let payload = self.garbage(i);
            let partition = i32::try_from(self.rng.random_range(0..PARTITIONS))?;
            let key = self.rng.random_range(0..64_u32).to_string();
            let record = FutureRecord::to(&topic).partition(partition).key(&key).payload(&payload);
            if let Err((error, _)) = producer.send(record, LIMIT).await {
                bail!("the garbage is not taken: {error}");
            }
        }
        self.ends();
        Ok(())
    }

    fn garbage(&mut self, i: usize) -> Vec<u8> {
        match i % 5 {
            0 => Vec::new(),
            1 => (0..self.rng.random_range(1..2_000)).map(|_| self.rng.random()).collect(),
            2 => br#"{"item":{"vnode":1,"epoch":"#.to_vec(),
            3 => br#"{"item":{"vnode":99999,"n":-1,"epoch":"x","body":{}}}"#.to_vec(),
            _ => br#"{"confirm":{"from":0,"results":null}}"#.to_vec(),
        }
    }
}
