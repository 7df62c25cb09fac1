//! Reads `client_results` for the core: a task for each partition that this node reads, one page at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGaugeVec;
use roost_backend::log::{Log, LogError, LogReader, Position};
use roost_proto::results::CLIENT_RESULTS;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::core::Event;
use crate::node::{Input, RETRY};

/// For one question to the log; its own limits are shorter.
const LIMIT: Duration = Duration::from_secs(10);

/// The readings of one node.
pub struct Readings {
    log: Arc<dyn Log>,
    events: mpsc::Sender<Input>,
    lag: IntGaugeVec,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// By partition: which reading it is, up to where it is done with, and what ends it.
    under_way: HashMap<u32, (u64, watch::Sender<u64>, DropGuard)>,
}

impl Readings {
    pub fn new(
        log: Arc<dyn Log>,
        events: mpsc::Sender<Input>,
        lag: IntGaugeVec,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { log, events, lag, tasks, stop, under_way: HashMap::new() }
    }

    pub fn begin(&mut self, partition: u32, ask: u64) {
        let (done, is_done) = watch::channel(0);
        let stop = self.stop.child_token();
        let (log, events) = (Arc::clone(&self.log), self.events.clone());
        let reading = Reading { log, events, partition, ask, is_done, lag: self.lag.clone() };
        let stopped = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = reading.run() => {}
            }
        });
        self.under_way.insert(partition, (ask, done, stop.drop_guard()));
    }

    pub fn leave(&mut self, partition: u32) {
        self.under_way.remove(&partition);
        // Whoever reads on says how much is left.
        let _ = self.lag.remove_label_values(&[&partition.to_string()]);
    }

    pub fn done(&self, partition: u32, ask: u64, next: u64) {
        if let Some((_, done, _)) = self.under_way.get(&partition).filter(|(of, ..)| *of == ask) {
            done.send_replace(next);
        }
    }
}

struct Reading {
    log: Arc<dyn Log>,
    events: mpsc::Sender<Input>,
    partition: u32,
    ask: u64,
    is_done: watch::Receiver<u64>,
    lag: IntGaugeVec,
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
        while self.page(&mut *reader).await.is_some() {}
    }

    async fn open(&self) -> Result<Box<dyn LogReader>, LogError> {
        let committed = within(self.log.committed(CLIENT_RESULTS)).await?;
        // Never committed: from the first there is.
        let offset = committed.get(&self.partition).copied().unwrap_or(0);
        let from = Position { partition: self.partition, offset };
        within(self.log.read_from(CLIENT_RESULTS, &[from])).await
    }

    async fn page(&mut self, reader: &mut dyn LogReader) -> Option<()> {
        let records = match reader.next().await {
            Ok(records) => records,
            Err(error) => {
                tracing::debug!(%error, partition = self.partition, "results cannot be read now");
                sleep(RETRY).await;
                return Some(());
            }
        };
        let Some(last) = records.last() else { return Some(()) };
        let (partition, ask, next) = (self.partition, self.ask, last.position.offset + 1);
        let lag = self.lag.with_label_values(&[&partition.to_string()]);
        lag.set((reader.lag() + records.len() as u64) as i64);
        let event = Event::Results { partition, ask, records };
        self.events.send(Input::Core(event)).await.ok()?;
        self.is_done.wait_for(|done| *done >= next).await.ok()?;
        // What is not committed is read again by the next reader, and found by its ids.
        let at = Position { partition, offset: next };
        if let Err(error) = within(self.log.commit(CLIENT_RESULTS, &[at])).await {
            tracing::warn!(%error, partition, "how far results are handed out could not be committed");
        }
        lag.set(reader.lag() as i64);
        Some(())
    }
}
