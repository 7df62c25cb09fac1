//! What happens to the core.

use bytes::Bytes;
use roost_backend::log::LogRecord;
use roost_backend::store::*;
use roost_proto::frames::RoomAt;
use roost_proto::ids::{Cursor, DeviceId, Epoch, MessageId, Offset, Sid, StreamId, UserId, VnodeId};
use roost_proto::records::Record;

use crate::core::calls::ApiCommand;
use crate::core::command::Command;
use crate::core::keys::{CallKey, SessionKey};
use crate::core::outbound::link::LinkInput;
use crate::core::rights::Rights;

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

/// An answer that may not have come: `None` means unknown, the request may take effect even later.
pub type Maybe<T> = Option<T>;

#[derive(Debug)]
pub enum Input {
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
    /// Records that came by the link which another node opened to the life `to` of this one.
    Copies {
        to: Sid,
        records: Vec<Record>,
    },
    Link(LinkInput),
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
    Calls(Vec<(CallKey, ApiCommand)>),
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
