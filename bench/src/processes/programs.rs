//! A coordinator and three ws-nodes as processes, of one build, on a Redis database of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use roost_proto::claims::Role;
use roost_proto::{Claims, UserId};
use roost_service::Secret;
use roost_service::tokens::sign;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::procstat::Watched;
use crate::cluster::wall_ms;

const SECRET: &str = "the secret of a benchmark is no secret at all";
const NODES: usize = 3;
/// Every vnode at its node; some seconds on a quiet machine.
const READY_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// The last lines of a program's log that are shown when it ended by itself.
const LOG_LINES_SHOWN: usize = 10;

/// Where the services are, and which processes they are.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub brokers: String,
    pub redis_addr: String,
    pub kafka: u32,
    pub redis: u32,
}

impl Services {
    pub(super) fn from_env() -> Result<Self> {
        let var = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set: run scripts/bench cluster"))
        };
        let pid = |name: &str| -> Result<u32> {
            let path = Path::new(&var("ROOST_SERVICES_DIR")?).join(name).join("pid");
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("{}: the services must be processes", path.display()))?;
            Ok(text.trim().parse()?)
        };
        let redis = var("REDIS_URL")?;
        let redis_addr = redis.trim_start_matches("redis://").trim_end_matches('/');
        ensure!(!redis_addr.contains(['@', '/']), "REDIS_URL must be redis://host:port here, not {redis}");
        Ok(Self {
            brokers: var("KAFKA_BROKERS")?,
            redis_addr: redis_addr.to_owned(),
            kafka: pid("kafka")?,
            redis: pid("redis")?,
        })
    }

    /// Everything in a database goes: the benchmark's own, which nobody else uses.
    async fn empty(&self, database: u8) -> Result<()> {
        let mut redis = TcpStream::connect(&self.redis_addr).await.context("Redis")?;
        redis.write_all(format!("SELECT {database}\r\nFLUSHDB\r\n").as_bytes()).await?;
        let mut answer = [0; 10];
        timeout(ASK_LIMIT, redis.read_exact(&mut answer)).await.context("Redis does not answer")??;
        ensure!(&answer == b"+OK\r\n+OK\r\n", "Redis: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

/// Programs to measure, and what they are called in the report.
#[derive(Debug, Clone)]
pub(super) struct Build {
    pub dir: PathBuf,
    /// What else is in their environment.
    pub vars: Vec<(String, String)>,
    /// Of Redis: two builds may not understand what the other keeps.
    pub database: u8,
}

/// One process with its log; killed when dropped.
struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(name: &str, program: &Path, vars: &BTreeMap<String, String>, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command.env_clear().envs(vars).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            bail!("{} ended by itself ({status}):\n{end}", self.name);
        }
        Ok(())
    }

    fn kill(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// See the module's description.
pub(super) struct Running {
    nodes: Vec<Process>,
    coordinator: Process,
    pub route_addr: SocketAddr,
    pub watched: Watched,
    /// In the names of nodes and users: no two runs share a topic.
    pub run: String,
    http: reqwest::Client,
}

fn free_addr() -> Result<SocketAddr> {
    // Given back at once, and bound by the process a moment later.
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn node_id(run: &str, i: usize) -> String {
    format!("bench-{run}-{i}")
}

/// Limits are not what is measured.
const ALIKE: [(&str, &str); 13] = [
    ("RUST_LOG", "warn"),
    ("CONNECTIONS_MAX", "19000"),
    ("HANDSHAKES_PER_S", "0"),
    ("REQUESTS_PER_S", "0"),
    ("USER_REQUESTS_PER_S", "0"),
    // Not a variable of every version: one that there is not is not looked at.
    ("COMMANDS_PER_S", "10000"),
    ("ACCEPTS_PER_S", "100000"),
    ("OPEN_ROOMS", "true"),
    ("SENDS_PER_RECEIVER_PER_S", "0"),
    ("SENDS_PER_USER_PER_S", "0"),
    ("SEND_BYTES_PER_USER_PER_S", "0"),
    ("NEW_SENDERS_PER_S", "0"),
    ("NEW_STREAMS_PER_HOUR", "0"),
];

/// What every program gets.
fn common(services: &Services, build: &Build) -> Result<BTreeMap<String, String>> {
    let own = [
        ("KAFKA_BROKERS", services.brokers.clone()),
        ("REDIS_URL", format!("redis://{}/{}", services.redis_addr, build.database)),
        ("JWT_SECRET", SECRET.to_owned()),
        ("LISTEN_ADDR", free_addr()?.to_string()),
        ("ADMIN_ADDR", free_addr()?.to_string()),
    ];
    let alike = ALIKE.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let all = own.into_iter().chain(alike).map(|(name, value)| (name.to_owned(), value));
    Ok(all.chain(build.vars.iter().cloned()).collect())
}

impl Running {
    /// Ready, with its vnodes spread over the nodes.
    pub(super) async fn start(services: &Services, build: &Build, logs: &Path) -> Result<Self> {
        services.empty(build.database).await?;
        let run = format!("{:08x}", rand::random::<u32>());
        let vars = common(services, build)?;
        let route_addr = vars["LISTEN_ADDR"].parse()?;
        let coordinator = Process::spawn("coordinator", &build.dir.join("coordinator"), &vars, logs)?;
        let mut nodes = Vec::new();
        for i in 1..=NODES {
            let mut vars = common(services, build)?;
            vars.insert("NODE_ID".to_owned(), node_id(&run, i));
            nodes.push(Process::spawn(&format!("ws-node-{i}"), &build.dir.join("ws-node"), &vars, logs)?);
        }
        let watched = Watched {
            nodes: nodes.iter().map(|node| node.child.id()).collect(),
            coordinator: coordinator.child.id(),
            redis: services.redis,
            kafka: services.kafka,
        };
        let http = reqwest::Client::builder().timeout(ASK_LIMIT).build()?;
        let mut running = Self { nodes, coordinator, route_addr, watched, run, http };
        running.settle().await?;
        Ok(running)
    }

    async fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.check()?;
            let seen = match self.ask("/ring").await {
                Ok(ring) if is_settled(&ring) => return Ok(()),
                Ok(ring) => format!(
                    "of {} vnodes {} have a row",
                    ring["vnodes"],
                    ring["rows"].as_array().map_or(0, Vec::len)
                ),
                Err(e) => e.to_string(),
            };
            ensure!(Instant::now() < deadline, "the cluster is not ready within {READY_WITHIN:?}: {seen}");
            sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn node_ids(&self) -> impl Iterator<Item = String> {
        (1..=NODES).map(|i| node_id(&self.run, i))
    }

    /// All of them at once: nobody is left to hand anything to.
    pub(super) fn kill(&mut self) {
        self.nodes.iter_mut().chain([&mut self.coordinator]).for_each(Process::kill);
    }

    /// That none of them ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.nodes.iter_mut().chain([&mut self.coordinator]).try_for_each(Process::check)
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let url = format!("http://{}{path}", self.route_addr);
        let text = self.http.get(url).send().await?.error_for_status()?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The node and the address of a user's home.
    pub(super) async fn home(&self, user: &str) -> Result<(String, String)> {
        let home = self.ask(&format!("/route?userId={user}")).await?;
        let text =
            |name: &str| home[name].as_str().map(str::to_owned).with_context(|| format!("{name} in /route"));
        Ok((text("node")?, text("url")?))
    }
}

/// Every vnode ready, none on its way, and each node with its share.
fn is_settled(ring: &Value) -> bool {
    let Some(rows) = ring["rows"].as_array() else { return false };
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        if row[3] != true {
            return false;
        }
        *shares.entry(row[1].as_str().unwrap_or_default()).or_default() += 1;
    }
    let still = ring["moving"].as_array().is_some_and(Vec::is_empty);
    let fair = |share: &usize| *share >= rows.len() / NODES;
    still && ring["vnodes"] == rows.len() && shares.len() == NODES && shares.values().all(fair)
}

/// An hour is longer than any run.
pub(super) fn token(user: &str) -> Result<String> {
    let exp = wall_ms() / 1000 + 3600;
    let claims = Claims { sub: UserId::new(user)?, exp, role: Role::User, rooms: None, watch: None };
    Ok(sign(&Secret::new(SECRET), &claims))
}
