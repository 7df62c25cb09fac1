//! What is asked of the tables.

use std::collections::BTreeMap;

use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, StreamId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{int, number};
use crate::archive::fill::Fill;
use crate::archive::row::{StatusRow, answered, message_row, status_row};
use crate::archive::{Answered, ArchivePosition, Asked, DeadLetter, Moment, RESULTS_SHOWN_MAX};
use crate::log::Position;

/// Larger than every key.
const LAST: u64 = i64::MAX as u64;

pub(super) fn positions(db: &Connection, topic: &str) -> rusqlite::Result<BTreeMap<u32, u64>> {
    let mut select = db.prepare_cached("SELECT partition, next FROM positions WHERE topic = ?1")?;
    let position = |row: &Row<'_>| Ok((row.get(0)?, number(row.get(1)?)));
    select.query_map([topic], position)?.collect()
}

/// The words of a query for the rows beside a key, nearest first.
struct Words {
    beside: &'static str,
    order: &'static str,
}

/// Reads beside `place`, where `last` is larger than every key; the newest comes first in the end.
fn page<K, T>(
    place: ArchivePosition<K>,
    last: K,
    read: impl FnOnce(Words, K) -> rusqlite::Result<Vec<T>>,
) -> rusqlite::Result<Vec<T>> {
    let older = Words { beside: "<", order: "DESC" };
    match place {
        ArchivePosition::Newest => read(older, last),
        ArchivePosition::Before(key) => read(older, key),
        ArchivePosition::After(key) => {
            let mut rows = read(Words { beside: ">", order: "ASC" }, key)?;
            rows.reverse();
            Ok(rows)
        }
    }
}

/// Reads until the page is full: SQLite makes a row when it is asked for it.
fn bounded<T>(
    mut rows: impl Iterator<Item = rusqlite::Result<T>>,
    size: impl Fn(&T) -> usize,
) -> rusqlite::Result<Vec<T>> {
    let (mut fill, mut page) = (Fill::default(), Vec::new());
    while !fill.is_full() {
        let Some(row) = rows.next().transpose()? else { break };
        fill.add(size(&row));
        page.push(row);
    }
    Ok(page)
}

/// What cannot be shown has no size.
fn size_of<T>(row: &Result<T, String>, size: impl Fn(&T) -> usize) -> usize {
    row.as_ref().map_or(0, size)
}

pub(super) fn messages(
    db: &Connection,
    stream: &StreamId,
    place: ArchivePosition<Cursor>,
    limit: usize,
) -> rusqlite::Result<Vec<Result<(Cursor, Bytes), String>>> {
    page(place, Cursor::new(Epoch(LAST), Offset(LAST)), |Words { beside, order }, key| {
        let select = format!(
            "SELECT generation, offset, id, kind, sender, data, at FROM messages
             WHERE stream = ?1 AND (generation, offset) {beside} (?2, ?3)
             ORDER BY generation {order}, offset {order} LIMIT ?4"
        );
        let message = |row: &Row<'_>| {
            let cursor = Cursor::new(Epoch(number(row.get(0)?)), Offset(number(row.get(1)?)));
            let texts = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
            let message = message_row(stream, cursor, texts, number(row.get(6)?));
            Ok(message.map(|row| (cursor, row.frame())))
        };
        let key = params![stream.as_str(), int(key.generation.0), int(key.offset.0), limit as i64];
        let size = |row: &_| size_of(row, |(_, frame): &(Cursor, Bytes)| frame.len());
        bounded(db.prepare_cached(&select)?.query_map(key, message)?, size)
    })
}

/// Asks for rows that begin with vnode, at, epoch, seq.
fn of_user<T>(
    db: &Connection,
    asked: &Asked,
    select: impl FnOnce(Words) -> String,
    row: impl Fn(&Row<'_>, u16, Moment) -> rusqlite::Result<T>,
    size: impl Fn(&T) -> usize,
) -> rusqlite::Result<Vec<T>> {
    let last = Moment { at_ms: LAST, epoch: Epoch(LAST), seq: Seq(LAST) };
    page(asked.place, last, |words, key| {
        let row = |found: &Row<'_>| {
            let (at_ms, epoch) = (number(found.get(1)?), Epoch(number(found.get(2)?)));
            row(found, found.get(0)?, Moment { at_ms, epoch, seq: Seq(number(found.get(3)?)) })
        };
        let key = params![
            asked.user.as_str(),
            int(asked.from_ms),
            int(asked.to_ms),
            int(key.at_ms),
            int(key.epoch.0),
            int(key.seq.0),
            asked.limit as i64
        ];
        bounded(db.prepare_cached(&select(words))?.query_map(key, row)?, size)
    })
}

pub(super) fn changes(db: &Connection, asked: &Asked) -> rusqlite::Result<Vec<Result<StatusRow, String>>> {
    let select = |Words { beside, order }| {
        format!(
            "SELECT vnode, at, epoch, seq, status, cause, since, last_seen FROM status_changes
             WHERE user_id = ?1 AND at BETWEEN ?2 AND ?3 AND (at, epoch, seq) {beside} (?4, ?5, ?6)
             ORDER BY at {order}, epoch {order}, seq {order} LIMIT ?7"
        )
    };
    let change = |row: &Row<'_>, vnode, moment| {
        let last_seen = row.get::<_, Option<i64>>(7)?.map(number);
        let words = [row.get(4)?, row.get(5)?];
        Ok(status_row(&asked.user, vnode, moment, words, number(row.get(6)?), last_seen))
    };
    of_user(db, asked, select, change, |_| 0)
}

pub(super) fn events(
    db: &Connection,
    asked: &Asked,
) -> rusqlite::Result<Vec<Result<(Moment, Answered), String>>> {
    let select = |Words { beside, order }| {
        format!(
            "SELECT vnode, at, epoch, seq, event_id, data FROM client_events
             WHERE client_id = ?1 AND at BETWEEN ?2 AND ?3 AND (at, epoch, seq) {beside} (?4, ?5, ?6)
             ORDER BY at {order}, epoch {order}, seq {order} LIMIT ?7"
        )
    };
    let results = "SELECT record FROM client_results WHERE client_id = ?1 AND event_id = ?2
                   ORDER BY at, result_id LIMIT ?3";
    let event = |row: &Row<'_>, vnode, moment| {
        let (id, data): (String, String) = (row.get(4)?, row.get(5)?);
        let of = params![asked.user.as_str(), id, RESULTS_SHOWN_MAX as i64];
        let mut results = db.prepare_cached(results)?;
        let results = results.query_map(of, |row| row.get(0))?.collect::<Result<_, _>>()?;
        let event = answered(&asked.user, vnode, moment, [id, data], results);
        Ok(event.map(|event| (moment, event)))
    };
    of_user(db, asked, select, event, |row| size_of(row, |(_, event)| event.size()))
}

const DEAD_LETTER: &str = "SELECT id, topic, partition, offset, key, payload, reason, at FROM dead_letters";

fn dead_letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        id: number(row.get(0)?),
        topic: row.get(1)?,
        position: Position { partition: row.get(2)?, offset: number(row.get(3)?) },
        key: Bytes::copy_from_slice(row.get_ref(4)?.as_blob()?),
        payload: Bytes::copy_from_slice(row.get_ref(5)?.as_blob()?),
        reason: row.get(6)?,
        at_ms: number(row.get(7)?),
    })
}

pub(super) fn dead_letters(
    db: &Connection,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut select = db.prepare_cached(&format!("{DEAD_LETTER} WHERE id < ?1 ORDER BY id DESC LIMIT ?2"))?;
    let rows = select.query_map([int(before.unwrap_or(LAST)), limit as i64], dead_letter)?;
    bounded(rows, |letter| letter.key.len() + letter.payload.len())
}

pub(super) fn one_dead_letter(db: &Connection, id: u64) -> rusqlite::Result<Option<DeadLetter>> {
    let mut select = db.prepare_cached(&format!("{DEAD_LETTER} WHERE id = ?1"))?;
    select.query_row([int(id)], dead_letter).optional()
}
