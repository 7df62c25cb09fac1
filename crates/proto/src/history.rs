//! Pages of a stream's hot window, newest first: the command `history`, on the socket and over HTTP.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Cursor, Epoch, MessageId, Offset, StreamId};

/// Asks for messages of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    pub id: MessageId,
    pub stream: StreamId,
    /// From an earlier page: what is older than that page. Without it the page begins with the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
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
