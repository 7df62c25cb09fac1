//! Reads one topic from fixed offsets on: no group is joined, nothing is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::client::{OffThread, is_leader_lost, log_error, log_line};
use super::ends::Ends;
use crate::log::{LogError, LogReader, LogRecord, Position};

/// The most one `next` returns: a few batches of the homes' work, and a bound on how long it holds the task.
const RECORDS_MAX: usize = 256;
/// How often the ends are asked for, for [`LogReader::lag`].
const LAG_EVERY: Duration = Duration::from_secs(1);

/// How often a reader that hears nothing looks whether it must be made anew.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What librdkafka says of a reader.
struct Watching {
    leader_lost: Arc<AtomicBool>,
}

impl ClientContext for Watching {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if is_leader_lost(facility, message) {
            self.leader_lost.store(true, Ordering::Release);
        }
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Watching {}

/// See the module's description.
pub(super) struct KafkaReader {
    config: ClientConfig,
    topic: Arc<str>,
    consumer: OffThread<StreamConsumer<Watching>>,
    /// A way to a partition is lost to this consumer: another goes on where this one was.
    leader_lost: Arc<AtomicBool>,
    /// For each partition the offset after the last record returned.
    next: BTreeMap<u32, u64>,
    /// In the order of `next`.
    ends: Arc<[AtomicU64]>,
    _lag: AbortOnDropHandle<()>,
}

impl KafkaReader {
    /// Reads these partitions of `topic`, each from its offset on; `heard` is where they end, in their order.
    ///
    /// # Errors
    /// [`LogError::Refused`] if librdkafka does not take the configuration.
    pub(super) fn start(
        config: &ClientConfig,
        topic: &str,
        from: BTreeMap<u32, u64>,
        heard: Vec<u64>,
        ends: Arc<Ends>,
    ) -> Result<Self, LogError> {
        let leader_lost = Arc::new(AtomicBool::new(false));
        let consumer = consumer(config, topic, &from, &leader_lost)?;
        let topic: Arc<str> = topic.into();
        let heard: Arc<[AtomicU64]> = heard.into_iter().map(AtomicU64::new).collect();
        let partitions = from.keys().copied().collect();
        let lag = tokio::spawn(listen_for_ends(Arc::clone(&topic), partitions, ends, Arc::clone(&heard)));
        let config = config.clone();
        let _lag = AbortOnDropHandle::new(lag);
        Ok(Self { config, topic, consumer, leader_lost, next: from, ends: heard, _lag })
    }

    /// Another consumer from where this one is. Nothing is skipped and nothing comes twice: what was returned is
    /// noted, and what the old one had in its queue is read again.
    fn make_anew(&mut self) -> Result<(), LogError> {
        tracing::warn!(topic = %self.topic, "kafka: a reader is made anew: it lost sight of a leader");
        let leader_lost = Arc::new(AtomicBool::new(false));
        self.consumer = consumer(&self.config, &self.topic, &self.next, &leader_lost)?;
        self.leader_lost = leader_lost;
        Ok(())
    }

    /// Notes the record as returned.
    fn note(&mut self, record: &LogRecord) {
        let Position { partition, offset } = record.position;
        let Some(next) = self.next.get_mut(&partition) else { return };
        if offset > *next {
            tracing::warn!(topic = %self.topic, partition, from = *next, to = offset,
                "records were removed by retention before they were read");
        } else if offset < *next {
            tracing::warn!(topic = %self.topic, partition, from = *next, to = offset, "the log went back");
        }
        *next = offset + 1;
    }
}

#[cfg(test)]
impl KafkaReader {
    /// As if librdkafka had said so.
    pub(super) fn lose_sight_of_a_leader(&self) {
        self.leader_lost.store(true, Ordering::Release);
    }
}

#[async_trait]
impl LogReader for KafkaReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, LogError> {
        let first = 'first: loop {
            // The only wait; what `recv` takes out of librdkafka's queue it returns in the same poll, so a dropped
            // `next` loses nothing.
            if self.leader_lost.load(Ordering::Acquire) {
                self.make_anew()?;
            }
            let Ok(received) = timeout(LOOK_EVERY, self.consumer.recv()).await else { continue };
            let mut error = match received {
                Ok(message) => break record(&message),
                Err(e) => match worth_telling(&e) {
                    Some(error) => error,
                    None => continue,
                },
            };
            // librdkafka queues an error for each try to connect. Told one by one they would hold up the records
            // behind them for long after an outage.
            loop {
                match self.consumer.recv().now_or_never() {
                    Some(Ok(message)) => break 'first record(&message),
                    Some(Err(e)) => error = worth_telling(&e).unwrap_or(error),
                    None => return Err(error),
                }
            }
        };
        let mut records = vec![first];
        while records.len() < RECORDS_MAX
            && let Some(next) = self.consumer.recv().now_or_never()
        {
            match next {
                Ok(message) => records.push(record(&message)),
                // The records come first; an error that stays will come again.
                Err(e) => {
                    tracing::warn!(topic = %self.topic, "kafka: {e}");
                    break;
                }
            }
        }
        for record in &records {
            self.note(record);
        }
        Ok(records)
    }

    fn lag(&self) -> u64 {
        let ends = self.ends.iter().map(|end| end.load(Ordering::Relaxed));
        ends.zip(self.next.values()).map(|(end, &next)| end.saturating_sub(next)).sum()
    }
}

fn consumer(
    config: &ClientConfig,
    topic: &str,
    from: &BTreeMap<u32, u64>,
    leader_lost: &Arc<AtomicBool>,
) -> Result<OffThread<StreamConsumer<Watching>>, LogError> {
    let refused = |e: KafkaError| LogError::Refused(e.to_string());
    let watching = Watching { leader_lost: Arc::clone(leader_lost) };
    let consumer: StreamConsumer<Watching> =
        StreamConsumer::from_config_and_context(config, watching).map_err(refused)?;
    let consumer = OffThread::new(consumer);
    let mut list = TopicPartitionList::new();
    for (&partition, &offset) in from {
        // Fixed offsets rather than "the end", which librdkafka would look up some time after this returned.
        list.add_partition_offset(topic, partition as i32, Offset::Offset(offset as i64)).map_err(refused)?;
    }
    consumer.assign(&list).map_err(refused)?;
    Ok(consumer)
}

/// Keeps what the log last said about its ends. librdkafka's statistics have the same numbers, but as a growing
/// queue of JSON whenever nobody calls `next`, which is when lag matters.
async fn listen_for_ends(topic: Arc<str>, partitions: Vec<u32>, ends: Arc<Ends>, heard: Arc<[AtomicU64]>) {
    let mut tick = tokio::time::interval(LAG_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // While the log does not answer, what was last heard stands.
        let Ok(now) = ends.of(&topic, partitions.clone()).await else { continue };
        for (end, now) in heard.iter().zip(now) {
            end.store(now, Ordering::Relaxed);
        }
    }
}

/// Copied, because librdkafka's message keeps the whole fetched batch alive.
fn record<M: Message>(message: &M) -> LogRecord {
    let (key, payload) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    let mut copy = BytesMut::with_capacity(key.len() + payload.len());
    copy.extend_from_slice(key);
    copy.extend_from_slice(payload);
    let mut copy = copy.freeze();
    let key: Bytes = copy.split_to(key.len());
    let position = Position { partition: message.partition() as u32, offset: message.offset() as u64 };
    let at_ms = message.timestamp().to_millis().and_then(|ms| ms.try_into().ok()).unwrap_or_default();
    LogRecord { position, at_ms, key, payload: copy }
}

/// librdkafka reports every lost connection and goes on by itself. The caller hears what stops the whole reader.
fn worth_telling(error: &KafkaError) -> Option<LogError> {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::AllBrokersDown | Code::Authentication) => Some(LogError::Unreachable(error.to_string())),
        Some(
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::TopicAuthorizationFailed
            | Code::Fatal,
        ) => Some(LogError::Refused(error.to_string())),
        _ => {
            tracing::debug!("kafka: a reader goes on after: {error}");
            None
        }
    }
}
