//! A token bucket: pure, without a clock, so that a session, an address and a simulation can all own one.
//! [`Rates`] are many of them, one for each address or user.

mod rates;

pub use rates::{Rates, network_of};

/// One token in the unit the level is kept in. A rate of n per second is then exactly n units per millisecond,
/// and no rounding adds up.
const UNITS: u64 = 1000;

/// Lets `burst` through at once and `per_s` a second after that.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_s: u32,
    capacity: u64,
    level: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket. A `per_s` of 0 means no limit; a `burst` of 0 is taken as 1, or nothing could ever pass.
    pub fn new(per_s: u32, burst: u32) -> Self {
        let capacity = u64::from(burst.max(1)) * UNITS;
        Self { per_s, capacity, level: capacity, at_ms: 0 }
    }

    /// Takes one token.
    ///
    /// `now_ms` is of any clock, as long as it is always the same one; a step back adds nothing.
    ///
    /// # Errors
    /// When there is none: the milliseconds until there is one again.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        self.take_some(1, now_ms)
    }

    /// Takes `n` tokens at once, or all that the bucket holds if that is less: what costs more than the burst waits
    /// for a full bucket, and not for ever.
    ///
    /// # Errors
    /// When there are not so many: the milliseconds until there are.
    pub fn take_some(&mut self, n: u32, now_ms: u64) -> Result<(), u64> {
        if self.per_s == 0 {
            return Ok(());
        }
        self.level = self.level_at(now_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let cost = (u64::from(n) * UNITS).min(self.capacity);
        if self.level >= cost {
            self.level -= cost;
            return Ok(());
        }
        Err((cost - self.level).div_ceil(u64::from(self.per_s)))
    }

    /// Whether it is as good as new, so that forgetting it changes nothing.
    pub fn is_full(&self, now_ms: u64) -> bool {
        self.per_s == 0 || self.level_at(now_ms) == self.capacity
    }

    fn level_at(&self, now_ms: u64) -> u64 {
        let gained = now_ms.saturating_sub(self.at_ms).saturating_mul(u64::from(self.per_s));
        self.level.saturating_add(gained).min(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rate_after_it() {
        let mut bucket = Bucket::new(50, 200);
        let passed = (0..1000).filter(|_| bucket.take(5_000).is_ok()).count();
        assert_eq!(passed, 200);
        // Asked every millisecond for ten seconds: 50 a second, to the token.
        let passed = (5_001..=15_000).filter(|now_ms| bucket.take(*now_ms).is_ok()).count();
        assert_eq!(passed, 500);
    }

    #[test]
    fn what_costs_more_takes_more_and_never_waits_for_ever() {
        let mut bucket = Bucket::new(10, 20);
        bucket.take_some(11, 0).unwrap();
        assert_eq!(bucket.take_some(11, 0), Err(200));
        assert!(bucket.take_some(9, 0).is_ok() && bucket.take(0).is_err());
        assert_eq!(bucket.take_some(1_000, 0), Err(2_000), "a full bucket");
        assert!(bucket.take_some(1_000, 2_000).is_ok());
    }

    #[test]
    fn whoever_waits_as_long_as_told_gets_through() {
        for per_s in [1, 3, 7, 50, 999, 1000, 5000] {
            let mut bucket = Bucket::new(per_s, 1);
            let mut now_ms = 0;
            bucket.take(now_ms).unwrap();
            for _ in 0..20 {
                if let Err(retry_after_ms) = bucket.take(now_ms) {
                    assert!(retry_after_ms >= 1);
                    assert!(bucket.clone().take(now_ms + retry_after_ms - 1).is_err(), "{per_s}/s: too late");
                    now_ms += retry_after_ms;
                    bucket.take(now_ms).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut bucket = Bucket::new(1, 1);
        bucket.take(10_000).unwrap();
        assert_eq!(bucket.take(0), Err(1000));
        assert_eq!(bucket.take(10_500), Err(500));
        assert!(bucket.take(11_000).is_ok());
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut bucket = Bucket::new(0, 0);
        assert!((0..10_000).all(|_| bucket.take(0).is_ok()) && bucket.is_full(0));
    }

    #[test]
    fn a_long_silence_fills_no_further_than_the_burst() {
        let mut bucket = Bucket::new(u32::MAX, 3);
        assert!(bucket.is_full(0));
        bucket.take(0).unwrap();
        assert!(!bucket.is_full(0) && bucket.is_full(u64::MAX));
        assert_eq!((0..10).filter(|_| bucket.take(u64::MAX).is_ok()).count(), 3);
    }
}
