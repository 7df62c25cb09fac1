//! Signals that wait for a session that does not read: the latest of each key.

use std::collections::BTreeMap;

use bytes::Bytes;
use roost_proto::ids::{RoomId, SessionId, StreamId, UserId};
use roost_service::ratelimit::Bucket;

use crate::core::sessions::credit::Credit;

/// What a waiting frame is replaced by: a later one with the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Latest {
    Member(StreamId, UserId),
    Presence(UserId),
    Signal(Option<RoomId>, SessionId, String),
    /// How far the user has read.
    Read,
}

impl Latest {
    pub(crate) fn is_of(&self, stream: &StreamId) -> bool {
        match self {
            Self::Member(of, _) => of == stream,
            Self::Signal(room, ..) => room.as_ref().is_some_and(|room| StreamId::of_room(room) == *stream),
            Self::Presence(_) | Self::Read => false,
        }
    }
}

/// A session's queue for signals.
#[derive(Debug)]
pub(crate) struct Signals {
    /// What it may send.
    pub(super) bucket: Bucket,
    /// What may be handed to the socket.
    pub(super) credit: Credit,
    /// The latest of each key that did not fit, and their bytes.
    pub(super) waiting: BTreeMap<Latest, Bytes>,
    pub(super) waiting_bytes: usize,
}

impl Signals {
    /// Keeps a frame until there is credit, in the place of an earlier one of its key.
    pub(crate) fn keep(&mut self, latest: Latest, frame: Bytes) {
        self.waiting_bytes += frame.len();
        if let Some(before) = self.waiting.insert(latest, frame) {
            self.waiting_bytes -= before.len();
        }
    }

    /// How large the next one is that waits.
    pub(crate) fn next_bytes(&self) -> Option<usize> {
        self.waiting.first_key_value().map(|(_, frame)| frame.len())
    }

    pub(crate) fn take_next(&mut self) -> Option<Bytes> {
        let (_, frame) = self.waiting.pop_first()?;
        self.waiting_bytes -= frame.len();
        Some(frame)
    }

    /// What waits of this is not told any more.
    pub(crate) fn drop_one(&mut self, latest: &Latest) {
        if let Some(frame) = self.waiting.remove(latest) {
            self.waiting_bytes -= frame.len();
        }
    }

    /// The same of many.
    pub(crate) fn drop_waiting(&mut self, of: impl Fn(&Latest) -> bool) {
        let bytes = &mut self.waiting_bytes;
        self.waiting.retain(|latest, frame| {
            let gone = of(latest);
            *bytes -= if gone { frame.len() } else { 0 };
            !gone
        });
    }
}
