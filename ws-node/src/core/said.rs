//! What clients said of their inboxes, and who said it.

use roost_proto::ids::{Cursor, DeviceId, UserId};

/// Who said something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub user: UserId,
    /// Without one it settles what is due, and moves no cursor.
    pub device: Option<DeviceId>,
    /// Invisible then: nobody gets a receipt of it.
    pub quiet: bool,
}

impl Who {
    pub(super) fn on_no_device(self) -> Self {
        Self { device: None, ..self }
    }

    pub(in crate::core) fn bytes(&self) -> usize {
        ENTRY_BYTES + self.user.as_str().len() + self.device.as_ref().map_or(0, |d| d.as_str().len())
    }
}

/// Of an entry, beside its names.
const ENTRY_BYTES: usize = 128;

/// What a client said of its inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SaidUpTo {
    pub acked: Option<Cursor>,
    pub read: Option<Cursor>,
}

impl SaidUpTo {
    /// It is cumulative.
    pub(super) fn add(&mut self, other: Self) {
        self.acked = self.acked.max(other.acked);
        self.read = self.read.max(other.read);
    }
}
