//! What the environment says of sessions: how many, whose, from which pages.

use roost_proto::limits::{SESSIONS_PER_USER_MAX, TOKEN_EXPIRING_MS, WATCHED_PER_SESSION_MAX};
use roost_service::ConfigError;
use roost_service::config::{field, flag, number, one_of, optional, read};
use serde::Deserialize;

use super::node::{Access, WsNodeConfig};
use crate::core::SessionPolicy;
use crate::origin::Origins;

/// The variables about sessions: those of a ws-node, and of `roost dev`.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    per_user_max: usize,
    policy: SessionPolicy,
    watched_max: usize,
    watch_needs_claim: bool,
    access: Access,
}

#[derive(Deserialize)]
struct Raw {
    sessions_per_user_max: Option<String>,
    session_policy: Option<String>,
    watched_per_session_max: Option<String>,
    watch_needs_claim: Option<String>,
    allowed_origins: Option<String>,
    token_expiring_ms: Option<String>,
}

const POLICIES: [(&str, SessionPolicy); 3] = [
    ("reject", SessionPolicy::Reject),
    ("drop-oldest", SessionPolicy::DropOldest),
    ("one-per-device", SessionPolicy::OnePerDevice),
];

impl SessionSettings {
    /// Reads and checks the environment, or a table in a test.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let raw: Raw = read(vars)?;
        let per_user_max = number(1..=10_000);
        Ok(Self {
            per_user_max: field(
                "SESSIONS_PER_USER_MAX",
                raw.sessions_per_user_max,
                SESSIONS_PER_USER_MAX,
                per_user_max,
            )?,
            policy: field("SESSION_POLICY", raw.session_policy, SessionPolicy::Reject, one_of(&POLICIES))?,
            watched_max: field(
                "WATCHED_PER_SESSION_MAX",
                raw.watched_per_session_max,
                WATCHED_PER_SESSION_MAX,
                number(1..=100_000),
            )?,
            watch_needs_claim: field("WATCH_NEEDS_CLAIM", raw.watch_needs_claim, false, flag)?,
            access: Access {
                origins: optional("ALLOWED_ORIGINS", raw.allowed_origins, Origins::parse)?,
                token_expiring_ms: field(
                    "TOKEN_EXPIRING_MS",
                    raw.token_expiring_ms,
                    TOKEN_EXPIRING_MS,
                    number(1_000..=3_600_000),
                )?,
            },
        })
    }

    /// Puts them where a node takes them from.
    pub fn apply(self, config: &mut WsNodeConfig) {
        config.core.sessions_per_user_max = self.per_user_max;
        config.core.session_policy = self.policy;
        config.core.watched_per_session_max = self.watched_max;
        config.core.watch_needs_claim = self.watch_needs_claim;
        config.access = self.access;
    }
}
