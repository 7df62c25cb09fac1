//! A token bucket: pure, without a clock, so that a session, an address and a simulation can all own one.
//! [`Rates`] are many of them, one for each address or user.

mod rates;

pub use rates::{Rates, network_of};

/// Lets `burst` through at once and as many a second, or an hour, after that.
///
/// The level is kept in units of which a token has as many as there are milliseconds in the period: a rate of n is then
/// exactly n units a millisecond, and no rounding adds up.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: u32,
    /// Units of one token.
    token: u64,
    capacity: u64,
    level: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket. A `per_s` of 0 means no limit; a `burst` of 0 is taken as 1, or nothing could ever pass.
    pub fn new(per_s: u32, burst: u32) -> Self {
        Self::per(1000, per_s, burst)
    }

    /// The same for a rate per hour.
    pub fn hourly(per_hour: u32, burst: u32) -> Self {
        Self::per(3_600_000, per_hour, burst)
    }

    fn per(token: u64, rate: u32, burst: u32) -> Self {
        let capacity = u64::from(burst.max(1)) * token;
        Self { rate, token, capacity, level: capacity, at_ms: 0 }
    }

    /// Takes one token.
    ///
    /// `now_ms` is of any clock, as long as it is always the same one; a step back adds nothing.
    ///
    /// # Errors
    /// When there is none: the milliseconds until there is one again.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        self.take_many(1, now_ms)
    }

    /// Takes `n` tokens; more than the burst count as the burst, or they could never pass.
    ///
    /// # Errors
    /// When there are fewer: the milliseconds until there are as many; none is taken then.
    pub fn take_many(&mut self, n: u32, now_ms: u64) -> Result<(), u64> {
        match self.wait_ms(n, now_ms) {
            0 => {
                self.level = self.level_at(now_ms).saturating_sub(self.units(n));
                self.at_ms = self.at_ms.max(now_ms);
                Ok(())
            }
            wait_ms => Err(wait_ms),
        }
    }

    /// How long until `n` tokens can be taken; 0: now.
    pub fn wait_ms(&self, n: u32, now_ms: u64) -> u64 {
        if self.rate == 0 {
            return 0;
        }
        self.units(n).saturating_sub(self.level_at(now_ms)).div_ceil(u64::from(self.rate))
    }

    /// How long until one token can be taken of a bucket that many share, by who has used as much of a bucket of its own:
    /// at most as many as are left for the others, so that who has used none is not kept out by who has. Both are of
    /// the same period.
    pub fn wait_beside(&self, own: &Self, now_ms: u64) -> u64 {
        if self.rate == 0 {
            return 0;
        }
        let level = self.level_at(now_ms);
        let used = if own.rate == 0 { 0 } else { own.capacity - own.level_at(now_ms) };
        let wait = |lacking: u64, rate: u64| if lacking == 0 { 0 } else { lacking.div_ceil(rate) };
        let (rate, own_rate) = (u64::from(self.rate), u64::from(own.rate));
        // What is left grows up to the capacity, what is used falls to nothing: each of them may be what is waited for.
        let of_both = wait((self.token + used).saturating_sub(level), rate + own_rate);
        let of_left = wait(self.token.saturating_sub(level), rate);
        let of_used = wait((self.token + used).saturating_sub(self.capacity), own_rate);
        of_both.max(of_left).max(of_used)
    }

    /// Whether it is as good as new, so that forgetting it changes nothing.
    pub fn is_full(&self, now_ms: u64) -> bool {
        self.rate == 0 || self.level_at(now_ms) == self.capacity
    }

    fn units(&self, n: u32) -> u64 {
        (u64::from(n) * self.token).min(self.capacity)
    }

    fn level_at(&self, now_ms: u64) -> u64 {
        let gained = now_ms.saturating_sub(self.at_ms).saturating_mul(u64::from(self.rate));
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
        bucket.take_many(11, 0).unwrap();
        assert_eq!(bucket.take_many(11, 0), Err(200));
        assert!(bucket.take_many(9, 0).is_ok() && bucket.take(0).is_err());
        assert_eq!(bucket.take_many(1_000, 0), Err(2_000), "a full bucket");
        assert!(bucket.take_many(1_000, 2_000).is_ok());
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
    fn a_rate_per_hour_gives_one_after_its_part_of_the_hour() {
        let mut bucket = Bucket::hourly(1000, 2);
        assert!(bucket.take(0).is_ok() && bucket.take(0).is_ok());
        assert_eq!(bucket.take(0), Err(3600));
        let passed = (1..=3_600_000).filter(|now_ms| bucket.take(*now_ms).is_ok()).count();
        assert_eq!(passed, 1000);
    }

    #[test]
    fn many_are_taken_together_or_none() {
        let mut bucket = Bucket::new(10, 100);
        assert_eq!(bucket.take_many(60, 0), Ok(()));
        assert_eq!(bucket.take_many(60, 0), Err(2000));
        assert_eq!((bucket.wait_ms(40, 0), bucket.take_many(40, 0)), (0, Ok(())));
        assert_eq!(bucket.take_many(1000, 10_000), Ok(()), "more than the burst are the burst");
        assert_eq!(bucket.take(10_000), Err(100));
    }

    #[test]
    fn of_a_shared_bucket_one_has_at_most_as_much_as_it_leaves_to_others() {
        let mut shared = Bucket::new(10, 100);
        let mut own = vec![Bucket::new(10, 100); 3];
        let mut passed = |n: usize, now_ms| {
            (0..1000)
                .filter(|_| {
                    shared.wait_beside(&own[n], now_ms) == 0
                        && shared.take(now_ms).and(own[n].take(now_ms)).is_ok()
                })
                .count()
        };
        assert_eq!([passed(0, 0), passed(1, 0), passed(2, 0)], [50, 25, 13]);
        let later: usize = (1..=60).map(|s| (0..3).map(|n| passed(n, s * 1000)).sum::<usize>()).sum();
        assert!((600..=612).contains(&later), "the burst and the rate are those of one: {later}");
    }

    #[test]
    fn whoever_waits_beside_others_as_long_as_told_gets_through() {
        for (rate, burst) in [(1, 1), (2, 2), (3, 7), (10, 100), (1000, 3)] {
            for (own_rate, own_burst) in [(0, 1), (1, 1), (2, 2), (10, 100)] {
                let mut shared = Bucket::new(rate, burst);
                let mut own = Bucket::new(own_rate, own_burst);
                let mut now_ms = 0;
                for _ in 0..200 {
                    let wait = shared.wait_beside(&own, now_ms).max(own.wait_ms(1, now_ms));
                    let before = (now_ms + wait).saturating_sub(1);
                    let early = shared.wait_beside(&own, before) == 0 && own.wait_ms(1, before) == 0;
                    assert!(wait == 0 || !early, "{rate}, {own_rate}: too late");
                    now_ms += wait;
                    assert_eq!(shared.wait_beside(&own, now_ms), 0);
                    shared.take(now_ms).and(own.take(now_ms)).unwrap();
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
