//! A cluster of real processes: one `coordinator` and some `ws-node`s, the binaries that cargo has built, on real
//! Kafka and Redis.
//!
//! What a fault does to a process is done to it from outside, by signals. Every process writes its log to a file;
//! when the cluster is dropped everything is killed, and if that is because a test failed, the ends of the logs are
//! printed. The same cluster inside one process is [`cluster`](crate::cluster).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use redis::{Cmd, FromRedisValue};
use roost_client::{Builder, Client};
use roost_proto::UserId;
use roost_ring::Pins;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cluster::services::Services;
use crate::cluster::{AUDIENCE, ISSUER, TempDir, now_s, secret, token};

pub const VNODES: u16 = 64;
pub const LEASE_TTL_MS: u64 = 2_000;
pub const LINGER_MS: u64 = 500;
pub const GRACE_MS: u64 = 3_000;
/// For whatever must happen: only a failing test, or a machine with a lot else to do, waits so long.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A stopped process accepts connections and never answers.
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
/// Of each log so much is printed when a test fails.
const LOG_LINES_SHOWN: usize = 60;
/// Below the ports that systems give to outgoing connections, so that none of those takes one that was just found
/// free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

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

/// What can be sent to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Stop,
    Continue,
}

/// A child process with its log; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with this environment and nothing else of ours; its output goes to `dir/name.log`, after
    /// what an earlier life of this name wrote.
    fn spawn(name: &str, program: &Path, vars: &BTreeMap<&str, String>, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let copy = file.try_clone().expect("a second handle");
        let filter = std::env::var("ROOST_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
        let mut command = Command::new(program);
        command.env_clear().env("RUST_LOG", filter).env("RUST_BACKTRACE", "1").envs(vars);
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let child =
            command.spawn().unwrap_or_else(|e| panic!("{} cannot be started: {e}", program.display()));
        Self { name: name.to_owned(), child, log }
    }

    /// By process id. Returns when the kernel has done it: a stopped process runs no further instruction.
    pub async fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Terminate => "TERM",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        let pid = self.child.id();
        // `kill` is built into every shell, and a program only on some systems.
        let kill =
            tokio::process::Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().await;
        assert!(kill.expect("a shell").success(), "{}: kill -{name} {pid}", self.name);
        if signal == Signal::Stop {
            until("the process is stopped", LIMIT, async || self.is_stopped().then_some(())).await;
        }
    }

    /// As far as /proc says so; elsewhere it is believed.
    fn is_stopped(&self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())) else {
            return true;
        };
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(&what, LIMIT, async || self.child.try_wait().expect("our own child")).await
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            println!("--- {} (the last {} of {} lines)", self.name, shown.len(), lines.len());
            shown.iter().for_each(|line| println!("{line}"));
        }
    }
}

/// The programs, where cargo puts them: beside the directory of this test's executable.
#[derive(Debug)]
struct Programs {
    coordinator: PathBuf,
    ws_node: PathBuf,
}

impl Programs {
    fn find() -> Self {
        let here = std::env::current_exe().expect("a path");
        let dir = here.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
        let find = |name: &str| {
            let path = dir.join(name);
            let built = std::fs::metadata(&path).and_then(|file| file.modified());
            let cure = "cargo build -p roost-coordinator -p roost-ws-node (with --release, if the tests are)";
            assert!(built.is_ok(), "{} is missing; build it first: {cure}", path.display());
            // `cargo test -p roost-tests` builds the libraries that it uses itself, and not these programs.
            if built.ok() < newest(&dir.join("deps"), &format!("libroost_{}-", name.replace('-', "_"))) {
                println!("{} is older than its library and may be stale: {cure}", path.display());
            }
            path
        };
        Self { coordinator: find("coordinator"), ws_node: find("ws-node") }
    }
}

/// When the last of the libraries with this prefix was made.
fn newest(dir: &Path, prefix: &str) -> Option<SystemTime> {
    let files = std::fs::read_dir(dir).ok()?.flatten();
    let libraries = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(prefix) && name.ends_with(".rlib")
    });
    libraries.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

/// Free now, and given to nobody else in this process: whoever gets it binds it a moment later.
fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(0..PORTS.end - PORTS.start)));
    let candidates =
        std::iter::repeat_with(|| PORTS.start + next.fetch_add(1, Relaxed) % (PORTS.end - PORTS.start));
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.take(1_000).find(free).expect("a free port")
}

/// How a node is started.
#[derive(Debug, Clone, Default)]
pub struct NodeSetup {
    /// `ASSIGNED_VNODES`; `auto` if empty.
    pub pins: String,
    /// Another way to the cluster's Redis than its own address.
    pub redis_url: Option<String>,
}

/// One ws-node process.
#[derive(Debug)]
pub struct Node {
    pub process: Process,
    setup: NodeSetup,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    /// The vnodes that it pins, ascending.
    fn pins(&self) -> Vec<u16> {
        let text = if self.setup.pins.is_empty() { "auto" } else { &self.setup.pins };
        let pins = Pins::parse(text, u32::from(VNODES)).expect("the pins of a test");
        pins.vnodes().iter().map(|vnode| vnode.0).collect()
    }
}

/// The table as `/ring` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ring {
    pub leader: Option<String>,
    /// vnode → node, epoch, ready.
    pub rows: BTreeMap<u16, (String, u64, bool)>,
    /// vnode → node, of those that are not where they should be.
    pub moving: BTreeMap<u16, String>,
}

impl Ring {
    fn read(body: &Value) -> Option<Self> {
        let rows = body["rows"].as_array()?.iter().map(|row| {
            let vnode = u16::try_from(row[0].as_u64()?).ok()?;
            Some((vnode, (row[1].as_str()?.to_owned(), row[2].as_u64()?, row[3].as_bool()?)))
        });
        let moving = body["moving"]
            .as_array()?
            .iter()
            .map(|row| Some((u16::try_from(row[0].as_u64()?).ok()?, row[1].as_str()?.to_owned())));
        Some(Self {
            leader: body["leader"].as_str().map(ToOwned::to_owned),
            rows: rows.collect::<Option<_>>()?,
            moving: moving.collect::<Option<_>>()?,
        })
    }

    /// How many vnodes each node has, and what is unfinished.
    fn summary(&self) -> String {
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        self.rows.values().for_each(|row| *shares.entry(&row.0).or_default() += 1);
        let unready: Vec<_> = self.rows.iter().filter(|(_, row)| !row.2).collect();
        format!("shares {shares:?}, not ready {unready:?}, moving {:?}", self.moving)
    }

    /// The vnodes that a node has.
    pub fn of(&self, node: &str) -> Vec<u16> {
        self.rows.iter().filter(|(_, row)| row.0 == node).map(|(vnode, _)| *vnode).collect()
    }
}

/// See the module's description.
pub struct Cluster {
    // Dropped in this order: the processes before what they use.
    nodes: BTreeMap<&'static str, Node>,
    coordinator: Option<Process>,
    coordinator_addr: SocketAddr,
    http: reqwest::Client,
    programs: Programs,
    /// In the names of its nodes and users: Kafka is shared, and no two lives of any test share a topic.
    run: String,
    /// All names that nodes ever had here.
    names: BTreeSet<String>,
    lease_ttl_ms: u64,
    dir: Option<TempDir>,
    services: Services,
}

impl Cluster {
    /// Redis and a coordinator, no nodes yet; nothing, and a line that says what is missing, where there are no
    /// services and nobody insists on them.
    pub async fn start(lease_ttl_ms: u64) -> Option<Self> {
        let services = Services::find().await?;
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            coordinator: None,
            coordinator_addr: SocketAddr::from(([127, 0, 0, 1], free_port())),
            http: reqwest::Client::builder().timeout(HTTP_TIMEOUT).build().expect("an HTTP client"),
            programs: Programs::find(),
            run: format!("t{:08x}", rand::random::<u32>()),
            names: BTreeSet::new(),
            lease_ttl_ms,
            dir: Some(TempDir::default()),
            services,
        };
        cluster.start_coordinator();
        Some(cluster)
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
        self.dir.as_ref().expect("there until the end").path()
    }

    fn vars(&self, listen: SocketAddr, admin: SocketAddr) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("KAFKA_BROKERS", self.services.brokers().to_owned()),
            ("REDIS_URL", self.services.redis_url().to_owned()),
            ("JWT_SECRET", secret().expose().to_owned()),
            ("JWT_AUDIENCE", AUDIENCE.to_owned()),
            ("JWT_ISSUER", ISSUER.to_owned()),
            ("LISTEN_ADDR", listen.to_string()),
            ("ADMIN_ADDR", admin.to_string()),
            ("VNODES", VNODES.to_string()),
            ("LEASE_TTL_MS", self.lease_ttl_ms.to_string()),
            ("PRESENCE_LINGER_MS", LINGER_MS.to_string()),
            ("PRESENCE_GRACE_MS", GRACE_MS.to_string()),
        ])
    }

    /// Starts the coordinator, again at the address it had.
    pub fn start_coordinator(&mut self) {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let vars = self.vars(self.coordinator_addr, admin);
        self.coordinator = Some(Process::spawn("coordinator", &self.programs.coordinator, &vars, self.dir()));
    }

    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("the coordinator runs").kill();
    }

    /// The `NODE_ID` that goes by this name here.
    pub fn node_id(&self, name: &str) -> String {
        format!("{}-{name}", self.run)
    }

    /// Starts a node on ports of its own. The process that had the name, if there is one, is given to the caller,
    /// and still runs.
    pub fn start_node(&mut self, name: &'static str, setup: NodeSetup) -> Option<Node> {
        let [listen, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let id = self.node_id(name);
        let mut vars = self.vars(listen, admin);
        vars.insert("NODE_ID", id.clone());
        if !setup.pins.is_empty() {
            vars.insert("ASSIGNED_VNODES", setup.pins.clone());
        }
        if let Some(url) = &setup.redis_url {
            vars.insert("REDIS_URL", url.clone());
        }
        let process = Process::spawn(name, &self.programs.ws_node, &vars, self.dir());
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
        self.coordinator.iter_mut().for_each(Process::kill);
    }

    /// Waits until every vnode is ready at one of the nodes that run: where it is pinned, or else at one that pins
    /// none, each of which has its share; and nothing is on its way. At least one must pin none.
    pub async fn settled(&mut self) -> Ring {
        let mut nodes = Vec::new();
        for (name, node) in &mut self.nodes {
            if node.process.is_running() {
                nodes.push((format!("{}-{name}", self.run), node.pins()));
            }
        }
        let autos = nodes.iter().filter(|(_, pins)| pins.is_empty()).count();
        let free = usize::from(VNODES) - nodes.iter().map(|(_, pins)| pins.len()).sum::<usize>();
        let fair = |ring: &Ring| {
            nodes.iter().all(|(node, pins)| {
                let has = ring.of(node);
                if pins.is_empty() { has.len() >= free / autos } else { has == *pins }
            })
        };
        let what = format!("every vnode is ready at its node, of {nodes:?}");
        until_ok(&what, LIMIT, async || {
            let ring = self.ring().await.ok_or("the coordinator does not answer")?;
            let running = self.nodes.values_mut().map(|node| u8::from(node.process.is_running())).sum::<u8>();
            assert_eq!(usize::from(running), nodes.len(), "a node has ended by itself");
            let ready = ring.rows.len() == usize::from(VNODES) && ring.rows.values().all(|row| row.2);
            if ready && ring.moving.is_empty() && fair(&ring) { Ok(ring) } else { Err(ring.summary()) }
        })
        .await
    }

    /// What the coordinator knows, if it answers.
    pub async fn ring(&self) -> Option<Ring> {
        Ring::read(&self.get(self.coordinator_addr, "/ring").await?)
    }

    /// What the coordinator says of the nodes.
    pub async fn nodes(&self) -> Option<Value> {
        self.get(self.coordinator_addr, "/nodes").await
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

    /// The JSON that a process answers, if it does.
    async fn get(&self, addr: SocketAddr, path: &str) -> Option<Value> {
        let answer = self.http.get(format!("http://{addr}{path}")).send().await.ok()?;
        answer.json().await.ok()
    }

    /// Status and `stale` of these users, if the coordinator knows.
    pub async fn presence(&self, users: &[String]) -> Option<Vec<(String, bool)>> {
        let body = self.get(self.coordinator_addr, &format!("/presence?userIds={}", users.join(","))).await?;
        let shown = body["users"].as_array()?.iter().zip(users).map(|(shown, user)| {
            assert_eq!(shown["user_id"], *user.as_str());
            Some((shown["status"].as_str()?.to_owned(), shown["stale"].as_bool().unwrap_or(false)))
        });
        shown.collect()
    }

    /// A value of a node's `/metrics`, such as `roost_store_writes_total{outcome="fenced"}`; 0 if it is not there.
    pub async fn metric(&self, name: &str, series: &str) -> f64 {
        let url = format!("http://{}/metrics", self.node(name).admin);
        let Ok(answer) = self.http.get(url).send().await else { return 0.0 };
        let text = answer.text().await.unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    }

    /// What a node's clients dial.
    pub fn socket_url(&self, name: &str) -> String {
        format!("ws://{}/socket", self.node(name).listen)
    }

    /// A client of this user, with waits that are short beside the grace of presence.
    pub fn client(&self, user: &str) -> Builder {
        Client::builder(format!("http://{}", self.coordinator_addr))
            .token(token(user, now_s() + 3_600))
            .backoff(Duration::from_millis(50), Duration::from_millis(500))
            .request_timeout(HTTP_TIMEOUT)
    }

    /// One command to Redis itself.
    pub async fn redis<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let client = redis::Client::open(self.redis_url()).expect("a valid address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis is reached");
        command.query_async(&mut connection).await.expect("Redis does it")
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
        forget(self.services.brokers(), topics);
    }
}

/// Removes topics, as well as it goes. From a thread of its own, because the caller is inside its runtime.
fn forget(brokers: &str, topics: Vec<String>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let delete = move || {
        let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else { return };
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let _ = runtime.block_on(admin.delete_topics(&names, &AdminOptions::new()));
    };
    let _ = std::thread::spawn(delete).join();
}

/// Where the user is on the ring.
pub fn vnode_of(user: &str) -> u16 {
    roost_ring::vnode_of_user(&UserId::new(user).expect("a user's id"), u32::from(VNODES)).0
}
