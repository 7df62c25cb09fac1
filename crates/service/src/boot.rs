//! The clock for what takes days: it goes on while the machine sleeps.
//!
//! Deadlines of seconds are kept by [`std::time::Instant`], which on Linux stands still meanwhile
//! (`clock_gettime(2)`, `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME`). Neither is moved by a step of the wall clock.

/// Milliseconds since the machine was started.
#[cfg(target_os = "linux")]
pub fn boot_ms() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let at = clock_gettime(ClockId::Boottime);
    // Neither part is ever negative.
    at.tv_sec.unsigned_abs() * 1000 + at.tv_nsec.unsigned_abs() / 1_000_000
}

/// Milliseconds since the first call: where there is no such clock, what takes days takes longer.
#[cfg(not(target_os = "linux"))]
pub fn boot_ms() -> u64 {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let since = FIRST.get_or_init(std::time::Instant::now).elapsed();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_goes_on_as_fast_as_the_monotonic_clock_on_a_machine_that_is_awake() {
        let (boot, start) = (boot_ms(), Instant::now());
        while start.elapsed() < Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert!(boot_ms() - boot >= 19);
    }
}
