//! What one user may have of the archive, so that none waits for the many requests of another.
//!
//! A service is a user, too: whoever asks with the same `sub` shares. It owns no turns at the database; those are of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roost_proto::{ErrorBody, ErrorCode, UserId};
use tokio::sync::{Mutex as Permit, OwnedMutexGuard};

/// Requests of one user under way: the one that asks, those that wait for it, and answers of a megabyte at most that the
/// client has not taken yet. A browser has six connections to a host; two windows of one user, and something beside.
pub(super) const REQUESTS_PER_USER_MAX: usize = 16;
/// When to come again: most of the others are answered by then.
const SHARE_RETRY_AFTER_MS: u64 = 1_000;

/// The users who have something under way, and what; an entry goes with the last request of its user.
#[derive(Default, Clone)]
pub(super) struct Shares(Arc<Mutex<HashMap<UserId, Share>>>);

#[derive(Default)]
struct Share {
    requests: usize,
    asks: Arc<Permit<()>>,
}

/// The place of one request among those of its user; free again when it is dropped.
pub(super) struct Place {
    shares: Shares,
    user: UserId,
    asks: Arc<Permit<()>>,
}

impl Shares {
    /// # Errors
    /// `rate_limited` for one more than a user may have.
    pub(super) fn place(&self, user: &UserId) -> Result<Place, ErrorBody> {
        let mut shares = self.lock();
        let share = shares.entry(user.clone()).or_default();
        if share.requests >= REQUESTS_PER_USER_MAX {
            return Err(exceeded());
        }
        share.requests += 1;
        Ok(Place { shares: self.clone(), user: user.clone(), asks: Arc::clone(&share.asks) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to who has too much under way.
pub(super) fn exceeded() -> ErrorBody {
    let body = ErrorBody::new(ErrorCode::RateLimited, "too many requests of this user are under way");
    body.retry_after(SHARE_RETRY_AFTER_MS)
}

impl Place {
    /// Waits until no other request of the same user asks. In the order in which they came.
    pub(super) async fn asks(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.asks).lock_owned().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shares = self.shares.lock();
        let Some(share) = shares.get_mut(&self.user) else { return };
        share.requests -= 1;
        if share.requests == 0 {
            shares.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_places_and_takes_none_of_anothers() {
        let (shares, alice, bob) = (Shares::default(), "alice".parse().unwrap(), "bob".parse().unwrap());
        let mut places: Vec<_> = (0..REQUESTS_PER_USER_MAX).map(|_| shares.place(&alice).unwrap()).collect();
        let refused = shares.place(&alice).err().unwrap();
        assert_eq!(
            (refused.code, refused.retry_after_ms),
            (ErrorCode::RateLimited, Some(SHARE_RETRY_AFTER_MS))
        );
        let other = shares.place(&bob).unwrap();
        places.pop();
        places.push(shares.place(&alice).unwrap());
        drop((places, other));
        assert!(shares.lock().is_empty(), "nothing is kept of who has nothing under way");
    }
}
