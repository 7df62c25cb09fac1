//! A node with thousands of sessions dies, and all of them come back at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use roost_proto::events::{CHAT_EVENTS, USER_STATUS_EVENTS};
use tokio::time::{Instant, sleep};

use super::load::Crowd;
use super::measure::{cluster, one_address, percentiles, published_offline, verdict};
use super::options::Options;
use super::scenario::NODES;
use crate::conversation::Talk;
use crate::history::What;
use crate::ledger::{Sent, quantile};
use crate::processes::metrics::scrape;
use crate::processes::{Cluster, ClusterSetup};
use crate::topic_reader::{TopicReader, statuses};
use crate::verdict::times;

/// At home on each node that stays: they send to each other all the time.
const OTHERS: usize = 50;
const PACE: Duration = Duration::from_millis(250);
/// Some of them send to those who are in the storm too, so that what is lost would show.
const CALLERS: usize = 25;
const BEFORE: Duration = Duration::from_secs(20);
/// A second outage would come in this time: some leases, and a round of canaries.
const AFTER: Duration = Duration::from_secs(20);
/// All who are not back by then count as not back.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks, and whom `/route` is asked about at each.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ASKED: usize = 20;
const QUEUE_EVERY: Duration = Duration::from_millis(5);
/// The SDK's own waits, not those of the tests.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(20));
pub(super) const REVOKED: [&str; 2] = [
    "roost_coordinator_revocations_total{cause=\"silent\"}",
    "roost_coordinator_revocations_total{cause=\"refused\"}",
];
const REFUSED: [&str; 2] = [
    "roost_http_refused_total{listener=\"public\",reason=\"rate\"}",
    "roost_http_refused_total{listener=\"public\",reason=\"full\"}",
];
pub(super) const SUSPENSIONS: &str = "roost_vnode_changes_total{change=\"suspension\"}";
const ROUTES: [&str; 2] =
    ["roost_coordinator_routes_total{result=\"ok\"}", "roost_coordinator_routes_total{result=\"no_home\"}"];

/// SIGKILL to a node with many sessions, while the users of the others go on.
///
/// # Errors
/// If something is not to be measured, or there is a second outage.
pub async fn storm(options: &Options) -> anyhow::Result<()> {
    let setup = ClusterSetup { vars: vec![one_address()], backoff: BACKOFF, ..options.cluster() };
    let mut cluster = cluster(options, setup).await?;
    let ring = cluster.settled().await;
    let wanted = [(NODES[1], OTHERS), (NODES[2], OTHERS), (NODES[0], options.sessions)];
    let names = cluster.users_at(&ring, &wanted);
    let (others, hit): (Vec<usize>, Vec<usize>) = (0..names.len()).partition(|user| *user < 2 * OTHERS);
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let status = TopicReader::start(&cluster, USER_STATUS_EVENTS).await;
    let mut talk = Talk::open(&cluster, names[..others.len()].to_vec()).await;
    talk.elsewhere = names[others.len()..].to_vec();
    let (note, first) = (talk.noter(), others.len());
    let crowd =
        Crowd::gather(&cluster.front(), &talk.elsewhere, move |what| note(counted_from(first, what)))?;
    let connecting = Instant::now();
    let connected = wait_for(&talk, &hit, connecting).await;
    ensure!(connected.len() == hit.len(), "{} of {} connected", connected.len(), hit.len());
    println!("{} clients connected in {:.1?}", hit.len(), connecting.elapsed());
    let began = Instant::now();
    let live = talk.speak(&others, &others, PACE);
    let calls = talk.speak(&others[..CALLERS], &hit, PACE);
    let watch = Watch::start(&cluster, &talk.elsewhere);
    sleep(BEFORE).await;
    let before = Totals::read(&cluster).await;
    let mut programs = programs(&cluster);
    programs.push(("the clients".to_owned(), crowd.pid()));
    let cpu = programs.iter().map(|(_, pid)| cpu_s(*pid)).collect::<Vec<_>>();
    let killed = Instant::now();
    cluster.node_mut(NODES[0]).process.kill();
    let back = wait_for(&talk, &hit, killed).await;
    let calm = Instant::now();
    let used =
        programs.iter().zip(cpu).map(|((name, pid), had)| format!("{name} {:.1} s", cpu_s(*pid) - had));
    let used: Vec<String> = used.collect();
    sleep(AFTER).await;
    let after = Totals::read(&cluster).await;
    let seen = watch.end().await;
    live.end().await;
    calls.end().await;
    let published = statuses(&status.all().await);
    crowd.disperse().await?;
    talk.all_arrived(began).await;
    cluster.kill_all();
    let ledger = talk.close().await;
    println!("a node with {} sessions was killed", hit.len());
    println!("  back at a new home: {} of {}, after {}", back.len(), hit.len(), times(&back));
    let whole = |sent: &&Sent| sent.to < others.len();
    for (what, from, to) in
        [("before", began, killed), ("in the storm", killed, calm), ("after", calm, calm + AFTER)]
    {
        let sent: Vec<&Sent> =
            ledger.sent.values().filter(whole).filter(|s| s.at >= from && s.at < to).collect();
        let took = |end: fn(&Sent) -> Option<Instant>| -> Vec<Duration> {
            sent.iter().map(|s| end(s).map_or(Duration::MAX, |at| at - s.at)).collect()
        };
        println!("  between others, {what:<12} delivery {}", percentiles(&took(|s| s.arrived)));
        println!("  {:29} reply    {}", "", percentiles(&took(|s| s.acked)));
    }
    println!("  processor time in the storm: {}", used.join(", "));
    seen.print(killed);
    let diff = after.since(&before);
    diff.print(hit.len());
    println!("  users that flapped: {}", published_offline(&published, &names[others.len()..]));
    println!("  users told to read the history: {}", ledger.missed.len());
    verdict(&ledger, &chat, &names, began).await?;
    ensure!(back.len() == hit.len(), "not everybody is back");
    ensure!(diff.suspensions == 0.0 && diff.revoked == 1.0, "a second outage: {diff:?}");
    Ok(())
}

/// The crowd counts from 0.
fn counted_from(first: usize, what: What) -> What {
    match what {
        What::State { user, node } => What::State { user: user + first, node },
        What::Arrived { user, generation, offset, id } => {
            What::Arrived { user: user + first, generation, offset, id }
        }
        What::Missed { user, from, to } => What::Missed { user: user + first, from, to },
        other => other,
    }
}

/// Waits until all of them are connected anew, and not for ever; for each who is, the time until then.
async fn wait_for(talk: &Talk, hit: &[usize], since: Instant) -> Vec<Duration> {
    loop {
        let mut first: BTreeMap<usize, Duration> = BTreeMap::new();
        for (at, user, connected) in &talk.ledger().states {
            if *connected && *at > since && *user >= hit[0] {
                first.entry(*user).or_insert(*at - since);
            }
        }
        if first.len() == hit.len() || since.elapsed() > BACK_WITHIN {
            return first.into_values().collect();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Counters of those that stay, and what their processes have in memory.
#[derive(Debug, Default)]
struct Totals {
    revoked: f64,
    suspensions: f64,
    refused: f64,
    routes: [f64; 2],
    overflows: f64,
    resident_mb: f64,
}

impl Totals {
    async fn read(cluster: &Cluster) -> Self {
        let mut totals = Self { overflows: overflows(), ..Self::default() };
        for series in REVOKED {
            totals.revoked += cluster.coordinators_count(series).await;
        }
        for (sum, series) in totals.routes.iter_mut().zip(ROUTES) {
            *sum = cluster.coordinators_count(series).await;
        }
        for name in &NODES[1..] {
            totals.suspensions += cluster.metric(name, SUSPENSIONS).await;
            totals.resident_mb += resident_mb(cluster.node(name).process.pid());
            for series in REFUSED {
                totals.refused += cluster.metric(name, series).await;
            }
        }
        totals
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            revoked: self.revoked - before.revoked,
            suspensions: self.suspensions - before.suspensions,
            refused: self.refused - before.refused,
            routes: [self.routes[0] - before.routes[0], self.routes[1] - before.routes[1]],
            overflows: self.overflows - before.overflows,
            resident_mb: self.resident_mb - before.resident_mb,
        }
    }

    fn print(&self, sessions: usize) {
        let each = self.resident_mb * 1024.0 / sessions as f64;
        println!(
            "  asked at /route: {} times with an answer, {} times there was no home",
            self.routes[0], self.routes[1]
        );
        println!(
            "  handshakes refused (429, 503): {}; accept queues that overflowed: {}",
            self.refused, self.overflows
        );
        println!(
            "  nodes declared dead: {}; leases missed by the others: {}",
            self.revoked, self.suspensions
        );
        println!("  memory of the others: {:.0} MB more, {each:.1} KiB for each session", self.resident_mb);
    }
}

/// Connections that the system dropped because nobody accepted them in time (`ListenOverflows`, of the machine).
fn overflows() -> f64 {
    let text = std::fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let pair = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ListenOverflows");
    pair.and_then(|(_, value)| value.parse().ok()).unwrap_or(0.0)
}

pub(super) fn resident_mb(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The programs that have to do with a storm, by process id.
fn programs(cluster: &Cluster) -> Vec<(String, u32)> {
    let nodes = NODES[1..].iter().map(|name| (format!("node {name}"), cluster.node(name).process.pid()));
    let coordinators = cluster.coordinators().iter().filter_map(|c| c.process.as_ref());
    let coordinators =
        (1..).zip(coordinators).map(|(i, process)| (format!("coordinator {i}"), process.pid()));
    nodes.chain(coordinators).collect()
}

/// What a process has used of the processors, in seconds (`utime` and `stime` of proc(5), in hundredths).
fn cpu_s(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// How many connections wait to be accepted at each of these ports (Linux has it in /proc).
fn accept_queue(ports: &[u16]) -> u64 {
    const LISTEN: &str = "0A";
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let waiting = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        let listens = *fields.get(3)? == LISTEN && ports.contains(&port);
        let queue = u64::from_str_radix(fields.get(4)?.split_once(':')?.1, 16).ok()?;
        listens.then_some(queue)
    };
    text.lines().filter_map(waiting).max().unwrap_or(0)
}

/// The worst of what was seen, and when `/route` asked whom to wait for how long.
#[derive(Debug, Default)]
struct Seen {
    /// When it was asked, and the delay it gave.
    delays: Vec<(Instant, Duration)>,
    accept_queue: u64,
    lease_age: f64,
    canary_age: f64,
    accepts_min: Option<f64>,
}

impl Seen {
    fn print(&self, killed: Instant) {
        let handed: Vec<Duration> =
            self.delays.iter().filter(|(at, _)| *at > killed).map(|(_, delay)| *delay).collect();
        let waiting: Vec<Duration> = handed.iter().copied().filter(|delay| !delay.is_zero()).collect();
        let ms = |q| quantile(&waiting, q).as_millis();
        println!(
            "  /route asked for patience in {} of {} samples: p50 {} ms, p95 {} ms, max {} ms",
            waiting.len(),
            handed.len(),
            ms(0.5),
            ms(0.95),
            ms(1.0)
        );
        println!(
            "  longest accept queue {}, oldest lease {:.1} s, oldest canary {:.1} s, lowest accept rate {}/s",
            self.accept_queue,
            self.lease_age,
            self.canary_age,
            self.accepts_min.unwrap_or(0.0)
        );
    }
}

/// Looks at the nodes that stay, and asks a coordinator, until it is told to end. On threads of its own.
struct Watch {
    stop: Arc<AtomicBool>,
    looking: std::thread::JoinHandle<Seen>,
    queue: std::thread::JoinHandle<u64>,
}

impl Watch {
    fn start(cluster: &Cluster, hit: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let admins: Vec<SocketAddr> = NODES[1..].iter().map(|name| cluster.node(name).admin).collect();
        let nodes = NODES[1..].iter().map(|name| cluster.node(name).listen.port());
        let ports: Vec<u16> = nodes.chain(cluster.coordinators().iter().map(|c| c.listen.port())).collect();
        let front = cluster.front().url;
        let asked: Vec<String> =
            hit.iter().take(ASKED).map(|user| format!("{front}/route?userId={user}")).collect();
        let until = Arc::clone(&stop);
        let queue = std::thread::spawn(move || {
            let mut longest = 0;
            while !until.load(Ordering::Relaxed) {
                longest = longest.max(accept_queue(&ports));
                std::thread::sleep(QUEUE_EVERY);
            }
            longest
        });
        let until = Arc::clone(&stop);
        let looking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(look(&until, &admins, &asked))
        });
        Self { stop, looking, queue }
    }

    async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(|| (self.looking.join(), self.queue.join())).await;
        let (seen, queue) = joined.expect("they look until the end");
        Seen { accept_queue: queue.expect("it looks until the end"), ..seen.expect("it looks until the end") }
    }
}

async fn look(stop: &AtomicBool, admins: &[SocketAddr], asked: &[String]) -> Seen {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(3)).build().expect("an HTTP client");
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        seen.look(&http, admins).await;
        seen.ask(&http, asked).await;
        sleep(LOOK_EVERY).await;
    }
    seen
}

impl Seen {
    async fn look(&mut self, http: &reqwest::Client, admins: &[SocketAddr]) {
        for admin in admins {
            let Some(all) = scrape(http, *admin).await else { continue };
            let value = |name: &str| all.get(name).copied().unwrap_or(0.0);
            self.lease_age = self.lease_age.max(value("roost_lease_age_seconds"));
            self.canary_age = self.canary_age.max(value("roost_canary_age_seconds"));
            let accepts = value("roost_accepts_per_second");
            self.accepts_min = Some(self.accepts_min.unwrap_or(accepts).min(accepts));
        }
    }

    async fn ask(&mut self, http: &reqwest::Client, urls: &[String]) {
        let at = Instant::now();
        let delay = async |url: &String| {
            let answer = http.get(url).send().await.ok()?;
            let body: serde_json::Value = answer.json().await.ok()?;
            Some(Duration::from_millis(body["connect_after_ms"].as_u64()?))
        };
        let delays = futures_util::future::join_all(urls.iter().map(delay)).await;
        self.delays.extend(delays.into_iter().flatten().map(|delay| (at, delay)));
    }
}
