//! A log whose readers of some topic can be made to panic: a bug in a task that reads, without one in the product.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use roost_backend::log::{
    Durability, Log, LogError, LogReader, LogRecord, Position, Producer, Report, TopicSpec,
};
use tokio::sync::{mpsc, watch};

/// Whole until it is broken; shared by all logs that it was put before.
#[derive(Debug, Clone)]
pub struct Broken {
    /// What the topic's name ends with.
    topic: &'static str,
    now: watch::Sender<bool>,
}

impl Broken {
    pub fn new(topic: &'static str) -> Self {
        Self { topic, now: watch::Sender::new(false) }
    }

    pub fn before(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        Arc::new(BrokenLog { log, broken: self.clone() })
    }

    /// From now on whoever reads the topic panics.
    pub fn now(&self) {
        self.now.send_replace(true);
    }

    fn reader(&self, topic: &str, reader: Box<dyn LogReader>) -> Box<dyn LogReader> {
        if !topic.ends_with(self.topic) {
            return reader;
        }
        Box::new(BrokenReader { reader, now: self.now.subscribe() })
    }
}

struct BrokenLog {
    log: Arc<dyn Log>,
    broken: Broken,
}

#[async_trait]
impl Log for BrokenLog {
    async fn ensure_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        self.log.ensure_topic(topic, spec).await
    }

    async fn remove_topic(&self, topic: &str) -> Result<bool, LogError> {
        self.log.remove_topic(topic).await
    }

    fn producer(
        &self,
        lane: Durability,
        reports: mpsc::Sender<Report>,
    ) -> Result<Arc<dyn Producer>, LogError> {
        self.log.producer(lane, reports)
    }

    async fn read_from_end(&self, topic: &str) -> Result<Box<dyn LogReader>, LogError> {
        Ok(self.broken.reader(topic, self.log.read_from_end(topic).await?))
    }

    async fn read_from(&self, topic: &str, from: &[Position]) -> Result<Box<dyn LogReader>, LogError> {
        Ok(self.broken.reader(topic, self.log.read_from(topic, from).await?))
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        self.log.end(topic, partition).await
    }

    async fn first(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        self.log.first(topic, partition).await
    }

    async fn committed(&self, topic: &str) -> Result<BTreeMap<u32, u64>, LogError> {
        self.log.committed(topic).await
    }

    async fn commit(&self, topic: &str, at: &[Position]) -> Result<(), LogError> {
        self.log.commit(topic, at).await
    }

    async fn ping(&self) -> Result<(), LogError> {
        self.log.ping().await
    }
}

struct BrokenReader {
    reader: Box<dyn LogReader>,
    now: watch::Receiver<bool>,
}

#[async_trait]
impl LogReader for BrokenReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, LogError> {
        tokio::select! {
            biased;
            _ = self.now.wait_for(|now| *now) => panic!("broken on purpose"),
            records = self.reader.next() => records,
        }
    }

    fn lag(&self) -> u64 {
        self.reader.lag()
    }
}
