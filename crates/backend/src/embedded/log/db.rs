//! The log's tables in SQLite.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::embedded::connections::Connections;
use crate::log::{LogError, LogRecord, Position, TopicSpec};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS topics (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL, retention_ms INTEGER
    );
    CREATE TABLE IF NOT EXISTS log (
        topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
        key BLOB NOT NULL, value BLOB NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (topic, partition, offset)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS commits (
        topic INTEGER NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
    ) WITHOUT ROWID;";

/// A record on its way into the table.
pub(super) struct Row {
    pub topic: i64,
    pub partition: u32,
    pub key: Bytes,
    pub payload: Bytes,
}

/// A topic as kept.
pub(super) struct Kept {
    pub id: i64,
    pub name: String,
    pub spec: TopicSpec,
    /// For each partition the offset after the last record.
    pub ends: Vec<u64>,
}

/// The log's own connections to its file.
pub(super) struct Db(Connections);

impl Db {
    pub(super) fn memory() -> rusqlite::Result<Self> {
        Ok(Self(Connections::memory(SCHEMA)?))
    }

    /// Ends are kept in memory, so a second process on the file would see old ones: it is kept out.
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        Ok(Self(Connections::open(path, SCHEMA, ".log-lock").map_err(LogError::Refused)?))
    }

    /// # Errors
    /// [`LogError::Unreachable`] with what SQLite said; nothing was written then.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        self.0.write(f).await.map_err(LogError::Unreachable)
    }

    /// # Errors
    /// [`LogError::Unreachable`] with what SQLite said.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        self.0.read(f).await.map_err(LogError::Unreachable)
    }

    /// What the file has, when it is opened.
    pub(super) fn kept(&self) -> rusqlite::Result<Vec<Kept>> {
        let db = self.0.writer();
        let mut query = db.prepare("SELECT id, name, partitions, retention_ms FROM topics")?;
        let row = |r: &rusqlite::Row<'_>| {
            let spec = spec(r.get(2)?, r.get(3)?);
            Ok(Kept { id: r.get(0)?, name: r.get(1)?, spec, ends: Vec::new() })
        };
        let mut topics = query.query_map([], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        for topic in &mut topics {
            topic.ends =
                (0..topic.spec.partitions).map(|p| end(&db, topic.id, p)).collect::<rusqlite::Result<_>>()?;
        }
        Ok(topics)
    }
}

/// The offset the next record of the partition gets. The last record is never removed ([`trim`]).
fn end(db: &Connection, topic: i64, partition: u32) -> rusqlite::Result<u64> {
    let mut last = db.prepare_cached("SELECT max(offset) FROM log WHERE topic = ?1 AND partition = ?2")?;
    let last: Option<i64> = last.query_row(params![topic, partition], |r| r.get(0))?;
    Ok(last.map_or(0, |last| last as u64 + 1))
}

/// The offset of the earliest record, if there is one.
pub(super) fn first(db: &Connection, topic: i64, partition: u32) -> rusqlite::Result<Option<u64>> {
    let select = "SELECT min(offset) FROM log WHERE topic = ?1 AND partition = ?2";
    let first: Option<i64> =
        db.prepare_cached(select)?.query_row(params![topic, partition], |row| row.get(0))?;
    Ok(first.map(|offset| offset as u64))
}

/// SQLite's integers are signed. No number here reaches 2^63. Who writes the topic makes no difference here.
fn spec(partitions: u32, retention_ms: Option<i64>) -> TopicSpec {
    TopicSpec { partitions, retention_ms: retention_ms.map(|ms| ms as u64), foreign: false }
}

/// Makes the topic unless it is there; what is kept either way.
pub(super) fn ensure(db: &mut Connection, name: &str, wanted: TopicSpec) -> rusqlite::Result<Kept> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let find = "SELECT id, partitions, retention_ms FROM topics WHERE name = ?1";
    let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, spec(r.get(1)?, r.get(2)?)));
    let (id, spec) = match tx.query_row(find, [name], row).optional()? {
        Some(found) => found,
        None => {
            let insert = "INSERT INTO topics (name, partitions, retention_ms) VALUES (?1, ?2, ?3)";
            tx.execute(insert, params![name, wanted.partitions, wanted.retention_ms.map(|ms| ms as i64)])?;
            (tx.last_insert_rowid(), wanted)
        }
    };
    let ends = (0..spec.partitions).map(|p| end(&tx, id, p)).collect::<rusqlite::Result<_>>()?;
    tx.commit()?;
    Ok(Kept { id, name: name.to_owned(), spec, ends })
}

pub(super) fn remove(db: &mut Connection, id: i64) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("DELETE FROM log WHERE topic = ?1", [id])?;
    tx.execute("DELETE FROM commits WHERE topic = ?1", [id])?;
    tx.execute("DELETE FROM topics WHERE id = ?1", [id])?;
    tx.commit()
}

/// All rows, or none of them; the offset each one got. Where a partition ends is asked of the table each time: a
/// commit that failed may have happened all the same.
pub(super) fn append(db: &mut Connection, rows: &[Row], at_ms: u64) -> rusqlite::Result<Vec<u64>> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut ends: HashMap<(i64, u32), u64> = HashMap::new();
    let mut offsets = Vec::with_capacity(rows.len());
    for Row { topic, partition, key, payload } in rows {
        let end = match ends.entry((*topic, *partition)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(end(&tx, *topic, *partition)?),
        };
        let insert =
            "INSERT INTO log (topic, partition, offset, key, value, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut insert = tx.prepare_cached(insert)?;
        insert.execute(params![topic, partition, *end as i64, &key[..], &payload[..], at_ms as i64])?;
        offsets.push(*end);
        *end += 1;
    }
    tx.commit()?;
    Ok(offsets)
}

/// At most `limit` records of `topic`, of these partitions in this order, each from its offset on.
pub(super) fn read(
    db: &Connection,
    topic: i64,
    from: &[Position],
    limit: usize,
) -> rusqlite::Result<Vec<LogRecord>> {
    let select =
        "SELECT offset, key, value, at_ms FROM log WHERE topic = ?1 AND partition = ?2 AND offset >= ?3
                  ORDER BY offset LIMIT ?4";
    let mut select = db.prepare_cached(select)?;
    let mut records = Vec::new();
    for &Position { partition, offset } in from {
        let room = (limit - records.len()) as i64;
        let mut rows = select.query(params![topic, partition, offset as i64, room])?;
        while let Some(row) = rows.next()? {
            records.push(LogRecord {
                position: Position { partition, offset: row.get::<_, i64>(0)? as u64 },
                key: Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?),
                payload: Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?),
                at_ms: row.get::<_, i64>(3)? as u64,
            });
        }
        if records.len() >= limit {
            break;
        }
    }
    Ok(records)
}

/// Removes records of a topic written before `before_ms`, oldest first, looking at no more than `limit` in each
/// partition. True if there may be more to remove.
pub(super) fn trim_topic(
    db: &mut Connection,
    topic: i64,
    partitions: u32,
    before_ms: u64,
    limit: usize,
) -> rusqlite::Result<bool> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut more = false;
    for partition in 0..partitions {
        more |= trim(&tx, topic, partition, before_ms, limit)?;
    }
    tx.commit()?;
    Ok(more)
}

/// The last record stays, whatever its age: it is how the partition's end is known.
fn trim(db: &Connection, topic: i64, partition: u32, before_ms: u64, limit: usize) -> rusqlite::Result<bool> {
    let delete = "DELETE FROM log WHERE topic = ?1 AND partition = ?2 AND at_ms < ?3 AND offset IN (
                      SELECT offset FROM log WHERE topic = ?1 AND partition = ?2 ORDER BY offset LIMIT ?4)
                  AND offset < (SELECT max(offset) FROM log WHERE topic = ?1 AND partition = ?2)";
    let removed =
        db.prepare_cached(delete)?.execute(params![topic, partition, before_ms as i64, limit as i64])?;
    Ok(removed == limit)
}

pub(super) fn committed(db: &Connection, topic: i64) -> rusqlite::Result<BTreeMap<u32, u64>> {
    let mut query = db.prepare_cached("SELECT partition, next FROM commits WHERE topic = ?1")?;
    let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get::<_, i64>(1)? as u64));
    query.query_map([topic], row)?.collect()
}

pub(super) fn commit(db: &mut Connection, topic: i64, at: &[Position]) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for Position { partition, offset } in at {
        let put = "INSERT OR REPLACE INTO commits (topic, partition, next) VALUES (?1, ?2, ?3)";
        tx.execute(put, params![topic, partition, *offset as i64])?;
    }
    tx.commit()
}
