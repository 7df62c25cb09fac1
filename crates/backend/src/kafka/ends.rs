//! Asks Kafka where partitions end, for everybody at once.
//!
//! A `connect` or `join` needs the end of a partition as of that moment (core rule 26), and a reconnect storm
//! brings thousands of them in a second. For each topic one query is under way at a time; the asks that come
//! meanwhile share the next one. Nobody shares a query that began before the ask, so an answer is never older than
//! its question.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Logging, OffThread, blocking, refusal};
use crate::log::LogError;

/// For one query: a round trip to the leaders, and perhaps one for the metadata first.
const QUERY_LIMIT: Duration = Duration::from_secs(3);
/// For an answer: the query under way when the question came, then its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(7);
/// Questions on their way to the task; it sorts them by topic at once. There each waits with its caller, so there
/// are never more of them than callers.
const ASKS_MAX: usize = 1024;

/// The client that asks about topics and offsets; it never reads records.
pub(super) type Control = OffThread<BaseConsumer<Logging>>;

type Answer = Result<Vec<u64>, LogError>;

struct Ask {
    topic: Arc<str>,
    partitions: Vec<u32>,
    answer: oneshot::Sender<Answer>,
}

/// Handle on the asking task, which ends with it.
pub(super) struct Ends {
    asks: mpsc::Sender<Ask>,
    _task: AbortOnDropHandle<()>,
}

impl Ends {
    pub(super) fn spawn(control: Arc<Control>) -> Self {
        let (asks, queue) = mpsc::channel(ASKS_MAX);
        Self { asks, _task: AbortOnDropHandle::new(tokio::spawn(answer_all(control, queue))) }
    }

    /// The offset each of `partitions` will give its next record, in their order.
    ///
    /// # Errors
    /// [`LogError`]; safe to repeat.
    pub(super) async fn of(&self, topic: &str, partitions: Vec<u32>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let ask = Ask { topic: topic.into(), partitions, answer };
            let ended = || LogError::Unreachable("the log was closed".to_owned());
            self.asks.send(ask).await.map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        };
        tokio::time::timeout(ANSWER_LIMIT, asked).await.unwrap_or(Err(LogError::Timeout(ANSWER_LIMIT)))
    }
}

/// For each topic with a query under way, those who wait for the next one.
type Waiting = HashMap<Arc<str>, Vec<Ask>>;
/// A query that ended: its topic, who shares it, and what it found.
type Ended = (Arc<str>, Vec<Ask>, Result<BTreeMap<u32, u64>, LogError>);

/// Topics are asked beside each other, so that one whose leader is away holds up only its own.
async fn answer_all(control: Arc<Control>, mut asks: mpsc::Receiver<Ask>) {
    let mut waiting = Waiting::new();
    let mut queries: JoinSet<Ended> = JoinSet::new();
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                match waiting.get_mut(&ask.topic) {
                    Some(next) => next.push(ask),
                    None => start(&mut queries, &mut waiting, &control, vec![ask]),
                }
            }
            Some(Ok((topic, shared, found))) = queries.join_next() => {
                answer(shared, &found);
                let mut next = waiting.remove(&topic).unwrap_or_default();
                // Whoever stopped waiting needs no query.
                next.retain(|ask| !ask.answer.is_closed());
                start(&mut queries, &mut waiting, &control, next);
            }
        }
    }
}

/// Begins the query of those who ask, if any do.
fn start(queries: &mut JoinSet<Ended>, waiting: &mut Waiting, control: &Arc<Control>, asks: Vec<Ask>) {
    let Some(first) = asks.first() else { return };
    let topic = Arc::clone(&first.topic);
    let partitions: BTreeSet<u32> = asks.iter().flat_map(|ask| &ask.partitions).copied().collect();
    waiting.insert(Arc::clone(&topic), Vec::new());
    let control = Arc::clone(control);
    queries.spawn(async move {
        let name = Arc::clone(&topic);
        let found = blocking(QUERY_LIMIT, move || query(&control, &name, &partitions, Offset::End)).await;
        (topic, asks, found)
    });
}

fn answer(asks: Vec<Ask>, found: &Result<BTreeMap<u32, u64>, LogError>) {
    for Ask { partitions, answer, .. } in asks {
        let ends = found.as_ref().map(|found| partitions.iter().map(|p| found[p]).collect());
        // An error here is a caller that went away meanwhile.
        let _ = answer.send(ends.map_err(Clone::clone));
    }
}

/// The offset of the earliest record of a partition.
pub(super) async fn first(control: &Arc<Control>, topic: &str, partition: u32) -> Result<u64, LogError> {
    let (control, topic) = (Arc::clone(control), topic.to_owned());
    let query = move || query(&control, &topic, &BTreeSet::from([partition]), Offset::Beginning);
    blocking(QUERY_LIMIT, query).await.map(|found| found[&partition])
}

/// One request to each leader, for all its partitions. Kafka's ListOffsets takes a time, or `place` instead of one.
fn query(
    control: &Control,
    topic: &str,
    partitions: &BTreeSet<u32>,
    place: Offset,
) -> Result<BTreeMap<u32, u64>, LogError> {
    drain_events(control);
    let refused = |e| refusal(&e, QUERY_LIMIT);
    let mut list = TopicPartitionList::new();
    for &partition in partitions {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        list.add_partition_offset(topic, number, place).map_err(refused)?;
    }
    let list = control.offsets_for_times(list, QUERY_LIMIT).map_err(refused)?;
    let mut found = BTreeMap::new();
    for element in list.elements() {
        element.error().map_err(refused)?;
        let (Ok(partition), Offset::Offset(offset)) = (u32::try_from(element.partition()), element.offset())
        else {
            return Err(LogError::Unreachable(format!("no offset known of {topic}/{}", element.partition())));
        };
        found.insert(partition, offset.max(0) as u64);
    }
    if found.len() < partitions.len() {
        return Err(LogError::Unreachable(format!("not every partition of {topic} is known")));
    }
    Ok(found)
}

/// Log lines and events wait in this client's queue until somebody looks.
pub(super) fn drain_events(control: &Control) {
    while control.poll(Duration::ZERO).is_some() {}
}
