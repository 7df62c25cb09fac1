//! The one task that writes: it takes what has gathered in the queue, commits it in one transaction, and says so.
//! While it commits, the next batch gathers, so batches grow with the load and a lone record waits for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Clock;
use super::db::{self, Db, Row};
use super::topics::{Topic, Topics};
use crate::log::in_flight::{InFlight, Round};
use crate::log::{Position, Report};

/// Records of one transaction: some milliseconds of work, the most that a record waits for those before it.
const BATCH_RECORDS: usize = 1024;
/// Old records are looked for this often,
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// or this often while there are more than one look removes.
const SWEEP_AGAIN: Duration = Duration::from_millis(100);
/// Records looked at in one partition per sweep: about a millisecond of work. At ten sweeps a second that is
/// 10,000 records a second of every partition, more than are written.
const SWEEP_RECORDS: usize = 1000;

/// A record in the queue.
pub(super) struct Item {
    pub topic: Option<Arc<Topic>>,
    pub partition: u32,
    pub key: Bytes,
    pub payload: Bytes,
    pub token: u64,
    pub round: Round,
    pub from: Arc<Origin>,
}

/// The producer a record came from, as the writer needs it.
pub(super) struct Origin {
    pub in_flight: InFlight,
    /// To the task that hands reports on: a producer whose reports nobody reads must not hold up the others.
    /// Bounded by what the producer may have in flight.
    pub reports: mpsc::UnboundedSender<(Report, Round)>,
}

pub(super) struct Writer {
    pub db: Arc<Db>,
    pub topics: Arc<Topics>,
    pub clock: Clock,
    pub queue: mpsc::Receiver<Item>,
    pub queued_bytes: Arc<AtomicUsize>,
    pub closing: CancellationToken,
}

impl Writer {
    /// Until everything that could produce is gone, or the log is closed; writes what was taken before.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_RECORDS);
        let mut next_sweep = Instant::now() + SWEEP_EVERY;
        let closing = self.closing.clone();
        loop {
            // In a fixed order, so that a simulation can be repeated.
            tokio::select! {
                biased;
                () = closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                () = tokio::time::sleep_until(next_sweep) => next_sweep = Instant::now() + self.sweep().await,
                taken = self.queue.recv_many(&mut batch, BATCH_RECORDS) => {
                    if taken == 0 {
                        return;
                    }
                    self.commit(&mut batch).await;
                }
            }
        }
    }

    async fn commit(&self, batch: &mut Vec<Item>) {
        let faults: Vec<Option<String>> = batch.iter().map(Item::fault).collect();
        let rows: Vec<Row> = batch.iter().filter_map(Item::row).collect();
        let at_ms = (self.clock)();
        let written = self.db.write(move |db| db::append(db, &rows, at_ms)).await;
        let bytes = batch.iter().map(Item::bytes).sum();
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let results = match written {
            Ok(offsets) => placed(batch, faults, offsets),
            Err(e) => {
                tracing::warn!("the log could not write {} records: {e}", batch.len());
                vec![Err(e.to_string()); batch.len()]
            }
        };
        // Before the reports, so that nobody who has one finds a smaller end.
        publish(batch, &results);
        for (item, result) in batch.drain(..).zip(results) {
            item.report(result);
        }
    }

    /// Removes what is older than its topic keeps; how long until the next sweep.
    async fn sweep(&self) -> Duration {
        let now = (self.clock)();
        let mut more = false;
        for topic in self.topics.all() {
            let Some(before) = topic.spec.retention_ms.map(|kept| now.saturating_sub(kept)) else { continue };
            let (id, partitions) = (topic.id, topic.spec.partitions);
            let trim = move |db: &mut Connection| db::trim_topic(db, id, partitions, before, SWEEP_RECORDS);
            match self.db.write(trim).await {
                Ok(left) => more |= left,
                Err(e) => tracing::warn!(topic = %topic.name, "old records could not be removed: {e}"),
            }
        }
        if more { SWEEP_AGAIN } else { SWEEP_EVERY }
    }
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.payload.len()
    }

    /// Why there is no place for it.
    fn fault(&self) -> Option<String> {
        match &self.topic {
            None => Some("there is no such topic".to_owned()),
            Some(topic) if topic.end(self.partition).is_none() => {
                Some(format!("topic {} has no partition {}", topic.name, self.partition))
            }
            Some(_) => None,
        }
    }

    fn row(&self) -> Option<Row> {
        let topic = self.topic.as_ref().filter(|topic| topic.end(self.partition).is_some())?;
        let (key, payload) = (self.key.clone(), self.payload.clone());
        Some(Row { topic: topic.id, partition: self.partition, key, payload })
    }

    fn report(self, result: Result<Position, String>) {
        let Self { token, round, from, .. } = self;
        // An error is a task that ended with its receiver, together with all interest in the report.
        if from.reports.send((Report { token, result }, round)).is_err() {
            from.in_flight.done(round);
        }
    }
}

/// The result of each item: its fault, or the next of the offsets.
fn placed(batch: &[Item], faults: Vec<Option<String>>, offsets: Vec<u64>) -> Vec<Result<Position, String>> {
    let mut offsets = offsets.into_iter();
    let result = |(item, fault): (&Item, Option<String>)| match fault {
        Some(fault) => Err(fault),
        None => {
            let offset = offsets.next().expect("one offset for each row");
            Ok(Position { partition: item.partition, offset })
        }
    };
    batch.iter().zip(faults).map(result).collect()
}

/// Moves the ends past the batch, and wakes the readers of each topic once.
fn publish(batch: &[Item], results: &[Result<Position, String>]) {
    let mut touched: BTreeMap<i64, &Topic> = BTreeMap::new();
    for (item, result) in batch.iter().zip(results) {
        if let (Some(topic), Ok(Position { partition, offset })) = (&item.topic, result) {
            topic.move_end(*partition, offset + 1);
            touched.insert(topic.id, topic);
        }
    }
    for topic in touched.values() {
        topic.wake_readers();
    }
}
