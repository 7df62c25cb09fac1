//! What is done again and again beside the archiving: beats, a look at the lag and at the log, and retention.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use roost_backend::archive::{Archive, BEAT_MS};
use roost_backend::log::{Log, LogError};
use roost_service::Health;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::follow::Progress;
use crate::metrics::{Metrics, TopicMetrics};

/// What `/readyz` depends on.
pub(crate) const CHECKS: [&str; 2] = ["database", "kafka"];
/// How often parts that are too old are looked for.
const TRIM_EVERY: Duration = Duration::from_secs(3_600);
const DAY_MS: u64 = 86_400_000;

pub(crate) struct Watch {
    pub id: String,
    pub living: watch::Sender<Vec<String>>,
    pub log: Arc<dyn Log>,
    pub archive: Arc<dyn Archive>,
    pub health: Health,
    pub metrics: Metrics,
    pub topics: Vec<(&'static str, Progress, TopicMetrics)>,
}

impl Watch {
    /// Until `stop`; then the others are told at once.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = interval(Duration::from_millis(BEAT_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let beating = async {
            loop {
                tick.tick().await;
                tokio::join!(self.beat(), self.look());
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = beating => {}
        }
        if let Err(error) = self.archive.leave(&self.id).await {
            tracing::debug!(%error, "the others will notice by themselves");
        }
    }

    /// While the database is away the share stays what it was: nobody can store anything.
    async fn beat(&self) {
        let living = self.archive.beat(&self.id).await;
        self.metrics.beat(living.as_ref().ok().map(Vec::len));
        match living {
            Ok(living) => {
                self.health.set("database", Ok(()));
                self.living.send_if_modified(|known| {
                    let changed = *known != living;
                    *known = living;
                    changed
                });
            }
            Err(error) => self.health.set("database", Err(error.to_string())),
        }
    }

    async fn look(&self) {
        let answered = self.log.ping().await.map_err(|error| error.to_string());
        self.health.set("kafka", answered);
        for (topic, progress, metrics) in &self.topics {
            metrics.look(self.lag(topic, progress).await.ok());
        }
    }

    /// From the log's own ends, which are there to ask while the database is away too.
    async fn lag(&self, topic: &str, progress: &Progress) -> Result<u64, LogError> {
        let behind = async |(partition, next): (u32, u64)| {
            Ok(self.log.end(topic, partition).await?.saturating_sub(next))
        };
        Ok(try_join_all(progress.get().into_iter().map(behind)).await?.into_iter().sum())
    }
}

/// Removes what is older than `days`, now and every hour. Several may do so at the same time.
pub(crate) async fn trim(archive: Arc<dyn Archive>, days: u64, stop: CancellationToken) {
    let mut tick = interval(TRIM_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let trimming = async {
        loop {
            tick.tick().await;
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            if let Err(error) = archive.trim(now_ms.saturating_sub(days * DAY_MS)).await {
                tracing::warn!(%error, "what is too old could not be removed; tried again in an hour");
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = trimming => {}
    }
}
