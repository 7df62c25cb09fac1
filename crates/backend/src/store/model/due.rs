//! What is due: messages in inboxes that no device has acknowledged.

use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, UserId};

use super::data::{Change, VnodeData};
use crate::store::*;

/// A message that is due.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    since_ms: u64,
    message: Bytes,
}

fn key(cursor: Cursor) -> String {
    format!("{}:{}", cursor.generation, cursor.offset)
}

impl VnodeData {
    /// By user and place.
    pub fn all_due(&self) -> Vec<Due> {
        let due = |((user, cursor), waiting): (&(UserId, Cursor), &Waiting)| Due {
            user: user.clone(),
            cursor: *cursor,
            since_ms: waiting.since_ms,
        };
        self.due.iter().map(due).collect()
    }

    pub(super) fn put_due(&mut self, user: UserId, cursor: Cursor, since_ms: u64, message: Bytes) {
        self.put("due", user.as_str(), &key(cursor), 0, || {
            [format!("{since_ms} ").as_bytes(), &message].concat()
        });
        self.due.insert((user, cursor), Waiting { since_ms, message });
    }

    fn take_due(&mut self, user: &UserId, cursor: Cursor) -> Option<Waiting> {
        let waiting = self.due.remove(&(user.clone(), cursor))?;
        self.remove(Change::Remove { table: "due", stream: user.to_string(), key: key(cursor) });
        Some(waiting)
    }

    pub(super) fn settle(&mut self, places: &[(UserId, Cursor)]) -> OpResult {
        for (user, cursor) in places {
            self.take_due(user, *cursor);
        }
        OpResult::Settled
    }

    pub(super) fn undelivered(&mut self, user: &UserId, cursor: Cursor, seq: &mut Seq) -> OpResult {
        let message = self.take_due(user, cursor).map(|waiting| waiting.message);
        if let Some(message) = &message {
            seq.0 += 1;
            let (topic, key, payload) = (EventTopic::Undelivered, user.to_string(), message.clone());
            self.push_event(OutboxEvent { seq: *seq, topic, key, payload });
        }
        OpResult::Undelivered { message }
    }

    /// Takes a saved row back in; nothing if it cannot be understood.
    pub(super) fn load_due(&mut self, user: UserId, key: &str, value: &[u8]) -> Option<()> {
        let (generation, offset) = key.split_once(':')?;
        let cursor = Cursor::new(Epoch(generation.parse().ok()?), Offset(offset.parse().ok()?));
        let space = value.iter().position(|b| *b == b' ')?;
        let since_ms = std::str::from_utf8(&value[..space]).ok()?.parse().ok()?;
        let message = Bytes::copy_from_slice(&value[space + 1..]);
        self.due.insert((user, cursor), Waiting { since_ms, message });
        Some(())
    }
}
