//! What is done again and again beside the archiving: beats, a look at the lag and at the log, and retention.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use roost_backend::archive::{Archive, BEAT_MS};
use roost_backend::log::{Log, LogError};
use roost_service::Health;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::follow::Progress;
use crate::metrics::{Metrics, TopicMetrics};

/// What `/readyz` depends on.
pub(crate) const CHECKS: [&str; 2] = ["database", "kafka"];
/// Something waits for so long before `/readyz` says so: longer than the longest batch.
const STILL_AFTER: Duration = Duration::from_secs(45);
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
}

/// A topic, and since when it stands still.
pub(crate) struct Watched {
    topic: &'static str,
    progress: Progress,
    metrics: TopicMetrics,
    /// Batches stored at the last look.
    batches: u64,
    still_since: Option<Instant>,
}

impl Watched {
    pub(crate) fn new(topic: &'static str, progress: Progress, metrics: TopicMetrics) -> Self {
        Self { topic, progress, metrics, batches: 0, still_since: None }
    }

    /// Whether there has been something to store for a while, and nothing was.
    fn stands_still(&mut self, lag: u64, batches: u64, now: Instant) -> bool {
        if lag == 0 || batches != self.batches {
            (self.batches, self.still_since) = (batches, None);
        }
        lag > 0 && now - *self.still_since.get_or_insert(now) > STILL_AFTER
    }
}

impl Watch {
    /// Until `stop`; then the others are told at once.
    pub(crate) async fn run(self, mut topics: Vec<Watched>, stop: CancellationToken) {
        let every = || {
            let mut tick = interval(Duration::from_millis(BEAT_MS));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tick
        };
        let beating = async {
            let mut tick = every();
            loop {
                tick.tick().await;
                self.beat().await;
            }
        };
        // By itself: a log that does not answer must not delay a beat.
        let looking = async {
            let mut tick = every();
            loop {
                tick.tick().await;
                self.look(&mut topics).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = beating => {}
            () = looking => {}
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

    async fn look(&self, topics: &mut [Watched]) {
        let answered = self.log.ping().await.map_err(|error| error.to_string());
        self.health.set("kafka", answered);
        for watched in topics {
            let lag = self.lag(watched.topic, &watched.progress).await.ok();
            watched.metrics.look(lag);
            let Some(lag) = lag else { continue };
            let still = watched.stands_still(lag, watched.metrics.batches(), Instant::now());
            let why = || format!("{lag} records wait, and none could be stored for {STILL_AFTER:?}");
            self.health.set(watched.topic, if still { Err(why()) } else { Ok(()) });
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

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn a_topic_stands_still_when_something_waits_and_nothing_is_stored() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let mut topic = Watched::new("t", Progress::default(), metrics.of("t"));
        let began = Instant::now();
        let mut look =
            |lag, batches, after_s| topic.stands_still(lag, batches, began + Duration::from_secs(after_s));
        assert!(!look(0, 0, 0));
        assert!(!look(5, 0, 100), "it has just come");
        assert!(!look(5, 1, 140), "it gets on");
        assert!(!look(9, 1, 160));
        assert!(look(9, 1, 240));
        assert!(!look(3, 2, 241));
        assert!(!look(0, 2, 400));
    }
}
