//! Where somebody is in a stream: sent offset n + 1 and nothing else (rule 25).

use roost_proto::ids::{Cursor, Epoch, Offset};

#[derive(Debug, Clone, Copy, Default)]
pub struct Reader {
    /// The generation the client knows, and the last offset of it handed to the socket.
    pub generation: Epoch,
    pub sent: Offset,
    /// The highest place known to be in the stream: of another generation until the client is told of that.
    pub tail: Cursor,
    pub reading: bool,
    /// A read failed, or the tail may be higher than known: read on the next occasion.
    pub look: bool,
}

impl Reader {
    /// Where the client is, if it took what was handed to its socket.
    pub fn place(&self) -> Cursor {
        Cursor::new(self.generation, self.sent)
    }

    /// Whether something may be there that was not handed out.
    pub fn is_behind(&self) -> bool {
        self.tail > self.place() || self.look
    }

    /// Whether what is at this place is the next to hand out.
    pub fn is_next(&self, at: Cursor) -> bool {
        !self.reading && self.generation == at.generation && self.sent.0 + 1 == at.offset.0
    }

    /// What is at this offset was handed out.
    pub fn took(&mut self, offset: Offset) {
        self.sent = offset;
        self.tail = self.tail.max(self.place());
    }
}
