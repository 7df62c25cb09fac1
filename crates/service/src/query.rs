//! The query of a request: percent-encoded UTF-8 (RFC 3986 §2.1, §2.5), and nothing that only looks like it.

use std::convert::Infallible;

use roost_proto::{ErrorBody, ErrorCode};
use serde::de::DeserializeOwned;
use warp::Filter;

/// The query as it came; empty without one.
pub fn raw() -> impl Filter<Extract = (String,), Error = Infallible> + Copy {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

/// The fields of a query.
///
/// # Errors
/// `bad_request`: what is not percent-encoded UTF-8 (others would read it as U+FFFD, and take one name for another), or
/// the name of the field that is wrong.
pub fn read<T: DeserializeOwned>(query: &str) -> Result<T, ErrorBody> {
    check(query).map_err(bad)?;
    let fields = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(fields).map_err(|error| {
        let path = error.path().to_string();
        let fault = error.into_inner().to_string();
        let fault = fault.replace("invalid digit found in string", "not a whole number");
        bad(if path == "." { fault } else { format!("{path}: {fault}") })
    })
}

fn bad(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, format!("the query: {why}"))
}

fn check(query: &str) -> Result<(), &'static str> {
    let mut bytes = query.bytes();
    let mut decoded = Vec::with_capacity(query.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => escaped(&mut bytes).ok_or("'%' is not followed by two hexadecimal digits")?,
            // Ends the character before it, as decoding each field by itself does.
            b'&' | b'=' => b'&',
            other => other,
        });
    }
    std::str::from_utf8(&decoded).map(|_| ()).map_err(|_| "not UTF-8")
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(bytes.next()?).to_digit(16);
    let (high, low) = (digit()?, digit()?);
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Asked {
        user: Option<String>,
        limit: Option<usize>,
    }

    #[test]
    fn only_percent_encoded_utf_8_is_a_query() {
        for (query, user) in [
            ("", None),
            ("user=bob", Some("bob")),
            ("user=ann%2Bwork%40example.com", Some("ann+work@example.com")),
            ("user=a+b", Some("a b")),
            ("user=zo%C3%AB&more=1", Some("zoë")),
            ("user=", Some("")),
        ] {
            assert_eq!(read::<Asked>(query).unwrap().user.as_deref(), user, "{query}");
        }
        for (query, why) in [
            ("user=%FF", "not UTF-8"),
            ("user=%C3", "not UTF-8"),
            ("user=%C3&limit=%AB", "not UTF-8"),
            ("%FF=1", "not UTF-8"),
            ("user=%ED%A0%BD", "not UTF-8"),
            ("user=%zz", "hexadecimal"),
            ("user=%4", "hexadecimal"),
            ("user=100%", "hexadecimal"),
            ("limit=x", "limit: not a whole number"),
            ("user=a&user=b", "duplicate field `user`"),
        ] {
            let error = read::<Asked>(query).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest);
            assert!(error.message.contains(why), "{query}: {}", error.message);
        }
        assert_eq!(read::<Asked>("limit=7").unwrap().limit, Some(7));
    }
}
