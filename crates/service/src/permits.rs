//! How many requests are served at once, and how many of them for one service: who has none under way finds a place,
//! however many another sends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use roost_proto::UserId;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Held {
    all: usize,
    of: HashMap<UserId, usize>,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Permits {
    max: usize,
    held: Arc<Mutex<Held>>,
    freed: Arc<Notify>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Permits,
    of: UserId,
}

/// Whether one more of somebody's may take a place that all share, with so many of theirs among all that are taken. Who
/// has some already has at most as many as are free; for the first of who has none there are as many places again. So
/// nobody finds all of them taken by another, nor by ten.
pub fn has_place(mine: usize, all: usize, max: usize) -> bool {
    let free = max.saturating_sub(all);
    if mine == 0 { all < 2 * max } else { free > 0 && mine <= free }
}

impl Permits {
    /// So many at once, and as many again for the first of each who asks.
    pub fn new(max: usize) -> Self {
        Self { max, held: Arc::default(), freed: Arc::default() }
    }

    /// A place for one more request; none if there is none for whoever this is.
    pub fn take(&self, of: &UserId) -> Option<Permit> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = held.of.get(of).copied().unwrap_or_default();
        if !has_place(mine, held.all, self.max) {
            return None;
        }
        held.all += 1;
        *held.of.entry(of.clone()).or_default() += 1;
        Some(Permit { permits: self.clone(), of: of.clone() })
    }
}

impl Permits {
    /// A place, when there is one for whoever this is.
    pub async fn wait(&self, of: &UserId) -> Permit {
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.take(of) {
                return permit;
            }
            freed.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.permits.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        if let Some(mine) = held.of.get_mut(&self.of) {
            *mine -= 1;
            if *mine == 0 {
                held.of.remove(&self.of);
            }
        }
        drop(held);
        self.permits.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_with_many_requests_leaves_room_for_the_others() {
        let permits = Permits::new(128);
        let of = |name: &str| UserId::new(name).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| permits.take(&of("busy"))).collect();
        assert_eq!(taken.len(), 65);
        let others: Vec<_> = (0..100).filter_map(|n| permits.take(&of(&format!("s{n}")))).collect();
        assert_eq!(others.len(), 100);
        drop(taken);
        drop(others);
        assert_eq!(permits.held.lock().unwrap().of.len(), 0);
        assert!(permits.take(&of("busy")).is_some());
    }
}
