//! What a home does in its next write, the write in flight, and what is told when the log has it.

use roost_backend::store::{AppendOp, InboxPosition, MemberOp, Op, OpResult, Write};
use roost_proto::ids::{DeviceId, MessageId, Sid, UserId};
use roost_proto::records::ItemResult;

use crate::core::keys::SessionKey;

/// The item of a channel whose sender waits for the result.
#[derive(Debug, Clone)]
pub(crate) struct OfItem {
    pub(super) sid: Sid,
    pub(super) chan: u64,
    pub(super) n: u64,
}

/// Something to be done in the next write.
#[derive(Debug)]
pub(crate) enum Work {
    /// An item of a channel, with the op it becomes.
    Item {
        item: OfItem,
        op: Op,
        arrived_us: u64,
    },
    Member(MemberOp),
    Open {
        session: SessionKey,
        user: UserId,
        device: Option<DeviceId>,
    },
    Presence {
        op: roost_backend::store::PresenceOp,
        replies: Vec<(SessionKey, MessageId)>,
    },
    Undelivered {
        place: InboxPosition,
        bytes: usize,
    },
    /// Nobody answered an event.
    TimedOut {
        op: AppendOp,
        arrived_us: u64,
    },
}

impl Work {
    /// How many events it put into the outbox.
    pub(super) fn emits(&self, result: &OpResult) -> u64 {
        match (self, result) {
            (Self::Presence { op, .. }, OpResult::Presence { changed: true }) => {
                u64::from(op.event.is_some())
            }
            (_, OpResult::Appended { .. } | OpResult::Accepted) => 1,
            (_, OpResult::Undelivered { message: Some(_) }) => 1,
            _ => 0,
        }
    }

    /// Who waits for a reply to it.
    pub(super) fn replies(self) -> Vec<(SessionKey, MessageId)> {
        if let Self::Presence { replies, .. } = self { replies } else { Vec::new() }
    }
}

/// The write in flight, kept until it is answered for certain.
#[derive(Debug)]
pub(crate) struct WriteInFlight {
    pub(super) id: u64,
    pub(super) work: Vec<Work>,
    /// When it was first sent, on the monotonic clock: since then its data has not answered.
    pub(super) since: u64,
    /// Acks come first in the write, so that an opening behind them sees them; nobody waits for their results.
    pub(super) acks: usize,
    /// With it all is written that was acknowledged before.
    pub(super) says_all: bool,
    pub(super) write: Write,
    pub(super) sent_us: u64,
    /// When to try again after an unknown outcome.
    pub(super) again_at: Option<u64>,
    pub(super) tries: u32,
}

/// What is told when the log has everything up to a seq.
#[derive(Debug)]
pub(crate) enum Held {
    Result {
        item: OfItem,
        result: ItemResult,
    },
    Opened {
        session: SessionKey,
    },
    Reply {
        session: SessionKey,
        id: MessageId,
    },
    /// Those that wait for this.
    Receipts,
}
