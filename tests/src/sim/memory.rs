//! Who is remembered: what each process knows of the users of its homes, from the rosters it got and from what it
//! wrote, until a home with the same data knows it too.
//!
//! After a loss of the store's data nobody can publish the end of a user whom no living process remembers
//! (docs/decisions/0003). Everyone else must be right.

use std::collections::BTreeMap;

use roost_backend::store::{Activated, Op, Write};
use roost_proto::ids::{UserId, VnodeId};

use super::World;
use super::store::Peer;

#[derive(Default)]
pub(crate) struct Memory(BTreeMap<(VnodeId, usize), Users>);

/// With the life of the store that had them last.
type Users = BTreeMap<UserId, u64>;

impl World {
    pub(super) fn saw_activated(&mut self, vnode: VnodeId, by: Peer, activated: &Activated) {
        self.saw_users(vnode, by, activated.roster.iter().map(|(user, _)| user.clone()));
    }

    pub(super) fn saw_presence_kept(&mut self, by: Peer, write: &Write) {
        let users = write.ops.iter().filter_map(|op| match op {
            Op::Presence(op) => Some(op.user.clone()),
            _ => None,
        });
        self.saw_users(write.fence.vnode, by, users);
    }

    fn saw_users(&mut self, vnode: VnodeId, by: Peer, users: impl Iterator<Item = UserId>) {
        let Peer::Node(pid) = by else { return };
        let run = self.run;
        self.watch.memory.0.entry((vnode, pid)).or_default().extend(users.map(|user| (user, run)));
    }

    /// A home that is ready has the roster: nobody else need remember what was in it.
    pub(super) fn saw_home(&mut self, vnode: VnodeId, by: Peer) {
        let others =
            self.watch.memory.0.iter_mut().filter(|((v, pid), _)| *v == vnode && Peer::Node(*pid) != by);
        for (_, users) in others {
            users.retain(|_, run| *run != self.run);
        }
    }

    pub(super) fn is_remembered(&self, vnode: VnodeId, user: &UserId) -> bool {
        let living = self.alive().into_iter().filter_map(|pid| self.watch.memory.0.get(&(vnode, pid)));
        living.into_iter().any(|known| known.contains_key(user))
    }
}
