//! The records for consumers of Kafka: `chat_events`, `user_status_events`, `client_events` and `undelivered_events`.
//!
//! A message has one encoding from the store to the reader's socket: the `message` frame. The store puts
//! generation and offset between a prefix and a rest made here, so nobody decodes or encodes it on the way.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{Cursor, Epoch, MessageId, Offset, Seq, StreamId, UserId, VnodeId};
use crate::time::rfc3339;

/// Topic names.
pub const CHAT_EVENTS: &str = "chat_events";
/// Has [`StatusEvent`]s.
pub const USER_STATUS_EVENTS: &str = "user_status_events";
/// Has [`ClientEvent`]s.
pub const CLIENT_EVENTS: &str = "client_events";
/// Has messages too, equal to the byte to those in `chat_events` (key: user).
pub const UNDELIVERED_EVENTS: &str = "undelivered_events";
/// Partitions of every topic unless told otherwise: enough for as many consumers of a group, few enough for a thousand
/// nodes (1,000 × 8 is well below what one Kafka cluster carries). Never changes.
pub const PARTITIONS: u32 = 8;
/// The kind of the messages that nodes send to themselves to see whether messages get through; nobody's mail.
pub const CANARY_KIND: &str = "canary";

/// The per-server topic of `node`.
pub fn messages_topic(node: &crate::NodeId) -> String {
    format!("messages-{node}")
}

/// A message as sent to readers and kept in `chat_events` (key: `stream`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// An inbox or a room.
    pub stream: StreamId,
    /// With `offset` the place in the stream: an offset means nothing in another generation.
    pub generation: Epoch,
    /// 1, 2, 3… without gaps within the generation.
    pub offset: Offset,
    /// The sender's; unique among what this sender sent to the stream within the dedup window.
    pub id: MessageId,
    /// `message`, `receipt` or `result`; others are reserved.
    pub kind: String,
    /// A user's id, or a name with `#` for what no user sent.
    pub from: String,
    /// When the home took it, by its clock (RFC 3339, UTC).
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub at: String,
    /// As the sender wrote it, to the byte.
    pub data: Box<RawValue>,
}

impl Message {
    /// Where it is in its stream.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.generation, self.offset)
    }

    /// What it says as a receipt, if it is one.
    pub fn receipt(&self) -> Option<Receipt> {
        (self.kind == RECEIPT).then(|| serde_json::from_str(self.data.get()).ok()).flatten()
    }
}

/// The kind of a message that is a receipt.
pub const RECEIPT: &str = "receipt";

/// What became of messages whose sender asked: the `data` of a message of the kind [`RECEIPT`], from their reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Receipt {
    /// A device has acknowledged them.
    #[allow(missing_docs, reason = "the messages, and when that was")]
    Delivered { ids: Vec<MessageId>, at: String },
    /// The user has read them.
    #[allow(missing_docs, reason = "the messages, and when that was")]
    Read { ids: Vec<MessageId>, at: String },
}

impl Receipt {
    /// The messages it is about.
    pub fn ids(&self) -> &[MessageId] {
        match self {
            Self::Delivered { ids, .. } | Self::Read { ids, .. } => ids,
        }
    }
}

/// What comes before the generation.
pub fn message_prefix(stream: &StreamId) -> String {
    let stream = serde_json::to_string(stream).expect("a string always encodes");
    format!("{{\"type\":\"message\",\"stream\":{stream},\"generation\":")
}

/// What comes after the offset, from `"id"` to the closing brace.
pub fn message_rest(id: &MessageId, kind: &str, from: &str, at_ms: u64, data: &RawValue) -> Bytes {
    let kind = serde_json::to_string(kind).expect("a string always encodes");
    let from = serde_json::to_string(from).expect("a string always encodes");
    let (at, data) = (rfc3339(at_ms), data.get());
    Bytes::from(format!("\"id\":\"{id}\",\"kind\":{kind},\"from\":{from},\"at\":\"{at}\",\"data\":{data}}}"))
}

/// The whole frame, equal to the byte to what the store composes.
pub fn message_bytes(stream: &StreamId, cursor: Cursor, rest: &[u8]) -> Bytes {
    let prefix = message_prefix(stream);
    let mut out = Vec::with_capacity(prefix.len() + rest.len() + 40);
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(format!("{},\"offset\":{},", cursor.generation, cursor.offset).as_bytes());
    out.extend_from_slice(rest);
    Bytes::from(out)
}

/// Who sent a message, from its frame. Quotes within the texts before it are escaped, so the first such name is it.
pub fn sender_of(message: &[u8]) -> Option<String> {
    const NAME: &[u8] = b",\"from\":";
    let at = message.windows(NAME.len()).position(|part| part == NAME)?;
    serde_json::Deserializer::from_slice(&message[at + NAME.len()..]).into_iter().next()?.ok()
}

/// What a user shows to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Somebody is connected, or was until a moment ago.
    Online,
    /// Connected, and says so.
    Away,
    /// Not connected, or invisible: others cannot tell.
    Offline,
}

/// Why a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusCause {
    /// The first session came.
    Connected,
    /// The last session went, and the linger passed.
    Disconnected,
    /// The user was inherited from a home that ended and did not come back within the grace.
    Lost,
    /// The user chose it.
    Chosen,
}

/// A record of `user_status_events` (key: user), unique by `(vnode, epoch, seq)`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusEvent {
    /// The user's.
    pub vnode: VnodeId,
    /// Of the home that made the event.
    pub epoch: Epoch,
    /// Grows with the vnode's events of one epoch, those of other topics included.
    pub seq: Seq,
    /// Whose status it is.
    pub user: UserId,
    /// The one that began.
    pub status: Status,
    /// What made it begin.
    pub cause: StatusCause,
    /// When the change was decided (RFC 3339, UTC).
    pub at: String,
    /// When the status began (RFC 3339, UTC); before `at`, if it is told once more after a loss.
    pub since: String,
    /// Of who is offline: when last visible (RFC 3339, UTC).
    pub last_seen: Option<String>,
}

/// The part of a status event after its numbers, from `"user"` to the closing brace.
pub fn status_rest(
    user: &UserId,
    status: Status,
    cause: StatusCause,
    at_ms: u64,
    since_ms: u64,
    seen: Option<u64>,
) -> Bytes {
    #[derive(Serialize)]
    struct Rest<'a> {
        user: &'a UserId,
        status: Status,
        cause: StatusCause,
        at: String,
        since: String,
        last_seen: Option<String>,
    }
    let rest = Rest {
        user,
        status,
        cause,
        at: rfc3339(at_ms),
        since: rfc3339(since_ms),
        last_seen: seen.map(rfc3339),
    };
    let json = serde_json::to_string(&rest).expect("plain fields always encode");
    Bytes::from(json[1..].to_owned())
}

/// What comes before the sequence number of a status event, and of a client's.
pub fn numbers_prefix(vnode: VnodeId, epoch: Epoch) -> String {
    format!("{{\"vnode\":{vnode},\"epoch\":{epoch},\"seq\":")
}

/// The whole event, equal to the byte to what the store composes.
pub fn numbered_bytes(vnode: VnodeId, epoch: Epoch, seq: Seq, rest: &[u8]) -> Bytes {
    let mut out = numbers_prefix(vnode, epoch).into_bytes();
    out.extend_from_slice(format!("{seq},").as_bytes());
    out.extend_from_slice(rest);
    Bytes::from(out)
}

/// A record of `client_events` (key: client), unique by `(vnode, epoch, seq)`; its `type` is `event`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClientEvent {
    /// The client's.
    pub vnode: VnodeId,
    /// Of the home that took the event.
    pub epoch: Epoch,
    /// Grows with the vnode's events of one epoch, those of other topics included.
    pub seq: Seq,
    /// Who asks.
    pub client_id: UserId,
    /// Comes a second time only after the store lost its data.
    pub event_id: MessageId,
    /// When the home took it (RFC 3339, UTC).
    pub created_at: String,
    /// As the client wrote it, to the byte.
    pub data: Box<RawValue>,
}

/// The part of a client's event after its numbers, from `"type"` to the closing brace.
pub fn event_rest(client: &UserId, id: &MessageId, at_ms: u64, data: &RawValue) -> Bytes {
    let client = serde_json::to_string(client).expect("a string always encodes");
    let (at, data) = (rfc3339(at_ms), data.get());
    Bytes::from(format!(
        "\"type\":\"event\",\"client_id\":{client},\"event_id\":\"{id}\",\"created_at\":\"{at}\",\"data\":{data}}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_composes_is_a_message() {
        let stream = StreamId::new("user:b\"ob").unwrap();
        let id = MessageId::new("m-1").unwrap();
        let data = RawValue::from_string("{\"text\":\"hi\"}".into()).unwrap();
        let rest = message_rest(&id, "message", "al\\ice", 0, &data);
        let bytes = message_bytes(&stream, Cursor::new(Epoch(7), Offset(42)), &rest);
        let m: Message = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((m.stream, m.generation, m.offset), (stream, Epoch(7), Offset(42)));
        assert_eq!((m.id, m.from.as_str(), m.data.get()), (id, "al\\ice", "{\"text\":\"hi\"}"));
    }

    #[test]
    fn what_the_store_composes_is_a_status_event() {
        let user = UserId::new("bob").unwrap();
        let rest = status_rest(&user, Status::Offline, StatusCause::Lost, 5, 5, Some(4));
        let bytes = numbered_bytes(VnodeId(3), Epoch(9), Seq(11), &rest);
        let e: StatusEvent = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((e.vnode, e.epoch, e.seq, e.user), (VnodeId(3), Epoch(9), Seq(11), user));
        assert_eq!(e.last_seen.as_deref(), Some("1970-01-01T00:00:00.004Z"));
    }

    #[test]
    fn what_the_store_composes_is_a_clients_event() {
        let (client, id) = (UserId::new("al\"ice").unwrap(), MessageId::new("e-1").unwrap());
        let data = RawValue::from_string("[1, 2]".into()).unwrap();
        let rest = event_rest(&client, &id, 5, &data);
        let e: ClientEvent =
            serde_json::from_slice(&numbered_bytes(VnodeId(3), Epoch(9), Seq(11), &rest)).unwrap();
        assert_eq!((e.vnode, e.epoch, e.seq, e.client_id), (VnodeId(3), Epoch(9), Seq(11), client));
        assert_eq!((e.event_id, e.created_at.as_str()), (id, "1970-01-01T00:00:00.005Z"));
        assert_eq!(e.data.get(), "[1, 2]");
    }
}
