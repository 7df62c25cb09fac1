//! What happens to the core, and what it wants done.

use std::borrow::Cow;

use bytes::Bytes;
use roost_backend::log::{LogRecord, Outgoing};
use roost_backend::store::*;
use roost_proto::codes::CloseCode;
use roost_proto::frames::{Reply, RoomAt};
use roost_proto::ids::{Cursor, DeviceId, Epoch, MessageId, Offset, StreamId, UserId, VnodeId};
use roost_proto::records::Record;

use super::ask::Ask;
use super::calls::Call;
use super::command::Command;
use super::session::Rights;

/// The time of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a monotonic clock: all deadlines.
    pub mono: u64,
    /// Milliseconds since 1970: what is shown, and ages of ids. Unlike `mono` it goes on while the machine sleeps.
    pub wall: u64,
    /// Microseconds on the monotonic clock: for the histograms only.
    pub us: u64,
}

/// One connection, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// One command of the server API, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey(pub u64);

/// An authenticated `connect`.
#[derive(Debug, Clone)]
pub struct Connecting {
    pub session: SessionKey,
    pub user: UserId,
    pub device: Option<DeviceId>,
    pub rights: Rights,
    pub epoch: Option<Epoch>,
    pub cursor: Option<Cursor>,
    pub rooms: Vec<RoomAt>,
}

/// Which of a session's lanes a frame takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Bounded by what the session may have unanswered.
    Reply,
    /// On credit: what does not fit is read from the stream later.
    Message,
    /// On credit of its own: what does not fit is replaced by what comes later.
    Signal,
}

/// An answer that may not have come: `None` means unknown, the request may take effect even later.
pub type Maybe<T> = Option<T>;

#[derive(Debug)]
pub enum Event {
    Tick,
    View(Box<Table>),
    Registered(Maybe<RegisterAnswer>),
    /// `sent` is when the request left, on the monotonic clock.
    Renewed {
        sent: u64,
        rows: Vec<(VnodeId, Epoch)>,
        answer: Maybe<RenewAnswer>,
    },
    Claimed {
        vnode: VnodeId,
        sent: u64,
        answer: Maybe<ClaimAnswer>,
    },
    Activated {
        vnode: VnodeId,
        epoch: Epoch,
        answer: Maybe<ActivateAnswer>,
    },
    Readied {
        vnode: VnodeId,
        epoch: Epoch,
        answer: Maybe<bool>,
    },
    Released {
        vnode: VnodeId,
        epoch: Epoch,
    },
    Written {
        vnode: VnodeId,
        call: u64,
        answer: Maybe<WriteAnswer>,
    },
    /// To `session`, or to all that share a read in a room; `ask` is that of the question.
    Read {
        ask: u64,
        session: Option<SessionKey>,
        stream: StreamId,
        generation: Epoch,
        after: Offset,
        answer: Maybe<Window>,
    },
    /// For a session, or for a room.
    LogEnd {
        session: Option<SessionKey>,
        ask: u64,
        partition: u32,
        answer: Maybe<u64>,
    },
    Reported {
        token: u64,
        ok: bool,
    },
    Record(Record),
    /// A record of the node's topic that is not a [`Record`].
    Undecodable,
    /// Whether the log answers, whenever that was asked.
    LogAnswers(bool),
    Connect(Box<Connecting>),
    /// An open session says something.
    Command {
        session: SessionKey,
        command: Command,
    },
    /// Read of a partition of `client_results`, for the action with this `ask`.
    Results {
        partition: u32,
        ask: u64,
        records: Vec<LogRecord>,
    },
    /// `ask` is that of the action.
    Followed {
        channel: LiveChannel,
        ask: u64,
        done: bool,
    },
    /// Something came through a channel that is followed.
    Live {
        channel: LiveChannel,
        payload: Bytes,
    },
    /// Something may have been missed in any channel.
    Missed,
    Standings {
        rooms: Vec<(VnodeId, StreamId)>,
        answer: Maybe<Vec<Option<Standing>>>,
    },
    /// `users` and `ask` are those of the action.
    PresenceRead {
        vnode: VnodeId,
        users: Vec<UserId>,
        ask: u64,
        answer: Maybe<Presences>,
    },
    PresenceStandings {
        vnodes: Vec<VnodeId>,
        answer: Maybe<Vec<PresenceStanding>>,
    },
    Paged {
        ask: u64,
        session: SessionKey,
        id: MessageId,
        stream: StreamId,
        before: Option<Cursor>,
        answer: Maybe<Page>,
    },
    /// Commands of the server API, to be taken in this order; each key is answered once.
    Calls(Vec<(CallKey, Call)>),
    /// The session's socket took this many frames and bytes of messages, and of signals.
    Drained {
        session: SessionKey,
        messages: (usize, usize),
        signals: (usize, usize),
    },
    Closed {
        session: SessionKey,
    },
    /// Hand everything over: the process is to stop, or an operator wants it empty.
    Drain,
    /// An operator wants it back.
    Undrain,
    /// Nobody plans, or time is short: give everything up in good order.
    ReleaseAll,
}

#[derive(Debug)]
pub enum Action {
    /// Of the store.
    Ask(Ask),
    /// Where does a partition of `chat_events` end?
    LogEnd {
        session: Option<SessionKey>,
        ask: u64,
        partition: u32,
    },
    /// Read the table now.
    Refresh,
    Produce {
        lane: roost_backend::log::Lane,
        record: Outgoing,
    },
    /// Follows and unfollows are carried out in their order.
    Follow {
        channel: LiveChannel,
        ask: u64,
    },
    Unfollow {
        channel: LiveChannel,
    },
    /// Publish what is kept nowhere.
    Shout {
        channel: LiveChannel,
        payload: Bytes,
    },
    /// Reads a partition of `client_results` from where it is committed: one page, and the next when that is done with.
    ReadResults {
        partition: u32,
        ask: u64,
    },
    LeaveResults {
        partition: u32,
    },
    /// All before `next` are where they should be.
    ResultsDone {
        partition: u32,
        ask: u64,
        next: u64,
    },
    /// A frame for a session's socket; those on credit come back as [`Event::Drained`].
    Frame {
        session: SessionKey,
        frame: Bytes,
        lane: Lane,
    },
    /// A message for many sessions' sockets, on credit as one for each.
    Fan {
        sessions: Vec<SessionKey>,
        frame: Bytes,
    },
    Close {
        session: SessionKey,
        code: CloseCode,
        reason: Cow<'static, str>,
    },
    /// The answer to a command of the server API.
    Answer {
        call: CallKey,
        reply: Box<Reply>,
    },
    Observe(Observation, u64),
    /// The process is to stop.
    End(Ending),
}

/// Why a node ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A later process of this NODE_ID took over.
    Replaced,
    /// This sid was taken from the table, by a leader that had it for gone or by an operator.
    Forgotten,
}

/// A duration in microseconds for a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Observation {
    /// A write of one batch: sent → answered.
    Append,
    /// An item: arrived at its home → handed to a live session.
    Delivery,
    /// A send: read from the socket → reply handed to it.
    Reply,
}

/// What the gauges show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    pub sessions: usize,
    /// Rooms with sessions of this node in them, and how many sessions that are.
    pub rooms: usize,
    pub listeners: usize,
    /// Users watched from this node, and sessions that watch.
    pub watched: usize,
    pub watchers: usize,
    pub owned: usize,
    pub ready: usize,
    pub lease_left_ms: Option<u64>,
    pub outbox: usize,
    pub channel_items: usize,
    pub view_age_ms: u64,
    /// There is an assignment, or it has pins: it knows which vnodes are its own.
    pub assigned: bool,
    pub registered: bool,
    /// Since the last canary that got through was sent.
    pub canary_age_ms: u64,
    pub canary_took_ms: Option<u64>,
    pub accepts_per_s: u64,
    /// Bytes under way to the store in writes and in reads, and to sockets beyond what each has for itself.
    pub write_bytes: usize,
    pub read_bytes: usize,
    pub socket_bytes: usize,
    pub draining: bool,
}
