//! The names of a struct's fields, asked of its `Deserialize`: only so can the environment be searched for the
//! variables of a struct, their `_FILE` twins included, and for nothing else.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

/// The fields of `T` if it is a struct with named fields.
pub(super) fn of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    match T::deserialize(Probe) {
        Err(Answer::Fields(fields)) => Some(fields),
        _ => None,
    }
}

struct Probe;

/// The answer travels as the error: a probe has no values to offer.
#[derive(Debug)]
enum Answer {
    Fields(&'static [&'static str]),
    NoStruct,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only asked for the names")
    }
}
impl std::error::Error for Answer {}
impl Error for Answer {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Answer::NoStruct
    }
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Answer;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Answer> {
        Err(Answer::Fields(fields))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Answer> {
        Err(Answer::NoStruct)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only its field names matter")]
    struct Raw {
        node_id: Option<String>,
        #[serde(rename = "vnodes")]
        count: Option<String>,
    }

    #[test]
    fn the_fields_of_a_struct_are_known_without_a_value() {
        assert_eq!(of::<Raw>(), Some(&["node_id", "vnodes"][..]));
        assert_eq!(of::<String>(), None);
    }
}
