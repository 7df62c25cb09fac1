//! A Redis of a test's own: a `redis-server` process on a free port, its snapshots in a directory of its own. Where
//! the program is missing, the server that `REDIS_URL` names is used instead, by one test after the other.

use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use roost_backend::contract::store::{Fixture, eventually};
use roost_backend::redis::RedisStore;
use roost_backend::store::{Store, StoreConfig};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::embedded::TempDir;

struct Server {
    child: Child,
    dir: TempDir,
    port: u16,
    options: Vec<String>,
}

impl Server {
    fn spawn(dir: &TempDir, port: u16, options: &[String]) -> std::io::Result<Child> {
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
        command.arg("--dir").arg(dir.path()).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()
    }

    /// Nothing if there is no such program.
    fn start(options: Vec<String>) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).ok()?.port();
        let dir = TempDir::new();
        let child = Self::spawn(&dir, port, &options).ok()?;
        Some(Self { child, dir, port, options })
    }
}

/// A Redis to test with.
pub(crate) struct RedisFixture {
    url: String,
    server: Option<Mutex<Server>>,
    /// Held while the server is shared.
    _turn: Option<OwnedMutexGuard<()>>,
}

/// Says what a test went without, or fails where everything must be there.
fn missing(cure: &str) {
    let text = format!("no Redis to test with: {cure}");
    assert!(std::env::var("ROOST_REQUIRE_SERVICES").as_deref() != Ok("1"), "{text}");
    eprintln!("skipped: {text}");
}

async fn admin(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a valid address");
    eventually("Redis answers", || async {
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        cmd("PING").query_async::<Value>(&mut connection).await.ok()?;
        Some(connection)
    })
    .await
}

impl RedisFixture {
    /// A Redis for one test; nothing, and a line that says why, if there is none on this machine.
    pub(crate) async fn any() -> Option<Self> {
        if let Some(own) = Self::started(&[]).await {
            return Some(own);
        }
        let Ok(url) = std::env::var("REDIS_URL") else {
            missing("install redis-server, or set REDIS_URL to an empty one");
            return None;
        };
        static TURN: OnceLock<Arc<Mutex<()>>> = OnceLock::new();
        let turn = TURN.get_or_init(Arc::default).clone().lock_owned().await;
        // Each test leaves the database empty; what is found in it is somebody's. Asked before there is a fixture,
        // which would empty it.
        let keys = cmd("DBSIZE").query_async::<u64>(&mut admin(&url).await).await.expect("REDIS_URL answers");
        assert_eq!(keys, 0, "the tests empty the database of REDIS_URL, and it holds keys");
        Some(Self { url, server: None, _turn: Some(turn) })
    }

    /// One with a process of its own, that can be killed.
    pub(crate) async fn own() -> Option<Self> {
        Self::with(&[]).await
    }

    /// One with a process of its own, that was started with these options.
    pub(crate) async fn with(options: &[&str]) -> Option<Self> {
        let own = Self::started(options).await;
        if own.is_none() {
            missing("install redis-server; this test needs a process of its own");
        }
        own
    }

    async fn started(options: &[&str]) -> Option<Self> {
        let server = Server::start(options.iter().map(|o| (*o).to_string()).collect())?;
        let url = format!("redis://127.0.0.1:{}", server.port);
        let fixture = Self { url, server: Some(Mutex::new(server)), _turn: None };
        fixture.admin().await;
        Some(fixture)
    }

    /// One that has all of a cluster's slots, and refuses a script whose keys are not in one.
    pub(crate) async fn cluster() -> Option<Self> {
        let fixture = Self::with(&["--cluster-enabled", "yes"]).await?;
        fixture.run(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383)).await;
        eventually("the cluster is up", || async {
            let info: String =
                cmd("CLUSTER").arg("INFO").query_async(&mut fixture.admin().await).await.ok()?;
            info.contains("cluster_state:ok").then_some(())
        })
        .await;
        Some(fixture)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A connection once it answers.
    pub(crate) async fn admin(&self) -> MultiplexedConnection {
        admin(&self.url).await
    }

    pub(crate) async fn run(&self, command: &redis::Cmd) -> Value {
        command.query_async(&mut self.admin().await).await.expect("Redis does it")
    }

    /// Sends a signal to the server's process (`STOP`, `CONT`).
    pub(crate) async fn signal(&self, name: &str) {
        let server = self.server.as_ref().expect("a process of its own").lock().await;
        let pid = server.child.id().expect("it runs").to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &pid]).status().await;
        assert!(done.expect("kill runs").success());
    }
}

impl Drop for RedisFixture {
    /// A shared server is left as it was found, before the next test has its turn.
    fn drop(&mut self) {
        if self.server.is_none() {
            let mut connection = redis::Client::open(self.url.as_str()).and_then(|c| c.get_connection());
            connection.as_mut().map(|c| cmd("FLUSHDB").exec(c).ok()).ok();
        }
    }
}

#[async_trait]
impl Fixture for RedisFixture {
    async fn open(&self, config: StoreConfig) -> Arc<dyn Store> {
        Arc::new(RedisStore::connect(&self.url, config).await.expect("Redis is reached"))
    }

    async fn pass(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn lose_everything(&self) {
        // The database named in the URL; of a private server that is all.
        self.run(&cmd("FLUSHDB")).await;
    }

    async fn save(&self) {
        self.run(&cmd("SAVE")).await;
    }

    async fn crash(&self) {
        let mut server = self.server.as_ref().expect("a process of its own").lock().await;
        server.child.kill().await.expect("it is killed");
        server.child = Server::spawn(&server.dir, server.port, &server.options).expect("it starts again");
    }

    async fn follow_and_lead(&self) {
        self.run(cmd("REPLICAOF").arg("127.0.0.1").arg(1)).await;
        self.run(cmd("REPLICAOF").arg("NO").arg("ONE")).await;
    }

    async fn change_data_set(&self) -> bool {
        self.run(cmd("HSET").arg("{roost}:ring").arg("run_id").arg("of-another-process")).await;
        self.run(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes")).await;
        true
    }
}
