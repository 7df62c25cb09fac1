//! One field of the environment: present or not, and checked under its name.
//!
//! A check takes the text and says in a few words what it must be; name and value are added here.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use roost_proto::RoomId;

use super::ConfigError;
use crate::secret::Secret;

/// The value of `name`, or `default` if it is not set.
///
/// # Errors
/// What `check` says, with the name.
pub fn field<T>(
    name: &str,
    raw: Option<String>,
    default: T,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    Ok(optional(name, raw, check)?.unwrap_or(default))
}

/// The value of `name`, if it is set.
///
/// # Errors
/// What `check` says, with the name.
pub fn optional<T>(
    name: &str,
    raw: Option<String>,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    raw.map(|raw| check(&raw).map_err(|reason| ConfigError::invalid(name, &raw, &reason))).transpose()
}

/// The value of `name`; `hint` says what to do if it is not set.
///
/// # Errors
/// If it is not set, or what `check` says, with the name.
pub fn required<T>(
    name: &str,
    raw: Option<String>,
    hint: &str,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    optional(name, raw, check)?.ok_or_else(|| ConfigError::missing(name, hint))
}

/// Any text.
///
/// # Errors
/// Never.
pub fn text(raw: &str) -> Result<String, String> {
    Ok(raw.to_owned())
}

/// A whole number in `range`.
pub fn number<N: FromStr + PartialOrd + Display>(
    range: RangeInclusive<N>,
) -> impl Fn(&str) -> Result<N, String> {
    move |raw| {
        let parsed = raw.trim().parse().ok().filter(|n| range.contains(n));
        parsed.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A power of two in `range`.
pub fn power_of_two(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> {
    move |raw| {
        let parsed = raw.trim().parse::<u32>().ok().filter(|n| n.is_power_of_two() && range.contains(n));
        parsed.ok_or_else(|| format!("must be a power of two from {} to {}", range.start(), range.end()))
    }
}

/// `true` or `false`.
///
/// # Errors
/// If it is neither.
pub fn flag(raw: &str) -> Result<bool, String> {
    one_of(&[("true", true), ("false", false)])(raw)
}

/// One of these words, in any case.
pub fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |raw| {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(raw.trim()));
        found.map(|(_, value)| *value).ok_or_else(|| {
            format!("must be one of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))
        })
    }
}

/// Where to listen: an address and a port, no host name.
///
/// # Errors
/// If it is not that.
pub fn socket_addr(raw: &str) -> Result<SocketAddr, String> {
    raw.trim()
        .parse()
        .map_err(|_| "must be an address and a port such as 0.0.0.0:7301 or [::]:7301".to_owned())
}

/// Rooms, with commas between.
///
/// # Errors
/// If one of them is no room's id.
pub fn rooms(raw: &str) -> Result<Vec<RoomId>, String> {
    let names = raw.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| RoomId::new(name).map_err(|e| e.to_string())).collect()
}

/// Where an HTTP server is for clients: `http://` or `https://`, a host, and neither a user nor a query; perhaps a path
/// in front of the server's own.
///
/// # Errors
/// If it is not that.
pub fn http_url(raw: &str) -> Result<String, String> {
    url(raw, &["http", "https"]).ok_or_else(|| "must be a URL such as https://history.example.com".to_owned())
}

/// A WebSocket URL that a client can dial: `ws://` or `wss://`, a host, and neither a user nor a query.
///
/// # Errors
/// If it is not that.
pub fn ws_url(raw: &str) -> Result<String, String> {
    url(raw, &["ws", "wss"])
        .ok_or_else(|| "must be a URL such as ws://chat.example.com:7301/socket".to_owned())
}

/// Where Redis is, with a password perhaps.
///
/// # Errors
/// If it is no URL of Redis, or a character of the password ends it early.
pub fn redis_url(raw: &str) -> Result<Secret, String> {
    const SCHEMES: [&str; 4] = ["redis", "rediss", "redis+cluster", "redis+sentinel"];
    let raw = raw.trim();
    match raw.split_once("://") {
        Some((scheme, rest)) if SCHEMES.contains(&scheme) && !rest.is_empty() => {
            plain_login(rest)?;
            if scheme.starts_with("redis+") || numbered(rest) {
                Ok(Secret::new(raw))
            } else {
                Err("must end with the number of a database, such as /0, or with nothing".to_owned())
            }
        }
        _ => Err("must begin with redis://, rediss://, redis+cluster:// or redis+sentinel://".to_owned()),
    }
}

/// Whether what comes after the host is the number of a database, if there is something.
fn numbered(rest: &str) -> bool {
    let address = rest.split(['?', '#']).next().unwrap_or_default();
    let place = address.rsplit_once('@').map_or(address, |(_, place)| place);
    let number = place.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
    number.is_empty() || number.parse::<u32>().is_ok()
}

/// Where PostgreSQL is, with a password perhaps.
///
/// # Errors
/// As [`redis_url`].
pub fn database_url(raw: &str) -> Result<Secret, String> {
    let raw = raw.trim();
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| raw.strip_prefix(scheme));
    plain_login(rest.ok_or("must begin with postgres://")?)?;
    Ok(Secret::new(raw))
}

/// Whether the user and the password in front of a host are written as a URL wants them (RFC 3986 §3.2.1). One that
/// has an `@`, `/`, `?` or `#` in it is cut off there, and what comes after it is taken for the host: the server's
/// refusal, or the resolver's, would be about that.
fn plain_login(rest: &str) -> Result<(), String> {
    // An address may be in the parameters, but not behind a fragment.
    let parameters = rest.rfind('?').filter(|at| rest[*at..].contains('='));
    let Some((login, _)) = rest[..parameters.unwrap_or(rest.len())].rsplit_once('@') else { return Ok(()) };
    match login.chars().find(|c| matches!(c, '@' | '/' | '?' | '#')) {
        None => Ok(()),
        Some(c) => Err(format!(
            "has a bare '{c}' in its user or password, which ends them there: write %{:02X} for it",
            u32::from(c)
        )),
    }
}

fn url(raw: &str, schemes: &[&str]) -> Option<String> {
    let uri = http::Uri::from_str(raw.trim()).ok()?;
    let authority = uri.authority()?;
    let dialable = schemes.contains(&uri.scheme_str()?) && !authority.host().is_empty();
    let plain = !authority.as_str().contains('@') && uri.query().is_none() && !raw.contains('#');
    (dialable && plain).then(|| raw.trim().to_owned())
}
