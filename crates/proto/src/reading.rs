//! How what a client or an application wrote is read: strictly, and with faults in the words of JSON, not of Rust.

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::value::RawValue;

use crate::codes::{ErrorBody, ErrorCode};
use crate::limits::JSON_DEPTH_MAX;

/// Longest text of a fault: it may quote what was written.
const FAULT_CHARS_MAX: usize = 160;
const PATH_CHARS_MAX: usize = 64;

pub(crate) fn bad_request(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, message)
}

/// The checks that hold for every text of a client or an application, frame, body or record: nesting, no U+0000, and
/// nothing but Unicode.
///
/// # Errors
/// `bad_request`, saying which.
pub fn check_text(text: &str) -> Result<(), ErrorBody> {
    let scan = scan(text.as_bytes());
    scan.depth()?;
    scan.characters()
}

/// What a look at a JSON text that does not parse it can tell. `serde_json` skips raw values without counting their
/// depth, and does not look into their strings.
pub(crate) struct Scan {
    depth: usize,
    nul: bool,
    half: bool,
}

impl Scan {
    pub(crate) fn depth(&self) -> Result<(), ErrorBody> {
        if self.depth <= JSON_DEPTH_MAX {
            return Ok(());
        }
        Err(bad_request(format!("nested deeper than {JSON_DEPTH_MAX}")))
    }

    /// Postgres cannot store U+0000, and half of a surrogate pair (RFC 8259 §8.2) is no character: one consumer would
    /// replace it, the next one stop at it.
    pub(crate) fn characters(&self) -> Result<(), ErrorBody> {
        match (self.nul, self.half) {
            (true, _) => Err(bad_request("a text contains U+0000")),
            (_, true) => Err(bad_request("a text contains half of a surrogate pair, which is not Unicode")),
            _ => Ok(()),
        }
    }
}

pub(crate) fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan { depth: 0, nul: false, half: false };
    let (mut depth, mut in_string, mut i) = (0usize, false, 0);
    while i < bytes.len() {
        match (in_string, bytes[i]) {
            (true, b'\\') => {
                match unit(&bytes[i..]) {
                    Some(0) => scan.nul = true,
                    // The first half: the second one has to follow, and both are passed over.
                    Some(0xD800..=0xDBFF) => match bytes.get(i + 6..).and_then(unit) {
                        Some(0xDC00..=0xDFFF) => i += 10,
                        _ => scan.half = true,
                    },
                    Some(0xDC00..=0xDFFF) => scan.half = true,
                    _ => {}
                }
                i += 1;
            }
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                scan.depth = scan.depth.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        i += 1;
    }
    scan
}

/// The UTF-16 unit that an escape `\uXXXX` at the beginning of `bytes` stands for.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// Reads an object; serde alone would take a list of as many values for it.
///
/// # Errors
/// What is wrong, with the name of the field.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if !is_object(text) {
        // What is no JSON at all is told so.
        let found = serde_json::from_str::<&RawValue>(text);
        return Err(found.map_or_else(|error| fault(&error), |_| "a JSON object is expected".to_owned()));
    }
    serde_json::from_str(text).map_err(|_| {
        let again = &mut serde_json::Deserializer::from_str(text);
        named(serde_path_to_error::deserialize::<_, T>(again).err(), text)
    })
}

fn named(error: Option<serde_path_to_error::Error<serde_json::Error>>, text: &str) -> String {
    match error {
        Some(error) => at(&error.path().to_string(), fault(error.inner())),
        // The object is whole, and something follows it.
        None => serde_json::from_str::<&RawValue>(text).err().map_or_else(String::new, |error| fault(&error)),
    }
}

/// `path` is `.` where the fault is of the object as a whole, such as a missing field, whose text has the name; and `?`
/// where it is of no field that could be read.
fn at(path: &str, fault: String) -> String {
    if matches!(path, "." | "?") { fault } else { format!("{}: {fault}", shown(path, PATH_CHARS_MAX)) }
}

/// It is shown to people, some of them at a terminal.
fn shown(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// What a parser says, without the position, which means nothing in a second pass, and without unbounded echoes.
pub fn fault(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let text = match text.rsplit_once(", expected ") {
        Some((found, expected)) => format!("{}, expected {}", plain(found), word(expected)),
        None => plain(text),
    };
    shown(&text, FAULT_CHARS_MAX)
}

fn plain(found: &str) -> String {
    let found = found.replace("invalid type: map", "invalid type: an object");
    found.replace("invalid type: sequence", "invalid type: a list")
}

/// The JSON word for what a type of Rust is called.
fn word(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a string" | "str" | "string" => "a text",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

/// What a derived `Deserialize` reads, and only from an object.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Object<D>(D);
    impl<'de, D: Deserializer<'de>> Deserializer<'de> for Object<D> {
        type Error = D::Error;

        fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_map(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
        }
    }
    T::deserialize(Object(deserializer))
}

/// `null` is the same as leaving the field out.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A list of objects; `null` is an empty one.
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let entries = Option::<Vec<Box<RawValue>>>::deserialize(deserializer)?.unwrap_or_default();
    entries.iter().map(|entry| read(entry.get()).map_err(D::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only the reading is looked at")]
    struct Asked {
        id: String,
        limit: Option<usize>,
        #[serde(default, deserialize_with = "or_default")]
        receipt: bool,
        #[serde(default, deserialize_with = "objects")]
        more: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only the reading is looked at")]
    struct Inner {
        room: String,
    }

    #[test]
    fn a_fault_names_the_field_and_says_what_json_it_wants() {
        for (text, said) in [
            (r#"["a",1]"#, "a JSON object is expected"),
            ("7", "a JSON object is expected"),
            ("", "EOF while parsing a value"),
            (r#"{"id":"a"} x"#, "trailing characters"),
            (r#"{"id":"a""#, "EOF while parsing an object"),
            (r#"{"id":7}"#, "id: invalid type: integer `7`, expected a text"),
            (r#"{"id":"a","limit":"x"}"#, "limit: invalid type: string \"x\", expected a whole number"),
            (r#"{"id":"a","limit":-1}"#, "limit: invalid value: integer `-1`, expected a whole number"),
            (r#"{"id":"a","receipt":1}"#, "receipt: invalid type: integer `1`, expected true or false"),
            (r#"{"id":"a","more":{}}"#, "more: invalid type: an object, expected a list"),
            (r#"{"id":"a","more":[["lobby"]]}"#, "more: a JSON object is expected"),
            (r#"{"id":"a","more":[{"room":1}]}"#, "more: room: invalid type: integer `1`, expected a text"),
            (r#"{"limit":1}"#, "missing field `id`"),
            ("{\"\\u001b]0;x\":tru}", " ]0;x: expected ident"),
        ] {
            assert_eq!(read::<Asked>(text).unwrap_err(), said, "{text}");
        }
        let nulls = r#"{"id":"a","limit":null,"receipt":null,"more":null}"#;
        assert!(read::<Asked>(nulls).is_ok());
    }

    #[test]
    fn half_a_pair_is_found_wherever_it_stands() {
        for (text, whole) in [
            (r#""\ud83d\ude00""#, true),
            (r#""\uD83D\uDE00 \ud83d\ude00""#, true),
            (r#""cut \ud83d""#, false),
            (r#""\ude00""#, false),
            (r#""\ude00\ud83d""#, false),
            (r#""\ud83d\ud83d\ude00""#, false),
            (r#""\ud83d\\ude00""#, false),
            (r#""\ud83d \ude00""#, false),
            (r#"{"\ud83d":1}"#, false),
            (r#"{"a":["\uDC00"]}"#, false),
            (r#""\\ud83d""#, true),
            (r#""\ud7ff\ue000\uffff""#, true),
            (r#""\ud83d\u"#, false),
        ] {
            assert_eq!(check_text(text).is_ok(), whole, "{text}");
        }
        assert!(check_text(r#""\u0000""#).unwrap_err().message.contains("U+0000"));
    }
}
