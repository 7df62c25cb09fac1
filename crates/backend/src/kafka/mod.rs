//! The log on Kafka, through librdkafka. Only this module names it.
//!
//! It owns connections and settings. It does not own what goes into records, and it joins no consumer group:
//! every reader keeps its own place, or commits it without being a member.

mod client;
mod config;
mod ends;
mod producer;
mod reader;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use roost_proto::events::CHAT_EVENTS;
use tokio::sync::mpsc;

use crate::log::{Durability, Log, LogError, LogReader, Position, Producer, Report, TopicSpec};

pub use config::KafkaConfig;

use client::{Logging, OffThread, blocking, refusal};
use ends::{Control, Ends};
use topics::Patience;

/// For an answer to `ping`: `/readyz` is asked every few seconds.
const PING_LIMIT: Duration = Duration::from_secs(3);

/// To keep places, or to ask for them: the group's coordinator has to be found first.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);

fn places(topic: &str, at: impl Iterator<Item = (u32, Offset)>) -> Result<TopicPartitionList, LogError> {
    let mut places = TopicPartitionList::new();
    for (partition, offset) in at {
        let added = places.add_partition_offset(topic, partition as i32, offset);
        added.map_err(|e| LogError::Refused(e.to_string()))?;
    }
    Ok(places)
}

/// A [`Log`] on Kafka.
pub struct KafkaLog {
    config: KafkaConfig,
    control: Arc<Control>,
    ends: Arc<Ends>,
}

impl KafkaLog {
    /// Checks the configuration and reaches a broker. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LogError::Refused`] names a wrong setting; the others mean that no broker answered.
    pub async fn connect(config: KafkaConfig) -> Result<Self, LogError> {
        config.check()?;
        let control = BaseConsumer::from_config_and_context(&config.control(), Logging);
        let control = Arc::new(OffThread::new(control.map_err(|e| LogError::Refused(e.to_string()))?));
        let log = Self { ends: Arc::new(Ends::spawn(Arc::clone(&control))), config, control };
        log.ping().await?;
        Ok(log)
    }

    fn reader(
        &self,
        topic: &str,
        from: BTreeMap<u32, u64>,
        ends: Vec<u64>,
    ) -> Result<reader::KafkaReader, LogError> {
        reader::KafkaReader::start(&self.config.reader(), topic, from, ends, Arc::clone(&self.ends))
    }

    /// All partitions of a topic that is there.
    async fn partitions(&self, topic: &str) -> Result<Vec<u32>, LogError> {
        let found = topics::shape(&self.control, topic).await?;
        let found = found.ok_or_else(|| topics::missing(topic))?;
        Ok((0..found.partitions).collect())
    }

    /// Where all partitions end, in their order.
    async fn all_ends(&self, topic: &str) -> Result<Vec<u64>, LogError> {
        self.ends.of(topic, self.partitions(topic).await?).await
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn ensure_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        topics::ensure(&self.control, &self.ends, &self.config, topic, spec).await
    }

    async fn remove_topic(&self, topic: &str) -> Result<bool, LogError> {
        topics::remove(&self.config, topic).await
    }

    fn producer(
        &self,
        durability: Durability,
        reports: mpsc::Sender<Report>,
    ) -> Result<Arc<dyn Producer>, LogError> {
        let producer = producer::KafkaProducer::spawn(self.config.producer(durability), reports)?;
        Ok(Arc::new(producer))
    }

    async fn read_from_end(&self, topic: &str) -> Result<Box<dyn LogReader>, LogError> {
        let patience = Patience::with_news();
        let ends = loop {
            match self.all_ends(topic).await {
                Err(missing @ LogError::Missing(_)) => patience.after(missing, true).await?,
                found => break found?,
            }
        };
        let from = (0..).zip(ends.iter().copied()).collect();
        Ok(Box::new(self.reader(topic, from, ends)?))
    }

    async fn read_from(&self, topic: &str, from: &[Position]) -> Result<Box<dyn LogReader>, LogError> {
        let from: BTreeMap<u32, u64> = from.iter().map(|at| (at.partition, at.offset)).collect();
        let ends = self.ends.of(topic, from.keys().copied().collect()).await?;
        Ok(Box::new(self.reader(topic, from, ends)?))
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        let ends = self.ends.of(topic, vec![partition]).await?;
        ends.first().copied().ok_or_else(|| LogError::Unreachable(format!("no end of {topic}/{partition}")))
    }

    async fn first(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        ends::first(&self.control, topic, partition).await
    }

    async fn committed(&self, topic: &str) -> Result<BTreeMap<u32, u64>, LogError> {
        let places = places(topic, self.partitions(topic).await?.into_iter().map(|p| (p, Offset::Invalid)))?;
        let control = Arc::clone(&self.control);
        let found = blocking(COMMIT_LIMIT, move || {
            let found = control.committed_offsets(places, COMMIT_LIMIT);
            found.map_err(|e| refusal(&e, COMMIT_LIMIT))
        });
        let at = |e: &TopicPartitionListElem<'_>| match e.offset() {
            Offset::Offset(next) => Some((e.partition() as u32, next as u64)),
            _ => None,
        };
        Ok(found.await?.elements().iter().filter_map(at).collect())
    }

    async fn commit(&self, topic: &str, at: &[Position]) -> Result<(), LogError> {
        let places = places(topic, at.iter().map(|at| (at.partition, Offset::Offset(at.offset as i64))))?;
        let control = Arc::clone(&self.control);
        blocking(COMMIT_LIMIT, move || {
            control.commit(&places, CommitMode::Sync).map_err(|e| refusal(&e, COMMIT_LIMIT))
        })
        .await
    }

    async fn ping(&self) -> Result<(), LogError> {
        let control = Arc::clone(&self.control);
        blocking(PING_LIMIT, move || {
            ends::drain_events(&control);
            // Of one topic: a cluster may have thousands. Whether it exists does not matter.
            let answer = control.client().fetch_metadata(Some(CHAT_EVENTS), PING_LIMIT);
            answer.map(|_| ()).map_err(|e| refusal(&e, PING_LIMIT))
        })
        .await
    }
}
