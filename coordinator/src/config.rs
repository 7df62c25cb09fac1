//! What a coordinator is told: by the environment for the program, by a struct for whoever embeds one.

use std::net::{Ipv4Addr, SocketAddr};

use roost_backend::store::{StoreConfig, StoreError};
use roost_service::config::{Defaults, field, flag, number, read, redis_url, required};
use roost_service::{CommonConfig, ConfigError, HttpLimits, Secret, Verifier};
use serde::Deserialize;

use crate::gate::RequestLimits;
use crate::leader::{IN_FLIGHT_MAX, LeaderConfig};
use crate::routes::Console;

const REDIS_HINT: &str = "redis://host:6379; without Redis run `roost dev`";

/// The settings of one coordinator. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Names it among all coordinators of the cluster; no two share one, and no two lives of one.
    pub token: String,
    pub vnodes: u32,
    pub lease_ttl_ms: u64,
    /// Moves between living nodes that one node takes part in at a time.
    pub in_flight_max: usize,
    /// How long a cluster in which nobody owns anything gathers nodes before the first plan.
    pub first_plan_wait_ms: u64,
    /// After so long the row of a node that is gone is removed; 0: never.
    pub forget_after_s: u64,
    /// Of the public listener.
    pub http: HttpLimits,
    pub console: Console,
    pub verifier: Verifier,
    /// How much one address and one user may ask for.
    pub requests: RequestLimits,
    /// `/presence` is for everyone, without a token too.
    pub open_presence: bool,
    /// As the ws-nodes have it: a token without the claim `watch` allows to see nobody.
    pub watch_needs_claim: bool,
}

impl CoordinatorConfig {
    /// With a random token, and the defaults for the rest.
    pub fn new(vnodes: u32, lease_ttl_ms: u64, verifier: Verifier) -> Self {
        let token = format!("{:032x}", rand::random::<u128>());
        let leader = LeaderConfig::new(token, lease_ttl_ms);
        Self {
            token: leader.token,
            vnodes,
            lease_ttl_ms,
            in_flight_max: leader.in_flight_max,
            first_plan_wait_ms: leader.first_plan_wait_ms,
            forget_after_s: leader.forget_after_s,
            http: HttpLimits::default(),
            console: Console::Off,
            verifier,
            requests: RequestLimits::default(),
            open_presence: false,
            watch_needs_claim: false,
        }
    }
}

/// The variables about requests: those of a coordinator, and of `roost dev`.
#[derive(Debug, Clone, Copy)]
pub struct RequestSettings {
    requests: RequestLimits,
    open_presence: bool,
    watch_needs_claim: bool,
}

#[derive(Deserialize)]
struct RawRequests {
    requests_per_s: Option<String>,
    requests_burst: Option<String>,
    user_requests_per_s: Option<String>,
    user_requests_burst: Option<String>,
    open_presence: Option<String>,
    watch_needs_claim: Option<String>,
}

impl RequestSettings {
    /// Reads and checks the environment, or a table in a test.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let (raw, default): (RawRequests, _) = (read(vars)?, RequestLimits::default());
        let rate = |name: &str, raw, default| field(name, raw, default, number(0..=1_000_000));
        let burst = |name: &str, raw, default| field(name, raw, default, number(1..=1_000_000));
        Ok(Self {
            requests: RequestLimits {
                per_s: rate("REQUESTS_PER_S", raw.requests_per_s, default.per_s)?,
                burst: burst("REQUESTS_BURST", raw.requests_burst, default.burst)?,
                user_per_s: rate("USER_REQUESTS_PER_S", raw.user_requests_per_s, default.user_per_s)?,
                user_burst: burst("USER_REQUESTS_BURST", raw.user_requests_burst, default.user_burst)?,
            },
            open_presence: field("OPEN_PRESENCE", raw.open_presence, false, flag)?,
            watch_needs_claim: field("WATCH_NEEDS_CLAIM", raw.watch_needs_claim, false, flag)?,
        })
    }

    /// Puts them where a coordinator takes them from.
    pub fn apply(self, config: &mut CoordinatorConfig) {
        config.requests = self.requests;
        config.open_presence = self.open_presence;
        config.watch_needs_claim = self.watch_needs_claim;
    }
}

/// What the program reads from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    pub common: CommonConfig,
    pub redis_url: Secret,
    pub coordinator: CoordinatorConfig,
}

/// The variables of a coordinator alone. Kafka is not among them: it has no business with it yet.
#[derive(Deserialize)]
struct Raw {
    redis_url: Option<String>,
    moves_in_flight_max: Option<String>,
    console: Option<String>,
}

impl Settings {
    /// Reads and checks the environment, or a table in a test.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: Vec<(String, String)> = vars.into_iter().collect();
        let on_this_machine = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // "Embedded" for the common part: it would ask for Kafka otherwise. Redis is read here.
        let defaults = Defaults {
            listen_addr: on_this_machine(7300),
            admin_addr: on_this_machine(7400),
            embedded: true,
        };
        let raw: Raw = read(vars.iter().cloned())?;
        let redis_url = required("REDIS_URL", raw.redis_url, REDIS_HINT, redis_url)
            .map_err(|wrong| wrong.as_written(&vars))?;
        let in_flight_max =
            field("MOVES_IN_FLIGHT_MAX", raw.moves_in_flight_max, IN_FLIGHT_MAX, number(1..=1_000))?;
        let console = field("CONSOLE", raw.console, false, flag)?;
        let requests = RequestSettings::from_vars(vars.iter().cloned())?;
        let common = CommonConfig::from_vars(vars, defaults)?;
        let (tuning, verifier) = (&common.tuning, common.jwt.verifier());
        let mut coordinator = CoordinatorConfig {
            in_flight_max,
            forget_after_s: common.tuning.forget_after_s,
            http: common.http.clone(),
            console: if console { Console::On } else { Console::Off },
            ..CoordinatorConfig::new(tuning.vnodes, tuning.lease_ttl_ms, verifier)
        };
        requests.apply(&mut coordinator);
        Ok(Self { common, redis_url, coordinator })
    }

    /// What the store has to know.
    pub fn store(&self) -> StoreConfig {
        let tuning = &self.common.tuning;
        StoreConfig {
            lease_ttl_ms: tuning.lease_ttl_ms,
            stream_max_len: usize::try_from(tuning.stream_max_len).unwrap_or(usize::MAX),
            stream_max_age_ms: tuning.stream_max_age_s.saturating_mul(1_000),
        }
    }

    /// The variable to blame, if the store says that it cannot be used as configured: repeating does not help then.
    pub fn blame(&self, error: &StoreError) -> Option<ConfigError> {
        match error {
            StoreError::Vnodes { found, wanted } => {
                let reason = format!("this cluster's ring has {found} vnodes, and the number never changes");
                Some(ConfigError::invalid("VNODES", &wanted.to_string(), &reason))
            }
            StoreError::Config(reason) => Some(ConfigError::invalid(
                "REDIS_URL",
                self.redis_url.expose(),
                &format!("cannot be used: {reason}"),
            )),
            StoreError::Unreachable(_)
            | StoreError::Timeout(_)
            | StoreError::Garbled(_)
            | StoreError::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let given = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let secret = ("JWT_SECRET".to_owned(), "a secret of thirty-two characters".to_owned());
        Settings::from_vars(given.chain([secret]))
    }

    #[test]
    fn redis_is_needed_and_kafka_is_not() {
        assert_eq!(settings(&[]).unwrap_err().variable(), "REDIS_URL");
        let settings = settings(&[("REDIS_URL", "redis://:hunter2@localhost"), ("VNODES", "64")]).unwrap();
        assert_eq!(settings.common.listen_addr.to_string(), "127.0.0.1:7300");
        assert_eq!(settings.common.admin_addr.to_string(), "127.0.0.1:7400");
        assert_eq!((settings.coordinator.vnodes, settings.coordinator.first_plan_wait_ms), (64, 2_000));
        assert!(!format!("{settings:?}").contains("hunter2"));
        let wrong = StoreError::Vnodes { found: 128, wanted: 64 };
        assert_eq!(settings.blame(&wrong).unwrap().variable(), "VNODES");
        assert!(settings.blame(&StoreError::Unreachable("gone".into())).is_none());
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (name, value) in [
            ("REDIS_URL", "localhost:6379"),
            ("REDIS_URL", "redis://"),
            ("MOVES_IN_FLIGHT_MAX", "0"),
            ("CONSOLE", "dev"),
            ("REQUESTS_PER_S", "many"),
            ("REQUESTS_BURST", "0"),
            ("USER_REQUESTS_PER_S", "-1"),
            ("USER_REQUESTS_BURST", "0"),
            ("OPEN_PRESENCE", "yes"),
            ("WATCH_NEEDS_CLAIM", "1"),
            ("TRUSTED_PROXIES", "0.0.0.0/0"),
            ("VNODES", "1000"),
            ("LISTEN_ADDR", "here"),
        ] {
            let mut vars = vec![(name, value)];
            if name != "REDIS_URL" {
                vars.push(("REDIS_URL", "redis://localhost"));
            }
            assert_eq!(settings(&vars).unwrap_err().variable(), name);
        }
    }

    #[test]
    fn no_two_coordinators_share_a_token() {
        let one = settings(&[("REDIS_URL", "redis://localhost")]).unwrap();
        let other = CoordinatorConfig::new(64, 6_000, one.common.jwt.verifier());
        assert_ne!(one.coordinator.token, other.token);
    }
}
