//! Credit: how many frames of a queue, and how many bytes, may be on their way to one socket.

use crate::core::actions::SendQueue;
use crate::core::input::Input;
use crate::core::keys::SessionKey;

/// A socket says what it took when that is one part in so many of a queue's bytes.
const UNSAID: usize = 16;

/// One queue of one socket.
#[derive(Debug, Clone)]
pub(crate) struct Credit {
    frames: usize,
    frames_max: usize,
    /// On their way.
    bytes: usize,
    bytes_max: usize,
}

impl Credit {
    pub(crate) fn new(frames_max: usize, bytes_max: usize) -> Self {
        Self { frames: frames_max, frames_max, bytes: 0, bytes_max }
    }

    /// Whether a frame of so many bytes may go: one may when nothing is on its way, however large.
    pub(crate) fn allows(&self, bytes: usize) -> bool {
        self.frames > 0 && (self.is_idle() || self.bytes + bytes <= self.bytes_max)
    }

    /// Whether no more is on its way than what the socket may have taken without saying so.
    pub(crate) fn is_idle(&self) -> bool {
        self.bytes <= self.bytes_max / UNSAID
    }

    /// Whether an answer may go whose size is not known yet.
    pub(crate) fn is_open(&self) -> bool {
        self.frames > 0 && self.bytes < self.bytes_max
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.frames = self.frames.saturating_sub(1);
        self.bytes += bytes;
    }

    /// The socket took them.
    pub(crate) fn give_back(&mut self, frames: usize, bytes: usize) {
        self.frames = (self.frames + frames).min(self.frames_max);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Frames that may go.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes that may go.
    pub(crate) fn left(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// Bytes on their way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What one socket took and did not say yet. It speaks when half of a queue's frames have gathered, or a sixteenth of its
/// bytes: a socket that keeps up costs the core one event for many frames, and a session without credit always gets
/// some back, since what is not on its way has gathered here, and with less than a sixteenth it counts as idle.
#[derive(Debug)]
pub struct Taken {
    session: SessionKey,
    messages: Gathered,
    signals: Gathered,
}

#[derive(Debug)]
struct Gathered {
    frames: usize,
    bytes: usize,
    frames_due: usize,
    bytes_due: usize,
}

impl Gathered {
    pub(in crate::core) fn of((frames, bytes): (usize, usize)) -> Self {
        Self { frames: 0, bytes: 0, frames_due: frames.div_ceil(2), bytes_due: bytes / UNSAID }
    }

    pub(in crate::core) fn take(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    fn is_due(&self) -> bool {
        self.frames > 0 && (self.frames >= self.frames_due || self.bytes >= self.bytes_due)
    }

    pub(in crate::core) fn told(&mut self) -> (usize, usize) {
        (std::mem::take(&mut self.frames), std::mem::take(&mut self.bytes))
    }
}

impl Taken {
    /// For a session with so many frames and bytes of messages, and of signals, on credit.
    pub fn new(session: SessionKey, credit: (usize, usize), signal_credit: (usize, usize)) -> Self {
        Self { session, messages: Gathered::of(credit), signals: Gathered::of(signal_credit) }
    }

    /// The socket took a frame.
    pub fn take(&mut self, queue: SendQueue, bytes: usize) {
        match queue {
            SendQueue::Reply => {}
            SendQueue::Message => self.messages.take(bytes),
            SendQueue::Signal => self.signals.take(bytes),
        }
    }

    /// What the core must be told now, if anything.
    pub fn due(&mut self) -> Option<Input> {
        if !self.messages.is_due() && !self.signals.is_due() {
            return None;
        }
        let (messages, signals) = (self.messages.told(), self.signals.told());
        Some(Input::Drained { session: self.session, messages, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_speaks_when_half_of_a_credit_has_gathered() {
        let mut taken = Taken::new(SessionKey(1), (5, 16_000), (1, 16_000));
        taken.take(SendQueue::Message, 10);
        taken.take(SendQueue::Message, 10);
        taken.take(SendQueue::Reply, 10);
        assert!(taken.due().is_none());
        taken.take(SendQueue::Message, 10);
        assert!(matches!(taken.due(), Some(Input::Drained { messages: (3, 30), signals: (0, 0), .. })));
        taken.take(SendQueue::Message, 10);
        taken.take(SendQueue::Signal, 7);
        assert!(matches!(taken.due(), Some(Input::Drained { messages: (1, 10), signals: (1, 7), .. })));
        assert!(taken.due().is_none());
        taken.take(SendQueue::Message, 999);
        assert!(taken.due().is_none());
        taken.take(SendQueue::Message, 1);
        assert!(
            matches!(taken.due(), Some(Input::Drained { messages: (2, 1000), .. })),
            "a sixteenth of the bytes"
        );
    }

    #[test]
    fn a_credit_ends_with_its_frames_or_with_its_bytes() {
        let mut credit = Credit::new(3, 100);
        assert!(credit.allows(1000), "one at least");
        credit.spend(60);
        assert!(credit.allows(40) && !credit.allows(41));
        credit.spend(40);
        assert_eq!((credit.left(), credit.frames()), (0, 1));
        credit.give_back(1, 60);
        credit.spend(0);
        credit.spend(0);
        assert!(!credit.allows(0), "no frames");
        credit.give_back(99, 999);
        assert_eq!((credit.frames(), credit.bytes()), (3, 0));
    }

    /// Or it would wait for ever: nothing of it is on its way, and it has nothing more to say.
    #[test]
    fn a_socket_that_took_everything_may_be_handed_the_largest_frame_whatever_it_did_not_say() {
        for first in 0..300 {
            let (mut credit, mut taken) =
                (Credit::new(9, 400), Taken::new(SessionKey(1), (9, 400), (9, 400)));
            credit.spend(first);
            taken.take(SendQueue::Message, first);
            if let Some(Input::Drained { messages: (frames, bytes), .. }) = taken.due() {
                credit.give_back(frames, bytes);
            }
            assert!(credit.allows(100_000), "{first}");
        }
    }
}
