//! PostgreSQL is killed in the middle of a transaction, and then the archiver again and again: what is in the tables
//! afterwards, and what those who send notice.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roost_proto::events::CHAT_EVENTS;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;

use super::leaderless::show;
use super::measure::{cluster, verdict};
use super::options::Options;
use super::outside::{Outside, Service};
use super::scenario::NODES;
use crate::archive::column;
use crate::conversation::Talk;
use crate::processes::free_addr;
use crate::topic_reader::TopicReader;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For whatever is waited for; then it is no measurement.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(300);
/// A killed archiver's share is read again when it is taken for dead; then it is killed within so long, in
/// milliseconds.
const KILL_WITHIN_MS: u64 = 2_000;
const LAG: &str = "roost_archive_lag_records{topic=\"chat_events\"}";

/// PostgreSQL away for two outages, then so many SIGKILLs to the archiver, under load that goes on.
///
/// # Errors
/// If something is not to be measured, or a promise is broken.
pub async fn archive(options: &Options) -> anyhow::Result<()> {
    let phase = 2 * options.outage();
    let mut random = StdRng::seed_from_u64(options.seed);
    let outside = Outside::start().await?;
    let url = outside.postgres().await?;
    let mut cluster = cluster(options, options.cluster()).await?;
    let ring = cluster.settled().await;
    let names = cluster.users_at(&ring, &NODES.map(|node| (node, options.clients / NODES.len())));
    let (admin, chat) = (free_addr(), TopicReader::start(&cluster, CHAT_EVENTS).await);
    // Half a second of the load is on its way at any time.
    let archived = Archived { url: &url, chat: &chat, behind_max: options.rate as u64 / 2 };
    let mut archiver = cluster.start_archiver(&url, admin);
    let talk = Talk::open(&cluster, names.clone()).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let pace = Duration::from_secs_f64(names.len() as f64 / options.rate as f64);
    let speech = talk.speak(&everybody, &everybody, pace);
    archived.grows().await?;
    let began = Instant::now();
    sleep(phase).await;

    let killed = archived.kill_in_a_transaction(&outside).await?;
    sleep(phase).await;
    let waiting = cluster.value_of(admin, LAG).await;
    outside.up(Service::Postgres).await?;
    let (back, before) = (Instant::now(), archived.so_far().await?);
    archived.catches_up().await?;
    let (caught_up, more) = (Instant::now(), archived.so_far().await? - before);
    let rate = more as f64 / (caught_up - back).as_secs_f64();

    for kill in 1..=options.kills {
        sleep(Duration::from_millis(random.random_range(0..KILL_WITHIN_MS))).await;
        archiver.kill();
        archiver = cluster.start_archiver(&url, admin);
        archived.grows().await.with_context(|| format!("after kill {kill}"))?;
    }
    let ended = Instant::now();
    speech.end().await;
    talk.all_arrived(began).await;
    Archived { behind_max: 0, ..archived }.catches_up().await?;
    cluster.kill_all();
    archiver.kill();
    let ledger = talk.close().await;

    let sent = ledger.sent.values().filter(|sent| sent.at >= began && sent.at < ended).count();
    let rate_sent = sent as f64 / (ended - began).as_secs_f64();
    println!("{} users send {rate_sent:.0} messages a second", names.len());
    for (what, from, to) in [
        ("before", began, killed),
        ("PostgreSQL away", killed, back),
        ("catching up", back, caught_up),
        ("the archiver is killed", caught_up, ended),
    ] {
        println!("  {what}, {:.0?}", to - from);
        show("send to delivery", &ledger, from, to, |sent| sent.arrived);
        show("send to reply", &ledger, from, to, |sent| sent.acked);
    }
    println!("  {waiting} records waited; {rate:.0} a second were archived until none did");
    let acknowledged: BTreeSet<String> =
        ledger.sent.iter().filter(|(_, sent)| sent.acked.is_some()).map(|(id, _)| id.clone()).collect();
    let ids = archived.ids(&names).await?;
    let once: BTreeSet<&String> = ids.iter().collect();
    let lost = acknowledged.iter().filter(|id| !once.contains(id)).count();
    let doubled = ids.len() - once.len();
    println!("  {} acknowledged, {} rows: {lost} lost, {doubled} doubled", acknowledged.len(), ids.len());
    ensure!(lost == 0 && doubled == 0, "the archive has not each message once");
    verdict(&ledger, &chat, &names, began).await
}

/// The tables, beside the topic.
struct Archived<'a> {
    url: &'a str,
    chat: &'a TopicReader,
    behind_max: u64,
}

impl Archived<'_> {
    /// Records that are in the tables; none before the archiver has made them.
    async fn so_far(&self) -> anyhow::Result<u64> {
        let there: Vec<i64> =
            column(self.url, "SELECT count(*) FROM pg_tables WHERE tablename = 'positions'").await?;
        if there == [0] {
            return Ok(0);
        }
        let next = "SELECT coalesce(sum(next), 0)::bigint FROM positions WHERE topic = 'chat_events'";
        Ok(column::<i64>(self.url, next).await?[0].unsigned_abs())
    }

    /// Waits until more come.
    async fn grows(&self) -> anyhow::Result<()> {
        let (since, before) = (Instant::now(), self.so_far().await?);
        while self.so_far().await? <= before {
            ensure!(since.elapsed() < GIVEN_UP_AFTER, "nothing is archived");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until nothing is left but what is on its way.
    async fn catches_up(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        while self.so_far().await? + self.behind_max < self.chat.ends().await.iter().sum() {
            ensure!(since.elapsed() < GIVEN_UP_AFTER, "it does not catch up");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// SIGKILL to the postmaster, while the archiver has moved its positions and waits for us to let it store the rows.
    async fn kill_in_a_transaction(&self, outside: &Outside) -> anyhow::Result<Instant> {
        let (client, connection) = tokio_postgres::connect(self.url, NoTls).await?;
        let driving = tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE messages IN SHARE MODE").await?;
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'messages'::regclass";
        let since = Instant::now();
        while client.query_one(waits, &[]).await?.get::<_, i64>(0) == 0 {
            ensure!(since.elapsed() < GIVEN_UP_AFTER, "nobody stores anything");
            sleep(LOOK_EVERY).await;
        }
        outside.signal(Service::Postgres, "KILL").await?;
        let killed = Instant::now();
        // Its processes see that it is gone, and end.
        timeout(GIVEN_UP_AFTER, driving).await.context("PostgreSQL goes on")?.ok();
        Ok(killed)
    }

    /// Of all messages to these users.
    async fn ids(&self, users: &[String]) -> anyhow::Result<Vec<String>> {
        let streams: Vec<String> = users.iter().map(|user| format!("'user:{user}'")).collect();
        let select =
            format!("SELECT id FROM messages WHERE kind = 'message' AND stream IN ({})", streams.join(", "));
        Ok(column(self.url, &select).await?)
    }
}
