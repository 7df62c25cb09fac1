//! Where somebody is in a stream: sent offset n + 1 and nothing else (rule 25).

use bytes::Bytes;
use roost_backend::store::Window;
use roost_proto::ids::{Cursor, Epoch, Offset};

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reader {
    /// The generation the client knows, and the last offset of it handed to the socket.
    pub(super) generation: Epoch,
    pub(super) sent: Offset,
    /// The highest place known to be in the stream: of another generation until the client is told of that.
    pub(super) tail: Cursor,
    pub(super) reading: bool,
    /// A read failed, or the tail may be higher than known: read on the next occasion.
    pub(super) look: bool,
}

impl Reader {
    /// Where the client is, if it took what was handed to its socket.
    pub(crate) fn place(&self) -> Cursor {
        Cursor::new(self.generation, self.sent)
    }

    /// Whether something may be there that was not handed out.
    pub(crate) fn is_behind(&self) -> bool {
        self.tail > self.place() || self.look
    }

    /// At the beginning of what it is to be sent: after `place`, in a stream that reaches `tail` at least.
    pub(crate) fn at(place: Cursor, tail: Cursor) -> Self {
        Self { generation: place.generation, sent: place.offset, tail, ..Self::default() }
    }

    /// The stream is known to reach at least this far.
    pub(crate) fn reaches(&mut self, tail: Cursor) {
        self.tail = self.tail.max(tail);
    }

    /// What is being read for it is of no use any more.
    pub(crate) fn stop(&mut self) {
        self.reading = false;
    }

    /// What is at this place came; true if it is the next and `hand` took it.
    pub(crate) fn offer(&mut self, at: Cursor, hand: impl FnOnce() -> bool) -> bool {
        self.tail = self.tail.max(at);
        let next = !self.reading && self.generation == at.generation && self.sent.0 + 1 == at.offset.0;
        let taken = next && hand();
        if taken {
            self.sent = at.offset;
        }
        taken
    }

    /// Begins to wait for a read; false if nothing is missing, or one is waited for.
    pub(crate) fn resume(&mut self) -> bool {
        let waits = !self.reading && self.is_behind();
        self.reading |= waits;
        waits
    }

    /// It is its turn: whether there still is something to read.
    pub(crate) fn may_read(&mut self) -> bool {
        self.reading = false;
        self.is_behind()
    }

    /// It is read from the place that is returned.
    pub(crate) fn read(&mut self) -> Cursor {
        (self.reading, self.look) = (true, false);
        self.place()
    }

    /// A window that was read from `place` is handed out until `hand` takes no more.
    pub(crate) fn take(
        &mut self,
        place: Cursor,
        window: Option<&Window>,
        mut hand: impl FnMut(&Bytes) -> bool,
    ) -> Handed {
        self.reading = false;
        let Some(window) = window.filter(|_| self.place() == place) else {
            self.look = true;
            return Handed::Nothing;
        };
        let next = window.entries.first().is_some_and(|(offset, _)| offset.0 == place.offset.0 + 1);
        if !next {
            return Handed::Other { first: window.first, missing: self.tail > place };
        }
        // Another stream of the session may have taken the credit meanwhile.
        for (offset, frame) in &window.entries {
            if offset.0 != self.sent.0 + 1 {
                break;
            }
            if !hand(frame) {
                return Handed::Refused;
            }
            self.sent = *offset;
            self.tail = self.tail.max(self.place());
        }
        Handed::All
    }
}

/// What came of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// There is none, or it is of another place: it is read again.
    Nothing,
    /// All of it was handed out.
    All,
    /// As far as the socket took it.
    Refused,
    /// It does not begin with what comes next. `first`: the first offset that the stream still has; `missing`: more is
    /// known to be there.
    Other { first: Offset, missing: bool },
}
