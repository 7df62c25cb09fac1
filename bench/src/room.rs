//! A room of a thousand subscribers over three nodes, beside a bare broadcast of the same frames to as many sockets.
//!
//! Both have the same clients in this process, read the same way, and the same number of frames in flight: what
//! differs is everything between the publisher and the sockets. A hundred of the subscribers may have stopped reading:
//! what they cost in memory stands beside its bound.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::client::{Client, Socket, open};
use crate::cluster::Cluster;
use crate::{median, quantile};

const SUBSCRIBERS: usize = 1000;
const STOPPED: usize = 100;
/// The machine is never quiet: what is compared is measured in turn, and the median counts.
const ROUNDS: usize = 3;
const RUN_FOR: Duration = Duration::from_secs(3);
/// Frames published and not yet read by everyone who reads: few, for which the way of one counts, and so many that
/// only the work for each does.
const WINDOWS: [u64; 2] = [8, 64];
/// Sockets opened at once.
const OPENING: usize = 50;
/// Frames that wait for one socket of the bare broadcast, as many as a session's credit.
const QUEUE: usize = 256;
/// What a session's queue holds of a frame beside its bytes.
const HANDLE_BYTES: usize = 40;
const PAGE_KIB: i64 = 4;

/// What the readers count together.
#[derive(Default)]
struct Tally {
    read: AtomicU64,
    /// The publisher waits for this many to be read, and is told of no others.
    wanted: AtomicU64,
    reached: Notify,
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
                if text.starts_with(r#"{"type":"ping""#) {
                    // Who only reads is asked for a sign of life, and closed without one.
                    if socket.send(Message::text(r#"{"type":"pong"}"#)).await.is_err() {
                        return;
                    }
                }
                if !text.starts_with(r#"{"type":"message""#) {
                    continue;
                }
                if ages && let Some(at) = sent_at(&text) {
                    let age = (start.elapsed().as_micros() as u64).saturating_sub(at);
                    tally.ages.lock().unwrap_or_else(PoisonError::into_inner).push(age);
                }
                if tally.read.fetch_add(1, Ordering::SeqCst) + 1 == tally.wanted.load(Ordering::SeqCst) {
                    tally.reached.notify_one();
                }
            }
        })
    }

    /// Waits until all but `in_flight` of `published` frames, of which the last may be yet to come, were read by
    /// everyone.
    async fn keep_up(&self, published: u64, in_flight: u64) -> Result<()> {
        let readers = self.readers.load(Ordering::Relaxed) as u64;
        let wanted = published.saturating_sub(in_flight) * readers;
        self.wanted.store(wanted, Ordering::SeqCst);
        while self.read.load(Ordering::SeqCst) < wanted {
            let reached = tokio::time::timeout(Duration::from_secs(20), self.reached.notified()).await;
            reached.context("the readers are behind for 20 s")?;
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

/// The frame of the bare broadcast: as long as that of the room.
pub(crate) fn frame(n: u64, data: &str) -> String {
    format!(
        r#"{{"type":"message","stream":"room:bench-00000000","generation":1795240831954,"offset":{n},"id":"0123456789abcdef-{n}","kind":"message","from":"bench-00000000-publisher","at":"2026-11-21T06:40:00.123Z","data":{data}}}"#
    )
}

/// For one number in flight: deliveries per second, and microseconds from publish to delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub per_s: f64,
    pub p50: u64,
    pub p99: u64,
}

/// Publishes and counts what is read of it.
pub(crate) struct Run {
    tally: Arc<Tally>,
    start: Instant,
    published: u64,
    readers: Vec<JoinHandle<()>>,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { tally: Arc::default(), start: Instant::now(), published: 0, readers: Vec::new() }
    }

    /// One reader in ten says how old each frame was.
    pub(crate) fn add(&mut self, socket: Socket) {
        let ages = self.readers.len().is_multiple_of(10);
        self.readers.push(self.tally.spawn(socket, self.start, ages));
    }

    /// For each of these numbers in flight.
    pub(crate) async fn measure(
        &mut self,
        windows: &[u64],
        run_for: Duration,
        mut publish: impl AsyncFnMut(u64, String) -> Result<()>,
    ) -> Result<Vec<Measured>> {
        let mut all = Vec::new();
        for in_flight in windows {
            let (began, before) = (Instant::now(), self.tally.read.load(Ordering::SeqCst));
            while began.elapsed() < run_for {
                self.tally.keep_up(self.published + 1, *in_flight).await?;
                publish(self.published, data(self.start)).await?;
                self.published += 1;
            }
            let read = self.tally.read.load(Ordering::SeqCst) - before;
            let per_s = read as f64 / began.elapsed().as_secs_f64();
            self.tally.keep_up(self.published, 0).await?;
            let mut ages =
                std::mem::take(&mut *self.tally.ages.lock().unwrap_or_else(PoisonError::into_inner));
            all.push(Measured { per_s, p50: quantile(&mut ages, 0.5), p99: quantile(&mut ages, 0.99) });
        }
        Ok(all)
    }

    pub(crate) async fn finish(self) {
        for reader in self.readers {
            reader.abort();
            // It was ended just now, or the socket was.
            let _ = reader.await;
        }
    }
}

/// What a run took of memory, in KiB.
#[derive(Clone, Copy, Default)]
struct Memory {
    process: i64,
    /// In the system's socket buffers.
    kernel: i64,
}

impl Memory {
    /// In use now (`proc(5)`: statm; net/sockstat, in pages).
    fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let pages = |text: Option<&str>| text.and_then(|n| n.trim().parse::<i64>().ok()).unwrap_or(0);
        let sockets = read("/proc/net/sockstat");
        let tcp = sockets.lines().find_map(|line| line.strip_prefix("TCP:")?.split_once("mem "));
        Self {
            process: pages(read("/proc/self/statm").split(' ').nth(1)) * PAGE_KIB,
            kernel: pages(tcp.map(|(_, n)| n)) * PAGE_KIB,
        }
    }

    fn since(before: Self) -> Self {
        let now = Self::now();
        Self { process: now.process - before.process, kernel: now.kernel - before.kernel }
    }
}

pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    let mut ratios: [[Vec<f64>; 2]; WINDOWS.len()] = Default::default();
    let (mut process, mut kernel) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let floor = bare().await?;
        let mut without = (0, 1);
        for (which, stopped) in [0, STOPPED].into_iter().enumerate() {
            let (room, memory, published) = room(cluster, stopped).await?;
            for (window, (room, floor)) in room.iter().zip(&floor).enumerate() {
                let ratio = room.per_s / floor.per_s;
                println!(
                    "room {round}/{ROUNDS}      {} in flight, {stopped} stopped: {:.0} deliveries/s, p99 {} µs; bare {:.0} \
                     deliveries/s, p99 {} µs: {ratio:.2}×",
                    WINDOWS[window], room.per_s, room.p99, floor.per_s, floor.p99,
                );
                ratios[window][which].push(ratio);
            }
            if stopped == 0 {
                without = (memory.process, published);
            } else {
                // Without its share of what grows with every publication, such as a log in memory.
                process.push(memory.process - without.0 * published as i64 / without.1 as i64);
                kernel.push(memory.kernel);
            }
        }
    }
    for (window, [all, some]) in WINDOWS.into_iter().zip(ratios) {
        println!(
            "room          {window} in flight: {:.2}× the bare broadcast, {:.2}× with {STOPPED} stopped readers \
             ({SUBSCRIBERS} subscribers, three nodes; median of {ROUNDS})",
            median(all),
            median(some),
        );
    }
    let bound = STOPPED * QUEUE * (frame(0, &data(Instant::now())).len() + HANDLE_BYTES) / 1024;
    println!(
        "memory        {STOPPED} stopped readers: {} KiB, bound {bound} KiB; in the system's buffers {} KiB",
        median(process).max(0),
        median(kernel),
    );
    Ok(())
}

async fn bare() -> Result<Vec<Measured>> {
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
    let mut run = Run::new();
    for _ in 0..SUBSCRIBERS {
        run.add(open(&url).await?);
    }
    let queues = accepting.await??;
    let measured = run
        .measure(&WINDOWS, RUN_FOR, async |n, data| {
            let frame = Bytes::from(frame(n, &data));
            for queue in &queues {
                queue.send(frame.clone()).await.context("a subscriber is gone")?;
            }
            Ok(())
        })
        .await?;
    drop(queues);
    run.finish().await;
    Ok(measured)
}

/// Also what it took of memory, and how much was published.
async fn room(cluster: &Cluster, stopped: usize) -> Result<(Vec<Measured>, Memory, u64)> {
    let room = format!("bench-{:08x}", rand::random::<u32>());
    let (mut run, mut silent) = (Run::new(), Vec::new());
    let users: Vec<usize> = (0..SUBSCRIBERS).collect();
    for some in users.chunks(OPENING) {
        let joins = some.iter().map(|i| Client::join(cluster, format!("{room}-{i}"), &room));
        for socket in futures_util::future::try_join_all(joins).await? {
            if silent.len() < stopped {
                silent.push(socket);
            } else {
                run.add(socket);
            }
        }
    }
    let mut publisher = Client::connect(cluster, &format!("{room}-publisher")).await?;
    let before = Memory::now();
    let measured = run
        .measure(&WINDOWS, RUN_FOR, async |n, data| {
            publisher.publish(&room, n, &data).await?;
            // Replies are read so that the publisher is none of those who stopped.
            if n >= WINDOWS[1] { publisher.until("reply").await } else { Ok(()) }
        })
        .await?;
    let (memory, published) = (Memory::since(before), run.published);
    drop(silent);
    run.finish().await;
    Ok((measured, memory, published))
}
