//! The records of `messages-<node>`: what nodes say to each other about one vnode (key: the vnode's number).
//!
//! A record is JSON with one key that names its kind: `{"item":{…}}`, `{"confirm":{…}}`, `{"probe":{…}}`,
//! `{"took":{…}}`, `{"recall":{…}}`, `{"recalled":{…}}`, `{"disconnect":{…}}`. Several for one node come as
//! `{"bundle":[…]}`, if its row says that it reads [`BUNDLES`].

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Json;
use crate::frames::{ChosenStatus, InfoOf};
use crate::ids::{Cursor, DeviceId, Epoch, MessageId, NodeId, Offset, Sid, StreamId, UserId, VnodeId};
use crate::live::Version;

/// What a node says in its row that it reads: bundles too. Nodes before that say nothing, which is 0.
pub const BUNDLES: u32 = 1;

/// How a bundle begins.
const BUNDLE: &[u8] = b"{\"bundle\":[";

/// Records that are encoded already, as one payload.
pub fn bundle<T: AsRef<[u8]>>(records: &[T]) -> Vec<u8> {
    let bytes: usize = records.iter().map(|record| record.as_ref().len() + 1).sum();
    let mut payload = Vec::with_capacity(BUNDLE.len() + bytes + 1);
    payload.extend_from_slice(BUNDLE);
    for (n, record) in records.iter().enumerate() {
        if n > 0 {
            payload.push(b',');
        }
        payload.extend_from_slice(record.as_ref());
    }
    payload.extend_from_slice(b"]}");
    payload
}

/// The records of a payload, in their order: one alone, or those of a bundle. What nobody can read of a bundle hides
/// nothing else of it.
pub fn read(payload: &[u8]) -> Vec<Result<Record, serde_json::Error>> {
    #[derive(Deserialize)]
    struct Bundle<'a> {
        #[serde(borrow)]
        bundle: Vec<&'a RawValue>,
    }
    if !payload.starts_with(BUNDLE) {
        return vec![serde_json::from_slice(payload)];
    }
    match serde_json::from_slice::<Bundle<'_>>(payload) {
        Ok(bundle) => bundle.bundle.into_iter().map(|record| serde_json::from_str(record.get())).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// One record between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// From a sender to the home.
    Item(Item),
    /// From the home to the sender.
    Confirm(Confirm),
    /// From a sender to the home.
    Probe(Probe),
    /// From a new home to the last one.
    #[serde(rename = "took")]
    OwnerChanged(OwnerChanged),
    /// From an earlier home to the new one, after a loss of data.
    #[serde(rename = "recall")]
    PresenceTransfer(PresenceTransfer),
    /// The answer to that.
    #[serde(rename = "recalled")]
    PresenceTransferred(PresenceTransferred),
    /// To every node.
    Disconnect(Disconnect),
}

/// Which channel a record belongs to: what one sender (`sid`) has for one vnode under one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChannelId {
    /// Whose home is meant.
    pub vnode: VnodeId,
    /// Of that home: under another one the channel begins anew.
    pub epoch: Epoch,
    /// Of the sender.
    pub sid: Sid,
    /// Grows with every renumbering by this sender.
    pub chan: u64,
    /// Grows every time the sender goes back, so that one loss is asked for once.
    pub round: u32,
}

/// One numbered item of a channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// Whose number `n` is.
    #[serde(flatten)]
    pub channel: ChannelId,
    /// 1, 2, 3… within the channel.
    pub n: u64,
    /// The highest number the sender knows to be confirmed.
    pub acked: u64,
    /// An [`ItemBody`], kept as text so that a body nobody understands still has its number; `null` is a void.
    pub body: Option<Box<RawValue>>,
}

/// What an item asks of the home.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemBody {
    /// A message.
    Append(Append),
    /// Where does this stream end?
    Tail {
        /// Of the vnode that is asked.
        stream: StreamId,
    },
    /// Who is in a room at the sender.
    #[serde(rename = "here")]
    MemberUpdate(MemberUpdate),
    /// Something for the processors.
    Event(Event),
    /// Who is in this room?
    Members {
        /// The room's.
        stream: StreamId,
    },
    /// What users acknowledged while there was no home to hear it, or one that ended before it had written it.
    Said(Vec<Said>),
}

/// What a user said of the inbox, on a device or on none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Whose inbox.
    pub user: UserId,
    /// Which acknowledged; of what was read it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Up to where that device has everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<Cursor>,
    /// Up to where the user has read, on any device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Cursor>,
    /// Said while invisible: nobody gets a receipt of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
}

/// Changes of who is in a room at the sending node. A node says of each of its users once that it is there, however
/// many sessions it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberUpdate {
    /// The room's.
    pub stream: StreamId,
    /// Nobody else is here: what was said before is forgotten.
    #[serde(rename = "anew", default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// Or says something else of itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came: Vec<Came>,
    /// With no session of this node there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub went: Vec<Went>,
}

/// Somebody who is in a room at the sending node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Came {
    /// Who is there.
    pub user: UserId,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
    /// Of the user's home that says that others may see it; 0 from nodes of an earlier version.
    #[serde(default)]
    pub epoch: Epoch,
}

/// Somebody who is not in a room any more at the sending node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Went {
    /// Who went.
    pub user: UserId,
    /// Said so; others may only be on their way to another connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// Is here and hides: what any node said of the user is over, but for what it said under a later home of the user.
    /// One of an earlier version reads over it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hides: bool,
    /// Of the user's home that says that it hides; none from nodes of an earlier version, which is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// A message for a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Append {
    /// An inbox or a room.
    pub stream: StreamId,
    /// A user's id, or a name with `#` for what no user sent.
    pub from: String,
    /// The sender's: tells a repeat from another message.
    pub id: MessageId,
    /// As in [`Message`](crate::events::Message).
    pub kind: String,
    /// As the sender wrote it, to the byte.
    pub data: Box<RawValue>,
    /// The sender wants to know when it is delivered and read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub receipt: bool,
    /// The event that it is a result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<MessageId>,
}

/// Something that a client has for the application's processors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Who asks.
    pub client: UserId,
    /// The client's: results name it.
    pub id: MessageId,
    /// As the client wrote it, to the byte.
    pub data: Box<RawValue>,
}

/// What the home did with one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemResult {
    /// Appended (now or before), at this time in milliseconds since 1970.
    Ok {
        /// Of the first, if this is a repeat.
        at: u64,
        /// Of a publication in a room, unless it is a repeat.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<Cursor>,
    },
    /// The end of a stream, and the first offset of it that is still in the hot window.
    #[allow(missing_docs, reason = "said above")]
    Tail { tail: Cursor, first: Offset },
    /// The members of a room; of too many only their number. `partial`: some may not be known yet.
    Members {
        /// Of the list.
        version: Version,
        /// What the home had listed in all rooms of the vnode: grows, where `version` goes with the room.
        as_of: Version,
        /// The home has just begun and not heard of all nodes yet.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
        /// All of them, listed or not.
        count: usize,
        /// Each user once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        members: Option<Vec<InfoOf>>,
    },
    /// Taken note of.
    Noted,
    /// The id was used before with another body.
    Conflict,
    /// Too many events wait already.
    Full,
    /// A result for somebody of whom nothing is known.
    Nobody,
    /// The body could not be understood.
    Bad,
    /// The item was a void.
    Void,
}

impl ItemResult {
    /// Bytes of its encoding, about: what decides how many go into one record.
    pub fn size(&self) -> usize {
        match self {
            Self::Members { members: Some(members), .. } => {
                128 + members.iter().map(InfoOf::size).sum::<usize>()
            }
            _ => 64,
        }
    }
}

/// The home's answer: the results of the items `from`, `from + 1`, …
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Confirm {
    /// Whose items they are.
    #[serde(flatten)]
    pub channel: ChannelId,
    /// The number of the first result.
    pub from: u64,
    /// In the order of the numbers.
    pub results: Vec<ItemResult>,
    /// The first number the home lacks, if it lacks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<u64>,
    /// The home cannot read this channel's records and will not (core rule 15).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// A sender that heard nothing asks whether the home has everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Whose items they are.
    #[serde(flatten)]
    pub channel: ChannelId,
    /// The lowest number that the sender still has.
    pub first: u64,
    /// The highest that was sent.
    pub last: u64,
}

/// Who was shown in a vnode when the store lost its data, from an earlier home (`sid`) to the one of `epoch`; told
/// again until it answers [`PresenceTransferred`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceTransfer {
    /// Which vnode it is about.
    pub vnode: VnodeId,
    /// Of the home that is told.
    pub epoch: Epoch,
    /// Of the earlier home.
    pub sid: Sid,
    /// As many as fit into a record.
    pub users: Vec<Shown>,
}

/// A user as the lost roster had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Who was there.
    pub user: UserId,
    /// What it had chosen to show.
    pub chosen: ChosenStatus,
    /// Milliseconds since 1970.
    pub since: u64,
    /// How many it had.
    pub sessions: u32,
    /// In which what others saw of it was published.
    pub generation: Epoch,
}

/// Of these the new home's roster knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceTransferred {
    /// Which vnode it is about.
    pub vnode: VnodeId,
    /// Of the home that says so: what an earlier one had says nothing of a later one. Earlier versions do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Those that need not be told again.
    pub users: Vec<UserId>,
}

/// Every node closes what it has of this user's sessions: who is on the way from one home to the next has sessions
/// at both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Whose sessions end.
    pub user: UserId,
    /// For the close frame; at most [`REASON_BYTES_MAX`](crate::limits::REASON_BYTES_MAX).
    pub reason: String,
}

/// A new owner tells its predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerChanged {
    /// Which vnode it is about.
    pub vnode: VnodeId,
    /// Of the new home.
    pub epoch: Epoch,
    /// Where it is.
    pub node: NodeId,
    /// Which life of that node.
    pub sid: Sid,
    /// What clients dial there.
    pub url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"disconnect":{"user":"bob","reason":"x"}}"#;

    #[test]
    fn a_bundle_is_read_one_by_one_and_what_nobody_can_read_hides_nothing_else() {
        let users = |payload: &[u8]| -> Vec<bool> { read(payload).iter().map(Result::is_ok).collect() };
        assert_eq!(users(ONE.as_bytes()), [true]);
        assert_eq!(users(&bundle(&[ONE])), [true]);
        assert_eq!(users(&bundle(&[ONE, r#"{"later":"kind"}"#, ONE])), [true, false, true]);
        assert_eq!(users(b"{\"bundle\":[{]}"), [false], "what is no JSON has no parts");
        assert_eq!(bundle(&[ONE, ONE]), format!("{{\"bundle\":[{ONE},{ONE}]}}").into_bytes());
    }
}
