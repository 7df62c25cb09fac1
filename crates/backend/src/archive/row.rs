//! Records as rows: what is read out of them, and why some cannot be read.

use roost_proto::events::{
    CANARY_KIND, CHAT_EVENTS, Message, StatusEvent, USER_STATUS_EVENTS, message_bytes, message_rest,
};
use roost_proto::ids::{Cursor, UserId};
use roost_proto::time::{parse_rfc3339, rfc3339};

use super::{Batch, Change};
use crate::log::LogRecord;

/// What is archived happened between 2020 and 2100, in milliseconds since 1970: a broken record must not make a part of
/// the database for the year 9999.
pub const AT_MIN_MS: u64 = 1_577_836_800_000;
pub const AT_MAX_MS: u64 = 4_102_444_800_000;

/// What a record is in the tables.
#[derive(Debug, Clone)]
pub(crate) enum Row {
    Message(MessageRow),
    Status(StatusRow),
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

/// A row, and the record that it came from.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub record: &'a LogRecord,
    pub row: Row,
}

/// A record that will be a dead letter.
#[derive(Debug, Clone)]
pub(crate) struct Dead<'a> {
    pub record: &'a LogRecord,
    pub reason: String,
}

/// A batch, read.
#[derive(Debug, Default)]
pub(crate) struct Rows<'a> {
    pub entries: Vec<Entry<'a>>,
    pub dead: Vec<Dead<'a>>,
    pub skipped: u64,
}

impl<'a> Rows<'a> {
    pub(crate) fn of(batch: &'a Batch) -> Self {
        let mut rows = Self::default();
        for record in &batch.records {
            match row(&batch.topic, record) {
                Ok(Some(row)) => rows.entries.push(Entry { record, row }),
                Ok(None) => rows.skipped += 1,
                Err(reason) => rows.dead.push(Dead { record, reason }),
            }
        }
        rows
    }
}

/// Of what a parser says.
const REASON_CHARS_MAX: usize = 500;

/// Reads one record; nothing for one that is not to be kept.
pub(crate) fn row(topic: &str, record: &LogRecord) -> Result<Option<Row>, String> {
    match topic {
        CHAT_EVENTS => {
            let message: Message = parse(record)?;
            if message.kind == CANARY_KIND {
                return Ok(None);
            }
            let Cursor { generation, offset } = message.cursor();
            numbers([("generation", generation.0), ("offset", offset.0)])?;
            texts([("kind", &message.kind), ("from", &message.from)])?;
            Ok(Some(Row::Message(MessageRow { at_ms: time("at", &message.at)?, message })))
        }
        USER_STATUS_EVENTS => {
            let event: StatusEvent = parse(record)?;
            numbers([("epoch", event.epoch.0), ("seq", event.seq.0)])?;
            let last_seen_ms = event.last_seen.as_deref().map(|text| time("last_seen", text)).transpose()?;
            let (at_ms, since_ms) = (time("at", &event.at)?, time("since", &event.since)?);
            Ok(Some(Row::Status(StatusRow { at_ms, since_ms, last_seen_ms, event })))
        }
        other => Err(format!("the topic {other} is not archived")),
    }
}

fn parse<T: serde::de::DeserializeOwned>(record: &LogRecord) -> Result<T, String> {
    serde_json::from_slice(&record.payload).map_err(|e| {
        // It quotes the record, which may be long and have a NUL, which PostgreSQL's text has not.
        let why: String = e.to_string().chars().take(REASON_CHARS_MAX).collect();
        format!("not a record of this topic: {}", why.replace('\0', "\\0"))
    })
}

/// Databases count to 2^63.
fn numbers(named: [(&str, u64); 2]) -> Result<(), String> {
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
            Self::Message(row) => row.at_ms,
            Self::Status(row) => row.at_ms,
        }
    }
}

impl MessageRow {
    /// As readers were sent it.
    pub(crate) fn frame(&self) -> bytes::Bytes {
        let Message { stream, id, kind, from, data, .. } = &self.message;
        message_bytes(stream, self.message.cursor(), &message_rest(id, kind, from, self.at_ms, data))
    }
}

impl StatusRow {
    pub(crate) fn change(&self) -> Change {
        Change { at_ms: self.at_ms, epoch: self.event.epoch, seq: self.event.seq }
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
    let data = serde_json::value::RawValue::from_string(data).map_err(|_| garbled("data"))?;
    let Cursor { generation, offset } = cursor;
    let message =
        Message { stream: stream.clone(), generation, offset, id, kind, from, at: rfc3339(at_ms), data };
    Ok(MessageRow { message, at_ms })
}

/// Puts a change of a status together as a table has it.
pub(crate) fn status_row(
    user: &UserId,
    vnode: u16,
    change: Change,
    [status, cause]: [String; 2],
    since_ms: u64,
    last_seen_ms: Option<u64>,
) -> Result<StatusRow, String> {
    let event = StatusEvent {
        vnode: roost_proto::VnodeId(vnode),
        epoch: change.epoch,
        seq: change.seq,
        user: user.clone(),
        status: word(status)?,
        cause: word(cause)?,
        at: rfc3339(change.at_ms),
        since: rfc3339(since_ms),
        last_seen: last_seen_ms.map(rfc3339),
    };
    Ok(StatusRow { event, at_ms: change.at_ms, since_ms, last_seen_ms })
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
    use bytes::Bytes;

    use super::*;
    use crate::log::Position;

    fn record(payload: &str) -> LogRecord {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        LogRecord { position: Position { partition: 0, offset: 0 }, key: Bytes::new(), payload }
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
