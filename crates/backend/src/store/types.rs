//! The questions put to a store and its answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use roost_proto::Json;
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{
    Cursor, DeviceId, Epoch, MessageId, NodeId, Offset, Seq, Sid, StreamId, UserId, VnodeId,
};
use roost_proto::live::Version;
use serde::{Deserialize, Serialize};

/// What can go wrong with the store. A failed or timed-out write may have been applied, or may be later.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts of the errors say it")]
pub enum StoreError {
    #[error("the store is not reachable: {0}")]
    Unreachable(String),
    #[error("no answer from the store within {0:?}")]
    Timeout(Duration),
    #[error("the ring has {found} vnodes where VNODES={wanted} is configured; the number never changes")]
    Vnodes { found: u32, wanted: u32 },
    #[error("the store answered what cannot be understood: {0}")]
    Garbled(String),
    /// It answers, and says no: out of memory, disk full, not permitted.
    #[error("the store refused: {0}")]
    Refused(String),
    /// The store, or its address, is set up so that Roost cannot use it: repeating does not help.
    #[error("{0}")]
    Config(String),
}

/// Limits a store keeps to.
#[derive(Debug, Clone, Copy)]
pub struct StoreConfig {
    /// How long a row lives after it was claimed or renewed, in milliseconds.
    pub lease_ttl_ms: u64,
    /// Entries in a stream's hot window.
    pub stream_max_len: usize,
    /// An untouched hot window is dropped after this long, in milliseconds.
    pub stream_max_age_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { lease_ttl_ms: 6000, stream_max_len: 1000, stream_max_age_ms: 86_400_000 }
    }
}

/// Tails, acked cursors and last-seen times outlive the hot window by this long.
pub const TAILS_KEPT_MS: u64 = 30 * 86_400_000;

/// Devices of a user whose acknowledged cursors are kept: those used last. Nobody has so many; a client that makes a
/// name up for each connection would fill the store with them otherwise.
pub const DEVICES_KEPT: usize = 64;

/// The random name of one life of the store's data (core rule 19).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct DataSet(pub String);

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Takes vnodes.
    #[default]
    Up,
    /// Asked to stop: gives everything away, gets nothing.
    Draining,
    /// Declared dead by the leader, or it left; its sid is over.
    Revoked,
}

/// What a node has to do, as it says with every renewal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
pub struct Load {
    /// Those connected to it.
    pub sessions: u64,
    /// Delivered, over the last seconds.
    pub messages_per_s: f64,
    /// Newcomers it takes per second at the moment; 0: not said.
    #[serde(default)]
    pub accepts_per_s: u64,
    /// Of the sessions those that are at home there; the others are on their way elsewhere.
    #[serde(default)]
    pub at_home: u64,
    /// Records of its topic that it has not read yet.
    #[serde(default)]
    pub lag: u64,
}

/// One ws-node as others see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Which life of the node.
    pub sid: Sid,
    /// What clients dial.
    pub url: String,
    /// Where health and metrics are, `host:port`.
    pub admin: String,
    /// Whether it takes vnodes.
    pub state: NodeState,
    /// Grows with every renewal.
    pub beat: u64,
    /// Its share, relative to those of the others; 0: no vnode that it does not pin.
    pub weight: u32,
    /// `ASSIGNED_VNODES` as written.
    pub pins: String,
    /// As of the last renewal.
    pub load: Load,
    /// Of a sid that is over.
    #[serde(default, skip_serializing_if = "Gone::is_default")]
    pub gone: Gone,
    /// Which forms of records its reader understands: [`roost_proto::records::BUNDLES`], or 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reads: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is known of a node that is gone. Its row is the tombstone of its sid: what that one sent and what comes late
/// is void as long as the row is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Gone {
    /// In good order, rather than declared dead.
    pub left: bool,
    /// For how long leaders saw it so, in seconds; they note it now and then.
    pub for_s: u64,
}

impl Gone {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One vnode's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Who has it.
    pub sid: Sid,
    /// Under which it was granted.
    pub epoch: Epoch,
    /// Its data is loaded there: sessions are taken.
    pub ready: bool,
}

impl Row {
    /// Where it is.
    pub fn node(&self) -> NodeId {
        self.sid.node()
    }
}

/// Which node each vnode should be at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Grows with every change.
    pub version: u64,
    /// Where a vnode is to be; a vnode that was never assigned is missing.
    pub targets: BTreeMap<VnodeId, NodeId>,
}

/// Everything the control plane says, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// How many the ring has.
    pub vnodes: u32,
    /// Which life of the store's data.
    pub data_set: DataSet,
    /// The data set is so new that nodes are still showing what they have (core rule 19).
    pub settling: bool,
    /// Those that are registered, tombstones included.
    pub nodes: BTreeMap<NodeId, NodeRow>,
    /// Those whose lease has not ended.
    pub rows: BTreeMap<VnodeId, Row>,
    /// What the leader planned.
    pub assignment: Assignment,
    /// Who leads, or led last.
    pub leader: Option<LeaderRow>,
}

impl Table {
    /// The nodes that are not declared dead.
    pub fn living(&self) -> impl Iterator<Item = (&NodeId, &NodeRow)> {
        self.nodes.iter().filter(|(_, row)| row.state != NodeState::Revoked)
    }

    /// The row of `node`, unless it is declared dead.
    pub fn living_node(&self, node: &NodeId) -> Option<&NodeRow> {
        self.nodes.get(node).filter(|row| row.state != NodeState::Revoked)
    }

    /// Whether this sid's life is known to be over: its node has a later one, or it was revoked.
    pub fn ended(&self, sid: &Sid) -> bool {
        self.nodes.get(&sid.node()).is_some_and(|row| ended_by(row, sid))
    }
}

/// Core rule 21: only a later sid of the same node replaces.
pub(crate) fn ended_by(row: &NodeRow, sid: &Sid) -> bool {
    if row.sid == *sid { row.state == NodeState::Revoked } else { row.sid.born() > sid.born() }
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRow {
    /// Names one life of a coordinator.
    pub token: String,
    /// Grows as long as it lives.
    pub beat: u64,
}

/// Asks to be known.
#[derive(Debug, Clone)]
pub struct Register {
    /// As the caller knows it (promise 5 of [`Store`](super::Store)).
    pub data_set: DataSet,
    /// Whose row.
    pub node: NodeId,
    /// What others shall see.
    pub row: NodeRow,
}

/// The answer to [`Register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterAnswer {
    /// The row is there.
    Registered,
    /// A later sid of this node is registered.
    Replaced,
    /// This sid is registered already, and was declared dead since: its row stays as it is.
    Revoked,
    /// The data set that there is; nothing was done.
    NewData(DataSet),
}

/// Asks to be forgotten.
#[derive(Debug, Clone)]
pub struct Deregister {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// Whose life is over.
    pub sid: Sid,
    /// The row stays as a tombstone ([`Gone`]), until the leader removes it ([`Forget`]).
    pub tombstone: bool,
}

/// Asks for a vnode.
#[derive(Debug, Clone)]
pub struct Claim {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// Which.
    pub vnode: VnodeId,
    /// For whom.
    pub sid: Sid,
    /// The epoch the caller holds at this moment (activated, not deposed, released or taken).
    pub held: Option<Epoch>,
    /// The highest epoch the caller has seen for this vnode.
    pub floor: Epoch,
    /// The caller's configuration pins this vnode.
    pub pinned: bool,
}

/// The answer to [`Claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The caller has it under this epoch.
    Granted(Epoch),
    /// Another living sid has the row.
    Held(Row),
    /// Neither assignment nor pin gives it to the caller.
    NotYours,
    /// After a new data set, and the caller holds no epoch.
    Settling,
    /// The caller's sid is not registered, or revoked.
    NotRegistered,
    /// The data set that there is; nothing was done.
    NewData(DataSet),
}

/// Says that a node lives.
#[derive(Debug, Clone)]
pub struct Renew {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// Which life of it.
    pub sid: Sid,
    /// Up or draining.
    pub state: NodeState,
    /// For the table.
    pub load: Load,
    /// Those that it has, with the epochs under which it has them.
    pub rows: Vec<(VnodeId, Epoch)>,
}

/// The answer to [`Renew`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewAnswer {
    /// For each row asked, in order, whether it was renewed.
    Renewed(Vec<bool>),
    /// A later sid of this node is registered.
    Replaced,
    /// The leader declared this sid dead.
    Revoked,
    /// No row for this node.
    NotRegistered,
    /// The data set that there is; nothing was done.
    NewData(DataSet),
}

/// Rows of one sid, to be marked ready or given up.
#[derive(Debug, Clone)]
pub struct OwnRows {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// Whose rows.
    pub sid: Sid,
    /// With the epochs under which the caller has them.
    pub rows: Vec<(VnodeId, Epoch)>,
}

/// Asks for the lead, or keeps it.
#[derive(Debug, Clone)]
pub struct Lead {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// The caller's.
    pub token: String,
    /// The (token, beat) that the caller has seen unchanged for a lease TTL on its own monotonic clock.
    pub frozen: Option<LeaderRow>,
}

/// The answer to [`Lead`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadAnswer {
    /// The caller leads; its beat was raised.
    Leading,
    /// This one leads, and lives as far as the caller can know.
    Other(LeaderRow),
    /// The data set that there is; nothing was done.
    NewData(DataSet),
}

/// Gives the lead up.
#[derive(Debug, Clone)]
pub struct Resign {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// The caller's.
    pub token: String,
}

/// Declares a node dead.
#[derive(Debug, Clone)]
pub struct Revoke {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// Of the leader.
    pub token: String,
    /// Which life of the node.
    pub sid: Sid,
    /// As it was when the leader judged: a node that has beaten since lives.
    pub beat: u64,
}

/// Of a node that is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// Of the leader.
    pub token: String,
    /// Which life of the node.
    pub sid: Sid,
    /// For so long it was seen so by now ([`Gone::for_s`]); `None`: its row goes.
    pub gone_for_s: Option<u64>,
}

/// Changes where vnodes are to be.
#[derive(Debug, Clone)]
pub struct Assign {
    /// As the caller knows it.
    pub data_set: DataSet,
    /// Of the leader.
    pub token: String,
    /// The version these changes were planned from.
    pub from_version: u64,
    /// Those that change.
    pub targets: Vec<(VnodeId, NodeId)>,
}

/// Asks to write to a vnode.
#[derive(Debug, Clone)]
pub struct Activate {
    /// Under which the epoch was granted.
    pub data_set: DataSet,
    /// Which.
    pub vnode: VnodeId,
    /// Under which it is held.
    pub epoch: Epoch,
    /// By whom.
    pub sid: Sid,
    /// The caller found its data lost or rewound: the generation goes on only if `held` proves it.
    pub prove: bool,
    /// What the caller held and the last seq acknowledged to it, if its deadline had not passed when it noticed.
    pub held: Option<(Epoch, Seq)>,
    /// The generation and the last seq that the caller knows of from when it had the vnode, however long ago: if the
    /// head is behind that, the data went back, whatever it is called.
    pub left: Option<(Epoch, Seq)>,
}

/// The answer to [`Activate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivateAnswer {
    /// Whatever there is of the vnode, as of this moment.
    Activated(Activated),
    /// The head has this epoch, which is not smaller: claim above it.
    Refused(Epoch),
    /// The data set that there is; nothing was done.
    NewData(DataSet),
}

/// What a new owner begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// In which streams go on; the epoch, if a new one begins.
    pub generation: Epoch,
    /// The last one: the first write is fenced by it.
    pub seq: Seq,
    /// Events that may not be in the log yet, ascending.
    pub outbox: Vec<OutboxEvent>,
    /// Everyone who is not offline.
    pub roster: Vec<(UserId, RosterEntry)>,
    /// The rooms that have members.
    pub rooms: Vec<(StreamId, RoomRoster)>,
    /// By user and place.
    pub due: Vec<Due>,
    /// Messages with receipts, by user and place.
    pub wanted: Vec<(InboxPosition, ReceiptRequest)>,
    /// Receipts that are to be sent, by their ids.
    pub owed: Vec<(MessageId, PendingReceipt)>,
    /// Events without a result, by client and id.
    pub tickets: Vec<(TicketId, Ticket)>,
    /// Who had the vnode before, if anyone.
    pub previous: Option<Sid>,
    /// Where the vnode's clock stood at the last write ([`Write::now_ms`]); 0 before the first.
    pub clock_ms: u64,
}

/// Which topic an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventTopic {
    /// `chat_events`.
    Chat,
    /// `user_status_events`.
    Status,
    /// `undelivered_events`.
    Undelivered,
    /// `client_events`.
    Client,
}

/// An event on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Of the vnode.
    pub seq: Seq,
    /// Where it is to go.
    pub topic: EventTopic,
    /// The record's key: stream or user.
    pub key: String,
    /// The record, to the byte.
    pub payload: Bytes,
}

/// A place in a user's inbox.
pub type InboxPosition = (UserId, Cursor);

/// An event by its client and its id.
pub type TicketId = (UserId, MessageId);

/// An event that waits for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// By the vnode's clock ([`Write::now_ms`]).
    pub since_ms: u64,
    /// In milliseconds since 1970, as its client was told.
    pub at: u64,
}

/// A message in an inbox that no device has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose inbox.
    pub user: UserId,
    /// Where in it.
    pub cursor: Cursor,
    /// Who sent it.
    pub from: String,
    /// When it was appended, by the vnode's clock ([`Write::now_ms`]).
    pub since_ms: u64,
}

/// A message in an inbox whose sender wants to know what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRequest {
    /// Who wants to know.
    pub from: UserId,
    /// Of the message.
    pub id: MessageId,
    /// By the vnode's clock.
    pub since_ms: u64,
    /// The sender was told that it is delivered.
    pub delivered: bool,
}

/// A receipt that is to be sent, under an id of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingReceipt {
    /// The reader.
    pub from: UserId,
    /// Who wanted to know.
    pub to: UserId,
    /// A [`Receipt`](roost_proto::events::Receipt).
    pub data: Json,
}

/// A connected user in the roster of a vnode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterEntry {
    /// What the user chose to show.
    pub chosen: ChosenStatus,
    /// When the visible status began, and when an invisible user was last visible; milliseconds since 1970.
    pub since: u64,
    /// See `since`; `None` while visible.
    pub last_seen: Option<u64>,
    /// How many are connected, or linger.
    pub sessions: u32,
    /// In which what others see of this was published: in a later one nobody knows what was published last.
    #[serde(default)]
    pub generation: Epoch,
}

/// Who is in a room, as last written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomRoster {
    /// Of these members.
    pub version: Version,
    /// By user.
    pub members: Vec<(UserId, MemberEntry)>,
}

/// A user who is in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// What the member says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
}

/// Where a room stands: its end in the present generation, and its members' version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The last message.
    pub tail: Cursor,
    /// Of the members.
    pub version: Version,
}

/// What stays about a user who is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What the user had chosen to show; it holds for the next session.
    pub chosen: ChosenStatus,
    /// When the user became offline to others, and when it was last really there.
    pub since: u64,
    /// See `since`.
    pub last_seen: u64,
    /// As in [`RosterEntry::generation`].
    #[serde(default)]
    pub generation: Epoch,
}

/// All that is kept about the presence of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceRow {
    /// While somebody is connected, or lingers.
    pub roster: Option<RosterEntry>,
    /// From the last time without.
    pub seen: Option<Seen>,
}

/// Where a vnode's presence stands: which life of the data it is in, and its last change that others see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PresenceStanding {
    /// 0 if no home was ever activated.
    pub generation: Epoch,
    /// Its `n` is the seq of the write that made the change.
    pub version: Version,
}

/// What is kept about the presence of users, and where it stood at that moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presences {
    /// As of the same moment as the rows.
    pub standing: PresenceStanding,
    /// In the order asked.
    pub rows: Vec<PresenceRow>,
}

/// The fence every write carries (core rule 10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Where it goes.
    pub vnode: VnodeId,
    /// Under which the caller has it.
    pub epoch: Epoch,
    /// The caller's.
    pub sid: Sid,
    /// The last one that the caller knows of.
    pub seq: Seq,
}

/// One fenced script: all operations or none.
#[derive(Debug, Clone)]
pub struct Write {
    /// Without which nothing is done.
    pub fence: Fence,
    /// The vnode's clock, in milliseconds: ages ids and windows. It goes on from [`Activated::clock_ms`] by the
    /// owner's monotonic clock and is kept with the head, so that no wall clock makes anything old before its time;
    /// without an owner it stands still.
    pub now_ms: u64,
    /// Outbox events up to this seq are in the log: remove them.
    pub trim: Seq,
    /// In this order.
    pub ops: Vec<Op>,
}

/// One operation of a write.
#[derive(Debug, Clone)]
pub enum Op {
    /// A message into a stream.
    Append(AppendOp),
    /// An event goes out to the processors, and waits for a result: [`Ticket`].
    Event(EventOp),
    /// What a user shows.
    Presence(PresenceOp),
    /// Who is in a room.
    Member(MemberOp),
    /// A barrier that reads where a stream stands.
    Tail {
        /// Of the vnode.
        stream: StreamId,
    },
    /// A barrier that reads where `device` of `user` stands. It counts as a use of a device that is known.
    Open {
        /// Whose inbox.
        user: UserId,
        /// One without a name has acknowledged nothing.
        device: Option<DeviceId>,
    },
    /// Raises the device's acked cursor; a smaller one changes nothing. Of more than [`DEVICES_KEPT`] devices those
    /// are forgotten that were used before the others.
    Ack {
        /// Whose inbox.
        user: UserId,
        /// Which acknowledges.
        device: DeviceId,
        /// Up to where.
        cursor: Cursor,
    },
    /// Raises the cursor up to where the user has read; a smaller one changes nothing.
    Read {
        /// Whose inbox.
        user: UserId,
        /// Up to where.
        cursor: Cursor,
    },
    /// These messages were acknowledged: none of them is due any more.
    Settle {
        /// Of which those that are not due are passed over.
        places: Vec<InboxPosition>,
    },
    /// Nobody acknowledged this message in time: if it is still due, it is no more, and its event goes out.
    Undelivered {
        /// Whose inbox.
        user: UserId,
        /// Where in it.
        cursor: Cursor,
        /// How large the message is, or might be: all of it is in the answer. The store makes no use of it.
        bytes: usize,
    },
    /// What is known of messages with receipts, and receipts to be sent: sets these, or removes them.
    Receipts {
        /// `None` removes.
        wanted: Vec<(InboxPosition, Option<ReceiptRequest>)>,
        /// `None` removes.
        owed: Vec<(MessageId, Option<PendingReceipt>)>,
    },
}

impl Op {
    /// About how many bytes of payload it has.
    pub fn size(&self) -> usize {
        match self {
            Self::Append(append) => append.rest.len(),
            Self::Event(event) => event.rest.len(),
            Self::Presence(op) => op.event.as_ref().map_or(0, Bytes::len),
            Self::Member(op) => op.note.len(),
            Self::Receipts { wanted, owed } => {
                let owed = owed.iter().filter_map(|(_, owed)| owed.as_ref());
                200 * wanted.len() + owed.map(|owed| owed.data.get().len()).sum::<usize>()
            }
            Self::Settle { places } => 50 * places.len(),
            Self::Undelivered { bytes, .. } => *bytes,
            Self::Tail { .. } | Self::Open { .. } | Self::Ack { .. } | Self::Read { .. } => 256,
        }
    }
}

impl Write {
    /// About how many bytes of payload it has.
    pub fn size(&self) -> usize {
        self.ops.iter().map(Op::size).sum()
    }
}

/// A message for a stream.
#[derive(Debug, Clone)]
pub struct AppendOp {
    /// An inbox or a room of the vnode.
    pub stream: StreamId,
    /// With `id` it names the message within the stream.
    pub from: String,
    /// The sender's.
    pub id: MessageId,
    /// Hash of kind and data: tells a repeat from a conflict.
    pub hash: u64,
    /// In milliseconds since 1970, by the home's wall clock; a repeat keeps the first.
    pub at: u64,
    /// The frame from `"id"` on ([`roost_proto::events::message_rest`]).
    pub rest: Bytes,
    /// It waits for an acknowledgement: [`Due`], until one comes or it is reported. Only in an inbox.
    pub due: bool,
    /// Kept with its place, if it is appended. Only in an inbox.
    pub wanted: Option<ReceiptRequest>,
    /// The event that waits for it. Only in an inbox.
    pub closes: Option<Closes>,
}

/// What a message is to an event; if it is not taken, [`OpResult::Nobody`]. One whose id is known ends the wait, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closes {
    /// A result: taken if anything is known of the client (a session, when it was last there, an inbox, an event).
    /// The event waits no more.
    Answered(MessageId),
    /// No result came in time: taken if the event still waits, which it does no more.
    TimedOut(MessageId),
}

/// A client's event for the processors.
#[derive(Debug, Clone)]
pub struct EventOp {
    /// With `id` it names the event.
    pub client: UserId,
    /// The client's.
    pub id: MessageId,
    /// Of the data: tells a repeat from a conflict.
    pub hash: u64,
    /// In milliseconds since 1970, by the home's wall clock; a repeat keeps the first.
    pub at: u64,
    /// The record from `"type"` on ([`roost_proto::events::event_rest`]).
    pub rest: Bytes,
}

impl EventOp {
    /// By whom its id is known among those of the inbox; no user's id begins with `#`.
    pub const BY: &str = "#event";
}

/// Sets a user's presence. Setting what is already there changes nothing and yields no event, so that a repeat
/// after a lost answer is harmless.
#[derive(Debug, Clone)]
pub struct PresenceOp {
    /// Whose.
    pub user: UserId,
    /// The new roster entry; `None` removes the user.
    pub roster: Option<RosterEntry>,
    /// Replaces what is kept about an offline user, if given.
    pub seen: Option<Seen>,
    /// The event from `"user"` on ([`roost_proto::events::status_rest`]), if others see a change.
    pub event: Option<Bytes>,
}

/// A member of a room comes or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOp {
    /// The room's.
    pub stream: StreamId,
    /// Who.
    pub user: UserId,
    /// None: is not there any more.
    pub entry: Option<MemberEntry>,
    /// Which the members have with this change.
    pub version: Version,
    /// Nobody is left in the room: it needs no version any more.
    pub last: bool,
    /// Published: a [`Note`](roost_proto::live::Note).
    pub note: Bytes,
}

/// The answer to a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAnswer {
    /// Applied. The events got the seqs after the fence's, in the order of the operations.
    #[allow(
        missing_docs,
        reason = "the seq that the next write is fenced by, and a result for each operation"
    )]
    Done { seq: Seq, results: Vec<OpResult> },
    /// A larger epoch is stored.
    Deposed,
    /// No head, a smaller epoch, or another sid.
    Lost,
    /// The stored seq is smaller.
    Rewound,
    /// The store answers, and does not do it: it is full, for example. Nothing changed.
    Refused,
    /// The stored seq is larger: an earlier write of this owner landed late.
    #[allow(missing_docs, reason = "the seq that the next write is fenced by, and what is in the outbox")]
    Behind { seq: Seq, outbox: Vec<OutboxEvent> },
}

/// What one operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// One event.
    Appended {
        /// In the present generation.
        offset: Offset,
    },
    /// The id is known with this body: nothing was done.
    Duplicate {
        /// Of the first.
        offset: Offset,
        /// Of the first, in milliseconds since 1970.
        at: u64,
    },
    /// The id is known with another body: nothing was done.
    Conflict,
    /// An event was taken: one event.
    Accepted,
    /// Nothing was appended ([`Closes`]).
    Nobody,
    /// `changed` with an event given: one event.
    Presence {
        /// Something else was there before.
        changed: bool,
    },
    /// To [`Op::Open`].
    Opened(Opened),
    /// To [`Op::Ack`] and [`Op::Read`].
    Acked,
    /// To [`Op::Settle`].
    Settled,
    /// To [`Op::Receipts`].
    Receipts,
    /// With the message, if it was still due: one event.
    Undelivered {
        /// The frame, which is the event too.
        message: Option<Bytes>,
    },
    /// To [`Op::Member`].
    Member,
    /// The end of a stream, and the first offset in its hot window: `tail + 1` if that is empty.
    Tail {
        /// 0 if nothing was ever appended in this generation.
        tail: Offset,
        /// As in [`Opened`].
        first: Offset,
    },
}

/// Where a device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Last offset of the inbox in this generation.
    pub tail: Offset,
    /// First offset still in the hot window; `tail + 1` if the window is empty.
    pub first: Offset,
    /// The device's acked cursor.
    pub acked: Option<Cursor>,
    /// It is unknown, and devices of its user were forgotten: it may be one of them.
    pub forgotten: bool,
    /// Up to where its user has read.
    pub read: Option<Cursor>,
    /// What is kept about the user's presence.
    pub presence: PresenceRow,
}

/// How much of a stream one answer may have. The first entry is always among it, however large, so that a reader gets
/// on; a bound on entries alone would let a hundred of them be 6 MB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub entries: usize,
    /// Of their frames together.
    pub bytes: usize,
}

impl Limit {
    /// What fits of these entries, in their order.
    pub fn fit<'a>(
        self,
        entries: impl Iterator<Item = (Offset, &'a Bytes)>,
    ) -> impl Iterator<Item = (Offset, Bytes)> {
        let mut total = 0_usize;
        let fits = move |(n, (_, frame)): &(usize, (Offset, &Bytes))| {
            total = total.saturating_add(frame.len());
            *n == 0 || total <= self.bytes
        };
        let fitting = entries.take(self.entries).enumerate().take_while(fits);
        fitting.map(|(_, (offset, frame))| (offset, frame.clone()))
    }
}

/// A piece of a stream's hot window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// First offset in the window; 0 if it is empty.
    pub first: Offset,
    /// Offsets and frames, ascending without gaps.
    pub entries: Vec<(Offset, Bytes)>,
}
