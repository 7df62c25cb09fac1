//! What an archiver is told: by the environment for the program, by a struct for whoever embeds one.

use std::net::{Ipv4Addr, SocketAddr};

use roost_backend::archive::ArchiveError;
use roost_backend::kafka::KafkaConfig;
use roost_backend::log::LogError;
use roost_proto::RoomId;
use roost_proto::events::PARTITIONS;
use roost_service::config::{self, Defaults, database_url, field, flag, number, read, required, rooms};
use roost_service::tokens::Verifier;
use roost_service::{CommonConfig, ConfigError, HttpLimits, Secret};
use serde::Deserialize;

use crate::error::BindError;

const DATABASE_HINT: &str = "postgres://user:password@host:5432/database; without PostgreSQL run `roost dev`";
/// The longest pause while the database is away, in milliseconds: it finds a hundred archivers gently.
const BACKOFF_MAX_MS: u64 = 60_000;

/// The settings of one archiver.
#[derive(Debug, Clone)]
pub struct ArchiverConfig {
    /// Names it among all archivers; no two share one, and no two lives of one.
    pub id: String,
    /// Of each topic.
    pub partitions: u32,
    /// What is older is removed; 0 keeps everything.
    pub retention_days: u64,
    pub backoff_max_ms: u64,
    /// As the ws-nodes have it: a token that names no rooms allows all of them.
    pub open_rooms: bool,
    /// As the ws-nodes have it: rooms that everyone is in.
    pub auto_join: Vec<RoomId>,
    pub verifier: Verifier,
    /// Of the public listener.
    pub http: HttpLimits,
}

impl ArchiverConfig {
    /// With a random id, and the defaults for the rest.
    pub fn new(verifier: Verifier) -> Self {
        Self {
            id: format!("{:032x}", rand::random::<u128>()),
            partitions: PARTITIONS,
            retention_days: 0,
            backoff_max_ms: BACKOFF_MAX_MS,
            open_rooms: false,
            auto_join: Vec::new(),
            verifier,
            http: HttpLimits::default(),
        }
    }
}

/// What the program reads from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    pub common: CommonConfig,
    pub database_url: Secret,
    pub kafka: KafkaConfig,
    pub archiver: ArchiverConfig,
}

/// The variables of an archiver alone.
#[derive(Deserialize)]
struct Raw {
    database_url: Option<String>,
    archive_retention_days: Option<String>,
    kafka_partitions: Option<String>,
    kafka_replication: Option<String>,
    open_rooms: Option<String>,
    auto_join_rooms: Option<String>,
}

impl Settings {
    /// Reads and checks the environment, or a table in a test.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: Vec<(String, String)> = vars.into_iter().collect();
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // "Embedded" for the common part: it would ask for Redis otherwise. Kafka is read here.
        let defaults = Defaults { listen_addr: local(7310), admin_addr: local(7410), embedded: true };
        let raw: Raw = read(vars.iter().cloned())?;
        let database_url = required("DATABASE_URL", raw.database_url, DATABASE_HINT, database_url)
            .map_err(|wrong| wrong.as_written(&vars))?;
        let kafka = config::KafkaConfig::from_vars(vars.iter().cloned())?;
        let common = CommonConfig::from_vars(vars, defaults)?;
        let mut archiver = ArchiverConfig::new(common.jwt.verifier());
        archiver.retention_days =
            field("ARCHIVE_RETENTION_DAYS", raw.archive_retention_days, 0, number(0..=36_500))?;
        archiver.partitions =
            field("KAFKA_PARTITIONS", raw.kafka_partitions, archiver.partitions, number(1..=1024))?;
        archiver.open_rooms = field("OPEN_ROOMS", raw.open_rooms, false, flag)?;
        archiver.auto_join = field("AUTO_JOIN_ROOMS", raw.auto_join_rooms, Vec::new(), rooms)?;
        archiver.http = common.http.clone();
        let sasl = kafka.sasl.as_ref();
        let sasl = sasl.map(|s| [s.mechanism.as_str(), s.username.as_str(), s.password.expose()]);
        let kafka = KafkaConfig {
            replication: field("KAFKA_REPLICATION", raw.kafka_replication, -1, number(-1..=15))?,
            client_id: "roost-archiver".into(),
            ..KafkaConfig::at(
                kafka.brokers,
                kafka.security_protocol.as_str(),
                sasl,
                kafka.ssl_ca_file.as_deref(),
            )
        };
        // Refused here, where the variable can still be named.
        kafka.check().map_err(|e| {
            ConfigError::invalid("KAFKA_SECURITY_PROTOCOL", &kafka.security_protocol, &e.to_string())
        })?;
        Ok(Self { common, database_url, kafka, archiver })
    }

    /// The variable to blame for what the database said, if one is: repeating does not help then.
    pub fn blame_database(&self, error: &ArchiveError) -> Option<ConfigError> {
        let ArchiveError::Config(reason) = error else { return None };
        Some(ConfigError::invalid(
            "DATABASE_URL",
            self.database_url.expose(),
            &format!("cannot be used: {reason}"),
        ))
    }

    /// The variable to blame for what the log said, if one is.
    pub fn blame(&self, error: &BindError) -> Option<ConfigError> {
        let BindError::Log { topic, source: LogError::Partitions { found, wanted, .. } } = error else {
            return None;
        };
        let reason = format!("the topic {topic} has {found} partitions, and the number never changes");
        Some(ConfigError::invalid("KAFKA_PARTITIONS", &wanted.to_string(), &reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 3] = [
        ("DATABASE_URL", "postgres://roost:hunter2@localhost/roost"),
        ("KAFKA_BROKERS", "localhost:9092"),
        ("JWT_SECRET", "a secret of thirty-two characters"),
    ];

    fn settings(other: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let mut vars: std::collections::BTreeMap<_, _> = GOOD.into();
        vars.extend(other.iter().copied());
        Settings::from_vars(vars.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn the_database_and_kafka_are_needed_and_redis_is_not() {
        let good = settings(&[("ARCHIVE_RETENTION_DAYS", "90")]).unwrap();
        assert_eq!(good.common.listen_addr.to_string(), "127.0.0.1:7310");
        assert_eq!(good.common.admin_addr.to_string(), "127.0.0.1:7410");
        assert_eq!((good.archiver.retention_days, good.archiver.partitions), (90, 8));
        assert!(!format!("{good:?}").contains("hunter2"));
        let wrong = ArchiveError::Config("no such database hunter2".into());
        assert_eq!(good.blame_database(&wrong).unwrap().variable(), "DATABASE_URL");
        for name in ["DATABASE_URL", "KAFKA_BROKERS"] {
            assert_eq!(settings(&[(name, "")]).unwrap_err().variable(), name);
        }
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (name, value) in [
            ("DATABASE_URL", "localhost:5432"),
            ("ARCHIVE_RETENTION_DAYS", "-1"),
            ("KAFKA_PARTITIONS", "0"),
            ("OPEN_ROOMS", "perhaps"),
        ] {
            assert_eq!(settings(&[(name, value)]).unwrap_err().variable(), name);
        }
    }
}
