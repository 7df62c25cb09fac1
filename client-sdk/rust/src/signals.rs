//! Signals on their way out: the latest of each place and kind, no faster than the server takes them. No I/O and no
//! clock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use roost_proto::{RoomId, UserId};

/// Between two signals: 50/s where the server takes 60/s, so that what it takes is the latest and not the first.
const EVERY_MS: u64 = 20;
/// How many may go at once after a silence; the server allows 120.
const BURST: u64 = 50;
/// Signals that wait, each of another place or kind: five seconds of them. With more the oldest is dropped.
const WAITING_MAX: usize = 256;

/// Who gets a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Whoever is in the room. The sender must be, too.
    Room(RoomId),
    /// Every connection of the user.
    User(UserId),
}

/// A signal that the application gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub to: Audience,
    pub kind: String,
    /// The frame.
    pub text: Arc<str>,
}

/// The latest signal of each place and kind.
#[derive(Debug, Default)]
struct Latest(VecDeque<Outgoing>);

impl Latest {
    /// Takes a signal over, in the place of one that waits and that it makes old.
    fn push(&mut self, signal: Outgoing) {
        match self.0.iter_mut().find(|old| old.to == signal.to && old.kind == signal.kind) {
            Some(old) => *old = signal,
            None => {
                if self.0.len() >= WAITING_MAX {
                    self.0.pop_front();
                }
                self.0.push_back(signal);
            }
        }
    }
}

/// Signals on their way from the application to the driver.
#[derive(Debug, Default)]
pub(crate) struct Given(Mutex<Latest>);

impl Given {
    pub(crate) fn push(&self, signal: Outgoing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(signal);
    }

    pub(crate) fn take(&self) -> VecDeque<Outgoing> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Signals {
    waiting: Latest,
    /// When the allowance is whole again.
    whole_ms: u64,
}

impl Signals {
    pub(crate) fn push(&mut self, signal: Outgoing) {
        self.waiting.push(signal);
    }

    /// The next that may be written now.
    pub(crate) fn take(&mut self, now: u64) -> Option<Arc<str>> {
        if self.due_ms()? > now {
            return None;
        }
        self.whole_ms = self.whole_ms.max(now) + EVERY_MS;
        self.waiting.0.pop_front().map(|signal| signal.text)
    }

    /// When the next may be written, if one waits.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        (!self.waiting.0.is_empty()).then(|| self.whole_ms.saturating_sub((BURST - 1) * EVERY_MS))
    }

    /// Without a connection they are of no use: when there is one again they are old.
    pub(crate) fn drop_all(&mut self) {
        self.waiting.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(room: &str, kind: &str, text: &str) -> Outgoing {
        let to = Audience::Room(RoomId::new(room).unwrap());
        Outgoing { to, kind: kind.into(), text: text.into() }
    }

    #[test]
    fn a_later_signal_takes_the_place_of_one_that_waits() {
        let mut signals = Signals::default();
        signals.push(signal("a", "cursor", "1"));
        signals.push(signal("a", "typing", "2"));
        signals.push(signal("b", "cursor", "3"));
        signals.push(signal("a", "cursor", "4"));
        let taken: Vec<_> = std::iter::from_fn(|| signals.take(0)).collect();
        assert_eq!(taken.iter().map(|t| &**t).collect::<Vec<_>>(), ["4", "2", "3"]);
    }

    #[test]
    fn a_mouse_that_moves_all_the_time_sends_fifty_a_second_and_its_last_place() {
        let mut signals = Signals::default();
        let mut written = Vec::new();
        for ms in 0..10_000 {
            signals.push(signal("a", "cursor", &ms.to_string()));
            written.extend(signals.take(ms));
        }
        let due = signals.due_ms().unwrap();
        assert!(due > 9_999 && signals.take(due - 1).is_none());
        assert_eq!(signals.take(due).as_deref(), Some("9999"));
        assert_eq!(written.len() as u64, BURST + 10_000 / EVERY_MS - 1);
        assert_eq!(signals.due_ms(), None);
    }

    #[test]
    fn of_too_many_that_wait_the_oldest_goes() {
        let mut signals = Signals::default();
        (0..=WAITING_MAX).for_each(|i| signals.push(signal(&format!("r{i}"), "k", &i.to_string())));
        assert_eq!(signals.waiting.0.len(), WAITING_MAX);
        assert_eq!(signals.take(0).as_deref(), Some("1"));
        signals.drop_all();
        assert_eq!((signals.take(0), signals.due_ms()), (None, None));
    }
}
