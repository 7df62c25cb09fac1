//! One user at its worst, on real Redis and Kafka, beside six pairs that send once a second: what the pairs notice, and
//! what it costs the cluster.
//!
//! Each attack is a file of [`bystanders`](self)/ with a function that prepares, begins to count, and says what it was
//! answered. Being refused is the point: `rate_limited` is no flaw of anybody's. A flaw is what others notice, what a
//! node or Redis has to carry, and what the attack itself names.

mod api_slots;
mod devices;
mod flood;
mod gauges;
mod growth;
mod history;
mod large_sends;
mod pairs;
mod peer;
mod presence;
mod receipts;
mod rollover;
mod round;
mod stopped_readers;
mod undelivered;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use tokio::time::{Instant, sleep, sleep_until};

use self::flood::Answered;
use self::gauges::{Gauges, Peak};
use self::pairs::{PAIRS, Pairs, Report};
use self::peer::Door;
use self::round::Round;
use super::measure::{cluster, one_address};
use super::options::Options;
use super::outside::Outside;
use super::scenario::NODES;
use crate::ledger::quantile;
use crate::processes::{Cluster, ClusterSetup};

/// What fills a room or an inbox before an attack may take so long; with less in it the attack goes on all the same.
const PREPARED_WITHIN: Duration = Duration::from_secs(20);
/// By how much a node may grow.
const GROWTH_MB_MAX: f64 = 64.0;
/// Bytes that Redis may say for each byte that is answered.
const READ_PER_ANSWERED: f64 = 2.0;
/// And for each command that is done: a write is answered with its places, some hundred bytes, on the way in and again
/// when it is confirmed.
const PER_COMMAND_BYTES: f64 = 1_024.0;
/// What was answered to reading the gauges themselves, and leases that fell into the time.
const SLACK_BYTES: f64 = 256_000.0;
/// A suspension shows when a lease was not renewed: a third of the lease and a look.
const AFTER: Duration = Duration::from_secs(2);
/// Until what an attack left is done: messages that nobody acknowledges are reported after half a minute.
const CALM_WITHIN: Duration = Duration::from_secs(60);
/// Redis says less than that in a second when nobody attacks it.
const CALM_BYTES_PER_S: f64 = 100_000.0;
/// After which messages are reported as undelivered: the product's time, and that of the short form.
const UNDELIVERED_AFTER: (Duration, &str) = (Duration::from_secs(30), "30000");
const UNDELIVERED_AFTER_SHORT: (Duration, &str) = (Duration::from_secs(8), "8000");

/// What one user may try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    History,
    LargeSends,
    StoppedReaders,
    Rollover,
    Receipts,
    Undelivered,
    Devices,
    Growth,
    Presence,
    ApiSlots,
}

impl Attack {
    pub const ALL: [Self; 10] = [
        Self::History,
        Self::LargeSends,
        Self::StoppedReaders,
        Self::Rollover,
        Self::Receipts,
        Self::Undelivered,
        Self::Devices,
        Self::Growth,
        Self::Presence,
        Self::ApiSlots,
    ];
    /// Those that show in three seconds; to ask for 11,000 receipts takes ten.
    pub const SHORT: [Self; 9] = [
        Self::Presence,
        Self::ApiSlots,
        Self::Devices,
        Self::Rollover,
        Self::Undelivered,
        Self::Growth,
        Self::History,
        Self::StoppedReaders,
        Self::LargeSends,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::LargeSends => "large_sends",
            Self::StoppedReaders => "stopped_readers",
            Self::Rollover => "rollover",
            Self::Receipts => "receipts",
            Self::Undelivered => "undelivered",
            Self::Devices => "devices",
            Self::Growth => "growth",
            Self::Presence => "presence",
            Self::ApiSlots => "api_slots",
        }
    }

    async fn run(self, round: &mut Round<'_>) -> anyhow::Result<Answered> {
        match self {
            Self::History => history::attack(round).await,
            Self::LargeSends => large_sends::attack(round).await,
            Self::StoppedReaders => stopped_readers::attack(round).await,
            Self::Rollover => rollover::attack(round).await,
            Self::Receipts => receipts::attack(round).await,
            Self::Undelivered => undelivered::attack(round).await,
            Self::Devices => devices::attack(round).await,
            Self::Growth => growth::attack(round).await,
            Self::Presence => presence::attack(round).await,
            Self::ApiSlots => api_slots::attack(round).await,
        }
    }
}

impl FromStr for Attack {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|attack| attack.name() == name);
        found.with_context(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|attack| attack.name()).collect();
            format!("'{name}' is no attack; there are {}", names.join(", "))
        })
    }
}

/// One attack after the other. In full each has a cluster of its own, so that nothing of an earlier one is in its
/// numbers; in short they share one.
///
/// # Errors
/// If something is asserted that is not so, or cannot be measured.
pub async fn bystanders(options: &Options) -> anyhow::Result<()> {
    let lasts = Duration::from_secs(options.seconds);
    let mut table = Table::default();
    let mut kept: Option<Arena> = None;
    for attack in &options.attacks {
        let reusable = match kept.take() {
            Some(arena) if options.short => arena.calm().await,
            _ => None,
        };
        let arena = match reusable {
            Some(arena) => arena,
            None => Arena::open(options, lasts).await?,
        };
        println!("{} for {lasts:.0?}", attack.name());
        let (arena, row) = arena.attacked(*attack, lasts).await?;
        table.add(row);
        kept = Some(arena);
    }
    let text = table.text();
    std::fs::write(options.out.join("bystanders.md"), &text)?;
    println!("\n{text}");
    ensure!(table.flaws == 0, "one user does what it may not; flaws: {}", table.flaws);
    Ok(())
}

/// A cluster with bystanders, and what it is without an attack.
struct Arena {
    // Dropped in this order: who talks before whom they talk to.
    pairs: Pairs,
    cluster: Cluster,
    door: Door,
    redis: MultiplexedConnection,
    undelivered_after: Duration,
    quiet: Report,
    /// What Redis says in a second.
    floor_bytes: f64,
}

impl Arena {
    async fn open(options: &Options, lasts: Duration) -> anyhow::Result<Self> {
        let mut redis = gauges::redis(&format!("redis://{}", Outside::start().await?.redis())).await?;
        // What an earlier cluster kept is none of this one's.
        let () = cmd("FLUSHALL").query_async(&mut redis).await?;
        let (undelivered_after, ms) = if options.short { UNDELIVERED_AFTER_SHORT } else { UNDELIVERED_AFTER };
        let vars =
            vec![one_address(), ("OPEN_ROOMS", "true".to_owned()), ("UNDELIVERED_AFTER_MS", ms.to_owned())];
        // The times of the product: a lease that is shorter would be missed for other reasons.
        let options = Options { scale: 1.0, ..options.clone() };
        let mut cluster = cluster(&options, ClusterSetup { vars, ..options.cluster() }).await?;
        let ring = cluster.settled().await;
        let mut names = Vec::new();
        for pair in 0..PAIRS {
            let at = [NODES[pair % NODES.len()], NODES[(pair + 1) % NODES.len()]];
            names.extend(at.iter().flat_map(|node| cluster.users_at(&ring, &[(*node, 1)])));
        }
        let door = Door { front: cluster.front().url, http: reqwest::Client::new() };
        let pairs = Pairs::begin(&door, names);
        ensure!(pairs.warm().await, "the bystanders do not get through without an attack");
        let (began, before) = (Instant::now(), Gauges::read(&cluster, &redis).await?);
        sleep(lasts).await;
        let (ended, after) = (Instant::now(), Gauges::read(&cluster, &redis).await?);
        let quiet = pairs.report(began, ended).await;
        let floor_bytes = (after.redis_out - before.redis_out) / (ended - began).as_secs_f64();
        Ok(Self { pairs, cluster, door, redis, undelivered_after, quiet, floor_bytes })
    }

    /// Itself, once nothing is left of the last attack; nothing if that takes too long, or a process has ended.
    async fn calm(mut self) -> Option<Self> {
        let since = Instant::now();
        while since.elapsed() < CALM_WITHIN {
            if self.cluster.running().len() < NODES.len() {
                return None;
            }
            let before = Gauges::read(&self.cluster, &self.redis).await.ok()?.redis_out;
            sleep(Duration::from_secs(1)).await;
            let said = Gauges::read(&self.cluster, &self.redis).await.ok()?.redis_out - before;
            if said < self.floor_bytes + CALM_BYTES_PER_S && self.cluster.settles().await.is_ok() {
                return Some(self);
            }
        }
        None
    }

    async fn attacked(mut self, attack: Attack, lasts: Duration) -> anyhow::Result<(Self, Row)> {
        let (began, before) = (Instant::now(), Gauges::read(&self.cluster, &self.redis).await?);
        let peak = Peak::watch(&self.cluster);
        let mut round =
            Round::new(&self.cluster, &self.door, self.redis.clone(), lasts, self.undelivered_after);
        let answered = attack.run(&mut round).await;
        let ended = Instant::now();
        let counted = round.began().cloned();
        // Before it is waited for: what comes later is nobody's answer.
        let redis = Gauges::read(&self.cluster, &self.redis).await?;
        // An attack that is over at once has its after-effects, and bystanders who send once a second.
        sleep_until(counted.as_ref().map_or(ended, |(from, _)| *from + lasts) + AFTER).await;
        let report = self.pairs.report(began, Instant::now() - AFTER).await;
        let after = Gauges::read(&self.cluster, &self.redis).await?;
        let mut row = Row { attack: attack.name(), ..Row::default() };
        match answered {
            Ok(answered) => row.answered = answered,
            Err(error) => row.flaws.push(format!("the attack cannot be made: {error:#}")),
        }
        row.flaws.extend(counted_once(std::mem::take(&mut row.answered.flaws)));
        row.suspensions = after.suspensions - before.suspensions;
        row.declared_dead = after.declared_dead - before.declared_dead;
        row.grown_mb = peak.above(&before);
        if let Some((from, at)) = counted {
            let time = (ended - from).as_secs_f64();
            row.read_bytes = (redis.redis_out - at.redis_out - self.floor_bytes * time).max(0.0);
            row.commands_per_s = (redis.redis_commands - at.redis_commands) / time;
            row.keys = redis.redis_keys - at.redis_keys;
            row.stored_mb = redis.redis_mb - at.redis_mb;
        }
        let ended: Vec<&str> =
            NODES.into_iter().filter(|name| !self.cluster.node_mut(name).process.is_running()).collect();
        row.flaws.extend(ended.into_iter().map(|name| format!("the process of node {name} ended")));
        row.quiet = Times::of(&self.quiet);
        row.judge(report);
        row.print();
        Ok((self, row))
    }
}

/// What was seen again and again is one flaw.
fn counted_once(flaws: Vec<String>) -> impl Iterator<Item = String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    flaws.into_iter().for_each(|flaw| *times.entry(flaw).or_default() += 1);
    times.into_iter().map(|(flaw, n)| if n == 1 { flaw } else { format!("{flaw} ({n} times)") })
}

/// The middle and the 99th percentile from send to delivery.
#[derive(Debug, Default)]
struct Times {
    p50: Duration,
    p99: Duration,
}

impl Times {
    fn of(report: &Report) -> Self {
        Self { p50: quantile(&report.delivery, 0.5), p99: quantile(&report.delivery, 0.99) }
    }

    fn text(&self) -> String {
        let ms = |time: Duration| {
            if time == Duration::MAX { "never".to_owned() } else { time.as_millis().to_string() }
        };
        format!("{} / {}", ms(self.p50), ms(self.p99))
    }
}

/// One attack and what came of it.
#[derive(Default)]
struct Row {
    attack: &'static str,
    answered: Answered,
    suspensions: f64,
    declared_dead: f64,
    grown_mb: f64,
    read_bytes: f64,
    commands_per_s: f64,
    keys: f64,
    stored_mb: f64,
    quiet: Times,
    attacked: Times,
    sent: usize,
    ok: usize,
    delivered: usize,
    flaws: Vec<String>,
}

impl Row {
    fn judge(&mut self, report: Report) {
        self.attacked = Times::of(&report);
        (self.sent, self.ok, self.delivered) = (report.sent, report.ok, report.delivered);
        let mut flaw = |there: bool, what: String| {
            if there {
                self.flaws.push(what);
            }
        };
        flaw(self.suspensions > 0.0, format!("{} leases were suspended", self.suspensions));
        flaw(self.declared_dead > 0.0, format!("{} nodes were declared dead", self.declared_dead));
        let Report { sent, ok, delivered, refused, lost, .. } = report;
        flaw(sent == 0, "no bystander could send".to_owned());
        flaw(ok < sent, format!("{} of {sent} sends of bystanders were not ok: {refused:?}", sent - ok));
        flaw(delivered < sent, format!("{} of {sent} were not delivered", sent - delivered));
        let first = lost.first().cloned().unwrap_or_default();
        flaw(
            !lost.is_empty(),
            format!("{} connections of bystanders were lost, such as {first}", lost.len()),
        );
        flaw(self.grown_mb > GROWTH_MB_MAX, format!("a node grew by {:.0} MB", self.grown_mb));
        let answered = self.answered.bytes as f64;
        let may = READ_PER_ANSWERED * answered + PER_COMMAND_BYTES * self.answered.ok as f64 + SLACK_BYTES;
        let [read, may, answered] = [self.read_bytes, may, answered].map(|bytes| bytes / 1_000_000.0);
        flaw(
            read > may,
            format!("Redis said {read:.1} MB, for {answered:.1} MB that were answered: more than {may:.1}"),
        );
    }

    fn print(&self) {
        let Answered { ok, limited, refused, closed, bytes, notes, .. } = &self.answered;
        println!(
            "  attacker: {ok} ok, {limited} rate_limited, refused {refused:?}, closed {closed:?}, {bytes} bytes"
        );
        notes.iter().for_each(|note| println!("  {note}"));
        println!(
            "  Redis: {:.0} commands/s, {:.0} keys and {:.1} MB more",
            self.commands_per_s, self.keys, self.stored_mb
        );
        self.flaws.iter().for_each(|flaw| println!("  FLAW: {flaw}"));
    }
}

/// All of them, as in docs/RELIABILITY.md.
#[derive(Default)]
struct Table {
    lines: String,
    flaws: usize,
}

impl Table {
    fn add(&mut self, row: Row) {
        let Row { attack, suspensions, declared_dead, sent, ok, delivered, .. } = &row;
        let (quiet, attacked) = (row.quiet.text(), row.attacked.text());
        let [read, answered] = [row.read_bytes, row.answered.bytes as f64].map(|bytes| bytes / 1_000_000.0);
        let verdict =
            if row.flaws.is_empty() { "good".to_owned() } else { format!("flaws: {}", row.flaws.len()) };
        let _ = writeln!(
            self.lines,
            "| {attack} | {suspensions} | {declared_dead} | {sent} / {ok} / {delivered} | {quiet} | {attacked} | {:.0} MB | {read:.1} / {answered:.1} MB | {verdict} |",
            row.grown_mb
        );
        self.flaws += row.flaws.len();
    }

    fn text(&self) -> String {
        let head = "| attack | suspensions | declared dead | bystanders: sent / ok / delivered | p50 / p99 without, ms | p50 / p99 with, ms | a node grew | Redis said / answered | |";
        format!("{head}\n|---|---|---|---|---|---|---|---|---|\n{}", self.lines)
    }
}
