//! A cluster of three nodes in this process, on the back end to be measured.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use roost_backend::embedded::{EmbeddedLog, EmbeddedStore};
use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::redis::RedisStore;
use roost_backend::store::StoreConfig;
use roost_coordinator::{Coordinator, CoordinatorConfig, RequestLimits};
use roost_proto::claims::Role;
use roost_proto::{Claims, NodeId, UserId};
use roost_ring::Pins;
use roost_service::Secret;
use roost_service::tokens::{KeySource, Verifier, sign};
use roost_ws_node::{Backends, Ports, Server, WsNodeConfig};
use tokio::net::TcpListener;
use tokio::time::timeout;

const SECRET: &str = "the secret of a benchmark is no secret at all";
pub(crate) const VNODES: u32 = 256;
const READY_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub backends: Backends,
    coordinator: Coordinator,
    servers: Vec<Server>,
    http: reqwest::Client,
    run: u32,
}

pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

impl Cluster {
    pub(crate) async fn embedded() -> Result<Self> {
        let store = EmbeddedStore::memory(StoreConfig::default(), Arc::new(wall_ms));
        let log = EmbeddedLog::memory()?;
        Self::start(Backends { store: Arc::new(store), log: Arc::new(log) }).await
    }

    pub(crate) async fn services(brokers: &str, redis: &str) -> Result<Self> {
        let store = RedisStore::connect(redis, StoreConfig::default()).await?;
        let log =
            KafkaLog::connect(KafkaConfig { brokers: brokers.to_owned(), ..KafkaConfig::default() }).await?;
        Self::start(Backends { store: Arc::new(store), log: Arc::new(log) }).await
    }

    async fn start(backends: Backends) -> Result<Self> {
        let run: u32 = rand::random();
        let port = || TcpListener::bind("127.0.0.1:0");
        let verifier = Verifier::new(KeySource::from_secret(&Secret::new(SECRET))?, None, None);
        let mut config =
            CoordinatorConfig::new(VNODES, StoreConfig::default().lease_ttl_ms, verifier.clone());
        config.requests = RequestLimits::NONE;
        let coordinator =
            Coordinator::bind(config, Arc::clone(&backends.store), port().await?, port().await?).await?;
        let mut servers = Vec::new();
        for i in 1..=3 {
            let node = NodeId::new(format!("bench-{run:08x}-{i}"))?;
            let mut config = WsNodeConfig::new(node, VNODES, &Pins::Auto, verifier.clone());
            // What is measured is the path, not the limit on one session.
            (config.core.commands_per_s, config.core.commands_burst) = (0, 0);
            config.core.shares = roost_ws_node::core::ShareConfig::unlimited();
            config.core.open_rooms = true;
            // Who goes is to be gone while it is still measured.
            config.core.linger_ms = 500;
            config.http.handshakes_per_s = 0;
            let ports = Ports { public: port().await?, admin: port().await? };
            servers.push(Server::bind(config, backends.clone(), ports).await?);
        }
        let cluster = Self { backends, coordinator, servers, http: reqwest::Client::new(), run };
        let ready = timeout(READY_WITHIN, cluster.coordinator.view().all_ready()).await;
        ready.context("the cluster does not get ready")?;
        Ok(cluster)
    }

    async fn home(&self, user: &str) -> Result<serde_json::Value> {
        let url = format!("http://{}/route?userId={user}", self.coordinator.addr());
        let text = self.http.get(url).send().await?.error_for_status()?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) async fn route(&self, user: &str) -> Result<String> {
        let home = self.home(user).await?;
        Ok(home["url"].as_str().context("a url")?.to_owned())
    }

    /// Two users who are at home on different nodes; another two for another `i`.
    pub(crate) async fn pair(&self, i: usize) -> Result<(String, String)> {
        let from = format!("from-{:x}-{i}", self.run);
        let home = self.home(&from).await?["node"].clone();
        for n in 0.. {
            let to = format!("to-{:x}-{i}-{n}", self.run);
            if self.home(&to).await?["node"] != home {
                return Ok((from, to));
            }
        }
        unreachable!("there are three nodes")
    }

    pub(crate) fn token(&self, user: &str) -> String {
        let sub = UserId::new(user).expect("names made here are valid");
        let exp = wall_ms() / 1000 + 3600;
        sign(&Secret::new(SECRET), &Claims { sub, exp, role: Role::User, rooms: None, watch: None })
    }

    pub(crate) async fn stop(self) {
        for server in self.servers {
            server.shutdown(Duration::from_secs(4)).await;
        }
        self.coordinator.shutdown(Duration::from_secs(1)).await;
    }
}
