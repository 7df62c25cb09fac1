//! The records of `messages-<node>`: what nodes say to each other about one vnode (key: the vnode's number).
//!
//! A record is JSON with one key that names its kind: `{"item":{…}}`, `{"confirm":{…}}`, `{"probe":{…}}`,
//! `{"took":{…}}`, `{"disconnect":{…}}`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{Epoch, MessageId, NodeId, Sid, StreamId, UserId, VnodeId};

/// One record between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    Item(Item),
    Confirm(Confirm),
    Probe(Probe),
    Took(Took),
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
}

/// A message for a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Append {
    pub stream: StreamId,
    pub from: String,
    pub id: MessageId,
    pub kind: String,
    pub data: Box<RawValue>,
}

/// What the home did with one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemResult {
    /// Appended (now or before), at this time in milliseconds since 1970.
    Ok { at: u64 },
    /// The id was used before with another body.
    Conflict,
    /// The body could not be understood.
    Bad,
    /// The item was a void.
    Void,
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
