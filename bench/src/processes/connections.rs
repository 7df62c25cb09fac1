//! How fast users connect, with `/route` and their token, what an idle one holds of memory, and `/route` alone;
//! beside the bare server that only accepts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::floor::FloorServer;
use super::http::Http;
use super::procstat::{Cpu, cpu_s, rss_kib};
use super::programs::{Running, token};
use crate::client::{Client, Socket, open};

/// Connections in the making at a time.
const OPENING: usize = 64;
/// Open before the measured ones, and with them: what the first connections make for good is not counted.
const WARM: usize = 1000;
/// For what a connection leaves behind while it is made, and for presence (`PRESENCE_LINGER_MS` is longer).
const SETTLE: Duration = Duration::from_secs(2);
/// After the last one is welcomed: what its coming led to, such as events, is done.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Connections that ask for `/route`, one request at a time each.
const ASKING: usize = 32;

/// What connections cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connected {
    pub per_s: f64,
    /// Microseconds of the servers' processor time for one.
    pub cpu: Cpu,
    pub kib_each: f64,
}

async fn all<F: Future<Output = Result<Socket>>>(
    count: usize,
    open: impl Fn(usize, usize) -> F,
) -> Result<Vec<Socket>> {
    let next = AtomicUsize::new(0);
    let openers = (0..OPENING).map(|opener| {
        let (next, open) = (&next, &open);
        async move {
            let mut sockets = Vec::new();
            loop {
                let i = next.fetch_add(1, Relaxed);
                if i >= count {
                    return anyhow::Ok(sockets);
                }
                sockets.push(open(opener, i).await?);
            }
        }
    });
    Ok(try_join_all(openers).await?.into_iter().flatten().collect())
}

async fn measured<F: Future<Output = Result<Socket>>>(
    count: usize,
    cpu: impl Fn() -> Result<Cpu>,
    rss: impl Fn() -> Result<f64>,
    open: impl Fn(usize, usize) -> F,
) -> Result<Connected> {
    let warm = all(WARM, &open).await?;
    sleep(SETTLE).await;
    let (held, before, began) = (rss()?, cpu()?, Instant::now());
    let sockets = all(count, |opener, i| open(opener, WARM + i)).await?;
    let (took, spent) = (began.elapsed().as_secs_f64(), cpu()?.since(&before));
    sleep(IDLE_AFTER).await;
    let kib_each = (rss()? - held) / count as f64;
    drop((warm, sockets));
    Ok(Connected { per_s: count as f64 / took, cpu: spent.us_each(count as f64), kib_each })
}

/// Users ask where they are at home, dial there, show their token and are welcomed.
pub(super) async fn of_cluster(cluster: &Running, count: usize) -> Result<Connected> {
    let users: Vec<String> = (0..count + WARM).map(|i| format!("idle-{}-{i}", cluster.run)).collect();
    // Tokens are made by others, and before.
    let tokens: Vec<String> = users.iter().map(|user| token(user)).collect::<Result<_>>()?;
    let asking = try_join_all((0..OPENING).map(|_| Http::connect(cluster.route_addr))).await?;
    let asking: Vec<_> = asking.into_iter().map(tokio::sync::Mutex::new).collect();
    let watched = &cluster.watched;
    let cpu = || watched.cpu();
    measured(
        count,
        cpu,
        || watched.nodes_rss_kib(),
        async |opener, i| {
            let body = asking[opener].lock().await.route(&users[i]).await?;
            let home: serde_json::Value = serde_json::from_str(&body)?;
            let url = home["url"].as_str().context("a url")?;
            Ok(Client::connect_to(url, tokens[i].clone()).await?.into_socket())
        },
    )
    .await
}

pub(super) async fn of_floor(server: &FloorServer, count: usize) -> Result<Connected> {
    let (pid, url) = (server.pid(), server.url("held"));
    let cpu = || Ok(Cpu { nodes: cpu_s(pid)?, load: cpu_s(std::process::id())?, ..Cpu::default() });
    measured(count, cpu, || rss_kib(pid), async |_, _| open(&url).await).await
}

/// `/route` alone: answers a second, and microseconds of the server for one.
pub(super) async fn routes(addr: std::net::SocketAddr, pid: u32, seconds: f64) -> Result<[f64; 2]> {
    let asking = try_join_all((0..ASKING).map(|_| Http::connect(addr))).await?;
    let (answers, cpu, began) = (AtomicU64::new(0), cpu_s(pid)?, Instant::now());
    let asked = asking.into_iter().enumerate().map(|(i, mut http)| {
        let answers = &answers;
        async move {
            let mut n = 0;
            while began.elapsed().as_secs_f64() < seconds {
                http.route(&format!("user-{i}-{n}")).await?;
                n += 1;
                answers.fetch_add(1, Relaxed);
            }
            anyhow::Ok(())
        }
    });
    try_join_all(asked).await?;
    let (took, answers) = (began.elapsed().as_secs_f64(), answers.load(Relaxed) as f64);
    Ok([answers / took, (cpu_s(pid)? - cpu) * 1e6 / answers])
}
