//! A JSON value that nobody on the way looks into.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::reading;

/// The text of one JSON value, as it was written; two are equal if their texts are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The encoding of an object of ours.
    ///
    /// # Panics
    /// If it cannot be encoded: a bug.
    pub fn of(value: &impl Serialize) -> Self {
        Self(to_raw_value(value).expect("plain fields always encode"))
    }

    /// A frame of ours.
    ///
    /// # Panics
    /// If it is not JSON: a bug.
    pub fn of_frame(frame: Bytes) -> Self {
        let text = String::from_utf8(frame.into()).expect("frames are made of text");
        Self(RawValue::from_string(text).expect("frames are JSON"))
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Reads an object; fields that `T` does not have are passed over.
    ///
    /// # Errors
    /// What is wrong, with the name of the field.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        reading::read(self.get())
    }
}

impl From<Box<RawValue>> for Json {
    fn from(value: Box<RawValue>) -> Self {
        Self(value)
    }
}

impl From<Json> for Box<RawValue> {
    fn from(json: Json) -> Self {
        json.0
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}
