//! Runs of many seeds at once.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};

/// Does `work` for each of `numbers`, shared out among the processors, until it breaks.
pub fn share_out(numbers: Range<u64>, work: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let next = AtomicU64::new(numbers.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= numbers.end {
                        return;
                    }
                    if work(n).is_break() {
                        next.store(numbers.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}
