//! Where this client is in one stream, an inbox or a room: what it received, what it was told it missed, and what it
//! showed before. No I/O and no clock.

use std::collections::{HashMap, VecDeque};

use roost_proto::events::Message;
use roost_proto::frames::Joined;
use roost_proto::{Cursor, Epoch, MessageId, Offset};

/// Ids kept to recognise messages that come again in a new generation (core rule 32): a little more than the
/// server's hot window of 1,000, which is the most that can come again at once.
const SHOWN_MAX: usize = 1_024;

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

#[derive(Debug, Default)]
pub(crate) struct Place {
    received: Option<Cursor>,
    welcomed: bool,
    /// What the server was shown last.
    hello: Option<Cursor>,
    shown: Shown,
}

impl Place {
    pub(crate) fn new(cursor: Option<Cursor>) -> Self {
        Self { received: cursor, ..Self::default() }
    }

    pub(crate) fn received(&self) -> Option<Cursor> {
        self.received
    }

    /// The server is shown `cursor`, and will go on from there.
    pub(crate) fn show(&mut self, cursor: Option<Cursor>) {
        self.hello = cursor;
    }

    /// Takes the verdict on the cursor that was shown. With an answer, messages were missed.
    pub(crate) fn welcome(&mut self, w: &Joined) -> Option<Missed> {
        let start = Cursor::new(w.cursor.generation, Offset(w.cursor.offset.0.saturating_sub(w.replayed)));
        let first = !std::mem::replace(&mut self.welcomed, true);
        let Some(have) = self.received else {
            if !w.recovered {
                return Some(self.adopt(w.cursor));
            }
            self.received = Some(start);
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

    /// The stream began a new life, or its hot window was passed. `None` if that was told before, over another
    /// connection.
    pub(crate) fn reset(&mut self, cursor: Cursor) -> Option<Missed> {
        let known = self.received.is_some_and(|have| have.generation == cursor.generation && have >= cursor);
        (!known).then(|| self.adopt(cursor))
    }

    /// The stream goes on after `cursor`, whatever was before.
    fn adopt(&mut self, cursor: Cursor) -> Missed {
        Missed { from: self.received.replace(cursor), cursor }
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

    // The rules are tried on an inbox (`inbox.rs`), which adds what the application took.

    #[test]
    fn as_many_shown_ids_are_kept_as_can_come_again() {
        let mut shown = Shown::default();
        for i in 0..2_000 {
            assert!(shown.insert("alice", &MessageId::new(format!("m{i}")).unwrap(), Epoch(1)));
        }
        assert_eq!((shown.generations.len(), shown.order.len()), (SHOWN_MAX, SHOWN_MAX));
        assert!(!shown.insert("alice", &MessageId::new("m1000").unwrap(), Epoch(2)));
        assert!(shown.insert("bob", &MessageId::new("m1000").unwrap(), Epoch(2)), "another sender's id");
    }
}
