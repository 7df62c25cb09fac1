//! Sessions watch users, are answered, and watch them no more.

use std::collections::BTreeSet;

use roost_proto::answers::Watched;
use roost_proto::codes::{ErrorBody, ErrorCode};
use roost_proto::frames::{Empty, OfUsers, Presence};
use roost_proto::ids::{StreamId, UserId};
use roost_proto::limits::UNKNOWN_AFTER_MS;

use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::sessions::session::Session;
use crate::core::sessions::signals::Latest;
use crate::core::watching::WatchAsked;

impl NodeCore {
    /// All of the users, or none.
    pub(in crate::core) fn on_watch(
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
            users.iter().find(|user| !session.rights().may_watch(user, self.cfg.watch_needs_claim))
        {
            let why = format!("the token does not allow to watch '{user}'");
            return Err(ErrorBody::new(ErrorCode::Forbidden, why));
        }
        let new = users.iter().filter(|user| !session.watches().users.contains(*user)).count();
        if session.watches().users.len() + new > max {
            let why = format!("a session may watch {max} users");
            return Err(ErrorBody::new(ErrorCode::TooLarge, why));
        }
        if new > 0 && !session.rights().service {
            let user = session.user().clone();
            self.channels.shares_mut().watch(&user, new, now.mono).map_err(|wait| {
                let why = "too many users watched anew";
                ErrorBody::new(ErrorCode::RateLimited, why).retry_after(wait)
            })?;
        }
        let Some(session) = self.sessions.get_mut(&key) else { return Ok(()) };
        session.watches_mut().users.extend(users.iter().cloned());
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
            session.watches_mut().asking.push(WatchAsked {
                id: command.id,
                users: command.users,
                missing,
                until,
            });
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
    pub(super) fn answer_watches(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut session.watches_mut().asking).into_iter().partition(|a| a.missing.is_empty());
        if rest.is_empty() {
            self.watching.waiting.remove(&key);
        }
        session.watches_mut().asking = rest;
        for WatchAsked { id, users, .. } in ready {
            let shown = users.into_iter().filter_map(|user| self.give(key, &user, now)).collect();
            self.reply_on_credit(key, id.as_str(), &Watched { users: shown });
        }
    }

    /// What a user shows; from now on the session is told of changes. What is not watched any more is not given.
    fn give(&mut self, key: SessionKey, user: &UserId, now: Now) -> Option<Presence> {
        let vnode = self.vnode_of(&StreamId::inbox(user));
        let stale = self.is_stale(vnode, now);
        let session = self.sessions.get_mut(&key).filter(|s| s.watches().users.contains(user))?;
        // Without credit the answer says so, and nothing is given.
        let given = session.takes_answers();
        if given {
            session.drop_one(&Latest::Presence(user.clone()));
        }
        let shown = self.watching.vnodes.get_mut(&vnode)?.give(user, key, given)?;
        Some(Presence { stale, ..shown })
    }

    pub(in crate::core) fn on_unwatch(
        &mut self,
        key: SessionKey,
        command: &OfUsers,
        now: Now,
    ) -> Result<(), ErrorBody> {
        self.unwatch(key, &command.users, now);
        self.reply_ok(key, command.id.as_str(), &Empty {});
        Ok(())
    }

    fn unwatch(&mut self, key: SessionKey, users: &[UserId], now: Now) {
        for user in users {
            let Some(session) = self.sessions.get_mut(&key) else { return };
            if session.watches_mut().users.remove(user) {
                session.watches_mut().not_missing(user);
                session.drop_one(&Latest::Presence(user.clone()));
                self.forget_watcher(key, user, now);
            }
        }
        if self.sessions.get(&key).is_some_and(|s| s.watches().users.is_empty()) {
            self.watching.watchers.remove(&key);
        }
        self.answer_watches(key, now);
    }

    /// A connection is gone, and with it what it watched.
    pub(in crate::core) fn unwatch_all(&mut self, key: SessionKey, session: &Session, now: Now) {
        for user in &session.watches().users {
            self.forget_watcher(key, user, now);
        }
        self.watching.watchers.remove(&key);
        self.watching.waiting.remove(&key);
    }

    /// The session's token allows less now.
    pub(in crate::core) fn unwatch_forbidden(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get(&key) else { return };
        let forbidden = |user: &&UserId| !session.rights().may_watch(user, self.cfg.watch_needs_claim);
        let users: Vec<_> = session.watches().users.iter().filter(forbidden).cloned().collect();
        self.unwatch(key, &users, now);
    }

    /// Those who waited too long are told so. They watch all the same, and are given nothing before they ask again.
    pub(super) fn give_up_watches(&mut self, now: Now) {
        for key in self.watching.waiting.iter().copied().collect::<Vec<_>>() {
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            let (late, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut session.watches_mut().asking)
                .into_iter()
                .partition(|a| now.mono >= a.until);
            session.watches_mut().asking = rest;
            for asking in late {
                self.reply_unavailable(key, asking.id.as_str());
            }
            self.answer_watches(key, now);
        }
    }
}
