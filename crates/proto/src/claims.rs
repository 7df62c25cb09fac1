//! What a token says (RFC 7519); how it is checked is the business of `roost-service`.

use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// What the bearer may do beyond being a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    User,
    /// A back end of the application: may use the server API.
    Service,
}

/// The claims of a Roost token. `sub` and `exp` are required; the others only narrow or widen what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: UserId,
    /// Seconds since 1970.
    pub exp: u64,
    #[serde(default)]
    pub role: Role,
    /// Patterns (`team-*`) of rooms the user may join, read and publish to; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// Patterns of users whose presence may be watched; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Vec<String>>,
}
