//! A log whose events can be held up: what a broker that does not answer looks like to a node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use roost_backend::log::{Durability, Log, LogError, Outgoing, Producer, QueueFull};
use roost_tests::log_hooks::{HookedLog, LogHooks};

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
        Arc::new(HookedLog { log, hooks: self.clone() })
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

impl LogHooks for HeldLog {
    fn producer(&self, durability: Durability, producer: Arc<dyn Producer>) -> Arc<dyn Producer> {
        match durability {
            Durability::Outbox => Arc::new(HeldProducer { producer, held: self.clone() }),
            Durability::Transport => producer,
        }
    }

    fn before_end(&self) -> Result<(), LogError> {
        if self.state().closed {
            return Err(LogError::Unreachable("it is closed".into()));
        }
        Ok(())
    }
}

struct HeldProducer {
    producer: Arc<dyn Producer>,
    held: HeldLog,
}

#[async_trait]
impl Producer for HeldProducer {
    fn produce(&self, record: Outgoing) -> Result<(), QueueFull> {
        let mut state = self.held.state();
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
