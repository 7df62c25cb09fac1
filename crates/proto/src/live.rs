//! What is told at once over the store's publish and subscribe, and may be lost: publications, changes of members and
//! of presence, signals. Whoever listens compares tails and versions from time to time, so that a loss is found.
//!
//! A publication is the `message` frame itself; everything else is a [`Note`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Json;
use crate::events::message_prefix;
use crate::frames::Presence;
use crate::ids::{Cursor, Epoch, Offset, SessionId, StreamId, UserId};

/// How often the members of a room were changed, and under which epoch its home began to count: a change of the home
/// is no change of members, but a new count. Of a vnode's presence `n` is the seq of the write that last changed what
/// others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Version {
    /// Of the home that counts.
    pub epoch: Epoch,
    /// Grows under one epoch; 0: nothing yet.
    pub n: u64,
}

/// What may come beside publications.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Note {
    /// The members of a room changed; `before` is the version that this follows.
    Member {
        /// Who has another one missed something.
        before: Version,
        /// The one that this makes.
        version: Version,
        /// How many there are now.
        count: usize,
        /// Who came or went.
        user: UserId,
        /// What it did.
        change: MemberChange,
    },
    /// What others see of users of a vnode changed; `before` is the version that this follows. Composed by the store
    /// ([`presence_note`]).
    #[allow(missing_docs, reason = "said above")]
    Presence { before: Version, version: Version, users: Vec<Presence> },
    /// A signal: to everyone who listens, or to one user's sessions.
    Signal {
        /// Who sent it need not be told.
        session: SessionId,
        /// Of those of one sender and kind only the latest counts.
        kind: String,
        /// Absent: to everyone who listens.
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
    /// Came, or says something else of itself.
    Join {
        /// What the member says of itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        info: Option<Json>,
    },
    /// Is not there any more.
    Leave,
}

impl Note {
    /// As it is published.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("notes always encode")
    }
}

/// A [`Note::Presence`] of the changes that one write made, equal to the byte to what the store composes. The texts are
/// those of the status events, from `"user"` on ([`status_rest`](crate::events::status_rest)).
pub fn presence_note<'a>(
    before: Version,
    version: Version,
    rests: impl IntoIterator<Item = &'a Bytes>,
) -> Bytes {
    let json = |version| serde_json::to_string(&version).expect("two numbers always encode");
    let (before, version) = (json(before), json(version));
    let mut note =
        format!("{{\"presence\":{{\"before\":{before},\"version\":{version},\"users\":[").into_bytes();
    for (i, rest) in rests.into_iter().enumerate() {
        note.extend_from_slice(if i == 0 { b"{" } else { b",{" });
        note.extend_from_slice(rest);
    }
    note.extend_from_slice(b"]}}");
    Bytes::from(note)
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
    use crate::events::{Status, StatusCause, message_bytes, status_rest};

    #[test]
    fn a_publication_tells_its_place_and_a_note_is_none() {
        let stream = StreamId::new("room:a \"b\"").unwrap();
        let at = Cursor::new(Epoch(1_795_240_831_954), Offset(42));
        let frame = message_bytes(&stream, at, b"\"id\":\"m\"}");
        assert_eq!(place_of(&stream, &frame), Some(at));
        assert_eq!(place_of(&StreamId::new("room:a").unwrap(), &frame), None);
        assert_eq!(place_of(&stream, br#"{"member":{}}"#), None);
    }

    #[test]
    fn what_the_store_composes_is_a_note_of_what_users_show() {
        let rest = |name: &str| {
            let user = UserId::new(name).unwrap();
            status_rest(&user, Status::Offline, StatusCause::Lost, 5, 5, Some(4))
        };
        let (before, version) = (Version::default(), Version { epoch: Epoch(7), n: 9 });
        let note = presence_note(before, version, &[rest("bob"), rest("zo\"ë")]);
        let Note::Presence { before: b, version: v, users } = serde_json::from_slice(&note).unwrap() else {
            panic!("not of presence")
        };
        assert_eq!((b, v), (before, version));
        let names: Vec<_> = users.iter().map(|shown| shown.user.as_str()).collect();
        assert_eq!(names, ["bob", "zo\"ë"]);
        assert_eq!(users[1].last_seen.as_deref(), Some("1970-01-01T00:00:00.004Z"));
    }
}
