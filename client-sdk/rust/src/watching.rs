//! Whom this client watches, and how that outlives connections.
//!
//! A user is kept from the answer to the application's `watch` until it is unwatched. Over a new connection everyone
//! is watched again, by commands of the core's own; what differs from what was told is told then.

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::answers::Watched;
use roost_proto::frames::{OfUsers, Presence};
use roost_proto::{ClientFrame, ErrorBody, MessageId, UserId};

use crate::core::Core;
use crate::event::Event;
use crate::lanes::OrderingKey;
use crate::outbox::What;

#[derive(Debug, Default)]
pub(crate) struct Watching {
    /// What was told of each, if anything.
    users: BTreeMap<UserId, Option<Presence>>,
    /// Unwatched since they were asked for.
    declined: BTreeSet<UserId>,
}

impl Watching {
    /// Takes what is known of a user who is watched; true if that is news. Whether it is stale is none.
    fn takes(&mut self, presence: &Presence) -> bool {
        let Some(told) = self.users.get_mut(&presence.user) else { return false };
        let lasting = Presence { stale: false, ..presence.clone() };
        told.replace(lasting.clone()) != Some(lasting)
    }
}

impl Core {
    /// The application changes whom it watches.
    pub(crate) fn wants_watched(&mut self, what: &What) {
        match what {
            What::Watch(users) => {
                for user in users {
                    self.watching.declined.remove(user);
                }
            }
            // At once: nothing more of them is told.
            What::Unwatch(users) => {
                for user in users {
                    self.watching.users.remove(user);
                    self.watching.declined.insert(user.clone());
                }
            }
            _ => {}
        }
    }

    pub(crate) fn watched(&mut self, users: &[UserId], own: bool, watched: Watched) {
        if !own {
            for user in users.iter().filter(|user| !self.watching.declined.contains(*user)) {
                self.watching.users.entry(user.clone()).or_default();
            }
        }
        let told: Vec<_> =
            watched.users.into_iter().filter(|presence| self.watching.takes(presence)).collect();
        if !told.is_empty() {
            self.deliver(Event::Presence(told), None);
        }
    }

    pub(crate) fn unwatched(&mut self, users: &[UserId]) {
        for user in users {
            self.watching.declined.remove(user);
        }
    }

    pub(crate) fn presence(&mut self, presence: Presence) {
        if self.watching.takes(&presence) {
            self.deliver(Event::Presence(vec![presence]), None);
        }
    }

    /// Over a new connection nobody is watched yet.
    pub(crate) fn watch_again(&mut self) {
        let (mut part, mut bytes) = (Vec::new(), 0);
        let longest = MessageId::new("x".repeat(64)).expect("letters");
        let around = ClientFrame::Watch(OfUsers { id: longest, users: Vec::new() }).to_json().len();
        for user in self.watching.users.keys() {
            let size = serde_json::to_string(user).map_or(0, |text| text.len() + 1);
            if around + bytes + size > self.config.frame_bytes_max {
                self.outbox.push_own(OrderingKey::Watch, What::Watch(std::mem::take(&mut part)));
                bytes = 0;
            }
            bytes += size;
            part.push(user.clone());
        }
        if !part.is_empty() {
            self.outbox.push_own(OrderingKey::Watch, What::Watch(part));
        }
    }

    /// One of these cannot be watched any more; a refusal does not say which.
    pub(crate) fn not_watched_again(&mut self, users: &[UserId], error: &ErrorBody) {
        if let [user] = users {
            if self.watching.users.remove(user).is_some() {
                self.deliver(Event::WatchLost { user: user.clone(), error: error.clone() }, None);
            }
            return;
        }
        let (half, rest) = users.split_at(users.len() / 2);
        for part in [half, rest] {
            self.outbox.push_own(OrderingKey::Watch, What::Watch(part.to_vec()));
        }
    }
}
