//! Publish and subscribe inside one process.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::store::{LiveChannel, LiveEvent, StoreError, Subscriber};

/// Everyone who listens.
#[derive(Default)]
pub(super) struct Subscribers {
    next: u64,
    subscribers: HashMap<u64, EmbeddedSubscriber>,
    followers: HashMap<LiveChannel, BTreeSet<u64>>,
}

struct EmbeddedSubscriber {
    queue: mpsc::Sender<LiveEvent>,
    /// The queue was full: told as soon as there is room.
    missed: bool,
}

impl Subscribers {
    pub(super) fn add(subscribers: &Arc<Mutex<Self>>, queue: mpsc::Sender<LiveEvent>) -> OneEar {
        let mut all = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.next;
        all.next += 1;
        all.subscribers.insert(id, EmbeddedSubscriber { queue, missed: false });
        OneEar { subscribers: Arc::clone(subscribers), id }
    }

    pub(super) fn tell(&mut self, channel: &LiveChannel, payload: &Bytes) {
        for id in self.followers.get(channel).into_iter().flatten() {
            let Some(subscriber) = self.subscribers.get_mut(id) else { continue };
            if subscriber.missed && subscriber.queue.try_send(LiveEvent::Missed).is_err() {
                continue;
            }
            let told = LiveEvent::Told { channel: channel.clone(), payload: payload.clone() };
            subscriber.missed = subscriber.queue.try_send(told).is_err();
        }
    }
}

pub(super) struct OneEar {
    subscribers: Arc<Mutex<Subscribers>>,
    id: u64,
}

impl OneEar {
    fn with<T>(&self, f: impl FnOnce(&mut Subscribers) -> T) -> T {
        f(&mut self.subscribers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Subscriber for OneEar {
    async fn follow(&self, channel: &LiveChannel) -> Result<(), StoreError> {
        self.with(|subscribers| subscribers.followers.entry(channel.clone()).or_default().insert(self.id));
        Ok(())
    }

    async fn unfollow(&self, channel: &LiveChannel) {
        self.with(|subscribers| {
            if let Some(followers) = subscribers.followers.get_mut(channel) {
                followers.remove(&self.id);
                if followers.is_empty() {
                    subscribers.followers.remove(channel);
                }
            }
        });
    }
}

impl Drop for OneEar {
    fn drop(&mut self) {
        self.with(|subscribers| {
            subscribers.subscribers.remove(&self.id);
            subscribers.followers.retain(|_, followers| {
                followers.remove(&self.id);
                !followers.is_empty()
            });
        });
    }
}
