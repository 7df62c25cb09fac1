//! One archiver: its ports, its tasks, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use roost_backend::archive::Archive;
use roost_backend::log::{Log, LogError, TopicSpec};
use roost_proto::events::{CHAT_EVENTS, USER_STATUS_EVENTS};
use roost_service::{Health, HttpLimits, HttpMetrics, admin, reply, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use warp::Filter;

use crate::config::ArchiverConfig;
use crate::follow::{Follower, Progress};
use crate::metrics::Metrics;
use crate::routes::{Api, routes};
use crate::watch::{CHECKS, Watch, Watched, trim};

/// What is archived.
const TOPICS: [&str; 2] = [CHAT_EVENTS, USER_STATUS_EVENTS];

/// Why an archiver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("the topic {topic}")]
    Log {
        topic: String,
        #[source]
        source: LogError,
    },
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

/// A running archiver; dropped without [`Archiver::shutdown`] it stops at once, as if it had crashed.
#[derive(Debug)]
pub struct Archiver {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    health: Health,
    registry: Registry,
    /// Ends everything but the admin port.
    stop: CancellationToken,
    /// Ends the admin port, and `stop` with it.
    stop_all: CancellationToken,
    tasks: JoinSet<&'static str>,
    /// Of the connections.
    tracker: TaskTracker,
    _drop: DropGuard,
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
        let (addr, admin_addr) = (public.local_addr()?, admin_port.local_addr()?);
        let (registry, health) = (Registry::new(), Health::new(&CHECKS));
        let metrics = Metrics::register(&registry)?;
        let public_metrics = HttpMetrics::register(&registry, "public")?;
        let admin_metrics = HttpMetrics::register(&registry, "admin")?;
        for topic in TOPICS {
            // As ws-nodes make them, whoever comes first.
            let spec = TopicSpec { partitions: config.partitions, retention_ms: None };
            let ensured = log.ensure_topic(topic, spec).await;
            ensured.map_err(|source| BindError::Log { topic: topic.to_owned(), source })?;
        }

        let stop_all = CancellationToken::new();
        let stop = stop_all.child_token();
        let (mut tasks, tracker) = (JoinSet::new(), TaskTracker::new());
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
            spawn(&mut tasks, topic, follower.run(stop.clone()));
        }
        let watch = Watch {
            id: config.id.clone(),
            living,
            log,
            archive: Arc::clone(&archive),
            health: health.clone(),
            metrics: metrics.clone(),
        };
        spawn(&mut tasks, "watch", watch.run(topics, stop.clone()));
        if config.retention_days > 0 {
            spawn(&mut tasks, "trim", trim(Arc::clone(&archive), config.retention_days, stop.clone()));
        }
        let http = config.http.clone();
        let api = warp::service(routes(Api { config, archive, metrics }));
        let public = serve(public, api, http, public_metrics, stop.clone(), &tracker);
        let admin_api = admin::routes(health.clone(), registry.clone()).recover(reply::recover).unify();
        let admin_api = warp::service(admin_api);
        let limits = HttpLimits::admin();
        let admin_port = serve(admin_port, admin_api, limits, admin_metrics, stop_all.clone(), &tracker);
        spawn(&mut tasks, "public", public);
        spawn(&mut tasks, "admin", admin_port);
        let drop = stop_all.clone().drop_guard();
        Ok(Self { addr, admin_addr, health, registry, stop, stop_all, tasks, tracker, _drop: drop })
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

    /// Stops in order, within `grace`: `/readyz` says 503, then nothing more is archived, the other archivers are told,
    /// running requests finish, the admin port closes last. A batch under way is given up; another archiver reads on
    /// from the last one.
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
