//! The frames of the WebSocket subprotocol `roost.v1`, in both directions.
//!
//! Reading is in two passes: the tag and the id first, so that even a malformed command gets a reply that names
//! it, then the frame itself. Payloads stay text (`RawValue`): nobody on the way needs to look into them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Json;
use crate::codes::ErrorBody;
use crate::events::{Message, Status};
use crate::history::History;
use crate::ids::{Cursor, DeviceId, Epoch, MessageId, NodeId, RoomId, SessionId, StreamId, UserId, VnodeId};
use crate::reading::{bad_request, read, scan};

/// The WebSocket subprotocol (RFC 6455 §1.9).
pub const SUBPROTOCOL: &str = "roost.v1";

/// A frame that cannot be used, and the id of the command if it could be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct FrameError {
    /// At most 128 characters of what stood there, which need not be a valid id.
    pub id: Option<String>,
    /// Always `bad_request`.
    pub error: ErrorBody,
}

macro_rules! frames {
    ($(#[$doc:meta])* $name:ident { $($tag:literal => $variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[allow(missing_docs, reason = "a frame is described where its fields are")]
        #[derive(Debug, Clone, Serialize)]
        #[serde(tag = "type")]
        pub enum $name { $(#[serde(rename = $tag)] $variant($body),)* }

        impl $name {
            /// Every tag, for docs and tests.
            pub const TAGS: &'static [&'static str] = &[$($tag,)*];

            /// The JSON Schema of each frame, by its tag.
            #[cfg(feature = "schema")]
            pub fn schemas() -> Vec<(&'static str, serde_json::Value)> {
                vec![$(($tag, crate::schema::frame::<$body>($tag)),)*]
            }

            /// Reads one frame.
            ///
            /// # Errors
            /// [`FrameError`] with `bad_request`: not JSON, too deep, an unknown type, a field missing or wrong.
            pub fn parse(text: &str) -> Result<Self, FrameError> {
                let (tag, id) = head(text)?;
                let bad = |fault: String| FrameError { id: id.clone(), error: bad_request(fault) };
                match tag.as_str() {
                    $($tag => read::<$body>(text).map($name::$variant).map_err(bad),)*
                    other => Err(FrameError { id, error: bad_request(format!("unknown type '{}'", clip(other))) }),
                }
            }

            /// The frame as it goes over the wire.
            pub fn to_json(&self) -> String {
                serde_json::to_string(self).expect("frames always encode")
            }
        }
    };
}

frames! {
    /// What a client says.
    ClientFrame {
        "connect" => Connect(Connect),
        "send" => Send(Send),
        "event" => Event(AppEvent),
        "publish" => Publish(Publish),
        "signal" => Signal(Signal),
        "join" => Join(Join),
        "leave" => Leave(InRoom),
        "members" => Members(InRoom),
        "watch" => Watch(OfUsers),
        "unwatch" => Unwatch(OfUsers),
        "ack" => Ack(Ack),
        "read" => Read(Read),
        "status" => Status(SetStatus),
        "history" => History(History),
        "refresh" => Refresh(RefreshToken),
        "ping" => Ping(Empty),
        "pong" => Pong(Empty),
    }
}

frames! {
    /// What the server says.
    ServerFrame {
        "welcome" => Welcome(Welcome),
        "reply" => Reply(Reply),
        "message" => Message(Message),
        "reset" => Reset(Reset),
        "read" => Read(Read),
        "member" => Member(Member),
        "presence" => Presence(Presence),
        "signal" => Signal(Signalled),
        "moved" => Moved(Moved),
        "token_expiring" => TokenExpiring(TokenExpiring),
        "ping" => Ping(Empty),
        "pong" => Pong(Empty),
    }
}

impl ClientFrame {
    /// The id of a command; others have none.
    pub fn id(&self) -> Option<&MessageId> {
        match self {
            Self::Send(send) => Some(&send.id),
            Self::Event(event) => Some(&event.id),
            Self::Publish(publish) => Some(&publish.id),
            Self::Join(join) => Some(&join.id),
            Self::Leave(command) | Self::Members(command) => Some(&command.id),
            Self::Watch(command) | Self::Unwatch(command) => Some(&command.id),
            Self::Status(status) => Some(&status.id),
            Self::History(history) => Some(&history.id),
            Self::Refresh(refresh) => Some(&refresh.id),
            Self::Signal(_)
            | Self::Connect(_)
            | Self::Ack(_)
            | Self::Read(_)
            | Self::Ping(_)
            | Self::Pong(_) => None,
        }
    }
}

/// A frame without fields.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Empty {}

/// The first frame of a connection: who is there, and what it has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Connect {
    /// A JWT, unless the handshake had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Names what acknowledges: with it the server remembers where the device was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The epoch that `/route` or `moved` named: makes a node with an older view refresh it (core rule 27).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The last message of the inbox that the client has dealt with, as an `ack` says it; absent: what the device
    /// acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Rooms to be in from the beginning.
    #[serde(default, deserialize_with = "crate::reading::objects", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<RoomAt>>"))]
    pub rooms: Vec<RoomAt>,
}

/// A room to be in, and what the client has of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoomAt {
    /// Its name, without `room:`.
    pub room: RoomId,
    /// The last message of the room that the client has; absent: begin with what comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// Be shown as a member, and be told of the others.
    #[serde(
        default,
        deserialize_with = "crate::reading::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<bool>"))]
    pub presence: bool,
    /// What others are told of this member; of a user's several sessions that of the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
}

/// Comes into a room, or changes how a session is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Join {
    // Not flattened: serde cannot keep the text of a value through that.
    /// The client's: it is in the reply.
    pub id: MessageId,
    /// Its name, without `room:`.
    pub room: RoomId,
    /// As in the rooms of `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// As in the rooms of `connect`.
    #[serde(
        default,
        deserialize_with = "crate::reading::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<bool>"))]
    pub presence: bool,
    /// As in the rooms of `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
}

impl Join {
    /// The command that does what `at` says.
    pub fn new(id: MessageId, at: RoomAt) -> Self {
        let RoomAt { room, cursor, presence, info } = at;
        Self { id, room, cursor, presence, info }
    }

    /// The id, and what the command says.
    pub fn into_parts(self) -> (MessageId, RoomAt) {
        let Self { id, room, cursor, presence, info } = self;
        (id, RoomAt { room, cursor, presence, info })
    }
}

/// A command about a room: `leave`, `members`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InRoom {
    /// The client's: it is in the reply.
    pub id: MessageId,
    /// Its name, without `room:`.
    pub room: RoomId,
}

/// A command about the presence of users: `watch`, `unwatch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OfUsers {
    /// The client's: it is in the reply.
    pub id: MessageId,
    /// All of them, or none, if one may not be watched.
    pub users: Vec<UserId>,
}

/// What a user shows to others. Times as RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Presence {
    /// Whose presence it is.
    pub user: UserId,
    /// Who is invisible is `offline` here.
    pub status: Status,
    /// When the status began; `None`: never seen, or longer ago than is kept.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub since: Option<String>,
    /// Of who is offline: when last visible.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub last_seen: Option<String>,
    /// In the answer to `watch`: nobody is there at the moment who would notice a change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// A message to everyone in a room, now and later.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Publish {
    /// The client's: a repeat under it within 15 minutes changes nothing, and gets the same answer.
    pub id: MessageId,
    /// Its name, without `room:`.
    pub room: RoomId,
    /// Any JSON; others get it as it was written.
    pub data: Box<RawValue>,
}

/// A latest-wins message to a room or to a user: exactly one of the two.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["room"]}, {"required": ["to"]}])))]
pub struct Signal {
    /// Everyone who is in it; the sender has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomId>,
    /// Every connection of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<UserId>,
    /// Of those of one sender and kind only the latest counts.
    #[cfg_attr(feature = "schema", schemars(length(max = crate::limits::KIND_BYTES_MAX)))]
    pub kind: String,
    /// Any JSON; others get it as it was written.
    pub data: Box<RawValue>,
}

/// A signal as others get it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Signalled {
    /// Absent: it is for this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomId>,
    /// Who sent it.
    pub from: UserId,
    /// As the sender called it.
    pub kind: String,
    /// As the sender wrote it.
    pub data: Box<RawValue>,
}

/// Somebody came into a room, or left it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Member {
    /// Where it happened.
    pub room: RoomId,
    /// Who came or went, with whichever connection.
    pub user: UserId,
    /// A `join` of somebody who is there is another `info`.
    pub change: Change,
    /// Of who came: what the member says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
}

/// What a member did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Came, or says something else of itself.
    Join,
    /// Is there with no connection any more, or hides.
    Leave,
}

/// A user who is in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoOf {
    /// Each once, however many connections it has.
    pub user: UserId,
    /// What the member says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Json>,
}

impl InfoOf {
    /// Bytes of its encoding, about.
    pub fn size(&self) -> usize {
        24 + self.user.as_str().len() + self.info.as_ref().map_or(0, |info| info.get().len())
    }
}

/// A message to a user's inbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Send {
    /// The client's: a repeat under it within 15 minutes changes nothing, and gets the same answer.
    pub id: MessageId,
    /// Whose inbox; oneself is allowed.
    pub to: UserId,
    /// Any JSON; the receiver gets it as it was written.
    pub data: Box<RawValue>,
    /// Be told when it is delivered and when it is read.
    #[serde(
        default,
        deserialize_with = "crate::reading::or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    #[cfg_attr(feature = "schema", schemars(with = "Option<bool>"))]
    pub receipt: bool,
}

/// Something for the application's processors; what they answer is a message of the kind `result`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AppEvent {
    /// The client's: the result names it.
    pub id: MessageId,
    /// Any JSON; processors get it as it was written.
    pub data: Box<RawValue>,
}

/// Everything of the inbox up to here has arrived on this device. It has no reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ack {
    /// Of a message that was shown; a smaller one than before changes nothing.
    pub cursor: Cursor,
}

/// Up to where the user has read the inbox: said by one device, told to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Read {
    /// A smaller one than before changes nothing.
    pub cursor: Cursor,
}

/// What a user may choose to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ChosenStatus {
    /// To be seen while connected.
    #[default]
    Online,
    /// To be seen as away.
    Away,
    /// To be seen as offline, and to see the others.
    Invisible,
}

impl ChosenStatus {
    /// What others see of a user who is connected and chose this.
    pub fn visible(self) -> Status {
        match self {
            Self::Online => Status::Online,
            Self::Away => Status::Away,
            Self::Invisible => Status::Offline,
        }
    }
}

/// Chooses what others see.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetStatus {
    /// The client's: it is in the reply.
    pub id: MessageId,
    /// For all sessions of the user, until another is chosen.
    pub status: ChosenStatus,
}

/// A fresh token of the same user.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RefreshToken {
    /// The client's: it is in the reply.
    pub id: MessageId,
    /// A JWT; what it allows replaces what the last one did.
    pub token: String,
}

impl std::fmt::Debug for RefreshToken {
    /// Without the token, which would let anyone in who reads the log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresh").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The session ends in this time unless its token is refreshed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenExpiring {
    /// Time left, in milliseconds.
    pub in_ms: u64,
}

/// The session has begun; what was missed follows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// Names this connection.
    pub session: SessionId,
    /// As the token says.
    pub user: UserId,
    /// Where the session is.
    pub node: NodeId,
    /// The user's.
    pub vnode: VnodeId,
    /// Of the home.
    pub epoch: Epoch,
    /// How long the server waits for a frame of the client before it says `ping`, in milliseconds.
    pub ping_interval_ms: u64,
    /// The end of the inbox at this moment; without `recovered` the session goes on after it.
    pub cursor: Cursor,
    /// Nothing was missed: what the client lacks follows.
    pub recovered: bool,
    /// How many messages follow up to `cursor`.
    pub replayed: u64,
    /// Up to where the user has read, if any device ever said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Cursor>,
    /// With `recovered:false`: the history must be read through this point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Those of `connect` and those that everyone joins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<RoomWelcome>,
}

/// How a room of `connect` was joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["cursor", "recovered", "replayed"]}, {"required": ["error"]}])))]
pub struct RoomWelcome {
    /// Its name, without `room:`.
    pub room: RoomId,
    // Not flattened: serde cannot keep the text of a value (`info`) through that.
    /// As in the reply to `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// As in the reply to `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// As in the reply to `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u64>,
    /// As in the reply to `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// As in the reply to `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<InfoOf>>,
    /// As in the reply to `join`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_count: Option<usize>,
    /// It was not joined: `join` it again if this is retryable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

impl RoomWelcome {
    /// It was joined.
    pub fn joined(room: RoomId, joined: Joined) -> Self {
        let Joined { cursor, recovered, replayed, through, members, member_count } = joined;
        Self {
            room,
            cursor: Some(cursor),
            recovered: Some(recovered),
            replayed: Some(replayed),
            through,
            members,
            member_count,
            error: None,
        }
    }

    /// It was not.
    pub fn refused(room: RoomId, error: ErrorBody) -> Self {
        Self {
            room,
            cursor: None,
            recovered: None,
            replayed: None,
            through: None,
            members: None,
            member_count: None,
            error: Some(error),
        }
    }
}

/// Where a session is in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Joined {
    /// The end of the room at this moment; without `recovered` the session goes on after it.
    pub cursor: Cursor,
    /// Nothing was missed: what the client lacks follows.
    pub recovered: bool,
    /// How many messages follow up to `cursor`.
    pub replayed: u64,
    /// With `recovered:false`: the history must be read through this point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// With presence: who is there, unless there are too many to be listed; then how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<InfoOf>>,
    /// Only if they are not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_count: Option<usize>,
}

/// The answer to a command: `ok` or `error`, never both. `id` is null when the command's id could not be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["ok"]}, {"required": ["error"]}])))]
pub struct Reply {
    /// Of the command, as it was written.
    pub id: Option<String>,
    /// Which of these it is depends on the command.
    // See `answers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::answers::AnyAnswer"))]
    pub ok: Option<Json>,
    /// The command was not done, or may not have been: the code says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

impl Reply {
    /// What a command is answered that was done, with the answer that is its own.
    pub fn ok(id: impl Into<String>, ok: &impl Serialize) -> Self {
        Self { id: Some(id.into()), ok: Some(Json::of(ok)), error: None }
    }

    /// The answer to what was not done.
    pub fn error(id: Option<String>, error: ErrorBody) -> Self {
        Self { id, ok: None, error: Some(error) }
    }
}

/// The stream began a new life: what the client held of the old one is complete only in the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reset {
    /// The own inbox, or a room that the session is in.
    pub stream: StreamId,
    /// The session goes on after this.
    pub cursor: Cursor,
    /// The history must be read through this point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
}

/// Home is elsewhere: open the new connection, resume there, then close this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Moved {
    /// Where home is now.
    pub node: NodeId,
    /// What to dial.
    pub url: String,
    /// Of the new home, to be shown in `connect`.
    pub epoch: Epoch,
    /// Time to wait before dialling, in milliseconds, at least: it spreads those who move together.
    pub after_ms: u64,
}

/// The tag and the id of a frame, after the checks that hold for every frame.
fn head(text: &str) -> Result<(String, Option<String>), FrameError> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "type")]
        tag: Option<serde_json::Value>,
        id: Option<serde_json::Value>,
    }
    let none = |error| FrameError { id: None, error };
    let scan = scan(text.as_bytes());
    scan.depth().map_err(none)?;
    // Half of a pair would end the reading of the head, and the id with it.
    let head: Result<Head, String> = read(text);
    let id = head.as_ref().ok().and_then(|head| head.id.as_ref()?.as_str()).map(clip);
    scan.characters().map_err(|error| FrameError { id: id.clone(), error })?;
    let head = head.map_err(|fault| none(bad_request(fault)))?;
    match head.tag {
        Some(serde_json::Value::String(tag)) => Ok((tag, id)),
        Some(_) => Err(FrameError { id, error: bad_request("'type' is not a text") }),
        None => Err(FrameError { id, error: bad_request("'type' is missing") }),
    }
}

fn clip(s: &str) -> String {
    s.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn a_send_keeps_its_payload_to_the_byte() {
        let text = r#"{"type":"send","id":"m-1","to":"bob","data":{"x": [1, 2.50]}}"#;
        let ClientFrame::Send(send) = ClientFrame::parse(text).unwrap() else { panic!("not a send") };
        assert_eq!(send.data.get(), r#"{"x": [1, 2.50]}"#);
        assert!(ClientFrame::Send(send).to_json().contains(r#"{"x": [1, 2.50]}"#));
    }

    #[test]
    fn a_bad_frame_names_its_id_and_its_fault() {
        for (text, id, message) in [
            ("nonsense", None, "expected ident"),
            (r#"{"id":"a"}"#, Some("a"), "'type' is missing"),
            (r#"{"type":"dance","id":"a"}"#, Some("a"), "unknown type 'dance'"),
            (r#"{"type":"send","id":"a","data":1}"#, Some("a"), "missing field `to`"),
            (r#"{"type":"send","id":"a b","to":"bob","data":1}"#, Some("a b"), "message id contains"),
            (r##"{"type":"send","id":"a","to":"#bob","data":1}"##, Some("a"), "must not start with '#'"),
            (r#"{"type":"send","id":"a","to":"bob","data":"\u0000"}"#, Some("a"), "U+0000"),
            (r#"{"type":"send","id":"a","to":"bob","data":"cut \ud83d"}"#, Some("a"), "not Unicode"),
            (r#"{"type":"send","id":"a","to":"b\ud83d","data":1}"#, Some("a"), "not Unicode"),
            (r#"{"type":"signal","to":"bob","kind":"\ude00","data":1}"#, None, "not Unicode"),
            (r#"{"type":"join","id":"a","room":"r","info":{"\ud83d":1}}"#, Some("a"), "not Unicode"),
            (r#"["send","a","bob",1]"#, None, "a JSON object is expected"),
            (r#"{"type":"ack","cursor":[1,2]}"#, None, "cursor: invalid type: a list, expected an object"),
            (r#"{"type":"join","id":"a","room":"r","cursor":[1,2]}"#, Some("a"), "expected an object"),
            (r#"{"type":"connect","rooms":[["lobby"]]}"#, None, "rooms: a JSON object is expected"),
            (
                r#"{"type":"send","id":"a","to":"bob","data":1,"receipt":1}"#,
                Some("a"),
                "receipt: invalid type",
            ),
            (
                r#"{"type":"history","id":"a","stream":"user:b","limit":"x"}"#,
                Some("a"),
                "limit: invalid type",
            ),
            (r#"{"type":7}"#, None, "'type' is not a text"),
        ] {
            let e = ClientFrame::parse(text).unwrap_err();
            assert_eq!(e.id.as_deref(), id, "{text}");
            assert!(e.error.message.contains(message), "{text}: {}", e.error.message);
            assert_eq!(e.error.code, ErrorCode::BadRequest);
        }
    }

    #[test]
    fn nesting_is_bounded_and_escapes_are_read_right() {
        let deep = |n: usize| {
            format!(r#"{{"type":"send","id":"a","to":"b","data":{}{}}}"#, "[".repeat(n), "]".repeat(n))
        };
        assert!(ClientFrame::parse(&deep(31)).is_ok());
        assert!(ClientFrame::parse(&deep(32)).is_err());
        assert!(ClientFrame::parse(r#"{"type":"send","id":"a","to":"b","data":"\\u0000 [[{{\""}"#).is_ok());
    }

    #[test]
    fn null_is_the_same_as_leaving_it_out() {
        for text in [
            r#"{"type":"connect","token":null,"device":null,"epoch":null,"cursor":null,"rooms":null}"#,
            r#"{"type":"connect","rooms":[{"room":"r","cursor":null,"presence":null,"info":null}]}"#,
            r#"{"type":"join","id":"a","room":"r","cursor":null,"presence":null,"info":null}"#,
            r#"{"type":"send","id":"a","to":"bob","data":null,"receipt":null}"#,
            r#"{"type":"signal","room":null,"to":"bob","kind":"k","data":null}"#,
            r#"{"type":"history","id":"a","stream":"user:bob","before":null,"limit":null}"#,
        ] {
            ClientFrame::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }
}
