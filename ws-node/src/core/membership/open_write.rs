//! A write that is made again, unchanged, before anything else is written.

use roost_backend::store::Write;

/// A write that is made again, unchanged, before anything else is written: what it gave a place has no other.
#[derive(Debug, Clone)]
pub(super) struct OpenWrite {
    pub(super) write: Box<Write>,
    /// The call that is under way.
    pub(super) call: Option<u64>,
    pub(super) not_before: u64,
}

impl OpenWrite {
    pub(super) fn new(write: &Write) -> Self {
        Self { write: Box::new(write.clone()), call: None, not_before: 0 }
    }
}
