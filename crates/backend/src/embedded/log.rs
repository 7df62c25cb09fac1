//! The log inside the process, kept in SQLite: in memory, or in a file whose topics and records survive a restart.
//!
//! One task writes ([`writer`]), many readers read. It does not own time: the clock comes from outside and is used
//! for retention alone.

mod db;
mod reader;
mod topics;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::db::Db;
use self::reader::EmbeddedReader;
use self::topics::{Topic, Topics};
use self::writer::{Item, Origin, Writer};
use crate::log::in_flight::{InFlight, Round};
use crate::log::{
    Durability, Log, LogError, LogReader, Outgoing, Position, Producer, QueueFull, Report, TopicSpec,
};

/// Wall-clock milliseconds since 1970; a test or a simulation gives its own.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Records waiting for the writer: eight of its batches, well under a second of work.
const QUEUE_RECORDS: usize = 8 * 1024;
/// And their bytes, a thousand of the largest records.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Records of one producer not yet reported. More than the queue, so that reports waiting to be read are the bound
/// only where nobody reads them.
const IN_FLIGHT_MAX: usize = 2 * QUEUE_RECORDS;

/// A [`Log`] of this process. It lives as long as it, a producer or a reader does; its tasks end when the log and
/// its producers are dropped, or by [`close`](Self::close).
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

struct Shared {
    db: Arc<Db>,
    topics: Arc<Topics>,
    queue: mpsc::Sender<Item>,
    queued_bytes: Arc<AtomicUsize>,
    closing: CancellationToken,
    /// The writer has ended.
    written: CancellationToken,
    tasks: TaskTracker,
}

impl EmbeddedLog {
    /// One that forgets everything with the process. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LogError::Refused`] outside of a runtime.
    pub fn memory() -> Result<Self, LogError> {
        Self::memory_with_clock(Arc::new(wall_clock_ms))
    }

    /// The same with the caller's clock: wall-clock milliseconds since 1970.
    ///
    /// # Errors
    /// As [`memory`](Self::memory).
    pub fn memory_with_clock(clock: Clock) -> Result<Self, LogError> {
        Self::new(Db::memory().map_err(refused)?, clock)
    }

    /// One kept in the file at `path`, which is made if there is none. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LogError::Refused`] if the file cannot be used, or is open elsewhere, or outside of a runtime.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Self::open_with_clock(path, Arc::new(wall_clock_ms))
    }

    /// The same with the caller's clock: wall-clock milliseconds since 1970.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(path: &Path, clock: Clock) -> Result<Self, LogError> {
        Self::new(Db::open(path)?, clock)
    }

    fn new(db: Db, clock: Clock) -> Result<Self, LogError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| LogError::Refused(e.to_string()))?;
        let topics = Arc::new(Topics::default());
        for kept in db.kept().map_err(refused)? {
            topics.insert(kept);
        }
        let (db, queued_bytes, closing) = (Arc::new(db), Arc::default(), CancellationToken::new());
        let (queue, taken) = mpsc::channel(QUEUE_RECORDS);
        let tasks = TaskTracker::new();
        let writer = Writer {
            db: Arc::clone(&db),
            topics: Arc::clone(&topics),
            clock,
            queue: taken,
            queued_bytes: Arc::clone(&queued_bytes),
            closing: closing.clone(),
        };
        let written = CancellationToken::new();
        let ended = written.clone().drop_guard();
        let run = async move {
            writer.run().await;
            drop(ended);
        };
        tasks.spawn_on(run, &runtime);
        Ok(Self { shared: Arc::new(Shared { db, topics, queue, queued_bytes, closing, written, tasks }) })
    }

    /// Takes no more records, commits and reports those taken, and ends the tasks; true if that took less than
    /// `limit`. A file can be opened again once this was called and every handle on the log is dropped.
    pub async fn close(&self, limit: Duration) -> bool {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        tokio::time::timeout(limit, self.shared.tasks.wait()).await.is_ok()
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        self.shared.topics.get(name).ok_or_else(|| LogError::Missing(format!("there is no topic {name}")))
    }
}

fn refused(e: rusqlite::Error) -> LogError {
    LogError::Refused(format!("SQLite: {e}"))
}

fn wall_clock_ms() -> u64 {
    // A clock before 1970 keeps records longer than asked, nothing worse.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn ensure_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        if spec.partitions == 0 {
            return Err(LogError::Refused(format!("topic {topic} needs at least one partition")));
        }
        let found = match self.shared.topics.get(topic) {
            Some(found) => found,
            None => {
                let name = topic.to_owned();
                self.shared.topics.insert(self.shared.db.write(move |db| db::ensure(db, &name, spec)).await?)
            }
        };
        if found.spec.partitions == spec.partitions {
            return Ok(());
        }
        let (topic, found, wanted) = (topic.to_owned(), found.spec.partitions, spec.partitions);
        Err(LogError::Partitions { topic, found, wanted })
    }

    async fn remove_topic(&self, topic: &str) -> Result<bool, LogError> {
        let Some(found) = self.shared.topics.remove(topic) else { return Ok(false) };
        let id = found.id;
        self.shared.db.write(move |db| db::remove(db, id)).await?;
        Ok(true)
    }

    /// Both durabilities are the same here: a record is written, or SQLite says why not.
    fn producer(&self, _: Durability, reports: mpsc::Sender<Report>) -> Result<Arc<dyn Producer>, LogError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| LogError::Refused(e.to_string()))?;
        let (to_hand_on, waiting) = mpsc::unbounded_channel();
        let origin = Arc::new(Origin { in_flight: InFlight::default(), reports: to_hand_on });
        self.shared.tasks.spawn_on(
            hand_on(waiting, reports, Arc::downgrade(&origin), self.shared.written.clone()),
            &runtime,
        );
        Ok(Arc::new(EmbeddedProducer { shared: Arc::clone(&self.shared), origin }))
    }

    async fn read_from_end(&self, topic: &str) -> Result<Box<dyn LogReader>, LogError> {
        let topic = self.topic(topic)?;
        let ends = topic.ends().zip(0..).map(|(offset, partition)| Position { partition, offset }).collect();
        Ok(Box::new(EmbeddedReader::new(Arc::clone(&self.shared.db), topic, ends)))
    }

    async fn read_from(&self, topic: &str, from: &[Position]) -> Result<Box<dyn LogReader>, LogError> {
        let topic = self.topic(topic)?;
        let missing = |p: u32| LogError::Missing(format!("topic {} has no partition {p}", topic.name));
        let begin = |at: &Position| match topic.end(at.partition) {
            Some(end) if at.offset <= end => Ok(*at),
            Some(_) => Ok(Position { offset: 0, ..*at }),
            None => Err(missing(at.partition)),
        };
        let next = from.iter().map(begin).collect::<Result<_, _>>()?;
        Ok(Box::new(EmbeddedReader::new(Arc::clone(&self.shared.db), Arc::clone(&topic), next)))
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        let missing = || LogError::Missing(format!("topic {topic} has no partition {partition}"));
        self.topic(topic)?.end(partition).ok_or_else(missing)
    }

    async fn first(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        let (end, topic) = (self.end(topic, partition).await?, self.topic(topic)?.id);
        let first = self.shared.db.read(move |db| db::first(db, topic, partition)).await?;
        Ok(first.unwrap_or(end))
    }

    async fn committed(&self, topic: &str) -> Result<BTreeMap<u32, u64>, LogError> {
        let id = self.topic(topic)?.id;
        self.shared.db.read(move |db| db::committed(db, id)).await
    }

    async fn commit(&self, topic: &str, at: &[Position]) -> Result<(), LogError> {
        let (id, at) = (self.topic(topic)?.id, at.to_vec());
        self.shared.db.write(move |db| db::commit(db, id, &at)).await
    }

    async fn ping(&self) -> Result<(), LogError> {
        if self.shared.queue.is_closed() {
            return Err(LogError::Unreachable("the log was closed".to_owned()));
        }
        self.shared.db.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await
    }
}

struct EmbeddedProducer {
    shared: Arc<Shared>,
    origin: Arc<Origin>,
}

#[async_trait]
impl Producer for EmbeddedProducer {
    fn produce(&self, record: Outgoing) -> Result<(), QueueFull> {
        let Outgoing { topic, partition, key, payload, token } = record;
        let round = self.origin.in_flight.take(IN_FLIGHT_MAX).ok_or(QueueFull)?;
        let topic = self.shared.topics.get(&topic);
        let item = Item { topic, partition, key, payload, token, round, from: Arc::clone(&self.origin) };
        let bytes = item.bytes();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One record is always taken, however large.
        if (queued == 0 || queued + bytes <= QUEUE_BYTES) && self.shared.queue.try_send(item).is_ok() {
            return Ok(());
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.origin.in_flight.done(round);
        Err(QueueFull)
    }

    async fn flush(&self, limit: Duration) -> bool {
        self.origin.in_flight.flush(limit).await
    }
}

/// Hands the reports of one producer to its receiver, until the producer and its records are gone, or the writer
/// has ended and all are handed on.
async fn hand_on(
    mut waiting: mpsc::UnboundedReceiver<(Report, Round)>,
    reports: mpsc::Sender<Report>,
    origin: Weak<Origin>,
    written: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            next = waiting.recv() => next,
            () = written.cancelled() => None,
        };
        let Some((report, round)) = next else { return };
        // An error is a receiver that nobody reads any more; the record was written all the same.
        let _ = reports.send(report).await;
        if let Some(origin) = origin.upgrade() {
            origin.in_flight.done(round);
        }
    }
}
