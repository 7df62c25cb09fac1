//! What happens to archivers and to their database: on real Kafka and PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use roost_archiver::Archiver;
use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::log::{Durability, Log, Outgoing, Producer, Report, TopicSpec};
use roost_backend::postgres::PostgresArchive;
use roost_proto::claims::Role;
use roost_proto::events::{CHAT_EVENTS, PARTITIONS, message_bytes, message_rest};
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, StreamId};
use roost_tests::archive::{Database, Reader, archiver, run};
use roost_tests::cluster::{eventually, now_s, token_of};
use roost_tests::processes::{self, LEASE_TTL_MS, LIMIT, free_addr, until};
use roost_tests::proxy::Proxy;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

/// Catching up may take longer than other things: the topic is shared with other tests.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(120);

/// Kafka, and a load on `chat_events` by streams of a test's own: one for each partition.
struct Load {
    log: Arc<dyn Log>,
    /// Names its streams.
    mark: String,
    producer: Arc<dyn Producer>,
    reports: mpsc::Receiver<Report>,
    acknowledged: u64,
}

async fn kafka() -> Option<Arc<dyn Log>> {
    let Some(brokers) = std::env::var("KAFKA_BROKERS").ok().filter(|brokers| !brokers.is_empty()) else {
        let required = std::env::var("ROOST_REQUIRE_SERVICES").as_deref() == Ok("1");
        assert!(!required, "ROOST_REQUIRE_SERVICES=1, but KAFKA_BROKERS is not set");
        eprintln!("skipped: KAFKA_BROKERS is not set");
        return None;
    };
    let log = KafkaLog::connect(KafkaConfig { brokers, ..KafkaConfig::default() }).await.expect("a broker");
    log.ensure_topic(CHAT_EVENTS, TopicSpec::shared(CHAT_EVENTS, PARTITIONS)).await.expect("the topic");
    Some(Arc::new(log))
}

impl Load {
    fn new(log: &Arc<dyn Log>) -> Self {
        let (reports, reported) = mpsc::channel(10_000);
        let producer = log.producer(Durability::Outbox, reports).expect("a producer");
        let mark = format!("load-{:08x}", rand::random::<u32>());
        Self { log: Arc::clone(log), mark, producer, reports: reported, acknowledged: 0 }
    }

    /// As many messages as there are partitions, each with a copy now and then, as a zombie would leave one.
    async fn round(&mut self) {
        let offset = self.acknowledged / u64::from(PARTITIONS) + 1;
        let mut sent = 0;
        for partition in 0..PARTITIONS {
            let stream = StreamId::new(format!("user:{}-{partition}", self.mark)).expect("a stream");
            let id = MessageId::new(format!("m-{offset}")).expect("an id");
            let data = RawValue::from_string(format!("{{\"n\":{offset}}}")).expect("JSON");
            let rest = message_rest(&id, "message", "alice", now_s() * 1_000, &data);
            let payload = message_bytes(&stream, Cursor::new(Epoch(1), Offset(offset)), &rest);
            for _ in 0..if offset.is_multiple_of(50) { 2 } else { 1 } {
                let (topic, key) = (CHAT_EVENTS.into(), Bytes::from(stream.as_str().to_owned()));
                let record = Outgoing { topic, partition, key, payload: payload.clone(), token: offset };
                self.producer.produce(record).expect("room");
                sent += 1;
            }
        }
        for _ in 0..sent {
            self.reports.recv().await.expect("a report").result.expect("it is in the log");
        }
        self.acknowledged += u64::from(PARTITIONS);
    }

    /// Goes on by itself until the channel closes, and comes back.
    fn run(mut self) -> (mpsc::Sender<()>, JoinHandle<Self>) {
        let (stop, mut stopped) = mpsc::channel(1);
        let running = tokio::spawn(async move {
            while stopped.try_recv() != Err(mpsc::error::TryRecvError::Disconnected) {
                self.round().await;
                sleep(Duration::from_millis(2)).await;
            }
            self
        });
        (stop, running)
    }

    /// Waits until all of it is archived, and checks that each message is there once.
    async fn is_archived_once(&self, database: &Database) {
        let mut ends = Vec::new();
        for partition in 0..PARTITIONS {
            ends.push(self.log.end(CHAT_EVENTS, partition).await.expect("an end") as i64);
        }
        let deadline = Instant::now() + CAUGHT_UP_WITHIN;
        let positions = "SELECT next FROM positions WHERE topic = 'chat_events' ORDER BY partition";
        loop {
            let archived = database.numbers(positions).await;
            if archived.len() == ends.len() && archived.iter().zip(&ends).all(|(next, end)| next >= end) {
                break;
            }
            assert!(Instant::now() < deadline, "not caught up: {archived:?} of {ends:?}");
            sleep(Duration::from_millis(100)).await;
        }
        let ours = format!("FROM messages WHERE stream LIKE 'user:{}-%'", self.mark);
        let rows = database.numbers(&format!("SELECT count(*) {ours}")).await;
        let places = database.numbers(&format!("SELECT count(DISTINCT (stream, \"offset\")) {ours}")).await;
        let all = self.acknowledged as i64;
        assert_eq!((rows[0], places[0]), (all, all), "rows, and different ones, of so many acknowledged");
    }
}

/// P2: archived once.
/// Under load archivers are killed ten times, alone and with a second one beside them, and ten times the database ends
/// their connections in the middle of what they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_archivers_and_ended_connections_lose_and_double_nothing() {
    let (Some(log), Some(database)) = (kafka().await, Database::find().await) else { return };
    let (stop, running) = Load::new(&log).run();
    let count = "SELECT count(*) FROM messages";
    let mut first: Option<Archiver> = None;
    for round in 0..10 {
        // The last round's, if there is one, and this one's read at the same time for a while.
        let second = archiver(Arc::clone(&log), database.connect().await).await;
        let before = database.numbers(count).await[0];
        eventually("it gets on", async || (database.numbers(count).await[0] > before).then_some(())).await;
        database.end_connections().await;
        sleep(Duration::from_millis(50 * round)).await;
        drop(first.replace(second));
    }
    drop(stop);
    let load = running.await.expect("the load ended in order");
    load.is_archived_once(&database).await;
}

/// P9: honest under outage.
/// The database is away for some seconds under load, and frozen for some; then everything is there, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_waited_for() {
    let (Some(log), Some(database)) = (kafka().await, Database::find().await) else { return };
    let gate = Proxy::start(&[database.host()]).await;
    let archive =
        PostgresArchive::connect(&database.url_at(&gate.addr.to_string())).await.expect("through the gate");
    let archiver = archiver(Arc::clone(&log), Arc::new(archive)).await;
    let service = Reader::new(&archiver, token_of("backend", Role::Service));
    let (stop, running) = Load::new(&log).run();
    let ready = async || {
        let url = format!("http://{}/readyz", archiver.admin_addr());
        reqwest::get(url).await.expect("an answer").status() == StatusCode::OK
    };
    eventually("it is ready", async || ready().await.then_some(())).await;
    for frozen in [false, true] {
        if frozen {
            gate.shut()
        } else {
            gate.cut()
        }
        eventually("it says what is missing", async || (!ready().await).then_some(())).await;
        let (status, body) = service.ask("/history?stream=user:bob").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        sleep(Duration::from_secs(3)).await;
        gate.restore();
        eventually("it is ready again", async || ready().await.then_some(())).await;
    }
    drop(stop);
    let load = running.await.expect("the load ended in order");
    load.is_archived_once(&database).await;
    archiver.shutdown(Duration::from_secs(5)).await;
}

/// Promise 9 of the whole: an archiver that waits for another one lives, and says what it waits for. Somebody holds the
/// lock of the schema while the program starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_the_schema_lives_and_is_not_ready() {
    let Some(cluster) = processes::Cluster::start(LEASE_TTL_MS).await else { return };
    let Some(server) = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) else { return };
    let name = format!("archive_{:016x}", rand::random::<u64>());
    run(&server, &format!("CREATE DATABASE {name}")).await;
    let url = format!("{}/{name}", server.rsplit_once('/').expect("an address with a database").0);
    let (holder, holding) = tokio_postgres::connect(&url, NoTls).await.expect("DATABASE_URL answers");
    let holding = tokio::spawn(holding);
    holder
        .batch_execute(&format!("SELECT pg_advisory_lock({})", 0x72_6f_6f_73_74_i64))
        .await
        .expect("the lock");
    let admin = free_addr();
    let archiver = cluster.start_archiver(&url, admin);
    let http = reqwest::Client::new();
    let ask = async |path: &str| {
        let answer = http.get(format!("http://{admin}{path}")).send().await.ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    };
    until("it says that it lives", LIMIT, async || ask("/healthz").await.filter(|a| a.0 == StatusCode::OK))
        .await;
    let waits = until("it says what it waits for", LIMIT, async || {
        ask("/readyz").await.filter(|(_, text)| text.contains("another archiver"))
    });
    assert_eq!(waits.await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(archiver.log().contains("waiting for another archiver"), "and the log");
    drop(holder);
    holding.await.expect("no panic").expect("the connection ends");
    until("it is ready", LIMIT, async || ask("/readyz").await.filter(|a| a.0 == StatusCode::OK)).await;
    drop(archiver);
    run(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}
