//! Refusals of one session that it has not repeated yet: what it sends later to the same stream waits for that, or
//! the order would break (rule 1).

use std::collections::HashMap;

use roost_proto::ids::{MessageId, StreamId};

/// Streams that wait after a queue or a limit of the session was full: more than anyone writes to at once.
const FULL_MAX: usize = 1024;
/// Streams that wait after a share was used up, which a client may not know of: some 200 bytes each.
const QUOTA_MAX: usize = 2048;

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too much of the session's own is under way, or of everybody's.
    Full,
    /// A share of the user's is used up.
    Quota,
}

/// The earliest in order of arrival that was refused or told `unknown`, of each stream.
#[derive(Debug, Default)]
pub struct Blocked {
    streams: HashMap<StreamId, (u64, MessageId, Cause)>,
    quota: usize,
}

impl Blocked {
    /// What arrived as number `arrival` must be repeated before anything later to the same stream is taken.
    pub fn insert(&mut self, stream: &StreamId, arrival: u64, id: &MessageId, cause: Cause) {
        let quota = &mut self.quota;
        let earliest = self.streams.entry(stream.clone()).or_insert_with(|| {
            *quota += usize::from(cause == Cause::Quota);
            (arrival, id.clone(), cause)
        });
        if arrival < earliest.0 {
            (earliest.0, earliest.1) = (arrival, id.clone());
        }
    }

    /// When this one arrived first, if it is what others wait for.
    pub fn arrival_of(&self, stream: &StreamId, id: &MessageId) -> Option<u64> {
        self.streams.get(stream).filter(|(_, blocked, _)| blocked == id).map(|(arrival, ..)| *arrival)
    }

    /// This one was taken.
    pub fn remove(&mut self, stream: &StreamId, id: &MessageId) {
        if self.streams.get(stream).is_some_and(|(_, blocked, _)| blocked == id)
            && let Some((_, _, cause)) = self.streams.remove(stream)
        {
            self.quota -= usize::from(cause == Cause::Quota);
        }
    }

    /// Whether another than this one must be repeated first.
    pub fn waits(&self, stream: &StreamId, id: &MessageId) -> bool {
        self.streams.get(stream).is_some_and(|(_, blocked, _)| blocked != id)
    }

    /// Whether the client must have lost what it was refused.
    pub fn is_too_long(&self) -> bool {
        self.streams.len() - self.quota > FULL_MAX || self.quota > QUOTA_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: usize) -> StreamId {
        StreamId::new(format!("user:u{n}")).unwrap()
    }

    fn id(name: &str) -> MessageId {
        MessageId::new(name).unwrap()
    }

    #[test]
    fn the_earliest_by_arrival_is_to_be_repeated() {
        let mut blocked = Blocked::default();
        blocked.insert(&stream(1), 5, &id("b"), Cause::Full);
        blocked.insert(&stream(1), 4, &id("a"), Cause::Quota);
        blocked.insert(&stream(1), 6, &id("c"), Cause::Quota);
        assert!(blocked.waits(&stream(1), &id("b")) && !blocked.waits(&stream(1), &id("a")));
        assert!(!blocked.waits(&stream(2), &id("b")));
        assert_eq!(
            (blocked.arrival_of(&stream(1), &id("a")), blocked.arrival_of(&stream(1), &id("b"))),
            (Some(4), None)
        );
        blocked.remove(&stream(1), &id("b"));
        assert!(blocked.waits(&stream(1), &id("b")));
        blocked.remove(&stream(1), &id("a"));
        assert!(!blocked.waits(&stream(1), &id("b")));
        assert_eq!((blocked.streams.len(), blocked.quota), (0, 0));
    }

    #[test]
    fn what_a_quota_refuses_takes_no_place_of_the_others() {
        let mut blocked = Blocked::default();
        for n in 0..QUOTA_MAX {
            blocked.insert(&stream(n), n as u64, &id("a"), Cause::Quota);
        }
        for n in 0..FULL_MAX {
            blocked.insert(&stream(QUOTA_MAX + n), n as u64, &id("a"), Cause::Full);
        }
        assert!(!blocked.is_too_long());
        blocked.insert(&stream(9_999), 0, &id("a"), Cause::Full);
        assert!(blocked.is_too_long());
        blocked.remove(&stream(9_999), &id("a"));
        blocked.insert(&stream(9_999), 0, &id("a"), Cause::Quota);
        assert!(blocked.is_too_long());
    }
}
