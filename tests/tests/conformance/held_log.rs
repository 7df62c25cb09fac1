//! A log whose events can be held up: what a broker that does not answer looks like to a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use roost_backend::log::{
    Durability, Log, LogError, LogReader, Outgoing, Position, Producer, QueueFull, Report, TopicSpec,
};
use tokio::sync::mpsc;

/// Open until it is closed; shared by all logs that it was put before. Events are held up (`chat_events`,
/// `user_status_events`) and nobody learns where a topic ends; what nodes say to each other passes.
#[derive(Clone, Default)]
pub(crate) struct HeldLog(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    closed: bool,
    held: Vec<(Arc<dyn Producer>, Outgoing)>,
}

impl HeldLog {
    pub(crate) fn before(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        Arc::new(Gated { log, gate: self.clone() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// Lets through what was held up, in order.
    pub(crate) fn open(&self) {
        let mut state = self.state();
        state.closed = false;
        for (producer, record) in state.held.drain(..) {
            producer.produce(record).expect("room for what was held up");
        }
    }
}

struct Gated {
    log: Arc<dyn Log>,
    gate: HeldLog,
}

#[async_trait]
impl Log for Gated {
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
        let producer = self.log.producer(lane, reports)?;
        match lane {
            Durability::Outbox => Ok(Arc::new(GatedProducer { producer, gate: self.gate.clone() })),
            Durability::Transport => Ok(producer),
        }
    }

    async fn read_from_end(&self, topic: &str) -> Result<Box<dyn LogReader>, LogError> {
        self.log.read_from_end(topic).await
    }

    async fn read_from(&self, topic: &str, from: &[Position]) -> Result<Box<dyn LogReader>, LogError> {
        self.log.read_from(topic, from).await
    }

    async fn end(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        if self.gate.state().closed {
            return Err(LogError::Unreachable("the gate is closed".into()));
        }
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

struct GatedProducer {
    producer: Arc<dyn Producer>,
    gate: HeldLog,
}

#[async_trait]
impl Producer for GatedProducer {
    fn produce(&self, record: Outgoing) -> Result<(), QueueFull> {
        let mut state = self.gate.state();
        if state.closed {
            state.held.push((Arc::clone(&self.producer), record));
            return Ok(());
        }
        self.producer.produce(record)
    }

    async fn flush(&self, limit: Duration) -> bool {
        self.producer.flush(limit).await
    }
}
