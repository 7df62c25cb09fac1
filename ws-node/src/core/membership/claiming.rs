//! A vnode on its way to this node.

use roost_proto::ids::{Epoch, Seq, Sid};

use crate::core::keys::Now;
use crate::core::membership::open_write::OpenWrite;

/// A vnode on its way to this node.
#[derive(Debug, Clone)]
pub(super) struct Claiming {
    /// What this node held when it began, and until when that proves anything: past the lease's deadline another
    /// may have had the vnode, even if the data went back to before that.
    pub(super) held: Option<(Epoch, Seq)>,
    pub(super) held_until: u64,
    /// It was found that the data went away or back.
    pub(super) prove: bool,
    /// Of unknown outcome when it began: listeners may hold what a store that went back has not.
    pub(super) open: Option<OpenWrite>,
    pub(super) floor: Epoch,
    pub(super) asked: Option<u64>,
    pub(super) not_before: u64,
    /// Whose row was there before, as far as this node knew.
    pub(super) previous: Option<Sid>,
}

impl Claiming {
    pub(super) fn held(&self, now: Now) -> Option<(Epoch, Seq)> {
        self.held.filter(|_| now.mono < self.held_until)
    }
}
