//! What this node knows of the presence of watched users of one vnode: read from the store, kept up by what the
//! vnode's home publishes, read anew when something is missing.
//!
//! The channel is followed before anything is read. Each publication names the version that it follows; one that
//! does not follow what is known, or another version in the store (looked at every 5 s with the tails), makes all
//! be read, and what differs is told.

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::PresenceStanding;
use roost_proto::events::Status;
use roost_proto::frames::Presence;
use roost_proto::ids::UserId;
use roost_proto::live::Version;

use crate::core::following::Following;
use crate::core::keys::SessionKey;

/// One user that is watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// None until it was read.
    pub(super) shown: Option<Presence>,
    /// Who watches, and whether it was given what is shown: then it is told of changes.
    pub(super) sessions: BTreeMap<SessionKey, bool>,
    /// Those of them who came while the store was asked: what it says then may be older than what they know.
    late: BTreeSet<SessionKey>,
}

/// What is being read.
#[derive(Debug)]
pub(super) enum Reading {
    /// Users of whom nothing is known. Publications are applied meanwhile.
    Missing,
    /// Everyone. Publications are not applied; the last one heard meanwhile.
    All(Option<Version>),
}

/// After a loss of the store's data nobody is taken for offline whom the store merely does not know any more, until
/// their homes had the grace to say so: `until` then, if the home is ready.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) until: Option<u64>,
}

/// The copy for one vnode.
#[derive(Debug, Default)]
pub(super) struct PresenceReplica {
    pub(super) following: Following,
    pub(super) users: BTreeMap<UserId, Watched>,
    /// Of whom nothing is known.
    missing: BTreeSet<UserId>,
    /// As of when the rest is known; none before the first read.
    pub(super) standing: Option<PresenceStanding>,
    /// What is known is complete up to that, and can be kept up by what is published.
    pub(super) complete: bool,
    pub(super) reading: Option<(u64, Reading)>,
    /// Not before then is the store asked.
    pub(super) again_at: u64,
    pub(super) hold: Option<Hold>,
    /// Since when nobody here watches anyone in it.
    pub(super) idle_since: Option<u64>,
}

impl PresenceReplica {
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
    pub(super) fn go(&mut self, user: &UserId, key: SessionKey) {
        let Some(watched) = self.users.get_mut(user) else { return };
        watched.sessions.remove(&key);
        watched.late.remove(&key);
        if watched.sessions.is_empty() {
            self.users.remove(user);
            self.missing.remove(user);
        }
    }

    /// What is to be read next.
    pub(super) fn wanted(&self) -> Option<(Reading, Vec<UserId>)> {
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
    pub(super) fn ask(&mut self, ask: u64, reading: Reading, users: &[UserId]) {
        self.reading = Some((ask, reading));
        for user in users {
            if let Some(watched) = self.users.get_mut(user) {
                watched.late.clear();
            }
        }
    }

    /// A user of whom something was missing was read: for whom. It stays missing for those who came meanwhile.
    pub(super) fn is_found(&mut self, user: &UserId) -> Vec<SessionKey> {
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
    pub(super) fn was_read(&mut self, reading: Reading, standing: PresenceStanding) {
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

pub(super) fn is_there(shown: &Presence) -> bool {
    shown.status != Status::Offline
}
