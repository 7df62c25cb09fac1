//! One archiver: its ports, its tasks, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use roost_backend::archive::Archive;
use roost_backend::log::{Log, TopicSpec};
use roost_proto::events::{CHAT_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS};
use roost_proto::results::{CLIENT_RESULTS, DEAD_LETTERS};
use roost_service::{Health, HttpMetrics, TaskEnded, Tasks, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::ArchiverConfig;
use crate::error::BindError;
use crate::follow::{Follower, Progress};
use crate::metrics::Metrics;
use crate::routes::{Api, routes};
use crate::watch::{CHECKS, Watch, Watched, trim};

/// What is archived.
const TOPICS: [&str; 6] =
    [CHAT_EVENTS, USER_STATUS_EVENTS, UNDELIVERED_EVENTS, CLIENT_EVENTS, CLIENT_RESULTS, DEAD_LETTERS];

/// The admin port of an archiver that is still reaching its database and its log: it lives, and is not ready.
#[derive(Debug)]
pub struct Starting {
    admin_addr: SocketAddr,
    health: Health,
    registry: Registry,
    tasks: Tasks,
}

impl Starting {
    /// Serves health and metrics from now on.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn serve(admin_port: TcpListener) -> Result<Self, BindError> {
        let admin_addr = admin_port.local_addr()?;
        let (registry, health, mut tasks) = (Registry::new(), Health::new(&CHECKS), Tasks::default());
        let metrics = HttpMetrics::register(&registry, "admin")?;
        tasks.serve_admin(admin_port, health.clone(), registry.clone(), metrics);
        Ok(Self { admin_addr, health, registry, tasks })
    }

    /// What `/readyz` says: `database` and `kafka`.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Makes sure that there are topics to read, and serves on the public listener, too.
    ///
    /// # Errors
    /// As [`Archiver::bind`].
    pub async fn bind(
        self,
        config: ArchiverConfig,
        log: Arc<dyn Log>,
        archive: Arc<dyn Archive>,
        public: TcpListener,
    ) -> Result<Archiver, BindError> {
        let Self { admin_addr, health, registry, mut tasks } = self;
        let addr = public.local_addr()?;
        let metrics = Metrics::register(&registry)?;
        let public_metrics = HttpMetrics::register(&registry, "public")?;
        for topic in TOPICS {
            let ensured = log.ensure_topic(topic, TopicSpec::shared(topic, config.partitions)).await;
            ensured.map_err(|source| BindError::Log { topic: topic.to_owned(), source })?;
        }

        let stop = tasks.stop();
        let (living, _) = watch::channel(Vec::new());
        let mut topics = Vec::new();
        for topic in TOPICS {
            let (progress, topic_metrics) = (Progress::default(), metrics.of(topic));
            topics.push(Watched::new(topic, progress.clone(), topic_metrics.clone()));
            let follower = Follower {
                topic,
                partitions: config.partitions,
                id: config.id.clone(),
                living: living.subscribe(),
                log: Arc::clone(&log),
                archive: Arc::clone(&archive),
                progress,
                metrics: topic_metrics,
                backoff_max: Duration::from_millis(config.backoff_max_ms),
            };
            tasks.spawn(topic, follower.run(stop.clone()));
        }
        let watch = Watch {
            id: config.id.clone(),
            living,
            log,
            archive: Arc::clone(&archive),
            health: health.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn("watch", watch.run(topics, stop.clone()));
        if config.retention_days > 0 {
            tasks.spawn("trim", trim(Arc::clone(&archive), config.retention_days, stop.clone()));
        }
        let http = config.http.clone();
        let api = warp::service(routes(Api::new(config, archive, metrics, tasks.tracker().clone())));
        let public = serve(public, api, http, public_metrics, stop, tasks.tracker());
        tasks.spawn("public", public);
        Ok(Archiver { addr, admin_addr, health, registry, tasks })
    }
}

/// A running archiver; dropped without [`Archiver::shutdown`] it stops at once, as if it had crashed.
#[derive(Debug)]
pub struct Archiver {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    health: Health,
    registry: Registry,
    tasks: Tasks,
}

impl Archiver {
    /// Makes sure that there are topics to read, and serves on both listeners.
    ///
    /// # Errors
    /// [`BindError::Log`] if the log is not reached, or its topics have another number of partitions.
    pub async fn bind(
        config: ArchiverConfig,
        log: Arc<dyn Log>,
        archive: Arc<dyn Archive>,
        public: TcpListener,
        admin_port: TcpListener,
    ) -> Result<Self, BindError> {
        Starting::serve(admin_port)?.bind(config, log, archive, public).await
    }

    /// Where clients ask.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Its own metrics; a binary adds those of the process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Waits until a part of it ends, which none should. Cancel safe.
    pub async fn join(&self) -> TaskEnded {
        self.tasks.join().await
    }

    /// Stops in order, within `grace`: `/readyz` says 503, then nothing more is archived, the other archivers are told,
    /// running requests finish, the admin port closes last. A batch under way is given up; another archiver reads on
    /// from the last one.
    pub async fn shutdown(self, grace: Duration) {
        self.tasks.shutdown(&self.health, grace).await;
    }
}
