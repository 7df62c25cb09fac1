//! A cluster of real processes: some `coordinator`s and some `ws-node`s, the binaries that cargo has built, on real
//! Kafka and Redis.
//!
//! What a fault does to a process is done to it from outside, by signals. Every process writes its log to a file;
//! when the cluster is dropped everything is killed, and if that is because a test failed, the ends of the logs are
//! printed. The same cluster inside one process is [`cluster`](crate::cluster).

pub mod metrics;
mod process;
mod ring;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use roost_client::{Builder, Client};
use roost_proto::UserId;
use roost_proto::claims::Role;
use roost_ring::Pins;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cluster::services::Services;
use crate::cluster::{AUDIENCE, ISSUER, TempDir, now_s, secret, token, token_of};
use process::Programs;

pub use process::{Process, Signal, free_addr};
pub use ring::Ring;

pub const VNODES: u16 = 64;
pub const LEASE_TTL_MS: u64 = 2_000;
pub const LINGER_MS: u64 = 500;
pub const GRACE_MS: u64 = 3_000;
/// For whatever must happen: only a failing test, or a machine with a lot else to do, waits so long.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longer than any run.
const TOKEN_S: u64 = 24 * 3_600;
/// Waits of clients that are short beside the grace of presence.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// A stopped process accepts connections and never answers.
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
/// Looks until there is something to see; a deadline away is a failed test.
pub async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    until_ok(what, limit, async || look().await.ok_or("it does not happen")).await
}

/// The same, with words about what is there instead.
pub async fn until_ok<T, E: Display>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(instead) => assert!(Instant::now() < deadline, "not within {limit:?}: {what}; {instead}"),
        }
        sleep(LOOK_EVERY).await;
    }
}

/// How a node is started.
#[derive(Debug, Clone, Default)]
pub struct NodeSetup {
    /// `ASSIGNED_VNODES`; `auto` if empty.
    pub pins: String,
    /// Another way to the cluster's Redis than its own address.
    pub redis_url: Option<String>,
    /// Another way to Kafka.
    pub brokers: Option<String>,
    /// Where it listens; a port of its own if absent.
    pub listen: Option<SocketAddr>,
    /// Where its clients go, if not there.
    pub public_url: Option<String>,
}

/// What a cluster is made with.
#[derive(Debug, Clone)]
pub struct ClusterSetup {
    pub coordinators: usize,
    pub lease_ttl_ms: u64,
    pub linger_ms: u64,
    pub grace_ms: u64,
    /// Where the logs go; a directory that is removed in the end if absent.
    pub logs: Option<PathBuf>,
    /// What else every process has in its environment.
    pub vars: Vec<(&'static str, String)>,
    /// The shortest and the longest first wait of clients that lost their connection.
    pub backoff: (Duration, Duration),
}

impl Default for ClusterSetup {
    fn default() -> Self {
        Self {
            coordinators: 1,
            lease_ttl_ms: LEASE_TTL_MS,
            linger_ms: LINGER_MS,
            grace_ms: GRACE_MS,
            logs: None,
            vars: Vec::new(),
            backoff: BACKOFF,
        }
    }
}

/// One coordinator: its process while it runs, and its addresses, which stay.
#[derive(Debug)]
pub struct Coordinator {
    pub process: Option<Process>,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

/// One ws-node process.
#[derive(Debug)]
pub struct Node {
    pub process: Process,
    setup: NodeSetup,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

impl Node {
    /// The vnodes that it pins, ascending.
    fn pins(&self) -> Vec<u16> {
        let text = if self.setup.pins.is_empty() { "auto" } else { &self.setup.pins };
        let pins = Pins::parse(text, u32::from(VNODES)).expect("the pins of a test");
        pins.vnodes().iter().map(|vnode| vnode.0).collect()
    }
}

/// See the module's description.
pub struct Cluster {
    // Dropped in this order: the processes before what they use.
    nodes: BTreeMap<&'static str, Node>,
    coordinators: Vec<Coordinator>,
    /// Where clients ask.
    front: String,
    http: reqwest::Client,
    programs: Programs,
    /// In the names of its nodes and users: Kafka is shared, and no two lives of any test share a topic.
    run: String,
    /// All names that nodes ever had here.
    names: BTreeSet<String>,
    setup: ClusterSetup,
    dir: Option<TempDir>,
    services: Services,
}

impl Cluster {
    /// Redis and a coordinator, no nodes yet; nothing, and a line that says what is missing, where there are no
    /// services and nobody insists on them.
    pub async fn start(lease_ttl_ms: u64) -> Option<Self> {
        let setup = ClusterSetup { lease_ttl_ms, ..ClusterSetup::default() };
        Some(Self::launch(Services::find().await?, setup))
    }

    /// Coordinators on these services, no nodes yet.
    pub fn launch(services: Services, setup: ClusterSetup) -> Self {
        let coordinators = (0..setup.coordinators).map(|_| Coordinator {
            process: None,
            listen: free_addr(),
            admin: free_addr(),
        });
        let coordinators: Vec<_> = coordinators.collect();
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            front: format!("http://{}", coordinators[0].listen),
            coordinators,
            http: reqwest::Client::builder().timeout(HTTP_TIMEOUT).build().expect("an HTTP client"),
            programs: Programs::beside_this(),
            run: format!("t{:08x}", rand::random::<u32>()),
            names: BTreeSet::new(),
            dir: setup.logs.is_none().then(TempDir::default),
            setup,
            services,
        };
        (0..cluster.coordinators.len()).for_each(|i| cluster.start_coordinator(i));
        cluster
    }

    /// With these nodes (name and `ASSIGNED_VNODES`), and settled.
    pub async fn with_nodes(nodes: &[(&'static str, &str)]) -> Option<Self> {
        let mut cluster = Self::start(LEASE_TTL_MS).await?;
        for (name, pins) in nodes {
            cluster.start_node(name, NodeSetup { pins: (*pins).to_owned(), ..NodeSetup::default() });
        }
        cluster.settled().await;
        Some(cluster)
    }

    fn dir(&self) -> &Path {
        let own = || self.dir.as_ref().expect("there until the end").path();
        self.setup.logs.as_deref().unwrap_or_else(own)
    }

    fn vars(&self, listen: SocketAddr, admin: SocketAddr) -> BTreeMap<&'static str, String> {
        let more = self.setup.vars.iter().cloned();
        let own = [
            ("KAFKA_BROKERS", self.services.brokers().to_owned()),
            ("REDIS_URL", self.services.redis_url().to_owned()),
            ("JWT_SECRET", secret().expose().to_owned()),
            ("JWT_AUDIENCE", AUDIENCE.to_owned()),
            ("JWT_ISSUER", ISSUER.to_owned()),
            ("LISTEN_ADDR", listen.to_string()),
            ("ADMIN_ADDR", admin.to_string()),
            ("VNODES", VNODES.to_string()),
            // All clients here have one address.
            ("REQUESTS_PER_S", "0".to_owned()),
            ("LEASE_TTL_MS", self.setup.lease_ttl_ms.to_string()),
            ("PRESENCE_LINGER_MS", self.setup.linger_ms.to_string()),
            ("PRESENCE_GRACE_MS", self.setup.grace_ms.to_string()),
        ];
        own.into_iter().chain(more).collect()
    }

    /// Starts a coordinator, again at the addresses it had.
    pub fn start_coordinator(&mut self, i: usize) {
        let Coordinator { listen, admin, .. } = self.coordinators[i];
        let vars = self.vars(listen, admin);
        let process = Process::spawn(
            &format!("coordinator-{i}"),
            &self.programs.find("coordinator"),
            &vars,
            self.dir(),
        );
        self.coordinators[i].process = Some(process);
    }

    /// Starts an archiver on this database, at this admin address; no other of this name may run.
    pub fn start_archiver(&self, database_url: &str, admin: SocketAddr) -> Process {
        let mut vars = self.vars(free_addr(), admin);
        vars.insert("DATABASE_URL", database_url.to_owned());
        Process::spawn("archiver", &self.programs.find("archiver"), &vars, self.dir())
    }

    pub fn kill_coordinator(&mut self, i: usize) {
        self.coordinators[i].process.take().expect("the coordinator runs").kill();
    }

    pub fn coordinators(&self) -> &[Coordinator] {
        &self.coordinators
    }

    /// The coordinator that says it leads.
    pub async fn leading(&self) -> Option<usize> {
        for (i, coordinator) in self.coordinators.iter().enumerate() {
            if self.value_of(coordinator.admin, "roost_coordinator_leader").await == 1.0 {
                return Some(i);
            }
        }
        None
    }

    /// Clients made from now on ask at this address instead of the first coordinator's.
    pub fn ask_at(&mut self, addr: SocketAddr) {
        self.front = format!("http://{addr}");
    }

    /// The `NODE_ID` that goes by this name here.
    pub fn node_id(&self, name: &str) -> String {
        format!("{}-{name}", self.run)
    }

    /// Starts a node on ports of its own. The process that had the name, if there is one, is given to the caller,
    /// and still runs.
    pub fn start_node(&mut self, name: &'static str, setup: NodeSetup) -> Option<Node> {
        let (listen, admin) = (setup.listen.unwrap_or_else(free_addr), free_addr());
        let id = self.node_id(name);
        let mut vars = self.vars(listen, admin);
        vars.insert("NODE_ID", id.clone());
        if !setup.pins.is_empty() {
            vars.insert("ASSIGNED_VNODES", setup.pins.clone());
        }
        if let Some(url) = &setup.redis_url {
            vars.insert("REDIS_URL", url.clone());
        }
        if let Some(brokers) = &setup.brokers {
            vars.insert("KAFKA_BROKERS", brokers.clone());
        }
        if let Some(url) = &setup.public_url {
            vars.insert("PUBLIC_URL", url.clone());
        }
        let process = Process::spawn(name, &self.programs.find("ws-node"), &vars, self.dir());
        self.names.insert(id);
        self.nodes.insert(name, Node { process, setup, listen, admin })
    }

    /// Starts a node that has ended again, as it was.
    pub fn restart_node(&mut self, name: &'static str) {
        let setup = self.node(name).setup.clone();
        assert!(!self.node_mut(name).process.is_running(), "{name} still runs");
        self.start_node(name, setup);
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).expect("a node of this cluster")
    }

    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).expect("a node of this cluster")
    }

    /// Everything at once, without a chance to tidy up.
    pub fn kill_all(&mut self) {
        self.nodes.values_mut().for_each(|node| node.process.kill());
        self.coordinators.iter_mut().filter_map(|c| c.process.as_mut()).for_each(Process::kill);
    }

    /// Waits until every vnode is ready at one of the nodes that run: where it is pinned, or else at one that pins
    /// none, each of which has its share; and nothing is on its way. At least one must pin none.
    pub async fn settled(&mut self) -> Ring {
        let running = self.running();
        until_ok("every vnode is ready at its node", LIMIT, async || {
            assert_eq!(self.running(), running, "a node has ended by itself");
            self.settles().await
        })
        .await
    }

    /// The names of the nodes that run.
    pub fn running(&mut self) -> Vec<&'static str> {
        let running =
            self.nodes.iter_mut().filter_map(|(name, node)| node.process.is_running().then_some(*name));
        running.collect()
    }

    /// The table if it is as [`Cluster::settled`] waits for, else what is missing.
    ///
    /// # Errors
    /// Words about what is missing.
    pub async fn settles(&mut self) -> Result<Ring, String> {
        let running = self.running();
        let nodes: Vec<(String, Vec<u16>)> =
            running.iter().map(|name| (self.node_id(name), self.node(name).pins())).collect();
        let autos = nodes.iter().filter(|(_, pins)| pins.is_empty()).count();
        let free = usize::from(VNODES) - nodes.iter().map(|(_, pins)| pins.len()).sum::<usize>();
        let fair = |ring: &Ring| {
            nodes.iter().all(|(node, pins)| {
                let has = ring.of(node);
                if pins.is_empty() { has.len() >= free / autos } else { has == *pins }
            })
        };
        let ring = self.ring().await.ok_or("no coordinator answers")?;
        let ready = ring.rows.len() == usize::from(VNODES) && ring.rows.values().all(|row| row.2);
        let settled = ready && ring.moving.is_empty() && fair(&ring);
        if settled { Ok(ring) } else { Err(format!("{}, of {nodes:?}", ring.summary())) }
    }

    /// What the coordinator knows, if it answers.
    pub async fn ring(&self) -> Option<Ring> {
        Ring::read(&self.ask("/ring").await?)
    }

    /// What the coordinator says of the nodes.
    pub async fn nodes(&self) -> Option<Value> {
        self.ask("/nodes").await
    }

    /// Which of our names the user's home has; empty if it has none.
    pub fn home_in<'a>(&self, ring: &'a Ring, user: &str) -> &'a str {
        let node = ring.rows.get(&vnode_of(user)).map(|row| row.0.as_str());
        node.and_then(|node| node.strip_prefix(&self.run)?.strip_prefix('-')).unwrap_or_default()
    }

    /// Names of users that nobody has yet, as many at home at each node as asked for.
    pub fn users_at(&self, ring: &Ring, wanted: &[(&str, usize)]) -> Vec<String> {
        let series = format!("{}-{:04x}", self.run, rand::random::<u16>());
        let mut found = Vec::new();
        for (node, count) in wanted {
            let users = (0..).map(|n| format!("{series}-{n}"));
            found.extend(users.filter(|user| self.home_in(ring, user) == *node).take(*count));
        }
        found
    }

    /// In the name of every user here.
    pub fn run(&self) -> &str {
        &self.run
    }

    pub fn brokers(&self) -> &str {
        self.services.brokers()
    }

    pub fn redis_url(&self) -> &str {
        self.services.redis_url()
    }

    /// The JSON that the first coordinator answers that does.
    async fn ask(&self, path: &str) -> Option<Value> {
        let token = token_of("service", Role::Service);
        for Coordinator { listen, .. } in self.coordinators.iter().filter(|c| c.process.is_some()) {
            let asked = self.http.get(format!("http://{listen}{path}")).bearer_auth(&token);
            if let Ok(answer) = asked.send().await
                && let Ok(value) = answer.json().await
            {
                return Some(value);
            }
        }
        None
    }

    /// Status and `stale` of these users, if the coordinator knows.
    pub async fn presence(&self, users: &[String]) -> Option<Vec<(String, bool)>> {
        let body = self.ask(&format!("/presence?userIds={}", users.join(","))).await?;
        let shown = body["users"].as_array()?.iter().zip(users).map(|(shown, user)| {
            assert_eq!(shown["user_id"], *user.as_str());
            Some((shown["status"].as_str()?.to_owned(), shown["stale"].as_bool().unwrap_or(false)))
        });
        shown.collect()
    }

    /// A value of a node's `/metrics`, such as `roost_store_writes_total{outcome="fenced"}`; 0 if it is not there.
    pub async fn metric(&self, name: &str, series: &str) -> f64 {
        self.value_of(self.node(name).admin, series).await
    }

    /// A value that all coordinators that run count together.
    pub async fn coordinators_count(&self, series: &str) -> f64 {
        let mut sum = 0.0;
        for coordinator in self.coordinators.iter().filter(|c| c.process.is_some()) {
            sum += self.value_of(coordinator.admin, series).await;
        }
        sum
    }

    /// A value of the `/metrics` at this admin address; 0 if it is not there.
    pub async fn value_of(&self, admin: SocketAddr, series: &str) -> f64 {
        let all = metrics::scrape(&self.http, admin).await;
        all.and_then(|all| all.get(series).copied()).unwrap_or(0.0)
    }

    /// What a node's clients dial.
    pub fn socket_url(&self, name: &str) -> String {
        format!("ws://{}/socket", self.node(name).listen)
    }

    /// Where clients ask, and how they wait.
    pub fn front(&self) -> Front {
        Front { url: self.front.clone(), backoff: self.setup.backoff }
    }

    /// Makes clients of this user, again and again.
    pub fn client_maker(&self, user: &str) -> impl Fn() -> Builder + Send + use<> {
        self.front().client_maker(user)
    }

    /// One command to Redis itself.
    pub async fn redis<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let client = redis::Client::open(self.redis_url()).expect("a valid address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis is reached");
        command.query_async(&mut connection).await.expect("Redis does it")
    }
}

/// What a client has to know of a cluster.
#[derive(Debug, Clone)]
pub struct Front {
    pub url: String,
    /// The shortest and the longest first wait of who lost its connection.
    pub backoff: (Duration, Duration),
}

impl Front {
    /// Makes clients of this user, again and again.
    pub fn client_maker(&self, user: &str) -> impl Fn() -> Builder + Send + use<> {
        let (front, token) = (self.clone(), token(user, now_s() + TOKEN_S));
        move || {
            Client::builder(&front.url)
                .token(token.clone())
                .backoff(front.backoff.0, front.backoff.1)
                .request_timeout(HTTP_TIMEOUT)
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            println!("--- the logs are kept in {}", dir.path().display());
            std::mem::forget(dir);
        }
        let topics: Vec<String> = self.names.iter().map(|name| format!("messages-{name}")).collect();
        self.services.forget(topics);
    }
}

/// Where the user is on the ring.
pub fn vnode_of(user: &str) -> u16 {
    roost_ring::vnode_of_user(&UserId::new(user).expect("a user's id"), u32::from(VNODES)).0
}
