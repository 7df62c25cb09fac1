//! A log before another one: what a test does not hook goes through as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use roost_backend::log::{Durability, Log, LogError, LogReader, Position, Producer, Report, TopicSpec};
use tokio::sync::mpsc;

/// What is put before the producers and readers of a log, and before the question where a partition ends.
pub trait LogHooks: Send + Sync {
    fn producer(&self, _: Durability, producer: Arc<dyn Producer>) -> Arc<dyn Producer> {
        producer
    }

    fn reader(&self, _topic: &str, reader: Box<dyn LogReader>) -> Box<dyn LogReader> {
        reader
    }

    /// # Errors
    /// What is answered instead of the end.
    fn before_end(&self) -> Result<(), LogError> {
        Ok(())
    }
}

pub struct HookedLog<H> {
    pub log: Arc<dyn Log>,
    pub hooks: H,
}

#[async_trait]
impl<H: LogHooks> Log for HookedLog<H> {
    async fn ensure_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        self.log.ensure_topic(topic, spec).await
    }

    async fn remove_topic(&self, topic: &str) -> Result<bool, LogError> {
        self.log.remove_topic(topic).await
    }

    fn producer(
        &self,
        durability: Durability,
        reports: mpsc::Sender<Report>,
    ) -> Result<Arc<dyn Producer>, LogError> {
        Ok(self.hooks.producer(durability, self.log.producer(durability, reports)?))
    }

    async fn read_from_end(&self, topic: &str) -> Result<Box<dyn LogReader>, LogError> {
        Ok(self.hooks.reader(topic, self.log.read_from_end(topic).await?))
    }

    async fn read_from(&self, topic: &str, from: &[Position]) -> Result<Box<dyn LogReader>, LogError> {
        Ok(self.hooks.reader(topic, self.log.read_from(topic, from).await?))
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        self.hooks.before_end()?;
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
