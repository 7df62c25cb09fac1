//! Records as rows: what is read out of them, and why some cannot be read.

use std::sync::Arc;

use bytes::Bytes;
use roost_proto::Json;
use roost_proto::events::{
    CANARY_KIND, CHAT_EVENTS, CLIENT_EVENTS, ClientEvent, Message, StatusEvent, UNDELIVERED_EVENTS,
    USER_STATUS_EVENTS, message_bytes, message_rest,
};
use roost_proto::ids::{Cursor, UserId};
use roost_proto::results::{CLIENT_RESULTS, ClientResult, DEAD_LETTERS, Refused};
use roost_proto::time::{parse_rfc3339, rfc3339};
use serde_json::value::RawValue;

use super::{Answered, Batch, Moment};
use crate::log::{LogRecord, Position};

/// What is archived happened between 2020 and 2100, in milliseconds since 1970: a broken record must not make a part of
/// the database for the year 9999.
pub const AT_MIN_MS: u64 = 1_577_836_800_000;
/// See [`AT_MIN_MS`].
pub const AT_MAX_MS: u64 = 4_102_444_800_000;

/// What a record is in the tables.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    Message(MessageRow),
    Undelivered(MessageRow),
    Status(StatusRow),
    Event(EventRow),
    Result(ResultRow),
}

#[derive(Debug, Clone)]
pub(crate) struct MessageRow {
    pub message: Message,
    pub at_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct StatusRow {
    pub event: StatusEvent,
    pub at_ms: u64,
    pub since_ms: u64,
    pub last_seen_ms: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub event: ClientEvent,
    pub at_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct ResultRow {
    pub result: ClientResult,
    /// When it came into the log.
    pub at_ms: u64,
}

/// A row, and the record that it came from.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub record: &'a LogRecord,
    pub row: Row,
}

/// A record that will be a dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub topic: Arc<str>,
    pub record: LogRecord,
    pub reason: String,
}

impl Dead {
    pub(crate) fn new(topic: &Arc<str>, record: &LogRecord, reason: String) -> Self {
        Self { topic: Arc::clone(topic), record: record.clone(), reason }
    }
}

/// A batch, read.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a> {
    pub entries: Vec<Entry<'a>>,
    pub dead: Vec<Dead>,
    pub skipped: u64,
}

impl<'a> Rows<'a> {
    pub(crate) fn of(batch: &'a Batch) -> Self {
        let mut rows = Self::default();
        let dead = |record, reason| Dead::new(&batch.topic, record, reason);
        for record in &batch.records {
            if &*batch.topic == DEAD_LETTERS {
                rows.dead.push(refused(record).unwrap_or_else(|reason| dead(record, reason)));
                continue;
            }
            match row(&batch.topic, record) {
                Ok(Some(row)) => rows.entries.push(Entry { record, row }),
                Ok(None) => rows.skipped += 1,
                Err(reason) => rows.dead.push(dead(record, reason)),
            }
        }
        rows
    }
}

/// Kafka's bound on the names of topics; an index holds them.
const TOPIC_BYTES_MAX: usize = 249;
/// Of what a parser says.
const REASON_CHARS_MAX: usize = 500;

/// Reads one record; nothing for one that is not to be kept.
pub(crate) fn row(topic: &str, record: &LogRecord) -> Result<Option<Row>, String> {
    match topic {
        CHAT_EVENTS => Ok(message(record)?.map(Row::Message)),
        UNDELIVERED_EVENTS => Ok(message(record)?.map(Row::Undelivered)),
        USER_STATUS_EVENTS => {
            let event: StatusEvent = parse(record)?;
            numbers([("epoch", event.epoch.0), ("seq", event.seq.0)])?;
            let last_seen_ms = event.last_seen.as_deref().map(|text| time("last_seen", text)).transpose()?;
            let (at_ms, since_ms) = (time("at", &event.at)?, time("since", &event.since)?);
            Ok(Some(Row::Status(StatusRow { at_ms, since_ms, last_seen_ms, event })))
        }
        CLIENT_EVENTS => {
            let event: ClientEvent = parse(record)?;
            numbers([("epoch", event.epoch.0), ("seq", event.seq.0)])?;
            Ok(Some(Row::Event(EventRow { at_ms: time("created_at", &event.created_at)?, event })))
        }
        CLIENT_RESULTS => {
            let result = ClientResult::parse(&record.payload)?;
            let at_ms = time("the time in the log", &rfc3339(record.at_ms))?;
            Ok(Some(Row::Result(ResultRow { result, at_ms })))
        }
        other => Err(format!("the topic {other} is not archived")),
    }
}

fn message(record: &LogRecord) -> Result<Option<MessageRow>, String> {
    let message: Message = parse(record)?;
    if message.kind == CANARY_KIND {
        return Ok(None);
    }
    let Cursor { generation, offset } = message.cursor();
    numbers([("generation", generation.0), ("offset", offset.0)])?;
    texts([("kind", &message.kind), ("from", &message.from)])?;
    Ok(Some(MessageRow { at_ms: time("at", &message.at)?, message }))
}

/// The letter that a record of [`DEAD_LETTERS`] asks for.
fn refused(record: &LogRecord) -> Result<Dead, String> {
    let Refused { topic, partition, offset, key, payload, reason } = parse(record)?;
    // Databases count to 2^31 there.
    if i32::try_from(partition).is_err() {
        return Err(format!("'partition' is too large: {partition}"));
    }
    numbers([("offset", offset)])?;
    texts([("topic", &topic), ("reason", &reason)])?;
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(format!("'topic' is too long: {} bytes", topic.len()));
    }
    let reason = reason.chars().take(REASON_CHARS_MAX).collect();
    let (key, payload) = (Bytes::from(key), Bytes::from(payload));
    let record = LogRecord { position: Position { partition, offset }, at_ms: record.at_ms, key, payload };
    Ok(Dead { topic: topic.into(), record, reason })
}

fn parse<T: serde::de::DeserializeOwned>(record: &LogRecord) -> Result<T, String> {
    serde_json::from_slice(&record.payload).map_err(|e| {
        // It quotes the record, which may be long and have a NUL, which PostgreSQL's text has not.
        let why: String = e.to_string().chars().take(REASON_CHARS_MAX).collect();
        format!("not a record of this topic: {}", why.replace('\0', "\\0"))
    })
}

/// Databases count to 2^63.
fn numbers<const N: usize>(named: [(&str, u64); N]) -> Result<(), String> {
    let large = named.iter().find(|(_, number)| i64::try_from(*number).is_err());
    large.map_or(Ok(()), |(name, number)| Err(format!("'{name}' is too large: {number}")))
}

/// PostgreSQL's text has no NUL. The ids have none either, and in `data` it is escaped.
fn texts(named: [(&str, &str); 2]) -> Result<(), String> {
    let with_nul = named.iter().find(|(_, text)| text.contains('\0'));
    with_nul.map_or(Ok(()), |(name, _)| Err(format!("'{name}' has a NUL in it")))
}

fn time(name: &str, text: &str) -> Result<u64, String> {
    let ms = parse_rfc3339(text).ok_or_else(|| format!("'{name}' is not a time: {text:?}"))?;
    let kept = (AT_MIN_MS..=AT_MAX_MS).contains(&ms);
    kept.then_some(ms).ok_or_else(|| format!("'{name}' is not between 2020 and 2100: {text}"))
}

impl Row {
    /// When it happened.
    pub(crate) fn at_ms(&self) -> u64 {
        match self {
            Self::Message(row) | Self::Undelivered(row) => row.at_ms,
            Self::Status(row) => row.at_ms,
            Self::Event(row) => row.at_ms,
            Self::Result(row) => row.at_ms,
        }
    }

    /// Whose it is, and the id by which a copy of it is known, if it is known by that and not by its numbers.
    pub(crate) fn id(&self) -> Option<(&str, &str)> {
        match self {
            Self::Event(EventRow { event, .. }) => Some((event.client_id.as_str(), event.event_id.as_str())),
            Self::Result(ResultRow { result, .. }) => {
                Some((result.client_id.as_str(), result.result_id.as_str()))
            }
            Self::Message(_) | Self::Undelivered(_) | Self::Status(_) => None,
        }
    }
}

impl MessageRow {
    /// As readers were sent it.
    pub(crate) fn frame(&self) -> Bytes {
        let Message { stream, id, kind, from, data, .. } = &self.message;
        message_bytes(stream, self.message.cursor(), &message_rest(id, kind, from, self.at_ms, data))
    }
}

impl StatusRow {
    pub(crate) fn moment(&self) -> Moment {
        Moment { at_ms: self.at_ms, epoch: self.event.epoch, seq: self.event.seq }
    }
}

/// A column of a database that is not what was put there.
pub(crate) fn garbled(what: &str) -> String {
    format!("a row of the archive is garbled: {what}")
}

/// Puts a message together as a table has it.
pub(crate) fn message_row(
    stream: &roost_proto::StreamId,
    cursor: Cursor,
    [id, kind, from, data]: [String; 4],
    at_ms: u64,
) -> Result<MessageRow, String> {
    let id = id.parse().map_err(|_| garbled("id"))?;
    let data = RawValue::from_string(data).map_err(|_| garbled("data"))?;
    let Cursor { generation, offset } = cursor;
    let message =
        Message { stream: stream.clone(), generation, offset, id, kind, from, at: rfc3339(at_ms), data };
    Ok(MessageRow { message, at_ms })
}

/// Puts a change of a status together as a table has it.
pub(crate) fn status_row(
    user: &UserId,
    vnode: u16,
    moment: Moment,
    [status, cause]: [String; 2],
    since_ms: u64,
    last_seen_ms: Option<u64>,
) -> Result<StatusRow, String> {
    let event = StatusEvent {
        vnode: roost_proto::VnodeId(vnode),
        epoch: moment.epoch,
        seq: moment.seq,
        user: user.clone(),
        status: word(status)?,
        cause: word(cause)?,
        at: rfc3339(moment.at_ms),
        since: rfc3339(since_ms),
        last_seen: last_seen_ms.map(rfc3339),
    };
    Ok(StatusRow { event, at_ms: moment.at_ms, since_ms, last_seen_ms })
}

/// Puts a client's event together as a table has it, with the records of its results.
pub(crate) fn answered(
    client: &UserId,
    vnode: u16,
    moment: Moment,
    [id, data]: [String; 2],
    results: Vec<String>,
) -> Result<Answered, String> {
    let json = |text| RawValue::from_string(text).map_err(|_| garbled("data"));
    let event = ClientEvent {
        vnode: roost_proto::VnodeId(vnode),
        epoch: moment.epoch,
        seq: moment.seq,
        client_id: client.clone(),
        event_id: id.parse().map_err(|_| garbled("id"))?,
        created_at: rfc3339(moment.at_ms),
        data: json(data)?,
    };
    let results = results.into_iter().map(|text| json(text).map(Json::from)).collect::<Result<_, _>>()?;
    Ok(Answered { event, results })
}

/// A status or a cause by its name on the wire.
fn word<T: serde::de::DeserializeOwned>(name: String) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(name)).map_err(|_| garbled("a word"))
}

/// The name of a status or a cause on the wire.
pub(crate) fn name_of(word: &impl serde::Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("these are written as words, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &str) -> LogRecord {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        LogRecord {
            position: Position { partition: 0, offset: 0 },
            at_ms: AT_MIN_MS,
            key: Bytes::new(),
            payload,
        }
    }

    fn message(from: &str, at: &str, generation: &str) -> LogRecord {
        record(&format!(
            "{{\"type\":\"message\",\"stream\":\"user:bob\",\"generation\":{generation},\"offset\":2,\"id\":\"m-1\",\
             \"kind\":\"message\",\"from\":\"{from}\",\"at\":\"{at}\",\"data\":{{\"a\": [1]}}}}"
        ))
    }

    const AT: &str = "2026-11-21T06:40:00.123Z";

    #[test]
    fn a_message_is_shown_as_it_came() {
        let record = message("al\\\"ice", AT, "7");
        let Ok(Some(Row::Message(row))) = row(CHAT_EVENTS, &record) else { panic!("a message") };
        assert_eq!(row.frame(), record.payload);
    }

    #[test]
    fn what_cannot_be_kept_says_why() {
        for (record, why) in [
            (record("{"), "not a record"),
            (record("\u{0}"), "not a record"),
            (message("a\\u0000b", AT, "7"), "'from' has a NUL"),
            (message("a", "yesterday", "7"), "'at' is not a time"),
            (message("a", "9999-11-21T06:40:00.123Z", "7"), "'at' is not between"),
            (message("a", AT, "9223372036854775808"), "'generation' is too large"),
        ] {
            let reason = row(CHAT_EVENTS, &record).expect_err(why);
            assert!(reason.starts_with(why), "{reason}");
        }
        assert!(row("elsewhere", &message("a", AT, "7")).is_err());
    }
}
