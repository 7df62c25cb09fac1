//! Where this client stands in its inbox: what it received, what the application took, what the server was told.
//! No I/O and no clock.

use std::collections::{HashMap, VecDeque};

use roost_proto::events::Message;
use roost_proto::frames::Welcome;
use roost_proto::{Cursor, Epoch, MessageId, Offset, StreamId, UserId};

/// Ids kept to recognise messages that come again in a new generation (core rule 32): a little more than the
/// server's hot window of 1,000, which is the most that can come again at once.
const SHOWN_MAX: usize = 1_024;
/// An ack is cumulative, so one in this time is enough: 5/s of the 50 commands/s that a session may use.
const ACK_EVERY_MS: u64 = 200;

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next one: show it.
    Show,
    /// The next one, but it was shown under an older generation: only count it.
    Shown,
    /// Not above the cursor: a repeat.
    Old,
    /// Not the next one: something between was lost on the way.
    Hole,
}

/// Messages that were missed: after `from`, up to `cursor`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) from: Option<Cursor>,
    pub(crate) cursor: Cursor,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) stream: StreamId,
    received: Option<Cursor>,
    welcomed: bool,
    acked: Option<Cursor>,
    told: Option<Cursor>,
    /// What the last `connect` showed.
    hello: Option<Cursor>,
    tell_from_ms: u64,
    shown: Shown,
}

impl Inbox {
    pub(crate) fn new(user: &UserId, cursor: Option<Cursor>) -> Self {
        Self {
            stream: StreamId::inbox(user),
            received: cursor,
            welcomed: false,
            acked: cursor,
            told: None,
            hello: None,
            tell_from_ms: 0,
            shown: Shown::default(),
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
        self.hello = self.acked;
        self.acked
    }

    /// Takes the verdict on the cursor that was shown. With an answer, messages were missed.
    pub(crate) fn welcome(&mut self, w: &Welcome) -> Option<Missed> {
        let start = Cursor::new(w.cursor.generation, Offset(w.cursor.offset.0.saturating_sub(w.replayed)));
        let first = !std::mem::replace(&mut self.welcomed, true);
        let Some(have) = self.received else {
            if !w.recovered {
                return Some(self.adopt(w.cursor));
            }
            self.received = Some(start);
            self.acked = Some(start);
            self.told = Some(start);
            return None;
        };
        let now = w.cursor.generation;
        let complete = if have.generation != now {
            // Unless it was given before an older connection told of a new life: the reset comes here too.
            self.hello.is_some_and(|shown| shown.generation == now)
        } else if have > w.cursor {
            // An older connection may have overtaken it; a cursor that only the application knows may not.
            !first
        } else if w.recovered {
            start <= have
        } else {
            have == w.cursor // All up to here was received, or told as missed.
        };
        (!complete).then(|| self.adopt(w.cursor))
    }

    /// The stream began a new life. `None` if that was told before, over another connection.
    pub(crate) fn reset(&mut self, cursor: Cursor) -> Option<Missed> {
        let known = self.received.is_some_and(|have| have.generation == cursor.generation && have >= cursor);
        (!known).then(|| self.adopt(cursor))
    }

    /// The stream goes on after `cursor`, whatever was before.
    fn adopt(&mut self, cursor: Cursor) -> Missed {
        let from = self.received.replace(cursor);
        if self.acked > self.received {
            // A cursor that this stream never had must not be shown again. Until the application has taken what it
            // is told now, there is none.
            self.acked = None;
        }
        Missed { from, cursor }
    }

    pub(crate) fn message(&mut self, m: &Message) -> Verdict {
        let cursor = m.cursor();
        let Some(have) = self.received else { return Verdict::Hole };
        if cursor <= have {
            return Verdict::Old;
        }
        if cursor.generation != have.generation || cursor.offset.0 != have.offset.0 + 1 {
            return Verdict::Hole;
        }
        self.received = Some(cursor);
        if self.shown.insert(&m.from, &m.id, m.generation) { Verdict::Show } else { Verdict::Shown }
    }

    /// The application has everything up to `cursor`: never goes back. `false` if it was never received.
    pub(crate) fn ack(&mut self, cursor: Cursor) -> bool {
        if Some(cursor) > self.received {
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

    /// The next ack need not wait: it is the last one.
    pub(crate) fn hurry(&mut self) {
        self.tell_from_ms = 0;
    }

    /// When the next ack is due, if one is.
    pub(crate) fn untold(&self) -> Option<u64> {
        let current = self.acked.map(|c| c.generation) == self.received.map(|c| c.generation);
        (current && self.acked > self.told).then_some(self.tell_from_ms)
    }
}

/// The messages shown last, by sender and id, with the generation under which they were shown.
#[derive(Debug, Default)]
struct Shown {
    generations: HashMap<(String, MessageId), Epoch>,
    order: VecDeque<(String, MessageId)>,
}

impl Shown {
    /// Whether it is new. Within one generation the offset decides: an id may be used again after the dedup window.
    fn insert(&mut self, from: &str, id: &MessageId, generation: Epoch) -> bool {
        let key = (from.to_owned(), id.clone());
        match self.generations.insert(key.clone(), generation) {
            Some(before) => return before == generation,
            None => self.order.push_back(key),
        }
        if self.order.len() > SHOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.generations.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        for i in 3..2_000 {
            inbox.message(&message(at(2, i), &format!("m{i}")));
        }
        assert_eq!(inbox.shown.generations.len(), SHOWN_MAX);
        assert_eq!(inbox.shown.order.len(), SHOWN_MAX);
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
            assert_eq!(inbox.received, Some(tail));
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
