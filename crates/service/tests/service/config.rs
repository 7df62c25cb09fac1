use std::path::PathBuf;
use std::time::Duration;

use roost_service::config::{Backends, Defaults, SaslMechanism, SecurityProtocol, Tuning, read};
use roost_service::telemetry::LogFormat;
use roost_service::{CommonConfig, ConfigError, HttpLimits};

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-x";

fn defaults() -> Defaults {
    Defaults {
        listen_addr: "127.0.0.1:7301".parse().unwrap(),
        admin_addr: "127.0.0.1:7401".parse().unwrap(),
        embedded: false,
    }
}

const GOOD: [(&str, &str); 3] =
    [("KAFKA_BROKERS", "kafka:9092"), ("REDIS_URL", "redis://redis:6379"), ("JWT_SECRET", SECRET)];

/// `GOOD` with these set, or replaced.
fn with(changes: &[(&str, &str)]) -> Result<CommonConfig, ConfigError> {
    let changed = |name: &str| changes.iter().any(|(other, _)| *other == name);
    let kept = GOOD.iter().filter(|(name, _)| !changed(name));
    let vars = kept.chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    CommonConfig::from_vars(vars, defaults())
}

/// A file of this run alone, gone with the test.
struct TempFile(PathBuf);

impl std::ops::Deref for TempFile {
    type Target = str;
    fn deref(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file(name: &str, content: &str) -> TempFile {
    let name = format!("roost-service-{}-{name}", std::process::id());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).unwrap();
    TempFile(path)
}

#[test]
fn what_is_not_set_is_as_the_contract_says() {
    let config = with(&[]).unwrap();
    assert_eq!(config.listen_addr.to_string(), "127.0.0.1:7301");
    assert_eq!(config.admin_addr.to_string(), "127.0.0.1:7401");
    assert_eq!(config.public_url, None);
    let contract = Tuning {
        vnodes: 1024,
        lease_ttl_ms: 6000,
        presence_linger_ms: 10_000,
        presence_grace_ms: 20_000,
        undelivered_after_ms: 30_000,
        event_timeout_ms: 30_000,
        forget_after_s: 604_800,
        stream_max_len: 1000,
        stream_max_age_s: 86_400,
    };
    assert_eq!(config.tuning, contract);
    assert_eq!(config.http, HttpLimits::default());
    assert_eq!(config.shutdown_grace, Duration::from_secs(20));
    assert_eq!((config.log_format, config.log_filter.as_str()), (LogFormat::Text, "info"));
    let Backends::Services { kafka, redis_url } = config.backends else { panic!("not embedded") };
    assert_eq!(
        (kafka.brokers.as_str(), kafka.security_protocol),
        ("kafka:9092", SecurityProtocol::Plaintext)
    );
    assert_eq!(redis_url.expose(), "redis://redis:6379");
}

#[test]
fn what_is_set_is_read() {
    let config = with(&[
        ("LISTEN_ADDR", "[::1]:0"),
        ("ADMIN_ADDR", " 10.0.0.1:9000 "),
        ("PUBLIC_URL", "wss://chat.example.com/socket"),
        ("KAFKA_BROKERS", "a:1, b:2"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
        ("KAFKA_SASL_MECHANISM", "scram-sha-512"),
        ("KAFKA_SASL_USERNAME", "roost"),
        ("KAFKA_SASL_PASSWORD", "pw"),
        ("REDIS_URL", "redis+sentinel://:pw@s1:26379,s2:26379/main"),
        ("VNODES", "32768"),
        ("LEASE_TTL_MS", "500"),
        ("PRESENCE_LINGER_MS", "0"),
        ("UNDELIVERED_AFTER_MS", "0"),
        ("FORGET_AFTER_S", "0"),
        ("HANDSHAKES_PER_S", "0"),
        ("CONNECTIONS_MAX", "9"),
        ("TRUSTED_PROXIES", "10.0.0.5, fd00::/8"),
        ("SHUTDOWN_GRACE_MS", "1500"),
        ("LOG_FORMAT", "JSON"),
        ("RUST_LOG", "warn,roost_ws_node=debug"),
        ("JWT_AUDIENCE", "chat"),
        // Not ours, and not read even though it looks like a secret's file.
        ("SSH_KEY_FILE", "/nonexistent"),
        ("ROOST_PORT", "tcp://10.0.0.1:7300"),
        ("vnodes", "7"),
    ])
    .unwrap();
    assert_eq!(config.listen_addr.to_string(), "[::1]:0");
    assert_eq!(config.admin_addr.to_string(), "10.0.0.1:9000");
    assert_eq!(config.public_url.as_deref(), Some("wss://chat.example.com/socket"));
    assert_eq!(
        (config.tuning.vnodes, config.tuning.lease_ttl_ms, config.tuning.presence_linger_ms),
        (32_768, 500, 0)
    );
    assert_eq!((config.http.handshakes_per_s, config.http.connections_max), (0, 9));
    let proxies = &config.http.trusted_proxies;
    let trusted = ["10.0.0.5", "fd12::1", "10.0.0.6"].map(|ip| proxies.contains(ip.parse().unwrap()));
    assert_eq!(trusted, [true, true, false]);
    assert_eq!(config.shutdown_grace, Duration::from_millis(1500));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.jwt.audience.as_deref(), Some("chat"));
    let Backends::Services { kafka, redis_url } = config.backends else { panic!("not embedded") };
    assert_eq!(kafka.brokers, "a:1,b:2");
    assert_eq!(kafka.security_protocol.as_str(), "sasl_ssl");
    let sasl = kafka.sasl.unwrap();
    assert_eq!((sasl.mechanism, sasl.username.as_str()), (SaslMechanism::ScramSha512, "roost"));
    assert_eq!((sasl.password.expose(), redis_url.expose().contains("s2:26379")), ("pw", true));
}

#[test]
fn a_wrong_value_names_its_variable_in_one_line_and_shows_no_secret() {
    let table: &[(&str, &[&str])] = &[
        ("LISTEN_ADDR", &["7301", "localhost:7301", ":7301", "1.2.3.4", "1.2.3.4:70000", "a\nb"]),
        ("ADMIN_ADDR", &["x"]),
        (
            "PUBLIC_URL",
            &[
                "chat.example.com",
                "http://a/",
                "ws://",
                "ws:///socket",
                "ws://u:p@a/",
                "ws://a/?t=1",
                "ws://a b",
            ],
        ),
        ("KAFKA_BROKERS", &["kafka", "kafka:", ":9092", "a:1,,b:2", "a:1,", "kafka:x"]),
        ("KAFKA_SECURITY_PROTOCOL", &["tls", "sasl"]),
        ("KAFKA_SSL_CA_FILE", &["/nonexistent/ca.pem"]),
        (
            "REDIS_URL",
            &["redis:6379", "http://hunter2@redis", "redis://", "hunter2", "redis://r/zero", "redis://r/-1"],
        ),
        ("JWT_JWKS_URL", &["https://id.example/jwks"]),
        ("VNODES", &["0", "1000", "65536", "-1", "1024.0", "many", "4294967296"]),
        ("LEASE_TTL_MS", &["499", "600001", "6s", "6,000", "-6000", "99999999999999999999"]),
        ("PRESENCE_LINGER_MS", &["600001", "x"]),
        ("PRESENCE_GRACE_MS", &["600001", "x"]),
        ("UNDELIVERED_AFTER_MS", &["3600001", "30s"]),
        ("FORGET_AFTER_S", &["1", "86399", "31536001", "7d", "-1"]),
        ("STREAM_MAX_LEN", &["0", "1000001", "x"]),
        ("STREAM_MAX_AGE_S", &["0", "2592001", "1d"]),
        ("CONNECTIONS_MAX", &["0", "x"]),
        ("HANDSHAKES_PER_S", &["-1", "x"]),
        ("HANDSHAKES_BURST", &["0", "x"]),
        ("SHUTDOWN_GRACE_MS", &["600001", "20s"]),
        ("LOG_FORMAT", &["xml"]),
        ("RUST_LOG", &["roost=lots"]),
        ("JWT_AUDIENCE", &["caf\u{FFFD}"]),
    ];
    for (name, values) in table {
        for value in *values {
            let wrong = with(&[(name, value)]).expect_err(&format!("{name}={value}"));
            let line = wrong.to_string();
            assert_eq!(wrong.variable(), *name, "{line}");
            assert!(line.starts_with(name) && !line.contains('\n') && !line.contains("hunter2"), "{line}");
        }
    }
    let long = with(&[("LOG_FORMAT", &"x".repeat(10_000))]).unwrap_err().to_string();
    assert!(long.len() < 200, "{long}");
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let table = [
        ("KAFKA_BROKERS", "KAFKA_BROKERS is not set: without Kafka and Redis run `roost dev`"),
        ("REDIS_URL", "REDIS_URL is not set: without Kafka and Redis run `roost dev`"),
        ("JWT_SECRET", "JWT_SECRET is not set: or JWT_PUBLIC_KEY_FILE; `roost dev` makes one up"),
    ];
    for (name, line) in table {
        for empty in ["", "  "] {
            assert_eq!(with(&[(name, empty)]).unwrap_err().to_string(), line);
        }
    }
    let sasl = [("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext"), ("KAFKA_SASL_MECHANISM", "PLAIN")];
    assert_eq!(with(&sasl).unwrap_err().variable(), "KAFKA_SASL_USERNAME");
    let unused = with(&[("KAFKA_SASL_PASSWORD", "pw")]).unwrap();
    assert!(matches!(unused.backends, Backends::Services { kafka, .. } if kafka.sasl.is_none()));
}

#[test]
fn the_embedded_cluster_asks_for_no_back_end() {
    let vars = [("JWT_SECRET".to_owned(), SECRET.to_owned()), ("REDIS_URL".to_owned(), "?".to_owned())];
    let config = CommonConfig::from_vars(vars, Defaults { embedded: true, ..defaults() }).unwrap();
    assert!(matches!(config.backends, Backends::Embedded));
    assert_eq!(config.jwt.secret.unwrap().expose(), SECRET);
}

#[test]
fn a_secret_may_be_in_a_file() {
    let path = file("secret", &format!("{SECRET}\n"));
    let config = with(&[("JWT_SECRET", ""), ("JWT_SECRET_FILE", &path)]).unwrap();
    assert_eq!(config.jwt.secret.unwrap().expose(), SECRET);
    // One newline is the editor's, the second is the secret's; spaces always are.
    let path = file("newlines", &format!("{SECRET} \r\n\n"));
    let config = with(&[("JWT_SECRET", ""), ("JWT_SECRET_FILE", &path)]).unwrap();
    assert_eq!(config.jwt.secret.unwrap().expose(), format!("{SECRET} \r\n"));
    let path = file("redis", "rediss://:hunter2@redis\r\n");
    let config = with(&[("REDIS_URL", ""), ("REDIS_URL_FILE", &path)]).unwrap();
    assert!(
        matches!(config.backends, Backends::Services { redis_url, .. } if redis_url.expose() == "rediss://:hunter2@redis")
    );
}

#[test]
fn a_secrets_file_that_will_not_do_names_the_variable_and_the_file() {
    let path = file("twice", SECRET);
    let twice = with(&[("JWT_SECRET_FILE", &path)]).unwrap_err();
    assert_eq!(twice.to_string(), "JWT_SECRET and JWT_SECRET_FILE are both set: keep one");
    let gone = with(&[("JWT_SECRET", ""), ("JWT_SECRET_FILE", "/nonexistent/s")]).unwrap_err().to_string();
    assert!(gone.starts_with("JWT_SECRET_FILE: /nonexistent/s: No such file"), "{gone}");
    let path = file("empty", "\n");
    let empty = with(&[("JWT_SECRET", ""), ("JWT_SECRET_FILE", &path)]).unwrap_err().to_string();
    assert!(empty.starts_with("JWT_SECRET_FILE: ") && empty.ends_with("is empty"), "{empty}");
}

#[test]
fn a_public_key_file_is_read_and_checked() {
    // The key of RFC 8410 §10.1: public by definition.
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let path = file("public.pem", pem);
    let config = with(&[("JWT_SECRET", ""), ("JWT_PUBLIC_KEY_FILE", &path)]).unwrap();
    assert_eq!(config.jwt.secret, None);
    let both = with(&[("JWT_PUBLIC_KEY_FILE", &path)]).unwrap_err().to_string();
    assert_eq!(both, "JWT_PUBLIC_KEY_FILE is set beside JWT_SECRET: keep one");
    let path = file("nonsense.pem", "hunter2");
    let wrong = with(&[("JWT_SECRET", ""), ("JWT_PUBLIC_KEY_FILE", &path)]).unwrap_err().to_string();
    assert!(
        wrong.starts_with("JWT_PUBLIC_KEY_FILE is not a public key") && !wrong.contains("hunter2"),
        "{wrong}"
    );
    let jwks = with(&[("JWT_SECRET", ""), ("JWT_JWKS_URL", "https://id/jwks")]).unwrap_err().to_string();
    assert!(jwks.ends_with("not supported yet: use JWT_SECRET or JWT_PUBLIC_KEY_FILE"), "{jwks}");
}

#[test]
fn an_error_names_the_variable_that_was_set() {
    let (nonsense, pem) = (file("written.pem", "hunter2"), "-----BEGIN PUBLIC KEY-----");
    let url = file("written-url", "http://hunter2@redis");
    let table: &[(&str, &[(&str, &str)])] = &[
        ("JWT_PUBLIC_KEY", &[("JWT_SECRET", ""), ("JWT_PUBLIC_KEY", "hunter2")]),
        ("JWT_PUBLIC_KEY_FILE", &[("JWT_SECRET", ""), ("JWT_PUBLIC_KEY_FILE", &nonsense)]),
        ("JWT_PUBLIC_KEY", &[("JWT_PUBLIC_KEY", pem)]),
        ("REDIS_URL_FILE", &[("REDIS_URL", ""), ("REDIS_URL_FILE", &url)]),
        // The other form is set, and empty: that is as if it were not.
        ("JWT_PUBLIC_KEY", &[("JWT_SECRET", ""), ("JWT_PUBLIC_KEY", "x"), ("JWT_PUBLIC_KEY_FILE", " ")]),
    ];
    for (name, changes) in table {
        let wrong = with(changes).unwrap_err();
        assert_eq!(wrong.variable(), *name, "{wrong}");
        assert!(wrong.to_string().starts_with(&format!("{name} ")), "{wrong}");
    }
}

#[test]
fn a_password_that_ends_early_is_explained() {
    for (url, written) in [
        ("redis://:sword@fish@redis:6379", "'@' in its user or password, which ends them there: write %40"),
        ("redis://:sword/fish@redis:6379/0", "'/' in its user or password, which ends them there: write %2F"),
        ("redis://roost:sword?fish@redis", "'?' in its user or password, which ends them there: write %3F"),
        ("redis://roost:sword#fish@redis", "'#' in its user or password, which ends them there: write %23"),
    ] {
        let wrong = with(&[("REDIS_URL", url)]).unwrap_err().to_string();
        assert!(wrong.contains(written) && !wrong.contains("fish"), "{wrong}");
    }
    for good in [
        "redis://redis",
        "redis://:sword%40fish%2F@redis:6379/3",
        "redis://u:p@redis/1?protocol=resp3",
        "redis://[::1]:1/",
    ] {
        assert!(with(&[("REDIS_URL", good)]).is_ok(), "{good}");
    }
}

#[test]
fn no_secret_is_in_the_debug_text_of_a_config() {
    let config = with(&[
        ("REDIS_URL", "redis://:hunter2@redis"),
        ("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "roost"),
        ("KAFKA_SASL_PASSWORD", "hunter2"),
    ]);
    let shown = format!("{:?}", config.unwrap());
    assert!(!shown.contains("hunter2") && shown.contains("[secret]"), "{shown}");
}

/// A program's own section may have typed fields too; envy's errors then get their name back.
#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "only the errors matter")]
struct Typed {
    count: Option<u16>,
    api_token: Option<u16>,
    color: Option<Color>,
    needed: String,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Color {
    Red,
}

#[test]
fn envys_own_errors_get_their_name_back() {
    let typed = |vars: &[(&str, &str)]| {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read::<Typed>(vars).map(|_| ()).map_err(|wrong| wrong.to_string())
    };
    let is = |line: &str| Err(line.to_owned());
    assert_eq!(typed(&[("NEEDED", "x"), ("COUNT", "7"), ("COLOR", "red")]), Ok(()));
    assert_eq!(typed(&[]), is("NEEDED is not set: it is required"));
    assert_eq!(
        typed(&[("NEEDED", "x"), ("COUNT", "many")]),
        is("COUNT is \"many\": invalid digit found in string")
    );
    assert_eq!(
        typed(&[("NEEDED", "x"), ("API_TOKEN", "hunter2")]),
        is("API_TOKEN invalid digit found in string")
    );
    let color = typed(&[("NEEDED", "x"), ("COUNT", "7"), ("COLOR", "blue")]).unwrap_err();
    assert!(color.starts_with("COLOR is \"blue\": unknown variant"), "{color}");
}
