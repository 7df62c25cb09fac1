//! Where this client stands in its inbox: what the application took of what was received, and what the server was
//! told. No I/O and no clock.

use roost_proto::events::Message;
use roost_proto::frames::{Joined, Welcome};
use roost_proto::{Cursor, StreamId, UserId};

use crate::place::{Missed, Place, Verdict};

/// An ack is cumulative, so one in this time is enough: 5/s of the 50 commands/s that a session may use.
const ACK_EVERY_MS: u64 = 200;

#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) stream: StreamId,
    place: Place,
    acked: Option<Cursor>,
    told: Option<Cursor>,
    tell_from_ms: u64,
    /// How far the user has read, and how far of that the server knows.
    read: Option<Cursor>,
    read_told: Option<Cursor>,
}

impl Inbox {
    pub(crate) fn new(user: &UserId, cursor: Option<Cursor>) -> Self {
        Self {
            stream: StreamId::inbox(user),
            place: Place::new(cursor),
            acked: cursor,
            told: None,
            tell_from_ms: 0,
            read: None,
            read_told: None,
        }
    }

    /// What the application took or acknowledged. A new process should start from here.
    pub(crate) fn acked(&self) -> Option<Cursor> {
        self.acked
    }

    /// The cursor for a `connect` frame, which counts as an ack: it must not be ahead of the application, so
    /// messages that wait to be taken come again and are dropped as old.
    pub(crate) fn hello(&mut self) -> Option<Cursor> {
        self.told = self.acked;
        self.place.show(self.acked);
        self.acked
    }

    /// Takes the verdict on the cursor that was shown. With an answer, messages were missed.
    pub(crate) fn welcome(&mut self, w: &Welcome) -> Option<Missed> {
        let Welcome { cursor, recovered, replayed, .. } = *w;
        // What this client said may have been lost with its connection, or its home: then it is said again.
        self.read_told = w.read;
        let new = self.place.received().is_none();
        let missed = self.place.welcome(&Joined {
            cursor,
            recovered,
            replayed,
            through: None,
            members: None,
            member_count: None,
        });
        if missed.is_some() {
            self.went_on();
        } else if new {
            (self.acked, self.told) = (self.place.received(), self.place.received());
        }
        missed
    }

    /// The stream began a new life. `None` if that was told before, over another connection.
    pub(crate) fn reset(&mut self, cursor: Cursor) -> Option<Missed> {
        let missed = self.place.reset(cursor);
        if missed.is_some() {
            self.went_on();
        }
        missed
    }

    /// The stream goes on elsewhere, whatever was before.
    fn went_on(&mut self) {
        if self.acked > self.place.received() {
            // A cursor that this stream never had must not be shown again. Until the application has taken what it
            // is told now, there is none.
            self.acked = None;
        }
    }

    pub(crate) fn message(&mut self, m: &Message) -> Verdict {
        self.place.message(m)
    }

    /// The application has everything up to `cursor`: never goes back. `false` if it was never received.
    pub(crate) fn ack(&mut self, cursor: Cursor) -> bool {
        if Some(cursor) > self.place.received() {
            return false;
        }
        self.acked = self.acked.max(Some(cursor));
        true
    }

    /// The ack to write now, if there is one to write.
    pub(crate) fn take_ack(&mut self, now: u64) -> Option<Cursor> {
        if self.untold()? > now {
            return None;
        }
        self.told = self.acked;
        self.tell_from_ms = now + ACK_EVERY_MS;
        self.acked
    }

    /// The application says that its user has read everything up to `cursor`: never goes back. `false` if it was never
    /// received.
    pub(crate) fn read(&mut self, cursor: Cursor) -> bool {
        let received = Some(cursor) <= self.place.received();
        if received {
            self.read = self.read.max(Some(cursor));
        }
        received
    }

    /// Another device said so: the news, if it is some.
    pub(crate) fn read_elsewhere(&mut self, cursor: Cursor) -> Option<Cursor> {
        self.read_told = self.read_told.max(Some(cursor));
        let news = self.read < Some(cursor);
        self.read = self.read.max(Some(cursor));
        news.then_some(cursor)
    }

    /// What to tell the server of how far the user has read, if it does not know.
    pub(crate) fn take_read(&mut self) -> Option<Cursor> {
        let untold = self.read.filter(|_| self.read > self.read_told)?;
        self.read_told = Some(untold);
        Some(untold)
    }

    /// The next ack need not wait: it is the last one.
    pub(crate) fn hurry(&mut self) {
        self.tell_from_ms = 0;
    }

    /// When the next ack is due, if one is.
    pub(crate) fn untold(&self) -> Option<u64> {
        let current = self.acked.map(|c| c.generation) == self.place.received().map(|c| c.generation);
        (current && self.acked > self.told).then_some(self.tell_from_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::{Epoch, MessageId, Offset};
    use serde_json::value::RawValue;

    fn at(generation: u64, offset: u64) -> Cursor {
        Cursor::new(Epoch(generation), Offset(offset))
    }

    fn inbox(cursor: Option<Cursor>) -> Inbox {
        Inbox::new(&UserId::new("bob").unwrap(), cursor)
    }

    fn welcome(cursor: Cursor, recovered: bool, replayed: u64) -> Welcome {
        serde_json::from_value(serde_json::json!({
            "session": "s-1", "user": "bob", "node": "ws-1", "vnode": 1, "epoch": 1, "ping_interval_ms": 25_000,
            "cursor": cursor, "recovered": recovered, "replayed": replayed,
        }))
        .unwrap()
    }

    fn message(cursor: Cursor, id: &str) -> Message {
        Message {
            stream: StreamId::new("user:bob").unwrap(),
            generation: cursor.generation,
            offset: cursor.offset,
            id: MessageId::new(id).unwrap(),
            kind: "message".into(),
            from: "alice".into(),
            at: String::new(),
            data: RawValue::from_string("1".into()).unwrap(),
        }
    }

    #[test]
    fn a_device_without_a_cursor_starts_where_the_replay_starts() {
        let mut inbox = inbox(None);
        assert_eq!(inbox.welcome(&welcome(at(1, 44), true, 3)), None);
        assert_eq!(inbox.acked(), Some(at(1, 41)));
        assert_eq!(inbox.message(&message(at(1, 42), "a")), Verdict::Show);
    }

    #[test]
    fn only_the_next_message_is_shown() {
        let mut inbox = inbox(Some(at(1, 41)));
        assert_eq!(inbox.welcome(&welcome(at(1, 42), true, 1)), None);
        assert_eq!(inbox.message(&message(at(1, 42), "a")), Verdict::Show);
        assert_eq!(inbox.message(&message(at(1, 42), "a")), Verdict::Old);
        assert_eq!(inbox.message(&message(at(1, 44), "c")), Verdict::Hole);
        assert_eq!(inbox.message(&message(at(2, 43), "b")), Verdict::Hole);
        assert_eq!(inbox.message(&message(at(1, 43), "b")), Verdict::Show);
        assert_eq!(
            inbox.message(&message(at(1, 44), "a")),
            Verdict::Show,
            "an id used again is another message"
        );
    }

    #[test]
    fn what_was_shown_is_not_shown_again_in_a_new_generation() {
        let mut inbox = inbox(Some(at(1, 0)));
        inbox.welcome(&welcome(at(1, 0), true, 0));
        assert_eq!(inbox.message(&message(at(1, 1), "a")), Verdict::Show);
        assert_eq!(inbox.reset(at(2, 0)), Some(Missed { from: Some(at(1, 1)), cursor: at(2, 0) }));
        assert_eq!(inbox.message(&message(at(2, 1), "a")), Verdict::Shown);
        assert_eq!(inbox.message(&message(at(2, 2), "b")), Verdict::Show);
    }

    #[test]
    fn a_gap_is_told_once_unless_more_was_missed() {
        let mut inbox = inbox(Some(at(1, 5)));
        let missed = Missed { from: Some(at(1, 5)), cursor: at(1, 900) };
        assert_eq!(inbox.welcome(&welcome(at(1, 900), false, 0)), Some(missed));
        assert_eq!(inbox.hello(), Some(at(1, 5)), "the application has not taken it yet");
        assert_eq!(inbox.welcome(&welcome(at(1, 900), false, 0)), None);
        let missed = Missed { from: Some(at(1, 900)), cursor: at(1, 901) };
        assert_eq!(inbox.welcome(&welcome(at(1, 901), false, 0)), Some(missed));
    }

    #[test]
    fn a_welcome_that_an_older_connection_overtook_takes_nothing_back() {
        for recovered in [true, false] {
            let mut inbox = inbox(Some(at(1, 5)));
            inbox.welcome(&welcome(at(1, 6), true, 1));
            inbox.message(&message(at(1, 6), "a"));
            inbox.message(&message(at(1, 7), "b"));
            assert_eq!(inbox.welcome(&welcome(at(1, 6), recovered, 0)), None);
            assert_eq!(inbox.message(&message(at(1, 7), "b")), Verdict::Old);
            assert_eq!(inbox.message(&message(at(1, 8), "c")), Verdict::Show);
        }
    }

    #[test]
    fn a_welcome_from_before_a_new_life_is_not_a_way_back() {
        let mut inbox = inbox(Some(at(1, 5)));
        inbox.hello();
        inbox.welcome(&welcome(at(1, 5), true, 0));
        inbox.hello();
        assert!(inbox.reset(at(2, 0)).is_some(), "over the older connection");
        assert_eq!(inbox.message(&message(at(2, 1), "a")), Verdict::Show);
        assert_eq!(inbox.welcome(&welcome(at(1, 5), true, 0)), None);
        assert_eq!(inbox.reset(at(2, 0)), None);
        assert_eq!(inbox.message(&message(at(2, 1), "a")), Verdict::Old);
        assert_eq!(inbox.message(&message(at(2, 2), "b")), Verdict::Show);
    }

    #[test]
    fn a_new_life_may_have_a_smaller_number() {
        let mut inbox = inbox(Some(at(9, 5)));
        inbox.hello();
        inbox.welcome(&welcome(at(9, 5), true, 0));
        inbox.hello();
        assert!(inbox.welcome(&welcome(at(2, 0), false, 0)).is_some());
        assert_eq!(inbox.message(&message(at(2, 1), "a")), Verdict::Show);
        assert_eq!(inbox.acked(), None, "not before the gap is taken");
        assert!(!inbox.ack(at(9, 5)));
        assert!(inbox.ack(at(2, 1)));
    }

    #[test]
    fn a_recovery_that_cannot_be_one_is_a_gap() {
        for (have, tail, replayed) in
            [(at(1, 5), at(2, 9), 9), (at(1, 5), at(1, 9), 3), (at(1, 5), at(1, 3), 0)]
        {
            let mut inbox = inbox(Some(have));
            assert!(inbox.welcome(&welcome(tail, true, replayed)).is_some(), "{have:?} {tail:?}");
            assert_eq!(inbox.place.received(), Some(tail));
        }
    }

    #[test]
    fn a_cursor_above_the_tail_is_never_shown_again() {
        let mut inbox = inbox(Some(at(1, 100)));
        assert!(inbox.welcome(&welcome(at(1, 5), false, 0)).is_some());
        assert_eq!(inbox.hello(), None);
        assert!(!inbox.ack(at(1, 99)), "nobody received that");
        assert!(inbox.ack(at(1, 5)));
        assert_eq!(inbox.acked(), Some(at(1, 5)));
    }

    #[test]
    fn acks_are_cumulative_and_spread() {
        let mut inbox = inbox(Some(at(1, 0)));
        inbox.hello();
        inbox.welcome(&welcome(at(1, 0), true, 0));
        assert_eq!(inbox.take_ack(0), None);
        for i in 1..=3 {
            inbox.message(&message(at(1, i), &format!("m{i}")));
        }
        inbox.ack(at(1, 2));
        assert_eq!(inbox.take_ack(0), Some(at(1, 2)));
        inbox.ack(at(1, 1));
        inbox.ack(at(1, 3));
        assert_eq!(inbox.take_ack(199), None);
        assert_eq!(inbox.untold(), Some(200));
        assert_eq!(inbox.take_ack(200), Some(at(1, 3)));
        assert_eq!(inbox.untold(), None);
    }
}
