//! What a session's token allows beyond being its user.

use roost_proto::claims;
use roost_proto::claims::Role;
use roost_proto::ids::UserId;

/// What the session's token allows beyond being its user: patterns such as `team-*`. `None` is what the settings say
/// of a token without the claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Rooms that it may join, read and publish to.
    pub rooms: Option<Vec<String>>,
    /// Users whose presence it may watch.
    pub watch: Option<Vec<String>>,
    /// A service: the shares of users are not for it.
    pub service: bool,
}

impl Rights {
    /// What the claims of a token say.
    pub fn of(rooms: Option<Vec<String>>, watch: Option<Vec<String>>, role: Role) -> Self {
        Self { rooms, watch, service: role == Role::Service }
    }
}

impl Rights {
    pub(in crate::core) fn may_watch(&self, user: &UserId, needs_claim: bool) -> bool {
        claims::may_watch(self.watch.as_deref(), user, needs_claim)
    }
}
