//! A room of a thousand subscribers over three nodes, beside a bare broadcast of the same frames to as many sockets.
//!
//! Both have the same clients in this process, read the same way, and the same number of frames in flight: what
//! differs is everything between the publisher and the sockets. A hundred of the subscribers may have stopped reading.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

use crate::client::Client;
use crate::cluster::Cluster;
use crate::quantile;

const SUBSCRIBERS: usize = 1000;
const STOPPED: usize = 100;
const RUN_FOR: Duration = Duration::from_secs(5);
/// Frames published and not yet read by everyone who reads.
const IN_FLIGHT: u64 = 8;
/// Sockets opened at once.
const OPENING: usize = 50;
/// Frames that wait for one socket of the bare broadcast, as many as a session's credit.
const QUEUE: usize = 256;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the readers count together.
#[derive(Default)]
struct Tally {
    read: AtomicU64,
    moved: Notify,
    readers: AtomicUsize,
    /// Microseconds from publish to delivery.
    ages: Mutex<Vec<u64>>,
}

impl Tally {
    /// Reads publications until the socket ends; one reader in ten says how old each was.
    fn spawn(self: &Arc<Self>, mut socket: Socket, start: Instant, ages: bool) -> JoinHandle<()> {
        self.readers.fetch_add(1, Ordering::Relaxed);
        let tally = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                if !text.starts_with(r#"{"type":"message""#) {
                    continue;
                }
                if ages && let Some(at) = sent_at(&text) {
                    let age = (start.elapsed().as_micros() as u64).saturating_sub(at);
                    tally.ages.lock().unwrap_or_else(PoisonError::into_inner).push(age);
                }
                tally.read.fetch_add(1, Ordering::Relaxed);
                tally.moved.notify_one();
            }
        })
    }

    /// Waits until all but [`IN_FLIGHT`] of `published` frames were read by everyone.
    async fn keep_up(&self, published: u64) -> Result<()> {
        let readers = self.readers.load(Ordering::Relaxed) as u64;
        let wanted = published.saturating_sub(IN_FLIGHT) * readers;
        while self.read.load(Ordering::Relaxed) < wanted {
            let moved = tokio::time::timeout(Duration::from_secs(20), self.moved.notified()).await;
            moved.context("the readers got nothing for 20 s")?;
        }
        Ok(())
    }
}

fn sent_at(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once(r#""us":"#)?;
    rest.split_once('}')?.0.split(',').next()?.parse().ok()
}

fn data(start: Instant) -> String {
    format!(r#"{{"us":{},"pad":"{}"}}"#, start.elapsed().as_micros(), "x".repeat(200))
}

/// Deliveries per second, and the 99th percentile of publish to delivery in microseconds.
struct Measured {
    per_s: f64,
    p99: u64,
}

pub async fn run(cluster: &Cluster) -> Result<()> {
    let floor = bare().await?;
    println!("bare room     {:.0} deliveries/s, p99 {} µs", floor.per_s, floor.p99);
    for stopped in [0, STOPPED] {
        let before = resident_kib();
        let room = room(cluster, stopped).await?;
        println!(
            "room          {:.0} deliveries/s, p99 {} µs: {:.2}× the bare one ({SUBSCRIBERS} subscribers, three nodes, {stopped} \
             stopped; {} KiB more in use)",
            room.per_s,
            room.p99,
            room.per_s / floor.per_s,
            resident_kib().saturating_sub(before),
        );
    }
    Ok(())
}

/// Resident memory of this process in KiB (`proc(5)`, statm).
fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

async fn measure(
    tally: &Tally,
    start: Instant,
    mut publish: impl AsyncFnMut(u64, String) -> Result<()>,
) -> Result<(u64, Duration)> {
    let (began, before) = (Instant::now(), tally.read.load(Ordering::Relaxed));
    let mut published = 0;
    while began.elapsed() < RUN_FOR {
        tally.keep_up(published).await?;
        publish(published, data(start)).await?;
        published += 1;
    }
    Ok((tally.read.load(Ordering::Relaxed) - before, began.elapsed()))
}

/// Ends the readers.
async fn finish(tally: &Tally, readers: Vec<JoinHandle<()>>, read: u64, took: Duration) -> Measured {
    for reader in readers {
        reader.abort();
        // It was ended just now, or the socket was.
        let _ = reader.await;
    }
    let mut ages = tally.ages.lock().unwrap_or_else(PoisonError::into_inner);
    Measured { per_s: read as f64 / took.as_secs_f64(), p99: quantile(&mut ages, 0.99) }
}

async fn bare() -> Result<Measured> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let accepting = tokio::spawn(async move {
        let mut queues: Vec<mpsc::Sender<Bytes>> = Vec::new();
        while queues.len() < SUBSCRIBERS {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut socket = accept_async(stream).await?;
            let (queue, mut frames) = mpsc::channel::<Bytes>(QUEUE);
            queues.push(queue);
            tokio::spawn(async move {
                let mut batch = Vec::new();
                while frames.recv_many(&mut batch, 64).await > 0 {
                    for frame in batch.drain(..) {
                        let text = Utf8Bytes::try_from(frame).expect("frames are text");
                        if socket.feed(Message::Text(text)).await.is_err() {
                            return;
                        }
                    }
                    if socket.flush().await.is_err() {
                        return;
                    }
                }
                let _ = socket.close(None).await;
            });
        }
        anyhow::Ok(queues)
    });
    let (tally, start) = (Arc::new(Tally::default()), Instant::now());
    let mut readers = Vec::new();
    for i in 0..SUBSCRIBERS {
        let (socket, _) = connect_async(&url).await?;
        readers.push(tally.spawn(socket, start, i % 10 == 0));
    }
    let queues = accepting.await??;
    let (read, took) = measure(&tally, start, async |n, data| {
        let frame = Bytes::from(format!(
            r#"{{"type":"message","stream":"room:bench","generation":1795240831954,"offset":{n},"id":"p-{n}","kind":"message","from":"bench","at":"2026-11-21T06:40:00.123Z","data":{data}}}"#
        ));
        for queue in &queues {
            queue.send(frame.clone()).await.context("a subscriber is gone")?;
        }
        Ok(())
    })
    .await?;
    drop(queues);
    Ok(finish(&tally, readers, read, took).await)
}

async fn room(cluster: &Cluster, stopped: usize) -> Result<Measured> {
    let room = format!("bench-{:08x}", rand::random::<u32>());
    let (tally, start) = (Arc::new(Tally::default()), Instant::now());
    let (mut readers, mut silent) = (Vec::new(), Vec::new());
    let users: Vec<usize> = (0..SUBSCRIBERS).collect();
    for some in users.chunks(OPENING) {
        let joins = some.iter().map(|i| Client::join(cluster, format!("{room}-{i}"), &room));
        for socket in futures_util::future::try_join_all(joins).await? {
            if silent.len() < stopped {
                silent.push(socket);
            } else {
                let ages = readers.len().is_multiple_of(10);
                readers.push(tally.spawn(socket, start, ages));
            }
        }
    }
    let mut publisher = Client::connect(cluster, &format!("{room}-publisher")).await?;
    let (read, took) = measure(&tally, start, async |n, data| {
        publisher.publish(&room, n, &data).await?;
        // Replies are read so that the publisher is none of those who stopped.
        if n >= IN_FLIGHT { publisher.until("reply").await } else { Ok(()) }
    })
    .await?;
    drop(silent);
    Ok(finish(&tally, readers, read, took).await)
}
