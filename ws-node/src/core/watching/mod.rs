//! Users whose presence sessions of this node watch (rule 30): who watches whom, and may.
//!
//! A node follows the presence of a vnode for all its watchers together: [`copy`] is what it knows of it. A session
//! is given what a user shows in the answer to its `watch`, and each change since in a frame of the latest-wins lane,
//! so that who reads slowly has one frame waiting for each user, and ends right.

mod copy;

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::claims;
use roost_proto::codes::{ErrorBody, ErrorCode};
use roost_proto::frames::{OfUsers, Presence, ReplyOk};
use roost_proto::ids::{MessageId, StreamId, UserId, VnodeId};
use roost_proto::limits::UNKNOWN_AFTER_MS;

use super::NodeCore;
use super::events::{Now, SessionKey};
use super::session::Session;
use super::signals::Latest;
use copy::Copy;

/// All that is watched from a node.
#[derive(Debug, Default)]
pub struct Watching {
    vnodes: BTreeMap<VnodeId, Copy>,
    watchers: BTreeSet<SessionKey>,
    /// Those of them that wait for an answer.
    waiting: BTreeSet<SessionKey>,
}

impl Watching {
    pub fn users(&self) -> usize {
        self.vnodes.values().map(Copy::users).sum()
    }

    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }
}

/// What one session watches.
#[derive(Debug, Default)]
pub struct Watches {
    users: BTreeSet<UserId>,
    asking: Vec<Asking>,
}

/// A `watch` that is not answered yet.
#[derive(Debug)]
struct Asking {
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

impl NodeCore {
    /// All of the users, or none.
    pub(super) fn on_watch(
        &mut self,
        key: SessionKey,
        mut command: OfUsers,
        now: Now,
    ) -> Result<(), ErrorBody> {
        let max = self.cfg.watched_per_session_max;
        let mut users = BTreeSet::new();
        command.users.retain(|user| users.insert(user.clone()));
        let Some(session) = self.sessions.get_mut(&key) else { return Ok(()) };
        if let Some(user) =
            users.iter().find(|user| !session.rights.may_watch(user, self.cfg.watch_needs_claim))
        {
            let why = format!("the token does not allow to watch '{user}'");
            return Err(ErrorBody::new(ErrorCode::Forbidden, why));
        }
        let new = users.iter().filter(|user| !session.watches.users.contains(*user)).count();
        if session.watches.users.len() + new > max {
            let why = format!("a session may watch {max} users");
            return Err(ErrorBody::new(ErrorCode::TooLarge, why));
        }
        session.watches.users.extend(users.iter().cloned());
        let (mut missing, mut vnodes) = (BTreeSet::new(), BTreeSet::new());
        for user in users {
            let vnode = self.vnode_of(&StreamId::inbox(&user));
            vnodes.insert(vnode);
            if !self.watching.vnodes.entry(vnode).or_default().come(&user, key) {
                missing.insert(user);
            }
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            let until = now.mono + UNKNOWN_AFTER_MS;
            session.watches.asking.push(Asking { id: command.id, users: command.users, missing, until });
        }
        self.watching.watchers.insert(key);
        self.watching.waiting.insert(key);
        for vnode in vnodes {
            self.look_at(vnode, now);
        }
        self.answer_watches(key, now);
        Ok(())
    }

    /// Answers what can be answered now.
    fn answer_watches(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut session.watches.asking).into_iter().partition(|a| a.missing.is_empty());
        if rest.is_empty() {
            self.watching.waiting.remove(&key);
        }
        session.watches.asking = rest;
        for Asking { id, users, .. } in ready {
            let shown = users.into_iter().filter_map(|user| self.give(key, &user, now)).collect();
            let ok = ReplyOk { users: Some(shown), ..ReplyOk::default() };
            self.reply_on_credit(key, id.as_str(), ok);
        }
    }

    /// What a user shows; from now on the session is told of changes. What is not watched any more is not given.
    fn give(&mut self, key: SessionKey, user: &UserId, now: Now) -> Option<Presence> {
        let vnode = self.vnode_of(&StreamId::inbox(user));
        let stale = self.is_stale(vnode, now);
        let session = self.sessions.get_mut(&key).filter(|s| s.watches.users.contains(user))?;
        // Without credit the answer says so, and nothing is given.
        let given = session.credit.is_open();
        if given {
            session.signals.drop_one(&Latest::Presence(user.clone()));
        }
        let shown = self.watching.vnodes.get_mut(&vnode)?.give(user, key, given)?;
        Some(Presence { stale, ..shown })
    }

    pub(super) fn on_unwatch(
        &mut self,
        key: SessionKey,
        command: &OfUsers,
        now: Now,
    ) -> Result<(), ErrorBody> {
        self.unwatch(key, &command.users, now);
        self.reply_ok(key, command.id.as_str(), ReplyOk::default());
        Ok(())
    }

    fn unwatch(&mut self, key: SessionKey, users: &[UserId], now: Now) {
        for user in users {
            let Some(session) = self.sessions.get_mut(&key) else { return };
            if session.watches.users.remove(user) {
                session.watches.not_missing(user);
                session.signals.drop_one(&Latest::Presence(user.clone()));
                self.forget_watcher(key, user, now);
            }
        }
        if self.sessions.get(&key).is_some_and(|s| s.watches.users.is_empty()) {
            self.watching.watchers.remove(&key);
        }
        self.answer_watches(key, now);
    }

    /// A connection is gone, and with it what it watched.
    pub(super) fn unwatch_all(&mut self, key: SessionKey, session: &Session, now: Now) {
        for user in &session.watches.users {
            self.forget_watcher(key, user, now);
        }
        self.watching.watchers.remove(&key);
        self.watching.waiting.remove(&key);
    }

    /// The session's token allows less now.
    pub(super) fn unwatch_forbidden(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get(&key) else { return };
        let forbidden = |user: &&UserId| !session.rights.may_watch(user, self.cfg.watch_needs_claim);
        let users: Vec<_> = session.watches.users.iter().filter(forbidden).cloned().collect();
        self.unwatch(key, &users, now);
    }

    /// Those who waited too long are told so. They watch all the same, and are given nothing before they ask again.
    fn give_up_watches(&mut self, now: Now) {
        for key in self.watching.waiting.iter().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            let (late, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut session.watches.asking).into_iter().partition(|a| now.mono >= a.until);
            session.watches.asking = rest;
            for asking in late {
                self.reply_unavailable(key, asking.id.as_str());
            }
            self.answer_watches(key, now);
        }
    }
}

impl super::session::Rights {
    fn may_watch(&self, user: &UserId, needs_claim: bool) -> bool {
        claims::may_watch(self.watch.as_deref(), user, needs_claim)
    }
}
