//! Counts the records a producer took and has not reported, so that `flush` knows when those taken before it are
//! through, however many are taken meanwhile. It knows nothing of what the records are.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Records are counted in rounds: each flush closes the present round and waits until it and those before it are
/// empty. Within one partition reports come in order, but not between partitions, so one counter would not do.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    rounds: Mutex<Rounds>,
    round_ended: Notify,
}

/// The round a record was counted in; goes with the record and back to [`InFlight::done`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round(u64);

#[derive(Debug, Default)]
struct Rounds {
    /// The number of the oldest round kept.
    first: u64,
    /// Records of closed rounds, oldest first; the oldest is never empty.
    closed: VecDeque<usize>,
    /// Records of the present round, whose number is `first + closed.len()`.
    open: usize,
    total: usize,
}

impl InFlight {
    /// Counts one more record, unless there are `max` already.
    pub(crate) fn take(&self, max: usize) -> Option<Round> {
        let mut rounds = self.rounds();
        if rounds.total >= max {
            return None;
        }
        rounds.open += 1;
        rounds.total += 1;
        Some(Round(rounds.first + rounds.closed.len() as u64))
    }

    /// The record was reported, or not taken after all.
    pub(crate) fn done(&self, round: Round) {
        let mut rounds = self.rounds();
        let index = (round.0 - rounds.first) as usize;
        match rounds.closed.get_mut(index) {
            Some(count) => *count -= 1,
            None => rounds.open -= 1,
        }
        rounds.total -= 1;
        if rounds.drop_empty() {
            self.round_ended.notify_waiters();
        }
    }

    /// Waits until every record counted before this call is done, at most `limit`; true if they all are.
    pub(crate) async fn flush(&self, limit: Duration) -> bool {
        let through = self.rounds().close();
        let ended = async {
            loop {
                // Made before the look at the count, so that no end of a round is missed in between.
                let ended = self.round_ended.notified();
                if self.rounds().first >= through {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(limit, ended).await.is_ok()
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        // Every change is a few additions that cannot panic half-way.
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rounds {
    /// Closes the present round if it holds anything; all up to now is through when `first` reaches the answer.
    fn close(&mut self) -> u64 {
        if self.open > 0 {
            self.closed.push_back(std::mem::take(&mut self.open));
        }
        self.first + self.closed.len() as u64
    }

    fn drop_empty(&mut self) -> bool {
        let before = self.first;
        while self.closed.front() == Some(&0) {
            self.closed.pop_front();
            self.first += 1;
        }
        self.first > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn flush_waits_for_what_was_taken_before_it_and_not_for_what_came_after() {
        let in_flight = InFlight::default();
        let (a, b) = (in_flight.take(9).unwrap(), in_flight.take(9).unwrap());
        assert!(!in_flight.flush(SOON).await);
        let later = in_flight.take(9).unwrap();
        in_flight.done(b);
        assert!(!in_flight.flush(SOON).await, "one of the first round and a later one are open");
        let (flushed, ()) = tokio::join!(in_flight.flush(SOON * 50), async {
            let after = in_flight.take(9).unwrap();
            in_flight.done(a);
            tokio::task::yield_now().await;
            in_flight.done(later);
            assert_eq!(in_flight.rounds().total, 1);
            let _still_open = after;
        });
        assert!(flushed);
    }

    #[tokio::test]
    async fn nothing_in_flight_is_flushed_at_once() {
        let in_flight = InFlight::default();
        assert!(in_flight.flush(Duration::ZERO).await);
        in_flight.done(in_flight.take(1).unwrap());
        assert!(in_flight.flush(Duration::ZERO).await);
    }

    #[test]
    fn the_bound_holds_until_something_is_done() {
        let in_flight = InFlight::default();
        let first = in_flight.take(1).unwrap();
        assert!(in_flight.take(1).is_none());
        in_flight.done(first);
        assert!(in_flight.take(1).is_some());
    }
}
