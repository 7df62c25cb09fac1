//! Refusals of one session that it has not repeated yet: what it sends later to the same stream waits for that, or
//! the order would break (rule 1). Its events go to the home of its own inbox, and have an order of their own: what it
//! writes to itself waits for none of them, nor they for that.

use std::collections::HashMap;

use roost_backend::store::EventOp;
use roost_proto::ids::{MessageId, StreamId};

use crate::core::message::ItemKey;

/// Streams that wait after a queue or a limit of the session was full: more than anyone writes to at once.
const FULL_MAX: usize = 1024;

/// Streams that wait after a share was used up, which a client may not know of: some 200 bytes each.
const QUOTA_MAX: usize = 2048;

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Too much of the session's own is under way, or of everybody's.
    Full,
    /// A share of the user's is used up.
    Quota,
}

/// What has one order: a stream, and whether it is about events.
type Order = (StreamId, bool);

fn order((stream, from, _): &ItemKey) -> Order {
    (stream.clone(), from == EventOp::BY)
}

/// The earliest in order of arrival that was refused or told `unknown`, of each stream.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    streams: HashMap<Order, (u64, MessageId, Cause)>,
    quota: usize,
}

impl Blocked {
    /// What arrived as number `arrival` must be repeated before anything later to the same stream is taken.
    pub(crate) fn insert(&mut self, item: &ItemKey, arrival: u64, cause: Cause) {
        let quota = &mut self.quota;
        let earliest = self.streams.entry(order(item)).or_insert_with(|| {
            *quota += usize::from(cause == Cause::Quota);
            (arrival, item.2.clone(), cause)
        });
        if arrival < earliest.0 {
            (earliest.0, earliest.1) = (arrival, item.2.clone());
        }
    }

    /// When this one arrived first, if it is what others wait for.
    pub(crate) fn arrival_of(&self, item: &ItemKey) -> Option<u64> {
        self.streams.get(&order(item)).filter(|(_, id, _)| *id == item.2).map(|(arrival, ..)| *arrival)
    }

    /// This one was taken.
    pub(crate) fn remove(&mut self, item: &ItemKey) {
        let order = order(item);
        if self.streams.get(&order).is_some_and(|(_, id, _)| *id == item.2)
            && let Some((_, _, cause)) = self.streams.remove(&order)
        {
            self.quota -= usize::from(cause == Cause::Quota);
        }
    }

    /// Whether another than this one must be repeated first.
    pub(crate) fn waits(&self, item: &ItemKey) -> bool {
        self.streams.get(&order(item)).is_some_and(|(_, id, _)| *id != item.2)
    }

    /// Whether the client must have lost what it was refused.
    pub(crate) fn is_too_long(&self) -> bool {
        self.streams.len() - self.quota > FULL_MAX || self.quota > QUOTA_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::core) fn of(from: &str, n: usize, id: &str) -> ItemKey {
        (StreamId::new(format!("user:u{n}")).unwrap(), from.to_owned(), MessageId::new(id).unwrap())
    }

    fn sent(n: usize, id: &str) -> ItemKey {
        of("u1", n, id)
    }

    #[test]
    fn the_earliest_by_arrival_is_to_be_repeated() {
        let mut blocked = Blocked::default();
        blocked.insert(&sent(1, "b"), 5, Cause::Full);
        blocked.insert(&sent(1, "a"), 4, Cause::Quota);
        blocked.insert(&sent(1, "c"), 6, Cause::Quota);
        assert!(blocked.waits(&sent(1, "b")) && !blocked.waits(&sent(1, "a")));
        assert!(!blocked.waits(&sent(2, "b")));
        assert_eq!((blocked.arrival_of(&sent(1, "a")), blocked.arrival_of(&sent(1, "b"))), (Some(4), None));
        blocked.remove(&sent(1, "b"));
        assert!(blocked.waits(&sent(1, "b")));
        blocked.remove(&sent(1, "a"));
        assert!(!blocked.waits(&sent(1, "b")));
        assert_eq!((blocked.streams.len(), blocked.quota), (0, 0));
    }

    #[test]
    fn events_and_what_a_user_writes_to_itself_do_not_wait_for_each_other() {
        let mut blocked = Blocked::default();
        blocked.insert(&of(EventOp::BY, 1, "event"), 1, Cause::Quota);
        assert!(!blocked.waits(&sent(1, "message")) && blocked.waits(&of(EventOp::BY, 1, "later")));
        blocked.insert(&sent(1, "message"), 2, Cause::Quota);
        blocked.remove(&of(EventOp::BY, 1, "event"));
        assert!(blocked.waits(&sent(1, "later")) && !blocked.waits(&of(EventOp::BY, 1, "later")));
    }

    #[test]
    fn what_a_quota_refuses_takes_no_place_of_the_others() {
        let mut blocked = Blocked::default();
        for n in 0..QUOTA_MAX {
            blocked.insert(&sent(n, "a"), n as u64, Cause::Quota);
        }
        for n in 0..FULL_MAX {
            blocked.insert(&sent(QUOTA_MAX + n, "a"), n as u64, Cause::Full);
        }
        assert!(!blocked.is_too_long());
        blocked.insert(&sent(9_999, "a"), 0, Cause::Full);
        assert!(blocked.is_too_long());
        blocked.remove(&sent(9_999, "a"));
        blocked.insert(&sent(9_999, "a"), 0, Cause::Quota);
        assert!(blocked.is_too_long());
    }
}
