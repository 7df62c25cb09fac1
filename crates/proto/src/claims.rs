//! What a token says (RFC 7519); how it is checked is the business of `roost-service`.

use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// What the bearer may do beyond being a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Somebody who writes and reads: what a token without the claim means.
    #[default]
    User,
    /// A back end of the application: may use the server API.
    Service,
}

/// Whether one of the patterns allows `id`: `*` stands for any number of characters, everything else for itself.
pub fn matches_any(patterns: &[String], id: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, id))
}

fn matches(pattern: &str, id: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = id.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether the claim `watch` allows to see `user`. Without it everyone may be seen, or with `needs_claim` nobody.
pub fn may_watch(watch: Option<&[String]>, user: &UserId, needs_claim: bool) -> bool {
    watch.map_or(!needs_claim, |patterns| matches_any(patterns, user.as_str()))
}

/// The claims of a Roost token. `sub` and `exp` are required; the others only narrow or widen what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who the bearer is: all sessions under this name share one inbox.
    pub sub: UserId,
    /// Seconds since 1970.
    pub exp: u64,
    /// Absent or null means a user.
    #[serde(default, deserialize_with = "crate::reading::or_default")]
    pub role: Role,
    /// Patterns (`team-*`) of rooms the user may join, read and publish to; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// Patterns of users whose presence may be watched; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Vec<String>>,
}

impl Claims {
    /// Whether the presence of `user` may be asked for: a service's always, the own, and what `watch` allows.
    pub fn may_see(&self, user: &UserId, needs_claim: bool) -> bool {
        self.role == Role::Service || self.sub == *user || may_watch(self.watch.as_deref(), user, needs_claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_for_services_for_oneself_and_for_whom_watch_allows() {
        let user = |name: &str| UserId::new(name).unwrap();
        let claims = |role, watch: Option<&[&str]>| Claims {
            sub: user("alice"),
            exp: 0,
            role,
            rooms: None,
            watch: watch.map(|patterns| patterns.iter().map(ToString::to_string).collect()),
        };
        for (claims, whom, needs_claim, allowed) in [
            (claims(Role::User, None), "bob", false, true),
            (claims(Role::User, None), "bob", true, false),
            (claims(Role::User, None), "alice", true, true),
            (claims(Role::User, Some(&["b*"])), "bob", true, true),
            (claims(Role::User, Some(&["b*"])), "carol", false, false),
            (claims(Role::User, Some(&[])), "alice", false, true),
            (claims(Role::Service, Some(&[])), "bob", true, true),
        ] {
            assert_eq!(claims.may_see(&user(whom), needs_claim), allowed, "{claims:?} {whom} {needs_claim}");
        }
    }

    #[test]
    fn a_pattern_allows_what_it_says() {
        for (pattern, id, allowed) in [
            ("lobby", "lobby", true),
            ("lobby", "lobby2", false),
            ("team-*", "team-", true),
            ("team-*", "team-7", true),
            ("team-*", "a-team-7", false),
            ("*", "anything", true),
            ("*-ops", "eu-ops", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, id), allowed, "{pattern} {id}");
        }
    }
}
