//! `roost dev`: one coordinator, three ws-nodes and an archiver in one process, on the embedded back end.
//!
//! The same code as in production, with other back ends and its ports in one row. Messages survive a restart; who
//! is where does not.

mod cluster;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use roost_archiver::{Archiver, ArchiverConfig};
use roost_backend::embedded::{EmbeddedArchive, EmbeddedLog, EmbeddedStore};
use roost_backend::store::StoreConfig;
use roost_coordinator::{Console, Coordinator, CoordinatorConfig, RequestSettings};
use roost_proto::UserId;
use roost_proto::claims::Role;
use roost_service::config::{Defaults, environment};
use roost_service::{CommonConfig, Secret, Signals, telemetry};
use roost_ws_node::{Backends, SessionSettings, ShareSettings};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::cluster::Cluster;
use crate::out::{note, say};
use crate::{place, token};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many ws-nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// The coordinator's port; the nodes take the ones after it, the archiver the tenth (or the one after the nodes),
    /// the admin ports are 100 above
    #[arg(long, default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1024..=60000))]
    port: u16,
}

/// Where the coordinator is, unless it is said.
const PORT: u16 = 7300;
/// A token that is printed is good for a day.
const TOKEN_TTL_S: u64 = 86_400;

/// The ports of one cluster.
struct Row {
    first: u16,
    /// Those it began with.
    nodes: u16,
}

impl Row {
    fn node(&self, i: u16) -> u16 {
        self.first + i
    }

    /// The first port above those of the coordinator and the nodes, from the tenth on.
    fn archiver(&self) -> u16 {
        self.first + (self.nodes + 1).max(10)
    }

    fn admin(port: u16) -> u16 {
        port + 100
    }
}

/// Time for everything to be ready before it is worth a warning.
const READY_WITHIN: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let secret = place::secret_or_made()?;
    let mut vars = environment();
    let keys = ["JWT_SECRET", "JWT_SECRET_FILE", "JWT_PUBLIC_KEY", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL"];
    if !vars.iter().any(|(name, value)| keys.contains(&name.as_str()) && !value.is_empty()) {
        vars.push(("JWT_SECRET".into(), secret.expose().to_owned()));
    }
    if !vars.iter().any(|(name, value)| name == "RUST_LOG" && !value.is_empty()) {
        vars.push(("RUST_LOG".into(), "warn".into()));
    }
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let defaults =
        Defaults { listen_addr: local(args.port), admin_addr: local(args.port + 100), embedded: true };
    let sessions = SessionSettings::from_vars(vars.iter().cloned())?;
    let shares = ShareSettings::from_vars(vars.iter().cloned())?;
    let requests = RequestSettings::from_vars(vars.iter().cloned())?;
    let common = CommonConfig::from_vars(vars, defaults)?;
    telemetry::init(common.log_format, &common.log_filter)?;
    common.warn();
    let signals = Signals::install()?;

    let backends = open(&place::data_dir(), &common)?;
    let row = Row { first: args.port, nodes: args.nodes };
    let grace = common.shutdown_grace.min(Duration::from_secs(10));
    let secret = common.jwt.secret.is_some().then_some(secret);
    let cluster =
        Cluster { common, sessions, shares, backends, row, secret, nodes: Mutex::new(BTreeMap::new()) };
    let cluster = Arc::new(cluster);
    let archiver = archiver(&cluster).await?;
    let coordinator = coordinator(&cluster, requests).await?;
    for _ in 0..args.nodes {
        cluster.start_next().await?;
    }
    wait_ready(&coordinator).await;
    say!("archiver      http://{}   metrics http://{}/metrics", archiver.addr(), archiver.admin_addr());
    greet(&coordinator, &cluster).await;

    tokio::select! {
        signal = signals.first() => tracing::info!(signal, "leaving"),
        bug = coordinator.join() => return Err(anyhow::Error::from(bug).context("the coordinator")),
        bug = archiver.join() => return Err(anyhow::Error::from(bug).context("the archiver")),
        bug = cluster.join() => return Err(bug),
    }
    note!("stopping");
    cluster.shutdown(grace).await?;
    coordinator.shutdown(Duration::from_secs(2)).await;
    archiver.shutdown(Duration::from_secs(2)).await;
    Ok(())
}

fn open(dir: &Path, common: &CommonConfig) -> anyhow::Result<Backends> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("ROOST_DATA_DIR {}", dir.display()))?;
    let config = StoreConfig {
        lease_ttl_ms: common.tuning.lease_ttl_ms,
        stream_max_len: common.tuning.stream_max_len as usize,
        stream_max_age_ms: common.tuning.stream_max_age_s * 1000,
    };
    let store = EmbeddedStore::open(&dir.join("store.db"), config, Arc::new(wall_ms))
        .with_context(|| format!("the data in {} (is another `roost dev` using it?)", dir.display()))?;
    let log =
        EmbeddedLog::open(&dir.join("log.db")).with_context(|| format!("the log in {}", dir.display()))?;
    Ok(Backends { store: Arc::new(store), log: Arc::new(log) })
}

async fn listen(what: &str, port: u16) -> anyhow::Result<TcpListener> {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    TcpListener::bind(addr).await.with_context(|| format!("{what}: port {port} (use --port for another row)"))
}

async fn coordinator(cluster: &Arc<Cluster>, requests: RequestSettings) -> anyhow::Result<Coordinator> {
    let (common, port) = (&cluster.common, cluster.row.first);
    let (tuning, verifier) = (&common.tuning, common.jwt.verifier());
    let mut config = CoordinatorConfig::new(tuning.vnodes, tuning.lease_ttl_ms, verifier);
    requests.apply(&mut config);
    config.forget_after_s = tuning.forget_after_s;
    // For curl; whoever reaches it gets every token anyway.
    config.open_presence = true;
    config.http = common.http.clone();
    config.console = Console::Dev(Arc::clone(cluster) as _);
    let public = listen("the coordinator", port).await?;
    let admin = listen("the coordinator's health", Row::admin(port)).await?;
    Ok(Coordinator::bind(config, Arc::clone(&cluster.backends.store), public, admin).await?)
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

async fn archiver(cluster: &Cluster) -> anyhow::Result<Archiver> {
    let common = &cluster.common;
    let file = place::data_dir().join("archive.db");
    let archive = EmbeddedArchive::open(&file, Arc::new(wall_ms)).context("the archive")?;
    let mut config = ArchiverConfig::new(common.jwt.verifier());
    config.open_rooms = true;
    config.http = common.http.clone();
    let port = cluster.row.archiver();
    let (public, admin) =
        (listen("the archiver", port).await?, listen("the archiver's health", Row::admin(port)).await?);
    let log = Arc::clone(&cluster.backends.log);
    Ok(Archiver::bind(config, log, Arc::new(archive), public, admin).await?)
}

/// Until every vnode has a ready home.
async fn wait_ready(coordinator: &Coordinator) {
    let view = coordinator.view();
    if timeout(READY_WITHIN, view.all_ready()).await.is_err() {
        let snapshot = view.load();
        let (ready, of) = (snapshot.ready_vnodes(), snapshot.table.vnodes);
        tracing::warn!(ready, of, "not every vnode has a home yet");
    }
}

async fn greet(coordinator: &Coordinator, cluster: &Cluster) {
    let url = format!("http://{}", coordinator.addr());
    say!("coordinator   {url}          health http://{}/readyz", coordinator.admin_addr());
    for server in cluster.nodes.lock().await.values().flatten() {
        say!(
            "{:<13} {}   metrics http://{}/metrics",
            server.node().as_str(),
            server.url(),
            server.admin_addr()
        );
    }
    say!("data          {}", place::data_dir().display());
    say!("\nconsole       {url}/console");
    let (Some(secret), Ok(alice)) = (&cluster.secret, UserId::new("alice")) else { return };
    say!(
        "\na token for alice, good for a day:\n{}",
        token::make(secret, &alice, TOKEN_TTL_S, Role::User, None)
    );
    say!("\ntry, in two other terminals, in this directory:");
    let tries = Tries::new(&url);
    for (user, command) in [
        (Some("bob"), "listen bob"),
        (Some("alice"), "send bob 'hello from alice' --from alice"),
        (None, "route bob"),
    ] {
        say!("  {}", tries.line(secret, user, command));
    }
    say!("  curl '{url}/route?userId=alice'");
    say!("\nCtrl-C stops; what was not delivered is kept.");
}

/// Commands that work in a terminal that has nothing of this one's environment.
struct Tries {
    me: String,
    /// What they need of it beside a token.
    vars: String,
    /// Whether they can make the tokens that are taken here.
    make_tokens: bool,
    at: String,
}

impl Tries {
    fn new(url: &str) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| {
            let path = std::path::absolute(set(name)?).ok()?;
            Some(format!("{name}={} ", quoted(path.to_str()?)))
        };
        // A secret that is only in the environment, or claims that are, are not shown: a token has what they are for.
        let hidden = ["JWT_SECRET", "JWT_AUDIENCE", "JWT_ISSUER"].iter().any(|name| set(name).is_some());
        let vars = path("JWT_SECRET_FILE").or_else(|| path("ROOST_DATA_DIR")).unwrap_or_default();
        let default = format!("http://127.0.0.1:{PORT}");
        Self {
            me: quoted(&std::env::args().next().unwrap_or_else(|| "roost".into())),
            vars,
            make_tokens: !hidden,
            at: if url == default { String::new() } else { format!(" --url {url}") },
        }
    }

    /// `command` as `user`, if it is somebody's.
    fn line(&self, secret: &Secret, user: Option<&str>, command: &str) -> String {
        let Self { me, vars, make_tokens, at } = self;
        let who = match user.and_then(|user| UserId::new(user).ok()) {
            None => String::new(),
            Some(_) if *make_tokens => vars.clone(),
            Some(user) => {
                format!("ROOST_TOKEN={} ", token::make(secret, &user, TOKEN_TTL_S, Role::User, None))
            }
        };
        format!("{who}{me} {command}{at}")
    }
}

/// As a shell takes it for one word (POSIX 2.2.2).
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_a_shell_is_one_word() {
        assert_eq!(quoted("/tmp/a-b_1"), "/tmp/a-b_1");
        assert_eq!(quoted("/tmp/my data"), "'/tmp/my data'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
