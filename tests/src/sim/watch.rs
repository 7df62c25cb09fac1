//! What must hold at every moment, seen while it happens: one writer, no flap, no hasty judgement.
//!
//! [`check`](super::check) looks at the history afterwards; what is here would not be seen in it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use roost_backend::store::{Activate, ActivateAnswer, Lead, LeaderRow, Op, Revoke, Write};
use roost_coordinator::leader::RevokeCause;
use roost_proto::frames::{Presence, ServerFrame};
use roost_proto::ids::{Cursor, Epoch, Sid, UserId, VnodeId};
use roost_proto::limits::BEATS_PER_LEASE;
use roost_ws_node::core::SessionKey;

use super::acknowledged::Heard;
use super::memory::Memory;
use super::{GRACE_MS, LEASE_TTL_MS, LINGER_MS, Story, World};

#[derive(Default)]
pub(crate) struct Watch {
    /// The highest epoch under which something was written, by vnode and generation.
    written: BTreeMap<(VnodeId, Epoch), Epoch>,
    /// What was ready at some time.
    ready: BTreeSet<(VnodeId, Epoch)>,
    /// When a process heard that its home is ready.
    ready_at: BTreeMap<(usize, VnodeId), u64>,
    sessions: BTreeMap<(usize, SessionKey), Welcomed>,
    /// Presence writes that were looked at: a repeat is no new decision.
    decided: BTreeSet<(usize, VnodeId, Bytes)>,
    /// The last beat of each sid, and when the store had it.
    beats: BTreeMap<Sid, (u64, u64)>,
    /// What the store showed of each user, one after the other.
    pub shown: BTreeMap<UserId, Vec<Presence>>,
    leader: Option<(LeaderRow, u64)>,
    /// When each token and beat was first seen.
    leaders: BTreeMap<(String, u64), u64>,
    /// What was reported as undelivered, by life of the store.
    pub reported: BTreeSet<(u64, UserId, Cursor)>,
    /// Who chose to be invisible at some time: nobody is told what they acknowledged then.
    pub hidden: BTreeSet<UserId>,
    /// Acknowledgements that a node took.
    pub heard: Vec<Heard>,
    pub memory: Memory,
    pub takeovers: u64,
    pub revoked: u64,
}

impl Watch {
    /// The user of a session that is there, if it was welcomed.
    pub(super) fn user_of(&self, pid: usize, session: SessionKey) -> Option<UserId> {
        let welcomed = self.sessions.get(&(pid, session)).filter(|s| s.closed_at.is_none())?;
        UserId::new(&welcomed.user).ok()
    }
}

/// A session that was told welcome.
struct Welcomed {
    user: String,
    moved: bool,
    closed_at: Option<u64>,
}

impl World {
    fn wrong(&mut self, text: String) {
        self.note(|| format!("!!! {text}"));
        self.violations.push(text);
    }

    /// P1: within a generation nothing is written under an older epoch after a newer one.
    pub(super) fn saw_write(&mut self, vnode: VnodeId, generation: Epoch, epoch: Epoch) {
        let newest = self.watch.written.entry((vnode, generation)).or_insert(epoch);
        let before = *newest;
        *newest = before.max(epoch);
        if before > epoch {
            self.wrong(format!("P1: in {vnode} {generation}, epoch {epoch} wrote after {before}"));
        }
    }

    pub(super) fn saw_ready(&mut self, vnode: VnodeId, epoch: Epoch) {
        self.watch.ready.insert((vnode, epoch));
    }

    /// Nobody is sent to a home that was never ready (core rule 27).
    pub(super) fn saw_direction(&mut self, who: &str, vnode: VnodeId, epoch: Epoch) {
        if !self.watch.ready.contains(&(vnode, epoch)) {
            self.wrong(format!("{who} was sent to {vnode} under {epoch}, which was never ready"));
        }
    }

    pub(super) fn heard_ready(&mut self, pid: usize, vnode: VnodeId) {
        self.watch.ready_at.insert((pid, vnode), self.now);
    }

    pub(super) fn saw_frame(&mut self, pid: usize, session: SessionKey, frame: &Bytes) {
        let head = &frame[..frame.len().min(24)];
        if head.starts_with(br#"{"type":"message""#) || head.starts_with(br#"{"type":"reply""#) {
            return;
        }
        match ServerFrame::parse(&String::from_utf8_lossy(frame)) {
            Ok(ServerFrame::Welcome(w)) => {
                let welcomed = Welcomed { user: w.user.to_string(), moved: false, closed_at: None };
                self.watch.sessions.insert((pid, session), welcomed);
            }
            Ok(ServerFrame::Moved(m)) => {
                if let Some(welcomed) = self.watch.sessions.get_mut(&(pid, session)) {
                    welcomed.moved = true;
                }
                let user = self.clients.iter().find(|c| c.has(pid, session.0)).map(|c| c.user);
                if let Some(user) = user {
                    self.saw_direction(&super::client::name(user), self.vnode_of(user), m.epoch);
                }
            }
            _ => {}
        }
    }

    pub(super) fn saw_closed(&mut self, pid: usize, session: SessionKey) {
        let now = self.now;
        if let Some(welcomed) = self.watch.sessions.get_mut(&(pid, session)) {
            welcomed.closed_at.get_or_insert(now);
        }
    }

    /// P6: nobody is declared gone who is there, or who still has time to come back.
    pub(super) fn saw_presence_of(&mut self, pid: usize, write: &Write) {
        let vnode = write.fence.vnode;
        for op in &write.ops {
            let Op::Presence(op) = op else { continue };
            let Some(event) = &op.event else { continue };
            if !self.watch.decided.insert((pid, vnode, event.clone())) {
                continue;
            }
            let text = format!("{{{}", String::from_utf8_lossy(event));
            let event: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let (user, cause) = (op.user.as_str(), &event["cause"]);
            // The others are about users who do not want to be seen.
            if event["status"] != "offline" || (cause != "lost" && cause != "disconnected") {
                continue;
            }
            let here: Vec<_> = self
                .watch
                .sessions
                .iter()
                .filter(|((p, _), s)| *p == pid && s.user == user && !s.moved)
                .map(|(_, s)| s.closed_at)
                .collect();
            let ready_at = self.watch.ready_at.get(&(pid, vnode)).copied().unwrap_or(0);
            let why = if here.contains(&None) {
                "has a session here"
            } else if cause == "lost" && self.now < ready_at + GRACE_MS {
                "has had no time to come back since its home is ready"
            } else if cause == "disconnected" && here.iter().flatten().any(|at| self.now < at + LINGER_MS) {
                "went a moment ago"
            } else {
                continue;
            };
            self.wrong(format!("P6: p{pid} publishes {user} offline ({cause}), who {why}"));
        }
    }

    /// P8: a home that is given up in good order has nothing left for the log.
    pub(super) fn saw_released(&mut self, vnode: VnodeId, epoch: Epoch, sid: &Sid) {
        let data = &self.data[vnode.index()];
        // A store that went back may have old events again, which went out long ago.
        let strange = data.head().is_none_or(|(e, s, ..)| (e, s) != (epoch, sid));
        if strange || self.setup.story == Story::Faults {
            return;
        }
        // Only an activation shows the outbox: it is asked of a copy.
        let (sid, data_set) = (sid.clone(), self.control.data_set.clone());
        let again = Activate { data_set, vnode, epoch, sid, prove: false, held: None, left: None };
        if let ActivateAnswer::Activated(activated) = data.clone().activate(&again)
            && !activated.outbox.is_empty()
        {
            let left = activated.outbox.len();
            self.wrong(format!("P8: {vnode} was released with {left} events that may not be in the log"));
        }
    }

    /// What was true of beats and leaders is another's truth now.
    pub(super) fn saw_other_data(&mut self) {
        self.watch.beats.clear();
        self.watch.leaders.clear();
        self.watch.leader = None;
        // Whoever watches from now on sees the beats as they are now.
        self.saw_beats();
    }

    pub(super) fn saw_beats(&mut self) {
        let now = self.now;
        let table = self.control.table(self.store_now());
        for row in table.nodes.into_values() {
            let seen = self.watch.beats.entry(row.sid).or_insert((row.beat, now));
            if seen.0 != row.beat {
                *seen = (row.beat, now);
            }
        }
    }

    /// Dead is who was silent for a lease, or whose process is gone and missed two beats (core rule 23).
    pub(super) fn saw_revoked(&mut self, revoke: &Revoke, cause: RevokeCause) {
        self.watch.revoked += 1;
        let Some((_, at)) = self.watch.beats.get(&revoke.sid) else { return };
        let silent = self.now - at;
        let is_it = |p: &usize| self.processes[*p].core.as_ref().is_some_and(|c| *c.sid() == revoke.sid);
        let runs = self.alive().iter().any(is_it);
        let hasty = match cause {
            RevokeCause::Silent => silent < LEASE_TTL_MS,
            RevokeCause::Refused => runs || silent < 2 * LEASE_TTL_MS / BEATS_PER_LEASE,
        };
        if hasty {
            let sid = &revoke.sid;
            self.wrong(format!("{sid} was declared dead ({cause:?}) {silent} ms after its last beat"));
        }
    }

    pub(super) fn saw_resigned(&mut self) {
        self.watch.leader = None;
    }

    /// Only who was silent for a lease is followed by another leader.
    pub(super) fn saw_led(&mut self, lead: &Lead) {
        let Some(row) = self.control.table(self.store_now()).leader else { return };
        // A late call of one that has stopped may lead again under the beat that it had: it stands still.
        let known = (row.token.clone(), row.beat);
        let since = *self.watch.leaders.entry(known).or_insert(self.now);
        if let Some((before, at)) = self.watch.leader.replace((row, since))
            && before.token != lead.token
        {
            self.watch.takeovers += 1;
            if self.now < at + LEASE_TTL_MS {
                let (by, after) = (&lead.token, self.now - at);
                self.wrong(format!(
                    "{by} took the lead from {} {after} ms after its last beat",
                    before.token
                ));
            }
        }
    }
}
