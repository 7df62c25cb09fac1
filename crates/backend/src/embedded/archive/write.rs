//! A batch into the tables, in one transaction.

use std::sync::Arc;

use roost_proto::ids::{Cursor, Epoch, Offset};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::{int, number, read};
use crate::archive::again::{Known, Suspects};
use crate::archive::row::{
    Dead, Entry, EventRow, MessageRow, ResultRow, Row, Rows, StatusRow, message_row, name_of,
};
use crate::archive::{Batch, Replayed, Stored, Tally};

pub(super) fn store(db: &mut Connection, batch: &Batch, now_ms: u64) -> rusqlite::Result<Stored> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !advance(&tx, batch)? {
        return Ok(Stored::Fenced);
    }
    let Rows { entries, mut dead, skipped } = Rows::of(batch);
    let mut tally = insert(&tx, &batch.topic, entries, &mut dead)?;
    for dead in &dead {
        bury(&tx, dead, now_ms)?;
    }
    tx.commit()?;
    (tally.dead, tally.skipped) = (dead.len() as u64, skipped);
    Ok(Stored::Kept(tally))
}

/// Moves the positions, if all are where the batch begins.
fn advance(tx: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<bool> {
    let mut begin = tx.prepare_cached("INSERT OR IGNORE INTO positions VALUES (?1, ?2, 0)")?;
    let update = "UPDATE positions SET next = ?4 WHERE topic = ?1 AND partition = ?2 AND next = ?3";
    let mut update = tx.prepare_cached(update)?;
    for span in &batch.spans {
        begin.execute(params![batch.topic, span.partition])?;
        if update.execute(params![batch.topic, span.partition, int(span.from), int(span.to)])? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn insert<'a>(
    tx: &Transaction<'_>,
    topic: &Arc<str>,
    entries: Vec<Entry<'a>>,
    dead: &mut Vec<Dead>,
) -> rusqlite::Result<Tally> {
    let (entries, again) = match Suspects::of(&entries) {
        Some(suspects) => known(tx, &suspects)?.part(entries),
        None => (entries, Vec::new()),
    };
    let mut tally = Tally::default();
    for Entry { record, row } in entries {
        let inserted = match &row {
            Row::Message(row) => insert_message(tx, "messages", row),
            Row::Undelivered(row) => insert_message(tx, "undelivered", row),
            Row::Status(row) => insert_status(tx, row),
            Row::Event(row) => insert_event(tx, row),
            Row::Result(row) => insert_result(tx, row),
        };
        match inserted {
            Ok(0) => tally.duplicates += 1,
            Ok(_) => tally.rows += 1,
            Err(e) if is_of_the_row(&e) => dead.push(Dead::new(topic, record, e.to_string())),
            Err(e) => return Err(e),
        }
    }
    for (entry, original) in again {
        if let Row::Message(row) = &entry.row {
            tally.aliases += insert_alias(tx, row, original)? as u64;
        }
    }
    Ok(tally)
}

/// Whether another row would have been taken.
fn is_of_the_row(error: &rusqlite::Error) -> bool {
    use ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
    matches!(error.sqlite_error_code(), Some(ConstraintViolation | TooBig | TypeMismatch))
}

/// The older messages of these streams.
fn known(tx: &Transaction<'_>, suspects: &Suspects) -> rusqlite::Result<Known> {
    let mut known = Known::default();
    let select = "SELECT generation, offset, id, kind, sender, data, at FROM messages
                  WHERE stream = ?1 AND generation < ?2 AND at >= ?3";
    let mut select = tx.prepare_cached(select)?;
    for (stream, generation) in suspects.streams.iter().zip(&suspects.generations) {
        let mut rows = select.query(params![stream.as_str(), int(*generation), int(suspects.since_ms)])?;
        while let Some(row) = rows.next()? {
            let cursor = Cursor::new(Epoch(number(row.get(0)?)), Offset(number(row.get(1)?)));
            let texts = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
            // One that is garbled cannot be the same as any.
            if let Ok(row) = message_row(stream, cursor, texts, number(row.get(6)?)) {
                known.note(&row);
            }
        }
    }
    Ok(known)
}

/// One that is there stays; `OR IGNORE` would pass over what a constraint refuses, too.
fn insert_message(tx: &Transaction<'_>, table: &str, row: &MessageRow) -> rusqlite::Result<usize> {
    let message = &row.message;
    let insert = format!(
        "INSERT INTO {table} (stream, generation, offset, id, kind, sender, at, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (stream, generation, offset) DO NOTHING"
    );
    tx.prepare_cached(&insert)?.execute(params![
        message.stream.as_str(),
        int(message.generation.0),
        int(message.offset.0),
        message.id.as_str(),
        message.kind,
        message.from,
        int(row.at_ms),
        message.data.get()
    ])
}

fn insert_status(tx: &Transaction<'_>, row: &StatusRow) -> rusqlite::Result<usize> {
    let event = &row.event;
    let insert =
        "INSERT INTO status_changes (vnode, epoch, seq, user_id, status, cause, at, since, last_seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (vnode, epoch, seq) DO NOTHING";
    tx.prepare_cached(insert)?.execute(params![
        event.vnode.0,
        int(event.epoch.0),
        int(event.seq.0),
        event.user.as_str(),
        name_of(&event.status),
        name_of(&event.cause),
        int(row.at_ms),
        int(row.since_ms),
        row.last_seen_ms.map(int)
    ])
}

fn insert_event(tx: &Transaction<'_>, row: &EventRow) -> rusqlite::Result<usize> {
    let event = &row.event;
    let insert = "INSERT INTO client_events (client_id, event_id, vnode, epoch, seq, at, data)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (client_id, event_id) DO NOTHING";
    tx.prepare_cached(insert)?.execute(params![
        event.client_id.as_str(),
        event.event_id.as_str(),
        event.vnode.0,
        int(event.epoch.0),
        int(event.seq.0),
        int(row.at_ms),
        event.data.get()
    ])
}

fn insert_result(tx: &Transaction<'_>, row: &ResultRow) -> rusqlite::Result<usize> {
    let result = &row.result;
    let insert = "INSERT INTO client_results (client_id, result_id, event_id, kind, at, record)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (client_id, result_id) DO NOTHING";
    tx.prepare_cached(insert)?.execute(params![
        result.client_id.as_str(),
        result.result_id.as_str(),
        result.event_id.as_str(),
        result.kind,
        int(row.at_ms),
        result.record.get()
    ])
}

fn insert_alias(tx: &Transaction<'_>, row: &MessageRow, original: Cursor) -> rusqlite::Result<usize> {
    let message = &row.message;
    let insert = "INSERT INTO aliases (stream, generation, offset, first_generation, first_offset, at)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    tx.prepare_cached(insert)?.execute(params![
        message.stream.as_str(),
        int(message.generation.0),
        int(message.offset.0),
        int(original.generation.0),
        int(original.offset.0),
        int(row.at_ms)
    ])
}

fn bury(tx: &Transaction<'_>, dead: &Dead, now_ms: u64) -> rusqlite::Result<()> {
    let Dead { topic, record, reason } = dead;
    // A topic that was made anew has another record at the same place.
    let insert = "INSERT INTO dead_letters (topic, partition, offset, key, payload, reason, at)
                  SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
                  WHERE NOT EXISTS (SELECT 1 FROM dead_letters WHERE topic = ?1 AND partition = ?2
                                    AND offset = ?3 AND payload = ?5)";
    let (key, payload) = (&record.key[..], &record.payload[..]);
    let place = record.position;
    let row = params![topic, place.partition, int(place.offset), key, payload, reason, int(now_ms)];
    tx.prepare_cached(insert)?.execute(row).map(drop)
}

pub(super) fn replay(db: &mut Connection, id: u64) -> rusqlite::Result<Replayed> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(letter) = read::one_dead_letter(&tx, id)? else { return Ok(Replayed::Missing) };
    let batch = letter.batch();
    let Rows { entries, mut dead, .. } = Rows::of(&batch);
    insert(&tx, &batch.topic, entries, &mut dead)?;
    let replayed = match dead.pop() {
        Some(Dead { reason, .. }) => {
            tx.execute("UPDATE dead_letters SET reason = ?2 WHERE id = ?1", params![int(id), reason])?;
            Replayed::Refused(reason)
        }
        None => {
            tx.execute("DELETE FROM dead_letters WHERE id = ?1", [int(id)])?;
            Replayed::Stored
        }
    };
    tx.commit()?;
    Ok(replayed)
}

pub(super) fn trim(db: &mut Connection, before_ms: u64) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in ["messages", "undelivered", "aliases", "status_changes", "client_events", "client_results"] {
        tx.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [int(before_ms)])?;
    }
    tx.commit()
}
