//! The copies for watched vnodes are followed, read and kept up; what differs is told (rule 30).

use std::collections::BTreeSet;

use bytes::Bytes;
use roost_backend::store::{LiveChannel, PresenceStanding, Presences};
use roost_proto::frames::{Presence, ServerFrame};
use roost_proto::ids::{UserId, VnodeId};
use roost_proto::live::Version;

use crate::core::actions::Action;
use crate::core::ask::Ask;
use crate::core::config::Rule;
use crate::core::input::Maybe;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::rooms::COMPARE_MS;
use crate::core::sessions::signals::Latest;
use crate::core::watching::replica::{PresenceReplica, Reading, is_there};

/// Vnodes compared with one question: bounds how long the store answers nothing else.
const COMPARE_MAX: usize = 500;

/// A copy that nobody needs is kept for so long, in milliseconds: who comes and goes, or comes back, does not make the
/// node follow and unfollow at that pace.
const IDLE_MS: u64 = 30_000;

/// After the store did not answer, in milliseconds.
const AGAIN_MS: u64 = 500;

impl NodeCore {
    /// Does the next thing that those who watch users of a vnode need.
    pub(super) fn look_at(&mut self, vnode: VnodeId, now: Now) {
        let due = |copy: &&mut PresenceReplica| now.mono >= copy.again_at;
        let Some(copy) = self.watching.vnodes.get_mut(&vnode).filter(due) else { return };
        let ask = self.fx.next_call();
        if copy.following.is_off() {
            copy.following.ask(ask);
            self.fx.push(Action::Follow { channel: LiveChannel::Presence(vnode), ask });
        } else if copy.following.is_on()
            && let Some((reading, users)) = copy.wanted()
        {
            copy.ask(ask, reading, &users);
            self.fx.push(Action::Ask(Ask::Presence { vnode, users, ask }));
        }
    }

    pub(in crate::core) fn on_presence_followed(&mut self, vnode: VnodeId, ask: u64, done: bool, now: Now) {
        let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { return };
        if copy.following.answered(ask, done) {
            copy.again_at = if done { 0 } else { now.mono + AGAIN_MS };
            self.look_at(vnode, now);
        }
    }

    pub(in crate::core) fn on_presence_read(
        &mut self,
        vnode: VnodeId,
        users: Vec<UserId>,
        ask: u64,
        answer: Maybe<Presences>,
        now: Now,
    ) {
        let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { return };
        let Some((_, reading)) = copy.reading.take_if(|(asked, _)| *asked == ask) else { return };
        let Some(Presences { standing, rows }) = answer else {
            copy.again_at = now.mono + AGAIN_MS;
            return;
        };
        // Who is known already is among the missing for those who came late: then what is known may be newer.
        let newer = |known: PresenceStanding| {
            known.generation == standing.generation && known.version <= standing.version
        };
        let replaces = matches!(reading, Reading::All(_)) || copy.standing.is_none_or(newer);
        copy.was_read(reading, standing);
        let held = copy.hold.is_some() && self.cfg.on(Rule::HoldOffline);
        let mut waiting = BTreeSet::new();
        for (user, row) in users.into_iter().zip(rows) {
            let presence = row.presence_of(user);
            let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { return };
            for key in copy.is_found(&presence.user) {
                if let Some(session) = self.sessions.get_mut(&key) {
                    session.watches_mut().not_missing(&presence.user);
                }
                waiting.insert(key);
            }
            let Some(watched) = copy.users.get(&presence.user) else { continue };
            match &watched.shown {
                None => {}
                Some(_) if !replaces => continue,
                Some(shown) if held && is_there(shown) && !is_there(&presence) => continue,
                Some(shown) => self.fx.count().presence_found += u64::from(*shown != presence),
            }
            self.show(vnode, presence);
        }
        for key in waiting {
            self.answer_watches(key, now);
        }
        self.look_at(vnode, now);
    }

    /// What the vnode's home published: taken if nothing is missing before it.
    pub(in crate::core) fn on_presence_note(
        &mut self,
        vnode: VnodeId,
        before: Version,
        version: Version,
        users: Vec<Presence>,
        now: Now,
    ) {
        let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { return };
        if let Some((_, Reading::All(heard))) = &mut copy.reading {
            *heard = (*heard).max(Some(version));
        }
        let Some(standing) = copy.standing.as_mut().filter(|s| copy.complete && s.version < version) else {
            return;
        };
        if standing.version != before {
            copy.complete = false;
            return self.look_at(vnode, now);
        }
        standing.version = version;
        for presence in users {
            // Of whom nothing is known, that is being read.
            let known = self.watching.vnodes.get(&vnode).and_then(|c| c.users.get(&presence.user));
            if known.is_some_and(|watched| watched.shown.is_some()) {
                self.show(vnode, presence);
            }
        }
    }

    /// Takes what a user shows, and tells those who were given something else.
    pub(in crate::core) fn show(&mut self, vnode: VnodeId, presence: Presence) {
        let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { return };
        let Some(watched) = copy.users.get_mut(&presence.user) else { return };
        let user = presence.user.clone();
        if watched.shown.replace(presence.clone()).is_none_or(|before| before == presence) {
            return;
        }
        let told: Vec<_> =
            watched.sessions.iter().filter(|(_, given)| **given).map(|(key, _)| *key).collect();
        self.fx.count().presence_told += told.len() as u64;
        let frame: Bytes = ServerFrame::Presence(presence).to_json().into();
        let latest = Latest::Presence(user);
        for key in told {
            self.hand_latest(key, &latest, &frame);
        }
    }

    pub(super) fn forget_watcher(&mut self, key: SessionKey, user: &UserId, now: Now) {
        let vnode = self.vnode_of(&roost_proto::StreamId::inbox(user));
        let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { return };
        copy.go(user, key);
        if copy.users.is_empty() {
            copy.idle_since = Some(now.mono);
        }
    }

    /// Nobody has needed it for a while.
    fn close_copy(&mut self, vnode: VnodeId) {
        if self.watching.vnodes.remove(&vnode).is_some_and(|copy| copy.following.was_asked()) {
            self.fx.push(Action::Unfollow { channel: LiveChannel::Presence(vnode) });
        }
    }

    pub(in crate::core) fn tick_watching(&mut self, now: Now) {
        self.give_up_watches(now);
        let grace = self.cfg.grace_ms + COMPARE_MS;
        for vnode in self.watching.vnodes.keys().copied().collect::<Vec<_>>() {
            let ready = self.membership.has_ready_home(vnode);
            let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { continue };
            if copy.idle_since.is_some_and(|since| now.mono >= since + IDLE_MS) {
                self.close_copy(vnode);
                continue;
            }
            if let Some(hold) = &mut copy.hold {
                hold.until = ready.then(|| hold.until.unwrap_or(now.mono + grace));
                if hold.until.is_some_and(|until| now.mono >= until) {
                    copy.hold = None;
                    copy.complete = false;
                }
            }
            self.look_at(vnode, now);
        }
    }

    /// Asks where the presence of all vnodes with watched users stands.
    pub(in crate::core) fn compare_presence(&mut self) {
        if !self.cfg.on(Rule::ComparePresence) {
            return;
        }
        let complete = self.watching.vnodes.iter().filter(|(_, copy)| copy.complete);
        let vnodes: Vec<_> = complete.map(|(vnode, _)| *vnode).collect();
        for vnodes in vnodes.chunks(COMPARE_MAX) {
            self.fx.push(Action::Ask(Ask::PresenceStandings(vnodes.to_vec())));
        }
    }

    /// One that was read before the last publications were heard only costs another read.
    pub(in crate::core) fn on_presence_standings(
        &mut self,
        vnodes: &[VnodeId],
        answer: Maybe<Vec<PresenceStanding>>,
        now: Now,
    ) {
        for (vnode, standing) in vnodes.iter().zip(answer.into_iter().flatten()) {
            let Some(copy) = self.watching.vnodes.get_mut(vnode) else { continue };
            if copy.standing != Some(standing) {
                copy.complete = false;
                self.look_at(*vnode, now);
            }
        }
    }

    /// Whether nobody is there who would notice a change, as far as this node knows.
    pub(super) fn is_stale(&self, vnode: VnodeId, now: Now) -> bool {
        let held = self.watching.vnodes.get(&vnode).is_some_and(|copy| copy.hold.is_some());
        held || !self.membership.has_ready_home(vnode)
            || self.membership.view_age_ms(now) > self.cfg.lease_ttl_ms
    }
}
