//! A batch into the tables, in one transaction.
//!
//! Rows go straight in by `COPY`. Copies of what is there make that fail, once in a long while: then the same rows go by
//! way of a temporary table. What the database refuses is found by halving.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use futures_util::SinkExt;
use roost_proto::ids::{Cursor, StreamId};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Transaction};

use super::copy::{self, Table};
use super::link::{Link, STORE_LIMIT, trouble};
use super::parts::Parts;
use super::{int, moment, read};
use crate::archive::again::{Known, Suspects};
use crate::archive::row::{Dead, Entry, Row, Rows};
use crate::archive::{AT_MAX_MS, ArchiveError, Batch, KNOWN_FOR_MS, Replayed, Stored, Tally};

pub(super) async fn store(link: &Link, parts: &Parts, batch: &Batch) -> Result<Stored, ArchiveError> {
    let rows = Rows::of(batch);
    parts.make(link, &rows.entries).await?;
    let mut lease = link.lease().await?;
    let client = lease.client();
    let stored = timeout(STORE_LIMIT, async {
        let mut tx = client.transaction().await?;
        if !advance(&tx, batch).await? {
            tx.rollback().await?;
            return Ok(Stored::Fenced);
        }
        let Rows { entries, mut dead, skipped } = rows;
        let mut tally = insert(&mut tx, batch, entries, &mut dead).await?;
        bury(&tx, &dead).await?;
        tx.commit().await?;
        (tally.dead, tally.skipped) = (dead.len() as u64, skipped);
        Ok(Stored::Kept(tally))
    });
    let stored = ended(stored.await, parts)?;
    lease.done();
    Ok(stored)
}

/// What a transaction came to.
fn ended<T>(
    answer: Result<Result<T, Error>, tokio::time::error::Elapsed>,
    parts: &Parts,
) -> Result<T, ArchiveError> {
    let answer = answer.map_err(|_| ArchiveError::Timeout(STORE_LIMIT))?;
    answer.map_err(|e| {
        if is_without_a_part(&e) {
            parts.forget();
        }
        trouble(&e)
    })
}

/// A part that was there has been dropped since: the rows are not to blame. The code is that of a broken `CHECK`, which
/// has a name.
fn is_without_a_part(error: &Error) -> bool {
    error.code() == Some(&SqlState::CHECK_VIOLATION)
        && error.as_db_error().is_some_and(|e| e.constraint().is_none())
}

/// Moves the positions, if all are where the batch begins. A rival waits here for the end of our transaction.
async fn advance(tx: &Transaction<'_>, batch: &Batch) -> Result<bool, Error> {
    let column = |value: fn(&crate::archive::Span) -> i64| batch.spans.iter().map(value).collect::<Vec<_>>();
    let partitions: Vec<i32> = batch.spans.iter().map(|span| span.partition as i32).collect();
    let begin = "INSERT INTO positions SELECT $1, partition, 0 FROM unnest($2::int[]) AS s (partition)
                 ON CONFLICT DO NOTHING";
    if batch.spans.iter().any(|span| span.from == 0) {
        tx.execute(begin, &[&&*batch.topic, &partitions]).await?;
    }
    let update = "UPDATE positions p SET next = s.upto
                  FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS s (partition, since, upto)
                  WHERE p.topic = $1 AND p.partition = s.partition AND p.next = s.since";
    let (from, to) = (column(|span| int(span.from)), column(|span| int(span.to)));
    let moved = tx.execute(update, &[&&*batch.topic, &partitions, &from, &to]).await?;
    Ok(moved == batch.spans.len() as u64)
}

async fn insert<'a>(
    tx: &mut Transaction<'_>,
    batch: &Batch,
    entries: Vec<Entry<'a>>,
    dead: &mut Vec<Dead>,
) -> Result<Tally, Error> {
    let topic = &batch.topic;
    let (entries, again) = match Suspects::of(&entries) {
        Some(suspects) => known(tx, &suspects, &entries).await?.part(entries),
        None => (entries, Vec::new()),
    };
    let mut tally = Tally { aliases: alias(tx, &again).await?, ..Tally::default() };
    let all = entries.len();
    // A letter that is tried again says nothing of when its record came.
    let known_for_ms = if batch.spans.is_empty() { AT_MAX_MS } else { KNOWN_FOR_MS };
    let entries = new_ids(tx, entries, known_for_ms).await?;
    tally.duplicates = (all - entries.len()) as u64;
    let mut ranges: Vec<Range<usize>> = Vec::from_iter((!entries.is_empty()).then_some(0..entries.len()));
    while let Some(range) = ranges.pop() {
        let part = &entries[range.clone()];
        match insert_part(tx, part).await? {
            Ok(rows) => {
                tally.rows += rows;
                tally.duplicates += part.len() as u64 - rows;
            }
            Err(reason) if part.len() == 1 => dead.push(Dead::new(topic, part[0].record, reason)),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                ranges.extend([middle..range.end, range.start..middle]);
            }
        }
    }
    Ok(tally)
}

/// Those whose id, if that is how they are known, is neither there nor has an earlier one. Nearly always all.
async fn new_ids<'a>(
    tx: &Transaction<'_>,
    mut entries: Vec<Entry<'a>>,
    known_for_ms: u64,
) -> Result<Vec<Entry<'a>>, Error> {
    let (mut clients, mut ids, mut since, mut until) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in entries.iter().map(|entry| &entry.row) {
        let Some((client, id)) = row.id() else { return Ok(entries) };
        clients.push(client);
        ids.push(id);
        since.push(moment(row.at_ms().saturating_sub(known_for_ms)));
        until.push(moment(row.at_ms() + known_for_ms));
    }
    let Some(table) = entries.first().map(|entry| Table::of(&entry.row)) else { return Ok(entries) };
    // A copy may be in another partition, which somebody else stores at this moment: one after the other.
    let turn = "SELECT pg_advisory_xact_lock(hashtext('roost'), hashtext($1))";
    tx.execute(turn, &[&table.name()]).await?;
    // One look into the index for each, of two or three parts.
    let there = format!(
        "SELECT c.n FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
                         WITH ORDINALITY AS c (client_id, id, since, until, n),
         LATERAL (SELECT FROM {} t WHERE t.client_id = c.client_id AND t.{} = c.id
                  AND t.at BETWEEN c.since AND c.until LIMIT 1) AS known",
        table.name(),
        table.id()
    );
    let rows = tx.query(&there, &[&clients, &ids, &since, &until]).await?;
    let there = rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<i64>, _>>()?;
    let (mut seen, mut n) = (HashSet::new(), 0);
    entries.retain(|entry| {
        n += 1;
        let id = entry.row.id().map(|(client, id)| (client.to_owned(), id.to_owned()));
        !there.contains(&n) && seen.insert(id)
    });
    Ok(entries)
}

/// How many of these rows are new; or why the database does not take one of them.
async fn insert_part(tx: &mut Transaction<'_>, part: &[Entry<'_>]) -> Result<Result<u64, String>, Error> {
    let (table, rows) = (Table::of(&part[0].row), copy::encode(part.iter().map(|entry| &entry.row)));
    match attempt(tx, async |tx| copy_in(tx, table.name(), table, rows.clone()).await).await? {
        Err(e) if e.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
        other => return Ok(other.map_err(|e| reason(&e))),
    }
    let new = attempt(tx, async |tx| {
        let (name, columns) = (table.name(), table.columns());
        let copied = format!("copied_{name}");
        let make = format!(
            "CREATE TEMP TABLE IF NOT EXISTS {copied} (LIKE {name}) ON COMMIT DROP; TRUNCATE {copied}"
        );
        tx.batch_execute(&make).await?;
        copy_in(tx, &copied, table, rows.clone()).await?;
        let new =
            format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM {copied} ON CONFLICT DO NOTHING");
        tx.execute(&new, &[]).await
    });
    Ok(new.await?.map_err(|e| reason(&e)))
}

/// Tries something that rows may be to blame for; the transaction goes on after such an error (the inner one) as if it
/// had not been tried.
async fn attempt(
    tx: &mut Transaction<'_>,
    something: impl AsyncFnOnce(&Transaction<'_>) -> Result<u64, Error>,
) -> Result<Result<u64, Error>, Error> {
    let within = tx.savepoint("attempt").await?;
    match something(&within).await {
        Ok(rows) => {
            within.commit().await?;
            Ok(Ok(rows))
        }
        Err(e) if is_of_a_row(&e) => {
            within.rollback().await?;
            Ok(Err(e))
        }
        Err(e) => Err(e),
    }
}

/// Whether other rows would have been taken: bad data, a broken constraint, too large (PostgreSQL 17 documentation,
/// appendix A, classes 22, 23, 54).
fn is_of_a_row(error: &Error) -> bool {
    let of_data = error.code().is_some_and(|code| ["22", "23", "54"].contains(&&code.code()[..2]));
    of_data && !is_without_a_part(error)
}

fn reason(error: &Error) -> String {
    let text = |e: &tokio_postgres::error::DbError| format!("{}: {}", e.code().code(), e.message());
    error.as_db_error().map_or_else(|| error.to_string(), text)
}

async fn copy_in(tx: &Transaction<'_>, into: &str, table: Table, rows: Bytes) -> Result<u64, Error> {
    let copy = format!("COPY {into} ({}) FROM STDIN (FORMAT binary)", table.columns());
    let mut sink = std::pin::pin!(tx.copy_in::<_, Bytes>(&copy).await?);
    sink.send(rows).await?;
    sink.finish().await
}

/// The older messages of these streams that have the id of one of the entries. Nearly always no stream has any.
async fn known(tx: &Transaction<'_>, suspects: &Suspects, entries: &[Entry<'_>]) -> Result<Known, Error> {
    let mut known = Known::default();
    let streams: Vec<&str> = suspects.streams.iter().map(StreamId::as_str).collect();
    let generations: Vec<i64> = suspects.generations.iter().copied().map(int).collect();
    let since = moment(suspects.since_ms);
    // The last message of an older generation says it: one look into the index, however long the stream is.
    let with_older = "SELECT s.stream FROM unnest($1::text[], $2::bigint[]) AS s (stream, generation),
                      LATERAL (SELECT m.at FROM messages m
                               WHERE m.stream = s.stream COLLATE \"C\" AND m.generation < s.generation
                               ORDER BY m.generation DESC, m.\"offset\" DESC LIMIT 1) AS last
                      WHERE last.at >= $3";
    let rows = tx.query(with_older, &[&streams, &generations, &since]).await?;
    if rows.is_empty() {
        return Ok(known);
    }
    let streams = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    let ids: Vec<&str> = entries
        .iter()
        .filter_map(|entry| match &entry.row {
            Row::Message(row) => Some(row.message.id.as_str()),
            _ => None,
        })
        .collect();
    let older = "SELECT stream, generation, \"offset\", id, kind, sender, data::text, at FROM messages
                 WHERE stream = ANY($1) AND at >= $2 AND id = ANY($3) ORDER BY stream, generation";
    for row in tx.query(older, &[&streams, &since, &ids]).await? {
        let Ok(stream) = StreamId::new(row.try_get::<_, &str>(0)?) else { continue };
        // One that is garbled cannot be the same as any.
        if let Ok(row) = read::message(&stream, &row, 1)? {
            known.note(&row);
        }
    }
    Ok(known)
}

async fn alias(tx: &Transaction<'_>, again: &[(Entry<'_>, Cursor)]) -> Result<u64, Error> {
    let mut new = 0;
    for (entry, first) in again {
        let Row::Message(row) = &entry.row else { continue };
        let insert = "INSERT INTO aliases VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let (stream, place) = (row.message.stream.as_str(), row.message.cursor());
        let (generation, offset) = (int(place.generation.0), int(place.offset.0));
        let (first_generation, first_offset) = (int(first.generation.0), int(first.offset.0));
        let at = moment(row.at_ms);
        new += tx
            .execute(insert, &[&stream, &generation, &offset, &first_generation, &first_offset, &at])
            .await?;
    }
    Ok(new)
}

async fn bury(tx: &Transaction<'_>, dead: &[Dead]) -> Result<(), Error> {
    for Dead { topic, record, reason } in dead {
        // A topic that was made anew has another record at the same place.
        let insert = "INSERT INTO dead_letters (topic, partition, \"offset\", key, payload, reason)
                      SELECT $1::text, $2::int, $3::bigint, $4::bytea, $5::bytea, $6::text
                      WHERE NOT EXISTS (SELECT FROM dead_letters WHERE topic = $1 AND partition = $2
                                        AND \"offset\" = $3 AND payload = $5)";
        let (partition, offset) = (record.position.partition as i32, int(record.position.offset));
        let (key, payload) = (&record.key[..], &record.payload[..]);
        tx.execute(insert, &[&&**topic, &partition, &offset, &key, &payload, reason]).await?;
    }
    Ok(())
}

pub(super) async fn replay(link: &Link, parts: &Parts, id: u64) -> Result<Replayed, ArchiveError> {
    // Its part first: making one needs a transaction of its own.
    let found =
        link.ask(async |client| read::dead_letters(client, Some(id.saturating_add(1)), 1).await).await?;
    if let Some(letter) = found.into_iter().find(|letter| letter.id == id) {
        parts.make(link, &Rows::of(&letter.batch()).entries).await?;
    }
    let mut lease = link.lease().await?;
    let client = lease.client();
    let replayed = timeout(STORE_LIMIT, async {
        let mut tx = client.transaction().await?;
        let Some(letter) = read::locked_dead_letter(&tx, id).await? else { return Ok(Replayed::Missing) };
        let batch = letter.batch();
        let Rows { entries, mut dead, .. } = Rows::of(&batch);
        insert(&mut tx, &batch, entries, &mut dead).await?;
        let replayed = match dead.pop() {
            Some(Dead { reason, .. }) => {
                let update = "UPDATE dead_letters SET reason = $2 WHERE id = $1";
                tx.execute(update, &[&int(id), &reason]).await?;
                Replayed::Refused(reason)
            }
            None => {
                tx.execute("DELETE FROM dead_letters WHERE id = $1", &[&int(id)]).await?;
                Replayed::Stored
            }
        };
        tx.commit().await?;
        Ok(replayed)
    });
    let replayed = ended(replayed.await, parts)?;
    lease.done();
    Ok(replayed)
}
