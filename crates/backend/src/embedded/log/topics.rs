//! The topics as the process knows them: specification, ends, and who waits for more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::db::Kept;
use crate::log::TopicSpec;

/// The ends are the log's own, not a cache: only the writer of this process moves them, after its commit.
pub(super) struct Topic {
    pub id: i64,
    pub name: Arc<str>,
    pub spec: TopicSpec,
    ends: Vec<AtomicU64>,
    changed: watch::Sender<()>,
}

impl Topic {
    fn new(kept: Kept) -> Self {
        Self {
            id: kept.id,
            name: kept.name.into(),
            spec: kept.spec,
            ends: kept.ends.into_iter().map(AtomicU64::new).collect(),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn end(&self, partition: u32) -> Option<u64> {
        self.ends.get(partition as usize).map(|end| end.load(Ordering::Acquire))
    }

    pub(super) fn ends(&self) -> impl Iterator<Item = u64> + '_ {
        self.ends.iter().map(|end| end.load(Ordering::Acquire))
    }

    pub(super) fn move_end(&self, partition: u32, end: u64) {
        self.ends[partition as usize].store(end, Ordering::Release);
    }

    pub(super) fn wake_readers(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[derive(Default)]
pub(super) struct Topics(RwLock<HashMap<Arc<str>, Arc<Topic>>>);

impl Topics {
    pub(super) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// One that is already known stays as it is, with its ends.
    pub(super) fn insert(&self, kept: Kept) -> Arc<Topic> {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let topic = topics.entry(kept.name.as_str().into()).or_insert_with(|| Arc::new(Topic::new(kept)));
        Arc::clone(topic)
    }

    pub(super) fn remove(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// By id, so that a simulation can be repeated.
    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = topics.values().cloned().collect();
        all.sort_by_key(|topic| topic.id);
        all
    }
}
