//! How much may be under way to one place at once, in bytes: less after no answer came, more with every one that does.
//!
//! What timed out may still be worked on, or lie in a buffer before the store: to send as much again on top of it is
//! how a slow store becomes a dead one. So one request goes out after a time-out, then two as large, and so on.

use std::collections::BTreeMap;

/// The least that the window grows from, in bytes.
const FIRST: usize = 64 * 1024;

/// See the module's text. Requests are known by numbers that the caller gives.
#[derive(Debug)]
pub(super) struct Flow {
    max: usize,
    window: usize,
    under_way: BTreeMap<u64, usize>,
    bytes: usize,
}

impl Flow {
    /// At most `max` bytes, and one request however large.
    pub(super) fn new(max: usize) -> Self {
        Self { max, window: max, under_way: BTreeMap::new(), bytes: 0 }
    }

    /// Whether one more may go out.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.is_empty() || self.bytes < self.window
    }

    /// It goes out. One without a payload counts, too, or after a time-out there would be no end of them.
    pub(super) fn begin(&mut self, request: u64, bytes: usize) {
        let bytes = bytes.max(1);
        self.bytes += bytes;
        if let Some(before) = self.under_way.insert(request, bytes) {
            self.bytes -= before;
        }
    }

    /// It was answered, or will not be. What is not under way is ignored.
    pub(super) fn end(&mut self, request: u64, answered: bool) {
        let Some(bytes) = self.under_way.remove(&request) else { return };
        self.bytes -= bytes;
        let grown = self.window.saturating_mul(2).max(FIRST).min(self.max);
        self.window = if answered { grown } else { 1 };
    }

    /// In bytes, for the metrics.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_under_way_than_one_request_beyond_the_bound() {
        let mut flow = Flow::new(100);
        for request in 0..50 {
            if flow.has_room() {
                flow.begin(request, 30);
            }
        }
        assert_eq!(flow.bytes(), 120);
        flow.end(0, true);
        assert!(flow.has_room() && flow.bytes() == 90);
        flow.end(0, true);
        assert_eq!(flow.bytes(), 90, "an answer that came twice counts once");
    }

    #[test]
    fn after_a_time_out_one_goes_at_a_time_until_one_is_answered() {
        let mut flow = Flow::new(10 * FIRST);
        (0..5).for_each(|request| flow.begin(request, FIRST));
        flow.end(0, false);
        assert!(!flow.has_room(), "what is under way is waited for");
        (1..5).for_each(|request| flow.end(request, false));
        flow.begin(9, FIRST);
        assert!(!flow.has_room());
        flow.end(9, true);
        flow.begin(10, FIRST);
        assert!(!flow.has_room());
        flow.end(10, true);
        flow.begin(11, FIRST);
        assert!(flow.has_room());
    }

    #[test]
    fn one_goes_however_large() {
        let mut flow = Flow::new(10);
        assert!(flow.has_room());
        flow.begin(1, 1000);
        assert!(!flow.has_room());
    }
}
