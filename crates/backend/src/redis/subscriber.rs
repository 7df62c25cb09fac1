//! One process's subscriptions, on a connection of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use redis::aio::PubSubSink;
use redis::{Client, Msg, RedisError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::keys::Channels;
use super::link::DIAL_TIMEOUT;
use super::rights::Rights;
use crate::store::{LiveChannel, LiveEvent, StoreError, Subscriber};

/// Silent for this long, the far end is asked whether it is still there. What is missed meanwhile is found by
/// comparing tails.
const SILENCE: Duration = Duration::from_secs(2);
/// Between attempts to connect.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// Wishes that wait for the connection; whoever has more waits.
const REQUESTS_MAX: usize = 1024;

enum SubscribeRequest {
    Follow(LiveChannel, oneshot::Sender<Result<(), StoreError>>),
    Unfollow(LiveChannel),
}

/// The task that listens; dropping this ends it.
pub(super) struct RedisSubscriber {
    requests: mpsc::Sender<SubscribeRequest>,
    task: JoinHandle<()>,
}

impl Drop for RedisSubscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RedisSubscriber {
    pub(super) fn spawn(
        client: Client,
        channels: Channels,
        rights: Arc<Rights>,
        queue: mpsc::Sender<LiveEvent>,
    ) -> Self {
        let (requests, incoming) = mpsc::channel(REQUESTS_MAX);
        let followed = BTreeMap::new();
        let listening = Listening { queue, channels, rights, missed: false, followed, requests: incoming };
        Self { requests, task: tokio::spawn(listening.run(client)) }
    }
}

fn gone() -> StoreError {
    StoreError::Unreachable("the connection for subscriptions is away".into())
}

#[async_trait]
impl Subscriber for RedisSubscriber {
    async fn follow(&self, channel: &LiveChannel) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        self.requests.send(SubscribeRequest::Follow(channel.clone(), tell)).await.map_err(|_| gone())?;
        match timeout(DIAL_TIMEOUT, told).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(StoreError::Timeout(DIAL_TIMEOUT)),
        }
    }

    async fn unfollow(&self, channel: &LiveChannel) {
        let _ = self.requests.send(SubscribeRequest::Unfollow(channel.clone())).await;
    }
}

struct Listening {
    queue: mpsc::Sender<LiveEvent>,
    channels: Channels,
    rights: Arc<Rights>,
    /// The queue was full, or the connection is new: told before anything else.
    missed: bool,
    /// By the name in Redis.
    followed: BTreeMap<String, LiveChannel>,
    requests: mpsc::Receiver<SubscribeRequest>,
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

impl Listening {
    async fn run(mut self, client: Client) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            if let Err(error) = self.listen(&client, &mut backoff).await {
                self.rights.note_channel(&error.to_string());
                tracing::debug!(%error, "no subscriptions from Redis");
            }
            // Who wishes meanwhile is refused at once and comes again.
            let pause = tokio::time::sleep(backoff);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    request = self.requests.recv() => match request {
                        Some(SubscribeRequest::Follow(_, tell)) => drop(tell.send(Err(gone()))),
                        Some(SubscribeRequest::Unfollow(channel)) => drop(self.followed.remove(&self.channels.of_live(&channel))),
                        None => return,
                    },
                }
            }
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    /// Until the connection ends.
    async fn listen(&mut self, client: &Client, backoff: &mut Duration) -> Result<(), Broken> {
        let (mut sink, mut messages) = timeout(DIAL_TIMEOUT, client.get_async_pubsub()).await??.split();
        for name in self.followed.keys() {
            timeout(DIAL_TIMEOUT, sink.subscribe(name)).await??;
        }
        *backoff = BACKOFF_FIRST;
        self.missed = true;
        self.say_missed();
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.grant(&mut sink, request).await?,
                    None => std::future::pending().await,
                },
                heard = timeout(SILENCE, messages.next()) => match heard {
                    Ok(Some(message)) => self.tell(&message),
                    Ok(None) => return Ok(()),
                    Err(_) => {
                        self.say_missed();
                        let _: redis::Value =
                            timeout(DIAL_TIMEOUT, sink.ping()).await?.map_err(Box::<RedisError>::new)?;
                    }
                },
            }
        }
    }

    async fn grant(&mut self, sink: &mut PubSubSink, request: SubscribeRequest) -> Result<(), Broken> {
        match request {
            SubscribeRequest::Follow(channel, tell) => {
                let name = self.channels.of_live(&channel);
                let done = timeout(DIAL_TIMEOUT, sink.subscribe(&name)).await;
                if matches!(done, Ok(Ok(()))) {
                    self.followed.insert(name, channel);
                    // Whoever asked may have gone.
                    let _ = tell.send(Ok(()));
                }
                done??;
            }
            SubscribeRequest::Unfollow(channel) => {
                let name = self.channels.of_live(&channel);
                self.followed.remove(&name);
                timeout(DIAL_TIMEOUT, sink.unsubscribe(&name)).await??;
            }
        }
        Ok(())
    }

    fn tell(&mut self, message: &Msg) {
        let Some(channel) = self.followed.get(message.get_channel_name()) else { return };
        let told = LiveEvent::Told {
            channel: channel.clone(),
            payload: Bytes::copy_from_slice(message.get_payload_bytes()),
        };
        self.say_missed();
        if self.missed || self.queue.try_send(told).is_err() {
            self.missed = true;
        }
    }

    fn say_missed(&mut self) {
        if self.missed && self.queue.try_send(LiveEvent::Missed).is_ok() {
            self.missed = false;
        }
    }
}
