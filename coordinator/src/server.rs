//! One coordinator: its ports, its tasks, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::Registry;
use roost_backend::store::{Store, StoreError};
use roost_proto::limits::BEATS_PER_LEASE;
use roost_service::{Health, HttpMetrics, TaskEnded, Tasks, serve};
use tokio::net::TcpListener;

use crate::carry::Carrier;
use crate::config::CoordinatorConfig;
use crate::gate::{Gate, Gated};
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

/// A running coordinator; dropped without [`Coordinator::shutdown`] it stops at once, as if it had crashed.
#[derive(Debug)]
pub struct Coordinator {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    health: Health,
    registry: Registry,
    view: Arc<View>,
    leading: Arc<AtomicBool>,
    tasks: Tasks,
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

        let leading = Arc::new(AtomicBool::new(false));
        let mut tasks = Tasks::default();
        let stop = tasks.stop();
        let carrier = Carrier {
            leader: Leader::new(LeaderConfig {
                token: config.token,
                lease_ttl_ms: config.lease_ttl_ms,
                in_flight_max: config.in_flight_max,
                first_plan_wait_ms: config.first_plan_wait_ms,
                forget_after_s: config.forget_after_s,
            }),
            beat,
            store: Arc::clone(&store),
            view: Arc::clone(&view),
            metrics: metrics.clone(),
            leading: Arc::clone(&leading),
        };
        let lease_ttl = Duration::from_millis(config.lease_ttl_ms);
        let operators = routes::operators();
        let trusted = config.http.trusted_proxies.clone();
        let gate = Arc::new(Gate::new(config.verifier, config.requests, trusted, metrics.clone()));
        let api = Api {
            view: Arc::clone(&view),
            store,
            metrics,
            vnodes: config.vnodes,
            lease_ttl,
            gate: Arc::clone(&gate),
            open_presence: config.open_presence,
            watch_needs_claim: config.watch_needs_claim,
            operators,
            nodes: routes::Forwarder::new(),
        };
        let api = Gated { gate, routes: warp::service(routes(api, &config.console)) };
        let public = serve(public, api, config.http, public_metrics, stop.clone(), tasks.tracker());
        tasks.spawn("view", Arc::clone(&view).run(stop.clone()));
        tasks.spawn("leader", carrier.run(stop));
        tasks.spawn("public", public);
        tasks.serve_admin(admin_port, health.clone(), registry.clone(), admin_metrics);
        Ok(Self { addr, admin_addr, health, registry, view, leading, tasks })
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
    pub async fn join(&self) -> TaskEnded {
        self.tasks.join().await
    }

    /// Stops in order, within `grace`: `/readyz` says 503, then no new connections and no leading, running
    /// requests finish, the admin port closes last. Another coordinator leads within a beat.
    pub async fn shutdown(self, grace: Duration) {
        self.tasks.shutdown(&self.health, grace).await;
    }
}
