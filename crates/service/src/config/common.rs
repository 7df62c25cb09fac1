//! What the programs read alike.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::fields::{
    field, number, one_of, optional, power_of_two, redis_url, required, socket_addr, text, ws_url,
};
use super::{ConfigError, read};
use crate::http::{CONNECTIONS_MAX, HANDSHAKES_BURST, HANDSHAKES_PER_S, HttpLimits};
use crate::proxies::TrustedProxies;
use crate::secret::Secret;
use crate::telemetry::{self, FILTER_DEFAULT, LogFormat};
use crate::tokens::{KeySource, SECRET_BYTES_ADVISED, Verifier};

const BACKEND_HINT: &str = "without Kafka and Redis run `roost dev`";
const JWT_HINT: &str = "or JWT_PUBLIC_KEY_FILE; `roost dev` makes one up";
const JWKS_HINT: &str = "not supported yet: use JWT_SECRET or JWT_PUBLIC_KEY_FILE";
const SASL_HINT: &str = "KAFKA_SECURITY_PROTOCOL asks for SASL";
/// Times that people set are at most ten minutes, in milliseconds; more is a slip of a digit.
const MS_MAX: u64 = 600_000;
/// What a node that is gone had on its way is gone after half an hour at most; a day also covers clocks that differ.
const FORGET_AFTER_MIN_S: u64 = 86_400;
/// A year: longer is for ever.
const FORGET_AFTER_MAX_S: u64 = 365 * 86_400;
/// What waits that long is in the memory of nodes.
const UNDELIVERED_AFTER_MAX_MS: u64 = 3_600_000;

/// What differs between the programs that read a [`CommonConfig`].
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub listen_addr: SocketAddr,
    pub admin_addr: SocketAddr,
    /// As in `roost dev`: Kafka and Redis are not asked for, and their variables not looked at.
    pub embedded: bool,
}

/// The variables every program knows, checked.
#[derive(Debug, Clone)]
pub struct CommonConfig {
    pub listen_addr: SocketAddr,
    pub admin_addr: SocketAddr,
    /// What clients dial.
    pub public_url: Option<String>,
    pub backends: Backends,
    pub jwt: JwtConfig,
    pub tuning: Tuning,
    /// Of the public listener.
    pub http: HttpLimits,
    pub shutdown_grace: Duration,
    pub log_format: LogFormat,
    /// In the form of `RUST_LOG`, checked.
    pub log_filter: String,
}

/// Where data is kept.
#[derive(Debug, Clone)]
pub enum Backends {
    Embedded,
    Services { kafka: KafkaConfig, redis_url: Secret },
}

/// How Kafka is reached.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port`, comma separated.
    pub brokers: String,
    pub security_protocol: SecurityProtocol,
    pub sasl: Option<Sasl>,
    pub ssl_ca_file: Option<PathBuf>,
}

/// librdkafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    /// As librdkafka wants it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

/// librdkafka's `sasl.mechanisms`, those with a name and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl SaslMechanism {
    /// As librdkafka wants it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A login at Kafka.
#[derive(Debug, Clone)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: Secret,
}

/// Whose tokens are accepted.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    pub keys: KeySource,
    /// The secret, where there is one: `roost dev` signs its own tokens with it.
    pub secret: Option<Secret>,
    pub audience: Option<String>,
    pub issuer: Option<String>,
}

impl JwtConfig {
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.keys.clone(), self.audience.clone(), self.issuer.clone())
    }
}

/// The numbers that must be the same in every process of a cluster, or nearly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Vnodes of the ring: a power of two, fixed per cluster.
    pub vnodes: u32,
    pub lease_ttl_ms: u64,
    pub presence_linger_ms: u64,
    pub presence_grace_ms: u64,
    pub undelivered_after_ms: u64,
    /// How long an event of a client waits for a result before the client is told.
    pub event_timeout_ms: u64,
    /// After so long what a node left behind that is gone is removed; 0: never.
    pub forget_after_s: u64,
    /// The hot window of a stream: messages, and their age.
    pub stream_max_len: u64,
    pub stream_max_age_s: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            vnodes: 1024,
            lease_ttl_ms: 6_000,
            presence_linger_ms: 10_000,
            presence_grace_ms: 20_000,
            undelivered_after_ms: 30_000,
            event_timeout_ms: 30_000,
            forget_after_s: 7 * 86_400,
            stream_max_len: 1_000,
            stream_max_age_s: 86_400,
        }
    }
}

/// What envy fills; the names are the variables'.
#[derive(Deserialize)]
struct Raw {
    listen_addr: Option<String>,
    admin_addr: Option<String>,
    public_url: Option<String>,
    kafka_brokers: Option<String>,
    kafka_security_protocol: Option<String>,
    kafka_sasl_mechanism: Option<String>,
    kafka_sasl_username: Option<String>,
    kafka_sasl_password: Option<String>,
    kafka_ssl_ca_file: Option<String>,
    redis_url: Option<String>,
    jwt_secret: Option<String>,
    jwt_public_key: Option<String>,
    jwt_jwks_url: Option<String>,
    jwt_audience: Option<String>,
    jwt_issuer: Option<String>,
    vnodes: Option<String>,
    lease_ttl_ms: Option<String>,
    presence_linger_ms: Option<String>,
    presence_grace_ms: Option<String>,
    undelivered_after_ms: Option<String>,
    event_timeout_ms: Option<String>,
    forget_after_s: Option<String>,
    stream_max_len: Option<String>,
    stream_max_age_s: Option<String>,
    connections_max: Option<String>,
    handshakes_per_s: Option<String>,
    handshakes_burst: Option<String>,
    trusted_proxies: Option<String>,
    shutdown_grace_ms: Option<String>,
    log_format: Option<String>,
    rust_log: Option<String>,
}

impl CommonConfig {
    /// Logs what is allowed and not wise. To be called when logging has begun.
    pub fn warn(&self) {
        let length = self.jwt.secret.as_ref().map_or(usize::MAX, |s| s.expose().len());
        if length < SECRET_BYTES_ADVISED {
            tracing::warn!(
                "JWT_SECRET is {length} bytes; HS256 asks for {SECRET_BYTES_ADVISED} (RFC 7518 §3.2)"
            );
        }
    }

    /// Reads and checks them; `vars` is [`environment`](super::environment), or a table in a test.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
        defaults: Defaults,
    ) -> Result<Self, ConfigError> {
        let vars: Vec<_> = vars.into_iter().collect();
        let checked = read(vars.iter().cloned()).and_then(|raw| Self::checked(raw, defaults));
        checked.map_err(|wrong| wrong.as_written(&vars))
    }

    fn checked(mut raw: Raw, defaults: Defaults) -> Result<Self, ConfigError> {
        let log_format = one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let grace = field("SHUTDOWN_GRACE_MS", raw.shutdown_grace_ms.take(), 20_000, number(0..=MS_MAX))?;
        Ok(Self {
            listen_addr: field("LISTEN_ADDR", raw.listen_addr.take(), defaults.listen_addr, socket_addr)?,
            admin_addr: field("ADMIN_ADDR", raw.admin_addr.take(), defaults.admin_addr, socket_addr)?,
            public_url: optional("PUBLIC_URL", raw.public_url.take(), ws_url)?,
            backends: if defaults.embedded { Backends::Embedded } else { backends(&mut raw)? },
            jwt: jwt(&mut raw)?,
            tuning: tuning(&mut raw)?,
            http: http(&mut raw)?,
            shutdown_grace: Duration::from_millis(grace),
            log_format: field("LOG_FORMAT", raw.log_format.take(), LogFormat::Text, log_format)?,
            log_filter: field("RUST_LOG", raw.rust_log.take(), FILTER_DEFAULT.to_owned(), |filter| {
                telemetry::parse_filter(filter).map(|_| filter.to_owned()).map_err(|wrong| wrong.to_string())
            })?,
        })
    }
}

impl KafkaConfig {
    /// Reads and checks the `KAFKA_*` variables alone, for a program that needs no Redis.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let vars: Vec<_> = vars.into_iter().collect();
        read(vars.iter().cloned())
            .and_then(|mut raw| kafka(&mut raw))
            .map_err(|wrong| wrong.as_written(&vars))
    }
}

fn backends(raw: &mut Raw) -> Result<Backends, ConfigError> {
    let kafka = kafka(raw)?;
    let redis_url = required("REDIS_URL", raw.redis_url.take(), BACKEND_HINT, redis_url)?;
    Ok(Backends::Services { kafka, redis_url })
}

fn kafka(raw: &mut Raw) -> Result<KafkaConfig, ConfigError> {
    let brokers = required("KAFKA_BROKERS", raw.kafka_brokers.take(), BACKEND_HINT, broker_list)?;
    let protocols = [
        SecurityProtocol::Plaintext,
        SecurityProtocol::Ssl,
        SecurityProtocol::SaslPlaintext,
        SecurityProtocol::SaslSsl,
    ]
    .map(|protocol| (protocol.as_str(), protocol));
    let security_protocol = field(
        "KAFKA_SECURITY_PROTOCOL",
        raw.kafka_security_protocol.take(),
        SecurityProtocol::Plaintext,
        one_of(&protocols),
    )?;
    let asked = matches!(security_protocol, SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl);
    let sasl = if asked { Some(sasl(raw)?) } else { None };
    let ssl_ca_file = optional("KAFKA_SSL_CA_FILE", raw.kafka_ssl_ca_file.take(), readable_file)?;
    Ok(KafkaConfig { brokers, security_protocol, sasl, ssl_ca_file })
}

fn sasl(raw: &mut Raw) -> Result<Sasl, ConfigError> {
    let mechanisms = [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512]
        .map(|mechanism| (mechanism.as_str(), mechanism));
    let mechanism = raw.kafka_sasl_mechanism.take();
    Ok(Sasl {
        mechanism: required("KAFKA_SASL_MECHANISM", mechanism, SASL_HINT, one_of(&mechanisms))?,
        username: required("KAFKA_SASL_USERNAME", raw.kafka_sasl_username.take(), SASL_HINT, text)?,
        password: required("KAFKA_SASL_PASSWORD", raw.kafka_sasl_password.take(), SASL_HINT, secret)?,
    })
}

fn jwt(raw: &mut Raw) -> Result<JwtConfig, ConfigError> {
    if let Some(url) = &raw.jwt_jwks_url {
        return Err(ConfigError::invalid("JWT_JWKS_URL", url, JWKS_HINT));
    }
    let secret = optional("JWT_SECRET", raw.jwt_secret.take(), secret)?;
    let keys = match (&secret, raw.jwt_public_key.take()) {
        (Some(_), Some(pem)) => {
            let reason = "is set beside JWT_SECRET: keep one";
            return Err(ConfigError::invalid("JWT_PUBLIC_KEY", &pem, reason));
        }
        (Some(secret), None) => KeySource::from_secret(secret)
            .map_err(|wrong| ConfigError::invalid("JWT_SECRET", secret.expose(), &wrong.to_string()))?,
        (None, Some(pem)) => KeySource::from_public_pem(&pem)
            .map_err(|wrong| ConfigError::invalid("JWT_PUBLIC_KEY", &pem, &wrong.to_string()))?,
        (None, None) => return Err(ConfigError::missing("JWT_SECRET", JWT_HINT)),
    };
    let audience = optional("JWT_AUDIENCE", raw.jwt_audience.take(), text)?;
    let issuer = optional("JWT_ISSUER", raw.jwt_issuer.take(), text)?;
    Ok(JwtConfig { keys, secret, audience, issuer })
}

fn tuning(raw: &mut Raw) -> Result<Tuning, ConfigError> {
    let default = Tuning::default();
    let ms = |name: &str, raw: Option<String>, default: u64, min: u64| {
        field(name, raw, default, number(min..=MS_MAX))
    };
    Ok(Tuning {
        // The vnode's number is a u16, and a power of two above 32,768 would not fit.
        vnodes: field("VNODES", raw.vnodes.take(), default.vnodes, power_of_two(1..=32_768))?,
        lease_ttl_ms: ms("LEASE_TTL_MS", raw.lease_ttl_ms.take(), default.lease_ttl_ms, 500)?,
        presence_linger_ms: ms(
            "PRESENCE_LINGER_MS",
            raw.presence_linger_ms.take(),
            default.presence_linger_ms,
            0,
        )?,
        presence_grace_ms: ms(
            "PRESENCE_GRACE_MS",
            raw.presence_grace_ms.take(),
            default.presence_grace_ms,
            0,
        )?,
        undelivered_after_ms: field(
            "UNDELIVERED_AFTER_MS",
            raw.undelivered_after_ms.take(),
            default.undelivered_after_ms,
            number(0..=UNDELIVERED_AFTER_MAX_MS),
        )?,
        event_timeout_ms: ms("EVENT_TIMEOUT_MS", raw.event_timeout_ms.take(), default.event_timeout_ms, 100)?,
        forget_after_s: field(
            "FORGET_AFTER_S",
            raw.forget_after_s.take(),
            default.forget_after_s,
            forget_after,
        )?,
        stream_max_len: field(
            "STREAM_MAX_LEN",
            raw.stream_max_len.take(),
            default.stream_max_len,
            number(1..=1_000_000),
        )?,
        stream_max_age_s: field(
            "STREAM_MAX_AGE_S",
            raw.stream_max_age_s.take(),
            default.stream_max_age_s,
            // A stream's tail is kept for 30 days beyond its entries; older entries would outlive it.
            number(1..=2_592_000),
        )?,
    })
}

fn http(raw: &mut Raw) -> Result<HttpLimits, ConfigError> {
    Ok(HttpLimits {
        connections_max: field(
            "CONNECTIONS_MAX",
            raw.connections_max.take(),
            CONNECTIONS_MAX,
            number(1..=1_000_000),
        )?,
        handshakes_per_s: field(
            "HANDSHAKES_PER_S",
            raw.handshakes_per_s.take(),
            HANDSHAKES_PER_S,
            number(0..=1_000_000),
        )?,
        handshakes_burst: field(
            "HANDSHAKES_BURST",
            raw.handshakes_burst.take(),
            HANDSHAKES_BURST,
            number(1..=1_000_000),
        )?,
        trusted_proxies: field(
            "TRUSTED_PROXIES",
            raw.trusted_proxies.take(),
            TrustedProxies::default(),
            TrustedProxies::parse,
        )?,
        ..HttpLimits::default()
    })
}

fn forget_after(raw: &str) -> Result<u64, String> {
    match number(0..=FORGET_AFTER_MAX_S)(raw)? {
        s @ 1..FORGET_AFTER_MIN_S => {
            Err(format!("{s} is too short: 0 for never, or at least {FORGET_AFTER_MIN_S}"))
        }
        s => Ok(s),
    }
}

fn secret(raw: &str) -> Result<Secret, String> {
    Ok(Secret::new(raw))
}

fn broker_list(raw: &str) -> Result<String, String> {
    let brokers: Vec<&str> = raw.split(',').map(str::trim).collect();
    let is_broker = |broker: &&str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if brokers.iter().all(is_broker) {
        Ok(brokers.join(","))
    } else {
        Err("must be a list such as kafka-1:9092,kafka-2:9092".to_owned())
    }
}

fn readable_file(raw: &str) -> Result<PathBuf, String> {
    std::fs::File::open(raw).map(|_| PathBuf::from(raw)).map_err(|failure| failure.to_string())
}
