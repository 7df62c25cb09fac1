//! What may be on its way to all sockets of a user, and of the node, in bytes.
//!
//! Each socket has a quarter of its credit for itself; what it takes beyond that comes from what its user may have
//! beyond, and the node. So a user with sixteen sockets that read nothing takes no more than three that do, and even
//! if others have taken all of the node's, everybody's messages get through, if slower.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use roost_proto::ids::UserId;

use crate::core::keys::SessionKey;
use crate::core::sessions::credit::Credit;

/// Of one user's sockets beyond what each has for itself: four that take all of their credit.
const USER_BYTES_MAX: usize = 1024 * 1024;

/// Of all sockets of a node beyond that.
const NODE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Sessions that are fed at once when the node has room again: the others have their turn.
const WOKEN_MAX: usize = 16;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What a socket has for itself.
    own: usize,
    user_max: usize,
    node_max: usize,
    users: BTreeMap<UserId, usize>,
    node: usize,
    /// Sessions that were not given anything because of others: of their user, or of the node.
    behind_own: BTreeMap<UserId, BTreeSet<SessionKey>>,
    behind_all: BTreeSet<SessionKey>,
    last_woken: SessionKey,
}

impl Budget {
    /// Of sockets with so many bytes on credit.
    pub(crate) fn new(credit_bytes: usize) -> Self {
        Self {
            own: credit_bytes / 4,
            user_max: USER_BYTES_MAX,
            node_max: NODE_BYTES_MAX,
            users: BTreeMap::new(),
            node: 0,
            behind_own: BTreeMap::new(),
            behind_all: BTreeSet::new(),
            last_woken: SessionKey(0),
        }
    }

    /// Takes a frame's part of a socket's credit; false if it may not go now. Then the session is fed again when its
    /// socket took something, or, if it waits for others, when there is room ([`Budget::woken`]).
    pub(crate) fn spend(
        &mut self,
        key: SessionKey,
        user: &UserId,
        credit: &mut Credit,
        bytes: usize,
    ) -> bool {
        if !credit.allows(bytes) {
            return false;
        }
        let more = self.beyond(credit.bytes() + bytes) - self.beyond(credit.bytes());
        if more > 0 && !credit.is_idle() && more > self.left_for(user) {
            self.wait(key, user);
            return false;
        }
        self.take(user, credit, bytes);
        true
    }

    /// How many bytes may be read for a socket now; none if it is not worth it, since what is read and not handed out
    /// is read again: the largest frame must fit, with what is around its payload. Then the session is fed again as
    /// after [`Budget::spend`].
    pub(crate) fn room(&mut self, key: SessionKey, user: &UserId, credit: &Credit) -> Option<usize> {
        if credit.frames() == 0 {
            return None;
        }
        let room = credit.left().min(self.own.saturating_sub(credit.bytes()) + self.left_for(user));
        if credit.is_idle() {
            return Some(room.max(1));
        }
        let worth = self.own + self.own / 8;
        if room < worth && credit.left() >= worth {
            self.wait(key, user);
        }
        (room >= worth).then_some(room)
    }

    /// The same for what must go, because it was promised or is awaited.
    pub(crate) fn take(&mut self, user: &UserId, credit: &mut Credit, bytes: usize) {
        let before = self.beyond(credit.bytes());
        credit.spend(bytes);
        self.moved(user, before, self.beyond(credit.bytes()));
    }

    /// The socket took these.
    pub(crate) fn give_back(&mut self, user: &UserId, credit: &mut Credit, (frames, bytes): (usize, usize)) {
        let before = self.beyond(credit.bytes());
        credit.give_back(frames, bytes);
        self.moved(user, before, self.beyond(credit.bytes()));
    }

    /// The session is gone, with one of its queues.
    pub(crate) fn forget(&mut self, key: SessionKey, user: &UserId, credit: &mut Credit) {
        self.behind_all.remove(&key);
        if let Some(waiting) = self.behind_own.get_mut(user) {
            waiting.remove(&key);
        }
        let bytes = credit.bytes();
        self.give_back(user, credit, (0, bytes));
    }

    /// Sessions to be fed now that others have taken something: all of this user's, and a few of the node's.
    pub(crate) fn woken(&mut self, user: Option<&UserId>) -> BTreeSet<SessionKey> {
        let mut woken = BTreeSet::new();
        if let Some(user) = user.filter(|user| self.users.get(user).is_none_or(|of| *of < self.user_max)) {
            woken = self.behind_own.remove(user).unwrap_or_default();
        }
        while self.node < self.node_max && woken.len() < WOKEN_MAX {
            // From the last one on, so that the oldest do not have every turn.
            let after = self.behind_all.range((Excluded(self.last_woken), Unbounded)).next();
            let Some(key) = after.or_else(|| self.behind_all.first()).copied() else { break };
            self.behind_all.remove(&key);
            self.last_woken = key;
            woken.insert(key);
        }
        woken
    }

    /// Beyond what each socket has for itself, for the metrics.
    pub(crate) fn bytes(&self) -> usize {
        self.node
    }

    fn left_for(&self, user: &UserId) -> usize {
        let of_user = self.users.get(user).copied().unwrap_or_default();
        self.user_max.saturating_sub(of_user).min(self.node_max.saturating_sub(self.node))
    }

    fn wait(&mut self, key: SessionKey, user: &UserId) {
        let of_user = self.users.get(user).copied().unwrap_or_default();
        if self.user_max.saturating_sub(of_user) <= self.node_max.saturating_sub(self.node) {
            self.behind_own.entry(user.clone()).or_default().insert(key);
        } else {
            self.behind_all.insert(key);
        }
    }

    fn beyond(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.own)
    }

    fn moved(&mut self, user: &UserId, before: usize, after: usize) {
        if before == after {
            return;
        }
        self.node = self.node + after - before;
        let of_user = self.users.entry(user.clone()).or_default();
        *of_user = *of_user + after - before;
        if *of_user == 0 {
            self.users.remove(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn sockets(n: usize) -> Vec<Credit> {
        vec![Credit::new(256, 256 * 1024); n]
    }

    /// Frames of 60 kB to each socket in turn until none may go.
    fn fill(budget: &mut Budget, user: &UserId, sockets: &mut [Credit]) -> usize {
        let mut bytes = 0;
        loop {
            let before = bytes;
            for (n, credit) in sockets.iter_mut().enumerate() {
                if budget.spend(SessionKey(n as u64), user, credit, 60_000) {
                    bytes += 60_000;
                }
            }
            if bytes == before {
                return bytes;
            }
        }
    }

    #[test]
    fn sixteen_sockets_that_read_nothing_are_one_user() {
        let mut budget = Budget::new(256 * 1024);
        let (eve, mut of_eve) = (user("eve"), sockets(16));
        let bytes = fill(&mut budget, &eve, &mut of_eve);
        assert!(bytes <= 16 * 64 * 1024 + USER_BYTES_MAX, "{bytes}");
        let (bob, mut of_bob) = (user("bob"), sockets(1));
        assert_eq!(fill(&mut budget, &bob, &mut of_bob), 240_000, "another has all of the own");
        for (n, credit) in of_eve.iter_mut().enumerate() {
            budget.forget(SessionKey(n as u64), &eve, credit);
        }
        budget.give_back(&bob, &mut of_bob[0], (4, 240_000));
        assert_eq!((budget.bytes(), budget.users.len()), (0, 0));
    }

    #[test]
    fn when_the_node_has_no_more_each_socket_still_gets_one_after_the_other() {
        let mut budget = Budget::new(256 * 1024);
        for n in 0..200 {
            fill(&mut budget, &user(&format!("eve{n}")), &mut sockets(16));
        }
        assert!(budget.bytes() <= NODE_BYTES_MAX);
        let (bob, mut credit) = (user("bob"), Credit::new(256, 256 * 1024));
        let key = SessionKey(7);
        for _ in 0..5 {
            assert!(budget.spend(key, &bob, &mut credit, 60_000));
            assert!(!budget.spend(key, &bob, &mut credit, 60_000));
            budget.give_back(&bob, &mut credit, (1, 60_000));
        }
    }

    #[test]
    fn who_waits_for_others_is_fed_when_they_have_read() {
        let mut budget = Budget { user_max: 100, ..Budget::new(40) };
        let (eve, mut sockets) = (user("eve"), vec![Credit::new(9, 160), Credit::new(9, 160)]);
        assert!(budget.spend(SessionKey(0), &eve, &mut sockets[0], 110));
        assert!(budget.spend(SessionKey(1), &eve, &mut sockets[1], 20), "its own");
        assert!(!budget.spend(SessionKey(1), &eve, &mut sockets[1], 100));
        assert!(budget.woken(Some(&user("bob"))).is_empty(), "another's has nothing to do with it");
        budget.forget(SessionKey(0), &eve, &mut sockets[0]);
        assert!(budget.woken(Some(&eve)).contains(&SessionKey(1)), "who they waited for is gone");
        assert!(budget.spend(SessionKey(1), &eve, &mut sockets[1], 80));
    }
}
