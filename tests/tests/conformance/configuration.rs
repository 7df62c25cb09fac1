//! Wrong configuration: a program stops with exit code 64 and one line that names the variable.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use roost_service::ConfigError;
use roost_tests::cluster::services::Services;
use roost_tests::cluster::{Backend, Cluster};

const EX_USAGE: i32 = 64;
/// What must be seen nowhere.
const SECRETS: [&str; 3] = ["hunter2-hunter2-hunter2-hunter2-x", "swordfish", "correct-horse"];

const GOOD: [(&str, &str); 6] = [
    ("NODE_ID", "ws-1"),
    ("KAFKA_BROKERS", "127.0.0.1:1"),
    ("REDIS_URL", "redis://:swordfish@127.0.0.1:1"),
    ("JWT_SECRET", SECRETS[0]),
    ("LISTEN_ADDR", "127.0.0.1:0"),
    ("ADMIN_ADDR", "127.0.0.1:0"),
];

/// The good ones with some replaced, or left out if empty.
fn vars(changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let kept = GOOD.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| other == name));
    let all = kept.chain(changes).filter(|(_, value)| !value.is_empty());
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

type Wrong = (&'static str, &'static [(&'static str, &'static str)]);

/// The variable that is blamed, and what is set.
const WRONG_IN_BOTH: &[Wrong] = &[
    ("REDIS_URL", &[("REDIS_URL", "")]),
    ("REDIS_URL", &[("REDIS_URL", "swordfish@localhost:6379")]),
    ("REDIS_URL", &[("REDIS_URL", "redis://")]),
    ("JWT_SECRET", &[("JWT_SECRET", "")]),
    ("JWT_SECRET", &[("JWT_SECRET_FILE", "/nonexistent/secret")]),
    ("JWT_PUBLIC_KEY", &[("JWT_PUBLIC_KEY", "correct-horse"), ("JWT_SECRET", "")]),
    ("JWT_SECRET", &[("JWT_SECRET", "-----BEGIN PUBLIC KEY-----\ncorrect-horse\n-----END PUBLIC KEY-----")]),
    ("REDIS_URL", &[("REDIS_URL", "redis://:sword@fish:swordfish@127.0.0.1:1")]),
    ("REDIS_URL", &[("REDIS_URL", "redis://:sword/fish:swordfish@127.0.0.1:1/0")]),
    ("REDIS_URL", &[("REDIS_URL", "redis://:swordfish@127.0.0.1:1/zero")]),
    ("LISTEN_ADDR", &[("LISTEN_ADDR", "7301")]),
    ("LISTEN_ADDR", &[("LISTEN_ADDR", "localhost:7301")]),
    ("ADMIN_ADDR", &[("ADMIN_ADDR", "0.0.0.0:65536")]),
    ("PUBLIC_URL", &[("PUBLIC_URL", "https://chat.example.com")]),
    ("PUBLIC_URL", &[("PUBLIC_URL", "ws://")]),
    ("VNODES", &[("VNODES", "1000")]),
    ("VNODES", &[("VNODES", "0")]),
    ("VNODES", &[("VNODES", "65536")]),
    ("VNODES", &[("VNODES", "many")]),
    ("LEASE_TTL_MS", &[("LEASE_TTL_MS", "499")]),
    ("LEASE_TTL_MS", &[("LEASE_TTL_MS", "6s")]),
    ("PRESENCE_LINGER_MS", &[("PRESENCE_LINGER_MS", "-1")]),
    ("PRESENCE_GRACE_MS", &[("PRESENCE_GRACE_MS", "600001")]),
    ("UNDELIVERED_AFTER_MS", &[("UNDELIVERED_AFTER_MS", "3600001")]),
    ("FORGET_AFTER_S", &[("FORGET_AFTER_S", "3600")]),
    ("STREAM_MAX_LEN", &[("STREAM_MAX_LEN", "0")]),
    ("STREAM_MAX_AGE_S", &[("STREAM_MAX_AGE_S", "2592001")]),
    ("CONNECTIONS_MAX", &[("CONNECTIONS_MAX", "0")]),
    ("HANDSHAKES_PER_S", &[("HANDSHAKES_PER_S", "1.5")]),
    ("HANDSHAKES_BURST", &[("HANDSHAKES_BURST", "0")]),
    ("TRUSTED_PROXIES", &[("TRUSTED_PROXIES", "proxy.example.com")]),
    ("TRUSTED_PROXIES", &[("TRUSTED_PROXIES", "10.0.0.1,")]),
    ("TRUSTED_PROXIES", &[("TRUSTED_PROXIES", "::/0")]),
    ("SHUTDOWN_GRACE_MS", &[("SHUTDOWN_GRACE_MS", "a while")]),
    ("LOG_FORMAT", &[("LOG_FORMAT", "xml")]),
    ("RUST_LOG", &[("RUST_LOG", "roost=loud")]),
];

const WRONG_IN_WS_NODE: &[Wrong] = &[
    ("NODE_ID", &[("NODE_ID", "")]),
    ("NODE_ID", &[("NODE_ID", "ws/1")]),
    ("NODE_ID", &[("NODE_ID", "a name with spaces")]),
    ("KAFKA_BROKERS", &[("KAFKA_BROKERS", "")]),
    ("KAFKA_BROKERS", &[("KAFKA_BROKERS", "kafka")]),
    ("KAFKA_SECURITY_PROTOCOL", &[("KAFKA_SECURITY_PROTOCOL", "tls")]),
    ("KAFKA_SASL_MECHANISM", &[("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext")]),
    (
        "KAFKA_SSL_CA_FILE",
        &[("KAFKA_SECURITY_PROTOCOL", "ssl"), ("KAFKA_SSL_CA_FILE", "/nonexistent/ca.pem")],
    ),
    ("ASSIGNED_VNODES", &[("ASSIGNED_VNODES", "5-3")]),
    ("ASSIGNED_VNODES", &[("ASSIGNED_VNODES", "0-1024")]),
    ("ASSIGNED_VNODES", &[("ASSIGNED_VNODES", "all")]),
    ("NODE_WEIGHT", &[("NODE_WEIGHT", "0")]),
    ("KAFKA_PARTITIONS", &[("KAFKA_PARTITIONS", "0")]),
    ("KAFKA_REPLICATION", &[("KAFKA_REPLICATION", "many")]),
    ("SESSIONS_PER_USER_MAX", &[("SESSIONS_PER_USER_MAX", "0")]),
    ("SESSION_POLICY", &[("SESSION_POLICY", "newest")]),
    ("WATCHED_PER_SESSION_MAX", &[("WATCHED_PER_SESSION_MAX", "0")]),
    ("WATCH_NEEDS_CLAIM", &[("WATCH_NEEDS_CLAIM", "maybe")]),
    ("ALLOWED_ORIGINS", &[("ALLOWED_ORIGINS", "chat.example.com")]),
    ("ALLOWED_ORIGINS", &[("ALLOWED_ORIGINS", "https://chat.example.com/page")]),
    ("TOKEN_EXPIRING_MS", &[("TOKEN_EXPIRING_MS", "999")]),
];

const WRONG_IN_COORDINATOR: &[Wrong] = &[
    ("MOVES_IN_FLIGHT_MAX", &[("MOVES_IN_FLIGHT_MAX", "0")]),
    ("REQUESTS_PER_S", &[("REQUESTS_PER_S", "many")]),
    ("REQUESTS_BURST", &[("REQUESTS_BURST", "0")]),
    ("USER_REQUESTS_PER_S", &[("USER_REQUESTS_PER_S", "-1")]),
    ("USER_REQUESTS_BURST", &[("USER_REQUESTS_BURST", "0")]),
    ("OPEN_PRESENCE", &[("OPEN_PRESENCE", "yes")]),
    ("WATCH_NEEDS_CLAIM", &[("WATCH_NEEDS_CLAIM", "maybe")]),
];

/// What is wrong with this error's text, if anything is.
fn judge(text: &str, variable: &str) -> Option<String> {
    let named = text.contains(variable);
    let one_line = text.trim_end().lines().count() == 1 && !text.contains("panicked");
    let echoed = SECRETS.iter().any(|secret| text.contains(secret));
    (!named || !one_line || echoed).then(|| format!("{variable}: {text:?}"))
}

fn mistaken<T>(parsed: Result<T, ConfigError>, variable: &str) -> Option<String> {
    match parsed {
        Ok(_) => Some(format!("{variable} was accepted")),
        Err(error) if error.variable() != variable => Some(format!("{variable}: {error:?}")),
        Err(error) => judge(&error.to_string(), variable),
    }
}

/// Every wrong value is refused at start under its variable's name, without a secret in the text.
/// One variable at a time, for both programs.
#[test]
fn every_wrong_value_is_refused_by_name() {
    let mut wrong = Vec::new();
    for (variable, changes) in WRONG_IN_BOTH.iter().chain(WRONG_IN_WS_NODE) {
        wrong.extend(mistaken(roost_ws_node::Settings::from_vars(vars(changes)), variable));
    }
    for (variable, changes) in WRONG_IN_BOTH.iter().chain(WRONG_IN_COORDINATOR) {
        wrong.extend(mistaken(roost_coordinator::config::Settings::from_vars(vars(changes)), variable));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(roost_ws_node::Settings::from_vars(vars(&[])).is_ok());
    assert!(roost_coordinator::config::Settings::from_vars(vars(&[])).is_ok());
}

fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a path");
    let path = here.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps").join(name);
    let cure = "build it first: cargo build -p roost-coordinator -p roost-ws-node -p roost-archiver (--release, if the tests are)";
    assert!(path.is_file(), "{} is missing; {cure}", path.display());
    path
}

async fn run(name: &'static str, changes: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program(name));
    command.env_clear().envs(vars(changes)).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    let ended = tokio::time::timeout(roost_tests::wire::LIMIT, output).await;
    ended.expect("it ends by itself").expect("no panic").expect("it can be started")
}

/// What is wrong with the end of a program started like this, if anything is.
async fn refused(name: &'static str, variable: &str, changes: &[(&str, &str)]) -> Option<String> {
    let output = run(name, changes).await;
    let text = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    // A log line before it would be a second line.
    let alone = text.starts_with(&format!("{name}: ")) && output.stdout.is_empty();
    let right = code == Some(EX_USAGE) && alone && judge(&text, variable).is_none();
    (!right).then(|| format!("{name}, {variable}: exit code {code:?}, {text:?}"))
}

/// The programs themselves leave with exit code 64 and that one line.
/// Each started with one wrong value.
#[tokio::test]
async fn the_programs_leave_with_64_and_one_line() {
    let mut wrong = Vec::new();
    for (variable, changes) in [WRONG_IN_BOTH[1], WRONG_IN_BOTH[3], WRONG_IN_BOTH[5], WRONG_IN_BOTH[11]] {
        wrong.extend(refused("coordinator", variable, changes).await);
        wrong.extend(refused("ws-node", variable, changes).await);
    }
    let proxies = [("TRUSTED_PROXIES", "10.0.0.0/33")];
    for name in ["coordinator", "ws-node"] {
        wrong.extend(refused(name, "TRUSTED_PROXIES", &proxies).await);
    }
    for (variable, changes) in [WRONG_IN_WS_NODE[1], WRONG_IN_WS_NODE[5], WRONG_IN_WS_NODE[8]] {
        wrong.extend(refused("ws-node", variable, changes).await);
    }
    // What is in a file is blamed on the variable that names the file.
    let file = std::env::temp_dir().join(format!("roost-key-{}.pem", std::process::id()));
    std::fs::write(&file, "correct-horse").expect("a file");
    let given = [("JWT_SECRET", ""), ("JWT_PUBLIC_KEY_FILE", file.to_str().expect("a path of text"))];
    let public_key = [("JWT_SECRET", "-----BEGIN PUBLIC KEY-----\ncorrect-horse\n-----END PUBLIC KEY-----")];
    for name in ["coordinator", "ws-node"] {
        wrong.extend(refused(name, "JWT_PUBLIC_KEY_FILE", &given).await);
        wrong.extend(refused(name, "JWT_SECRET", &public_key).await);
    }
    std::fs::remove_file(&file).expect("it was there");
    // Known, and not supported by this version: seen when Redis is to be reached.
    for name in ["coordinator", "ws-node"] {
        let unsupported = [("REDIS_URL", "redis+cluster://:swordfish@127.0.0.1:1")];
        wrong.extend(refused(name, "REDIS_URL", &unsupported).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Not configuration: it may pass, so a supervisor may try again. No secret is shown here either.
    for name in ["coordinator", "ws-node"] {
        let output = run(name, &[]).await;
        let text = [output.stderr, output.stdout].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
    }
}

/// The rows of docs/CONFIG.md about this variable.
fn documented(variable: &str) -> Vec<&'static str> {
    let rows = include_str!("../../../docs/CONFIG.md").lines();
    rows.filter(|row| row.starts_with(&format!("| `{variable}`"))).collect()
}

/// Whoever has a program and no documentation learns from it where to go on, and it says what is true.
/// Each is asked for help, and every variable that it names is looked up.
#[tokio::test]
async fn the_programs_say_what_there_is() {
    for name in ["coordinator", "ws-node", "archiver"] {
        let version = ask(name, &["--version"]).await;
        assert_eq!(version, (Some(0), format!("{name} {}\n", env!("CARGO_PKG_VERSION")), String::new()));
        let (code, help, said) = ask(name, &["--help"]).await;
        assert_eq!((code, said.as_str()), (Some(0), ""), "{name}");
        assert!(help.contains("docs/CONFIG.md") && help.contains(env!("CARGO_PKG_VERSION")), "{help}");
        let rows = help.lines().filter(|line| line.starts_with("  ") && !line.trim().is_empty());
        let rows: Vec<Vec<&str>> = rows.map(|row| row.split_whitespace().collect()).collect();
        assert!(rows.len() >= 8, "{help}");
        for row in rows {
            let (variable, default) = (row[0], row[1].rsplit(':').next().expect("a text"));
            let documented = documented(variable);
            assert!(!documented.is_empty(), "{variable} of {name} is not in CONFIG.md");
            // One of two is required; the table says so in other words.
            let right = documented.iter().any(|row| row.contains(default)) || variable == "JWT_SECRET";
            assert!(right, "{name} says that {variable} is {default} by default: {documented:?}");
        }
        for argument in ["--port", "help", "7301", ""] {
            let (code, out, said) = ask(name, &[argument]).await;
            assert_eq!((code, out.as_str(), said.lines().count()), (Some(EX_USAGE), "", 1), "{name}: {said}");
            assert!(said.starts_with(&format!("{name}: ")) && said.contains("--help"), "{said}");
        }
    }
}

/// How a program with these arguments and an empty environment ends, and what it says.
async fn ask(name: &'static str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program(name));
    command.env_clear().args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let Output { status, stdout, stderr } = output.expect("it can be started");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// A database that Redis does not have is a mistake that stays: exit code 64.
/// Both programs are started with a number far above what Redis has by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_redis_does_not_have_is_wrong_configuration() {
    let Some(services) = Services::find().await else { return };
    let with_database = services.redis_url().rsplit_once('/').filter(|(rest, _)| !rest.ends_with('/'));
    let host = with_database.map_or(services.redis_url(), |(rest, _)| rest);
    let url = format!("{host}/4000");
    let there = [("REDIS_URL", url.as_str()), ("KAFKA_BROKERS", services.brokers())];
    let mut wrong = Vec::new();
    for name in ["coordinator", "ws-node"] {
        wrong.extend(refused(name, "REDIS_URL", &there).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A user of Redis 7 begins without channels: a program says so at its start, and leaves.
/// Both are started beside a cluster, as users that lack a right each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_user_of_redis_lacks_a_right_refuses_to_start() {
    let Some(cluster) = Cluster::start(Backend::Services, 1).await else { return };
    let services: &Services = cluster.services().expect("there are services");
    let client = redis::Client::open(services.redis_url()).expect("a valid address");
    let mut admin = client.get_multiplexed_async_connection().await.expect("Redis is reached");
    let url = services.redis_url().replacen("redis://", "redis://limited:sesame@", 1);
    let node = format!("{}-too", cluster.name(0));
    let there = [
        ("REDIS_URL", url.as_str()),
        ("KAFKA_BROKERS", services.brokers()),
        ("NODE_ID", &node),
        ("VNODES", "64"),
    ];
    let mut wrong = Vec::new();
    for (lacks, named) in [("resetchannels", "SUBSCRIBE"), ("-info", "INFO"), ("-xadd", "XADD")] {
        let mut acl = redis::cmd("ACL");
        acl.arg("SETUSER").arg(&["limited", "reset", "on", ">sesame", "~*", "&*", "+@all", lacks]);
        acl.exec_async(&mut admin).await.expect("Redis takes it");
        for name in ["coordinator", "ws-node"] {
            wrong.extend(refused(name, "REDIS_URL", &there).await);
            let output = run(name, &there).await;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            wrong.extend((!text.contains(named)).then(|| format!("{name} without {named}: {text}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A process configured for another ring, or other partitions, refuses to start: these numbers never change.
/// A cluster of 64 vnodes and 8 partitions runs; both programs are started beside it with other numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_configured_for_another_cluster_refuses_to_start() {
    let Some(cluster) = Cluster::start(Backend::Services, 1).await else { return };
    let services: &Services = cluster.services().expect("there are services");
    let (redis, kafka) = (services.redis_url(), services.brokers());
    let node = format!("{}-too", cluster.name(0));
    let there = [("REDIS_URL", redis), ("KAFKA_BROKERS", kafka), ("NODE_ID", &node)];
    let with = |name, value| [there.as_slice(), &[(name, value)]].concat();
    let mut wrong = Vec::new();
    wrong.extend(refused("coordinator", "VNODES", &with("VNODES", "128")).await);
    wrong.extend(refused("ws-node", "VNODES", &with("VNODES", "128")).await);
    let mut other_partitions = with("VNODES", "64");
    other_partitions.push(("KAFKA_PARTITIONS", "4"));
    wrong.extend(refused("ws-node", "KAFKA_PARTITIONS", &other_partitions).await);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
