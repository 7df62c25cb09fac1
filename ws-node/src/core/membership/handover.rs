//! Giving vnodes up in good order: to the node that should have them, or to nobody in particular (rules 16, 22).

use std::collections::BTreeMap;

use roost_backend::store::*;
use roost_proto::ids::{Epoch, NodeId, VnodeId};

use crate::core::actions::Action;
use crate::core::ask::Ask;
use crate::core::homes::home::{Home, Phase};
use crate::core::keys::{Now, SessionKey};
use crate::core::membership::Registration;
use crate::core::node::NodeCore;
use crate::core::sessions::session::Session;

/// As many homes are stopped as have sessions that can go within this time, in milliseconds: it bounds how long a
/// message waits for a session that moves.
const HANDOVER_AHEAD_MS: u64 = 50;

impl NodeCore {
    /// Vnodes whose target is another living node: stop, empty the outbox, release. Not while the store settles: only
    /// who holds a vnode is served then, so nobody could take it (rule 19).
    pub(super) fn hand_over_what_is_not(&mut self, now: Now) {
        if self.membership.view.settling {
            return;
        }
        let leaving = |home: &Home| {
            let target = self.membership.view.assignment.targets.get(&home.vnode())?;
            let goes = home.phase() == Phase::Ready && *target != self.cfg.node && self.is_up(target);
            goes.then(|| (home.vnode(), target.clone()))
        };
        let stopping: Vec<_> = self.homes.values().filter_map(leaving).collect();
        if stopping.is_empty() {
            return;
        }
        let mut waiting = self.sessions_adrift();
        for (vnode, target) in stopping {
            // The sessions of what was handed over before go first: a session waits from when its home stops.
            let first = waiting.entry(target.clone()).or_default();
            let ahead = *first * 1000 / self.sends_per_s(&target);
            if ahead + self.sessions.behind(&target, now) <= HANDOVER_AHEAD_MS {
                *first += self.sessions.at(vnode).count() as u64;
                self.fx.count().handoffs += 1;
                self.stop_home(vnode, now);
            }
        }
    }

    /// For each node the sessions that go there as soon as it is ready for them: their home here has stopped, or is
    /// gone already, and they are not told to move yet.
    fn sessions_adrift(&self) -> BTreeMap<NodeId, u64> {
        let mut adrift = BTreeMap::new();
        for vnode in self.sessions.vnodes() {
            let Some(target) = self.membership.view.assignment.targets.get(&vnode) else { continue };
            if self.homes.get(&vnode).is_some_and(|home| home.phase() == Phase::Ready) {
                continue;
            }
            let waits = |key: &SessionKey| self.sessions.get(key).is_some_and(Session::is_adrift);
            let waiting = self.sessions.at(vnode).filter(waits).count();
            *adrift.entry(target.clone()).or_default() += waiting as u64;
        }
        adrift
    }

    fn is_up(&self, node: &roost_proto::NodeId) -> bool {
        self.membership.view.nodes.get(node).is_some_and(|row| row.state == NodeState::Up)
    }

    fn stop_home(&mut self, vnode: VnodeId, now: Now) {
        if let Some(home) = self.homes.get_mut(&vnode) {
            let waiting = home.stop();
            self.refuse_waiting(waiting);
            self.hold_sessions(vnode, now);
            self.fx.touch(vnode);
        }
    }

    /// A stopping home with nothing in flight and nothing left for the log gives its row up.
    pub(in crate::core) fn release_if_done(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        if home.is_done(now) {
            self.give_row_up(vnode, now);
        }
    }

    fn give_row_up(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        home.release(now);
        let epoch = home.epoch();
        self.release_row(vnode, epoch);
    }

    pub(super) fn release_row(&mut self, vnode: VnodeId, epoch: Epoch) {
        let (data_set, sid) = (self.membership.view.data_set.clone(), self.membership.sid.clone());
        self.fx.push(Action::Ask(Ask::Release(OwnRows { data_set, sid, rows: vec![(vnode, epoch)] })));
    }

    /// Whatever the answer was, the row counts as given up (rule 16).
    pub(in crate::core) fn on_released(&mut self, vnode: VnodeId, epoch: Epoch, now: Now) {
        if self.homes.get(&vnode).is_some_and(|h| h.epoch() == epoch && h.phase() == Phase::Releasing) {
            if let Some(mut home) = self.homes.remove(&vnode) {
                self.note_left(vnode, &home);
                self.remember(&mut home);
            }
            if self.membership.view.rows.get(&vnode).is_some_and(|r| r.sid == self.membership.sid) {
                self.membership.view.rows.remove(&vnode);
            }
            self.set_adrift(vnode, now);
            self.refresh_table(now);
        }
    }

    pub(in crate::core) fn on_drain(&mut self, now: Now) {
        self.membership.state = NodeState::Draining;
        // What was asked may be granted: then it is handed over like the rest.
        self.membership.claims.retain(|_, c| c.held(now).is_some() || c.asked.is_some());
        if self.membership.registration == Registration::Yes {
            self.renew(now);
        }
    }

    pub(in crate::core) fn on_undrain(&mut self, now: Now) {
        self.membership.state = NodeState::Up;
        if self.membership.registration == Registration::Yes {
            self.renew(now);
        }
    }

    pub(in crate::core) fn release_all(&mut self, now: Now) {
        self.membership.state = NodeState::Draining;
        self.membership.claims.clear();
        for vnode in self.homes.vnodes() {
            match self.homes.get(&vnode).map(Home::phase) {
                Some(Phase::Ready | Phase::Inheriting) => self.stop_home(vnode, now),
                Some(Phase::Activating) => self.give_row_up(vnode, now),
                Some(Phase::Stopping | Phase::Releasing) | None => {}
            }
        }
    }
}
