//! Reads a topic beside the cluster, and what `user_status_events` says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::log::{Log, LogRecord};
use roost_proto::events::PARTITIONS;
use roost_proto::events::{Status, StatusEvent};
use tokio::task::JoinSet;

use crate::processes::{Cluster, LIMIT, until, vnode_of};

/// Every record of one topic from when it was made; of a topic that runs share, those about users of this one.
pub struct TopicReader {
    topic: String,
    log: Arc<KafkaLog>,
    seen: Arc<Mutex<Seen>>,
    /// Ends with this.
    _reading: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    records: Vec<LogRecord>,
    /// For each partition, the offset after the last record read.
    next: Vec<u64>,
}

impl TopicReader {
    /// Sees everything that is produced after this has returned. The nodes make their topics before they register.
    pub async fn start(cluster: &Cluster, topic: &str) -> Self {
        let config = KafkaConfig { brokers: cluster.brokers().to_owned(), ..KafkaConfig::default() };
        let log = Arc::new(KafkaLog::connect(config).await.expect("a broker at KAFKA_BROKERS"));
        let mut reader = log.read_from_end(topic).await.expect("the topic can be read");
        let seen = Arc::new(Mutex::new(Seen { next: ends(&log, topic).await, ..Seen::default() }));
        let (noted, run, shared) =
            (Arc::clone(&seen), cluster.run().to_owned(), !topic.contains(cluster.run()));
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            loop {
                // An error passes; the reader goes on where it was.
                let Ok(records) = reader.next().await else { continue };
                let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
                for record in records {
                    let next = &mut seen.next[record.position.partition as usize];
                    *next = (*next).max(record.position.offset + 1);
                    if !shared || String::from_utf8_lossy(&record.key).contains(&run) {
                        seen.records.push(record);
                    }
                }
            }
        });
        Self { topic: topic.to_owned(), log, seen, _reading: reading }
    }

    /// Where the partitions of the topic end now.
    pub async fn ends(&self) -> Vec<u64> {
        ends(&self.log, &self.topic).await
    }

    /// What was read so far.
    pub fn records(&self) -> Vec<LogRecord> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).records.clone()
    }

    /// Everything that is in the topic now.
    pub async fn all(&self) -> Vec<LogRecord> {
        let ends = self.ends().await;
        let passed = || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.next.iter().zip(&ends).all(|(next, end)| next >= end)
        };
        until("the topic is read to its end", LIMIT, async || passed().then_some(())).await;
        self.records()
    }
}

async fn ends(log: &KafkaLog, topic: &str) -> Vec<u64> {
    let mut ends = Vec::new();
    for partition in 0..PARTITIONS {
        ends.push(log.end(topic, partition).await.expect("the topic has an end"));
    }
    ends
}

/// What `user_status_events` says of each user, in the order of the home's own numbers.
///
/// # Panics
/// If a record is not what is documented, or two of one `(vnode, epoch, seq)` differ.
pub fn statuses(records: &[LogRecord]) -> BTreeMap<String, Vec<StatusEvent>> {
    let (of_user, differing) = statuses_and_differing(records);
    assert!(differing.is_empty(), "two status events with one number: {differing:?}");
    of_user
}

/// The same, and the users of records whose `(vnode, epoch, seq)` another record had before.
///
/// # Panics
/// If a record is not what is documented.
pub fn statuses_and_differing(records: &[LogRecord]) -> (BTreeMap<String, Vec<StatusEvent>>, Vec<String>) {
    let mut differing = Vec::new();
    let mut unique: BTreeMap<(u16, u64, u64), &LogRecord> = BTreeMap::new();
    let mut of_user: BTreeMap<String, Vec<StatusEvent>> = BTreeMap::new();
    for record in records {
        let event: StatusEvent =
            serde_json::from_slice(&record.payload).expect("user_status_events has them");
        let user = event.user.to_string();
        assert_eq!(record.key, user.as_bytes(), "the key of user_status_events is the user");
        assert_eq!(event.vnode.0, vnode_of(&user), "the vnode of {user}");
        assert_eq!(event.last_seen.is_some(), event.status == Status::Offline, "{event:?}");
        if let Some(first) = unique.insert((event.vnode.0, event.epoch.0, event.seq.0), record) {
            if first.payload == record.payload {
                continue;
            }
            differing.push(user.clone());
        }
        of_user.entry(user).or_default().push(event);
    }
    for events in of_user.values_mut() {
        events.sort_by_key(|event| (event.epoch, event.seq));
    }
    (of_user, differing)
}
