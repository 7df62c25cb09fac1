//! What an earlier home knew of its users is passed on to the next, which may lack it.

use roost_backend::store::RosterEntry;
use roost_proto::events::StatusCause;
use roost_proto::ids::{Epoch, UserId, VnodeId};
use roost_proto::records::{PresenceTransfer, PresenceTransferred, Record, Shown};

use crate::core::config::Rule;
use crate::core::effects::Token;
use crate::core::homes::home::{Home, Phase};
use crate::core::homes::presence::UserPresence;
use crate::core::homes::remembered::Remembered;
use crate::core::keys::Now;
use crate::core::node::NodeCore;

/// Users told in one record: some 30 KiB.
const USERS_PER_RECORD: usize = 200;

/// What was not confirmed is told again after this long, in milliseconds: a write of the new home, and two records.
const TELL_AGAIN_MS: u64 = 1000;

impl NodeCore {
    pub(in crate::core) fn remember(&mut self, home: &mut Home) {
        if !home.members.is_empty() && self.cfg.on(Rule::UsersRemembered) {
            let (data_set, generation) = (home.data_set.clone(), home.generation);
            let members = std::mem::take(&mut home.members);
            let remembered = Remembered { data_set, generation, members, told: Epoch(0), tell_at: 0 };
            self.homes.remembered.insert(home.vnode, remembered);
        }
    }

    /// Another's home is ready. It got the roster, and is told whom it may lack.
    pub(in crate::core) fn pass_on_remembered(&mut self, vnode: VnodeId, now: Now) {
        let newest = self.membership.epoch_of(vnode);
        let elsewhere =
            self.membership.view().rows.get(&vnode).filter(|r| r.ready && r.sid != *self.membership.sid());
        let Some(row) = elsewhere.filter(|row| row.epoch >= newest).cloned() else { return };
        let Some(remembered) = self.homes.remembered.get_mut(&vnode) else { return };
        remembered.keep_untold(&self.membership.view().data_set);
        if remembered.members.is_empty() {
            self.homes.remembered.remove(&vnode);
            return;
        }
        if now.mono < remembered.tell_at {
            return;
        }
        (remembered.told, remembered.tell_at) = (row.epoch, now.mono + TELL_AGAIN_MS);
        let known_in = remembered.generation;
        let shown = |(user, member): (&UserId, &UserPresence)| {
            let RosterEntry { chosen, since, sessions, generation, .. } = member.shown(known_in)?.clone();
            Some(Shown { user: user.clone(), chosen, since, sessions, generation })
        };
        let users: Vec<_> = remembered.members.iter().filter_map(shown).collect();
        for users in users.chunks(USERS_PER_RECORD) {
            let (sid, users) = (self.membership.sid().clone(), users.to_vec());
            let recall = Record::PresenceTransfer(PresenceTransfer { vnode, epoch: row.epoch, sid, users });
            self.transport(&row.node(), vnode, recall, Token::Other, now);
        }
    }

    /// Users whom an earlier home had and this one may lack. They are confirmed when the roster has them: from then
    /// on they are known to every successor.
    pub(in crate::core) fn on_presence_transfer(&mut self, recall: PresenceTransfer, now: Now) {
        let due = Some((now.mono + self.cfg.grace_ms, StatusCause::Lost));
        let vnode = recall.vnode;
        let is_it = |h: &&mut Home| h.epoch == recall.epoch && h.phase == Phase::Ready;
        let Some(home) = self.homes.map.get_mut(&vnode).filter(is_it) else { return };
        let mut kept = Vec::new();
        for Shown { user, chosen, since, sessions, generation } in recall.users {
            let fresh = || UserPresence { chosen, due, ..UserPresence::default() };
            let member = home.members.entry(user.clone()).or_insert_with(fresh);
            if member.stored.is_some() {
                kept.push(user);
            } else if member.sessions == 0 && member.lost.is_none() {
                member.lost = Some(RosterEntry { chosen, since, last_seen: None, sessions, generation });
                member.due = member.due.or(due);
            }
        }
        if !kept.is_empty() {
            let recalled = Record::PresenceTransferred(PresenceTransferred {
                vnode,
                epoch: Some(recall.epoch),
                users: kept,
            });
            self.transport(&recall.sid.node(), vnode, recalled, Token::Other, now);
        }
        self.sweep_presence(vnode, now);
    }

    pub(in crate::core) fn on_presence_transferred(&mut self, recalled: &PresenceTransferred) {
        let Some(remembered) = self.homes.remembered.get_mut(&recalled.vnode) else { return };
        // An earlier home, which may have had what this one lacks.
        if recalled.epoch.is_some_and(|epoch| epoch != remembered.told) {
            return;
        }
        remembered.members.retain(|user, _| !recalled.users.contains(user));
        if remembered.members.is_empty() {
            self.homes.remembered.remove(&recalled.vnode);
        }
    }
}
