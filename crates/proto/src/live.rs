//! What is told at once over the store's publish and subscribe, and may be lost: publications, changes of members,
//! signals. Whoever listens compares tails and versions from time to time, so that a loss is found.
//!
//! A publication is the `message` frame itself; everything else is a [`Note`].

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Json;
use crate::events::message_prefix;
use crate::ids::{Cursor, Epoch, Offset, SessionId, StreamId, UserId};

/// How often the members of a room were changed, and under which epoch its home began to count: a change of the home
/// is no change of members, but a new count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Version {
    pub epoch: Epoch,
    pub n: u64,
}

/// What may come beside publications.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Note {
    /// The members of a room changed; `before` is the version that this follows.
    Member {
        before: Version,
        version: Version,
        /// How many there are now.
        count: usize,
        user: UserId,
        change: MemberChange,
    },
    /// A signal: to everyone who listens, or to one user's sessions.
    Signal {
        /// Who sent it need not be told.
        session: SessionId,
        kind: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<UserId>,
        /// The frame for clients.
        frame: Box<RawValue>,
    },
}

/// What happened to a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberChange {
    Join {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        info: Option<Json>,
    },
    Leave,
}

impl Note {
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("notes always encode")
    }
}

/// Where a publication of `stream` is, if `payload` is one: read from its fixed beginning.
pub fn place_of(stream: &StreamId, payload: &[u8]) -> Option<Cursor> {
    let rest = payload.strip_prefix(message_prefix(stream).as_bytes())?;
    let (generation, rest) = number(rest)?;
    let (offset, _) = number(rest.strip_prefix(b",\"offset\":")?)?;
    Some(Cursor::new(Epoch(generation), Offset(offset)))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let n = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((n, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::message_bytes;

    #[test]
    fn a_publication_tells_its_place_and_a_note_is_none() {
        let stream = StreamId::new("room:a \"b\"").unwrap();
        let at = Cursor::new(Epoch(1_795_240_831_954), Offset(42));
        let frame = message_bytes(&stream, at, b"\"id\":\"m\"}");
        assert_eq!(place_of(&stream, &frame), Some(at));
        assert_eq!(place_of(&StreamId::new("room:a").unwrap(), &frame), None);
        assert_eq!(place_of(&stream, br#"{"member":{}}"#), None);
    }
}
