//! What commands are answered: the `ok` of a [`Reply`](crate::frames::Reply), one type for each answer.
//!
//! `join` is answered with [`Joined`](crate::frames::Joined); `leave`, `unwatch`, `status` and `refresh` with nothing, [`Empty`](crate::frames::Empty).

use serde::{Deserialize, Serialize};

use crate::Json;
use crate::frames::{InfoOf, Presence};
use crate::history::Before;
use crate::ids::Cursor;

/// To `send`, `event` and `publish`: it is in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accepted {
    /// When it was appended; a repeat gets the same.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub at: String,
    /// To `publish`: where the message is; not told to a repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// To `members`: who is in the room, unless there are too many to be listed; then how many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{"required": ["members"]}, {"required": ["member_count"]}])))]
pub struct Listed {
    /// Each user once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<InfoOf>>,
    /// Only if they are not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_count: Option<usize>,
}

/// To `watch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Watched {
    /// What the users show now, in the order asked.
    pub users: Vec<Presence>,
}

/// To `history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Paged {
    /// `message` frames, newest first.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<crate::schema::MessageFrame>"))]
    pub messages: Vec<Json>,
    /// There are more in the hot window, and this asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// The hot window ends here, the stream does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub older: bool,
    /// With `older`: where an archiver has what comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Any of them, as the schema of a reply has it.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "nobody makes one: a reader knows what it asked")]
pub(crate) enum AnyAnswer {
    Accepted(Accepted),
    Joined(crate::frames::Joined),
    Listed(Listed),
    Watched(Watched),
    Paged(Paged),
    Done(Done),
}

/// To all other commands: none of the above.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(extend("properties" = {
    "at": false, "cursor": false, "members": false, "member_count": false, "users": false, "messages": false
}))]
pub(crate) struct Done {}
