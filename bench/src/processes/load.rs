//! Pairs of users, one of whom sends to the other: at a fixed rate, or with so many messages in flight.
//!
//! The moment of sending is in the message and in its id, so that neither side looks anything up: what a message
//! costs the load tool is two reads and a write.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::histogram::Histogram;
use super::procstat::{Cpu, Watched};
use super::programs::{Running, token};
use crate::client::{Client, Socket};

/// Bytes of `data`, as JSON, give or take what the time is long.
const PAYLOAD: usize = 100;
/// Pokes that wait for one sender; a pair has its turn again only when all others had theirs.
const POKES: usize = 1024;
const OPENING: usize = 32;
/// How often a receiver acknowledges, if something came: often enough that nothing is reported as undelivered.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// For what is in flight when a phase ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of a phase, before it is measured.
const RAMP: Duration = Duration::from_secs(1);

struct Tally {
    start: Instant,
    measuring: AtomicBool,
    /// A reply has the next pair send.
    closed: AtomicBool,
    turn: AtomicUsize,
    sent: AtomicU64,
    replied: AtomicU64,
    delivered: AtomicU64,
    refused: AtomicU64,
    /// What the first refusal said.
    refusal: OnceLock<String>,
    replies: Histogram,
    deliveries: Histogram,
}

impl Tally {
    fn us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// What was measured of one phase.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub per_s: f64,
    pub delivery: [f64; 2],
    pub reply: [f64; 2],
    /// Microseconds for one message.
    pub cpu: Cpu,
    /// Processors that the load tool kept busy, and that other programs did.
    pub load_busy: f64,
    pub others_busy: f64,
}

pub(super) struct Pairs {
    tally: Arc<Tally>,
    pokes: Arc<Vec<mpsc::Sender<()>>>,
    tasks: Vec<JoinHandle<()>>,
    /// The part whose two users are at home on different nodes.
    pub apart: f64,
}

impl Drop for Pairs {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Opened {
    sender: Client,
    receiver: Client,
    to: String,
    apart: bool,
}

async fn open(cluster: &Running, i: usize) -> Result<Opened> {
    let (from, to) = (format!("from-{}-{i}", cluster.run), format!("to-{}-{i}", cluster.run));
    let ((from_node, from_url), (to_node, to_url)) = (cluster.home(&from).await?, cluster.home(&to).await?);
    let sender = Client::connect_to(&from_url, token(&from)?).await?;
    let receiver = Client::connect_to(&to_url, token(&to)?).await?;
    Ok(Opened { sender, receiver, to, apart: from_node != to_node })
}

impl Pairs {
    pub(super) async fn open(cluster: &Running, count: usize) -> Result<Self> {
        let opening = stream::iter((0..count).map(|i| open(cluster, i))).buffer_unordered(OPENING);
        let opened: Vec<Opened> = opening.try_collect().await?;
        let apart = opened.iter().filter(|pair| pair.apart).count() as f64 / count as f64;
        let tally = Arc::new(Tally {
            start: Instant::now(),
            measuring: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            replied: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refusal: OnceLock::new(),
            replies: Histogram::default(),
            deliveries: Histogram::default(),
        });
        let (pokes, poked): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(POKES)).unzip();
        let pokes = Arc::new(pokes);
        let mut tasks = Vec::new();
        for (pair, poked) in opened.into_iter().zip(poked) {
            let sending = Sending { tally: Arc::clone(&tally), pokes: Arc::clone(&pokes), to: pair.to };
            tasks.push(tokio::spawn(sending.run(pair.sender.into_socket(), poked)));
            tasks.push(tokio::spawn(receive(Arc::clone(&tally), pair.receiver.into_socket())));
        }
        Ok(Self { tally, pokes, tasks, apart })
    }

    /// So many messages a second, evenly, whatever comes of them.
    pub(super) async fn at_rate(&self, per_s: f64, seconds: f64, watched: &Watched) -> Result<Measured> {
        let pacing = async {
            let (began, mut sent) = (Instant::now(), 0_u64);
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            loop {
                tick.tick().await;
                while (sent as f64) < began.elapsed().as_secs_f64() * per_s {
                    poke_next(&self.tally, &self.pokes);
                    sent += 1;
                }
            }
        };
        tokio::select! {
            measured = self.measure(seconds, watched) => self.ended(measured?).await,
            () = pacing => unreachable!("it goes on for ever"),
        }
    }

    /// So many messages in flight, over all pairs.
    pub(super) async fn in_flight(&self, count: usize, seconds: f64, watched: &Watched) -> Result<Measured> {
        self.tally.closed.store(true, Relaxed);
        (0..count).for_each(|_| poke_next(&self.tally, &self.pokes));
        let measured = self.measure(seconds, watched).await;
        self.tally.closed.store(false, Relaxed);
        self.ended(measured?).await
    }

    async fn measure(&self, seconds: f64, watched: &Watched) -> Result<Measured> {
        sleep(RAMP).await;
        let tally = &self.tally;
        tally.replies.clear();
        tally.deliveries.clear();
        let (cpu, began, before) = (watched.cpu()?, Instant::now(), tally.replied.load(Relaxed));
        tally.measuring.store(true, Relaxed);
        sleep(Duration::from_secs_f64(seconds)).await;
        tally.measuring.store(false, Relaxed);
        let (spent, took) = (watched.cpu()?.since(&cpu), began.elapsed().as_secs_f64());
        let messages = tally.replied.load(Relaxed) - before;
        let quantiles = |times: &Histogram| [times.quantile(0.5), times.quantile(0.99)];
        Ok(Measured {
            per_s: messages as f64 / took,
            delivery: quantiles(&tally.deliveries),
            reply: quantiles(&tally.replies),
            cpu: spent.us_each(messages as f64),
            load_busy: spent.load / took,
            others_busy: spent.others() / took,
        })
    }

    /// Nothing is in flight any more, and nothing was lost.
    async fn ended(&self, measured: Measured) -> Result<Measured> {
        let tally = &self.tally;
        let n = |counted: &AtomicU64| counted.load(Relaxed);
        let refused = || tally.refusal.get().map_or(Ok(()), |refusal| bail!("refused: {refusal}"));
        let drained = timeout(DRAIN_WITHIN, async {
            while n(&tally.replied) < n(&tally.sent) || n(&tally.delivered) < n(&tally.sent) {
                refused()?;
                sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        });
        let Ok(drained) = drained.await else {
            bail!(
                "{} messages were sent, {} replied to and {} delivered {DRAIN_WITHIN:?} later",
                n(&tally.sent),
                n(&tally.replied),
                n(&tally.delivered)
            )
        };
        drained?;
        Ok(measured)
    }
}

fn poke_next(tally: &Tally, pokes: &[mpsc::Sender<()>]) {
    let turn = tally.turn.fetch_add(1, Relaxed);
    if pokes[turn % pokes.len()].try_send(()).is_err() {
        // The pair is gone or far behind: its phase will not drain, and says so.
        tally.sent.fetch_add(1, Relaxed);
    }
}

struct Sending {
    tally: Arc<Tally>,
    pokes: Arc<Vec<mpsc::Sender<()>>>,
    to: String,
}

impl Sending {
    async fn run(self, socket: Socket, mut poked: mpsc::Receiver<()>) {
        let (mut sink, mut frames) = socket.split();
        let prefix = format!("{:08x}", rand::random::<u32>());
        let pad = "x".repeat(PAYLOAD - r#"{"us":100000000,"pad":""}"#.len());
        let mut n = 0_u64;
        loop {
            let done = tokio::select! {
                poke = poked.recv() => match poke {
                    Some(()) => {
                        n += 1;
                        let (us, to) = (self.tally.us(), &self.to);
                        let frame = format!(
                            r#"{{"type":"send","id":"{prefix}-{n}-{us}","to":"{to}","data":{{"us":{us},"pad":"{pad}"}}}}"#
                        );
                        self.tally.sent.fetch_add(1, Relaxed);
                        sink.send(Message::text(frame)).await.is_err()
                    }
                    None => true,
                },
                frame = frames.next() => match frame {
                    Some(Ok(Message::Text(text))) => self.read(&text, &mut sink).await.is_err(),
                    Some(Ok(_)) => false,
                    Some(Err(_)) | None => true,
                },
            };
            if done {
                return;
            }
        }
    }

    async fn read(&self, text: &str, sink: &mut SplitSink<Socket, Message>) -> Result<()> {
        if !text.starts_with(r#"{"type":"reply""#) {
            return pong(text, sink).await;
        }
        let tally = &self.tally;
        if text.contains(r#""error":"#) {
            tally.refused.fetch_add(1, Relaxed);
            tally.refusal.get_or_init(|| text.to_owned());
        } else {
            tally.replied.fetch_add(1, Relaxed);
            if tally.measuring.load(Relaxed)
                && let Some(us) =
                    between(text, r#""id":""#, '"').and_then(|id| id.rsplit_once('-')?.1.parse().ok())
            {
                tally.replies.note(tally.us().saturating_sub(us));
            }
        }
        if tally.closed.load(Relaxed) {
            poke_next(tally, &self.pokes);
        }
        Ok(())
    }
}

async fn receive(tally: Arc<Tally>, socket: Socket) {
    let (mut sink, mut frames): (SplitSink<Socket, Message>, SplitStream<Socket>) = socket.split();
    let mut acked = Instant::now();
    while let Some(Ok(frame)) = frames.next().await {
        let Message::Text(text) = frame else { continue };
        if !text.starts_with(r#"{"type":"message""#) {
            if pong(&text, &mut sink).await.is_err() {
                return;
            }
            continue;
        }
        tally.delivered.fetch_add(1, Relaxed);
        if tally.measuring.load(Relaxed)
            && let Some(us) = between(&text, r#""us":"#, ',').and_then(|us| us.parse().ok())
        {
            tally.deliveries.note(tally.us().saturating_sub(us));
        }
        if acked.elapsed() >= ACK_EVERY {
            acked = Instant::now();
            if let Some(ack) = ack_of(&text)
                && sink.send(Message::text(ack)).await.is_err()
            {
                return;
            }
        }
    }
}

async fn pong(text: &str, sink: &mut SplitSink<Socket, Message>) -> Result<()> {
    if text.starts_with(r#"{"type":"ping""#) {
        sink.send(Message::text(r#"{"type":"pong"}"#)).await?;
    }
    Ok(())
}

fn between<'a>(text: &'a str, head: &str, tail: char) -> Option<&'a str> {
    let (_, rest) = text.split_once(head)?;
    Some(rest.split_once(tail)?.0)
}

fn ack_of(text: &str) -> Option<String> {
    let generation = between(text, r#""generation":"#, ',')?;
    let offset = between(text, r#""offset":"#, ',')?;
    Some(format!(r#"{{"type":"ack","cursor":{{"generation":{generation},"offset":{offset}}}}}"#))
}
