//! Messages that no device of their user has acknowledged, and when to say so (docs/decisions/0013).
//!
//! Each is kept in the store by the append itself; this is the home's copy, without the messages. An acknowledgement
//! settles what it covers; what is left in time is reported, once, because one write takes it away and puts its
//! event into the outbox.

use std::collections::VecDeque;

use roost_backend::store::{Due, InboxPosition};
use roost_proto::ids::{Cursor, UserId};
use roost_proto::limits::FRAME_BYTES_MAX;

use crate::core::homes::deadlines::Deadlines;
use crate::core::homes::most::Most;
use crate::core::keys::Now;

/// Messages of one vnode that may be due: some 250 bytes each here. Beyond half of it (beyond nine tenths, while devices
/// have time to come) the oldest of who sent most of them are reported before their time; at all of it the vnode takes
/// no more.
const DUE_MAX: usize = 10_000;

/// Acknowledged messages that one write takes from the store: about 1 ms there.
const SETTLE_MAX: usize = 1000;

/// How large a message is that an earlier home took, in bytes: that is not kept, so it may be the largest.
const INHERITED_BYTES: usize = FRAME_BYTES_MAX;

/// What is due in a vnode that lives here.
#[derive(Debug, Default)]
pub(crate) struct Unacked {
    /// By age those that are not being reported, with the sender of each, and its size.
    waiting: Deadlines<(String, usize)>,
    /// Of those, who sent most.
    senders: Most<InboxPosition>,
    /// Acknowledged, which the store does not know yet.
    settled: VecDeque<InboxPosition>,
    /// Until then devices have time to come and show what they have, on the monotonic clock.
    quiet_until: u64,
}

impl Unacked {
    pub(crate) fn inherited(due: Vec<Due>) -> Self {
        let mut home = Self::default();
        for Due { user, cursor, from, since_ms } in due {
            home.insert((user, cursor), &from, INHERITED_BYTES, since_ms);
        }
        home
    }

    /// Only now may devices come that were at the last home.
    pub(crate) fn ready(&mut self, until: u64) {
        self.quiet_until = until;
    }

    pub(crate) fn insert(&mut self, place: InboxPosition, from: &str, bytes: usize, since_ms: u64) {
        self.remove(&place);
        self.senders.insert(from, since_ms, place.clone());
        self.waiting.insert(place, since_ms, (from.to_owned(), bytes));
    }

    fn remove(&mut self, place: &InboxPosition) {
        self.count_no_more(place);
        self.waiting.remove(place);
    }

    fn count_no_more(&mut self, place: &InboxPosition) {
        if let Some((since_ms, (from, _))) = self.waiting.get(place) {
            self.senders.remove(from, since_ms, place);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= DUE_MAX
    }

    /// A device of `user` has everything up to `cursor`.
    pub(crate) fn settle(&mut self, user: &UserId, cursor: Cursor) {
        let covered: Vec<InboxPosition> =
            self.waiting.covered(user, cursor).map(|(place, _)| place.clone()).collect();
        for place in covered {
            self.remove(&place);
            self.settled.push_back(place);
        }
    }

    /// What the next write takes from the store.
    pub(crate) fn take_settled(&mut self) -> Vec<InboxPosition> {
        self.settled.drain(..self.settled.len().min(SETTLE_MAX)).collect()
    }

    pub(crate) fn all_is_settled(&self) -> bool {
        self.settled.is_empty()
    }

    /// At most `max` of those whose time is over, oldest first, or of who sent most, if there are too many; they are not
    /// told again. With the size of each.
    pub(super) fn overdue(
        &mut self,
        clock_ms: u64,
        after_ms: u64,
        max: usize,
        now: Now,
    ) -> Vec<(InboxPosition, usize)> {
        let mut overdue = Vec::new();
        let quiet = now.mono < self.quiet_until;
        let many = if quiet { DUE_MAX / 10 * 9 } else { DUE_MAX / 2 };
        while overdue.len() < max
            && let Some((since_ms, oldest)) = self.waiting.oldest()
        {
            let over = !quiet && clock_ms >= since_ms + after_ms;
            let place = if over { Some(oldest) } else { self.senders.oldest() };
            let Some(place) = place.filter(|_| over || self.waiting.not_passed_over() > many).cloned() else {
                break;
            };
            self.count_no_more(&place);
            self.waiting.pass_over_this(&place);
            let bytes = self.waiting.get(&place).map_or(0, |(_, (_, bytes))| *bytes);
            overdue.push((place, bytes));
        }
        overdue
    }

    pub(crate) fn reported(&mut self, place: &InboxPosition) {
        self.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::ids::{Epoch, Offset};

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn at(offset: u64) -> Cursor {
        Cursor::new(Epoch(7), Offset(offset))
    }

    fn overdue(due: &mut Unacked, clock_ms: u64, max: usize) -> Vec<u64> {
        let now = Now { mono: 1000, ..Now::default() };
        due.overdue(clock_ms, 30, max, now).into_iter().map(|((_, cursor), _)| cursor.offset.0).collect()
    }

    #[test]
    fn an_acknowledgement_settles_what_it_covers_of_its_user() {
        let mut due = Unacked::default();
        for offset in 1..=3 {
            due.insert((user("bob"), at(offset)), "eve", 100, 100);
            due.insert((user("bobby"), at(offset)), "eve", 100, 100);
        }
        due.settle(&user("bob"), at(2));
        due.settle(&user("bob"), at(2));
        assert_eq!(due.take_settled(), [(user("bob"), at(1)), (user("bob"), at(2))]);
        assert!(due.all_is_settled());
        assert_eq!(overdue(&mut due, 200, 9), [3, 1, 2, 3]);
    }

    #[test]
    fn what_is_overdue_is_told_once_oldest_first() {
        let mut due = Unacked::default();
        for offset in [3, 1, 2] {
            due.insert((user("bob"), at(offset)), "eve", 100, 100 + offset);
        }
        assert!(overdue(&mut due, 130, 9).is_empty());
        assert_eq!(overdue(&mut due, 132, 1), [1]);
        assert_eq!(overdue(&mut due, 132, 9), [2]);
        due.settle(&user("bob"), at(2));
        assert_eq!(due.take_settled().len(), 2, "until it is reported an acknowledgement still counts");
        assert_eq!(due.waiting.len(), 1);
        due.ready(1001);
        assert!(overdue(&mut due, 500, 9).is_empty(), "devices have time to come");
    }

    #[test]
    fn too_many_are_reported_before_their_time() {
        let mut due = Unacked::default();
        for offset in 0..=DUE_MAX as u64 / 2 {
            due.insert((user("bob"), at(offset)), "eve", 100, offset);
        }
        assert_eq!(overdue(&mut due, 0, 9), [0]);
        assert!(overdue(&mut due, 0, 9).is_empty(), "while it is being reported it counts no more");
    }

    #[test]
    fn only_of_who_sent_most_anything_is_reported_before_its_time() {
        let mut due = Unacked::default();
        due.insert((user("bob"), at(1)), "alice", 100, 0);
        for offset in 2..DUE_MAX as u64 {
            due.insert((user("bob"), at(offset)), ["eve", "eve2", "eve3"][offset as usize % 3], 100, offset);
        }
        let early = overdue(&mut due, 29, DUE_MAX);
        assert_eq!(early.len(), DUE_MAX / 2 - 1);
        assert!(!early.contains(&1));
        assert_eq!(overdue(&mut due, 30, 1), [1], "in its time");
    }
}
