//! What is kept about messages in inboxes until it is done with: those that no device has acknowledged, and those
//! whose senders wait for a receipt.

use bytes::Bytes;
use roost_proto::events::sender_of;
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, Seq, UserId};

use super::data::{Change, VnodeData, json};
use crate::store::*;

/// A message that is due.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    since_ms: u64,
    message: Bytes,
}

impl Waiting {
    /// As it was saved.
    pub(super) fn of(value: &[u8]) -> Option<Self> {
        let space = value.iter().position(|b| *b == b' ')?;
        let since_ms = std::str::from_utf8(&value[..space]).ok()?.parse().ok()?;
        Some(Self { since_ms, message: Bytes::copy_from_slice(&value[space + 1..]) })
    }
}

fn key(cursor: Cursor) -> String {
    format!("{}:{}", cursor.generation, cursor.offset)
}

/// The place that a key names.
pub(super) fn cursor_of(key: &str) -> Option<Cursor> {
    let (generation, offset) = key.split_once(':')?;
    Some(Cursor::new(Epoch(generation.parse().ok()?), Offset(offset.parse().ok()?)))
}

impl VnodeData {
    /// By user and place.
    pub fn all_due(&self) -> Vec<Due> {
        let due = |((user, cursor), waiting): (&InboxPosition, &Waiting)| Due {
            user: user.clone(),
            cursor: *cursor,
            from: sender_of(&waiting.message).unwrap_or_default(),
            since_ms: waiting.since_ms,
        };
        self.due.iter().map(due).collect()
    }

    pub fn all_owed(&self) -> Vec<(MessageId, PendingReceipt)> {
        self.owed.iter().map(|(id, owed)| (id.clone(), owed.clone())).collect()
    }

    pub(super) fn put_due(&mut self, place: InboxPosition, since_ms: u64, message: Bytes) {
        let (user, cursor) = &place;
        self.put("due", user.as_str(), &key(*cursor), 0, || {
            [format!("{since_ms} ").as_bytes(), &message].concat()
        });
        self.due.insert(place, Waiting { since_ms, message });
    }

    fn take_due(&mut self, user: &UserId, cursor: Cursor) -> Option<Waiting> {
        let waiting = self.due.remove(&(user.clone(), cursor))?;
        self.remove(Change::Remove { table: "due", stream: user.to_string(), key: key(cursor) });
        Some(waiting)
    }

    pub(super) fn settle(&mut self, places: &[InboxPosition]) -> OpResult {
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

    pub(super) fn set_wanted(&mut self, place: &InboxPosition, wanted: Option<&ReceiptRequest>) {
        let (user, key) = (place.0.to_string(), key(place.1));
        match wanted {
            Some(wanted) => {
                self.put("wanted", &user, &key, 0, || json(wanted));
                self.wanted.insert(place.clone(), wanted.clone());
            }
            None => {
                self.remove(Change::Remove { table: "wanted", stream: user, key });
                self.wanted.remove(place);
            }
        }
    }

    pub(super) fn set_receipts(
        &mut self,
        wanted: &[(InboxPosition, Option<ReceiptRequest>)],
        owed: &[(MessageId, Option<PendingReceipt>)],
    ) -> OpResult {
        for (place, wanted) in wanted {
            self.set_wanted(place, wanted.as_ref());
        }
        for (id, owed) in owed {
            match owed {
                Some(owed) => {
                    self.put("owed", "", id.as_str(), 0, || json(owed));
                    self.owed.insert(id.clone(), owed.clone());
                }
                None => {
                    let (stream, key) = (String::new(), id.to_string());
                    self.remove(Change::Remove { table: "owed", stream, key });
                    self.owed.remove(id);
                }
            }
        }
        OpResult::Receipts
    }
}
