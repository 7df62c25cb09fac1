//! Users come, go and choose what they show; the difference to the store is written (rules 29, 30).

use std::collections::BTreeMap;

use roost_backend::store::{PresenceOp, PresenceRow};
use roost_proto::codes::{ErrorBody, ErrorCode};
use roost_proto::events::StatusCause;
use roost_proto::frames::SetStatus;
use roost_proto::ids::{MessageId, StreamId, UserId, VnodeId};

use crate::core::homes::home::Phase;
use crate::core::homes::presence::UserPresence;
use crate::core::homes::work::{Held, Work};
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::sessions::session::Session;

impl NodeCore {
    /// Queues the write that makes the store say what is true of `user`, if it does not. A write under way may lack
    /// what changed since: it is compared again when that write is answered.
    fn reconcile(&mut self, vnode: VnodeId, user: &UserId, now: Now) {
        let coming = self.is_coming(vnode, user);
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        let Some(member) = home.members.get_mut(user) else { return };
        // Who is on the way in is not gone: what opens the session may wait in the same queue.
        if coming && member.sessions == 0 {
            return;
        }
        if member.pending || home.phase != Phase::Ready || now.mono >= home.lease_until {
            return;
        }
        let op = member.difference(user, home.generation, now);
        // While it is not known yet who is there, nothing is written of what was chosen: then they wait on.
        let kept = match &op {
            Some(op) => op.roster.as_ref().is_none_or(|entry| entry.chosen == member.chosen),
            None => member.stored.as_ref().is_some_and(|entry| entry.chosen == member.chosen),
        };
        let replies = if kept { std::mem::take(&mut member.waiting) } else { Vec::new() };
        if let Some(op) = op {
            member.pending = true;
            home.queue.push_back(Work::Presence { op, replies });
            self.fx.touch(vnode);
        } else {
            let gone = member.is_idle(now).then(|| home.members.remove(user)).flatten();
            self.refuse_waiting(gone.map(|member| member.waiting).unwrap_or_default());
            self.hold_replies(vnode, replies);
        }
    }

    /// Whether a session of `user` is here that was not counted yet.
    fn is_coming(&self, vnode: VnodeId, user: &UserId) -> bool {
        let sessions = self.sessions.of(vnode, &StreamId::inbox(user)).iter();
        sessions.filter_map(|key| self.sessions.get(key)).any(Session::is_coming)
    }

    /// Told when all that is known here is in the log (rule 13).
    pub(super) fn hold_replies(&mut self, vnode: VnodeId, replies: Vec<(SessionKey, MessageId)>) {
        for (session, id) in replies {
            self.hold_result(vnode, Held::Reply { session, id });
            self.fx.touch(vnode);
        }
    }

    /// What was chosen is not kept, in the order in which it was said: of one session only the last is to be repeated.
    pub(in crate::core) fn refuse_waiting(&mut self, replies: Vec<(SessionKey, MessageId)>) {
        let last: BTreeMap<_, _> = replies.iter().cloned().collect();
        for (session, id) in replies {
            if last.get(&session) == Some(&id) {
                self.reply_unavailable(session, id.as_str());
            } else {
                let why = "another status was chosen before this was done";
                self.reply_error(session, id.as_str(), ErrorBody::new(ErrorCode::Conflict, why));
            }
        }
    }

    /// The store did what a presence write asked.
    pub(super) fn presence_written(&mut self, vnode: VnodeId, op: &PresenceOp, now: Now) {
        if op.event.is_some() {
            self.fx.count().status_events += 1;
        }
        if let Some(member) = self.homes.map.get_mut(&vnode).and_then(|h| h.members.get_mut(&op.user)) {
            member.stored.clone_from(&op.roster);
            (member.pending, member.said, member.lost) = (false, None, None);
            member.seen = op.seen.or(member.seen);
            if op.roster.is_none() {
                member.due = None;
            }
        }
        self.reconcile(vnode, &op.user, now);
    }

    /// A session of `user` is at home here now.
    pub(in crate::core) fn session_came(
        &mut self,
        vnode: VnodeId,
        user: &UserId,
        row: PresenceRow,
        now: Now,
    ) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        let member = home.members.entry(user.clone()).or_insert_with(|| {
            let chosen =
                row.roster.as_ref().map(|r| r.chosen).or(row.seen.map(|s| s.chosen)).unwrap_or_default();
            UserPresence { stored: row.roster, seen: row.seen, chosen, ..UserPresence::default() }
        });
        member.sessions += 1;
        member.due = None;
        self.show_in_rooms(vnode, user, now);
        self.reconcile(vnode, user, now);
    }

    /// A session of `user` that was at home here is gone.
    pub(in crate::core) fn session_went(&mut self, vnode: VnodeId, user: &UserId, now: Now) {
        let linger = now.mono + self.cfg.linger_ms;
        let Some(member) = self.homes.map.get_mut(&vnode).and_then(|h| h.members.get_mut(user)) else {
            return;
        };
        member.sessions = member.sessions.saturating_sub(1);
        if member.sessions == 0 {
            member.due = Some((linger, StatusCause::Disconnected));
        } else {
            self.reconcile(vnode, user, now);
        }
    }

    /// The same of one that was welcomed by an earlier home, and goes before this one has counted it: its user was there
    /// until now.
    pub(in crate::core) fn uncounted_went(&mut self, vnode: VnodeId, user: &UserId, now: Now) {
        let linger = now.mono + self.cfg.linger_ms;
        let member = self.homes.map.get_mut(&vnode).and_then(|h| h.members.get_mut(user));
        let Some(member) = member.filter(|m| m.sessions == 0) else { return };
        let (at, cause) = member.due.unwrap_or((linger, StatusCause::Disconnected));
        member.due = Some((at.max(linger), cause));
    }

    /// Everyone whose time has come, and whoever differs from the store for any other reason.
    pub(in crate::core) fn sweep_presence(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get(&vnode) else { return };
        let users: Vec<_> = home
            .members
            .iter()
            .filter(|(user, m)| {
                !m.pending
                    && (!m.waiting.is_empty()
                        || m.is_idle(now)
                        || m.difference(user, home.generation, now).is_some())
            })
            .map(|(user, _)| user.clone())
            .collect();
        for user in users {
            self.reconcile(vnode, &user, now);
        }
    }

    pub(in crate::core) fn on_status(&mut self, session: SessionKey, command: SetStatus, now: Now) {
        let SetStatus { id, status } = command;
        let Some(s) = self.sessions.get_mut(&session) else { return };
        if let Err(wait) = s.take_turn(now) {
            self.refuse(session, id.as_str(), "too many commands", wait);
            return;
        }
        let (vnode, user) = (s.vnode(), s.user().clone());
        self.count_waiters(session);
        let home =
            self.homes.map.get_mut(&vnode).filter(|h| h.serving(now) && h.queue.len() < self.cfg.queue_max);
        match home.and_then(|h| h.members.get_mut(&user)) {
            Some(member) => {
                member.chosen = status;
                member.waiting.push((session, id));
                self.show_in_rooms(vnode, &user, now);
                self.reconcile(vnode, &user, now);
            }
            None => self.reply_unavailable(session, id.as_str()),
        }
    }
}
