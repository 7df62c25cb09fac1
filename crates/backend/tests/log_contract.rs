//! The contract of the log on each back end, and what only one of them can be asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use roost_backend::contract::log::Fixture;
use roost_backend::embedded::EmbeddedLog;
use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::log::{Durability, Log, LogError, Outgoing, Producer, Report, TopicSpec};
use tokio::sync::mpsc;

mod memory {
    use super::*;

    async fn fixture() -> Option<Fixture> {
        Some(Fixture::new(Arc::new(EmbeddedLog::memory().expect("a log in memory"))))
    }

    roost_backend::log_contract!(fixture());

    /// A simulation runs on one thread under a paused clock: the log must neither need another thread nor let the
    /// clock jump while it works.
    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_does_not_move_while_the_log_works() {
        let log = EmbeddedLog::memory().expect("a log in memory");
        log.ensure_topic("t", spec(None)).await.expect("a topic");
        let mut reader = log.read_from_end("t").await.expect("a reader");
        let (producer, mut reports) = sender(&log);
        let began = tokio::time::Instant::now();
        for n in 0..1000 {
            producer.produce(record(n)).expect("the queue has room");
            assert_eq!(reports.recv().await.expect("a report").result.expect("written").offset, n);
            assert_eq!(reader.next().await.expect("a record").len(), 1);
        }
        assert!(producer.flush(SOON).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn old_records_go_and_the_end_stays() {
        let now = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let log = EmbeddedLog::memory_with_clock(clock).expect("a log in memory");
        log.ensure_topic("t", spec(Some(60_000))).await.expect("a topic");
        let mut slow = log.read_from_end("t").await.expect("a reader");
        let (producer, mut reports) = sender(&log);
        // More than one sweep removes.
        for n in 0..2500 {
            producer.produce(record(n)).expect("the queue has room");
            reports.recv().await.expect("a report").result.expect("written");
        }
        now.fetch_add(59_000, Ordering::Relaxed);
        producer.produce(record(2500)).expect("the queue has room");
        assert!(producer.flush(SOON).await);
        now.fetch_add(2_000, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(slow.lag(), 2501);
        let left = slow.next().await.expect("a record");
        assert_eq!(left.iter().map(|r| r.position.offset).collect::<Vec<_>>(), [2500]);
        now.fetch_add(600_000, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(log.end("t", 0).await.expect("an end"), 2501);
        assert_eq!(log.first("t", 0).await.expect("the last one stays"), 2500);
        producer.produce(record(2501)).expect("the queue has room");
        assert_eq!(slow.next().await.expect("a record")[0].position.offset, 2501);
    }
}

mod file {
    use super::*;

    async fn fixture() -> Option<Fixture> {
        let file = TempFile::new();
        let log = EmbeddedLog::open(&file.0).expect("a log in a file");
        // Unlinked while open, so that nothing is left behind.
        drop(file);
        Some(Fixture::new(Arc::new(log)))
    }

    roost_backend::log_contract!(fixture());

    #[tokio::test]
    async fn topics_records_and_offsets_go_on_after_a_restart() {
        let file = TempFile::new();
        for life in 0..3 {
            let log = EmbeddedLog::open(&file.0).expect("a log in a file");
            if life == 0 {
                log.ensure_topic("t", spec(Some(60_000))).await.expect("a topic");
            }
            assert_eq!(log.end("t", 0).await.expect("the topic is there"), 10 * life);
            let other = log.ensure_topic("t", TopicSpec::shared("t", 2)).await;
            assert!(matches!(other, Err(LogError::Partitions { found: 1, wanted: 2, .. })), "{other:?}");
            let (producer, mut reports) = sender(&log);
            for n in 10 * life..10 * (life + 1) {
                producer.produce(record(n)).expect("the queue has room");
                assert_eq!(reports.recv().await.expect("a report").result.expect("written").offset, n);
            }
            assert!(log.close(SOON).await, "all is written and reported although a producer lives");
            assert!(producer.produce(record(0)).is_err(), "a closed log takes nothing");
            assert!(log.ping().await.is_err());
        }
        let rows = rusqlite::Connection::open(&file.0).expect("the file");
        let kept: i64 = rows.query_row("SELECT count(*) FROM log", [], |r| r.get(0)).expect("the table");
        assert_eq!(kept, 30);
    }

    #[tokio::test]
    async fn close_writes_and_reports_what_was_taken() {
        let file = TempFile::new();
        let log = EmbeddedLog::open(&file.0).expect("a log in a file");
        log.ensure_topic("t", spec(None)).await.expect("a topic");
        let (producer, mut reports) = sender(&log);
        for n in 0..100 {
            producer.produce(record(n)).expect("the queue has room");
        }
        assert!(log.close(SOON).await);
        for n in 0..100 {
            assert_eq!(reports.try_recv().expect("a report").result.expect("written").offset, n);
        }
    }

    #[tokio::test]
    async fn a_dropped_log_frees_its_file_by_itself() {
        let file = TempFile::new();
        let log = EmbeddedLog::open(&file.0).expect("a log in a file");
        let held = EmbeddedLog::open(&file.0).err().expect("the file is in use");
        assert!(matches!(held, LogError::Refused(_)), "{held:?}");
        let (producer, reports) = sender(&log);
        drop((log, producer, reports));
        let deadline = tokio::time::Instant::now() + SOON;
        while EmbeddedLog::open(&file.0).is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the file is still held");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_write_that_fails_is_reported_and_the_log_goes_on() {
        let file = TempFile::new();
        let log = EmbeddedLog::open(&file.0).expect("a log in a file");
        log.ensure_topic("t", spec(None)).await.expect("a topic");
        let mut reader = log.read_from_end("t").await.expect("a reader");
        let (producer, mut reports) = sender(&log);
        let meddler = rusqlite::Connection::open(&file.0).expect("the file");
        meddler.execute_batch("ALTER TABLE log RENAME TO gone").expect("renamed");
        producer.produce(record(0)).expect("the queue has room");
        reports.recv().await.expect("a report").result.expect_err("there is no table");
        assert_eq!(log.end("t", 0).await.expect("an end"), 0);
        meddler.execute_batch("ALTER TABLE gone RENAME TO log").expect("renamed back");
        producer.produce(record(1)).expect("the queue has room");
        assert_eq!(reports.recv().await.expect("a report").result.expect("written").offset, 0);
        assert_eq!(reader.next().await.expect("a record")[0].payload, record(1).payload);
    }
}

mod kafka {
    use super::*;
    use rdkafka::ClientConfig;
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::producer::{FutureProducer, FutureRecord};
    use rdkafka::{Offset, TopicPartitionList};
    use roost_backend::log::{FOREIGN_BYTES_MAX, Position};

    async fn fixture() -> Option<Fixture> {
        let brokers = brokers()?;
        let config = KafkaConfig { brokers: brokers.clone(), ..KafkaConfig::default() };
        let log = KafkaLog::connect(config).await.expect("a broker at KAFKA_BROKERS");
        Some(Fixture::new(Arc::new(log)).clean_up_with(move |topics| delete(&brokers, topics)))
    }

    fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client")
    }

    /// From a thread of its own, because the test's thread is inside its runtime.
    fn delete(brokers: &str, topics: Vec<Arc<str>>) {
        let admin = admin(brokers);
        let delete = move || {
            let names: Vec<&str> = topics.iter().map(|name| &**name).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            // Best effort: what stays behind is empty or nearly so.
            let _ = runtime.block_on(admin.delete_topics(&names, &AdminOptions::new()));
        };
        std::thread::spawn(delete).join().expect("no panic");
    }

    roost_backend::log_contract!(fixture());

    /// A topic of one partition, its name, and a log; what is written with rdkafka itself is another's.
    async fn another(spec: TopicSpec) -> Option<(KafkaLog, String, String)> {
        let brokers = brokers()?;
        let config = KafkaConfig { brokers: brokers.clone(), ..KafkaConfig::default() };
        let log = KafkaLog::connect(config).await.expect("a broker at KAFKA_BROKERS");
        let topic = format!("test-{:016x}", rand::random::<u64>());
        log.ensure_topic(&topic, spec).await.expect("a topic");
        Some((log, brokers, topic))
    }

    async fn write(brokers: &str, topic: &str, bytes: usize) -> i64 {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("message.max.bytes", "3000000")
            .create()
            .expect("a producer");
        let payload = vec![b'x'; bytes];
        let record = FutureRecord::<(), _>::to(topic).partition(0).payload(&payload).timestamp(5);
        producer.send(record, SOON).await.expect("it is taken").offset
    }

    #[tokio::test]
    async fn what_retention_removed_is_not_the_first() {
        let Some((log, brokers, topic)) = another(spec(None)).await else { return };
        for _ in 0..5 {
            write(&brokers, &topic, 1).await;
        }
        for first in [3, 5] {
            let mut before = TopicPartitionList::new();
            before.add_partition_offset(&topic, 0, Offset::Offset(first)).expect("an offset");
            admin(&brokers).delete_records(&before, &AdminOptions::new()).await.expect("removed");
            assert_eq!(log.first(&topic, 0).await.expect("an offset"), first as u64);
        }
        assert_eq!(log.end(&topic, 0).await.expect("an end"), 5);
        log.remove_topic(&topic).await.expect("the topic is there");
    }

    #[tokio::test]
    async fn a_topic_of_others_takes_large_records_and_has_its_own_time() {
        let spec = TopicSpec { foreign: true, ..spec(None) };
        let Some((log, brokers, topic)) = another(spec).await else { return };
        let large = FOREIGN_BYTES_MAX - 1024;
        write(&brokers, &topic, large).await;
        let mut reader =
            log.read_from(&topic, &[Position { partition: 0, offset: 0 }]).await.expect("a reader");
        let records = tokio::time::timeout(SOON, reader.next()).await.expect("in time").expect("a record");
        assert_eq!(records[0].payload.len(), large);
        assert!(records[0].at_ms > 1_577_836_800_000, "not the writer's: {}", records[0].at_ms);
        log.remove_topic(&topic).await.expect("the topic is there");
    }
}

/// For whatever must happen.
const SOON: Duration = Duration::from_secs(20);

fn spec(retention_ms: Option<u64>) -> TopicSpec {
    TopicSpec { partitions: 1, retention_ms, foreign: false }
}

fn sender(log: &EmbeddedLog) -> (Arc<dyn Producer>, mpsc::Receiver<Report>) {
    let (reports, received) = mpsc::channel(1024);
    (log.producer(Durability::Outbox, reports).expect("a producer"), received)
}

fn record(token: u64) -> Outgoing {
    let payload = Bytes::copy_from_slice(&token.to_be_bytes());
    Outgoing { topic: "t".into(), partition: 0, key: Bytes::new(), payload, token }
}

/// Where Kafka is, if the tests are to use it.
fn brokers() -> Option<String> {
    let brokers = std::env::var("KAFKA_BROKERS").ok();
    if brokers.is_none() {
        let required = std::env::var("ROOST_REQUIRE_SERVICES").is_ok_and(|v| v == "1");
        assert!(!required, "ROOST_REQUIRE_SERVICES=1, but KAFKA_BROKERS is not set");
        eprintln!("skipped: KAFKA_BROKERS is not set");
    }
    brokers
}

/// A path of its own for one test; what is there is removed at the end.
struct TempFile(PathBuf);

impl TempFile {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("roost-log-{:016x}", rand::random::<u64>())))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", ".log-lock"] {
            let mut name = self.0.as_os_str().to_owned();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }
}
