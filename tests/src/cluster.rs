//! A whole cluster in this process: one coordinator and some ws-nodes on free ports, on any back end.
//!
//! The same code as in production with shorter times, so that a failover takes a second. Everything is waited for
//! by looking at it, never by sleeping for luck. What a test needs of Kafka and Redis is in [`services`]; clients
//! are in [`wire`](crate::wire) and in the SDK.

pub mod services;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use roost_archiver::Archiver;
use roost_backend::archive::Archive;
use roost_backend::embedded::{EmbeddedLog, EmbeddedStore};
use roost_backend::log::{Log, LogReader, Position, TopicSpec};
use roost_backend::store::{Store, StoreConfig};
use roost_client::{Client, Events};
use roost_coordinator::{Coordinator, CoordinatorConfig, RequestLimits};
use roost_proto::claims::Role;
use roost_proto::events::PARTITIONS;
use roost_proto::results::CLIENT_RESULTS;
use roost_proto::{Claims, NodeId, RoomId, StreamId, UserId};
use roost_ring::Pins;
use roost_service::telemetry::{self, LogFormat};
use roost_service::tokens::{KeySource, sign_for};
use roost_service::{Secret, Verifier};
use roost_ws_node::{Backends, Ports, Server, WsNodeConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::wire::{Dial, LIMIT, Wire};
use services::Services;

/// Few enough that claiming all of them takes a moment, enough that each node has its share.
pub const VNODES: u32 = 64;
/// The shortest lease that a loaded machine with two cores keeps without hiccups.
pub const LEASE_TTL_MS: u64 = 1_500;
pub const LINGER_MS: u64 = 300;
pub const GRACE_MS: u64 = 1_500;
/// Whom the tokens are for and from; others are refused.
pub const AUDIENCE: &str = "roost-tests";
pub const ISSUER: &str = "https://issuer.test";
const SECRET: &str = "a secret of the tests, of more than 32 bytes";
/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What a planned stop of one node may take.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Where a cluster keeps things.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Embedded, forgotten with the cluster.
    Memory,
    /// Embedded, in the files of a directory: a later cluster goes on with them.
    File(PathBuf),
    /// Kafka and Redis.
    Services,
}

/// Changes one node's configuration before it starts.
type Tune = Box<dyn Fn(usize, &mut WsNodeConfig) + Send + Sync>;
/// Puts something in front of the log.
type WrapLog = Box<dyn Fn(Arc<dyn Log>) -> Arc<dyn Log> + Send + Sync>;

/// What a cluster is started with.
pub struct Setup {
    backend: Backend,
    nodes: usize,
    tune: Tune,
    log: WrapLog,
    forget_after_s: u64,
}

impl Setup {
    pub fn new(backend: Backend, nodes: usize) -> Self {
        Self { backend, nodes, tune: Box::new(|_, _| {}), log: Box::new(|log| log), forget_after_s: 0 }
    }

    /// Changes the settings of each node, given its index.
    pub fn tune(mut self, tune: impl Fn(usize, &mut WsNodeConfig) + Send + Sync + 'static) -> Self {
        self.tune = Box::new(tune);
        self
    }

    /// Nodes that are gone for so long are forgotten.
    pub fn forget_after_s(mut self, forget_after_s: u64) -> Self {
        self.forget_after_s = forget_after_s;
        self
    }

    /// Puts something between the nodes and their log.
    pub fn log(mut self, log: impl Fn(Arc<dyn Log>) -> Arc<dyn Log> + Send + Sync + 'static) -> Self {
        self.log = Box::new(log);
        self
    }

    /// Starts it and waits until every vnode has a home; nothing, and a line that says why, where services are
    /// missing and nobody insists on them.
    pub async fn start(self) -> Option<Cluster> {
        show_logs();
        let services = match self.backend {
            Backend::Services => Some(Services::find().await?),
            Backend::Memory | Backend::File(_) => None,
        };
        let place = Place::open(&self.backend, services.as_ref()).await;
        // On a broker that others use too no two lives of any test share a topic.
        let run = if services.is_some() { format!("t{:08x}-", rand::random::<u32>()) } else { String::new() };
        let names: Vec<_> = (1..=self.nodes).map(|i| format!("{run}ws-{i}")).collect();
        let mut cluster = Cluster {
            nodes: Vec::new(),
            coordinator: None,
            observer: place.backends(services.as_ref()).await,
            http: reqwest::Client::new(),
            names,
            setup: self,
            place,
            services,
        };
        if cluster.services.is_some() {
            cluster.pass_over_results().await;
        }
        let starting = (0..cluster.names.len()).map(|i| cluster.start_node(i));
        let nodes = join_all(starting).await;
        cluster.nodes = nodes.into_iter().map(Some).collect();
        cluster.coordinator = Some(cluster.start_coordinator().await);
        cluster.settled().await;
        Some(cluster)
    }
}

/// The back ends as each process would reach them: the embedded ones are shared, for the others each has its own
/// connections.
enum Place {
    Shared(Backends),
    Services,
}

impl Place {
    async fn open(backend: &Backend, services: Option<&Services>) -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        match (backend, services) {
            (Backend::Memory, _) => {
                let store = EmbeddedStore::memory(store_config(), Arc::new(clock));
                let log = EmbeddedLog::memory().expect("within a runtime");
                Self::Shared(Backends { store: Arc::new(store), log: Arc::new(log) })
            }
            (Backend::File(dir), _) => {
                // An earlier cluster on these files lets go of them when its last task has ended.
                let open = |dir: &Path| {
                    let store =
                        EmbeddedStore::open(&dir.join("store.db"), store_config(), Arc::new(clock)).ok()?;
                    let log = EmbeddedLog::open(&dir.join("log.db")).ok()?;
                    Some(Backends { store: Arc::new(store), log: Arc::new(log) })
                };
                Self::Shared(eventually("the files can be opened", async || open(dir)).await)
            }
            (Backend::Services, _) => Self::Services,
        }
    }

    async fn backends(&self, services: Option<&Services>) -> Backends {
        match (self, services) {
            (Self::Shared(backends), _) => backends.clone(),
            (Self::Services, Some(services)) => services.connect(store_config()).await,
            (Self::Services, None) => unreachable!("the place says that there are services"),
        }
    }
}

fn store_config() -> StoreConfig {
    StoreConfig { lease_ttl_ms: LEASE_TTL_MS, ..StoreConfig::default() }
}

/// Where `/route` says that a user is at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub node: String,
    pub url: String,
    pub vnode: u64,
    pub epoch: u64,
}

/// A running cluster. Dropped it ends as if every process had been killed.
pub struct Cluster {
    // Dropped in this order: the nodes before what they use.
    nodes: Vec<Option<Server>>,
    coordinator: Option<Coordinator>,
    /// For looking at what is kept, on connections of its own.
    observer: Backends,
    http: reqwest::Client,
    names: Vec<String>,
    setup: Setup,
    place: Place,
    services: Option<Services>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(services) = &self.services {
            services.forget(self.names.iter().map(|name| format!("messages-{name}")).collect());
        }
    }
}

impl Cluster {
    /// What clusters of earlier tests left in the broker is none of this one's.
    async fn pass_over_results(&self) {
        let log = &self.observer.log;
        let spec = TopicSpec::shared(CLIENT_RESULTS, PARTITIONS);
        log.ensure_topic(CLIENT_RESULTS, spec).await.expect("the topic is made");
        let mut ends = Vec::new();
        for partition in 0..PARTITIONS {
            let offset = log.end(CLIENT_RESULTS, partition).await.expect("its end is known");
            ends.push(Position { partition, offset });
        }
        log.commit(CLIENT_RESULTS, &ends).await.expect("the group is kept");
    }

    /// See [`Setup::start`].
    pub async fn start(backend: Backend, nodes: usize) -> Option<Self> {
        Setup::new(backend, nodes).start().await
    }

    async fn start_node(&self, i: usize) -> Server {
        let name = NodeId::new(&self.names[i]).expect("a node's name");
        let mut config = WsNodeConfig::new(name, VNODES, &Pins::Auto, verifier());
        config.core.lease_ttl_ms = LEASE_TTL_MS;
        config.core.linger_ms = LINGER_MS;
        config.core.grace_ms = GRACE_MS;
        config.core.open_rooms = true;
        // Counted like other messages: tests that count want none.
        config.core.canary_every_ms = 0;
        config.forget_after_s = self.setup.forget_after_s;
        (self.setup.tune)(i, &mut config);
        let Backends { store, log } = self.place.backends(self.services.as_ref()).await;
        let backends = Backends { store, log: (self.setup.log)(log) };
        let ports = Ports { public: listen().await, admin: listen().await };
        let server = Server::bind(config, backends, ports).await.expect("the node starts");
        eventually("the node is registered", async || server.status().gauges.registered.then_some(())).await;
        server
    }

    async fn start_coordinator(&self) -> Coordinator {
        let mut config = CoordinatorConfig::new(VNODES, LEASE_TTL_MS, verifier());
        // Tests look again and again, all from one address.
        config.requests = RequestLimits::NONE;
        // All nodes are registered: there is nobody to wait for.
        config.first_plan_wait_ms = 0;
        config.forget_after_s = self.setup.forget_after_s;
        let store = self.place.backends(self.services.as_ref()).await.store;
        Coordinator::bind(config, store, listen().await, listen().await)
            .await
            .expect("the coordinator starts")
    }

    /// Waits until every vnode is ready at the node that it is assigned to, and each living node has its share.
    pub async fn settled(&self) {
        let living = self.nodes.iter().flatten().count();
        eventually("every vnode has its home", async || {
            let snapshot = self.coordinator().view().load();
            let table = &snapshot.table;
            let mut shares: BTreeMap<NodeId, usize> = BTreeMap::new();
            for (vnode, target) in &table.assignment.targets {
                let at = snapshot.home(*vnode).filter(|home| home.node == *target)?;
                *shares.entry(at.node.clone()).or_default() += 1;
            }
            let all = table.assignment.targets.len() == VNODES as usize;
            let fair = shares.len() == living && shares.values().all(|n| *n >= VNODES as usize / living);
            (all && fair).then_some(())
        })
        .await;
    }

    /// The coordinator.
    pub fn coordinator(&self) -> &Coordinator {
        self.coordinator.as_ref().expect("the coordinator runs")
    }

    /// Where clients ask, such as `http://127.0.0.1:7300`.
    pub fn url(&self) -> String {
        format!("http://{}", self.coordinator().addr())
    }

    /// The node of this index, which must be running.
    pub fn node(&self, i: usize) -> &Server {
        self.nodes[i].as_ref().expect("the node runs")
    }

    /// The name of a node, running or not.
    pub fn name(&self, i: usize) -> &str {
        &self.names[i]
    }

    /// The index of the node of this name.
    pub fn index(&self, name: &str) -> usize {
        self.names.iter().position(|n| n == name).expect("a node of this cluster")
    }

    /// Kafka and Redis, if this cluster is on them.
    pub fn services(&self) -> Option<&Services> {
        self.services.as_ref()
    }

    /// The store, on a connection of its own.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.observer.store
    }

    /// The log, on a connection of its own.
    pub async fn log(&self) -> Arc<dyn Log> {
        self.place.backends(self.services.as_ref()).await.log
    }

    /// An archiver beside the cluster, which keeps what it reads in `archive`.
    pub async fn archiver(&self, archive: Arc<dyn Archive>) -> Archiver {
        crate::archive::archiver(self.log().await, archive).await
    }

    /// The end of a topic, to see what comes after.
    pub async fn tail(&self, topic: &str) -> Tail {
        let reader = self.observer.log.read_from_end(topic).await.expect("the topic can be read");
        Tail { reader }
    }

    /// Ends a node as a crash does: nothing is handed over.
    pub fn kill(&mut self, i: usize) {
        drop(self.nodes[i].take().expect("the node runs"));
    }

    /// Takes a node out, to be stopped in a task of the caller's with [`stop`].
    pub fn take(&mut self, i: usize) -> Server {
        self.nodes[i].take().expect("the node runs")
    }

    /// Stops a node in order and waits until it is done.
    pub async fn shutdown(&mut self, i: usize) {
        stop(self.take(i)).await;
    }

    /// Stops everything in order, all nodes at the same time.
    pub async fn stop(mut self) {
        join_all(self.nodes.iter_mut().filter_map(Option::take).map(stop)).await;
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.shutdown(SHUTDOWN_GRACE).await;
        }
    }

    /// A user id that no other test has.
    pub fn user(&self, name: &str) -> String {
        format!("{name}-{:016x}", rand::random::<u64>())
    }

    /// A user id that is at home on this node now.
    pub async fn user_at(&self, i: usize) -> String {
        eventually("a user is at home there", async || {
            let user = self.user("user");
            (self.route(&user).await.node == self.names[i]).then_some(user)
        })
        .await
    }

    /// A room that is at home on this node now.
    pub async fn room_at(&self, i: usize) -> String {
        eventually("a room is at home there", async || {
            let room = self.user("room");
            let stream = StreamId::of_room(&RoomId::new(&room).expect("a room's id"));
            let table = Arc::clone(&self.coordinator().view().load().table);
            let row = table.rows.get(&roost_ring::vnode_of_stream(&stream, table.vnodes))?;
            (row.ready && row.node().as_str() == self.names[i]).then_some(room)
        })
        .await
    }

    /// Asks `/route` until the user has a home. The id must not need escaping.
    pub async fn route(&self, user: &str) -> Route {
        eventually("the user has a home", async || {
            let answer = self.http.get(format!("{}/route?userId={user}", self.url())).send().await.ok()?;
            if answer.status() == 503 {
                return None;
            }
            assert_eq!(answer.status(), 200, "/route?userId={user}");
            let body: Value = answer.json().await.expect("JSON");
            let text = |name: &str| body[name].as_str().expect("a text").to_owned();
            let number = |name: &str| body[name].as_u64().expect("a number");
            assert_eq!(text("user_id"), user);
            Some(Route {
                node: text("node"),
                url: text("url"),
                vnode: number("vnode"),
                epoch: number("epoch"),
            })
        })
        .await
    }

    /// A good token, for an hour.
    pub fn token(&self, user: &str) -> String {
        token(user, now_s() + 3_600)
    }

    /// A session of `user` at its home, with these fields of `connect` beside the token; and its `welcome`.
    pub async fn connect(&self, user: &str, fields: Value) -> (Wire, Value) {
        // A home may move between the answer of /route and the connection, and its node may have ended.
        let deadline = Instant::now() + LIMIT;
        loop {
            let dialled = Wire::dial(Dial::new(&self.route(user).await.url)).await;
            let Ok(mut wire) = dialled else {
                assert!(Instant::now() < deadline, "not reached: {dialled:?}");
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            wire.say_connect(self.fields(user, fields.clone())).await;
            let first = wire.frame().await;
            if first["type"] == "welcome" {
                return (wire, first);
            }
            assert!(first["type"] == "moved" && Instant::now() < deadline, "not welcome: {first}");
        }
    }

    /// These fields of `connect`, and the token.
    pub fn fields(&self, user: &str, mut fields: Value) -> Value {
        if fields.is_null() {
            fields = json!({});
        }
        fields["token"] = json!(self.token(user));
        fields
    }

    /// The SDK, as `user`, with short waits.
    pub async fn client(&self, user: &str) -> (Client, Events) {
        let builder = Client::builder(self.url()).token(self.token(user));
        let waits = builder.backoff(Duration::from_millis(20), Duration::from_millis(300));
        waits.connect().await.expect("a usable client")
    }

    /// What `/presence` says of one user, to a service.
    pub async fn presence(&self, user: &str) -> Value {
        let asked = self.http.get(format!("{}/presence?userIds={user}", self.url()));
        let answer = asked.bearer_auth(token_of("service", Role::Service)).send().await;
        let body: Value = answer.expect("an answer").json().await.expect("JSON");
        assert_eq!(body["users"][0]["user_id"], user, "{body}");
        body["users"][0].clone()
    }

    /// Waits until `/presence` says this status of the user, and returns all it says.
    pub async fn presence_is(&self, user: &str, status: &str) -> Value {
        eventually(&format!("{user} is {status}"), async || {
            let shown = self.presence(user).await;
            (shown["status"] == status).then_some(shown)
        })
        .await
    }

    /// Vnodes that the leader has given to another node so far.
    pub async fn ring_moves(&self) -> f64 {
        let (_, text) = self.admin(self.coordinator().admin_addr(), "/metrics").await;
        let moves = text.lines().find_map(|line| line.strip_prefix("roost_coordinator_moves_total "));
        moves.and_then(|moves| moves.parse().ok()).expect("the metric is there")
    }

    /// The body of `/metrics`, `/readyz`, … at an admin port, and its status.
    pub async fn admin(&self, addr: std::net::SocketAddr, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("http://{addr}{path}")).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }
}

/// Stops a node in order.
pub async fn stop(server: Server) {
    server.shutdown(SHUTDOWN_GRACE).await;
}

/// What comes into a topic from some moment on, all partitions.
pub struct Tail {
    reader: Box<dyn LogReader>,
}

/// A record whose value is JSON.
#[derive(Debug, Clone)]
pub struct Record {
    pub partition: u32,
    pub key: String,
    pub value: Value,
}

impl Tail {
    /// The next `count` records with this key; the broker is shared, so there may be others.
    pub async fn records(&mut self, key: &str, count: usize) -> Vec<Record> {
        let found = self.some(key, count).await;
        assert_eq!(found.len(), count, "records of {key}: {found:#?}");
        found
    }

    /// At least as many: where clusters of other tests say the same.
    pub async fn some(&mut self, key: &str, count: usize) -> Vec<Record> {
        let mut found = Vec::new();
        let reading = async {
            while found.len() < count {
                // An error passes; the reader goes on where it was.
                let Ok(records) = self.reader.next().await else { continue };
                for record in records.into_iter().filter(|record| record.key == key.as_bytes()) {
                    let value = serde_json::from_slice(&record.payload).expect("values are JSON");
                    found.push(Record { partition: record.position.partition, key: key.to_owned(), value });
                }
            }
        };
        let in_time = tokio::time::timeout(LIMIT, reading).await.is_ok();
        assert!(in_time, "{count} records of {key} wanted, found {found:#?}");
        found
    }
}

/// Looks until there is something to see; a deadline away is a failed test.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(LOOK_EVERY).await;
    }
}

/// With `ROOST_TEST_LOG` set to a filter such as `info,roost_ws_node=debug` all clusters log to standard error.
fn show_logs() {
    static SHOWN: std::sync::Once = std::sync::Once::new();
    SHOWN.call_once(|| {
        if let Ok(filter) = std::env::var("ROOST_TEST_LOG") {
            telemetry::init(LogFormat::Text, &filter).expect("ROOST_TEST_LOG is a filter");
        }
    });
}

/// The present, in seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A token of the tests' issuer for the tests' audience.
pub fn token(user: &str, exp_s: u64) -> String {
    signed(user, exp_s, Role::User)
}

/// The same with a role, good for an hour.
pub fn token_of(user: &str, role: Role) -> String {
    signed(user, now_s() + 3_600, role)
}

/// One that allows these rooms, good for an hour.
pub fn token_for(user: &str, rooms: &[&str]) -> String {
    limited(user, Some(rooms), None)
}

/// One that allows to watch these users, good for an hour.
pub fn token_to_watch(user: &str, users: &[&str]) -> String {
    limited(user, None, Some(users))
}

fn limited(user: &str, rooms: Option<&[&str]>, watch: Option<&[&str]>) -> String {
    let sub = UserId::new(user).expect("a user's id");
    let list = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect();
    let (rooms, watch) = (rooms.map(list), watch.map(list));
    sign(&Claims { sub, exp: now_s() + 3_600, role: Role::User, rooms, watch })
}

fn signed(user: &str, exp: u64, role: Role) -> String {
    let sub = UserId::new(user).expect("a user's id");
    sign(&Claims { sub, exp, role, rooms: None, watch: None })
}

/// One that says this.
pub fn sign(claims: &Claims) -> String {
    sign_for(&secret(), claims, Some(AUDIENCE), Some(ISSUER))
}

/// What the tokens are signed with (HS256).
pub fn secret() -> Secret {
    Secret::new(SECRET)
}

pub(crate) fn verifier() -> Verifier {
    let keys = KeySource::from_secret(&secret()).expect("a long enough secret");
    Verifier::new(keys, Some(AUDIENCE.into()), Some(ISSUER.into()))
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// A directory of a test's own, removed at the end.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl Default for TempDir {
    fn default() -> Self {
        let path = std::env::temp_dir().join(format!("roost-tests-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&path).expect("a directory of its own");
        Self(path)
    }
}

impl TempDir {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left behind is in the system's directory for that.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
