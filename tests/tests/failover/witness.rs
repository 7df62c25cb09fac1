//! Reads a topic beside the cluster, and judges what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::log::{Log, LogRecord};
use roost_client::Message;
use roost_proto::events::{Status, StatusEvent};
use roost_tests::processes::{Cluster, LIMIT, until, vnode_of};
use roost_ws_node::config::PARTITIONS;
use tokio::task::JoinSet;

use super::ledger::Ledger;

/// Every record of one topic from when it was made; of a topic that runs share, those about users of this one.
pub struct Witness {
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

impl Witness {
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

    /// What was read so far.
    pub fn records(&self) -> Vec<LogRecord> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).records.clone()
    }

    /// Everything that is in the topic now.
    pub async fn all(&self) -> Vec<LogRecord> {
        let ends = ends(&self.log, &self.topic).await;
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

/// What is in `chat_events`, and what is wrong with it.
#[derive(Debug, Default)]
pub struct ChatFlaws {
    /// Confirmed messages that are not there.
    pub lost: Vec<String>,
    /// Messages with more than one place in one generation of their stream.
    pub doubled: Vec<String>,
    /// Places that name two messages.
    pub two_in_one: Vec<String>,
    /// Holes in a stream, and messages of one sender out of order.
    pub disordered: Vec<String>,
    /// Places where readers were not shown what the log has.
    pub other: Vec<String>,
}

/// Judges `chat_events` by the ledger. Also says how many records are copies, equal to the byte (core rule 12), and
/// how many generations each stream had at most.
pub fn judge_chat(records: &[LogRecord], names: &[String], ledger: &Ledger) -> (ChatFlaws, usize, usize) {
    let mut flaws = ChatFlaws::default();
    let mut places: BTreeMap<(String, u64, u64), &LogRecord> = BTreeMap::new();
    let mut copies = 0;
    for record in records {
        let m: Message = serde_json::from_slice(&record.payload).expect("chat_events has messages");
        let stream = m.stream.to_string();
        assert_eq!(record.key, stream.as_bytes(), "the key of chat_events is the stream");
        let user = m.stream.user().expect("an inbox").to_string();
        let partition = u32::from(vnode_of(&user)) % PARTITIONS;
        assert_eq!(record.position.partition, partition, "the partition of {user}");
        let place = (stream, m.generation.0, m.offset.0);
        match places.get(&place) {
            Some(first) if first.payload == record.payload => copies += 1,
            Some(first) => {
                flaws.two_in_one.push(format!("{place:?}: {:?} and {:?}", first.payload, record.payload));
            }
            None => drop(places.insert(place, record)),
        }
    }
    let mut found: BTreeMap<(String, u64), usize> = BTreeMap::new();
    let mut last: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let mut last_n: BTreeMap<(usize, usize, u64), u64> = BTreeMap::new();
    let mut at: BTreeMap<(&str, u64, u64), String> = BTreeMap::new();
    for ((stream, generation, offset), record) in &places {
        let m: Message = serde_json::from_slice(&record.payload).expect("read before");
        let before = last.insert((stream, *generation), *offset).unwrap_or(0);
        if *offset != before + 1 {
            flaws.disordered.push(format!("{stream} in {generation}: {offset} after {before}"));
        }
        let id = m.id.to_string();
        *found.entry((id.clone(), *generation)).or_default() += 1;
        if let Some(s) = ledger.sent.get(&id) {
            let before = last_n.insert((s.from, s.to, *generation), s.n).unwrap_or(0);
            if s.n <= before {
                flaws
                    .disordered
                    .push(format!("{stream} in {generation}: {id} after number {before} of its sender"));
            }
            assert_eq!(m.from, names[s.from], "the sender of {id}");
            assert_eq!(*stream, format!("user:{}", names[s.to]), "the stream of {id}");
            assert_eq!(m.data.get(), format!("{{\"n\":{}}}", s.n), "the data of {id}");
        }
        at.insert((stream, *generation, *offset), id);
    }
    flaws.doubled = found.iter().filter(|(_, n)| **n > 1).map(|((id, _), n)| format!("{id}: {n}")).collect();
    let there: BTreeSet<&str> = found.keys().map(|(id, _)| id.as_str()).collect();
    let acked = ledger.sent.iter().filter(|(_, s)| s.acked.is_some());
    flaws.lost = acked.filter(|(id, _)| !there.contains(id.as_str())).map(|(id, _)| id.clone()).collect();
    flaws.other = shown_otherwise(ledger, names, &at);
    let mut generations: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (stream, generation, _) in places.keys() {
        generations.entry(stream).or_default().insert(*generation);
    }
    (flaws, copies, generations.values().map(BTreeSet::len).max().unwrap_or(0))
}

/// Where readers were not shown what the log has: another message at a place, or none at one between two that they
/// were shown. A message that came again in a new generation is shown once (core rule 32).
fn shown_otherwise(
    ledger: &Ledger,
    names: &[String],
    logged: &BTreeMap<(&str, u64, u64), String>,
) -> Vec<String> {
    let mut other = Vec::new();
    let mut last: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let mut shown: BTreeSet<(usize, &str)> = BTreeSet::new();
    for a in &ledger.arrived {
        let stream = format!("user:{}", names[a.user]);
        let logged = |offset: u64| logged.get(&(stream.as_str(), a.generation, offset));
        if logged(a.offset) != Some(&a.id) {
            other.push(format!(
                "{stream} {} {}: shown {}, {:?}",
                a.generation,
                a.offset,
                a.id,
                logged(a.offset)
            ));
        }
        if let Some((_, before)) = last.get(&a.user).filter(|(generation, _)| *generation == a.generation) {
            let skipped = (before + 1..a.offset).map(|offset| (offset, logged(offset)));
            let unknown =
                skipped.filter(|(_, id)| id.is_none_or(|id| !shown.contains(&(a.user, id.as_str()))));
            other.extend(
                unknown.map(|(offset, id)| format!("{stream} {} {offset}: not shown, {id:?}", a.generation)),
            );
        }
        last.insert(a.user, (a.generation, a.offset));
        shown.insert((a.user, &a.id));
    }
    other
}

impl ChatFlaws {
    /// # Panics
    /// If there are any.
    pub fn refuse(&self) {
        let all = [&self.lost, &self.doubled, &self.two_in_one, &self.disordered, &self.other];
        assert!(all.iter().all(|flaws| flaws.is_empty()), "chat_events: {self:#?}");
    }
}

/// What `user_status_events` says of each user, in the order of the home's own numbers.
///
/// # Panics
/// If a record is not what is documented, or two of one `(vnode, epoch, seq)` differ.
pub fn statuses(records: &[LogRecord]) -> BTreeMap<String, Vec<StatusEvent>> {
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
            assert_eq!(first.payload, record.payload, "two status events with one number");
            continue;
        }
        of_user.entry(user).or_default().push(event);
    }
    for events in of_user.values_mut() {
        events.sort_by_key(|event| (event.epoch, event.seq));
    }
    of_user
}
