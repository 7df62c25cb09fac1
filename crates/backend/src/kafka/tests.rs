//! What a healthy broker never shows, against librdkafka's mock brokers, which live in this process.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::producer::KafkaProducer;
use super::{KafkaConfig, KafkaLog};
use crate::log::{Durability, Log, LogError, LogReader, Outgoing, Producer, Report, TopicSpec};

const TOPIC: &str = "messages-a";
const SOON: Duration = Duration::from_secs(20);

type Mock = MockCluster<'static, DefaultProducerContext>;

/// One broker with one topic of one partition.
fn mock() -> (Mock, KafkaConfig) {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(TOPIC, 1, 1).unwrap();
    let brokers = mock.bootstrap_servers();
    (mock, KafkaConfig { brokers, transport_timeout_ms: 1_500, ..KafkaConfig::default() })
}

fn numbered(token: u64) -> Outgoing {
    let payload = Bytes::copy_from_slice(&token.to_be_bytes());
    Outgoing { topic: TOPIC.into(), partition: 0, key: Bytes::new(), payload, token }
}

async fn report(reports: &mut mpsc::Receiver<Report>) -> Report {
    timeout(SOON, reports.recv()).await.expect("a report").expect("the producer lives")
}

/// The tokens of the records from here on, until `last` came.
async fn tokens(reader: &mut dyn LogReader, last: u64) -> Vec<u64> {
    let mut tokens = Vec::new();
    while tokens.last() != Some(&last) {
        match timeout(SOON, reader.next()).await.expect("records") {
            Ok(records) => {
                tokens.extend(records.iter().map(|r| u64::from_be_bytes(r.payload[..].try_into().unwrap())));
            }
            Err(e) => eprintln!("the reader goes on after: {e}"),
        }
    }
    tokens
}

#[tokio::test]
async fn a_transport_record_is_given_up_after_its_timeout() {
    let (mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let (reports, mut received) = mpsc::channel(16);
    let producer = log.producer(Durability::Transport, reports).unwrap();
    producer.produce(numbered(0)).unwrap();
    assert_eq!(report(&mut received).await.result.unwrap().offset, 0);

    mock.broker_down(-1).unwrap();
    let sent = Instant::now();
    producer.produce(numbered(1)).unwrap();
    let lost = report(&mut received).await;
    assert!(lost.token == 1 && lost.result.is_err(), "{lost:?}");
    let waited = sent.elapsed();
    assert!((Duration::from_millis(1_400)..Duration::from_secs(6)).contains(&waited), "{waited:?}");

    mock.broker_up(-1).unwrap();
    producer.produce(numbered(2)).unwrap();
    let kept = report(&mut received).await;
    assert!(kept.token == 2 && kept.result.is_ok(), "{kept:?}");
}

#[tokio::test]
async fn outbox_records_wait_for_the_broker_and_keep_their_order() {
    let (mock, config) = mock();
    // The transport's timeout must not be the outbox's.
    let patience = Duration::from_millis(2 * config.transport_timeout_ms);
    let log = KafkaLog::connect(config).await.unwrap();
    let mut reader = log.read_from_end(TOPIC).await.unwrap();
    let (reports, mut received) = mpsc::channel(16);
    let producer = log.producer(Durability::Outbox, reports).unwrap();
    producer.produce(numbered(0)).unwrap();
    report(&mut received).await.result.unwrap();

    mock.broker_down(-1).unwrap();
    for n in 1..=100 {
        producer.produce(numbered(n)).unwrap();
    }
    assert!(!producer.flush(patience).await);
    assert!(received.try_recv().is_err(), "nothing is reported while the broker is away");

    mock.broker_up(-1).unwrap();
    for n in 1..=100 {
        let report = report(&mut received).await;
        assert_eq!((report.token, report.result.map(|p| p.offset)), (n, Ok(n)));
    }
    assert_eq!(tokens(&mut *reader, 100).await, (0..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_after_an_outage() {
    let (mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let mut reader = log.read_from_end(TOPIC).await.unwrap();
    let (reports, mut received) = mpsc::channel(16);
    let producer = log.producer(Durability::Outbox, reports).unwrap();
    for n in 0..5 {
        producer.produce(numbered(n)).unwrap();
        report(&mut received).await.result.unwrap();
    }
    assert_eq!(tokens(&mut *reader, 4).await, [0, 1, 2, 3, 4]);
    mock.broker_down(-1).unwrap();
    // The caller is told, and told again while it lasts.
    for _ in 0..2 {
        let away = timeout(SOON, reader.next()).await.expect("an error").expect_err("nobody is there");
        assert!(matches!(away, LogError::Unreachable(_)), "{away:?}");
    }
    mock.broker_up(-1).unwrap();
    producer.produce(numbered(5)).unwrap();
    assert_eq!(tokens(&mut *reader, 5).await, [5]);
}

#[tokio::test]
async fn the_errors_of_a_long_outage_do_not_hold_up_what_comes_after_it() {
    let (mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let mut reader = log.read_from_end(TOPIC).await.unwrap();
    let (reports, mut received) = mpsc::channel(16);
    let producer = log.producer(Durability::Outbox, reports).unwrap();
    producer.produce(numbered(0)).unwrap();
    assert_eq!(tokens(&mut *reader, 0).await, [0]);
    mock.broker_down(-1).unwrap();
    // librdkafka tries to connect about five times a second.
    tokio::time::sleep(Duration::from_secs(4)).await;
    mock.broker_up(-1).unwrap();
    producer.produce(numbered(1)).unwrap();
    while report(&mut received).await.token != 1 {}
    let mut told = 0;
    while let Err(e) = timeout(SOON, reader.next()).await.expect("the record") {
        eprintln!("told: {e}");
        told += 1;
        // As a node does.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(told <= 4, "{told} errors came before the record");
}

#[tokio::test]
async fn a_reader_that_lost_sight_of_a_leader_goes_on_where_it_was() {
    let (_mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let ends = log.ends.of(TOPIC, vec![0]).await.unwrap();
    let mut reader = log.reader(TOPIC, [(0, ends[0])].into(), ends).unwrap();
    let (reports, mut received) = mpsc::channel(16);
    let producer = log.producer(Durability::Outbox, reports).unwrap();
    for token in 0..6 {
        if token == 3 {
            assert_eq!(tokens(&mut reader, 2).await, [0, 1, 2]);
            reader.lose_sight_of_a_leader();
        }
        producer.produce(numbered(token)).unwrap();
        while report(&mut received).await.token != token {}
    }
    assert_eq!(tokens(&mut reader, 5).await, [3, 4, 5], "nothing twice, nothing left out");
}

#[tokio::test]
async fn a_producer_that_broke_is_made_again() {
    let (mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let (reports, mut received) = mpsc::channel(16);
    let producer = log.producer(Durability::Outbox, reports).unwrap();
    producer.produce(numbered(0)).unwrap();
    report(&mut received).await.result.unwrap();

    // For the first request under way librdkafka takes this as the loss of all order.
    let desynchronised = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    mock.request_errors(RDKafkaApiKey::Produce, &[desynchronised]);
    // Those behind the first are refused if the loss is noticed before they come.
    let taken = (1..=3).filter(|n| producer.produce(numbered(*n)).is_ok()).count();
    assert!(taken > 0);
    let mut results = [None; 4];
    for _ in 0..taken {
        let report = report(&mut received).await;
        let seen = results[report.token as usize].replace(report.result.is_ok());
        assert!(seen.is_none(), "a second report of {}", report.token);
    }
    // Those behind the first may have been on the wire in a request of their own, which the mock takes.
    assert_eq!(results[1], Some(false));

    let deadline = Instant::now() + SOON;
    while producer.produce(numbered(4)).is_err() {
        assert!(Instant::now() < deadline, "no new producer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let kept = report(&mut received).await;
    assert_eq!((kept.token, kept.result.is_ok()), (4, true));
    assert!(producer.flush(SOON).await);
}

#[tokio::test]
async fn a_record_no_broker_would_take_is_reported_at_once() {
    let (_mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let (reports, mut received) = mpsc::channel(1);
    let producer = log.producer(Durability::Outbox, reports).unwrap();
    let huge = || Outgoing { payload: vec![0; 2_000_000].into(), ..numbered(7) };
    producer.produce(huge()).unwrap();
    assert!(producer.produce(huge()).is_err(), "its report has no room, so it is not taken");
    let refused = report(&mut received).await;
    assert!(refused.token == 7 && refused.result.is_err(), "{refused:?}");
    assert!(producer.flush(Duration::ZERO).await);
}

#[tokio::test]
async fn a_dropped_producer_ends_although_nobody_reads_its_reports() {
    let (mock, config) = mock();
    let (reports, unread) = mpsc::channel(1);
    let producer = KafkaProducer::spawn(config.producer(Durability::Outbox), reports).unwrap();
    for n in 0..100 {
        producer.produce(numbered(n)).unwrap();
    }
    // The second report waits for room by now, and the rest never leave.
    while unread.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mock.broker_down(-1).unwrap();
    let ended = producer.watch();
    let dropped = Instant::now();
    drop(producer);
    assert!(dropped.elapsed() < Duration::from_millis(20), "the drop waits");
    let deadline = Instant::now() + SOON;
    while ended.upgrade().is_some() {
        assert!(Instant::now() < deadline, "the thread is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn questions_are_bounded_in_time_while_no_broker_answers() {
    let (mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    assert_eq!(log.end(TOPIC, 0).await.unwrap(), 0);
    mock.broker_down(-1).unwrap();
    let asked = Instant::now();
    let (ping, end, reader) = tokio::join!(log.ping(), log.end(TOPIC, 0), log.read_from_end(TOPIC));
    for failed in [ping.unwrap_err(), end.unwrap_err(), reader.map(|_| ()).unwrap_err()] {
        assert!(matches!(failed, LogError::Unreachable(_) | LogError::Timeout(_)), "{failed:?}");
    }
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    mock.broker_up(-1).unwrap();
    let deadline = Instant::now() + SOON;
    while log.end(TOPIC, 0).await.is_err() || log.ping().await.is_err() {
        assert!(Instant::now() < deadline);
    }
}

/// Of a broker that learns of a new topic after the others.
const NOT_YET: [RDKafkaRespErr; 3] = [
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
];

#[tokio::test]
async fn a_leader_that_has_not_heard_of_its_topic_is_waited_for() {
    let (mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    for answer in NOT_YET {
        mock.request_errors(RDKafkaApiKey::ListOffsets, &[answer; 6]);
        log.ensure_topic(TOPIC, TopicSpec::shared(TOPIC, 1)).await.unwrap();
        mock.clear_request_errors(RDKafkaApiKey::ListOffsets);
    }
    mock.request_errors(RDKafkaApiKey::ListOffsets, &[NOT_YET[0]; 6]);
    log.read_from_end(TOPIC).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_has_not_heard_of_a_topic_is_asked_again_by_a_reader() {
    let (mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    mock.topic_error(TOPIC, NOT_YET[0]).unwrap();
    let (reader, ()) = tokio::join!(log.read_from_end(TOPIC), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        mock.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    });
    reader.unwrap();
}

#[tokio::test]
async fn a_topic_that_stays_unknown_is_an_error_and_says_so() {
    let (_mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let asked = Instant::now();
    let unknown = log.read_from_end("messages-b").await.map(|_| ()).unwrap_err();
    assert!(matches!(&unknown, LogError::Missing(words) if words.contains("messages-b")), "{unknown:?}");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn no_broker_is_an_error_of_connect() {
    let (mock, config) = mock();
    mock.broker_down(-1).unwrap();
    let failed = KafkaLog::connect(config).await.err().expect("nobody is there");
    assert!(matches!(failed, LogError::Unreachable(_) | LogError::Timeout(_)), "{failed:?}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let config = |change: fn(&mut KafkaConfig)| {
        let mut config = KafkaConfig::default();
        change(&mut config);
        config.check()
    };
    config(|_| {}).unwrap();
    let wrong: [fn(&mut KafkaConfig); 5] = [
        |c| c.security_protocol = "tls".into(),
        |c| c.sasl_username = Some("u".into()),
        |c| c.ssl_ca_file = Some("ca.pem".into()),
        |c| c.transport_timeout_ms = 60_001,
        |c| c.transport_timeout_ms = 0,
    ];
    for change in wrong {
        assert!(matches!(config(change), Err(LogError::Refused(_))));
    }
    let ssl = config(|c| c.security_protocol = "SSL".into());
    assert_eq!(ssl.is_ok(), cfg!(feature = "tls"), "{ssl:?}");
}

#[cfg(feature = "tls")]
#[test]
fn librdkafka_was_built_with_what_the_secure_settings_need() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let config = KafkaConfig {
            security_protocol: "sasl_ssl".to_owned(),
            sasl_mechanism: Some(mechanism.to_owned()),
            sasl_username: Some("u".to_owned()),
            sasl_password: Some("p".to_owned()),
            ..KafkaConfig::default()
        };
        config.check().unwrap();
        KafkaProducer::spawn(config.producer(Durability::Outbox), mpsc::channel(1).0).unwrap();
    }
}

#[test]
fn secrets_stay_out_of_the_debug_output() {
    let secret = Some("hunter2".to_owned());
    let config =
        KafkaConfig { sasl_username: secret.clone(), sasl_password: secret, ..KafkaConfig::default() };
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// The settings of both producers, of readers and of questions are ones that librdkafka knows and accepts together.
#[tokio::test]
async fn librdkafka_takes_every_setting() {
    let (_mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    for durability in [Durability::Transport, Durability::Outbox] {
        log.producer(durability, mpsc::channel(1).0).unwrap();
    }
    log.read_from_end(TOPIC).await.unwrap();
    let _: rdkafka::admin::AdminClient<_> = log.config.admin().create().unwrap();
}

/// The mock keeps 5 MB of a partition.
async fn produce_more_than_the_mock_keeps(log: &KafkaLog) -> u64 {
    const COUNT: u64 = 8;
    let (reports, mut received) = mpsc::channel(16);
    let producer = log.producer(Durability::Outbox, reports).unwrap();
    for n in 0..COUNT {
        let mut payload = vec![0; 900_000];
        payload[..8].copy_from_slice(&n.to_be_bytes());
        producer.produce(Outgoing { payload: payload.into(), ..numbered(n) }).unwrap();
        report(&mut received).await.result.unwrap();
    }
    COUNT
}

#[tokio::test]
async fn a_reader_overtaken_by_retention_goes_on_with_the_first_record_left() {
    let (_mock, config) = mock();
    let log = KafkaLog::connect(config).await.unwrap();
    let count = produce_more_than_the_mock_keeps(&log).await;
    for out_of_range in [0, count + 100] {
        let mut reader = log.reader(TOPIC, [(0, out_of_range)].into(), vec![count]).unwrap();
        let mut offsets = Vec::new();
        while offsets.last() != Some(&(count - 1)) {
            let records = timeout(SOON, reader.next()).await.expect("records").unwrap();
            offsets.extend(records.iter().map(|r| r.position.offset));
        }
        assert!(offsets[0] > 0, "the mock removed nothing");
        assert_eq!(offsets, (offsets[0]..count).collect::<Vec<_>>());
        assert_eq!(reader.lag(), 0);
    }
}
