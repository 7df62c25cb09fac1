//! What a home knew of its users outlives it, until another's home knows as much: should the store lose its data in
//! between, nobody else could publish that those who went are gone (docs/decisions/0003).

use std::collections::BTreeMap;

use roost_backend::store::DataSet;
use roost_proto::ids::{Epoch, UserId};

use crate::core::homes::presence::UserPresence;

/// The users of a home that ended here.
#[derive(Debug)]
pub(in crate::core) struct Remembered {
    /// The store's data that knows them too.
    pub(super) data_set: DataSet,
    /// Of its data, as the home had it.
    pub(super) generation: Epoch,
    pub(super) members: BTreeMap<UserId, UserPresence>,
    /// The home that is told.
    pub(super) told: Epoch,
    pub(super) tell_at: u64,
}

impl Remembered {
    /// Keeps whom a home under `data_set` may lack: others may be shown them, and no roster under these data has them.
    pub(super) fn keep_untold(&mut self, data_set: &DataSet) {
        let (same, generation) = (self.data_set == *data_set, self.generation);
        self.members.retain(|_, m| {
            // Under the same data who was shown is in the roster.
            m.said = m.said.take().filter(|_| !same);
            m.shown(generation).is_some() && !(same && m.stored.is_some())
        });
    }
}
