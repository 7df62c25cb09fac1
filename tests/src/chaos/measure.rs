//! Two measurements: how long a dead node is missed, and what a planned stop of a full one does to its users. And
//! what every measurement needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use roost_proto::events::{CHAT_EVENTS, Status, StatusEvent, USER_STATUS_EVENTS};
use tokio::time::{Instant, sleep};

use super::options::Options;
use super::outside::Outside;
use super::scenario::NODES;
use super::visitors::Visitors;
use crate::chat::Chat;
use crate::cluster::services::Services;
use crate::conversation::Talk;
use crate::ledger::{Ledger, quantile};
use crate::processes::{Cluster, ClusterSetup, NodeSetup, Signal};
use crate::topic_reader::{TopicReader, statuses};
use crate::verdict::times;

/// Enough that a user gets a message every fifth of a second: the times are as exact as that.
const TALKERS_PER_NODE: usize = 12;
const TALK_PACE: Duration = Duration::from_millis(200);
/// Who leaves when the home dies, so that nobody can tell.
const LEAVING: usize = 4;
/// The part of the time to a true presence that is configured, and not measured.
const GRACE: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For whatever is measured; then it is no measurement.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
/// Who speaks to the users of the node that is stopped, how often, and how long before.
const SPEAKERS: usize = 100;
const SPEAKERS_PACE: Duration = Duration::from_millis(250);
const BEFORE: Duration = Duration::from_secs(20);
/// What is sent that long after the end is still counted to it.
const AFTER: Duration = Duration::from_secs(2);

/// Thousands of clients have thousands of addresses, and here they have one, whose rate is limited.
pub(super) fn one_address() -> (&'static str, String) {
    ("HANDSHAKES_PER_S", "0".to_owned())
}

/// Three nodes, settled, on services of this run.
pub(super) async fn cluster(options: &Options, setup: ClusterSetup) -> anyhow::Result<Cluster> {
    std::fs::create_dir_all(&options.out)?;
    let outside = Outside::start().await?;
    let services = Services::at(outside.kafka(), format!("redis://{}", outside.redis()));
    let mut cluster = Cluster::launch(services, setup);
    for name in NODES {
        cluster.start_node(name, NodeSetup::default());
    }
    cluster.settled().await;
    Ok(cluster)
}

/// SIGKILL to a node, many times: until its users get messages at their new home, and until what is said of them
/// is true again.
///
/// # Errors
/// If something is not to be measured.
pub async fn failover(options: &Options) -> anyhow::Result<()> {
    let [linger_ms, grace_ms] = [LINGER, GRACE].map(|time| time.as_millis() as u64);
    let mut cluster = cluster(options, ClusterSetup { linger_ms, grace_ms, ..options.cluster() }).await?;
    let ring = cluster.settled().await;
    let names = cluster.users_at(&ring, &NODES.map(|name| (name, TALKERS_PER_NODE)));
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let talk = Talk::open(&cluster, names.clone()).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let began = Instant::now();
    let speech = talk.speak(&everybody, &everybody, TALK_PACE);
    let (mut delivered, mut there, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for kill in 0..options.kills {
        let victim = NODES[kill % NODES.len()];
        sleep(options.lease().mul_f64(0.1 * (kill % 7) as f64)).await;
        let ring = cluster.settled().await;
        let hit: Vec<usize> = everybody
            .iter()
            .copied()
            .filter(|user| cluster.home_in(&ring, &names[*user]) == victim)
            .collect();
        let hit_names: Vec<String> = hit.iter().map(|user| names[*user].clone()).collect();
        let leaving = Visitors::come(&cluster, cluster.users_at(&ring, &[(victim, LEAVING)])).await;
        let leavers = leaving.here();
        let killed = Instant::now();
        cluster.node_mut(victim).process.kill();
        let left = tokio::spawn(leaving.leave());
        let firsts = first_deliveries(&talk, &hit, killed).await?;
        delivered.extend(&firsts);
        there.push(shown(&cluster, &hit_names, "online", killed).await?);
        gone.push(shown(&cluster, &leavers, "offline", killed).await?.saturating_sub(GRACE));
        left.await?;
        cluster.restart_node(victim);
        println!("{kill:>3} {victim:<6} {}", times(&firsts));
    }
    speech.end().await;
    talk.all_arrived(began).await;
    cluster.kill_all();
    let ledger = talk.close().await;
    println!("{} kills, lease {:?}; from SIGKILL", options.kills, options.lease());
    println!("  to the first delivery at the new home, of each user   {}", times(&delivered));
    println!("  until /presence is true of who is there, of each kill {}", times(&there));
    println!("  ... and of who left, less the grace of {GRACE:?}          {}", times(&gone));
    verdict(&ledger, &chat, &names, began).await
}

/// For each user the time until the first message arrived that was sent after `since`.
async fn first_deliveries(talk: &Talk, users: &[usize], since: Instant) -> anyhow::Result<Vec<Duration>> {
    loop {
        let firsts: Vec<Duration> = {
            let ledger = talk.ledger();
            let first = |user: &usize| {
                let new = ledger.sent.values().filter(|s| s.to == *user && s.at >= since);
                new.filter_map(|s| s.arrived).min().map(|at| at - since)
            };
            users.iter().filter_map(first).collect()
        };
        if firsts.len() == users.len() {
            return Ok(firsts);
        }
        ensure!(since.elapsed() < GIVEN_UP_AFTER, "after {GIVEN_UP_AFTER:?} not all users have messages");
        sleep(LOOK_EVERY).await;
    }
}

/// The time until all of them are shown so, by a home that knows.
async fn shown(
    cluster: &Cluster,
    users: &[String],
    status: &str,
    since: Instant,
) -> anyhow::Result<Duration> {
    loop {
        let seen = cluster.presence(users).await.unwrap_or_default();
        if seen.len() == users.len() && seen.iter().all(|(shown, stale)| shown == status && !stale) {
            return Ok(since.elapsed());
        }
        ensure!(since.elapsed() < GIVEN_UP_AFTER, "not {status} after {GIVEN_UP_AFTER:?}: {seen:?}");
        sleep(LOOK_EVERY).await;
    }
}

/// SIGTERM to a node with many sessions, under load.
///
/// # Errors
/// If something is not to be measured.
pub async fn drain(options: &Options) -> anyhow::Result<()> {
    let mut cluster =
        cluster(options, ClusterSetup { vars: vec![one_address()], ..options.cluster() }).await?;
    let ring = cluster.settled().await;
    let wanted = [(NODES[0], options.sessions), (NODES[1], SPEAKERS / 2), (NODES[2], SPEAKERS / 2)];
    let names = cluster.users_at(&ring, &wanted);
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let status = TopicReader::start(&cluster, USER_STATUS_EVENTS).await;
    let connecting = Instant::now();
    let talk = Talk::open(&cluster, names.clone()).await;
    println!("{} clients connected in {:.1?}", names.len(), connecting.elapsed());
    let (users, speakers): (Vec<usize>, Vec<usize>) =
        (0..names.len()).partition(|user| *user < options.sessions);
    let began = Instant::now();
    let speech = talk.speak(&speakers, &users, SPEAKERS_PACE);
    sleep(BEFORE).await;
    let stopped = Instant::now();
    let node = cluster.node_mut(NODES[0]);
    node.process.signal(Signal::Terminate).await;
    let code = node.process.ended().await;
    let ended = Instant::now();
    sleep(AFTER).await;
    speech.end().await;
    talk.all_arrived(began).await;
    let published = statuses(&status.all().await);
    cluster.kill_all();
    let ledger = talk.close().await;
    let before = longest(&ledger, began, stopped);
    let during = longest(&ledger, stopped, ended + AFTER);
    println!("a node with {} sessions stopped in {:.2?}: {code}", users.len(), ended - stopped);
    println!("  longest from send to delivery, of each user that was sent something");
    println!("    before   {}", percentiles(&before));
    println!("    draining {}", percentiles(&during));
    let gap = |q| quantile(&during, q).saturating_sub(quantile(&before, q)).as_millis();
    println!("    gap      p50 {} ms, p99 {} ms", gap(0.5), gap(0.99));
    println!("  users that flapped: {}", published_offline(&published, &names[..users.len()]));
    println!("  users told to read the history: {}", ledger.missed.len());
    ensure!(code.success(), "the node ended with {code}");
    verdict(&ledger, &chat, &names, began).await
}

pub(super) fn percentiles(times: &[Duration]) -> String {
    let at = |q| quantile(times, q).as_millis();
    format!("p50 {} ms, p99 {} ms, max {} ms, of {}", at(0.5), at(0.99), at(1.0), times.len())
}

/// How many of them were ever said to be offline.
pub(super) fn published_offline(published: &BTreeMap<String, Vec<StatusEvent>>, users: &[String]) -> usize {
    let offline = |events: &Vec<StatusEvent>| events.iter().any(|event| event.status == Status::Offline);
    users.iter().filter(|user| published.get(*user).is_some_and(offline)).count()
}

/// For each user the longest time between send and delivery, of the messages sent in that span.
fn longest(ledger: &Ledger, from: Instant, to: Instant) -> Vec<Duration> {
    let mut of_user: BTreeMap<usize, Duration> = BTreeMap::new();
    for s in ledger.sent.values().filter(|s| s.at >= from && s.at < to) {
        let took = s.arrived.map_or(Duration::MAX, |at| at - s.at);
        let longest = of_user.entry(s.to).or_default();
        *longest = (*longest).max(took);
    }
    of_user.into_values().collect()
}

/// Prints what is lost, doubled or out of order: nothing, or it is an error.
pub(super) async fn verdict(
    ledger: &Ledger,
    chat: &TopicReader,
    names: &[String],
    since: Instant,
) -> anyhow::Result<()> {
    let seen = ledger.flaws(since);
    let logged = Chat::judge(&chat.all().await, names, ledger);
    let lost: BTreeSet<_> =
        seen.lost.iter().chain(&logged.flaws.lost).filter_map(|flaw| flaw.id.as_ref()).collect();
    let doubled = seen.doubled.len() + logged.flaws.doubled.len();
    let order = seen.disordered.len() + logged.flaws.disordered.len();
    println!(
        "  acked {}, lost {}, doubled {doubled}, order broken {order}",
        ledger.acked_since(since),
        lost.len()
    );
    let none = lost.is_empty() && doubled + order == 0;
    none.then_some(()).context("promises were broken")
}
