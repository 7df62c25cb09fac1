//! What this node knows of the presence of watched users of one vnode: read from the store, kept up by what the
//! vnode's home publishes, read anew when something is missing.
//!
//! The channel is followed before anything is read. Each publication names the version that it follows; one that
//! does not follow what is known, or another version in the store (looked at every 5 s with the tails), makes all
//! be read, and what differs is told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use roost_backend::store::{LiveChannel, PresenceStanding, Presences};
use roost_proto::events::Status;
use roost_proto::frames::{Presence, ServerFrame};
use roost_proto::ids::{UserId, VnodeId};
use roost_proto::live::Version;

use crate::core::ask::Ask;
use crate::core::config::Rule;
use crate::core::events::{Maybe, Now, SessionKey};
use crate::core::following::Following;
use crate::core::rooms::COMPARE_MS;
use crate::core::signals::Latest;
use crate::core::{Action, NodeCore};

/// Vnodes compared with one question: bounds how long the store answers nothing else.
const COMPARE_MAX: usize = 500;

/// A copy that nobody needs is kept for so long, in milliseconds: who comes and goes, or comes back, does not make the
/// node follow and unfollow at that pace.
const IDLE_MS: u64 = 30_000;
/// After the store did not answer, in milliseconds.
const AGAIN_MS: u64 = 500;

/// One user that is watched.
#[derive(Debug, Default)]
struct Watched {
    /// None until it was read.
    shown: Option<Presence>,
    /// Who watches, and whether it was given what is shown: then it is told of changes.
    sessions: BTreeMap<SessionKey, bool>,
    /// Those of them who came while the store was asked: what it says then may be older than what they know.
    late: BTreeSet<SessionKey>,
}

/// What is being read.
#[derive(Debug)]
enum Reading {
    /// Users of whom nothing is known. Publications are applied meanwhile.
    Missing,
    /// Everyone. Publications are not applied; the last one heard meanwhile.
    All(Option<Version>),
}

/// After a loss of the store's data nobody is taken for offline whom the store merely does not know any more, until
/// their homes had the grace to say so: `until` then, if the home is ready.
#[derive(Debug, Default)]
struct Hold {
    until: Option<u64>,
}

/// The copy for one vnode.
#[derive(Debug, Default)]
pub(super) struct Copy {
    following: Following,
    users: BTreeMap<UserId, Watched>,
    /// Of whom nothing is known.
    missing: BTreeSet<UserId>,
    /// As of when the rest is known; none before the first read.
    standing: Option<PresenceStanding>,
    /// What is known is complete up to that, and can be kept up by what is published.
    complete: bool,
    reading: Option<(u64, Reading)>,
    /// Not before then is the store asked.
    again_at: u64,
    hold: Option<Hold>,
    /// Since when nobody here watches anyone in it.
    idle_since: Option<u64>,
}

impl Copy {
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// A session watches a user; whether something is known already.
    pub(super) fn come(&mut self, user: &UserId, key: SessionKey) -> bool {
        self.idle_since = None;
        let watched = self.users.entry(user.clone()).or_default();
        watched.sessions.entry(key).or_insert(false);
        let known = watched.shown.is_some();
        if !known {
            self.missing.insert(user.clone());
            if self.reading.is_some() {
                watched.late.insert(key);
            }
        }
        known
    }

    /// What a user shows, for a session that is told of changes from now on if it is `given`.
    pub(super) fn give(&mut self, user: &UserId, key: SessionKey, given: bool) -> Option<Presence> {
        let watched = self.users.get_mut(user)?;
        if given {
            watched.sessions.insert(key, true);
        }
        watched.shown.clone()
    }

    /// A session does not watch a user any more.
    fn go(&mut self, user: &UserId, key: SessionKey) {
        let Some(watched) = self.users.get_mut(user) else { return };
        watched.sessions.remove(&key);
        watched.late.remove(&key);
        if watched.sessions.is_empty() {
            self.users.remove(user);
            self.missing.remove(user);
        }
    }

    /// What is to be read next.
    fn wanted(&self) -> Option<(Reading, Vec<UserId>)> {
        if self.reading.is_some() || self.users.is_empty() {
            None
        } else if !self.complete {
            Some((Reading::All(None), self.users.keys().cloned().collect()))
        } else if !self.missing.is_empty() {
            Some((Reading::Missing, self.missing.iter().cloned().collect()))
        } else {
            None
        }
    }

    /// All of them are asked for now, for everyone who watches them.
    fn ask(&mut self, ask: u64, reading: Reading, users: &[UserId]) {
        self.reading = Some((ask, reading));
        for user in users {
            if let Some(watched) = self.users.get_mut(user) {
                watched.late.clear();
            }
        }
    }

    /// A user of whom something was missing was read: for whom. It stays missing for those who came meanwhile.
    fn is_found(&mut self, user: &UserId) -> Vec<SessionKey> {
        let Some(watched) = self.users.get_mut(user).filter(|_| self.missing.contains(user)) else {
            return Vec::new();
        };
        let found = watched.sessions.keys().filter(|key| !watched.late.contains(key)).copied().collect();
        if watched.late.is_empty() {
            self.missing.remove(user);
        }
        found
    }

    /// Takes where an answer stands.
    fn was_read(&mut self, reading: Reading, standing: PresenceStanding) {
        match reading {
            // The rest is of another moment.
            Reading::Missing => self.complete &= self.standing == Some(standing),
            Reading::All(heard) => {
                let other_life = |before: PresenceStanding| {
                    before.generation != standing.generation || before.version > standing.version
                };
                let shows = |watched: &Watched| watched.shown.as_ref().is_some_and(is_there);
                if self.standing.is_some_and(other_life) && self.users.values().any(shows) {
                    self.hold = Some(Hold::default());
                }
                self.standing = Some(standing);
                self.complete = heard.is_none_or(|heard| heard <= standing.version);
            }
        }
    }
}

impl NodeCore {
    /// Does the next thing that those who watch users of a vnode need.
    pub(super) fn look_at(&mut self, vnode: VnodeId, now: Now) {
        let due = |copy: &&mut Copy| now.mono >= copy.again_at;
        let Some(copy) = self.watching.vnodes.get_mut(&vnode).filter(due) else { return };
        let ask = self.next_call;
        if copy.following.is_off() {
            copy.following.ask(ask);
            self.out.push(Action::Follow { channel: LiveChannel::Presence(vnode), ask });
        } else if copy.following.is_on()
            && let Some((reading, users)) = copy.wanted()
        {
            copy.ask(ask, reading, &users);
            self.out.push(Action::Ask(Ask::Presence { vnode, users, ask }));
        } else {
            return;
        }
        self.next_call += 1;
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
                    session.watches.not_missing(&presence.user);
                }
                waiting.insert(key);
            }
            let Some(watched) = copy.users.get(&presence.user) else { continue };
            match &watched.shown {
                None => {}
                Some(_) if !replaces => continue,
                Some(shown) if held && is_there(shown) && !is_there(&presence) => continue,
                Some(shown) => self.counters.presence_found += u64::from(*shown != presence),
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
    fn show(&mut self, vnode: VnodeId, presence: Presence) {
        let Some(copy) = self.watching.vnodes.get_mut(&vnode) else { return };
        let Some(watched) = copy.users.get_mut(&presence.user) else { return };
        let user = presence.user.clone();
        if watched.shown.replace(presence.clone()).is_none_or(|before| before == presence) {
            return;
        }
        let told: Vec<_> =
            watched.sessions.iter().filter(|(_, given)| **given).map(|(key, _)| *key).collect();
        self.counters.presence_told += told.len() as u64;
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
            self.out.push(Action::Unfollow { channel: LiveChannel::Presence(vnode) });
        }
    }

    pub(in crate::core) fn tick_watching(&mut self, now: Now) {
        self.give_up_watches(now);
        let grace = self.cfg.grace_ms + COMPARE_MS;
        for vnode in self.watching.vnodes.keys().copied().collect::<Vec<_>>() {
            let ready = self.has_ready_home(vnode);
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
            self.out.push(Action::Ask(Ask::PresenceStandings(vnodes.to_vec())));
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
        held || !self.has_ready_home(vnode) || now.mono > self.view_at + self.cfg.lease_ttl_ms
    }

    fn has_ready_home(&self, vnode: VnodeId) -> bool {
        self.view.rows.get(&vnode).is_some_and(|row| row.ready && !self.view.ended(&row.sid))
    }
}

fn is_there(shown: &Presence) -> bool {
    shown.status != Status::Offline
}
