//! Who is remembered: what the home of each vnode knows of its users, from the roster it got and from what it wrote.
//!
//! After a loss of the store's data nobody can publish the end of a user whom no living home remembers
//! (docs/decisions/0003). Everyone else must be right.

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::{Activated, Op, Write};
use roost_proto::ids::{UserId, VnodeId};

use super::World;
use super::store::Peer;

#[derive(Default)]
pub(crate) struct Memory(BTreeMap<VnodeId, (Peer, BTreeSet<UserId>)>);

impl Memory {
    /// The same process goes on with what it knows; another has only what the store gives it.
    fn activated(&mut self, vnode: VnodeId, by: Peer, activated: &Activated) {
        let known = self.0.entry(vnode).or_insert_with(|| (by, BTreeSet::new()));
        if known.0 != by {
            *known = (by, BTreeSet::new());
        }
        known.1.extend(activated.roster.iter().map(|(user, _)| user.clone()));
    }

    fn wrote(&mut self, write: &Write) {
        let Some((_, known)) = self.0.get_mut(&write.fence.vnode) else { return };
        for op in &write.ops {
            if let Op::Presence(op) = op {
                known.insert(op.user.clone());
            }
        }
    }
}

impl World {
    pub(super) fn saw_activated(&mut self, vnode: VnodeId, by: Peer, activated: &Activated) {
        self.watch.memory.activated(vnode, by, activated);
    }

    pub(super) fn saw_presence_kept(&mut self, write: &Write) {
        self.watch.memory.wrote(write);
    }

    pub(super) fn is_remembered(&self, vnode: VnodeId, user: &UserId) -> bool {
        self.watch.memory.0.get(&vnode).is_some_and(|(_, known)| known.contains(user))
    }
}
