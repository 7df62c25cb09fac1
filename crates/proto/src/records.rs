//! The records of `messages-<node>`: what nodes say to each other about one vnode (key: the vnode's number).
//!
//! A record is JSON with one key that names its kind: `{"item":{…}}`, `{"confirm":{…}}`, `{"probe":{…}}`,
//! `{"took":{…}}`, `{"recall":{…}}`, `{"recalled":{…}}`, `{"disconnect":{…}}`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::frames::{ChosenStatus, InfoOf};
use crate::ids::{Cursor, DeviceId, Epoch, MessageId, NodeId, Offset, Sid, StreamId, UserId, VnodeId};
use crate::live::Version;

/// One record between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    Item(Item),
    Confirm(Confirm),
    Probe(Probe),
    Took(Took),
    Recall(Recall),
    Recalled(Recalled),
    Disconnect(Disconnect),
}

/// Which channel a record belongs to: what one sender (`sid`) has for one vnode under one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChannelId {
    pub vnode: VnodeId,
    pub epoch: Epoch,
    pub sid: Sid,
    /// Grows with every renumbering by this sender.
    pub chan: u64,
    /// Grows every time the sender goes back, so that one loss is asked for once.
    pub round: u32,
}

/// One numbered item of a channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
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
    Append(Append),
    /// Where does this stream end?
    Tail {
        stream: StreamId,
    },
    /// Who is in a room at the sender.
    Here(Here),
    Event(Event),
    /// Who is in this room?
    Members {
        stream: StreamId,
    },
    /// What users acknowledged while there was no home to hear it, or one that ended before it had written it.
    Said(Vec<Said>),
}

/// What a user said of the inbox, on a device or on none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub user: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<Cursor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Cursor>,
    /// Said while invisible: nobody gets a receipt of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
}

/// Changes of who is in a room at the sending node. A node says of each of its users once that it is there, however
/// many sessions it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Here {
    pub stream: StreamId,
    /// Nobody else is here: what was said before is forgotten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub came: Vec<InfoOf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub went: Vec<Went>,
}

/// Somebody who is not in a room any more at the sending node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Went {
    pub user: UserId,
    /// Said so; others may only be on their way to another connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// Is here and hides: what any node said of the user before is over. One of an earlier version reads over it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hides: bool,
}

/// A message for a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Append {
    pub stream: StreamId,
    pub from: String,
    pub id: MessageId,
    pub kind: String,
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
    pub client: UserId,
    pub id: MessageId,
    pub data: Box<RawValue>,
}

/// What the home did with one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemResult {
    /// Appended (now or before), at this time in milliseconds since 1970.
    Ok {
        at: u64,
        /// Of a publication in a room, unless it is a repeat.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<Cursor>,
    },
    /// The end of a stream, and the first offset of it that is still in the hot window.
    Tail { tail: Cursor, first: Offset },
    /// The members of a room; of too many only their number. `partial`: some may not be known yet.
    Members {
        version: Version,
        /// What the home had listed in all rooms of the vnode: grows, where `version` goes with the room.
        as_of: Version,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partial: bool,
        count: usize,
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
    #[serde(flatten)]
    pub channel: ChannelId,
    pub from: u64,
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
    #[serde(flatten)]
    pub channel: ChannelId,
    pub first: u64,
    pub last: u64,
}

/// Who was shown in a vnode when the store lost its data, from an earlier home (`sid`) to the one of `epoch`; told
/// again until it answers [`Recalled`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    pub vnode: VnodeId,
    pub epoch: Epoch,
    pub sid: Sid,
    pub users: Vec<Shown>,
}

/// A user as the lost roster had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub user: UserId,
    pub chosen: ChosenStatus,
    /// Milliseconds since 1970.
    pub since: u64,
    pub sessions: u32,
    pub generation: Epoch,
}

/// Of these the new home's roster knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    pub vnode: VnodeId,
    /// Of the home that says so: what an earlier one had says nothing of a later one. Earlier versions do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    pub users: Vec<UserId>,
}

/// Every node closes what it has of this user's sessions: who is on the way from one home to the next has sessions
/// at both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    pub user: UserId,
    pub reason: String,
}

/// A new owner tells its predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    pub vnode: VnodeId,
    pub epoch: Epoch,
    pub node: NodeId,
    pub sid: Sid,
    pub url: String,
}
