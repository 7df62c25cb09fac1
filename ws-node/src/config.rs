//! What a ws-node is told by the environment.

mod node;
mod sessions;
mod shares;

use std::net::{Ipv4Addr, SocketAddr};

use roost_backend::kafka::KafkaConfig;
use roost_backend::log::LogError;
use roost_backend::store::{StoreConfig, StoreError};
use roost_proto::NodeId;
use roost_proto::events::PARTITIONS;
use roost_ring::Pins;
use roost_service::config::{
    Backends, Defaults, field, flag, http_url, number, one_of, optional, read, required, rooms,
};
use roost_service::{CommonConfig, ConfigError, Secret};
use serde::Deserialize;

pub use self::node::{Access, WsNodeConfig};
pub use self::sessions::SessionSettings;
pub use self::shares::ShareSettings;
use crate::core::ItemLane;
use crate::error::BindError;

/// How long records of `messages-*` are kept: transport, not storage.
pub const MESSAGES_RETENTION_MS: u64 = 3_600_000;

/// What the program reads from the environment.
pub struct Settings {
    pub common: CommonConfig,
    pub redis_url: Secret,
    pub kafka: KafkaConfig,
    pub node: WsNodeConfig,
}

/// The variables of a ws-node alone.
#[derive(Deserialize)]
struct Raw {
    node_id: Option<String>,
    assigned_vnodes: Option<String>,
    node_weight: Option<String>,
    accepts_per_s: Option<String>,
    admin_advertised_addr: Option<String>,
    open_rooms: Option<String>,
    auto_join_rooms: Option<String>,
    archive_url: Option<String>,
    item_lane: Option<String>,
    kafka_partitions: Option<String>,
    kafka_replication: Option<String>,
}

const LANES: [(&str, ItemLane); 2] = [("both", ItemLane::Both), ("topic", ItemLane::Topic)];

impl Settings {
    /// Reads and checks the environment, or a table in a test.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: Vec<(String, String)> = vars.into_iter().collect();
        let raw: Raw = read(vars.iter().cloned())?;
        let node = required("NODE_ID", raw.node_id, "a stable name such as ws-1", |s| {
            NodeId::new(s).map_err(|e| e.to_string())
        })?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let defaults = Defaults { listen_addr: local(7301), admin_addr: local(7401), embedded: false };
        let sessions = SessionSettings::from_vars(vars.iter().cloned())?;
        let shares = ShareSettings::from_vars(vars.iter().cloned())?;
        let common = CommonConfig::from_vars(vars, defaults)?;
        let Backends::Services { kafka, redis_url } = common.backends.clone() else {
            return Err(ConfigError::missing("KAFKA_BROKERS", "host:9092; without Kafka run `roost dev`"));
        };
        let vnodes = common.tuning.vnodes;
        let pins = field("ASSIGNED_VNODES", raw.assigned_vnodes, Pins::Auto, |s| {
            Pins::parse(s, vnodes).map_err(|e| e.to_string())
        })?;
        let mut config = WsNodeConfig::new(node, vnodes, &pins, common.jwt.verifier());
        let core = &mut config.core;
        core.weight = field("NODE_WEIGHT", raw.node_weight, 1, number(1..=1000))?;
        core.accepts_per_s =
            field("ACCEPTS_PER_S", raw.accepts_per_s, core.accepts_per_s, number(1..=100_000))?;
        core.admin = field("ADMIN_ADVERTISED_ADDR", raw.admin_advertised_addr, String::new(), host_port)?;
        core.item_lane = field("ITEM_LANE", raw.item_lane, ItemLane::Both, one_of(&LANES))?;
        core.partitions = field("KAFKA_PARTITIONS", raw.kafka_partitions, PARTITIONS, number(1..=1024))?;
        core.open_rooms = field("OPEN_ROOMS", raw.open_rooms, false, flag)?;
        core.auto_join = field("AUTO_JOIN_ROOMS", raw.auto_join_rooms, Vec::new(), rooms)?;
        core.archive_url = optional("ARCHIVE_URL", raw.archive_url, http_url)?;
        core.url.clone_from(&url(&common));
        config.take_common(&common);
        sessions.apply(&mut config);
        shares.apply(&mut config);
        let sasl = kafka.sasl.as_ref();
        let sasl = sasl.map(|s| [s.mechanism.as_str(), s.username.as_str(), s.password.expose()]);
        let kafka = KafkaConfig {
            replication: field("KAFKA_REPLICATION", raw.kafka_replication, -1, number(-1..=15))?,
            client_id: format!("roost-{}", config.core.node),
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
        Ok(Self { common, redis_url, kafka, node: config })
    }

    pub fn store(&self) -> StoreConfig {
        let tuning = &self.common.tuning;
        StoreConfig {
            lease_ttl_ms: tuning.lease_ttl_ms,
            stream_max_len: tuning.stream_max_len as usize,
            stream_max_age_ms: tuning.stream_max_age_s * 1000,
        }
    }
}

impl Settings {
    /// The variable to blame for what a back end said, if one is.
    pub fn blame(&self, error: &BindError) -> Option<ConfigError> {
        match error {
            BindError::Store(StoreError::Vnodes { found, wanted }) => {
                let reason = format!("this cluster's ring has {found} vnodes, and the number never changes");
                Some(ConfigError::invalid("VNODES", &wanted.to_string(), &reason))
            }
            BindError::Store(StoreError::Config(reason)) => {
                let reason = format!("cannot be used: {reason}");
                Some(ConfigError::invalid("REDIS_URL", self.redis_url.expose(), &reason))
            }
            BindError::Log { topic, source: LogError::Partitions { found, wanted, .. } } => {
                let reason =
                    format!("the topic {topic} has {found} partitions, and the number never changes");
                Some(ConfigError::invalid("KAFKA_PARTITIONS", &wanted.to_string(), &reason))
            }
            BindError::Store(_) | BindError::Log { .. } | BindError::Metrics(_) | BindError::Address(_) => {
                None
            }
        }
    }
}

fn host_port(text: &str) -> Result<String, String> {
    let good = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0);
    match text.rsplit_once(':').is_some_and(good) {
        true => Ok(text.to_owned()),
        false => Err("host:port, as coordinators reach it".into()),
    }
}

/// What clients dial: `PUBLIC_URL`, else the address listened on.
fn url(common: &CommonConfig) -> String {
    common.public_url.clone().unwrap_or_else(|| format!("ws://{}/socket", common.listen_addr))
}
