//! What may go to one socket now.

use bytes::Bytes;
use roost_proto::ids::UserId;

use crate::core::actions::{Action, SendQueue};
use crate::core::effects::Effects;
use crate::core::keys::SessionKey;
use crate::core::rooms::Listener;
use crate::core::sessions::budget::Budget;
use crate::core::sessions::credit::Credit;

/// A session's credit, within what its user and the node may have on the way.
#[derive(Debug)]
pub(crate) struct Socket<'a> {
    pub(super) key: SessionKey,
    pub(super) user: &'a UserId,
    pub(super) credit: &'a mut Credit,
    pub(super) budget: &'a mut Budget,
}

impl Socket<'_> {
    /// Takes a frame's part; false if it may not go now. Then the session is fed again when there is room.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        self.budget.spend(self.key, self.user, self.credit, bytes)
    }

    /// A message goes to it; false if it may not go now.
    pub(crate) fn hand(&mut self, frame: &Bytes, fx: &mut Effects) -> bool {
        let goes = self.spend(frame.len());
        if goes {
            fx.count().delivered += 1;
            fx.push(Action::Frame { session: self.key, frame: frame.clone(), queue: SendQueue::Message });
        }
        goes
    }

    /// How many bytes may be read for it now, if that is worth it.
    pub(crate) fn room(&mut self) -> Option<usize> {
        self.budget.room(self.key, self.user, self.credit)
    }
}

/// A session in a room.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    pub listener: &'a mut Listener,
    pub socket: Socket<'a>,
    pub welcomed: bool,
}
