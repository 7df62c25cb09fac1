//! The archive inside the process, in SQLite: in memory, or in a file.
//!
//! It does not own time: the clock comes from outside, and says who lives and when a dead letter came.

mod read;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::events::StatusEvent;
use roost_proto::ids::{Cursor, StreamId};

use super::connections::Connections;
use crate::archive::{
    Answered, Archive, ArchiveError, ArchivePosition, Asked, Batch, DeadLetter, LIVING_MS, Moment, Replayed,
    Stored,
};

/// Wall-clock milliseconds since 1970; a test gives its own.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Times in milliseconds since 1970.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS positions (
        topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS messages (
        stream TEXT NOT NULL, generation INTEGER NOT NULL, offset INTEGER NOT NULL, id TEXT NOT NULL,
        kind TEXT NOT NULL, sender TEXT NOT NULL, at INTEGER NOT NULL, data TEXT NOT NULL,
        PRIMARY KEY (stream, generation, offset)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS messages_at ON messages (at);
    CREATE TABLE IF NOT EXISTS undelivered (
        stream TEXT NOT NULL, generation INTEGER NOT NULL, offset INTEGER NOT NULL, id TEXT NOT NULL,
        kind TEXT NOT NULL, sender TEXT NOT NULL, at INTEGER NOT NULL, data TEXT NOT NULL,
        PRIMARY KEY (stream, generation, offset)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS undelivered_at ON undelivered (at);
    CREATE TABLE IF NOT EXISTS aliases (
        stream TEXT NOT NULL, generation INTEGER NOT NULL, offset INTEGER NOT NULL,
        first_generation INTEGER NOT NULL, first_offset INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (stream, generation, offset)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS status_changes (
        vnode INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, user_id TEXT NOT NULL,
        status TEXT NOT NULL, cause TEXT NOT NULL, at INTEGER NOT NULL, since INTEGER NOT NULL,
        last_seen INTEGER, PRIMARY KEY (vnode, epoch, seq)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS status_changes_user ON status_changes (user_id, at, epoch, seq);
    CREATE INDEX IF NOT EXISTS status_changes_at ON status_changes (at);
    CREATE TABLE IF NOT EXISTS client_events (
        client_id TEXT NOT NULL, event_id TEXT NOT NULL, vnode INTEGER NOT NULL, epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL, at INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (client_id, event_id)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS client_events_client ON client_events (client_id, at, epoch, seq);
    CREATE INDEX IF NOT EXISTS client_events_at ON client_events (at);
    CREATE TABLE IF NOT EXISTS client_results (
        client_id TEXT NOT NULL, result_id TEXT NOT NULL, event_id TEXT NOT NULL, kind TEXT NOT NULL,
        at INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (client_id, result_id)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS client_results_event ON client_results (client_id, event_id, at);
    CREATE INDEX IF NOT EXISTS client_results_at ON client_results (at);
    CREATE TABLE IF NOT EXISTS dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, partition INTEGER NOT NULL,
        offset INTEGER NOT NULL, key BLOB NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL,
        at INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS dead_letters_place ON dead_letters (topic, partition, offset);";

/// An [`Archive`] of this process.
pub struct EmbeddedArchive {
    db: Connections,
    clock: Clock,
    /// Who lives, and when each was last heard.
    living: Mutex<BTreeMap<String, u64>>,
}

impl EmbeddedArchive {
    /// One that forgets everything with the process.
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] with what SQLite says.
    pub fn memory(clock: Clock) -> Result<Self, ArchiveError> {
        let db = Connections::memory(SCHEMA).map_err(|e| ArchiveError::Refused(e.to_string()))?;
        Ok(Self { db, clock, living: Mutex::default() })
    }

    /// One kept in the file at `path`, which is made if there is none.
    ///
    /// # Errors
    /// [`ArchiveError::Config`] if the file cannot be used, or is open elsewhere.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, ArchiveError> {
        let db = Connections::open(path, SCHEMA, ".archive-lock").map_err(ArchiveError::Config)?;
        Ok(Self { db, clock, living: Mutex::default() })
    }
}

/// SQLite counts to 2^63; what is larger was refused before.
fn int(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn number(int: i64) -> u64 {
    int.try_into().unwrap_or_default()
}

#[async_trait]
impl Archive for EmbeddedArchive {
    async fn positions(&self, topic: &str) -> Result<BTreeMap<u32, u64>, ArchiveError> {
        let topic = topic.to_owned();
        self.read(move |db| read::positions(db, &topic)).await
    }

    async fn store(&self, batch: &Batch) -> Result<Stored, ArchiveError> {
        let (batch, now_ms) = (batch.clone(), (self.clock)());
        self.write(move |db| write::store(db, &batch, now_ms)).await
    }

    async fn beat(&self, id: &str) -> Result<Vec<String>, ArchiveError> {
        let now_ms = (self.clock)();
        let mut living = self.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.insert(id.to_owned(), now_ms);
        living.retain(|_, heard_ms| now_ms.saturating_sub(*heard_ms) < LIVING_MS);
        Ok(living.keys().cloned().collect())
    }

    async fn leave(&self, id: &str) -> Result<(), ArchiveError> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    async fn messages(
        &self,
        stream: &StreamId,
        place: ArchivePosition<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, Bytes)>, ArchiveError> {
        let stream = stream.clone();
        let rows = self.read(move |db| read::messages(db, &stream, place, limit)).await?;
        rows.into_iter().collect::<Result<_, _>>().map_err(ArchiveError::Refused)
    }

    async fn changes(&self, asked: &Asked) -> Result<Vec<(Moment, StatusEvent)>, ArchiveError> {
        let asked = asked.clone();
        let rows = self.read(move |db| read::changes(db, &asked)).await?;
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>().map_err(ArchiveError::Refused)?;
        Ok(rows.into_iter().map(|row| (row.moment(), row.event)).collect())
    }

    async fn events(&self, asked: &Asked) -> Result<Vec<(Moment, Answered)>, ArchiveError> {
        let asked = asked.clone();
        let rows = self.read(move |db| read::events(db, &asked)).await?;
        rows.into_iter().collect::<Result<_, _>>().map_err(ArchiveError::Refused)
    }

    async fn dead_letters(&self, before: Option<u64>, limit: usize) -> Result<Vec<DeadLetter>, ArchiveError> {
        self.read(move |db| read::dead_letters(db, before, limit)).await
    }

    async fn replay(&self, id: u64) -> Result<Replayed, ArchiveError> {
        self.write(move |db| write::replay(db, id)).await
    }

    async fn discard(&self, id: u64) -> Result<bool, ArchiveError> {
        self.write(move |db| Ok(db.execute("DELETE FROM dead_letters WHERE id = ?1", [int(id)])? > 0)).await
    }

    async fn trim(&self, before_ms: u64) -> Result<(), ArchiveError> {
        self.write(move |db| write::trim(db, before_ms)).await
    }
}

impl EmbeddedArchive {
    async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        self.db.write(f).await.map_err(ArchiveError::Unreachable)
    }

    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        self.db.read(f).await.map_err(ArchiveError::Unreachable)
    }
}
