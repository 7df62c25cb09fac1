//! How Kafka is reached, and every librdkafka setting this crate relies on, with the reason beside it
//! (librdkafka 2.12, CONFIGURATION.md). A setting that is not here has its default.

use std::fmt;
use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use roost_proto::limits::TRANSPORT_TIMEOUT_MS;

use crate::log::{Durability, LogError};

/// A request without an answer for this long is given up and its connection made anew. Less than half of the 30 s
/// for which a broker may be frozen, so that the connection is fresh when it comes back; much more than the slowest
/// honest answer, an append that waits for a follower.
const SOCKET_TIMEOUT_MS: u64 = 10_000;
/// What a broker waits for its followers before it answers an append; below the socket timeout, so that the answer
/// arrives rather than the connection ending.
const ACK_TIMEOUT_MS: u64 = 5_000;
const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// An outage ends for us about this long after the broker is back (the default is 10 s). A hundred processes then
/// make some hundred attempts a second, which a broker does not notice.
const RECONNECT_BACKOFF_MAX_MS: u64 = 500;
const RECONNECT_BACKOFF_MS: u64 = 50;
/// A topic that is unknown for this long after its first use is taken as missing, and its records are reported as
/// lost. `ensure_topic` returns only once a topic can be used, so this is a mistake of ours (the default is 30 s).
const TOPIC_UNKNOWN_MS: u64 = 5_000;

/// Records a producer holds until they are reported. At 50,000 messages a second, which is more than a node has,
/// this is one second.
const QUEUE_RECORDS: usize = 50_000;
/// And their bytes. A record is a frame of at most 64 KiB: the bound is a thousand of the largest, or the 50,000 at
/// 1.3 KB, some four times a chat message. The default is 1 GiB.
const QUEUE_KBYTES: usize = 64 * 1024;

/// What a reader fetches ahead of its `next`. A whole second at 16 MB/s; the default is 64 MiB.
const READ_AHEAD_KBYTES: usize = 16 * 1024;
/// The largest answer to one fetch, on top of the read-ahead.
const FETCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long the broker holds an idle fetch. It answers at once when there is a record, so this costs no latency as
/// such; but there is one fetch per broker at a time, and a partition that comes back to it (after a change of
/// leader, or because the read-ahead had been full) waits for the one under way to return.
const FETCH_WAIT_MS: u64 = 100;
/// How long a partition is left out of fetches when the read-ahead is full (the default is 1 s).
const FETCH_FULL_BACKOFF_MS: u64 = 10;
/// How long after an error, such as a change of leader (the default is 500 ms).
const FETCH_ERROR_BACKOFF_MS: u64 = 100;

/// Where Kafka is and how to talk to it.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// `plaintext`, or with the cargo feature `tls` also `ssl`, `sasl_plaintext`, `sasl_ssl`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    /// Needed with a `sasl_mechanism`.
    pub sasl_username: Option<String>,
    /// Needed with a `sasl_mechanism`.
    pub sasl_password: Option<String>,
    /// PEM file of the authorities that may have signed the brokers' certificates; the system's if absent.
    pub ssl_ca_file: Option<String>,
    /// Copies of each new topic; -1 takes the broker's default.
    pub replication: i32,
    /// How this process is named in the brokers' logs and quotas.
    pub client_id: String,
    /// Under this group offsets are committed, and librdkafka wants one to assign partitions by hand. Nothing ever joins
    /// it; a cluster with ACLs must allow `Read` on it.
    pub group: String,
    /// How long a transport record is tried; at most [`TRANSPORT_TIMEOUT_MS`] (core rule 6).
    pub transport_timeout_ms: u64,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            security_protocol: "plaintext".to_owned(),
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            ssl_ca_file: None,
            replication: -1,
            client_id: "roost".to_owned(),
            group: "roost-readers".to_owned(),
            transport_timeout_ms: TRANSPORT_TIMEOUT_MS,
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The user name and the password stay out of logs.
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("security_protocol", &self.security_protocol)
            .field("sasl_mechanism", &self.sasl_mechanism)
            .field("ssl_ca_file", &self.ssl_ca_file)
            .field("replication", &self.replication)
            .field("client_id", &self.client_id)
            .field("group", &self.group)
            .field("transport_timeout_ms", &self.transport_timeout_ms)
            .finish_non_exhaustive()
    }
}

impl KafkaConfig {
    /// With these brokers and this login (mechanism, user name, password), and the defaults for the rest.
    pub fn at(
        brokers: String,
        security_protocol: &str,
        sasl: Option<[&str; 3]>,
        ssl_ca_file: Option<&Path>,
    ) -> Self {
        let [mechanism, username, password] = match sasl {
            Some(login) => login.map(|text| Some(text.to_owned())),
            None => [None, None, None],
        };
        Self {
            brokers,
            security_protocol: security_protocol.to_lowercase(),
            sasl_mechanism: mechanism,
            sasl_username: username,
            sasl_password: password,
            ssl_ca_file: ssl_ca_file.map(|path| path.display().to_string()),
            ..Self::default()
        }
    }

    /// Says what is wrong with it, as far as that can be seen without a broker.
    ///
    /// # Errors
    /// [`LogError::Refused`] names the setting.
    pub fn check(&self) -> Result<(), LogError> {
        let refuse = |why: String| Err(LogError::Refused(why));
        let protocol = self.security_protocol.to_lowercase();
        if !["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"].contains(&protocol.as_str()) {
            return refuse(format!(
                "Kafka security protocol {protocol:?}; it is plaintext, ssl, sasl_plaintext or sasl_ssl"
            ));
        }
        if protocol != "plaintext" && !cfg!(feature = "tls") {
            return refuse(format!(
                "Kafka security protocol {protocol} needs a build of roost-backend with the cargo feature \"tls\""
            ));
        }
        let has_sasl =
            [&self.sasl_mechanism, &self.sasl_username, &self.sasl_password].iter().any(|s| s.is_some());
        if has_sasl && !protocol.starts_with("sasl") {
            return refuse(format!(
                "Kafka SASL settings without effect: the security protocol is {protocol}"
            ));
        }
        if protocol.starts_with("sasl") && self.sasl_mechanism.is_none() {
            return refuse(format!("Kafka security protocol {protocol} needs a SASL mechanism"));
        }
        if self.ssl_ca_file.is_some() && !protocol.ends_with("ssl") {
            return refuse(format!("a Kafka CA file without effect: the security protocol is {protocol}"));
        }
        if !(1..=TRANSPORT_TIMEOUT_MS).contains(&self.transport_timeout_ms) {
            return refuse(format!(
                "a Kafka transport timeout of {} ms; at most 60000 (core rule 6)",
                self.transport_timeout_ms
            ));
        }
        Ok(())
    }

    fn common(&self) -> ClientConfig {
        let mut c = ClientConfig::new();
        c.set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("security.protocol", self.security_protocol.to_lowercase())
            .set("allow.auto.create.topics", "false")
            .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string())
            .set("socket.connection.setup.timeout.ms", CONNECT_TIMEOUT_MS.to_string())
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", RECONNECT_BACKOFF_MS.to_string())
            .set("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MAX_MS.to_string())
            .set("topic.metadata.propagation.max.ms", TOPIC_UNKNOWN_MS.to_string())
            // Brokers may ask clients for their metrics (KIP-714); ours go elsewhere.
            .set("enable.metrics.push", "false")
            .set_log_level(RDKafkaLogLevel::Notice);
        let optional = [
            ("sasl.mechanism", &self.sasl_mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", &self.sasl_password),
            ("ssl.ca.location", &self.ssl_ca_file),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                c.set(key, value);
            }
        }
        c
    }

    /// For a producer of this durability: idempotent, so that its own retries neither double nor reorder (promise 1).
    pub(super) fn producer(&self, durability: Durability) -> ClientConfig {
        let message_timeout_ms = match durability {
            Durability::Transport => self.transport_timeout_ms,
            // Which librdkafka takes as never.
            Durability::Outbox => 0,
        };
        let mut c = self.common();
        c.set("enable.idempotence", "true")
            .set("acks", "all")
            // A lone record waits for nobody; under load batches form while five requests are under way.
            .set("linger.ms", "0")
            .set("message.timeout.ms", message_timeout_ms.to_string())
            .set("request.timeout.ms", ACK_TIMEOUT_MS.to_string())
            .set("queue.buffering.max.messages", QUEUE_RECORDS.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_string());
        c
    }

    /// For a reader, whose partitions and offsets are assigned by hand.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut c = self.control();
        c.set("enable.auto.offset.store", "false")
            // Only met when retention removed records before they were read: go on with the first one left.
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
            .set("fetch.queue.backoff.ms", FETCH_FULL_BACKOFF_MS.to_string())
            .set("fetch.error.backoff.ms", FETCH_ERROR_BACKOFF_MS.to_string())
            .set("fetch.max.bytes", FETCH_BYTES_MAX.to_string())
            .set("queued.max.messages.kbytes", READ_AHEAD_KBYTES.to_string());
        c
    }

    /// For questions about topics and offsets, and to commit.
    pub(super) fn control(&self) -> ClientConfig {
        let mut c = self.common();
        c.set("group.id", &self.group).set("enable.auto.commit", "false");
        // Nothing here is transactional; by default offsets are asked with an eye to open transactions.
        c.set("isolation.level", "read_uncommitted");
        c
    }

    /// For making topics. rdkafka's admin client never empties the queue its log lines go to, hence no logging.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut c = self.common();
        c.set_log_level(RDKafkaLogLevel::Emerg);
        c
    }
}
