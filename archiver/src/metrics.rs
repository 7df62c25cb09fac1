//! What one archiver counts, in a registry of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use roost_backend::archive::Tally;
use tokio::time::Instant;

/// From a lone record to the longest a batch may take.
const BATCH_BUCKETS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];
/// From a page in the index to a database that is busy.
const REQUEST_BUCKETS: [f64; 8] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];

/// The counters of one archiver; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    records: IntCounterVec,
    lost: IntCounterVec,
    batches: HistogramVec,
    lag: IntGaugeVec,
    commit_age: GaugeVec,
    database_up: IntGauge,
    living: IntGauge,
    requests: IntCounterVec,
    seconds: Histogram,
}

/// Those of one topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicMetrics {
    rows: IntCounter,
    duplicates: IntCounter,
    aliases: IntCounter,
    skipped: IntCounter,
    dead: IntCounter,
    lost: IntCounter,
    batches: Histogram,
    lag: IntGauge,
    commit_age: Gauge,
    committed_at: Arc<Mutex<Instant>>,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// If the registry has them already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let labels = &["topic"];
        let help = "Records archived, by what became of them: row, duplicate, alias, skipped, dead";
        let records = IntCounterVec::new(Opts::new("roost_archive_records_total", help), &["topic", "as"])?;
        let help = "Records that retention removed from the log before they were archived";
        let lost = IntCounterVec::new(Opts::new("roost_archive_lost_records_total", help), labels)?;
        let help = "A batch stored, with its commit";
        let options = HistogramOpts::new("roost_archive_batch_seconds", help).buckets(BATCH_BUCKETS.to_vec());
        let batches = HistogramVec::new(options, labels)?;
        let help = "Records in the log that are not archived yet, of this archiver's partitions";
        let lag = IntGaugeVec::new(Opts::new("roost_archive_lag_records", help), labels)?;
        let help = "Since the last batch was stored";
        let commit_age = GaugeVec::new(Opts::new("roost_archive_commit_age_seconds", help), labels)?;
        let database_up =
            IntGauge::new("roost_archive_database_up", "1 if the database answered the last beat")?;
        let living = IntGauge::new("roost_archive_archivers", "Archivers that live, this one included")?;
        let help = "Requests by path and status";
        let requests =
            IntCounterVec::new(Opts::new("roost_archive_requests_total", help), &["path", "status"])?;
        let help = "A request answered";
        let options =
            HistogramOpts::new("roost_archive_request_seconds", help).buckets(REQUEST_BUCKETS.to_vec());
        let seconds = Histogram::with_opts(options)?;
        let all: [Box<dyn Collector>; 9] = [
            Box::new(records.clone()),
            Box::new(lost.clone()),
            Box::new(batches.clone()),
            Box::new(lag.clone()),
            Box::new(commit_age.clone()),
            Box::new(database_up.clone()),
            Box::new(living.clone()),
            Box::new(requests.clone()),
            Box::new(seconds.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        Ok(Self { records, lost, batches, lag, commit_age, database_up, living, requests, seconds })
    }

    /// All series are there from the start: a rate over one that appears with its first event misses that event.
    pub(crate) fn of(&self, topic: &str) -> TopicMetrics {
        let records = |what| self.records.with_label_values(&[topic, what]);
        TopicMetrics {
            rows: records("row"),
            duplicates: records("duplicate"),
            aliases: records("alias"),
            skipped: records("skipped"),
            dead: records("dead"),
            lost: self.lost.with_label_values(&[topic]),
            batches: self.batches.with_label_values(&[topic]),
            lag: self.lag.with_label_values(&[topic]),
            commit_age: self.commit_age.with_label_values(&[topic]),
            committed_at: Arc::new(Mutex::new(Instant::now())),
        }
    }

    pub(crate) fn beat(&self, living: Option<usize>) {
        self.database_up.set(i64::from(living.is_some()));
        if let Some(living) = living {
            self.living.set(i64::try_from(living).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn answered(&self, path: &str, status: u16, took: Duration) {
        self.requests.with_label_values(&[path, &status.to_string()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

impl TopicMetrics {
    pub(crate) fn stored(&self, tally: &Tally, lost: u64, took: Duration) {
        self.rows.inc_by(tally.rows);
        self.duplicates.inc_by(tally.duplicates);
        self.aliases.inc_by(tally.aliases);
        self.skipped.inc_by(tally.skipped);
        self.dead.inc_by(tally.dead);
        self.lost.inc_by(lost);
        self.batches.observe(took.as_secs_f64());
        *self.committed_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Batches stored so far.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.get_sample_count()
    }

    /// `lag` is `None` while the log does not say.
    pub(crate) fn look(&self, lag: Option<u64>) {
        if let Some(lag) = lag {
            self.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
        let committed_at = *self.committed_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit_age.set(committed_at.elapsed().as_secs_f64());
    }
}
