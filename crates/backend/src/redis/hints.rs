//! Listens on the hint channel, on a connection of its own, and moves a counter.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::{Client, RedisError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::keys::Channels;
use super::link::DIAL_TIMEOUT;
use super::rights::Rights;

/// Silent for this long, the far end is asked whether it is still there. Until it is missed the readers' own
/// period (core rule 20) stands in for the hints.
const SILENCE: Duration = Duration::from_secs(15);
/// Between attempts. Nothing waits for hints, so this need not be quick.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);

/// The counter, and the task that moves it; dropping this ends the task.
pub(super) struct Hints {
    counter: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hints {
    pub(super) fn spawn(client: Client, channels: &Channels, rights: Arc<Rights>) -> Self {
        let counter = watch::Sender::new(0);
        let task = tokio::spawn(run(client, channels.hint(), rights, counter.clone()));
        Self { counter, task }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.counter.subscribe()
    }
}

async fn run(client: Client, channel: String, rights: Arc<Rights>, counter: watch::Sender<u64>) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        if let Err(error) = listen(&client, &channel, &counter, &mut backoff).await {
            rights.note_channel(&error.to_string());
            tracing::debug!(%error, "no hints from Redis");
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

/// Until the connection ends.
async fn listen(
    client: &Client,
    channel: &str,
    counter: &watch::Sender<u64>,
    backoff: &mut Duration,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let bump = || counter.send_modify(|n| *n += 1);
    let (mut sink, mut messages) = timeout(DIAL_TIMEOUT, client.get_async_pubsub()).await??.split();
    timeout(DIAL_TIMEOUT, sink.subscribe(channel)).await??;
    *backoff = BACKOFF_FIRST;
    // What was published before is lost.
    bump();
    loop {
        match timeout(SILENCE, messages.next()).await {
            Ok(Some(_)) => bump(),
            Ok(None) => return Ok(()),
            Err(_) => {
                let _: redis::Value =
                    timeout(DIAL_TIMEOUT, sink.ping()).await?.map_err(Box::<RedisError>::new)?;
            }
        }
    }
}
