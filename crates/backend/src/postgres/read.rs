//! What is asked of the tables.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, StreamId};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, GenericClient, Row};

use super::{int, millis, moment, number};
use crate::archive::row::{AT_MAX_MS, AT_MIN_MS, MessageRow, StatusRow, answered, message_row, status_row};
use crate::archive::{Answered, Asked, DeadLetter, Moment, PAGE_BYTES_MAX, Place, RESULTS_SHOWN_MAX};
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

/// A query that ends with the row that passes [`PAGE_BYTES_MAX`]: `size` is what a row counts, `from` has no more than
/// conditions.
fn bounded(columns: &str, size: &str, from: &str, order: &str, limit: &str) -> String {
    format!(
        "SELECT * FROM (SELECT {columns}, sum({size}) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) - {size} AS past
                        FROM {from} ORDER BY {order} LIMIT {limit}) AS page
         WHERE past < {PAGE_BYTES_MAX} ORDER BY {order}"
    )
}

pub(super) async fn messages(
    client: &Client,
    stream: &StreamId,
    place: Place<Cursor>,
    limit: usize,
) -> Result<Vec<Result<MessageRow, String>>, Error> {
    let (beside, order) = words(&place);
    let select = bounded(
        "generation, \"offset\", id, kind, sender, data::text, at",
        "octet_length(data::text)",
        &format!("messages WHERE stream = $1 AND (generation, \"offset\") {beside} ($2, $3)"),
        &format!("generation {order}, \"offset\" {order}"),
        "$4",
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

/// The parameters of [`Asked`]: `$1` to `$7`, with the limit last.
struct Params {
    user: String,
    bounds: [SystemTime; 3],
    numbers: [i64; 3],
}

impl Params {
    fn of(asked: &Asked) -> Self {
        // Nothing else is kept, and the type has its bounds too.
        let bounded = |ms: u64| moment(ms.clamp(AT_MIN_MS, AT_MAX_MS));
        let key = key(&asked.place, Moment { at_ms: AT_MAX_MS, epoch: Epoch(LAST), seq: Seq(LAST) });
        Self {
            user: asked.user.as_str().to_owned(),
            bounds: [asked.from_ms, asked.to_ms, key.at_ms].map(bounded),
            numbers: [int(key.epoch.0), int(key.seq.0), asked.limit as i64],
        }
    }

    fn all(&self) -> [&(dyn ToSql + Sync); 7] {
        let Self { user, bounds: [from, to, at], numbers: [epoch, seq, limit] } = self;
        [user, from, to, at, epoch, seq, limit]
    }
}

/// Of a row that begins with vnode, at, epoch, seq.
fn moment_of(row: &Row) -> Result<(u16, Moment), Error> {
    let vnode = u16::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default();
    let at_ms = millis(row.try_get(1)?);
    let (epoch, seq) = (Epoch(number(row.try_get(2)?)), Seq(number(row.try_get(3)?)));
    Ok((vnode, Moment { at_ms, epoch, seq }))
}

pub(super) async fn changes(client: &Client, asked: &Asked) -> Result<Vec<Result<StatusRow, String>>, Error> {
    let (beside, order) = words(&asked.place);
    let select = format!(
        "SELECT vnode, at, epoch, seq, status, cause, since, last_seen FROM status_changes
         WHERE user_id = $1 AND at BETWEEN $2 AND $3 AND (at, epoch, seq) {beside} ($4, $5, $6)
         ORDER BY at {order}, epoch {order}, seq {order} LIMIT $7"
    );
    let rows = page(client, &select, &Params::of(asked).all(), &asked.place).await?;
    let change = |row: &Row| {
        let (vnode, moment) = moment_of(row)?;
        let words = [row.try_get(4)?, row.try_get(5)?];
        let last_seen = row.try_get::<_, Option<SystemTime>>(7)?.map(millis);
        Ok(status_row(&asked.user, vnode, moment, words, millis(row.try_get(6)?), last_seen))
    };
    rows.iter().map(change).collect()
}

pub(super) async fn events(
    client: &Client,
    asked: &Asked,
) -> Result<Vec<Result<(Moment, Answered), String>>, Error> {
    let (beside, order) = words(&asked.place);
    let results = format!(
        "SELECT coalesce(array_agg(record ORDER BY at, result_id), '{{}}') AS results FROM (
             SELECT at, result_id, record::text AS record FROM client_results r
             WHERE r.client_id = e.client_id AND r.event_id = e.event_id
             ORDER BY at, result_id LIMIT {RESULTS_SHOWN_MAX}) AS first"
    );
    let select = bounded(
        "vnode, at, epoch, seq, event_id, data::text, results",
        "(octet_length(data::text) + octet_length(array_to_string(results, '')))",
        &format!(
            "client_events e, LATERAL ({results}) AS said
             WHERE client_id = $1 AND at BETWEEN $2 AND $3 AND (at, epoch, seq) {beside} ($4, $5, $6)"
        ),
        &format!("at {order}, epoch {order}, seq {order}"),
        "$7",
    );
    let rows = page(client, &select, &Params::of(asked).all(), &asked.place).await?;
    let event = |row: &Row| {
        let (vnode, moment) = moment_of(row)?;
        let texts = [row.try_get(4)?, row.try_get(5)?];
        Ok(answered(&asked.user, vnode, moment, texts, row.try_get(6)?).map(|event| (moment, event)))
    };
    rows.iter().map(event).collect()
}

const DEAD_LETTER: &str = "id, topic, partition, \"offset\", key, payload, reason, at";

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
    let size = "(octet_length(key) + octet_length(payload))";
    let select = bounded(DEAD_LETTER, size, "dead_letters WHERE id < $1", "id DESC", "$2");
    let rows = client.query(&select, &[&int(before.unwrap_or(LAST)), &(limit as i64)]).await?;
    rows.iter().map(dead_letter).collect()
}

/// Nobody else touches it before the transaction ends.
pub(super) async fn locked_dead_letter(
    client: &impl GenericClient,
    id: u64,
) -> Result<Option<DeadLetter>, Error> {
    let select = format!("SELECT {DEAD_LETTER} FROM dead_letters WHERE id = $1 FOR UPDATE");
    client.query_opt(&select, &[&int(id)]).await?.as_ref().map(dead_letter).transpose()
}
