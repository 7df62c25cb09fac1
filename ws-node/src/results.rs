//! Reads `client_results` for the core: a task for each partition that this node reads, one page at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGaugeVec;
use roost_backend::log::{Log, LogError, LogReader, Position};
use roost_proto::results::CLIENT_RESULTS;
use roost_service::Jobs;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::core::Input;
use crate::inputs::{NodeInput, RETRY};

/// For one question to the log; its own limits are shorter.
const LIMIT: Duration = Duration::from_secs(10);
/// After a commit that the log did not take.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);
/// Kafka forgets the places of a group without members after days (`offsets.retention.minutes`).
const COMMIT_EVERY: Duration = Duration::from_secs(3600);

/// The readings of one node.
pub(crate) struct Readings {
    log: Arc<dyn Log>,
    events: mpsc::Sender<NodeInput>,
    lag: IntGaugeVec,
    jobs: Jobs,
    stop: CancellationToken,
    /// By partition: which reading it is, up to where it is done with, and what ends it.
    under_way: HashMap<u32, (u64, watch::Sender<u64>, DropGuard)>,
}

impl Readings {
    pub(crate) fn new(
        log: Arc<dyn Log>,
        events: mpsc::Sender<NodeInput>,
        lag: IntGaugeVec,
        jobs: Jobs,
        stop: CancellationToken,
    ) -> Self {
        Self { log, events, lag, jobs, stop, under_way: HashMap::new() }
    }

    pub(crate) fn begin(&mut self, partition: u32, ask: u64) {
        let (done, is_done) = watch::channel(0);
        let stop = self.stop.child_token();
        let (log, events) = (Arc::clone(&self.log), self.events.clone());
        let reading = Reading { log, events, partition, ask, is_done, lag: self.lag.clone(), place: None };
        let stopped = stop.clone();
        self.jobs.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = reading.run() => {}
            }
        });
        self.under_way.insert(partition, (ask, done, stop.drop_guard()));
    }

    pub(crate) fn leave(&mut self, partition: u32) {
        self.under_way.remove(&partition);
        // Whoever reads on says how much is left.
        let _ = self.lag.remove_label_values(&[&partition.to_string()]);
    }

    pub(crate) fn done(&self, partition: u32, ask: u64, next: u64) {
        if let Some((_, done, _)) = self.under_way.get(&partition).filter(|(of, ..)| *of == ask) {
            done.send_replace(next);
        }
    }
}

struct Reading {
    log: Arc<dyn Log>,
    events: mpsc::Sender<NodeInput>,
    partition: u32,
    ask: u64,
    is_done: watch::Receiver<u64>,
    lag: IntGaugeVec,
    /// Up to where it is done with, as far as is known.
    place: Option<u64>,
}

async fn within<T>(answer: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
    timeout(LIMIT, answer).await.unwrap_or(Err(LogError::Timeout(LIMIT)))
}

impl Reading {
    /// Until it is dropped, or the node has ended.
    async fn run(mut self) {
        let mut reader = loop {
            match self.open().await {
                Ok(reader) => break reader,
                Err(error) => {
                    tracing::debug!(%error, partition = self.partition, "results cannot be read now");
                    sleep(RETRY).await;
                }
            }
        };
        self.commit().await;
        while self.page(&mut *reader).await.is_some() {}
    }

    async fn open(&mut self) -> Result<Box<dyn LogReader>, LogError> {
        self.place = within(self.log.committed(CLIENT_RESULTS)).await?.get(&self.partition).copied();
        // Never committed: from the first there is.
        let offset = self.place.unwrap_or(0);
        let from = Position { partition: self.partition, offset };
        within(self.log.read_from(CLIENT_RESULTS, &[from])).await
    }

    /// Until the log has it: what is read again long after is not found by its ids any more.
    async fn commit(&self) {
        let Some(offset) = self.place else { return };
        let at = Position { partition: self.partition, offset };
        while let Err(error) = within(self.log.commit(CLIENT_RESULTS, &[at])).await {
            tracing::warn!(%error, ?at, "how far results are handed out could not be committed");
            sleep(COMMIT_AGAIN).await;
        }
    }

    async fn page(&mut self, reader: &mut dyn LogReader) -> Option<()> {
        let records = match timeout(COMMIT_EVERY, reader.next()).await {
            Ok(Ok(records)) => records,
            Err(_) => {
                self.commit().await;
                return Some(());
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, partition = self.partition, "results cannot be read now");
                sleep(RETRY).await;
                return Some(());
            }
        };
        let Some(last) = records.last() else { return Some(()) };
        let (partition, ask, next) = (self.partition, self.ask, last.position.offset + 1);
        let lag = self.lag.with_label_values(&[&partition.to_string()]);
        lag.set((reader.lag() + records.len() as u64) as i64);
        let event = Input::Results { partition, ask, records };
        self.is_done.mark_unchanged();
        self.events.send(NodeInput::Core(event)).await.ok()?;
        // What was said before is over: a log that went back has had this place already.
        while self.is_done.changed().await.is_ok() {
            if *self.is_done.borrow() == next {
                break;
            }
        }
        self.place = Some(next);
        self.commit().await;
        lag.set(reader.lag() as i64);
        Some(())
    }
}
