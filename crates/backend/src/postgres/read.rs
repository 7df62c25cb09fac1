//! What is asked of the tables.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, StreamId};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, GenericClient, Row};

use super::{int, millis, moment, number};
use crate::archive::row::{AT_MAX_MS, AT_MIN_MS, MessageRow, StatusRow, message_row, status_row};
use crate::archive::{Change, Changes, DeadLetter, Place};
use crate::log::Position;

/// Larger than every number that is kept.
const LAST: u64 = i64::MAX as u64;

pub(super) async fn positions(client: &Client, topic: &str) -> Result<BTreeMap<u32, u64>, Error> {
    let select = "SELECT partition, next FROM positions WHERE topic = $1";
    let rows = client.query(select, &[&topic]).await?;
    let position = |row: &Row| Ok((row.try_get::<_, i32>(0)?.unsigned_abs(), number(row.try_get(1)?)));
    rows.iter().map(position).collect()
}

/// How a query says which side of a key it wants, nearest first.
fn words<K>(place: &Place<K>) -> (&'static str, &'static str) {
    match place {
        Place::Newest | Place::Before(_) => ("<", "DESC"),
        Place::After(_) => (">", "ASC"),
    }
}

/// The key to look beside, where `last` is larger than every key.
fn key<K: Copy>(place: &Place<K>, last: K) -> K {
    match place {
        Place::Newest => last,
        Place::Before(key) | Place::After(key) => *key,
    }
}

/// Turned so that the newest comes first.
async fn page<K>(
    client: &Client,
    select: &str,
    params: &[&(dyn ToSql + Sync)],
    place: &Place<K>,
) -> Result<Vec<Row>, Error> {
    let mut rows = client.query(select, params).await?;
    if matches!(place, Place::After(_)) {
        rows.reverse();
    }
    Ok(rows)
}

pub(super) async fn messages(
    client: &Client,
    stream: &StreamId,
    place: Place<Cursor>,
    limit: usize,
) -> Result<Vec<Result<MessageRow, String>>, Error> {
    let (beside, order) = words(&place);
    let select = format!(
        "SELECT generation, \"offset\", id, kind, sender, data::text, at FROM messages
         WHERE stream = $1 AND (generation, \"offset\") {beside} ($2, $3)
         ORDER BY generation {order}, \"offset\" {order} LIMIT $4"
    );
    let Cursor { generation, offset } = key(&place, Cursor::new(Epoch(LAST), Offset(LAST)));
    let params: [&(dyn ToSql + Sync); 4] =
        [&stream.as_str(), &int(generation.0), &int(offset.0), &(limit as i64)];
    let rows = page(client, &select, &params, &place).await?;
    rows.iter().map(|row| message(stream, row, 0)).collect()
}

/// A message whose columns begin at `at`: generation, offset, id, kind, sender, data, at.
pub(super) fn message(stream: &StreamId, row: &Row, at: usize) -> Result<Result<MessageRow, String>, Error> {
    let cursor = Cursor::new(Epoch(number(row.try_get(at)?)), Offset(number(row.try_get(at + 1)?)));
    let texts = [row.try_get(at + 2)?, row.try_get(at + 3)?, row.try_get(at + 4)?, row.try_get(at + 5)?];
    Ok(message_row(stream, cursor, texts, millis(row.try_get(at + 6)?)))
}

pub(super) async fn changes(
    client: &Client,
    asked: &Changes,
) -> Result<Vec<Result<StatusRow, String>>, Error> {
    let (beside, order) = words(&asked.place);
    let select = format!(
        "SELECT vnode, at, epoch, seq, status, cause, since, last_seen FROM status_changes
         WHERE user_id = $1 AND at BETWEEN $2 AND $3 AND (at, epoch, seq) {beside} ($4, $5, $6)
         ORDER BY at {order}, epoch {order}, seq {order} LIMIT $7"
    );
    // Nothing else is kept, and the type has its bounds too.
    let bounded = |ms: u64| moment(ms.clamp(AT_MIN_MS, AT_MAX_MS));
    let key = key(&asked.place, Change { at_ms: AT_MAX_MS, epoch: Epoch(LAST), seq: Seq(LAST) });
    let params: [&(dyn ToSql + Sync); 7] = [
        &asked.user.as_str(),
        &bounded(asked.from_ms),
        &bounded(asked.to_ms),
        &bounded(key.at_ms),
        &int(key.epoch.0),
        &int(key.seq.0),
        &(asked.limit as i64),
    ];
    let rows = page(client, &select, &params, &asked.place).await?;
    let change = |row: &Row| {
        let change = Change {
            at_ms: millis(row.try_get(1)?),
            epoch: Epoch(number(row.try_get(2)?)),
            seq: Seq(number(row.try_get(3)?)),
        };
        let vnode = u16::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default();
        let last_seen = row.try_get::<_, Option<SystemTime>>(7)?.map(millis);
        let words = [row.try_get(4)?, row.try_get(5)?];
        Ok(status_row(&asked.user, vnode, change, words, millis(row.try_get(6)?), last_seen))
    };
    rows.iter().map(change).collect()
}

const DEAD_LETTER: &str =
    "SELECT id, topic, partition, \"offset\", key, payload, reason, at FROM dead_letters";

fn dead_letter(row: &Row) -> Result<DeadLetter, Error> {
    let partition = row.try_get::<_, i32>(2)?.unsigned_abs();
    Ok(DeadLetter {
        id: number(row.try_get(0)?),
        topic: row.try_get(1)?,
        position: Position { partition, offset: number(row.try_get(3)?) },
        key: Bytes::from(row.try_get::<_, Vec<u8>>(4)?),
        payload: Bytes::from(row.try_get::<_, Vec<u8>>(5)?),
        reason: row.try_get(6)?,
        at_ms: millis(row.try_get(7)?),
    })
}

pub(super) async fn dead_letters(
    client: &Client,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<DeadLetter>, Error> {
    let select = format!("{DEAD_LETTER} WHERE id < $1 ORDER BY id DESC LIMIT $2");
    let rows = client.query(&select, &[&int(before.unwrap_or(LAST)), &(limit as i64)]).await?;
    rows.iter().map(dead_letter).collect()
}

/// Nobody else touches it before the transaction ends.
pub(super) async fn locked_dead_letter(
    client: &impl GenericClient,
    id: u64,
) -> Result<Option<DeadLetter>, Error> {
    let select = format!("{DEAD_LETTER} WHERE id = $1 FOR UPDATE");
    client.query_opt(&select, &[&int(id)]).await?.as_ref().map(dead_letter).transpose()
}
