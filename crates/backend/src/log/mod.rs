//! The log: topics with partitions, append-only, many readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::events::UNDELIVERED_EVENTS;
use roost_proto::results::CLIENT_RESULTS;
use tokio::sync::mpsc;

pub(crate) mod in_flight;

/// What can go wrong with the log. All of them pass: the caller repeats.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "the texts of the errors say it")]
pub enum LogError {
    #[error("the log is not reachable: {0}")]
    Unreachable(String),
    #[error(
        "topic {topic} has {found} partitions where {wanted} are configured; partition counts never change"
    )]
    Partitions { topic: String, found: u32, wanted: u32 },
    /// There is no such topic or partition, or who was asked has not heard of it yet: brokers learn of a new topic one
    /// after the other.
    #[error("the log does not know it: {0}")]
    Missing(String),
    #[error("no answer from the log within {0:?}")]
    Timeout(Duration),
    #[error("the log refused: {0}")]
    Refused(String),
}

/// How long a producer tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Between nodes: gives up after 60 s at most, so that a late copy cannot outlive the dedup window
    /// (core rule 6).
    Transport,
    /// Events from the outbox: never gives up (core rule 12).
    Outbox,
}

/// One record to produce. `token` comes back in its report.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Which has to be there: producing makes none.
    pub topic: Arc<str>,
    /// Chosen by the producer, not by the key.
    pub partition: u32,
    /// For compaction and consumers.
    pub key: Bytes,
    /// At most what the producer may send; a larger one is reported as an error.
    pub payload: Bytes,
    /// The caller's.
    pub token: u64,
}

/// A record's place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Of a topic that is known from elsewhere.
    pub partition: u32,
    /// Grows within the partition, not always by one.
    pub offset: u64,
}

/// What became of a record. An error means unknown: it may be in the log all the same.
#[derive(Debug, Clone)]
pub struct Report {
    /// As it came with the record.
    pub token: u64,
    /// Where the record is, or what went wrong, for people.
    pub result: Result<Position, String>,
}

/// A record as read.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// Where it is.
    pub position: Position,
    /// When it was written, in milliseconds since 1970, by its writer's clock or the log's; 0 if nobody said.
    pub at_ms: u64,
    /// As it was produced.
    pub key: Bytes,
    /// As it was produced.
    pub payload: Bytes,
}

/// Why a record could not be taken: nothing was sent, no report will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the producer's queue is full")]
pub struct QueueFull;

/// Produces records of one [`Durability`].
///
/// 1. Records of one producer for one partition reach it in the order of the calls that returned `Ok`, without
///    gaps between those reported `Ok` and without copies by the producer's own retries.
/// 2. Each call that returned `Ok` yields exactly one [`Report`], in any order between partitions.
/// 3. A report `Ok` means the record is on every in-sync replica and readers will see it at that position.
/// 4. `produce` does not wait. The queue is bounded; a full one answers [`QueueFull`].
#[async_trait]
pub trait Producer: Send + Sync {
    /// # Errors
    /// [`QueueFull`] if nothing was taken.
    fn produce(&self, record: Outgoing) -> Result<(), QueueFull>;

    /// Waits until every record taken so far was reported, at most `limit`; true if they all were.
    async fn flush(&self, limit: Duration) -> bool;
}

/// Reads one topic, all partitions or some, from fixed positions on.
///
/// 5. Every record produced after the call that made the reader returned is seen, in order within its partition,
///    until retention removes it.
/// 6. `next` waits for at least one record; dropping its future loses none. After an error the reader goes on
///    where it was.
#[async_trait]
pub trait LogReader: Send {
    /// At least one record, at most a few hundred.
    ///
    /// # Errors
    /// [`LogError`] passes by itself; call again after a pause.
    async fn next(&mut self) -> Result<Vec<LogRecord>, LogError>;

    /// Records in the topic that this reader has not returned yet, as last heard from the log.
    fn lag(&self) -> u64;
}

/// The log.
///
/// 7. `ensure_topic` makes a topic if there is none and returns once it can be produced to and read; an existing
///    topic with another partition count is an error, never changed. What passes while a log comes up is waited for.
/// 8. `end` is the offset the next record of the partition will get, no smaller than any offset reported before
///    the call; it asks the log itself, not a cache.
/// 9. `read_from` begins each partition at its offset, or at the earliest record there is, if retention has removed
///    that one or the partition does not reach so far.
/// 10. `committed` is where each partition was last committed, by whatever process; absent: never, or it was forgotten
///     after days in which nobody committed it.
/// 11. `first` is the offset of the earliest record of the partition, or the end if there is none.
/// 12. `remove_topic` removes a topic with all that is in it, which may take the log a while; false if there is none.
#[async_trait]
pub trait Log: Send + Sync {
    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn ensure_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError>;

    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn remove_topic(&self, topic: &str) -> Result<bool, LogError>;

    /// A new producer; its reports go to `reports`, which the caller must keep reading.
    ///
    /// # Errors
    /// If the configuration is refused.
    fn producer(
        &self,
        durability: Durability,
        reports: mpsc::Sender<Report>,
    ) -> Result<Arc<dyn Producer>, LogError>;

    /// A reader of all of `topic`, from its present end.
    ///
    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn read_from_end(&self, topic: &str) -> Result<Box<dyn LogReader>, LogError>;

    /// A reader of these partitions of `topic`, each from its offset on (promise 9).
    ///
    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn read_from(&self, topic: &str, from: &[Position]) -> Result<Box<dyn LogReader>, LogError>;

    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn end(&self, topic: &str, partition: u32) -> Result<u64, LogError>;

    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn first(&self, topic: &str, partition: u32) -> Result<u64, LogError>;

    /// Where readers that take turns should go on ([`commit`](Self::commit)).
    ///
    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn committed(&self, topic: &str) -> Result<BTreeMap<u32, u64>, LogError>;

    /// Keeps, for each of these partitions, the offset of the first record that is not dealt with.
    ///
    /// # Errors
    /// [`LogError`]; safe to repeat.
    async fn commit(&self, topic: &str, at: &[Position]) -> Result<(), LogError>;

    /// Whether the log answers now.
    ///
    /// # Errors
    /// [`LogError`] says why not.
    async fn ping(&self) -> Result<(), LogError>;
}

/// What a topic is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    /// Never changes once the topic is there.
    pub partitions: u32,
    /// How long records are kept, in milliseconds; `None` is for ever.
    pub retention_ms: Option<u64>,
    /// Others than Roost's programs write it. Records of up to [`FOREIGN_BYTES_MAX`] are let in, so that one that is too
    /// large can be told about, and a record's time is the log's.
    pub foreign: bool,
}

/// Twice what producers send unless told otherwise (Kafka documentation, `max.request.size`).
pub const FOREIGN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long records of `undelivered_events` are kept: who is told so much later has come and seen by itself.
const UNDELIVERED_RETENTION_MS: u64 = 7 * 86_400_000;

impl TopicSpec {
    /// Of a topic that programs share, whichever of them makes it.
    pub fn shared(topic: &str, partitions: u32) -> Self {
        let retention_ms = (topic == UNDELIVERED_EVENTS).then_some(UNDELIVERED_RETENTION_MS);
        Self { partitions, retention_ms, foreign: topic == CLIENT_RESULTS }
    }

    /// Of a topic whose records are kept for so long.
    pub fn kept_for(retention_ms: u64, partitions: u32) -> Self {
        Self { partitions, retention_ms: Some(retention_ms), foreign: false }
    }
}
