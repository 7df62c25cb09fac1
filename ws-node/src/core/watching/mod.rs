//! Users whose presence sessions of this node watch (rule 30): who watches whom, and may.
//!
//! A node follows the presence of a vnode for all its watchers together: [`replica`] is what it knows of it. A session
//! is given what a user shows in the answer to its `watch`, and each change since in a frame of the latest-wins queue,
//! so that who reads slowly has one frame waiting for each user, and ends right.

pub(in crate::core) mod keeping;
pub(in crate::core) mod replica;
pub(in crate::core) mod watches;

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::ids::{MessageId, UserId, VnodeId};

use crate::core::keys::SessionKey;
use crate::core::watching::replica::PresenceReplica;

/// All that is watched from a node.
#[derive(Debug, Default)]
pub(super) struct Watching {
    vnodes: BTreeMap<VnodeId, PresenceReplica>,
    watchers: BTreeSet<SessionKey>,
    /// Those of them that wait for an answer.
    waiting: BTreeSet<SessionKey>,
}

impl Watching {
    pub(super) fn users(&self) -> usize {
        self.vnodes.values().map(PresenceReplica::users).sum()
    }

    pub(super) fn watchers(&self) -> usize {
        self.watchers.len()
    }
}

/// What one session watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    users: BTreeSet<UserId>,
    asking: Vec<WatchAsked>,
}

/// A `watch` that is not answered yet.
#[derive(Debug)]
pub(super) struct WatchAsked {
    id: MessageId,
    users: Vec<UserId>,
    /// Of whom nothing is known yet.
    missing: BTreeSet<UserId>,
    until: u64,
}

impl Watches {
    /// Something is known of a user, or the user is not watched any more.
    fn not_missing(&mut self, user: &UserId) {
        for asking in &mut self.asking {
            asking.missing.remove(user);
        }
    }
}
