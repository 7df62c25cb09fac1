//! What waits for the result of an item.

use roost_proto::ids::VnodeId;

use crate::core::keys::{CallKey, SessionKey};

/// Who is answered with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Session(SessionKey),
    /// The server API.
    Api(CallKey),
}

impl Caller {
    pub(crate) fn session(self) -> Option<SessionKey> {
        if let Self::Session(key) = self { Some(key) } else { None }
    }
}

impl From<SessionKey> for Caller {
    fn from(key: SessionKey) -> Self {
        Self::Session(key)
    }
}

impl From<CallKey> for Caller {
    fn from(key: CallKey) -> Self {
        Self::Api(key)
    }
}

/// What a room's home is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Where the stream ends.
    Tail,
    /// Nothing: it is told who is here.
    MemberUpdate,
    Members,
}

/// The part of this node that an item is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Caller(Caller),
    /// A room, which asked its home under this number.
    Room(Question, u64),
    Canary,
    /// The home of this vnode, which owes a receipt.
    Receipt(VnodeId),
    /// Acknowledgements that are kept for this vnode.
    Acks(VnodeId),
    /// A page of results, by the number of the result.
    Result(u64),
}

impl Asker {
    pub(crate) fn session(self) -> Option<SessionKey> {
        if let Self::Caller(caller) = self { caller.session() } else { None }
    }

    /// It is not told that there is no answer yet: it waits as long as it takes.
    pub(crate) fn is_patient(self) -> bool {
        matches!(self, Self::Room(..))
    }
}

impl<T: Into<Caller>> From<T> for Asker {
    fn from(caller: T) -> Self {
        Self::Caller(caller.into())
    }
}
