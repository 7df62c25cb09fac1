//! What all routes share: the archive, by turns, and how a question is answered or refused.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use roost_backend::archive::{Archive, ArchiveError, QUESTIONS_MAX};
use roost_proto::{ErrorBody, ErrorCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::shares::{Place, Shares, exceeded};
use crate::config::ArchiverConfig;
use crate::metrics::Metrics;

/// When to come again while the database is away, or too many ask.
const AWAY_RETRY_AFTER_MS: u64 = 2_000;
/// For a turn to ask: the next few of a burst wait, and nobody else.
const TURN_LIMIT: Duration = Duration::from_secs(1);

/// What all routes share.
pub(crate) struct Api {
    pub(super) config: ArchiverConfig,
    archive: Arc<dyn Archive>,
    pub(super) metrics: Metrics,
    /// Of all users; each has one of them at most.
    permits: Semaphore,
    pub(super) shares: Shares,
    /// Questions under way, also those that nobody waits for any more.
    pub(super) questions: TaskTracker,
}

/// The archive, for as long as it is somebody's turn to ask it.
pub(super) struct Permit<'a> {
    archive: &'a dyn Archive,
    _own: OwnedMutexGuard<()>,
    _permit: SemaphorePermit<'a>,
}

impl<'a> Deref for Permit<'a> {
    type Target = dyn Archive + 'a;

    fn deref(&self) -> &Self::Target {
        self.archive
    }
}

impl Api {
    /// A shutdown waits for `questions`.
    pub(crate) fn new(
        config: ArchiverConfig,
        archive: Arc<dyn Archive>,
        metrics: Metrics,
        questions: TaskTracker,
    ) -> Self {
        let permits = Semaphore::new(QUESTIONS_MAX);
        Self { config, archive, metrics, permits, shares: Shares::default(), questions }
    }

    /// The archive, when it is the caller's turn: the first of its user's, and then one of all.
    ///
    /// # Errors
    /// `rate_limited` while the same user asks, `unavailable` while too many others do.
    pub(super) async fn archive(&self, place: &Place) -> Result<Permit<'_>, ErrorBody> {
        let until = Instant::now() + TURN_LIMIT;
        let own = timeout_at(until, place.asks()).await.map_err(|_| exceeded())?;
        match timeout_at(until, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(Permit { archive: &*self.archive, _own: own, _permit: permit }),
            _ => {
                let body = ErrorBody::new(ErrorCode::Unavailable, "too many ask the archive at the moment");
                Err(body.retry_after(AWAY_RETRY_AFTER_MS))
            }
        }
    }
}

/// As text, so that frames stay as they are to the byte.
pub(super) type Answer = Result<Box<RawValue>, ErrorBody>;

pub(super) fn told(body: &impl Serialize) -> Answer {
    serde_json::value::to_raw_value(body).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        ErrorBody::new(ErrorCode::Internal, "the answer could not be written")
    })
}

pub(super) fn bad(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, why.to_string())
}

pub(super) fn away(error: &ArchiveError) -> ErrorBody {
    tracing::debug!(%error, "a question could not be answered");
    let body = ErrorBody::new(ErrorCode::Unavailable, "the archive cannot be read at the moment");
    body.retry_after(AWAY_RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use prometheus::Registry;
    use roost_backend::embedded::EmbeddedArchive;
    use roost_proto::UserId;
    use roost_service::Secret;
    use roost_service::tokens::{KeySource, Verifier};

    use super::*;

    fn api() -> Api {
        let keys = KeySource::from_secret(&Secret::new("a secret of thirty-two characters")).unwrap();
        let config = ArchiverConfig::new(Verifier::new(keys, None, None));
        let archive = Arc::new(EmbeddedArchive::memory(Arc::new(|| 0)).unwrap());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Api::new(config, archive, metrics, TaskTracker::new())
    }

    fn place(api: &Api, user: &str) -> Place {
        api.shares.place(&UserId::new(user).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn who_asks_while_too_many_do_is_told_when_to_come_again() {
        let api = api();
        let others: Vec<_> = (0..QUESTIONS_MAX).map(|n| place(&api, &format!("user-{n}"))).collect();
        let permits = join_all(others.iter().map(|place| api.archive(place))).await;
        assert!(permits.iter().all(Result::is_ok));
        let alice = place(&api, "alice");
        let refused = api.archive(&alice).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::Unavailable);
        assert_eq!(refused.retry_after_ms, Some(AWAY_RETRY_AFTER_MS));
        drop(permits);
        assert!(api.archive(&alice).await.is_ok());
    }

    #[tokio::test]
    async fn a_user_asks_one_question_at_a_time_and_takes_one_turn_of_all() {
        let api = api();
        let (first, second, bob) = (place(&api, "alice"), place(&api, "alice"), place(&api, "bob"));
        let asking = api.archive(&first).await.unwrap();
        let refused = api.archive(&second).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(api.permits.available_permits(), QUESTIONS_MAX - 1);
        assert!(api.archive(&bob).await.is_ok());
        drop(asking);
        assert!(api.archive(&second).await.is_ok());
    }
}
