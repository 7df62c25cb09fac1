//! Real Kafka and Redis for a test, and how runs are kept apart.
//!
//! A ring has one size for ever, so every cluster gets a Redis process of its own where there is the program
//! `redis-server`, and else the one that `REDIS_URL` names, one test after the other. Kafka (`KAFKA_BROKERS`) is
//! shared: names of nodes and users are unique, and the topics of nodes are removed at the end.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::redis::RedisStore;
use roost_backend::store::StoreConfig;
use roost_ws_node::Backends;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{TempDir, eventually};

/// A broker and a Redis for one cluster.
pub struct Services {
    brokers: String,
    redis: Redis,
    /// Clusters of other tests are on the same broker, and must not commit for this one.
    group: String,
}

impl Services {
    /// Nothing, and a line that says what is missing; with `ROOST_REQUIRE_SERVICES=1` that is a failure.
    pub async fn find() -> Option<Self> {
        let Some(brokers) = variable("KAFKA_BROKERS") else {
            return missing("KAFKA_BROKERS is not set (scripts/services up kafka)");
        };
        Self::on(brokers).await
    }

    /// A Kafka of three brokers; nothing where there is none, whoever insists on what: it is started for the tests that
    /// are about it.
    pub async fn of_three_brokers() -> Option<Self> {
        let Some(brokers) = variable("KAFKA_3_BROKERS") else {
            eprintln!("skipped: KAFKA_3_BROKERS is not set (scripts/services up kafka-3)");
            return None;
        };
        Self::on(brokers).await
    }

    async fn on(brokers: String) -> Option<Self> {
        let redis = match Redis::start().await {
            Some(redis) => redis,
            None => match variable("REDIS_URL") {
                Some(url) => Redis::shared(url).await,
                None => return missing("there is no redis-server to start, and REDIS_URL is not set"),
            },
        };
        Some(Self { brokers, redis, group: group() })
    }

    /// These, which somebody else starts and stops.
    pub fn at(brokers: String, redis_url: String) -> Self {
        Self { brokers, redis: Redis { url: redis_url, process: None, turn: None }, group: group() }
    }

    /// The same, as another user of Redis.
    pub fn as_user(mut self, name: &str, password: &str) -> Self {
        self.redis.url = self.redis.url.replacen("redis://", &format!("redis://{name}:{password}@"), 1);
        self
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    pub fn redis_url(&self) -> &str {
        &self.redis.url
    }

    /// New connections, as every process has its own.
    pub(super) async fn connect(&self, config: StoreConfig) -> Backends {
        let store = RedisStore::connect(&self.redis.url, config).await.expect("Redis is reached");
        let (brokers, group) = (self.brokers.clone(), self.group.clone());
        let kafka = KafkaConfig { brokers, group, ..KafkaConfig::default() };
        let log = KafkaLog::connect(kafka).await.expect("a broker at KAFKA_BROKERS");
        Backends { store: Arc::new(store), log: Arc::new(log) }
    }

    /// Removes topics, as well as it goes. From a thread of its own, because the caller is inside its runtime.
    pub(crate) fn forget(&self, topics: Vec<String>) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        let delete = move || {
            let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else { return };
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let _ = runtime.block_on(admin.delete_topics(&names, &AdminOptions::new()));
        };
        let _ = std::thread::spawn(delete).join();
    }
}

fn group() -> String {
    format!("roost-readers-{:08x}", rand::random::<u32>())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn missing<T>(what: &str) -> Option<T> {
    assert!(
        variable("ROOST_REQUIRE_SERVICES").as_deref() != Some("1"),
        "ROOST_REQUIRE_SERVICES=1, but {what}"
    );
    eprintln!("skipped: {what}");
    None
}

struct Redis {
    url: String,
    process: Option<Process>,
    /// Held while the server is shared.
    turn: Option<OwnedMutexGuard<()>>,
}

struct Process {
    child: Child,
    _dir: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    /// One of its own; nothing if there is no such program.
    async fn start() -> Option<Self> {
        // Between finding a free port and using it somebody else may take it.
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).ok()?.port();
            let dir = TempDir::default();
            let mut command = Command::new("redis-server");
            command.args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ]);
            command
                .arg("--dir")
                .arg(dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut process = Process { child: command.spawn().ok()?, _dir: dir };
            let url = format!("redis://127.0.0.1:{port}");
            let up = eventually("redis-server answers or ends", async || {
                if process.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return Some(false);
                }
                let answer = say(&url, "PING").await.ok()?;
                (answer == "+PONG").then_some(true)
            });
            if up.await {
                return Some(Self { url, process: Some(process), turn: None });
            }
        }
        panic!("no port for a redis-server");
    }

    async fn shared(url: String) -> Self {
        static TURN: OnceLock<Arc<Mutex<()>>> = OnceLock::new();
        let turn = TURN.get_or_init(Arc::default).clone().lock_owned().await;
        let keys = say(&url, "DBSIZE").await.expect("REDIS_URL answers");
        assert_eq!(keys, ":0", "the tests empty the database of REDIS_URL, and it holds keys");
        Self { url, process: None, turn: Some(turn) }
    }
}

impl Drop for Redis {
    /// A shared server is left as it was found, before the next test has its turn.
    fn drop(&mut self) {
        if self.process.is_none() && self.turn.is_some() {
            let url = self.url.clone();
            let empty = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
                runtime.ok().map(|runtime| runtime.block_on(say(&url, "FLUSHDB")).ok())
            };
            let _ = std::thread::spawn(empty).join();
        }
    }
}

/// One command without arguments and the first line of its answer. Only the back end speaks to Redis in earnest.
async fn say(url: &str, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(crate::wire::authority(url)).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") && stream.read_buf(&mut answer).await? > 0 {}
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}
