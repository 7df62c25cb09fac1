//! Every question to the store. What an answer becomes is said where it is put: `questions.rs` beside the core.

use roost_backend::store::*;
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, StreamId, UserId, VnodeId};

use crate::core::keys::SessionKey;

/// One question. `sent` is when it leaves, on the monotonic clock in milliseconds.
#[derive(Debug)]
pub enum Ask {
    Register(Box<Register>),
    Claim {
        claim: Claim,
        sent: u64,
    },
    Activate(Activate),
    /// Of one row.
    Ready(OwnRows),
    Release(OwnRows),
    Renew {
        renew: Renew,
        sent: u64,
    },
    Write {
        call: u64,
        write: Box<Write>,
    },
    /// For a session, or for all that share a read in a room.
    Read {
        ask: u64,
        session: Option<SessionKey>,
        vnode: VnodeId,
        stream: StreamId,
        generation: Epoch,
        after: Offset,
        limit: Limit,
    },
    Page {
        ask: u64,
        session: SessionKey,
        id: MessageId,
        vnode: VnodeId,
        stream: StreamId,
        before: Option<Cursor>,
        limit: Limit,
    },
    /// Where do these rooms stand?
    Standings(Vec<(VnodeId, StreamId)>),
    /// What do these users of a vnode show?
    Presence {
        vnode: VnodeId,
        users: Vec<UserId>,
        ask: u64,
    },
    /// Where does the presence of these vnodes stand?
    PresenceStandings(Vec<VnodeId>),
}
