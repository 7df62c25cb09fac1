//! How fast a private message is, beside the floor of the back ends it is made of, in the same run.
//!
//! One message is: a produce that another node reads, a write to the store, a produce to `chat_events` that is
//! reported, and a produce of the confirm that the sender's node reads. The floor is that sum, measured in turns on the
//! same log and store. Then a room of a thousand, and presence with watchers. `scripts/bench` runs it on the
//! embedded back end and, with `KAFKA_BROKERS` and `REDIS_URL`, on Kafka and Redis; `messages`, `room` or
//! `presence` runs one part. All that is one process, for a quick look; `cluster` ([`processes`]) is what figures are
//! told of.

mod client;
mod cluster;
mod floor;
mod processes;
mod room;
mod watch;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use client::Client;
use cluster::Cluster;

const MESSAGES: usize = 2000;
/// Of the floor and of what is measured beside it.
const TURNS: usize = 3;
const PAIRS: usize = 16;
const IN_FLIGHT: usize = 32;
const THROUGHPUT_FOR: Duration = Duration::from_secs(5);
/// After the last acknowledgement: what is delivered later is taken for lost.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

/// Microseconds at a quantile.
pub(crate) fn quantile(samples: &mut [u64], q: f64) -> u64 {
    samples.sort_unstable();
    samples.get(((samples.len() as f64 - 1.0) * q) as usize).copied().unwrap_or(0)
}

pub(crate) fn median<T: Copy + PartialOrd>(mut all: Vec<T>) -> T {
    all.sort_unstable_by(|a, b| a.partial_cmp(b).expect("numbers"));
    all[all.len() / 2]
}

fn main() -> ExitCode {
    let Err(e) = started() else { return ExitCode::SUCCESS };
    // An error is one line, whatever the environment says of backtraces.
    eprintln!("roost-bench: {e:#}");
    ExitCode::FAILURE
}

fn started() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let first = std::env::args().nth(1);
    match first.as_deref() {
        Some("cluster") => {
            let options = processes::Options::parse_from(std::env::args().skip(1));
            runtime.block_on(processes::run(options))
        }
        Some("floor-server") => runtime.block_on(processes::serve_floor()),
        // `messages`, `room` or `presence`: that alone.
        only => runtime.block_on(all(only)),
    }
}

async fn all(only: Option<&str>) -> Result<()> {
    run("embedded, in memory", Cluster::embedded().await?, only).await?;
    match (std::env::var("KAFKA_BROKERS"), std::env::var("REDIS_URL")) {
        (Ok(brokers), Ok(redis)) => {
            run("Kafka and Redis", Cluster::services(&brokers, &redis).await?, only).await?;
        }
        _ => println!("(set KAFKA_BROKERS and REDIS_URL for the same on Kafka and Redis)"),
    }
    Ok(())
}

async fn run(name: &str, cluster: Cluster, only: Option<&str>) -> Result<()> {
    println!("== {name}");
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    if wanted("messages") {
        messages(&cluster).await?;
    }
    if wanted("room") {
        room::run(&cluster).await?;
    }
    if wanted("presence") {
        watch::run(&cluster).await?;
    }
    cluster.stop().await;
    Ok(())
}

/// In turns with the floor: what else the machine does, and how warm the back ends are, meets both.
async fn messages(cluster: &Cluster) -> Result<()> {
    let mut ratios = Vec::new();
    for turn in 1..=TURNS {
        let floor = floor::measure(cluster).await?;
        println!(
            "floor {turn}/{TURNS}     produce→read {} µs, produce→report {} µs, write {} µs: a message {} µs (p50)",
            floor.read,
            floor.report,
            floor.write,
            floor.message()
        );
        let (mut reply, mut delivery) = latency(cluster).await?;
        let p50 = quantile(&mut reply, 0.5);
        let ratio = p50 as f64 / floor.message().max(1) as f64;
        println!("send→reply    p50 {p50} µs, p99 {} µs: {ratio:.2}× the floor", quantile(&mut reply, 0.99));
        println!(
            "send→delivery p50 {} µs, p99 {} µs",
            quantile(&mut delivery, 0.5),
            quantile(&mut delivery, 0.99)
        );
        ratios.push(ratio);
    }
    println!("reply         {:.2}× the floor (median of {TURNS})", median(ratios));
    let rate = throughput(cluster).await?;
    println!(
        "throughput    {rate:.0} messages/s acknowledged and delivered ({PAIRS} pairs, {IN_FLIGHT} in flight each)"
    );
    Ok(())
}

/// One message in flight, between users at home on different nodes.
async fn latency(cluster: &Cluster) -> Result<(Vec<u64>, Vec<u64>)> {
    let (from, to) = cluster.pair(0).await?;
    let mut sender = Client::connect(cluster, &from).await?;
    let mut receiver = Client::connect(cluster, &to).await?;
    let (mut replies, mut deliveries) = (Vec::new(), Vec::new());
    for n in 0..MESSAGES + 200 {
        let start = Instant::now();
        sender.send(&to, n).await?;
        let (reply, delivery) =
            tokio::join!(async { sender.until("reply").await.map(|()| start.elapsed()) }, async {
                receiver.until("message").await.map(|()| start.elapsed())
            },);
        // The first ones warm up connections and code.
        if n >= 200 {
            replies.push(reply?.as_micros() as u64);
            deliveries.push(delivery?.as_micros() as u64);
        }
    }
    Ok((replies, deliveries))
}

async fn throughput(cluster: &Cluster) -> Result<f64> {
    let mut tasks = Vec::new();
    for i in 0..PAIRS {
        let (from, to) = cluster.pair(i + 1).await?;
        let sender = Client::connect(cluster, &from).await?;
        let receiver = Client::connect(cluster, &to).await?;
        tasks.push(tokio::spawn(pair(sender, receiver, to)));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await??;
    }
    Ok(sent as f64 / THROUGHPUT_FOR.as_secs_f64())
}

/// How many messages were acknowledged, each of which was delivered too.
async fn pair(mut sender: Client, mut receiver: Client, to: String) -> Result<u64> {
    let (start, mut sent) = (Instant::now(), 0);
    let delivered = AtomicU64::new(0);
    let receive = async {
        loop {
            receiver.until("message").await?;
            delivered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let send = async {
        for _ in 0..IN_FLIGHT {
            sender.send(&to, sent).await?;
            sent += 1;
        }
        while start.elapsed() < THROUGHPUT_FOR {
            sender.until("reply").await?;
            sender.send(&to, sent).await?;
            sent += 1;
        }
        for _ in 0..IN_FLIGHT {
            sender.until("reply").await?;
        }
        let (sent, began) = (sent as u64, Instant::now());
        while delivered.load(Ordering::Relaxed) < sent {
            let there = delivered.load(Ordering::Relaxed);
            ensure!(began.elapsed() < DELIVERED_WITHIN, "{sent} acknowledged and {there} delivered");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(sent)
    };
    tokio::select! {
        sent = send => sent,
        ended = receive => ended,
    }
}
