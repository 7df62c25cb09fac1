//! What is asked of the tables.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, StreamId};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, GenericClient, Portal, Row, Transaction};

use super::{int, millis, moment, number};
use crate::archive::fill::Fill;
use crate::archive::row::{AT_MAX_MS, AT_MIN_MS, MessageRow, StatusRow, answered, message_row, status_row};
use crate::archive::{
    Answered, ArchivePosition, Asked, DeadLetter, Moment, PAGE_BYTES_MAX, RESULTS_SHOWN_MAX,
};
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
fn words<K>(place: &ArchivePosition<K>) -> (&'static str, &'static str) {
    match place {
        ArchivePosition::Newest | ArchivePosition::Before(_) => ("<", "DESC"),
        ArchivePosition::After(_) => (">", "ASC"),
    }
}

/// The key to look beside, where `last` is larger than every key.
fn key<K: Copy>(place: &ArchivePosition<K>, last: K) -> K {
    match place {
        ArchivePosition::Newest => last,
        ArchivePosition::Before(key) | ArchivePosition::After(key) => *key,
    }
}

/// The rows of a query, in pieces: the database makes a row when it is asked for it. So nothing in a query of pages reads
/// the large values of all rows: neither a sum over `json`, whose length is not known before it is read, nor a sort of
/// texts. Within, rows are sorted, with values that stay where they are; without, they become texts one by one.
struct Pieces<'a> {
    tx: &'a Transaction<'a>,
    portal: Portal,
    ended: bool,
}

impl<'a> Pieces<'a> {
    async fn of(
        tx: &'a Transaction<'a>,
        select: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Self, Error> {
        let statement = tx.prepare(select).await?;
        let portal = tx.bind(&statement, params).await?;
        Ok(Self { tx, portal, ended: false })
    }

    async fn next(&mut self, rows_max: usize) -> Result<Vec<Row>, Error> {
        let rows_max = i32::try_from(rows_max).unwrap_or(i32::MAX);
        let rows = self.tx.query_portal(&self.portal, rows_max).await?;
        self.ended = rows.len() < rows_max.unsigned_abs() as usize;
        Ok(rows)
    }
}

/// Reads no further than a page goes; nearest first.
async fn page<T>(
    tx: &Transaction<'_>,
    select: &str,
    params: &[&(dyn ToSql + Sync)],
    limit: usize,
    read: impl Fn(&Row) -> Result<Result<T, String>, Error>,
    size: impl Fn(&T) -> usize,
) -> Result<Vec<Result<T, String>>, Error> {
    let mut pieces = Pieces::of(tx, select, params).await?;
    let (mut fill, mut page) = (Fill::default(), Vec::new());
    while !pieces.ended && !fill.is_full() && page.len() < limit {
        for row in pieces.next(fill.piece(limit - page.len())).await? {
            if fill.is_full() {
                break;
            }
            let row = read(&row)?;
            // What cannot be shown has no size.
            fill.add(row.as_ref().map_or(0, &size));
            page.push(row);
        }
    }
    Ok(page)
}

/// Turned so that the newest comes first.
fn newest_first<T, K>(mut page: Vec<T>, place: &ArchivePosition<K>) -> Vec<T> {
    if matches!(place, ArchivePosition::After(_)) {
        page.reverse();
    }
    page
}

pub(super) async fn messages(
    tx: &Transaction<'_>,
    stream: &StreamId,
    place: ArchivePosition<Cursor>,
    limit: usize,
) -> Result<Vec<Result<(Cursor, Bytes), String>>, Error> {
    let (beside, order) = words(&place);
    let select = format!(
        "SELECT generation, \"offset\", id, kind, sender, data::text, at FROM (
             SELECT generation, \"offset\", id, kind, sender, data, at FROM messages
             WHERE stream = $1 AND (generation, \"offset\") {beside} ($2, $3)
             ORDER BY generation {order}, \"offset\" {order} LIMIT $4) AS page
         ORDER BY generation {order}, \"offset\" {order}"
    );
    let Cursor { generation, offset } = key(&place, Cursor::new(Epoch(LAST), Offset(LAST)));
    let params: [&(dyn ToSql + Sync); 4] =
        [&stream.as_str(), &int(generation.0), &int(offset.0), &(limit as i64)];
    let frame = |row: &Row| {
        let message = message(stream, row, 0)?;
        Ok(message.map(|row| (row.message.cursor(), row.frame())))
    };
    let found = page(tx, &select, &params, limit, frame, |(_, frame)| frame.len()).await?;
    Ok(newest_first(found, &place))
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

pub(super) async fn changes(
    tx: &Transaction<'_>,
    asked: &Asked,
) -> Result<Vec<Result<StatusRow, String>>, Error> {
    let (beside, order) = words(&asked.place);
    let select = format!(
        "SELECT vnode, at, epoch, seq, status, cause, since, last_seen FROM status_changes
         WHERE user_id = $1 AND at BETWEEN $2 AND $3 AND (at, epoch, seq) {beside} ($4, $5, $6)
         ORDER BY at {order}, epoch {order}, seq {order} LIMIT $7"
    );
    let change = |row: &Row| {
        let (vnode, moment) = moment_of(row)?;
        let words = [row.try_get(4)?, row.try_get(5)?];
        let last_seen = row.try_get::<_, Option<SystemTime>>(7)?.map(millis);
        Ok(status_row(&asked.user, vnode, moment, words, millis(row.try_get(6)?), last_seen))
    };
    let rows = tx.query(&select, &Params::of(asked).all()).await?;
    Ok(newest_first(rows.iter().map(change).collect::<Result<_, _>>()?, &asked.place))
}

/// An event as the table has it.
struct Sent {
    vnode: u16,
    moment: Moment,
    id: String,
    data: String,
}

pub(super) async fn events(
    tx: &Transaction<'_>,
    asked: &Asked,
) -> Result<Vec<Result<(Moment, Answered), String>>, Error> {
    let (beside, order) = words(&asked.place);
    let select = format!(
        "SELECT vnode, at, epoch, seq, event_id, data::text FROM (
             SELECT vnode, at, epoch, seq, event_id, data FROM client_events
             WHERE client_id = $1 AND at BETWEEN $2 AND $3 AND (at, epoch, seq) {beside} ($4, $5, $6)
             ORDER BY at {order}, epoch {order}, seq {order} LIMIT $7) AS page
         ORDER BY at {order}, epoch {order}, seq {order}"
    );
    let sent = |row: &Row| {
        let (vnode, moment) = moment_of(row)?;
        Ok(Ok(Sent { vnode, moment, id: row.try_get(4)?, data: row.try_get(5)? }))
    };
    let params = Params::of(asked);
    let sent = page(tx, &select, &params.all(), asked.limit, sent, |sent: &Sent| sent.data.len()).await?;
    let sent: Vec<Sent> = sent.into_iter().filter_map(Result::ok).collect();
    let results = results(tx, asked.user.as_str(), &sent).await?;
    let event = |(Sent { vnode, moment, id, data }, results)| {
        answered(&asked.user, vnode, moment, [id, data], results).map(|event| (moment, event))
    };
    Ok(newest_first(sent.into_iter().zip(results).map(event).collect(), &asked.place))
}

/// The results of each of these events, or of the first of them, if those are a page with their results.
async fn results(tx: &Transaction<'_>, client: &str, sent: &[Sent]) -> Result<Vec<Vec<String>>, Error> {
    // In the order of the ids, of which the numbers are known to be sorted; within one event in that of its index.
    let select = format!(
        "SELECT e.n, r.record::text FROM unnest($2::text[]) WITH ORDINALITY AS e (id, n),
         LATERAL (SELECT record FROM client_results
                  WHERE client_id = $1 AND event_id = e.id COLLATE \"C\"
                  ORDER BY at, result_id LIMIT {RESULTS_SHOWN_MAX}) AS r
         ORDER BY e.n"
    );
    let ids: Vec<&str> = sent.iter().map(|sent| sent.id.as_str()).collect();
    let mut pieces = Pieces::of(tx, &select, &[&client, &ids]).await?;
    let (mut fill, mut read, mut all) = (Fill::default(), Fill::default(), vec![Vec::new(); sent.len()]);
    let mut whole = 0;
    while !pieces.ended && !fill.is_full() {
        for row in pieces.next(read.piece(usize::MAX).max(RESULTS_SHOWN_MAX)).await? {
            let (n, record): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            let event = usize::try_from(n - 1).unwrap_or_default();
            // The next one's begin, so there are no more of those before.
            while whole < event && !fill.is_full() {
                fill.add(size(&sent[whole], &all[whole]));
                whole += 1;
            }
            read.add(record.len());
            all[event].push(record);
        }
    }
    if pieces.ended {
        while whole < sent.len() && !fill.is_full() {
            fill.add(size(&sent[whole], &all[whole]));
            whole += 1;
        }
    }
    all.truncate(whole);
    Ok(all)
}

fn size(sent: &Sent, results: &[String]) -> usize {
    sent.data.len() + results.iter().map(String::len).sum::<usize>()
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
    client: &impl GenericClient,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<DeadLetter>, Error> {
    // The length of a `bytea` is known without reading it (PostgreSQL's textoctetlen and byteaoctetlen), so the database
    // can cut the page itself, as `Fill` would.
    let select = format!(
        "SELECT {DEAD_LETTER} FROM (
             SELECT {DEAD_LETTER}, row_number() OVER page AS entry,
                    sum(octet_length(key) + octet_length(payload)) OVER page
                        - octet_length(key) - octet_length(payload) AS past
             FROM dead_letters WHERE id < $1
             WINDOW page AS (ORDER BY id DESC ROWS UNBOUNDED PRECEDING)
             ORDER BY id DESC LIMIT $2) AS page
         WHERE entry <= 2 OR past <= {PAGE_BYTES_MAX} ORDER BY id DESC"
    );
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
