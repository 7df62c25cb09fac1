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

#[cfg(test)]
mod tests {
    use super::matches;

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
