//! Reads of streams for sessions: one at a time for each session, a few for each user, so many bytes at once for the
//! node. Who waits is served by users, in turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roost_proto::history::History;
use roost_proto::ids::{StreamId, UserId};

use crate::core::flow::Flow;
use crate::core::keys::SessionKey;

/// Reads of one user under way.
const USER_MAX: usize = 2;

/// Asked of the store at once, in bytes: some 10 ms of its time.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most that one read is given, in bytes.
pub(crate) const READ_BYTES_MAX: usize = 128 * 1024;

/// What a session wants to be read, in turn.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    inbox: bool,
    rooms: BTreeSet<StreamId>,
    /// Bounded by what may be unanswered.
    pages: VecDeque<History>,
    /// Of the three kinds, the one that is next.
    turn: u8,
}

/// One of them.
#[derive(Debug)]
pub(crate) enum Want {
    Inbox,
    Room(StreamId),
    Page(Box<History>),
}

impl Wants {
    pub(crate) fn add(&mut self, want: Want) {
        match want {
            Want::Inbox => self.inbox = true,
            Want::Room(stream) => drop(self.rooms.insert(stream)),
            Want::Page(history) => self.pages.push_back(*history),
        }
    }

    /// One that could not be begun, and is the next of its kind.
    pub(crate) fn put_back(&mut self, want: Want) {
        match want {
            Want::Page(history) => self.pages.push_front(*history),
            other => self.add(other),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.inbox && self.rooms.is_empty() && self.pages.is_empty()
    }

    /// The next of the kind whose turn it is, so that none of them keeps the others waiting.
    pub(crate) fn next(&mut self) -> Option<Want> {
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let want = match self.turn {
                0 => std::mem::take(&mut self.inbox).then_some(Want::Inbox),
                1 => self.rooms.pop_first().map(Want::Room),
                _ => self.pages.pop_front().map(|history| Want::Page(Box::new(history))),
            };
            if want.is_some() {
                return want;
            }
        }
        None
    }
}

/// Whether a read was begun.
#[derive(Debug)]
pub(crate) enum Begun {
    Yes,
    /// It need not be, cannot be now, or is shared with another's.
    Not,
    /// It is the next when the session's socket has taken something.
    Later(Want),
}

#[derive(Debug, Default)]
struct OfUser {
    under_way: usize,
    /// It has its turn.
    queued: bool,
    waiting: VecDeque<SessionKey>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Reads {
    flow: Flow,
    users: BTreeMap<UserId, OfUser>,
    /// Users with somebody waiting and room for one more.
    turns: VecDeque<UserId>,
    /// Sessions that wait or read.
    busy: BTreeSet<SessionKey>,
    under_way: BTreeMap<u64, (SessionKey, UserId)>,
    next: u64,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            flow: Flow::new(BYTES_MAX),
            users: BTreeMap::new(),
            turns: VecDeque::new(),
            busy: BTreeSet::new(),
            under_way: BTreeMap::new(),
            next: 1,
        }
    }
}

impl Reads {
    /// The session has wants.
    pub(crate) fn wait(&mut self, key: SessionKey, user: &UserId) {
        if self.busy.insert(key) {
            self.users.entry(user.clone()).or_default().waiting.push_back(key);
            self.take_turn(user);
        }
    }

    /// The session that may have something read now; it waits no more.
    pub(crate) fn next(&mut self) -> Option<SessionKey> {
        while self.flow.has_room()
            && let Some(user) = self.turns.pop_front()
        {
            let Some(of_user) = self.users.get_mut(&user) else { continue };
            of_user.queued = false;
            let key = if of_user.under_way < USER_MAX { of_user.waiting.pop_front() } else { None };
            self.take_turn(&user);
            if let Some(key) = key {
                self.busy.remove(&key);
                return Some(key);
            }
        }
        None
    }

    /// A read is begun for the session; the number under which it is answered.
    pub(crate) fn begin(&mut self, key: SessionKey, user: &UserId, bytes: usize) -> u64 {
        let ask = self.next;
        self.next += 1;
        self.flow.begin(ask, bytes);
        self.under_way.insert(ask, (key, user.clone()));
        self.busy.insert(key);
        self.users.entry(user.clone()).or_default().under_way += 1;
        ask
    }

    /// A read is over. Whose session may want more.
    pub(crate) fn end(&mut self, ask: u64, answered: bool) -> Option<SessionKey> {
        let (key, user) = self.under_way.remove(&ask)?;
        self.flow.end(ask, answered);
        self.busy.remove(&key);
        if let Some(of_user) = self.users.get_mut(&user) {
            of_user.under_way -= 1;
        }
        self.take_turn(&user);
        Some(key)
    }

    /// In bytes, for the metrics.
    pub(crate) fn bytes(&self) -> usize {
        self.flow.bytes()
    }

    fn take_turn(&mut self, user: &UserId) {
        let Some(of_user) = self.users.get_mut(user) else { return };
        if of_user.waiting.is_empty() {
            if of_user.under_way == 0 && !of_user.queued {
                self.users.remove(user);
            }
        } else if of_user.under_way < USER_MAX && !std::mem::replace(&mut of_user.queued, true) {
            self.turns.push_back(user.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn a_user_with_many_sessions_takes_turns_with_the_others() {
        let mut reads = Reads::default();
        for key in 0..16 {
            reads.wait(SessionKey(key), &user("eve"));
        }
        reads.wait(SessionKey(99), &user("bob"));
        reads.wait(SessionKey(99), &user("bob"));
        let mut begun = Vec::new();
        while let Some(key) = reads.next() {
            let name = if key.0 == 99 { "bob" } else { "eve" };
            begun.push((key.0, reads.begin(key, &user(name), READ_BYTES_MAX)));
        }
        assert_eq!(begun.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [0, 99, 1]);
        assert_eq!(reads.end(begun[0].1, true), Some(SessionKey(0)));
        assert_eq!(reads.end(begun[0].1, true), None, "once");
        assert_eq!(reads.next(), Some(SessionKey(2)));
    }

    #[test]
    fn a_session_reads_one_thing_at_a_time() {
        let mut reads = Reads::default();
        reads.wait(SessionKey(1), &user("bob"));
        assert_eq!(reads.next(), Some(SessionKey(1)));
        let ask = reads.begin(SessionKey(1), &user("bob"), 10);
        reads.wait(SessionKey(1), &user("bob"));
        assert_eq!(reads.next(), None);
        reads.end(ask, true);
        reads.wait(SessionKey(1), &user("bob"));
        assert_eq!(reads.next(), Some(SessionKey(1)));
        assert!(reads.users.is_empty() && reads.turns.is_empty() && reads.busy.is_empty());
    }

    #[test]
    fn a_node_asks_for_so_many_bytes_at_once_and_for_one_read_after_a_time_out() {
        let mut reads = Reads::default();
        let mut begun = Vec::new();
        for n in 0..100 {
            reads.wait(SessionKey(n), &user(&format!("u{n}")));
        }
        while let Some(key) = reads.next() {
            begun.push(reads.begin(key, &user(&format!("u{}", key.0)), READ_BYTES_MAX));
        }
        assert_eq!(begun.len(), BYTES_MAX / READ_BYTES_MAX);
        for ask in begun {
            reads.end(ask, false);
        }
        let key = reads.next().unwrap();
        reads.begin(key, &user("x"), READ_BYTES_MAX);
        assert_eq!(reads.next(), None);
    }

    #[test]
    fn no_kind_of_want_keeps_the_others_waiting() {
        let mut wants = Wants::default();
        let room = |n: u32| StreamId::new(format!("room:r{n}")).unwrap();
        (0..3).for_each(|n| wants.add(Want::Room(room(n))));
        let mut order = Vec::new();
        for _ in 0..5 {
            wants.add(Want::Inbox);
            order.push(match wants.next() {
                Some(Want::Inbox) => 'i',
                Some(Want::Room(_)) => 'r',
                _ => '?',
            });
        }
        assert_eq!(order.iter().collect::<String>(), "ririr");
    }
}
