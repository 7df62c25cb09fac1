//! How long to wait before the next try: exponential with full jitter, so that a crowd that was cut off together
//! does not come back together (AWS Architecture Blog, "Exponential Backoff And Jitter").

use rand::{Rng, RngExt};

/// Tries before the ceiling grows: 1.5 s on average with the default of 250 ms.
const QUICK_TRIES: u32 = 5;

#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms: max_ms.max(min_ms), tries: 0 }
    }

    /// The next wait in milliseconds: evenly from nothing to a ceiling that doubles from `min` to `max`, and stays at
    /// twice `min` for the first few tries: a dead node is replaced within two seconds, and who waited longer by
    /// then would be late for nothing.
    pub(crate) fn next_ms(&mut self, rng: &mut impl Rng) -> u64 {
        let ceiling = self.ceiling_ms();
        self.tries = self.tries.saturating_add(1);
        rng.random_range(0..=ceiling)
    }

    /// The next wait counts as the first again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    fn ceiling_ms(&self) -> u64 {
        // 2^32 · 250 ms is far above any cap: the shift is clamped, not the result.
        let doublings = self.tries.min(1).max(self.tries.saturating_sub(QUICK_TRIES));
        self.min_ms.saturating_mul(1 << doublings.min(32)).min(self.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_stay_short_for_a_few_tries_and_then_double_up_to_the_cap() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(250, 20_000);
        let mut ceilings = Vec::new();
        for _ in 0..13 {
            let ceiling = backoff.ceiling_ms();
            assert!(backoff.next_ms(&mut rng) <= ceiling);
            ceilings.push(ceiling);
        }
        assert_eq!(ceilings, [250, 500, 500, 500, 500, 500, 500, 1000, 2000, 4000, 8000, 16_000, 20_000]);
        backoff.tries = u32::MAX;
        assert!(backoff.next_ms(&mut rng) <= 20_000);
        backoff.reset();
        assert_eq!(backoff.ceiling_ms(), 250);
    }
}
