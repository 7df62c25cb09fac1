//! When a session's token ends, and when the client is told.

use std::time::Duration;

use tokio::time::Instant;

/// A timer may not be set further ahead than this; nobody stays a year.
const AHEAD_S_MAX: u64 = 365 * 86_400;

/// Of one token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    ends: Instant,
    tells: Instant,
    told: bool,
}

impl Lifetime {
    /// Of a token that ends at `exp_s`; the client is told `lead` before, or after half of the time if there is less.
    pub(crate) fn of(exp_s: u64, now_s: u64, lead: Duration, now: Instant) -> Self {
        let left = Duration::from_secs(exp_s.saturating_sub(now_s).min(AHEAD_S_MAX));
        let before = if left > lead { lead } else { left / 2 };
        Self { ends: now + left, tells: now + left - before, told: false }
    }

    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }

    pub(crate) fn tells(&self) -> Instant {
        self.tells
    }

    pub(crate) fn told(&self) -> bool {
        self.told
    }

    /// Notes that the client is being told; how many milliseconds are left.
    pub(crate) fn tell(&mut self, now: Instant) -> u64 {
        self.told = true;
        u64::try_from(self.ends.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_a_minute_before_or_after_half_of_a_short_life() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        for (left_s, told_after_s) in [(3600, 3540), (61, 1), (60, 30), (10, 5), (0, 0)] {
            let mut lifetime = Lifetime::of(1_000 + left_s, 1_000, minute, now);
            assert_eq!(lifetime.tells() - now, Duration::from_secs(told_after_s), "{left_s}");
            assert!(!lifetime.told());
            assert_eq!(lifetime.tell(lifetime.tells()), (left_s - told_after_s) * 1000);
            assert!(lifetime.told());
        }
        let ended = Lifetime::of(900, 1_000, minute, now);
        assert_eq!(ended.ends(), now);
        assert!(Lifetime::of(u64::MAX, 0, minute, now).ends() > now);
    }
}
