//! Credit: how many frames of a lane may be on their way to one socket.

use super::events::{Event, Lane, SessionKey};

/// What one socket took and did not say yet. It speaks when half of a lane's credit has gathered: a socket that keeps
/// up costs the core one event for many frames, and a session without credit always gets some back, since what is not
/// on its way has gathered here.
#[derive(Debug)]
pub struct Taken {
    session: SessionKey,
    messages: Gathered,
    signals: Gathered,
}

#[derive(Debug)]
struct Gathered {
    frames: usize,
    half: usize,
}

impl Gathered {
    fn of(credit: usize) -> Self {
        Self { frames: 0, half: credit.div_ceil(2) }
    }

    fn is_due(&self) -> bool {
        self.frames > 0 && self.frames >= self.half
    }
}

impl Taken {
    /// For a session with so many frames and signals on credit.
    pub fn new(session: SessionKey, credit: usize, signal_credit: usize) -> Self {
        Self { session, messages: Gathered::of(credit), signals: Gathered::of(signal_credit) }
    }

    /// The socket took a frame.
    pub fn take(&mut self, lane: Lane) {
        match lane {
            Lane::Reply => {}
            Lane::Message => self.messages.frames += 1,
            Lane::Signal => self.signals.frames += 1,
        }
    }

    /// What the core must be told now, if anything.
    pub fn due(&mut self) -> Option<Event> {
        if !self.messages.is_due() && !self.signals.is_due() {
            return None;
        }
        let frames = std::mem::take(&mut self.messages.frames);
        let signals = std::mem::take(&mut self.signals.frames);
        Some(Event::Drained { session: self.session, frames, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_speaks_when_half_of_a_credit_has_gathered() {
        let mut taken = Taken::new(SessionKey(1), 5, 1);
        taken.take(Lane::Message);
        taken.take(Lane::Message);
        taken.take(Lane::Reply);
        assert!(taken.due().is_none());
        taken.take(Lane::Message);
        assert!(matches!(taken.due(), Some(Event::Drained { frames: 3, signals: 0, .. })));
        taken.take(Lane::Message);
        taken.take(Lane::Signal);
        assert!(matches!(taken.due(), Some(Event::Drained { frames: 1, signals: 1, .. })));
        assert!(taken.due().is_none());
    }
}
