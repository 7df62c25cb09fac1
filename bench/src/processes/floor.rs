//! What the parts that Roost is made of take alone: the log through the same library, and the bare server.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::log::{Durability, Log, LogReader, Outgoing, Producer, Report, TopicSpec};
use roost_proto::events::{CHAT_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS};
use roost_proto::results::{CLIENT_RESULTS, DEAD_LETTERS};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::procstat::cpu_s;
use super::programs::Running;
use crate::client::open;
use crate::quantile;

const LIMIT: Duration = Duration::from_secs(10);
/// As long as a message's.
const RECORD_BYTES: usize = 300;
const REPORTS: usize = 64 * 1024;
const KEPT_MS: u64 = 3_600_000;
/// A broker's code is compiled while it runs: below some ten thousand records figures fall from run to run.
const WARM_RECORDS: u64 = 60_000;
/// All topics that nodes make but their own.
const SHARED: [&str; 6] =
    [CHAT_EVENTS, USER_STATUS_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, CLIENT_RESULTS, DEAD_LETTERS];
const PUMPED_IN_FLIGHT: u64 = 500;

/// The bare server; ended when dropped.
pub(super) struct FloorServer {
    child: Child,
    _stdin: Option<ChildStdin>,
    pub ws: SocketAddr,
    pub http: SocketAddr,
}

impl FloorServer {
    pub(super) fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("floor-server").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the floor's server")?;
        let out = child.stdout.take().context("its output")?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let (ws, http) = line.trim().split_once(' ').context("its addresses")?;
        Ok(Self { child, _stdin: stdin, ws: ws.parse()?, http: http.parse()? })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("ws://{}/{path}", self.ws)
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A topic of one partition, its reader and a producer, on the broker that the cluster uses.
pub(super) struct LogFloor {
    log: KafkaLog,
    topic: Arc<str>,
    reader: Box<dyn LogReader>,
    reports: mpsc::Receiver<Report>,
    producer: Arc<dyn Producer>,
}

impl LogFloor {
    pub(super) async fn open(brokers: &str) -> Result<Self> {
        let config = KafkaConfig { brokers: brokers.to_owned(), ..KafkaConfig::default() };
        let log = KafkaLog::connect(config).await?;
        let topic: Arc<str> = format!("bench-floor-{:08x}", rand::random::<u32>()).into();
        log.ensure_topic(&topic, TopicSpec::kept_for(KEPT_MS, 1)).await?;
        let reader = log.read_from_end(&topic).await?;
        let (told, reports) = mpsc::channel(REPORTS);
        let producer = log.producer(Durability::Outbox, told)?;
        Ok(Self { log, topic, reader, reports, producer })
    }

    fn record(&self, token: u64) -> Outgoing {
        let (topic, payload) = (Arc::clone(&self.topic), vec![b'x'; RECORD_BYTES].into());
        Outgoing { topic, partition: 0, key: "0".into(), payload, token }
    }

    /// As many records as a broker needs to be warm.
    pub(super) async fn warm(&mut self) -> Result<()> {
        self.pump(|_| WARM_RECORDS, |read| read >= WARM_RECORDS).await?;
        Ok(())
    }

    /// Records at this rate, or as many as go: those read in a second, and microseconds of the broker for one.
    pub(super) async fn at_rate(&mut self, per_s: f64, seconds: f64, kafka: u32) -> Result<(f64, f64)> {
        let (cpu, began) = (cpu_s(kafka)?, Instant::now());
        let due = |took: f64| (took.min(seconds) * per_s) as u64;
        let read = self.pump(due, |_| began.elapsed().as_secs_f64() >= seconds).await?;
        Ok((read as f64 / seconds, (cpu_s(kafka)? - cpu) * 1e6 / read.max(1) as f64))
    }

    /// Produces what is due after so many seconds, with a bound in flight, until `is_done` says so of how many were
    /// read, and everything was; how many.
    async fn pump(&mut self, due: impl Fn(f64) -> u64, is_done: impl Fn(u64) -> bool) -> Result<u64> {
        let (mut produced, mut reported, mut read, began) = (0, 0, 0, Instant::now());
        let mut heard = began;
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        loop {
            let done = is_done(read);
            if done && read >= produced && reported >= produced {
                return Ok(read);
            }
            let due = if done { 0 } else { due(began.elapsed().as_secs_f64()) };
            while produced < due && produced < reported + PUMPED_IN_FLIGHT {
                self.producer.produce(self.record(produced))?;
                produced += 1;
            }
            tokio::select! {
                report = self.reports.recv() => {
                    report.context("the producer ended")?.result.map_err(anyhow::Error::msg)?;
                    reported += 1;
                    heard = Instant::now();
                }
                records = self.reader.next() => {
                    read += records?.len() as u64;
                    heard = Instant::now();
                }
                _ = tick.tick() => ensure!(heard.elapsed() < LIMIT, "Kafka is silent for {LIMIT:?}"),
            }
        }
    }

    /// Microseconds at the quantiles 0.5 and 0.99 until a record is read, and until it is reported; one at a time.
    pub(super) async fn times(&mut self, per_s: f64, seconds: f64) -> Result<[[f64; 2]; 2]> {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
        let (mut read, mut told) = (Vec::new(), Vec::new());
        for token in 0..(per_s * seconds) as u64 {
            pace.tick().await;
            let record = self.record(token);
            let start = Instant::now();
            self.producer.produce(record)?;
            let (seen, reported) = tokio::join!(
                async { timeout(LIMIT, self.reader.next()).await.map(|r| r.map(|_| start.elapsed())) },
                async { timeout(LIMIT, self.reports.recv()).await.map(|_| start.elapsed()) },
            );
            read.push(seen??.as_micros() as u64);
            told.push(reported?.as_micros() as u64);
        }
        Ok([quantiles(&mut read), quantiles(&mut told)])
    }

    /// What clusters share, so that each begins with topics of its own making: another build may want others.
    pub(super) async fn remove_shared(&self) -> Result<()> {
        for topic in SHARED {
            self.log.remove_topic(topic).await?;
        }
        Ok(())
    }

    /// The topics of a cluster's nodes, once they are gone.
    pub(super) async fn remove_nodes(&self, cluster: &Running) -> Result<()> {
        for node in cluster.node_ids() {
            self.log.remove_topic(&format!("messages-{node}")).await?;
        }
        Ok(())
    }

    pub(super) async fn remove(self) -> Result<()> {
        self.log.remove_topic(&self.topic).await?;
        Ok(())
    }
}

fn quantiles(samples: &mut [u64]) -> [f64; 2] {
    [quantile(samples, 0.5) as f64, quantile(samples, 0.99) as f64]
}

/// The same of a text that comes back, and microseconds of the server for each.
pub(super) async fn echo(server: &FloorServer, per_s: f64, seconds: f64) -> Result<([f64; 2], f64)> {
    let mut socket = open(&server.url("echo")).await?;
    let text = "x".repeat(RECORD_BYTES);
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
    let (mut times, cpu) = (Vec::new(), cpu_s(server.pid())?);
    for _ in 0..(per_s * seconds) as u64 {
        pace.tick().await;
        let start = Instant::now();
        socket.send(Message::text(text.clone())).await?;
        timeout(LIMIT, socket.next()).await?.context("the echo ended")??;
        times.push(start.elapsed().as_micros() as u64);
    }
    let each = (cpu_s(server.pid())? - cpu) * 1e6 / times.len() as f64;
    Ok((quantiles(&mut times), each))
}
