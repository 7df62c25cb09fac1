//! One run: rounds of faults in an order that the seed decides, under a conversation that never stops.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use roost_proto::events::{CHAT_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::HISTORY;
use super::company::{ABSENT, Company};
use super::dump;
use super::options::Options;
use super::outside::Outside;
use super::scenario::{NODES, Scenario, Stage};
use super::visitors::Visitors;
use crate::conversation::{Habits, Talk};
use crate::history::{History, What};
use crate::ledger::Ledger;
use crate::processes::{LIMIT, VNODES};

/// For everybody to have new messages again after a fault; then the run is stopped.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// Longer than any fault: what the application gives to the SDK stays there.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);
/// Of all clients, this part only comes and goes.
const VISITORS: f64 = 0.1;
/// One in five sends asks for a receipt, and every tenth message is read.
const HABITS: Habits = Habits { receipt_every: 5, read_every: 10 };
/// What the checker reads.
const DUMPED: [&str; 4] = [CHAT_EVENTS, USER_STATUS_EVENTS, UNDELIVERED_EVENTS, CLIENT_EVENTS];
/// Users who speak only when somebody has to be flooded.
const SHOUTERS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// From the last confirmation to the last delivery: in a calm cluster a thousand times as long as it takes. What has
/// to be read in the history never arrives.
const ARRIVED_WITHIN: Duration = Duration::from_secs(3);
/// From a change in a roster to its record in Kafka, generously.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(1);

/// Runs it, and leaves everything in the directory.
///
/// # Errors
/// If a fault could not be done, or the cluster did not recover.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let mut stage = Stage::set(Outside::with_brokers(options.brokers).await?, options).await;
    settle(&mut stage, None).await?;
    let cast = Cast::of(stage.cluster.run(), options.clients);
    let history = History::create(&options.out.join(HISTORY))?;
    let mut ledger = Ledger::with(history);
    let (seed, settings) = (options.seed, options.settings());
    println!("seed {seed}: {settings}");
    let names = cast.names.iter().chain(&cast.absent).cloned().collect();
    ledger.note(What::Run { seed, settings, names, made: options.made(cast.absent.len()) });
    let front = stage.cluster.front();
    let mut talk = Talk::open_as(&front, cast.names.clone(), ledger, SEND_TIMEOUT, HABITS).await;
    talk.elsewhere.clone_from(&cast.absent);
    let visitors = Visitors::come(&stage.cluster, cast.visitors.clone()).await;
    let kafka = stage.outside.kafka();
    let company = Company::gather(options, &talk, &cast.talkers, &cast.visitors, kafka).await?;
    let pace = Duration::from_secs(1).mul_f64(cast.talkers.len() as f64 / options.rate as f64);
    let began = Instant::now();
    let speech = talk.speak(&cast.talkers, &cast.talkers, pace);
    let visitors = all_rounds(options, &mut stage, &talk, &cast, visitors).await?;
    speech.end().await;
    company.end().await;
    sleep(ARRIVED_WITHIN).await;
    println!("{:.0?} of conversation; reading the topics", began.elapsed());
    visitors.leave().await;
    talk.close().await;
    stage.cluster.kill_all();
    let (brokers, out) = (stage.outside.kafka(), options.out.clone());
    spawn_blocking(move || DUMPED.iter().try_for_each(|topic| dump::write(&brokers, topic, &out))).await?
}

/// Who plays what. Those who speak come first.
struct Cast {
    names: Vec<String>,
    talkers: Vec<usize>,
    shouters: Vec<usize>,
    visitors: Vec<String>,
    absent: Vec<String>,
}

impl Cast {
    fn of(run: &str, clients: usize) -> Self {
        let visitors = (clients as f64 * VISITORS) as usize;
        let talkers = clients.saturating_sub(visitors + SHOUTERS).max(2);
        let name = |n| format!("{run}-{n}");
        Self {
            names: (0..talkers + SHOUTERS).map(name).collect(),
            talkers: (0..talkers).collect(),
            shouters: (talkers..talkers + SHOUTERS).collect(),
            visitors: (talkers + SHOUTERS..talkers + SHOUTERS + visitors).map(name).collect(),
            absent: (0..ABSENT).map(|n| format!("{run}-absent-{n}")).collect(),
        }
    }
}

async fn all_rounds(
    options: &Options,
    stage: &mut Stage,
    talk: &Talk,
    cast: &Cast,
    mut visitors: Visitors,
) -> anyhow::Result<Visitors> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut round = 0;
    for _ in 0..options.rounds {
        let mut faults = options.faults.clone();
        faults.shuffle(&mut rng);
        for fault in faults {
            round += 1;
            let moving =
                tokio::spawn(visitors.move_about(StdRng::seed_from_u64(rng.random()), options.outage()));
            // Some have come and some gone by then, and of those some are not published yet.
            sleep(options.outage().mul_f64(rng.random_range(0.0..0.4))).await;
            let since = Instant::now();
            let mut scene = Scenario {
                stage: &mut *stage,
                talk,
                options,
                rng: &mut rng,
                round,
                shouters: &cast.shouters,
                fault: fault.name(),
                affected: Vec::new(),
                since,
            };
            scene.inject(fault).await.with_context(|| format!("round {round}: {fault}"))?;
            let recovered = recovered(&scene).await;
            visitors = moving.await?;
            settle(stage, Some((talk, round))).await?;
            let wrong = presence(options, stage, talk, cast, &visitors, round).await?;
            println!("{round:>3} {fault:<22} {recovered}, {wrong} wrong in presence");
        }
    }
    Ok(visitors)
}

/// Waits until everyone who was hit has been sent a message since then that is confirmed and has arrived, and until
/// everything that anybody sent before that is confirmed: a way between two nodes that stays shut is found by that.
async fn recovered(scene: &Scenario<'_>) -> String {
    let limit = Instant::now() + RECOVERED_WITHIN;
    let mut fresh_at = None;
    loop {
        let missing = match fresh_at {
            None => stale(scene),
            Some(at) => unconfirmed(scene, at),
        };
        if missing.is_empty() && fresh_at.is_none() {
            fresh_at = Some(Instant::now());
        } else if missing.is_empty() || Instant::now() > limit {
            let words = match missing.len() {
                0 => format!("recovered after {:.2?}", scene.since.elapsed()),
                n => format!("NOT RECOVERED: {n} users"),
            };
            scene.note(What::Recovered { round: scene.round, missing });
            return words;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Of those who were hit, who has no new message.
fn stale(scene: &Scenario<'_>) -> Vec<usize> {
    let ledger = scene.talk.ledger();
    let new =
        ledger.sent.values().filter(|s| s.at >= scene.since && s.acked.is_some() && s.arrived.is_some());
    let fresh: BTreeSet<usize> = new.map(|s| s.to).collect();
    scene.affected.iter().copied().filter(|user| !fresh.contains(user)).collect()
}

/// To whom something was sent before `at` that is not confirmed, and who published such to a room.
fn unconfirmed(scene: &Scenario<'_>, at: Instant) -> Vec<usize> {
    let ledger = scene.talk.ledger();
    let waiting = ledger.sent.values().filter(|s| s.at < at && s.acked.is_none()).map(|s| s.to);
    let published = ledger.published.values().filter(|p| p.at < at && p.acked.is_none()).map(|p| p.from);
    waiting.chain(published).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Waits until every vnode is ready at the node that should have it. A node that ended by itself is noted and
/// started again.
async fn settle(stage: &mut Stage, noted: Option<(&Talk, usize)>) -> anyhow::Result<()> {
    let limit = Instant::now() + RECOVERED_WITHIN;
    loop {
        let running = stage.cluster.running();
        for name in NODES.into_iter().filter(|name| !running.contains(name)) {
            let process = name.to_owned();
            let (talk, round) = noted.with_context(|| format!("{name} does not start"))?;
            println!("    {name} has ended by itself");
            talk.ledger().note(What::Died { round, process });
            stage.start_node(name).await;
        }
        match stage.cluster.settles().await {
            Ok(_) => return Ok(()),
            Err(why) => ensure!(Instant::now() < limit, "it does not settle: {why}, of {VNODES} vnodes"),
        }
        sleep(LOOK_EVERY).await;
    }
}

/// When grace and linger have passed: whether what is shown is true, with some time to become so.
async fn presence(
    options: &Options,
    stage: &Stage,
    talk: &Talk,
    cast: &Cast,
    visitors: &Visitors,
    round: usize,
) -> anyhow::Result<usize> {
    sleep(options.quiet()).await;
    let online: Vec<String> = cast.names.iter().cloned().chain(visitors.here()).collect();
    let offline = visitors.away();
    let limit = Instant::now() + options.quiet().max(LIMIT);
    let mut wrong = shown_wrong(stage, &online, &offline).await;
    while !wrong.is_empty() && Instant::now() < limit {
        sleep(LOOK_EVERY).await;
        wrong = shown_wrong(stage, &online, &offline).await;
    }
    sleep(PUBLISHED_WITHIN).await;
    let brokers = stage.outside.kafka();
    let ends =
        move || anyhow::Ok((dump::ends(&brokers, USER_STATUS_EVENTS)?, dump::ends(&brokers, CHAT_EVENTS)?));
    let (status_ends, chat_ends) = spawn_blocking(ends).await??;
    let count = wrong.len();
    talk.ledger().note(What::Settled { round, online, offline, wrong, status_ends, chat_ends });
    Ok(count)
}

/// Whom `/presence` shows as something else, and as what.
async fn shown_wrong(stage: &Stage, online: &[String], offline: &[String]) -> BTreeMap<String, String> {
    let users: Vec<String> = online.iter().chain(offline).cloned().collect();
    let Some(shown) = stage.cluster.presence(&users).await else {
        return users.into_iter().map(|user| (user, "no answer".to_owned())).collect();
    };
    let wanted = std::iter::repeat_n("online", online.len()).chain(std::iter::repeat("offline"));
    let told = users.into_iter().zip(shown).zip(wanted);
    let wrong = told.filter(|((_, (status, stale)), wanted)| status != wanted || *stale);
    wrong.map(|((user, (status, stale)), _)| (user, format!("{status}, stale {stale}"))).collect()
}
