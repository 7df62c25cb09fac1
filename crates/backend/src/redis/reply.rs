//! What Redis answers, taken apart.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use redis::{ErrorKind, RedisError, Value};
use roost_proto::ids::{Cursor, Epoch, Offset, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::store::StoreError;

/// A lease lives 6 s and is renewed every second: after a renewal that got no answer in 2 s there is still time
/// for a new connection (2 s at worst) and another try.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Turns the client's error into the store's. What passes by itself is `Unreachable`, whoever says it.
pub(super) fn failed(error: &RedisError) -> StoreError {
    const PASSING: [&str; 6] = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"];
    match error.kind() {
        _ if error.is_timeout() => StoreError::Timeout(RESPONSE_TIMEOUT),
        ErrorKind::Server(_) | ErrorKind::Extension
            if !error.code().is_some_and(|code| PASSING.contains(&code)) =>
        {
            StoreError::Refused(error.to_string())
        }
        _ => StoreError::Unreachable(error.to_string()),
    }
}

fn garbled(wanted: &str, found: &impl Debug) -> StoreError {
    StoreError::Garbled(format!("wanted {wanted}, found {found:?}"))
}

/// A JSON value kept in Redis.
pub(super) fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json)
        .map_err(|e| StoreError::Garbled(format!("{}: {e}", String::from_utf8_lossy(json))))
}

/// The elements of an array, one after the other.
pub(super) struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    pub(super) fn new(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            other => Err(garbled("an array", &other)),
        }
    }

    pub(super) fn value(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(|| StoreError::Garbled("an array is too short".into()))
    }

    /// Of elements that came in pieces.
    pub(super) fn of(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    pub(super) fn array(&mut self) -> Result<Fields, StoreError> {
        Fields::new(self.value()?)
    }

    /// Nothing for nil.
    pub(super) fn bytes_if_any(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.value()? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
            other => Err(garbled("bytes", &other)),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, StoreError> {
        self.bytes_if_any()?.ok_or_else(|| StoreError::Garbled("wanted bytes, found nil".into()))
    }

    pub(super) fn text_if_any(&mut self) -> Result<Option<String>, StoreError> {
        let text = self.bytes_if_any()?.map(|bytes| String::from_utf8(bytes.into()));
        text.transpose().map_err(|e| garbled("UTF-8", &e))
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.text_if_any()?.ok_or_else(|| StoreError::Garbled("wanted a text, found nil".into()))
    }

    /// An integer, as Redis' own type or as text.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        match self.value()? {
            Value::Int(n) => u64::try_from(n).map_err(|_| garbled("a number", &n)),
            Value::BulkString(text) => parse(&text),
            other => Err(garbled("a number", &other)),
        }
    }

    /// The JSON of a `T`; nothing for nil and for the empty text, which a script gives where there is none.
    pub(super) fn json_if_any<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        self.bytes_if_any()?.filter(|json| !json.is_empty()).map(|json| from_json(&json)).transpose()
    }

    /// All that is left.
    pub(super) fn rest(self) -> impl Iterator<Item = Value> {
        self.0
    }

    /// Whether nothing is left.
    pub(super) fn done(&self) -> bool {
        self.0.len() == 0
    }
}

/// A number written as text.
pub(super) fn parse(text: &[u8]) -> Result<u64, StoreError> {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or_else(|| garbled("a number", &text))
}

/// Two numbers with a separator between.
pub(super) fn parse_pair(text: &[u8], separator: u8) -> Result<(u64, u64), StoreError> {
    let at = text.iter().position(|b| *b == separator).ok_or_else(|| garbled("two numbers", &text))?;
    Ok((parse(&text[..at])?, parse(&text[at + 1..])?))
}

/// `<generation>:<offset>`.
pub(super) fn cursor(text: &[u8]) -> Result<Cursor, StoreError> {
    let (generation, offset) = parse_pair(text, b':')?;
    Ok(Cursor::new(Epoch(generation), Offset(offset)))
}

pub(super) fn user_id(text: &str) -> Result<UserId, StoreError> {
    UserId::new(text).map_err(|e| StoreError::Garbled(format!("user '{text}': {e}")))
}

/// Flags as the scripts give them: one `1` or `0` each.
pub(super) fn flags(text: &str) -> Vec<bool> {
    text.bytes().map(|b| b == b'1').collect()
}
