//! Sessions are placed at their home, wait for it, and are told to move (rules 22, 27).

use roost_proto::codes::CloseCode;
use roost_proto::frames::{Moved, ServerFrame};
use roost_proto::ids::{Epoch, NodeId, VnodeId};

use crate::core::homes::SWEEP_MS;
use crate::core::homes::home::Home;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::sessions::session::{Session, State};

/// How long a `connect` waits for a home that is on its way (rule 27), in milliseconds.
pub(super) const CONNECT_WAIT_MS: u64 = 5000;

/// A session that was told to move is closed this long after it should have gone, in milliseconds.
const MOVED_CLOSE_MS: u64 = 5000;

impl NodeCore {
    /// Puts a session that has no home into the queue of its home, or tells it where that is.
    pub(in crate::core) fn assign_home(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        if !matches!(session.state, State::Waiting { .. } | State::Adrift { .. }) {
            return;
        }
        let vnode = session.vnode;
        if self.homes.get(&vnode).is_some_and(|h| h.serving(now)) {
            // The rooms first: what is read of the inbox gets old while they are waited for.
            self.arrive(key, now);
            let full = self.cfg.queue_max;
            let room = |h: &&mut Home| h.queue_len() < full;
            let Some(home) = self.homes.get_mut(&vnode).filter(room) else { return };
            let Some(session) = self.sessions.map.get_mut(&key) else { return };
            if session.seats.is_complete() {
                let (user, device) = (session.user.clone(), session.device.clone());
                session.state = State::Opening { until: now.mono + CONNECT_WAIT_MS };
                session.opening_since = now.mono;
                home.open(key, user, device);
                self.fx.touch(vnode);
            }
            return;
        }
        // A client that was sent here by newer knowledge waits until this node has it too.
        let stale = session.epoch.is_some_and(|e| e > self.membership.epoch_of(vnode));
        let row = self.membership.ready_elsewhere(vnode).filter(|_| !stale);
        let view = self.membership.view();
        let there = row.and_then(|r| view.nodes.get(&r.node()).map(|n| (r.node(), n.url.clone(), r.epoch)));
        match there {
            Some((node, url, epoch)) if !self.homes.contains_key(&vnode) => {
                self.tell_moved(key, &node, &url, epoch, now);
            }
            _ => self.refresh_table(now),
        }
    }

    /// The table changed: sessions without a home may have one now.
    pub(in crate::core) fn assign_homes(&mut self, now: Now) {
        let keys: Vec<_> = self
            .sessions
            .map
            .iter()
            .filter(|(_, s)| matches!(s.state, State::Waiting { .. } | State::Adrift { .. }))
            .map(|(k, _)| *k)
            .collect();
        for key in keys {
            self.assign_home(key, now);
        }
    }

    /// The vnode's home is not ready for now: its sessions wait.
    pub(in crate::core) fn hold_sessions(&mut self, vnode: VnodeId, now: Now) {
        for key in self.sessions.at(vnode).collect::<Vec<_>>() {
            let Some(session) = self.sessions.map.get_mut(&key) else { continue };
            session.counted = false;
            match session.state {
                State::Opening { .. } | State::Locating { .. } | State::Live if session.welcomed => {
                    session.state = State::Adrift { since: now.mono };
                }
                State::Opening { .. } | State::Locating { .. } | State::Live => {
                    session.state = State::Waiting { until: now.mono + CONNECT_WAIT_MS };
                }
                State::Waiting { .. } | State::Adrift { .. } | State::Moved { .. } => {}
            }
        }
    }

    /// The vnode is not here any more.
    pub(in crate::core) fn set_adrift(&mut self, vnode: VnodeId, now: Now) {
        self.hold_sessions(vnode, now);
        for key in self.sessions.at(vnode).collect::<Vec<_>>() {
            self.assign_home(key, now);
        }
    }

    /// The vnode is ready here: sessions that waited are opened, those that were live are opened again.
    pub(in crate::core) fn welcome_back(&mut self, vnode: VnodeId, now: Now) {
        for key in self.sessions.at(vnode).collect::<Vec<_>>() {
            self.assign_home(key, now);
        }
    }

    /// Cut off from the store and from the log for longer than the grace: another has the vnode by now, and this
    /// node will not hear of it. The sessions go and ask, spread.
    pub(in crate::core) fn give_up_sessions(&mut self, vnode: VnodeId, now: Now) {
        for key in self.sessions.at(vnode).collect::<Vec<_>>() {
            let Some(session) = self.sessions.map.get(&key) else { continue };
            // As many as fit before the next sweep.
            let ahead = self.sessions.migration_rate.behind(&self.cfg.node, now.mono);
            if ahead <= SWEEP_MS && !matches!(session.state, State::Moved { .. }) {
                self.sessions.migration_rate.next(&self.cfg.node, self.cfg.accepts_per_s, now.mono);
                self.close(key, CloseCode::LeaseLost, "this node does not know where home is");
            }
        }
    }

    pub(in crate::core) fn send_moved(
        &mut self,
        vnode: VnodeId,
        node: &NodeId,
        url: &str,
        epoch: Epoch,
        now: Now,
    ) {
        if *node == self.cfg.node {
            return;
        }
        for key in self.sessions.at(vnode).collect::<Vec<_>>() {
            let waits = |s: &Session| matches!(s.state, State::Waiting { .. } | State::Adrift { .. });
            if self.sessions.map.get(&key).is_some_and(waits) {
                self.tell_moved(key, node, url, epoch, now);
            }
        }
    }

    fn tell_moved(&mut self, key: SessionKey, node: &NodeId, url: &str, epoch: Epoch, now: Now) {
        let per_s = self.sends_per_s(node);
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        // Live sessions go at the pace the target can take; a newcomer costs it nothing more than it did here.
        let after_ms =
            if session.welcomed { self.sessions.migration_rate.next(node, per_s, now.mono) } else { 0 };
        session.state = State::Moved { close_at: now.mono + after_ms + MOVED_CLOSE_MS };
        self.fx.count().moved += 1;
        let moved = Moved { node: node.clone(), url: url.to_owned(), epoch, after_ms };
        self.frame(key, ServerFrame::Moved(moved));
    }

    /// Sessions a second that this node may send to another: its part of what the other takes, of all that hand over
    /// to it now.
    pub(in crate::core) fn sends_per_s(&self, node: &NodeId) -> u64 {
        let takes = self.membership.view().nodes.get(node).map_or(0, |row| row.load.accepts_per_s);
        let takes = if takes == 0 { self.cfg.accepts_per_s } else { takes };
        let others = self.membership.sources_to(node);
        (takes / (others + 1)).max(1)
    }

    pub(in crate::core) fn tick_sessions(&mut self, now: Now) {
        let grace = self.cfg.grace_ms;
        let mut waiting = Vec::new();
        let (mut closing, mut locating) = (Vec::new(), Vec::new());
        for (key, session) in &self.sessions.map {
            match session.state {
                State::Waiting { until } if now.mono >= until => {
                    closing.push((*key, CloseCode::Overload, "the user's home is not ready"));
                }
                State::Moved { close_at } if now.mono >= close_at => {
                    closing.push((*key, CloseCode::Moved, "the user's home is elsewhere"));
                }
                State::Adrift { since } if now.mono >= since + grace && self.membership.is_draining() => {
                    closing.push((*key, CloseCode::Draining, "this node gives everything away"));
                }
                State::Adrift { since } if now.mono >= since + grace => {
                    closing.push((*key, CloseCode::LeaseLost, "this node does not know where home is"));
                }
                State::Opening { until } if now.mono >= until && !session.welcomed => {
                    closing.push((*key, CloseCode::Overload, "the user's home does not answer"));
                }
                State::Locating { again_at, .. } if now.mono >= again_at => locating.push(*key),
                State::Waiting { .. } | State::Adrift { .. } => waiting.push(*key),
                State::Live if session.inbox.look => waiting.push(*key),
                State::Opening { .. } | State::Locating { .. } | State::Live | State::Moved { .. } => {}
            }
        }
        for (key, code, reason) in closing {
            self.close(key, code, reason);
        }
        for key in locating {
            self.ask_log_end(key, now);
        }
        for key in waiting {
            self.assign_home(key, now);
            self.feed(key, now);
        }
        self.wake(None, now);
    }
}
