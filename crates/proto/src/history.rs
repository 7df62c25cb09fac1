//! Pages of a stream, newest first: of its hot window by the command `history`, of all of it from the archiver.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Cursor, Epoch, MessageId, Offset, StreamId};

/// Asks for messages of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    /// The client's: it is in the reply.
    pub id: MessageId,
    /// The own inbox, or a room that the token allows; for a service any.
    pub stream: StreamId,
    /// From an earlier page: what is older than that page. Without it the page begins with the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// Fewer come where more would not fit into a frame; 50 if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::limits::HISTORY_MAX)))]
    pub limit: Option<usize>,
}

/// Where a page ends, to be shown for the next one. For clients it is an opaque text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before(pub Cursor);

/// A `before` that no page has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("'before' is not what an earlier page said")]
pub struct NotAPage;

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.generation, self.0.offset)
    }
}

impl FromStr for Before {
    type Err = NotAPage;

    fn from_str(text: &str) -> Result<Self, NotAPage> {
        let (generation, offset) = text.split_once(':').ok_or(NotAPage)?;
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| NotAPage);
        Ok(Self(Cursor::new(Epoch(number(generation)?), Offset(number(offset)?))))
    }
}

/// How far `chat_events` has to be archived before a history is whole: a partition, and its end when a session began
/// (core rule 26). For clients it is an opaque text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Through {
    /// Of `chat_events`.
    pub partition: u32,
    /// The first that was not there yet.
    pub offset: u64,
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// A `through` that no frame has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("'through' is not what a frame said")]
pub struct NotAPoint;

impl FromStr for Through {
    type Err = NotAPoint;

    fn from_str(text: &str) -> Result<Self, NotAPoint> {
        let (partition, offset) = text.split_once(':').ok_or(NotAPoint)?;
        let partition = partition.parse().map_err(|_| NotAPoint)?;
        Ok(Self { partition, offset: offset.parse().map_err(|_| NotAPoint)? })
    }
}

/// Where an archiver at `base` (`https://history.example.com`) has what is older than `before`.
pub fn archive_url(base: &str, stream: &StreamId, before: Option<Before>) -> String {
    let mut url = format!("{}/history?stream={}", base.trim_end_matches('/'), encoded(stream.as_str()));
    if let Some(before) = before {
        url.push_str(&format!("&before={}", encoded(&before.to_string())));
    }
    url
}

/// Percent-encodes everything but unreserved characters (RFC 3986 §2.3).
pub fn encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Serialize for Before {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Before {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_to_read_through_survives_the_wire_and_nothing_else_is_taken_for_it() {
        let through = Through { partition: 3, offset: 1_000 };
        assert_eq!("3:1000".parse(), Ok(through));
        assert_eq!(through.to_string(), "3:1000");
        for bad in ["", "3", "3:", ":1", "-1:1", "3:1:1"] {
            assert_eq!(bad.parse::<Through>(), Err(NotAPoint), "{bad}");
        }
        let (stream, before) = (StreamId::new("room:a b").unwrap(), Before(Cursor::new(Epoch(1), Offset(2))));
        let url = "http://x:7310/history?stream=room%3Aa%20b&before=1%3A2";
        assert_eq!(archive_url("http://x:7310/", &stream, Some(before)), url);
    }

    #[test]
    fn where_a_page_ends_survives_the_wire_and_nothing_else_is_taken_for_it() {
        let before = Before(Cursor::new(Epoch(1_795_240_831_954), Offset(42)));
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(text, "\"1795240831954:42\"");
        assert_eq!(serde_json::from_str::<Before>(&text).unwrap(), before);
        for wrong in ["", "1", "1:", ":1", "a:b", "1:2:3", "1:-2", "1:99999999999999999999"] {
            assert_eq!(wrong.parse::<Before>(), Err(NotAPage), "{wrong}");
        }
    }
}
