//! What goes over the store's publish and subscribe: follows, what is published, what is heard.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use roost_backend::store::{LiveChannel, LiveEvent, Store, Subscriber};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::core::Input;
use crate::inputs::{NodeInput, RETRY, STORE_TIMEOUT};

/// Follows, or publications, sent together.
const BATCH: usize = 64;

/// A channel to follow, under a number, or not any more.
pub(crate) type SubscribeRequest = (LiveChannel, Option<u64>);

/// Runs all at once. Each is first polled in this order, and so handed to their one connection in it: Tokio may not
/// make one of them yield for having done much before it got there, since a later one would go first.
async fn begun_in_order<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    tokio::task::unconstrained(join_all(all)).await
}

/// Follows channels and ceases to, in order.
pub(crate) async fn follow(
    subscriber: Arc<dyn Subscriber>,
    mut requests: mpsc::Receiver<SubscribeRequest>,
    events: mpsc::Sender<NodeInput>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            n = requests.recv_many(&mut batch, BATCH) => if n == 0 { return },
        }
        let all = batch.drain(..).map(|(channel, ask)| {
            let subscriber = &subscriber;
            async move {
                let Some(ask) = ask else {
                    let _ = timeout(STORE_TIMEOUT, subscriber.unfollow(&channel)).await;
                    return None;
                };
                let done = timeout(STORE_TIMEOUT, subscriber.follow(&channel)).await;
                Some(Input::Followed { channel, ask, done: matches!(done, Ok(Ok(()))) })
            }
        });
        for event in begun_in_order(all).await.into_iter().flatten() {
            if events.send(NodeInput::Core(event)).await.is_err() {
                return;
            }
        }
    }
}

/// Publishes what is kept nowhere, in order.
pub(crate) async fn publish(
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<(LiveChannel, Bytes)>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            n = queue.recv_many(&mut batch, BATCH) => if n == 0 { return },
        }
        let all = batch.drain(..).map(|(channel, payload)| {
            let store = &store;
            async move { timeout(STORE_TIMEOUT, store.publish(&channel, payload)).await }
        });
        for done in begun_in_order(all).await {
            if !matches!(done, Ok(Ok(()))) {
                tracing::debug!("a signal was lost");
            }
        }
    }
}

/// Brings what is published to the core.
pub(crate) async fn listen(
    subscriber: Arc<dyn Subscriber>,
    own: LiveChannel,
    mut queue: mpsc::Receiver<LiveEvent>,
    events: mpsc::Sender<NodeInput>,
    stop: CancellationToken,
) {
    let mut follows = false;
    loop {
        if !follows {
            follows = subscriber.follow(&own).await.is_ok();
        }
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = queue.recv() => heard,
            () = tokio::time::sleep(RETRY), if !follows => continue,
        };
        let event = match heard {
            Some(LiveEvent::Told { channel, payload }) => Input::Live { channel, payload },
            Some(LiveEvent::Missed) => Input::Missed,
            None => return,
        };
        if events.send(NodeInput::Core(event)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn a_batch_is_begun_in_its_order_however_much_each_does_before() {
        let begun = RefCell::new(Vec::new());
        let all = (0..BATCH).map(|n| {
            let begun = &begun;
            async move {
                // As a lock, a queue and a timer do on the way to the connection.
                for _ in 0..3 {
                    tokio::task::consume_budget().await;
                }
                begun.borrow_mut().push(n);
                tokio::task::yield_now().await;
            }
        });
        begun_in_order(all).await;
        assert_eq!(begun.into_inner(), (0..BATCH).collect::<Vec<_>>());
    }
}
