//! A channel of publish and subscribe, as long as somebody here needs it.

/// Whether a channel is followed.
#[derive(Debug, Default)]
pub(super) struct Following {
    state: Followed,
    /// It was asked for, whatever came of it.
    was_asked: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Followed {
    #[default]
    No,
    Asked(u64),
    Yes,
}

impl Following {
    pub(super) fn is_on(&self) -> bool {
        self.state == Followed::Yes
    }

    /// It is neither followed nor asked for.
    pub(super) fn is_off(&self) -> bool {
        self.state == Followed::No
    }

    pub(super) fn ask(&mut self, ask: u64) {
        (self.state, self.was_asked) = (Followed::Asked(ask), true);
    }

    /// Takes an answer; false if it is one to an earlier life.
    pub(super) fn answered(&mut self, ask: u64, done: bool) -> bool {
        let mine = self.state == Followed::Asked(ask);
        if mine {
            self.state = if done { Followed::Yes } else { Followed::No };
        }
        mine
    }

    /// Whether there is something to be taken back.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked
    }
}
