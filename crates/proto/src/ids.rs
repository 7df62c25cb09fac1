//! The names and numbers of Roost, one type each, so that no two can be swapped.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codes::{ErrorBody, ErrorCode};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts of the errors say it")]
pub enum IdError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} is longer than {max} bytes")]
    TooLong { what: &'static str, max: usize },
    #[error("{what} contains a character that is not allowed")]
    Character { what: &'static str },
    #[error("a user id must not start with '#'")]
    Hash,
    #[error("a stream is 'user:<id>' or 'room:<id>'")]
    Stream,
}

/// Longest user, room, device and node id, in bytes (`docs/PROTOCOL.md`, limits).
pub const ID_BYTES_MAX: usize = 128;
/// Longest message id, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 64;

fn check(what: &'static str, s: &str, max: usize, ok: impl Fn(char) -> bool) -> Result<(), IdError> {
    if s.is_empty() {
        return Err(IdError::Empty { what });
    }
    if s.len() > max {
        return Err(IdError::TooLong { what, max });
    }
    if s.chars().all(ok) { Ok(()) } else { Err(IdError::Character { what }) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, |$s:ident| $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps `s`.
            ///
            /// # Errors
            /// [`IdError`] says what is wrong with it.
            pub fn new(s: impl AsRef<str>) -> Result<Self, IdError> {
                let $s = s.as_ref();
                $check?;
                Ok(Self(Arc::from($s)))
            }

            /// As it is on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::new(s)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Self::new(&s).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// A user: 1–128 bytes, no control characters, not starting with `#` (that marks rooms in the ring).
    UserId,
    |s| if s.starts_with('#') { Err(IdError::Hash) } else { check("user id", s, ID_BYTES_MAX, |c| !c.is_control()) }
);
text_id!(
    /// A ws-node's stable name: 1–64 of `A-Za-z0-9_.-`, because it becomes part of a Kafka topic's name.
    NodeId,
    |s| check("node id", s, 64, |c| c.is_ascii_alphanumeric() || "_.-".contains(c))
);
text_id!(
    /// What makes a retry safe: 1–64 of `A-Za-z0-9_.:-`, unique per sender.
    MessageId,
    |s| check("message id", s, MESSAGE_ID_BYTES_MAX, |c| c.is_ascii_alphanumeric() || "_.:-".contains(c))
);
text_id!(
    /// A user's device: the unit that has a cursor of its own.
    DeviceId,
    |s| check("device id", s, ID_BYTES_MAX, |c| !c.is_control())
);
text_id!(
    /// One authenticated WebSocket.
    SessionId,
    |s| check("session id", s, 64, |c| c.is_ascii_alphanumeric() || c == '-')
);
text_id!(
    /// A room: 1–128 bytes, no control characters.
    RoomId,
    |s| check("room id", s, ID_BYTES_MAX, |c| !c.is_control())
);
text_id!(
    /// One ordered sequence of messages: `user:<id>` (an inbox) or `room:<id>`.
    StreamId,
    |s| match s.split_once(':') {
        Some(("user", id)) => UserId::new(id).map(|_| ()),
        Some(("room", id)) => RoomId::new(id).map(|_| ()),
        _ => Err(IdError::Stream),
    }
);

impl UserId {
    /// What ids of users of Roost's own begin with: nobody has a token for one, and nothing can be sent to one.
    pub const RESERVED: &str = "roost.";

    /// Whether this is one of Roost's own.
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with(Self::RESERVED)
    }

    /// # Errors
    /// `forbidden` if this is one of Roost's own.
    pub fn check_reserved(&self) -> Result<(), ErrorBody> {
        if !self.is_reserved() {
            return Ok(());
        }
        let why = format!("ids that begin with '{}' are reserved", Self::RESERVED);
        Err(ErrorBody::new(ErrorCode::Forbidden, why))
    }
}

impl StreamId {
    /// The inbox of `user`.
    pub fn inbox(user: &UserId) -> Self {
        Self(Arc::from(format!("user:{user}")))
    }

    /// The user whose inbox this is, if it is one.
    pub fn user(&self) -> Option<UserId> {
        self.0.strip_prefix("user:").map(|u| UserId(Arc::from(u)))
    }

    /// What is published in `room`.
    pub fn of_room(room: &RoomId) -> Self {
        Self(Arc::from(format!("room:{room}")))
    }

    /// Whether it is a room's and no inbox.
    pub fn is_room(&self) -> bool {
        self.0.starts_with("room:")
    }

    /// The room whose stream this is, if it is one.
    pub fn room(&self) -> Option<RoomId> {
        self.0.strip_prefix("room:").map(|r| RoomId(Arc::from(r)))
    }
}

/// One life of a ws-node process: `<node>/<born>/<random>`. Two sids of one node are ordered by `born`, which
/// grows even when the clock does not (core rule 21); identity is always compared by the whole sid.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(Arc<str>);

impl Sid {
    /// `born` is in milliseconds since 1970 and larger than that of every earlier sid of `node`.
    pub fn new(node: &NodeId, born: u64, random: u32) -> Self {
        Self(Arc::from(format!("{node}/{born}/{random:08x}")))
    }

    /// Reads a sid written by [`Sid::as_str`].
    ///
    /// # Errors
    /// If it has not the three parts.
    pub fn parse(s: &str) -> Result<Self, IdError> {
        let mut parts = s.split('/');
        let node = parts.next().unwrap_or_default();
        NodeId::new(node)?;
        let born = parts.next().and_then(|b| b.parse::<u64>().ok());
        let random = parts.next();
        if born.is_none() || random.is_none() || parts.next().is_some() {
            return Err(IdError::Character { what: "sid" });
        }
        Ok(Self(Arc::from(s)))
    }

    /// As it is on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The node whose life this is.
    pub fn node(&self) -> NodeId {
        NodeId(Arc::from(self.0.split('/').next().unwrap_or_default()))
    }

    /// The order among the lives of one node, in milliseconds since 1970.
    pub fn born(&self) -> u64 {
        self.0.split('/').nth(1).and_then(|b| b.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Serialize for Sid {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Sid {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&s).map_err(serde::de::Error::custom)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $t:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
        )]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub $t);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One arc of the ring, `0..V`.
    VnodeId,
    u16
);
number!(
    /// Grows with every change of a vnode's owner; also names the generations of its data.
    Epoch,
    u64
);
number!(
    /// Position in a stream: 1, 2, 3… without gaps; 0 is before the first.
    Offset,
    u64
);
number!(
    /// Counts the events of a vnode; carried by every write as part of its fence.
    Seq,
    u64
);

impl VnodeId {
    /// Its place in a list of all vnodes.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A place in a stream, always a pair and ordered as a pair: offsets of different generations do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cursor {
    /// Which life of the stream: a later one has a larger number.
    pub generation: Epoch,
    /// 1, 2, 3… without gaps in each life; 0 is before the first.
    pub offset: Offset,
}

impl<'de> Deserialize<'de> for Cursor {
    /// From an object: a derived one would take a list of two numbers, too.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            generation: Epoch,
            offset: Offset,
        }
        crate::reading::object(d).map(|Fields { generation, offset }| Self { generation, offset })
    }
}

impl Cursor {
    /// The place of this pair.
    pub fn new(generation: Epoch, offset: Offset) -> Self {
        Self { generation, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_the_protocol_forbids() {
        assert!(UserId::new("alice").is_ok());
        assert!(UserId::new("Zoë 🦀").is_ok());
        assert_eq!(UserId::new(""), Err(IdError::Empty { what: "user id" }));
        assert_eq!(UserId::new("#lobby"), Err(IdError::Hash));
        assert_eq!(UserId::new("a\0b"), Err(IdError::Character { what: "user id" }));
        assert!(UserId::new("x".repeat(128)).is_ok());
        assert_eq!(UserId::new("x".repeat(129)), Err(IdError::TooLong { what: "user id", max: 128 }));
        assert!(MessageId::new("0199a7c2-7e1a:1_x.y").is_ok());
        assert!(MessageId::new("a b").is_err());
        assert!(NodeId::new("ws-1").is_ok());
        assert!(NodeId::new("ws/1").is_err());
        assert!(StreamId::new("user:bob").is_ok());
        assert!(StreamId::new("inbox:bob").is_err());
    }

    #[test]
    fn a_sid_tells_its_node_and_its_order() {
        let node = NodeId::new("ws-1").unwrap();
        let sid = Sid::new(&node, 1_795_240_831_954, 7);
        assert_eq!(Sid::parse(sid.as_str()), Ok(sid.clone()));
        assert_eq!(sid.node(), node);
        assert_eq!(sid.born(), 1_795_240_831_954);
        assert!(Sid::parse("ws-1/abc/1").is_err());
        assert!(Sid::parse("ws-1").is_err());
    }
}
