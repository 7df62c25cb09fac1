//! What the core wants done.

use std::borrow::Cow;

use bytes::Bytes;
use roost_backend::log::{Durability, Outgoing};
use roost_backend::store::*;
use roost_proto::codes::CloseCode;
use roost_proto::frames::Reply;

use crate::core::ask::Ask;
use crate::core::keys::{CallKey, SessionKey};
use crate::core::outbound::link::LinkOrder;

/// Which of a session's queues a frame takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendQueue {
    /// Bounded by what the session may have unanswered.
    Reply,
    /// On credit: what does not fit is read from the stream later.
    Message,
    /// On credit of its own: what does not fit is replaced by what comes later.
    Signal,
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
    RefreshTable,
    Produce {
        durability: Durability,
        record: Outgoing,
    },
    Link(LinkOrder),
    /// Follows and unfollows are carried out in their order.
    Follow {
        channel: LiveChannel,
        ask: u64,
    },
    Unfollow {
        channel: LiveChannel,
    },
    /// Publish what is kept nowhere.
    Publish {
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
    /// A frame for a session's socket; those on credit come back as `Input::Drained`.
    Frame {
        session: SessionKey,
        frame: Bytes,
        queue: SendQueue,
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
