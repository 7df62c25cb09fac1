//! A ws-node as a whole: ports, tasks, and the order in which it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use roost_backend::log::{Durability, Log, LogReader, Producer, Report, TopicSpec};
use roost_backend::store::{Deregister, LiveChannel, Store, Subscriber};
use roost_proto::events::{
    CHAT_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS, messages_topic,
};
use roost_proto::ids::NodeId;
use roost_proto::limits::UNANSWERED_MAX;
use roost_proto::results::{CLIENT_RESULTS, DEAD_LETTERS};
use roost_service::http::serve;
use roost_service::{Health, HttpLimits, HttpMetrics, TaskEnded, Tasks, admin, reply};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;

use crate::api::{self, Api, ApiMetrics, ApiPermits};
use crate::config::{MESSAGES_RETENTION_MS, WsNodeConfig};
use crate::core::{CoreConfig, Input, NodeCore};
use crate::error::{BindError, Ended};
use crate::inputs::{EVENTS_MAX, INPUT_BYTES_MAX, NodeInput};
use crate::janitor::{self, Janitor, Names};
use crate::link::accept::{self, Accepting};
use crate::live::{self, SubscribeRequest};
use crate::metrics::{self, Metrics};
use crate::node::{self, Clock, Node, Parts, Status};
use crate::operate::{self, Operator};
use crate::socket::Shared;
use crate::upgrade;

/// Delivery reports waiting for the node's task; the producers' own queues are larger, so they wait for it.
const REPORTS_MAX: usize = 16_384;
/// Connections of the admin port: scrapers and probes, and three coordinators with all the requests of the server API
/// that each passes on at once.
const ADMIN_CONNECTIONS_MAX: usize = 512;
/// What the server may say of itself to a session beyond messages and replies.
const SLACK: usize = 32;
/// Publications that wait for the node's task; of more it is told that it missed some, and reads them.
const LIVE_MAX: usize = 4096;
/// What the system keeps for a reader that has stopped, as `SO_SNDBUF`, which Linux doubles for its own needs
/// (`socket(7)`); it would take 4 MiB if not told. A living reader gets as much in every round trip: a hundred frames.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Without progress for this long nobody plans: the rest is given up without a target.
const HANDOFF_STALLS: Duration = Duration::from_secs(3);
/// A node that another life of it took over from is in the way of nobody, and of no use to anybody.
const ENDED_PATIENCE: Duration = Duration::from_millis(500);
/// Time for producers to get out what they have, and for tasks to end, when the node stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a node keeps things.
#[derive(Clone)]
pub struct Backends {
    pub store: Arc<dyn Store>,
    pub log: Arc<dyn Log>,
}

/// The listeners of a node; a test passes port 0.
pub struct Ports {
    pub public: TcpListener,
    pub admin: TcpListener,
}

/// A running node. Dropping it without [`Server::shutdown`] is a crash: nothing is handed over.
pub struct Server {
    node: NodeId,
    addr: SocketAddr,
    admin_addr: SocketAddr,
    url: String,
    backends: Backends,
    events: mpsc::Sender<NodeInput>,
    status: watch::Receiver<Status>,
    registry: Registry,
    health: Health,
    producers: [Arc<dyn Producer>; 2],
    /// Of the connections that were upgraded: each ends by itself, and a panic of it is its own.
    sockets: TaskTracker,
    tasks: Tasks,
    /// Cancelled when the process is asked to end.
    stopping: CancellationToken,
    accepting: CancellationToken,
    closing: CancellationToken,
    /// Of the node's task.
    leaving: CancellationToken,
    stop: CancellationToken,
    /// Its row stays as a tombstone, which a leader removes.
    tombstone: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before `closing`: who crashes takes leave of nobody.
        self.stop.cancel();
        self.accepting.cancel();
        self.closing.cancel();
    }
}

impl Server {
    /// Opens everything: the ring, the topics, a reader on the node's own topic, the ports. When it returns the
    /// node takes connections; vnodes follow as they are claimed.
    ///
    /// # Errors
    /// [`BindError`]: another `VNODES`, another partition count, or a back end that does not answer.
    pub async fn bind(mut config: WsNodeConfig, backends: Backends, ports: Ports) -> Result<Self, BindError> {
        let (addr, admin_addr) = (ports.public.local_addr()?, ports.admin.local_addr()?);
        // Connections inherit it (`tcp(7)`).
        SockRef::from(&ports.public).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        name_itself(&mut config.core, addr, admin_addr);
        backends.store.open_ring(config.core.vnodes).await.map_err(BindError::Store)?;
        let (reports, report_queue) = mpsc::channel(REPORTS_MAX);
        let (reader, [transport, outbox]) = open_log(&*backends.log, &config.core, reports).await?;

        let registry = Registry::new();
        let metrics = Metrics::register(&registry)?;
        let health = Health::new(&["redis", "kafka", "node"]);
        let tasks = Tasks::default();
        let stop = tasks.stop();
        let (events, inputs) = mpsc::channel(EVENTS_MAX);
        let (status_out, status) = watch::channel(Status::default());
        let mut server = Self {
            node: config.core.node.clone(),
            addr,
            admin_addr,
            url: config.core.url.clone(),
            backends,
            events,
            status,
            registry,
            health,
            producers: [Arc::clone(&transport), Arc::clone(&outbox)],
            sockets: TaskTracker::new(),
            tasks,
            stopping: CancellationToken::new(),
            accepting: CancellationToken::new(),
            closing: CancellationToken::new(),
            leaving: stop.child_token(),
            stop,
            tombstone: config.forget_after_s > 0,
        };
        let (follows, requests) = mpsc::channel(EVENTS_MAX);
        let (publications, published) = mpsc::channel(LIVE_MAX);
        let clock = Clock::new();
        let lag = Arc::new(AtomicU64::new(0));
        let refresh = Arc::new(Notify::new());
        let parts = Parts {
            core: NodeCore::new(config.core.clone(), clock.now()),
            clock,
            store: Arc::clone(&server.backends.store),
            follows,
            publications,
            log: Arc::clone(&server.backends.log),
            transport,
            outbox,
            events: server.events.clone(),
            refresh: Arc::clone(&refresh),
            metrics,
            lag: Arc::clone(&lag),
            lease_ttl_ms: config.core.lease_ttl_ms,
            status: status_out,
            // A node has thousands of questions under way, begins and leaves readings as its share of the results changes,
            // and links as nodes come and go: none of them is a part that must not end.
            tasks: server.tasks.jobs("question"),
            readings: server.tasks.jobs("results"),
            links: server.tasks.jobs("link"),
            stop: server.leaving.clone(),
        };
        server.tasks.spawn("node", Node::new(parts).run(inputs, report_queue));
        server.spawn_watchers(reader, refresh, lag, &config)?;
        server.spawn_live(published, requests);
        server.spawn_http(&config, ports)?;
        Ok(server)
    }

    /// What is published, and heard.
    fn spawn_live(
        &mut self,
        published: mpsc::Receiver<(LiveChannel, Bytes)>,
        requests: mpsc::Receiver<SubscribeRequest>,
    ) {
        let (heard, hear) = mpsc::channel(LIVE_MAX);
        let subscriber: Arc<dyn Subscriber> = self.backends.store.subscribe(heard).into();
        let (store, stop) = (Arc::clone(&self.backends.store), self.stop.clone());
        self.tasks.spawn("publish", live::publish(store, published, stop.clone()));
        let (follower, events) = (Arc::clone(&subscriber), self.events.clone());
        self.tasks.spawn("follow", live::follow(follower, requests, events.clone(), stop.clone()));
        let own = LiveChannel::Node(self.node.clone());
        self.tasks.spawn("hear", live::listen(subscriber, own, hear, events, stop));
    }

    fn spawn_watchers(
        &mut self,
        reader: Box<dyn LogReader>,
        refresh: Arc<Notify>,
        lag: Arc<AtomicU64>,
        config: &WsNodeConfig,
    ) -> Result<(), BindError> {
        let (names, tables) = watch::channel(Names::default());
        if config.forget_after_s > 0 {
            let janitor = Janitor::new(self.node.clone(), config.core.lease_ttl_ms);
            let removed = janitor::topics_removed(&self.registry)?;
            let (store, log) = (Arc::clone(&self.backends.store), Arc::clone(&self.backends.log));
            let stop = self.stop.clone();
            self.tasks.spawn("janitor", janitor::run(janitor, tables, store, log, removed, stop));
        }
        let (events, health, stop) = (self.events.clone(), self.health.clone(), self.stop.clone());
        let (store, log) = (Arc::clone(&self.backends.store), Arc::clone(&self.backends.log));
        self.tasks.spawn("inbox", node::read_inbox(reader, events.clone(), lag, stop.clone()));
        let watching = node::watch_table(store, events.clone(), refresh, names, health.clone(), stop.clone());
        self.tasks.spawn("table", watching);
        self.tasks.spawn("log", node::watch_log(log, events, health.clone(), stop.clone()));
        self.tasks.spawn("health", tell_health(self.status.clone(), health, stop));
        Ok(())
    }

    fn spawn_http(&mut self, config: &WsNodeConfig, ports: Ports) -> Result<(), BindError> {
        let shared = Arc::new(Shared {
            events: self.events.clone(),
            bytes: Arc::new(Semaphore::new(INPUT_BYTES_MAX)),
            verifier: config.verifier.clone(),
            origins: config.access.origins.clone(),
            origins_refused: metrics::origins_refused(&self.registry)?,
            token_expiring: Duration::from_millis(config.access.token_expiring_ms),
            next: AtomicU64::new(1),
            // Beside commands there are acks, pongs and what is refused.
            frames: (4 * config.core.commands_per_s, 2 * config.core.commands_burst),
            credit: (config.core.credit, config.core.credit_bytes),
            signal_credit: (config.core.signal_credit, config.core.signal_credit_bytes),
            queue_max: config.core.credit + config.core.signal_credit + UNANSWERED_MAX + SLACK,
            sockets: self.sockets.clone(),
            closing: self.closing.clone(),
            stop: self.stop.clone(),
        });
        let api = Arc::new(Api {
            events: self.events.clone(),
            store: Arc::clone(&self.backends.store),
            verifier: config.verifier.clone(),
            status: self.status.clone(),
            closing: self.closing.clone(),
            vnodes: config.core.vnodes,
            archive_url: config.core.archive_url.clone(),
            metrics: ApiMetrics::register(&self.registry)?,
            log: Arc::clone(&self.backends.log),
            tasks: self.tasks.tracker().clone(),
            permits: ApiPermits::default(),
        });
        let public = upgrade::route(shared).or(api::routes(Arc::clone(&api))).recover(reply::recover);
        let operator = operate::routes(Operator {
            events: self.events.clone(),
            store: Arc::clone(&self.backends.store),
            verifier: config.verifier.clone(),
            status: self.status.clone(),
            stopping: self.stopping.clone(),
            health: self.health.clone(),
            vnodes: config.core.vnodes,
            permit: Semaphore::new(1),
        });
        let admin_routes = admin::routes(self.health.clone(), self.registry.clone());
        let links = accept::route(self.accepting());
        let admin_routes = admin_routes.or(operator).or(links).or(api::routes(api)).recover(reply::recover);
        let public_metrics = HttpMetrics::register(&self.registry, "public")?;
        let admin_metrics = HttpMetrics::register(&self.registry, "admin")?;
        let public = serve(
            ports.public,
            warp::service(public),
            config.http.clone(),
            public_metrics,
            self.accepting.clone(),
            self.tasks.tracker(),
        );
        self.tasks.spawn("public", public);
        let admin = serve(
            ports.admin,
            warp::service(admin_routes),
            HttpLimits { connections_max: ADMIN_CONNECTIONS_MAX, ..HttpLimits::admin() },
            admin_metrics,
            self.stop.clone(),
            self.tasks.tracker(),
        );
        self.tasks.spawn("admin", admin);
        Ok(())
    }

    /// What other nodes' links are accepted with.
    fn accepting(&self) -> Accepting {
        Accepting {
            store: Arc::clone(&self.backends.store),
            events: self.events.clone(),
            status: self.status.clone(),
            tasks: self.tasks.tracker().clone(),
            stop: self.stop.clone(),
        }
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// What clients dial.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the node ends by itself, or a part of it does. Cancel safe.
    pub async fn join(&mut self) -> Ended {
        let ended = async {
            let status = self.status.wait_for(|s| s.ended.is_some()).await;
            status.ok().and_then(|status| status.ended.clone())
        };
        tokio::select! {
            Some(ended) = ended => ended,
            // Also when the node's task is gone, which would have said why.
            bug = self.tasks.join() => Ended::Bug(bug),
        }
    }

    /// The task that ended though nobody asked for it, if one has.
    pub fn failed(&self) -> Option<TaskEnded> {
        self.tasks.failed()
    }

    /// Stops in order, within `grace`: not ready → vnodes handed over while sessions are told where to go → no more
    /// connections → the rest given up → the last sessions closed (3001) → what is produced gets out → the node's
    /// row removed. What does not fit is left as a crash would leave it, and said.
    pub async fn shutdown(mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.stopping.cancel();
        self.health.drain();
        let _ = self.events.send(NodeInput::Core(Input::Drain)).await;
        let handed = self.hand_over(Instant::now() + grace * 6 / 10).await;
        if !handed {
            let _ = self.events.send(NodeInput::Core(Input::ReleaseAll)).await;
            self.until(Instant::now() + grace * 2 / 10, |s| s.empty_handed).await;
        }
        self.accepting.cancel();
        // Sessions go as they were told to; items still unconfirmed are what their clients repeat elsewhere.
        let patience = deadline.min(Instant::now() + self.patience(grace * 2 / 10));
        self.until(patience, |s| s.gauges.sessions == 0 && !s.unconfirmed).await;
        let left = self.status();
        if !left.empty_handed || left.gauges.sessions > 0 {
            let (sessions, vnodes) = (left.gauges.sessions, left.gauges.owned);
            tracing::warn!(sessions, vnodes, "the grace was too short: closing what is left");
        }
        self.closing.cancel();
        self.sockets.close();
        let _ = timeout(FLUSH_TIMEOUT, self.sockets.wait()).await;
        for producer in &self.producers {
            producer.flush(FLUSH_TIMEOUT).await;
        }
        // A beat after its row says that it is over would begin another life.
        self.leaving.cancel();
        self.deregister().await;
        self.stop.cancel();
        let _ = timeout(FLUSH_TIMEOUT, std::mem::take(&mut self.tasks).finish()).await;
    }

    /// How long sessions may take to go: after its end by itself the node has nothing to tell them, so they are closed.
    fn patience(&self, usual: Duration) -> Duration {
        if self.status().ended.is_some() { usual.min(ENDED_PATIENCE) } else { usual }
    }

    /// Waits while vnodes go to their new homes; false if that ends or stalls before all are gone.
    async fn hand_over(&mut self, until: Instant) -> bool {
        let mut last = ((usize::MAX, usize::MAX), Instant::now());
        while Instant::now() < until {
            let status = self.status();
            if status.empty_handed {
                return true;
            }
            // Vnodes wait for the sessions of those before them to be taken elsewhere.
            let left = (status.gauges.owned, status.gauges.sessions);
            if left.0 < last.0.0 || left.1 < last.0.1 {
                last = (left, Instant::now());
            } else if last.1.elapsed() > HANDOFF_STALLS {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn until(&mut self, deadline: Instant, done: impl Fn(&Status) -> bool) {
        let _ = tokio::time::timeout_at(deadline, self.status.wait_for(|s| done(s))).await;
    }

    /// Only this life's row: a successor's stays.
    async fn deregister(&self) {
        let Some(sid) = self.status().sid else { return };
        let removed = async {
            let data_set = self.backends.store.table().await?.data_set;
            let leave = Deregister { data_set, sid, tombstone: self.tombstone };
            self.backends.store.deregister(&leave).await
        };
        if let Ok(Err(error)) = timeout(FLUSH_TIMEOUT, removed).await {
            tracing::warn!(%error, "the node's row stays behind");
        }
    }
}

/// Says in `/readyz` whether the node has its place in the cluster.
async fn tell_health(mut status: watch::Receiver<Status>, health: Health, stop: CancellationToken) {
    loop {
        let gauges = status.borrow_and_update().gauges;
        let node = match (gauges.registered, gauges.assigned) {
            (false, _) => Err("not registered yet".into()),
            (true, false) => Err("no vnodes were ever assigned: is a coordinator running?".into()),
            (true, true) => Ok(()),
        };
        health.set("node", node);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}

/// Where it is reached, unless that was said: at its own ports.
fn name_itself(core: &mut CoreConfig, addr: SocketAddr, admin_addr: SocketAddr) {
    if core.url.is_empty() {
        core.url = format!("ws://{addr}/socket");
    }
    if core.admin.is_empty() {
        core.admin = admin_addr.to_string();
    }
}

/// A reader of the node's own topic, and a producer of each durability.
async fn open_log(
    log: &dyn Log,
    core: &CoreConfig,
    reports: mpsc::Sender<Report>,
) -> Result<(Box<dyn LogReader>, [Arc<dyn Producer>; 2]), BindError> {
    let own = messages_topic(&core.node);
    ensure_topics(log, &own, core.partitions).await?;
    let failed = |source| BindError::Log { topic: own.clone(), source };
    // Fixed before the node's sid is registered: nothing for this life is before it (core rule 8).
    let reader = log.read_from_end(&own).await.map_err(failed)?;
    let transport = log.producer(Durability::Transport, reports.clone()).map_err(failed)?;
    Ok((reader, [transport, log.producer(Durability::Outbox, reports).map_err(failed)?]))
}

async fn ensure_topics(log: &dyn Log, own: &str, partitions: u32) -> Result<(), BindError> {
    // The shared ones first: with a wrong partition count the node's own topic must not be made.
    let shared =
        [CHAT_EVENTS, USER_STATUS_EVENTS, UNDELIVERED_EVENTS, CLIENT_EVENTS, CLIENT_RESULTS, DEAD_LETTERS]
            .map(|topic| (topic, TopicSpec::shared(topic, partitions)));
    let own = (own, TopicSpec::kept_for(MESSAGES_RETENTION_MS, partitions));
    for (topic, spec) in shared.into_iter().chain([own]) {
        let made = log.ensure_topic(topic, spec).await;
        made.map_err(|source| BindError::Log { topic: topic.to_owned(), source })?;
    }
    Ok(())
}
