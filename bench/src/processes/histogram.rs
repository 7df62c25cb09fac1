//! Times that many tasks note at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Of one bucket; small beside the shortest time that is measured.
const STEP_US: u64 = 5;
/// Up to two seconds; what took longer counts as that.
const BUCKETS: usize = 400_000;

pub(super) struct Histogram {
    buckets: Vec<AtomicU32>,
    count: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(), count: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub(super) fn note(&self, us: u64) {
        let bucket = ((us / STEP_US) as usize).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    /// Microseconds.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let wanted = (self.count.load(Relaxed) as f64 * q) as u64;
        let mut seen = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            seen += u64::from(bucket.load(Relaxed));
            if seen > wanted {
                return (i as u64 * STEP_US) as f64 + STEP_US as f64 / 2.0;
            }
        }
        0.0
    }

    pub(super) fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
        self.count.store(0, Relaxed);
    }
}
