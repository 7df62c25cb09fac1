//! The archive: what was said and who was there, for as long as it is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::Json;
use roost_proto::events::{ClientEvent, StatusEvent};
use roost_proto::ids::{Cursor, Epoch, Seq, StreamId, UserId};

use crate::log::{LogRecord, Position};

pub(crate) mod again;
pub(crate) mod fill;
pub(crate) mod row;

pub use again::AGAIN_WITHIN_MS;
pub use row::{AT_MAX_MS, AT_MIN_MS};

/// What can go wrong with the archive. All but the last two pass: the caller repeats.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "the texts of the errors say it")]
pub enum ArchiveError {
    #[error("the archive is not reachable: {0}")]
    Unreachable(String),
    #[error("no answer from the archive within {0:?}")]
    Timeout(Duration),
    #[error("the archive refused: {0}")]
    Refused(String),
    #[error("the archive's schema cannot be brought up to date: {0}")]
    Schema(String),
    #[error("the archive cannot be used: {0}")]
    Config(String),
}

/// The part of a partition that a batch covers: from `from` up to and without `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Of the batch's topic.
    pub partition: u32,
    /// The first offset that is covered.
    pub from: u64,
    /// The first that is not.
    pub to: u64,
}

/// Records of one topic, in order within each partition. A span may cover more than its records: what retention
/// removed from the log.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Which one the records are of.
    pub topic: Arc<str>,
    /// One for each partition.
    pub spans: Vec<Span>,
    /// By partition, ascending within each.
    pub records: Vec<LogRecord>,
}

/// What became of the records of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// New in the tables.
    pub rows: u64,
    /// Copies of what was there.
    pub duplicates: u64,
    /// Messages that came again in a newer generation (core rule 32).
    pub aliases: u64,
    /// Nobody's mail: canaries.
    pub skipped: u64,
    /// What nobody can read: see [`DeadLetter`].
    pub dead: u64,
}

/// The answer to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// All of it is there, and the positions have moved to the ends of the spans.
    Kept(Tally),
    /// Somebody else has read on from there: nothing was changed.
    Fenced,
}

/// Which part of a list a page shows, by the key of its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchivePosition<K> {
    /// From the newest on.
    Newest,
    /// The nearest that are older.
    Before(K),
    /// The nearest that are newer.
    After(K),
}

/// Where something of a user, a change of the status or an event, stands among all of its kind of that user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
    /// With `seq` it tells apart what happened at one time.
    pub epoch: Epoch,
    /// Within the epoch.
    pub seq: Seq,
}

/// Asks for changes of a user's status, or for a user's events.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whose they are.
    pub user: UserId,
    /// Both included, in milliseconds since 1970.
    pub from_ms: u64,
    /// See `from_ms`.
    pub to_ms: u64,
    /// Which part of what lies between.
    pub place: ArchivePosition<Moment>,
    /// Entries at most; [`PAGE_BYTES_MAX`] may make them fewer.
    pub limit: usize,
}

/// A client's event, and what the customers' processors said to it.
#[derive(Debug, Clone)]
pub struct Answered {
    /// As it is in `client_events`.
    pub event: ClientEvent,
    /// The records, oldest first; of more than [`RESULTS_SHOWN_MAX`] the first.
    pub results: Vec<Json>,
}

impl Answered {
    /// Bytes of its texts.
    pub fn size(&self) -> usize {
        self.event.data.get().len() + self.results.iter().map(|result| result.get().len()).sum::<usize>()
    }
}

/// Results that are shown of one event: it gets one or two. As large as they may be they are a megabyte.
pub const RESULTS_SHOWN_MAX: usize = 16;
/// A page ends with the entry that passes so many bytes: what one answer can have. A message counts as its frame, an
/// event with its results, a dead letter with its key and payload. Changes of a status have none that grow: 500 of them
/// are 200 kB.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// An event or a result that comes again is known by its id for so long before and after, in milliseconds.
pub const KNOWN_FOR_MS: u64 = 7 * 86_400_000;

/// A record that is in none of the tables, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Grows with time.
    pub id: u64,
    /// Where the record is, as long as the log keeps it.
    pub topic: String,
    /// In that topic.
    pub position: Position,
    /// Of the record.
    pub key: Bytes,
    /// Of the record.
    pub payload: Bytes,
    /// For people.
    pub reason: String,
    /// When it was put here, in milliseconds since 1970.
    pub at_ms: u64,
}

impl DeadLetter {
    /// As a batch that moves no position.
    pub(crate) fn batch(&self) -> Batch {
        let record = LogRecord {
            position: self.position,
            at_ms: self.at_ms,
            key: self.key.clone(),
            payload: self.payload.clone(),
        };
        Batch { topic: self.topic.as_str().into(), spans: Vec::new(), records: vec![record] }
    }
}

/// What became of a dead letter that was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// It is in the tables, where it may have been before, and no dead letter any more.
    Stored,
    /// It stays, for this reason.
    Refused(String),
    /// There is none of this id.
    Missing,
}

/// The archive of the topics for consumers: `chat_events`, `undelivered_events`, `user_status_events`, `client_events`
/// and `client_results`, and of `dead_letters`.
///
/// 1. A batch is stored as a whole with the new positions, or not at all. It is stored only if each of its spans begins
///    where the archive is in that partition (at first 0); else the answer is [`Stored::Fenced`]. So whoever reads which
///    partition, and however often, nothing is stored twice and nothing is left out.
/// 2. A message, and that it was not delivered, is kept once by (stream, generation, offset), a change of a status once
///    by (vnode, epoch, seq); a client's event once by its id, and a client's result by its own, if no more than
///    [`KNOWN_FOR_MS`] lie between: the first stands. A copy changes nothing.
/// 3. A message that comes again under a newer generation of its stream, within [`AGAIN_WITHIN_MS`] of that generation's
///    beginning, with the same sender, id and data, is kept once, under the older; its other place is noted.
/// 4. A record that cannot be read, or that the database refuses, becomes a dead letter with the reason and all its
///    bytes. It holds up nothing else. A record of `dead_letters` becomes the letter of the record it is about. A record
///    of one place has one letter, whoever says how often that it is one.
/// 5. After an error it is unknown whether the batch was stored; [`positions`](Self::positions) tells.
/// 6. Messages and results are shown as readers were sent them, to the byte. Pages are newest first, ordered by
///    (generation, offset) or by [`Moment`]; one after the other in either direction they show everything once. A page
///    that is shorter than asked for though there is more has at least two entries, and passes [`PAGE_BYTES_MAX`] with
///    the one that is farthest from its place and not without it, unless that is the second. Hardly more is read for it
///    where entries are alike, and never more than eight times as much.
/// 7. A dead letter that is replayed is stored, or stays with the reason of the last try.
/// 8. `beat` names whoever has called it within the last [`LIVING_MS`], by the archive's own clock.
/// 9. What is shown was stored, and what was stored before the question is shown.
#[async_trait]
pub trait Archive: Send + Sync {
    /// How far each partition is archived: the offset after the last record. Absent: 0.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn positions(&self, topic: &str) -> Result<BTreeMap<u32, u64>, ArchiveError>;

    /// # Errors
    /// [`ArchiveError`]; see promise 5.
    async fn store(&self, batch: &Batch) -> Result<Stored, ArchiveError>;

    /// Says that the archiver `id` lives; the living, sorted.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn beat(&self, id: &str) -> Result<Vec<String>, ArchiveError>;

    /// Says that it does not any more.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn leave(&self, id: &str) -> Result<(), ArchiveError>;

    /// At most `limit` messages of a stream, newest first, as readers were sent them.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn messages(
        &self,
        stream: &StreamId,
        place: ArchivePosition<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, Bytes)>, ArchiveError>;

    /// Changes of one user's status, newest first.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn changes(&self, asked: &Asked) -> Result<Vec<(Moment, StatusEvent)>, ArchiveError>;

    /// Events of one client, newest first, each with its results.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn events(&self, asked: &Asked) -> Result<Vec<(Moment, Answered)>, ArchiveError>;

    /// At most `limit` dead letters with smaller ids than `before`, newest first.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn dead_letters(&self, before: Option<u64>, limit: usize) -> Result<Vec<DeadLetter>, ArchiveError>;

    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn replay(&self, id: u64) -> Result<Replayed, ArchiveError>;

    /// Removes a dead letter for good; false if there is none of this id.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn discard(&self, id: u64) -> Result<bool, ArchiveError>;

    /// Removes what happened before this moment, in milliseconds since 1970, in whole parts: some of it may stay for a
    /// while.
    ///
    /// # Errors
    /// [`ArchiveError`]; safe to repeat.
    async fn trim(&self, before_ms: u64) -> Result<(), ArchiveError>;
}

/// Questions of others that an archive is asked at the same time; whoever asks sees to it, so that storing never waits
/// for them. More are not answered sooner: each keeps one processor of the database busy.
pub const QUESTIONS_MAX: usize = 8;
/// An archiver that was silent for this long is taken for dead: five beats.
pub const LIVING_MS: u64 = 10_000;
/// How often an archiver beats.
pub const BEAT_MS: u64 = LIVING_MS / 5;
