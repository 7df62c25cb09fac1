//! What can go wrong, one type per operation.

use roost_proto::{ErrorBody, IdError, MessageId};

/// What a token callback may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A text that is not made like a JWT (RFC 7519 §3): three parts of base64url with dots between, the second of them a
/// JSON object. Nothing of it is shown: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token: a JWT is three parts of base64url with dots between, and this {0}")]
pub struct NotAToken(pub(crate) &'static str);

/// Why a [`Builder`](crate::Builder) did not make a client. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants say what is in them")]
pub enum BuildError {
    /// The coordinator's address is not an `http://` URL (this build speaks no TLS).
    #[error("'{url}' is not a coordinator's address: {why}")]
    Url { url: String, why: String },
    /// Neither a token nor a callback for one was given.
    #[error("no token and no token callback")]
    NoToken,
    /// The token callback failed or took too long.
    #[error("the token callback failed: {0}")]
    Token(#[source] BoxError),
    /// What was given as a token, or what the callback gave, is none: it would never be accepted.
    #[error(transparent)]
    NotAToken(#[from] NotAToken),
    /// No user was named, and the token has no readable `sub`.
    #[error("no user was named and the token has no readable 'sub'")]
    NoUser,
    /// The [`CursorStore`](crate::CursorStore) does not say where the client was.
    #[error("the cursor that was kept cannot be read: {0}")]
    Cursor(#[source] BoxError),
    /// The user or the device is not a valid id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be made: {0}")]
    Http(String),
}

/// Why a send or another command was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants say what is in them")]
pub enum SendError {
    /// As many sends as [`queue_max`](crate::Builder::queue_max) are waiting: nothing was kept of this one.
    #[error("{max} sends are waiting already")]
    QueueFull { max: usize },
    /// Not a valid recipient, id or payload: it would have been refused, so it was not sent.
    #[error("cannot be sent: {0}")]
    Invalid(String),
    /// The frame would be larger than the limit; both numbers are bytes.
    #[error("{bytes} bytes are more than {max}")]
    TooLarge { bytes: usize, max: usize },
    /// The server refused it for good: a repeat would be refused too.
    #[error("refused: {0}")]
    Refused(ErrorBody),
    /// There was no connection in time ([`Client::trouble`](crate::Client::trouble) says why). It was withdrawn: it was
    /// not and will not be sent.
    #[error("not sent in time")]
    NotSent,
    /// It was sent and no final answer came in time: it may have been accepted, and as long as the client lives it
    /// is still being repeated. [`send_with_id`](crate::Client::send_with_id) with the same id (and the same
    /// recipient and data) waits for the answer again; within 15 minutes that is safe.
    #[error("no answer in time to {id}: it may have been accepted")]
    Unknown { id: MessageId },
    /// To an event: it is stored, and the cluster says that no processor gave a result in its time. One that comes
    /// later is a message of the inbox.
    #[error("no processor gave a result of the event {id} in time")]
    TimedOut { id: MessageId },
    /// To an event: it is stored, and neither a result nor [`TimedOut`](Self::TimedOut) came for as long as
    /// [`event_timeout`](crate::Builder::event_timeout). Either may still come, as a message of the inbox.
    #[error("no result of the event {id} came as long as it was waited for")]
    NoResult { id: MessageId },
    /// To a join: the client is in as many rooms as a connection may be.
    #[error("in {max} rooms already")]
    TooManyRooms { max: usize },
    /// To a join: the room was left before the answer came.
    #[error("the room was left")]
    Left,
    /// The client was closed, or failed, before the answer. If `sent`, it may have been accepted.
    #[error("the client is closed")]
    Closed { sent: bool },
}

/// Why a client stopped for good ([`State::Failed`](crate::State::Failed)): only a new one can connect again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants say what is in them")]
pub enum Failure {
    /// The token is not accepted, and a fresh one from the callback (if there is one) was not either.
    #[error("the token is not accepted: {0}")]
    BadToken(String),
    /// The server closed with a code that means "do not come back" (`docs/PROTOCOL.md`, codes).
    #[error("closed with {code}: {reason}")]
    Closed { code: u16, reason: String },
    /// An HTTP answer that a repeat cannot change, from `/route` or the handshake.
    #[error("refused with HTTP {status}: {message}")]
    Refused { status: u16, message: String },
    /// The server knows this token as somebody else.
    #[error("the token is '{user}', not '{expected}'")]
    OtherUser { user: String, expected: String },
    /// The address needs something that this build lacks (TLS).
    #[error("cannot connect to {0}: this build speaks no TLS")]
    NoTls(String),
}

/// Why [`Client::connected`](crate::Client::connected) returned without a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants say what is in them")]
pub enum ConnectError {
    /// The client stopped for good.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Not connected in time; the client goes on trying. `trouble` is what the last try met.
    #[error("not connected in time: {}", trouble.as_deref().unwrap_or("no try has ended yet"))]
    TimedOut { trouble: Option<String> },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a try to connect failed. The client goes on trying.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct ConnectTrouble {
    /// What a program may decide by.
    pub cause: Cause,
    /// What was tried, such as `http://127.0.0.1:7300/route`, and what came of it.
    pub reason: String,
}

/// Where a try to connect failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Nobody answers at the coordinator's address: refused, no such host, no answer in time.
    Unreachable,
    /// Somebody else answers there.
    NotACoordinator,
    /// The coordinator asks for patience: the user has no home at the moment, or there is too much to do.
    NotNow,
    /// The node that the coordinator named is not reached, or does not take the connection.
    Node,
    /// The callback gave no token, or the last one was not accepted.
    Token,
}

impl Cause {
    /// Whether it is the coordinator's address that does not lead to one: wrong, or of one that does not run.
    pub fn is_the_address(self) -> bool {
        matches!(self, Self::Unreachable | Self::NotACoordinator)
    }
}

/// What a try to connect met, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "shown to simulations alone")]
pub enum Trouble {
    /// Try again, not before `after_ms`.
    Retry { after_ms: u64, cause: Cause, why: String },
    /// Try again with a fresh token, once.
    Token(String),
    /// Stop and tell the application.
    Fatal(Failure),
}

impl Trouble {
    /// At the node.
    pub fn retry(why: impl Into<String>) -> Self {
        Self::because(Cause::Node, why)
    }

    /// With this cause, as soon as the backoff allows.
    pub fn because(cause: Cause, why: impl Into<String>) -> Self {
        Self::Retry { after_ms: 0, cause, why: why.into() }
    }
}
