//! The contract of [`Log`]: one function for each sentence that follows from its numbered promises.
//!
//! A back end gives a [`Fixture`] and runs the list at the end of this file ([`log_contract!`](crate::log_contract)). Waits are for
//! conditions, with a deadline long enough for a real Kafka on a busy machine.

pub mod produce;
pub mod read;
pub mod topics;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::log::{
    Durability, Log, LogError, LogReader, LogRecord, Outgoing, Position, Producer, Report, TopicSpec,
};

/// For whatever must happen.
const SOON: Duration = Duration::from_secs(20);
/// For whatever must not happen: long enough to catch a mistake, short enough to wait for.
const A_MOMENT: Duration = Duration::from_millis(300);

/// A log under test.
pub struct Fixture {
    pub log: Arc<dyn Log>,
    /// Keeps the topics of runs and functions apart: on a real service they stay.
    prefix: String,
    topics: Mutex<Vec<Arc<str>>>,
    clean_up: Option<CleanUp>,
}

/// Is given the name of every topic that was made, or at least named.
type CleanUp = Box<dyn FnOnce(Vec<Arc<str>>) + Send + Sync>;

impl Fixture {
    pub fn new(log: Arc<dyn Log>) -> Self {
        let prefix = format!("contract-{:016x}", rand::random::<u64>());
        Self { log, prefix, topics: Mutex::default(), clean_up: None }
    }

    /// Calls `f` with the topics' names at the end, for a log that outlives the test.
    #[must_use]
    pub fn clean_up_with(mut self, f: impl FnOnce(Vec<Arc<str>>) + Send + Sync + 'static) -> Self {
        self.clean_up = Some(Box::new(f));
        self
    }

    /// A name that nobody else has.
    fn name(&self) -> Arc<str> {
        let mut topics = self.topics.lock().expect("no test panics while it holds this");
        let name: Arc<str> = format!("{}-{}", self.prefix, topics.len()).into();
        topics.push(Arc::clone(&name));
        name
    }

    /// A new topic.
    async fn topic(&self, partitions: u32) -> Arc<str> {
        let name = self.name();
        self.log.ensure_topic(&name, spec(partitions)).await.expect("a new topic");
        name
    }

    async fn reader(&self, topic: &str) -> Box<dyn LogReader> {
        self.log.read_from_end(topic).await.expect("a reader")
    }

    fn sender_of(&self, durability: Durability) -> Sender {
        let (reports, received) = mpsc::channel(256);
        let producer = self.log.producer(durability, reports).expect("a producer");
        Sender { producer, reports: received, next: 0 }
    }

    fn sender(&self) -> Sender {
        self.sender_of(Durability::Transport)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clean_up) = self.clean_up.take() {
            clean_up(topics.clone());
        }
    }
}

fn spec(partitions: u32) -> TopicSpec {
    TopicSpec::kept_for(3_600_000, partitions)
}

/// A producer with tokens 0, 1, 2…, each also the payload of its record.
struct Sender {
    producer: Arc<dyn Producer>,
    reports: mpsc::Receiver<Report>,
    next: u64,
}

impl Sender {
    fn take(&mut self, topic: &Arc<str>, partition: u32) -> u64 {
        let token = self.next;
        let record = numbered(topic, partition, token);
        self.producer.produce(record).expect("the queue has room");
        self.next += 1;
        token
    }

    async fn report(&mut self) -> Report {
        timeout(SOON, self.reports.recv()).await.expect("a report").expect("the producer lives")
    }

    /// The positions of as many records as there are reports to come; all must be Ok.
    async fn positions(&mut self, count: usize) -> Vec<(u64, Position)> {
        let mut positions = Vec::new();
        for _ in 0..count {
            let report = self.report().await;
            positions.push((report.token, report.result.expect("the record is in the log")));
        }
        positions
    }

    async fn send(&mut self, topic: &Arc<str>, partition: u32) -> Position {
        self.take(topic, partition);
        self.positions(1).await[0].1
    }
}

fn numbered(topic: &Arc<str>, partition: u32, token: u64) -> Outgoing {
    let payload = Bytes::copy_from_slice(&token.to_be_bytes());
    Outgoing { topic: Arc::clone(topic), partition, key: Bytes::from_static(b"key"), payload, token }
}

fn token(record: &LogRecord) -> u64 {
    u64::from_be_bytes(record.payload[..].try_into().expect("a numbered record"))
}

/// Reads until there are `count` records.
async fn read(reader: &mut dyn LogReader, count: usize) -> Vec<LogRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        match timeout(SOON, reader.next()).await.expect("records within the deadline") {
            Ok(more) => records.extend(more),
            // Passes by itself.
            Err(e) => eprintln!("a reader goes on after: {e}"),
        }
    }
    records
}

async fn assert_silent(reader: &mut dyn LogReader) {
    if let Ok(Ok(records)) = timeout(A_MOMENT, reader.next()).await {
        panic!("unexpected records: {records:?}");
    }
}

/// One test for each sentence of the groups. `$make` is an expression whose future answers `Option<Fixture>`; `None`
/// skips.
#[macro_export]
macro_rules! log_contract {
    ($make:expr) => {
        $crate::log_contract! { $make;
            produce::records_of_a_partition_are_read_in_the_order_produced_and_once,
            produce::readers_see_a_record_at_its_reported_position_as_it_was_sent,
            produce::every_record_taken_gets_exactly_one_report,
            produce::reports_of_a_partition_come_in_order,
            produce::a_full_queue_refuses_and_the_rest_is_reported,
            produce::flush_waits_for_every_report,
            produce::nobody_is_troubled_by_those_who_went_away,
            read::a_reader_begins_at_the_end_of_the_moment_it_was_made,
            read::a_reader_made_in_the_midst_of_records_misses_none_after_it,
            read::every_reader_sees_every_record,
            read::next_waits_for_a_record,
            read::what_is_committed_is_found_by_whoever_asks,
            read::a_dropped_next_loses_nothing,
            read::next_returns_a_few_hundred_records_at_most,
            read::lag_counts_what_was_not_returned_yet,
            read::a_reader_of_some_partitions_begins_where_it_is_told_and_sees_no_others,
            read::a_reader_told_to_begin_beyond_the_end_begins_with_the_earliest_record,
            topics::a_new_topic_can_be_used_at_once,
            topics::ensuring_a_topic_again_changes_nothing,
            topics::another_partition_count_is_refused,
            topics::the_end_is_past_everything_reported_before_the_question,
            topics::many_ends_can_be_asked_at_once,
            topics::the_first_record_is_named,
            topics::a_topic_that_is_not_there_is_an_error_soon,
            topics::the_log_says_that_it_answers,
        }
    };
    ($make:expr; $($group:ident::$name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(fixture) = $make.await else { return };
                $crate::contract::log::$group::$name(&fixture).await;
            }
        )*
    };
}
