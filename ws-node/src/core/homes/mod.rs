//! The vnodes that live here: what was given to them, what they write, and what outlives them (rules 8–15, 18).

pub(in crate::core) mod acks;
pub(in crate::core) mod applying;
pub(in crate::core) mod deadlines;
pub(in crate::core) mod explaining;
pub(in crate::core) mod home;
pub(in crate::core) mod inheriting;
pub(in crate::core) mod items;
pub(in crate::core) mod kept;
pub(in crate::core) mod listing;
pub(in crate::core) mod members;
pub(in crate::core) mod most;
pub(in crate::core) mod outbox;
pub(in crate::core) mod presence;
pub(in crate::core) mod receipts;
pub(in crate::core) mod remembered;
pub(in crate::core) mod sender;
pub(in crate::core) mod sending_receipts;
pub(in crate::core) mod statuses;
pub(in crate::core) mod sweeping;
pub(in crate::core) mod telling;
pub(in crate::core) mod tickets;
pub(in crate::core) mod transferring;
pub(in crate::core) mod unacked;
pub(in crate::core) mod work;
pub(in crate::core) mod writes;
pub(in crate::core) mod writing;

use std::collections::BTreeMap;

use roost_proto::ids::{Epoch, VnodeId};

use crate::core::config::CoreConfig;
use crate::core::homes::home::Home;
use crate::core::homes::kept::Kept;
use crate::core::homes::outbox::Outbox;
use crate::core::homes::remembered::Remembered;
use crate::core::homes::writes::Writes;
use crate::core::keys::Now;

/// How often every user of every home is looked at: the precision of linger and grace, in milliseconds.
pub(in crate::core) const SWEEP_MS: u64 = 250;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Homes {
    map: BTreeMap<VnodeId, Home>,
    /// What they have for the store.
    writes: Writes,
    /// When a write of any of them was last answered, on the monotonic clock.
    answered_at: u64,
    /// The users of homes that ended here, until another's home knows them.
    remembered: BTreeMap<VnodeId, Remembered>,
    /// What was acknowledged and no home has written yet.
    kept: Kept,
    /// Outboxes of homes that ended with events not yet in the log.
    draining_outboxes: BTreeMap<(VnodeId, Epoch), Outbox>,
    swept_at: u64,
    /// Since when the log has not answered.
    no_log_since: Option<u64>,
}

impl Homes {
    pub(super) fn get(&self, vnode: &VnodeId) -> Option<&Home> {
        self.map.get(vnode)
    }

    pub(super) fn get_mut(&mut self, vnode: &VnodeId) -> Option<&mut Home> {
        self.map.get_mut(vnode)
    }

    pub(super) fn contains_key(&self, vnode: &VnodeId) -> bool {
        self.map.contains_key(vnode)
    }

    /// Whether a home's data has not answered for a lease.
    pub(super) fn is_silent(&self, home: &Home, cfg: &CoreConfig, now: Now) -> bool {
        home.is_silent(cfg, self.answered_at, now)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Home> {
        self.map.values()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The log answers, or does not.
    pub(super) fn log_answers(&mut self, answers: bool, now: Now) {
        if answers {
            self.no_log_since = None;
        } else {
            self.no_log_since.get_or_insert(now.mono);
        }
    }

    /// Whether something is left of homes that ended that is not in the log yet.
    pub(super) fn has_draining_outboxes(&self) -> bool {
        !self.draining_outboxes.is_empty()
    }

    /// Whether something was acknowledged that the home elsewhere has not heard.
    pub(super) fn has_unheard(&self) -> bool {
        self.kept.has_unheard()
    }

    /// The outbox of a home that ended goes out under its old epoch.
    pub(super) fn leave(&mut self, vnode: VnodeId, epoch: Epoch, outbox: Outbox) {
        self.draining_outboxes.insert((vnode, epoch), outbox);
    }

    /// What an earlier home here knew of its users.
    pub(super) fn take_remembered(&mut self, vnode: VnodeId) -> Option<Remembered> {
        self.remembered.remove(&vnode)
    }

    /// Bytes under way to the store.
    pub(super) fn write_bytes(&self) -> usize {
        self.writes.bytes()
    }

    pub(super) fn vnodes(&self) -> Vec<VnodeId> {
        self.map.keys().copied().collect()
    }

    pub(super) fn insert(&mut self, home: Home) {
        self.map.insert(home.vnode, home);
    }

    pub(super) fn remove(&mut self, vnode: &VnodeId) -> Option<Home> {
        self.map.remove(vnode)
    }
}
