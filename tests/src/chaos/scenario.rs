//! The cluster of a run and everything around it that a fault can take hold of.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::{Instant, sleep};

use super::options::Options;
use super::outside::Outside;
use crate::cluster::services::Services;
use crate::conversation::Talk;
use crate::history::What;
use crate::processes::{Cluster, Node, NodeSetup, Ring, free_addr};
use crate::proxy::Proxy;

pub const NODES: [&str; 3] = ["one", "two", "three"];
/// The node whose ways to Kafka have gates: a broker names one address to all that come by one listener.
pub const GATED: &str = NODES[0];
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The cluster with its gates.
pub struct Stage {
    pub cluster: Cluster,
    pub outside: Outside,
    /// Each node's way to Redis.
    pub redis_gates: BTreeMap<&'static str, Proxy>,
    /// In front of each broker.
    pub kafka_gates: Vec<Proxy>,
    /// Each node's clients come through one; a new one for each start at another address.
    pub client_gates: BTreeMap<&'static str, Proxy>,
    /// In front of the coordinators.
    _front: Proxy,
}

impl Stage {
    /// Two coordinators and three nodes; not settled yet.
    pub async fn set(outside: Outside, options: &Options) -> Self {
        let services = Services::at(outside.kafka(), format!("redis://{}", outside.redis()));
        let mut cluster = Cluster::launch(services, options.cluster());
        let coordinators: Vec<String> = cluster.coordinators().iter().map(|c| c.listen.to_string()).collect();
        let front = Proxy::start(&coordinators).await;
        cluster.ask_at(front.addr);
        let mut redis_gates = BTreeMap::new();
        for name in NODES {
            redis_gates.insert(name, Proxy::start(&[outside.redis()]).await);
        }
        let mut kafka_gates = Vec::new();
        for (gate, behind) in outside.kafka_gates() {
            kafka_gates.push(Proxy::start_at(gate, &[behind]).await);
        }
        let mut stage =
            Self { cluster, outside, redis_gates, kafka_gates, client_gates: BTreeMap::new(), _front: front };
        for name in NODES {
            stage.start_node(name).await;
        }
        stage
    }

    fn behind_gates(&self) -> String {
        self.kafka_gates.iter().map(|gate| gate.addr.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Starts a process at a new address; the one that had the name, if there is one, still runs, and so does the way
    /// to it as long as the caller keeps it.
    pub async fn start_node(&mut self, name: &'static str) -> Option<(Node, Proxy)> {
        let listen = free_addr();
        let gate = Proxy::start(&[listen.to_string()]).await;
        let setup = NodeSetup {
            redis_url: Some(format!("redis://{}", self.redis_gates[name].addr)),
            brokers: (name == GATED).then(|| self.behind_gates()),
            listen: Some(listen),
            public_url: Some(format!("ws://{}/socket", gate.addr)),
            ..NodeSetup::default()
        };
        let node = self.cluster.start_node(name, setup);
        let gate = self.client_gates.insert(name, gate);
        node.zip(gate)
    }
}

/// What a fault has in its hands.
pub struct Scenario<'a> {
    pub stage: &'a mut Stage,
    pub talk: &'a Talk,
    pub options: &'a Options,
    pub rng: &'a mut StdRng,
    pub round: usize,
    /// Users that nobody speaks as.
    pub shouters: &'a [usize],
    pub fault: &'static str,
    /// Whose messages show that this is over, and since when they count.
    pub affected: Vec<usize>,
    pub since: Instant,
}

impl Scenario<'_> {
    pub fn node(&mut self) -> &'static str {
        NODES.choose(self.rng).expect("there are nodes")
    }

    /// The users that are at home there now.
    pub async fn users_of(&self, node: &str) -> Vec<usize> {
        let ring = self.ring().await;
        let at_home = |user: &usize| self.stage.cluster.home_in(&ring, &self.talk.people[*user].name) == node;
        self.everybody().into_iter().filter(at_home).collect()
    }

    pub fn everybody(&self) -> Vec<usize> {
        (0..self.talk.people.len() - self.shouters.len()).collect()
    }

    /// The table of a cluster whose coordinators answer.
    pub async fn ring(&self) -> Ring {
        loop {
            if let Some(ring) = self.stage.cluster.ring().await {
                return ring;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// From now on.
    pub fn begins(&mut self, detail: impl Into<String>, affected: Vec<usize>) {
        let (round, fault) = (self.round, self.fault.to_owned());
        self.affected.clone_from(&affected);
        self.since = Instant::now();
        self.note(What::Began { round, fault, detail: detail.into(), affected });
    }

    /// Everybody is affected, and who recovers is counted from the end.
    pub fn outage_begins(&mut self, detail: impl Into<String>) {
        self.begins(detail, self.everybody());
        self.note(What::Outage { round: self.round });
    }

    /// Redis may lose what it took in this long before, and from now on.
    pub fn data_lost(&self, back: Duration) {
        let back_ms = u64::try_from(back.as_millis()).unwrap_or(u64::MAX);
        self.note(What::DataLost { round: self.round, back_ms });
    }

    pub fn outage_ends(&mut self) {
        self.since = Instant::now();
        self.ends();
    }

    pub fn ends(&mut self) {
        self.note(What::Ended { round: self.round });
    }

    pub fn note(&self, what: What) {
        self.talk.ledger().note(what);
    }
}
