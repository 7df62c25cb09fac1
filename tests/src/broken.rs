//! A log whose readers of some topic can be made to panic: a bug in a task that reads, without one in the product.

use std::sync::Arc;

use async_trait::async_trait;
use roost_backend::log::{Log, LogError, LogReader, LogRecord};
use tokio::sync::watch;

use crate::log_hooks::{HookedLog, LogHooks};

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
        Arc::new(HookedLog { log, hooks: self.clone() })
    }

    /// From now on whoever reads the topic panics.
    pub fn now(&self) {
        self.now.send_replace(true);
    }
}

impl LogHooks for Broken {
    fn reader(&self, topic: &str, reader: Box<dyn LogReader>) -> Box<dyn LogReader> {
        if !topic.ends_with(self.topic) {
            return reader;
        }
        Box::new(BrokenReader { reader, now: self.now.subscribe() })
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
