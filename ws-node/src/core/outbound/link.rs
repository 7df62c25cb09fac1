//! The direct way to one node. It carries copies: whatever comes by it is in the node's topic as well, or is asked for
//! again, so a link may break, fill up or lie idle at any time.

use roost_proto::ids::Sid;

/// One connection to another node, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkKey(pub u64);

/// What happens to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkInput {
    Opened(LinkKey),
    /// It could not be opened, or ended. Nothing more comes of it.
    Closed(LinkKey),
    /// So many bytes of it are written.
    Written(LinkKey, usize),
}

/// What is to be done with a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOrder {
    /// Dial the node whose admin port is at `admin`, if it is `to`, as `from`.
    Open {
        link: LinkKey,
        admin: String,
        from: Sid,
        to: Sid,
    },
    Send {
        link: LinkKey,
        payload: bytes::Bytes,
    },
    Close(LinkKey),
}

/// Between two tries to open a link, in milliseconds: doubled up to the second while none succeeds.
const OPEN_AGAIN_MS: u64 = 500;
const OPEN_AGAIN_MAX_MS: u64 = 8000;

#[derive(Debug)]
enum State {
    /// Not to be tried before.
    Closed {
        until: u64,
    },
    Dialled {
        link: LinkKey,
        to: Sid,
        open: bool,
    },
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    tries: u32,
    /// Handed to the connection and not written.
    bytes: usize,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: State::Closed { until: 0 }, tries: 0, bytes: 0 }
    }
}

impl Link {
    /// Whether it should be opened now.
    pub(super) fn wants_to_open(&self, now: u64) -> bool {
        matches!(self.state, State::Closed { until } if now >= until)
    }

    pub(super) fn opening(&mut self, link: LinkKey, to: Sid) {
        self.state = State::Dialled { link, to, open: false };
    }

    /// The connection, open or on its way, and who is at its end.
    pub(super) fn current(&self) -> Option<(LinkKey, &Sid)> {
        match &self.state {
            State::Closed { .. } => None,
            State::Dialled { link, to, .. } => Some((*link, to)),
        }
    }

    pub(super) fn is(&self, key: LinkKey) -> bool {
        self.current().is_some_and(|(link, _)| link == key)
    }

    /// The same, if it is open.
    pub(super) fn open(&self) -> Option<(LinkKey, &Sid)> {
        self.current().filter(|_| matches!(self.state, State::Dialled { open: true, .. }))
    }

    pub(super) fn opened(&mut self) {
        if let State::Dialled { open, .. } = &mut self.state {
            (*open, self.tries, self.bytes) = (true, 0, 0);
        }
    }

    pub(super) fn closed(&mut self, now: u64) {
        let wait = (OPEN_AGAIN_MS << self.tries.min(8)).min(OPEN_AGAIN_MAX_MS);
        (self.state, self.tries) = (State::Closed { until: now + wait }, self.tries + 1);
    }

    /// Takes so many bytes, if no more than `max` are in it then.
    pub(super) fn board(&mut self, bytes: usize, max: usize) -> bool {
        let fits = self.bytes + bytes <= max;
        self.bytes += if fits { bytes } else { 0 };
        fits
    }

    /// What boarded goes out as so much more.
    pub(super) fn grew(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn written(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::ids::NodeId;

    fn sid(n: u64) -> Sid {
        Sid::new(&NodeId::new("n").unwrap(), n, 1)
    }

    #[test]
    fn a_link_holds_so_many_bytes_and_no_more() {
        let mut link = Link::default();
        link.opening(LinkKey(1), sid(1));
        assert_eq!((link.open(), link.is(LinkKey(1))), (None, true));
        link.opened();
        assert_eq!(link.open(), Some((LinkKey(1), &sid(1))));
        assert!(link.board(7, 10));
        link.grew(1);
        assert!(!link.board(3, 10) && link.board(2, 10));
        link.written(8);
        assert!(link.board(8, 10));
    }

    #[test]
    fn who_cannot_be_reached_is_tried_less_and_less_often() {
        let (mut link, mut now, mut waits) = (Link::default(), 0, Vec::new());
        for n in 1..=6 {
            let from = now;
            while !link.wants_to_open(now) {
                now += 1;
            }
            waits.push(now - from);
            link.opening(LinkKey(n), sid(1));
            assert!(link.is(LinkKey(n)) && link.open().is_none());
            link.closed(now);
        }
        assert_eq!(waits, [0, 500, 1000, 2000, 4000, 8000]);
    }
}
