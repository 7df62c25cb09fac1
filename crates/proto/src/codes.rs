//! The codes of the protocol: one table each, from which constants, SDKs and docs are made.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($variant:ident $text:literal $retryable:literal $http:literal $meaning:literal;)*) => {
        /// Why a command was not done. The text is the wire form.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $(#[doc = $meaning] $variant,)* }

        impl ErrorCode {
            /// Every code: what the tables in docs and SDKs are made from.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The wire form.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text,)* }
            }
            /// Whether repeating the same command with the same id may succeed.
            pub fn retryable(self) -> bool {
                match self { $(ErrorCode::$variant => $retryable,)* }
            }
            /// The HTTP status that carries it.
            pub fn http_status(self) -> u16 {
                match self { $(ErrorCode::$variant => $http,)* }
            }
            /// A line for people, as the tables in the docs have it.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$variant => $meaning,)* }
            }
            fn from_text(s: &str) -> Option<Self> {
                match s { $($text => Some(ErrorCode::$variant),)* _ => None }
            }
        }
    };
}

error_codes! {
    Unauthorized "unauthorized" false 401 "no token, or one that is not accepted";
    Forbidden "forbidden" false 403 "the token does not allow this";
    BadRequest "bad_request" false 400 "malformed, or a field out of its limits";
    TooLarge "too_large" false 413 "larger than the limit";
    RateLimited "rate_limited" true 429 "too many for now; repeat with the same id, earliest first";
    NotFound "not_found" false 404 "no such thing";
    Conflict "conflict" false 409 "the id was used before with another body, or a later command overtook this one";
    Unavailable "unavailable" true 503 "not accepted; repeat with the same id";
    Unknown "unknown" true 504 "no answer within 20 s: it may have been accepted; repeat with the same id";
    Internal "internal" true 500 "a bug in the server; repeat with the same id";
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = std::borrow::Cow::<'de, str>::deserialize(d)?;
        // A code of a newer server is treated as one that may pass: repeating is always safe.
        Ok(Self::from_text(&s).unwrap_or(Self::Internal))
    }
}

/// The body of every error, on HTTP (inside `{"error": …}`) and on the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{}: {message}", code.as_str())]
pub struct ErrorBody {
    /// What a program decides by; one of a later version is read as `internal`.
    pub code: ErrorCode,
    /// For people: it changes between versions, and may quote what was written.
    pub message: String,
    /// The same command under the same id may succeed later. Of the code, said for clients that do not know it.
    pub retryable: bool,
    /// From now, in milliseconds; absent where the server does not know better than a client's own backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// The error of this code, as retryable as the code is.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: code.retryable(), retry_after_ms: None }
    }

    /// Asks for patience until then.
    pub fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

macro_rules! close_codes {
    ($($variant:ident $code:literal $meaning:literal;)*) => {
        /// Why a WebSocket was closed. The range says what a client does (RFC 6455 §7.4.2 leaves 3000–3999 to
        /// applications): 3000–3499 reconnect through `/route` with jitter, 3500–3999 stop and tell.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode { $(#[doc = $meaning] $variant,)* }

        impl CloseCode {
            /// Every code: what the tables in docs and SDKs are made from.
            pub const ALL: &'static [CloseCode] = &[$(CloseCode::$variant,)*];
            /// The number in the close frame.
            pub fn code(self) -> u16 {
                match self { $(CloseCode::$variant => $code,)* }
            }
            /// A line for people, as the tables in the docs have it.
            pub fn meaning(self) -> &'static str {
                match self { $(CloseCode::$variant => $meaning,)* }
            }
        }
    };
}

close_codes! {
    Protocol 1002 "not the WebSocket protocol";
    Binary 1003 "a binary frame on a JSON connection";
    NotUtf8 1007 "text that is not UTF-8";
    TooLarge 1009 "a message over the limit";
    Bug 1011 "a bug in the server";
    Restart 1012 "the server restarts";
    Overload 1013 "overloaded, or no part of the cluster can answer now";
    Moved 3000 "the user's home is elsewhere";
    Draining 3001 "this node is being stopped";
    NoPong 3002 "no answer to a ping in time";
    LeaseLost 3003 "this node is cut off and cannot say where home is";
    TooSlow 3004 "too slow even for a replay: what was missed left the hot window";
    BadToken 3500 "the token is not accepted";
    TokenExpired 3501 "the token expired and was not refreshed";
    NoConnect 3502 "no connect frame in time";
    Disconnected 3503 "disconnected by the server API";
    TooManySessions 3504 "the user has too many sessions";
    ForbiddenOrigin 3505 "the origin is not allowed";
    BadFrames 3506 "too many malformed frames";
}

/// Whether a client that was closed with `code` connects again (through `/route`, with jitter).
pub fn reconnects(code: u16) -> bool {
    !matches!(code, 1002 | 1003 | 1007 | 1009 | 3500..=3999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_close_code_says_what_a_client_does() {
        for code in CloseCode::ALL {
            match code.code() {
                3000..=3499 => assert!(reconnects(code.code())),
                3500..=3999 => assert!(!reconnects(code.code())),
                other => assert!((1002..=1013).contains(&other)),
            }
        }
        assert!(reconnects(3499) && !reconnects(3999) && reconnects(1006));
    }

    #[test]
    fn every_error_code_survives_the_wire() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
        }
    }
}
