//! What a session tells people who ask.

use crate::core::explain::SessionShown;
use crate::core::sessions::session::{Session, State};

fn state(state: State) -> &'static str {
    match state {
        State::Waiting { .. } => "waiting for its home",
        State::Opening { .. } => "opening",
        State::Locating { .. } => "waiting for the log",
        State::Live => "live",
        State::Moved { .. } => "told to move",
        State::Adrift { .. } => "its home is not known",
    }
}

impl Session {
    pub(crate) fn explained(&self) -> SessionShown {
        SessionShown {
            session: self.id.clone(),
            device: self.device.clone(),
            rooms: self.rights.rooms.clone(),
            watch: self.rights.watch.clone(),
            state: state(self.state),
            generation: self.inbox.generation,
            sent: self.inbox.sent,
            tail: self.inbox.tail.offset,
            credit: self.credit.frames(),
            unanswered: self.unanswered,
        }
    }
}
