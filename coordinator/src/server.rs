//! One coordinator: its ports, its tasks, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::Registry;
use roost_backend::store::{Store, StoreError};
use roost_proto::limits::BEATS_PER_LEASE;
use roost_service::{Health, HttpLimits, HttpMetrics, admin, reply, serve};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use warp::Filter;

use crate::carry::Carrier;
use crate::config::CoordinatorConfig;
use crate::leader::{Leader, LeaderConfig};
use crate::metrics::Metrics;
use crate::routes::{self, Api, routes};
use crate::view::{CHECKS, View};

/// How long opening the ring may take, on a store that was just reached.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("the ring cannot be opened")]
    Store(#[from] StoreError),
    #[error("a listener has no address")]
    Listener(#[from] io::Error),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// A task ended though nobody asked for it: a bug. The rest still runs.
#[derive(Debug, thiserror::Error)]
#[error("the task '{task}' ended by itself")]
pub struct TaskEnded {
    pub task: &'static str,
}

/// A running coordinator; dropped without [`Coordinator::shutdown`] it stops at once, as if it had crashed.
#[derive(Debug)]
pub struct Coordinator {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    health: Health,
    registry: Registry,
    view: Arc<View>,
    leading: Arc<AtomicBool>,
    /// Ends everything but the admin port.
    stop: CancellationToken,
    /// Ends the admin port, and `stop` with it.
    stop_all: CancellationToken,
    tasks: JoinSet<&'static str>,
    /// Of the connections.
    tracker: TaskTracker,
    _drop: DropGuard,
}

impl Coordinator {
    /// Opens the ring, reads the table, and serves on both listeners.
    ///
    /// # Errors
    /// [`BindError::Store`] if the store is not reached, or if its ring has another number of vnodes.
    pub async fn bind(
        config: CoordinatorConfig,
        store: Arc<dyn Store>,
        public: TcpListener,
        admin_port: TcpListener,
    ) -> Result<Self, BindError> {
        let (addr, admin_addr) = (public.local_addr()?, admin_port.local_addr()?);
        let (registry, health) = (Registry::new(), Health::new(&CHECKS));
        let metrics = Metrics::register(&registry)?;
        let public_metrics = HttpMetrics::register(&registry, "public")?;
        let admin_metrics = HttpMetrics::register(&registry, "admin")?;
        let open = tokio::time::timeout(OPEN_TIMEOUT, store.open_ring(config.vnodes));
        open.await.unwrap_or(Err(StoreError::Timeout(OPEN_TIMEOUT)))?;
        let beat = Duration::from_millis(config.lease_ttl_ms / BEATS_PER_LEASE);
        let view = View::open(
            Arc::clone(&store),
            config.vnodes,
            config.lease_ttl_ms,
            beat,
            health.clone(),
            metrics.clone(),
        );
        let view = Arc::new(view.await?);

        let stop_all = CancellationToken::new();
        let stop = stop_all.child_token();
        let leading = Arc::new(AtomicBool::new(false));
        let (mut tasks, tracker) = (JoinSet::new(), TaskTracker::new());
        let carrier = Carrier {
            leader: Leader::new(LeaderConfig {
                token: config.token,
                lease_ttl_ms: config.lease_ttl_ms,
                in_flight_max: config.in_flight_max,
                first_plan_wait_ms: config.first_plan_wait_ms,
            }),
            beat,
            store: Arc::clone(&store),
            view: Arc::clone(&view),
            metrics: metrics.clone(),
            leading: Arc::clone(&leading),
        };
        let lease_ttl = Duration::from_millis(config.lease_ttl_ms);
        let operators = routes::operators();
        let api = Api {
            view: Arc::clone(&view),
            store,
            metrics,
            vnodes: config.vnodes,
            lease_ttl,
            operators,
            nodes: routes::Forwarder::new(),
        };
        let api = warp::service(routes(api));
        let public = serve(public, api, config.http, public_metrics, stop.clone(), &tracker);
        let admin_api = admin::routes(health.clone(), registry.clone()).recover(reply::recover).unify();
        let admin_api = warp::service(admin_api);
        let limits = HttpLimits::admin();
        let admin_port = serve(admin_port, admin_api, limits, admin_metrics, stop_all.clone(), &tracker);
        spawn(&mut tasks, "view", Arc::clone(&view).run(stop.clone()));
        spawn(&mut tasks, "leader", carrier.run(stop.clone()));
        spawn(&mut tasks, "public", public);
        spawn(&mut tasks, "admin", admin_port);
        let drop = stop_all.clone().drop_guard();
        Ok(Self {
            addr,
            admin_addr,
            health,
            registry,
            view,
            leading,
            stop,
            stop_all,
            tasks,
            tracker,
            _drop: drop,
        })
    }

    /// Where clients ask.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Whether it leads, as far as it knows.
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Its own metrics; a binary adds those of the process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Waits until a part of it ends, which none should. Cancel safe.
    pub async fn join(&mut self) -> TaskEnded {
        match self.tasks.join_next().await {
            Some(Ok(task)) => TaskEnded { task },
            Some(Err(failure)) => {
                tracing::error!(%failure, "a task broke");
                TaskEnded { task: "(broken)" }
            }
            None => TaskEnded { task: "(all)" },
        }
    }

    /// Stops in order, within `grace`: `/readyz` says 503, then no new connections and no leading, running
    /// requests finish, the admin port closes last. Another coordinator leads within a beat.
    pub async fn shutdown(mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.health.drain();
        self.stop.cancel();
        // All but the admin port.
        while self.tasks.len() > 1 && timeout_at(deadline, self.tasks.join_next()).await.is_ok() {}
        self.stop_all.cancel();
        while let Ok(Some(_)) = timeout_at(deadline, self.tasks.join_next()).await {}
        self.tracker.close();
        let cut = self.tasks.len() + self.tracker.len();
        if cut > 0 {
            tracing::warn!(cut, "the grace is over: what still runs is cut");
        }
        self.tasks.abort_all();
    }
}

fn spawn(
    tasks: &mut JoinSet<&'static str>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        task.await;
        name
    });
}
