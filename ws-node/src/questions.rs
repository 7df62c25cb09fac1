//! The core's questions to the store, put: what an answer becomes, and how long it is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roost_backend::store::{Store, StoreError, Write, WriteAnswer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::core::{Ask, Input};
use crate::inputs::STORE_TIMEOUT;

/// How long an activation may take: what is taken over may be hundreds of megabytes, in pieces that each have the
/// store's own limit.
const ACTIVATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions about presence asked of the store at once. How many reads of streams are under way is the core's to say.
const PRESENCE_MAX: usize = 64;

/// What questions are put with.
pub(crate) struct Questions {
    store: Arc<dyn Store>,
    /// Records of the node's topic that wait to be read, for the load in its row.
    lag: Arc<AtomicU64>,
    turns: Semaphore,
}

impl Questions {
    pub(crate) fn new(store: Arc<dyn Store>, lag: Arc<AtomicU64>) -> Self {
        Self { store, lag, turns: Semaphore::new(PRESENCE_MAX) }
    }

    /// Asks, and tells what the core is told: also if there was no answer.
    pub(crate) async fn put(&self, ask: Ask) -> Input {
        let store = &*self.store;
        match ask {
            Ask::Register(register) => Input::Registered(soon("register", store.register(&register)).await),
            Ask::Claim { claim, sent } => {
                let answer = soon("claim", store.claim(&claim)).await;
                Input::Claimed { vnode: claim.vnode, sent, answer }
            }
            Ask::Activate(activate) => {
                let answer = within(ACTIVATE_TIMEOUT, "activate", store.activate(&activate)).await;
                Input::Activated { vnode: activate.vnode, epoch: activate.epoch, answer }
            }
            Ask::Ready(own) => {
                let (vnode, epoch) = own.rows[0];
                let answer =
                    soon("ready", store.set_ready(&own)).await.and_then(|done| done.first().copied());
                Input::Readied { vnode, epoch, answer }
            }
            Ask::Release(own) => {
                let (vnode, epoch) = own.rows[0];
                soon("release", store.release(&own)).await;
                Input::Released { vnode, epoch }
            }
            Ask::Renew { mut renew, sent } => {
                renew.load.lag = self.lag.load(Ordering::Relaxed);
                let answer = soon("renew", store.renew(&renew)).await;
                Input::Renewed { sent, rows: renew.rows, answer }
            }
            Ask::Write { call, write } => {
                let answer = soon("write", answer_to_write(&write, store)).await;
                Input::Written { vnode: write.fence.vnode, call, answer }
            }
            Ask::Read { ask, session, vnode, stream, generation, after, limit } => {
                let answer = soon("read", store.read(vnode, &stream, generation, after, limit)).await;
                Input::Read { ask, session, stream, generation, after, answer }
            }
            Ask::Page { ask, session, id, vnode, stream, before, limit } => {
                let answer = soon("page", store.page(vnode, &stream, before, limit)).await;
                Input::Paged { ask, session, id, stream, before, answer }
            }
            Ask::Standings(rooms) => {
                let answer = soon("standings", store.standings(&rooms)).await;
                Input::Standings { rooms, answer }
            }
            Ask::Presence { vnode, users, ask } => {
                // The turn counts as a part of the wait: who waits too long for it is asked again.
                let in_turn = async {
                    let _turn = self.turns.acquire().await;
                    store.presence(vnode, &users).await
                };
                let answer = soon("presence", in_turn).await;
                Input::PresenceRead { vnode, users, ask, answer }
            }
            Ask::PresenceStandings(vnodes) => {
                let answer = soon("presence standings", store.presence_standings(&vnodes)).await;
                Input::PresenceStandings { vnodes, answer }
            }
        }
    }
}

/// That the store takes no write is an answer: nothing of it took effect.
async fn answer_to_write(write: &Write, store: &dyn Store) -> Result<WriteAnswer, StoreError> {
    match store.write(write).await {
        Err(StoreError::Refused(why)) => {
            tracing::warn!(why, vnode = %write.fence.vnode, "the store takes no write");
            Ok(WriteAnswer::Refused)
        }
        answer => answer,
    }
}

async fn soon<T>(what: &'static str, asked: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    within(STORE_TIMEOUT, what, asked).await
}

/// The answer, if it comes in time.
async fn within<T>(
    limit: Duration,
    what: &'static str,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Option<T> {
    match timeout(limit, asked).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(%error, what, "the store did not answer");
            None
        }
        Err(_) => None,
    }
}
