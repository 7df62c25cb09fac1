//! Every coordinator is dead for a while: what those who are connected notice.

use std::time::Duration;

use anyhow::ensure;
use roost_proto::events::CHAT_EVENTS;
use tokio::time::{Instant, sleep};

use super::measure::{cluster, percentiles, verdict};
use super::options::Options;
use super::scenario::NODES;
use crate::conversation::Talk;
use crate::ledger::{Ledger, quantile};
use crate::topic_reader::TopicReader;

/// Of each phase: how much its parts differ among themselves is what counts as noise.
const PARTS: u32 = 6;

/// SIGKILL to all coordinators for two outages, under load that goes on.
///
/// # Errors
/// If something is not to be measured, or a promise is broken.
pub async fn leaderless(options: &Options) -> anyhow::Result<()> {
    let phase = 2 * options.outage();
    let mut cluster = cluster(options, options.cluster()).await?;
    let ring = cluster.settled().await;
    let each = options.clients / NODES.len();
    let names = cluster.users_at(&ring, &NODES.map(|node| (node, each)));
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let talk = Talk::open(&cluster, names.clone()).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let pace = Duration::from_secs_f64(names.len() as f64 / options.rate as f64);
    let speech = talk.speak(&everybody, &everybody, pace);
    // Not counted: everything is done for the first time.
    sleep(phase / PARTS).await;
    let began = Instant::now();
    sleep(phase).await;
    let dead = Instant::now();
    (0..2).for_each(|i| cluster.kill_coordinator(i));
    sleep(phase).await;
    let back = Instant::now();
    (0..2).for_each(|i| cluster.start_coordinator(i));
    sleep(phase).await;
    let ended = Instant::now();
    speech.end().await;
    talk.all_arrived(began).await;
    cluster.settled().await;
    cluster.kill_all();
    let ledger = talk.close().await;
    println!("{} users send {} messages a second, for {phase:?} in each phase", names.len(), options.rate);
    for (what, from, to) in
        [("before", began, dead), ("no coordinator", dead, back), ("coordinators back", back, ended)]
    {
        println!("  {what}");
        show("send to delivery", &ledger, from, to, |sent| sent.arrived);
        show("send to reply", &ledger, from, to, |sent| sent.acked);
    }
    let during = began..ended;
    let lost = ledger.states.iter().filter(|(at, _, connected)| during.contains(at) && !connected).count();
    println!("  connections lost: {lost}");
    ensure!(lost == 0, "clients noticed");
    verdict(&ledger, &chat, &names, began).await
}

/// Prints what the times of a phase were.
pub(super) fn show(
    what: &str,
    ledger: &Ledger,
    from: Instant,
    to: Instant,
    end: impl Fn(&crate::ledger::Sent) -> Option<Instant>,
) {
    let times = |from: Instant, to: Instant| -> Vec<Duration> {
        let sent = ledger.sent.values().filter(|s| s.at >= from && s.at < to);
        sent.map(|s| end(s).map_or(Duration::MAX, |at| at - s.at)).collect()
    };
    let part = (to - from) / PARTS;
    let p99 = |k: u32| quantile(&times(from + k * part, from + (k + 1) * part), 0.99).as_millis();
    let parts: Vec<String> = (0..PARTS).map(|k| p99(k).to_string()).collect();
    println!("    {what:<17} {}; p99 of each {part:.0?}: {}", percentiles(&times(from, to)), parts.join(" "));
}
