//! What may go to one socket now.

use roost_proto::ids::UserId;

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
