//! Publish and subscribe inside one process.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::store::{LiveChannel, LiveEvent, StoreError, Subscriber};

/// Everyone who listens.
#[derive(Default)]
pub(super) struct Ears {
    next: u64,
    ears: HashMap<u64, Ear>,
    followers: HashMap<LiveChannel, BTreeSet<u64>>,
}

struct Ear {
    queue: mpsc::Sender<LiveEvent>,
    /// The queue was full: told as soon as there is room.
    missed: bool,
}

impl Ears {
    pub(super) fn add(ears: &Arc<Mutex<Self>>, queue: mpsc::Sender<LiveEvent>) -> OneEar {
        let mut all = ears.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.next;
        all.next += 1;
        all.ears.insert(id, Ear { queue, missed: false });
        OneEar { ears: Arc::clone(ears), id }
    }

    pub(super) fn tell(&mut self, channel: &LiveChannel, payload: &Bytes) {
        for id in self.followers.get(channel).into_iter().flatten() {
            let Some(ear) = self.ears.get_mut(id) else { continue };
            if ear.missed && ear.queue.try_send(LiveEvent::Missed).is_err() {
                continue;
            }
            let told = LiveEvent::Told { channel: channel.clone(), payload: payload.clone() };
            ear.missed = ear.queue.try_send(told).is_err();
        }
    }
}

pub(super) struct OneEar {
    ears: Arc<Mutex<Ears>>,
    id: u64,
}

impl OneEar {
    fn with<T>(&self, f: impl FnOnce(&mut Ears) -> T) -> T {
        f(&mut self.ears.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Subscriber for OneEar {
    async fn follow(&self, channel: &LiveChannel) -> Result<(), StoreError> {
        self.with(|ears| ears.followers.entry(channel.clone()).or_default().insert(self.id));
        Ok(())
    }

    async fn unfollow(&self, channel: &LiveChannel) {
        self.with(|ears| {
            if let Some(followers) = ears.followers.get_mut(channel) {
                followers.remove(&self.id);
                if followers.is_empty() {
                    ears.followers.remove(channel);
                }
            }
        });
    }
}

impl Drop for OneEar {
    fn drop(&mut self) {
        self.with(|ears| {
            ears.ears.remove(&self.id);
            ears.followers.retain(|_, followers| {
                followers.remove(&self.id);
                !followers.is_empty()
            });
        });
    }
}
