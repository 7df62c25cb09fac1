//! A message of the node's own, every few seconds, through the whole path: channel, transport, home, store, log and
//! back. The age of the last one that was confirmed says whether messages get through, whatever else looks healthy.

pub(in crate::core) mod sending;

#[derive(Debug, Default)]
pub(super) struct Canary {
    next_at: u64,
    sent: u64,
    /// The vnode that the last one was for.
    vnode: u16,
    /// Of the last one that was confirmed: when it was sent, and how long it took.
    last: Option<(u64, u64)>,
    began: u64,
}

impl Canary {
    /// Milliseconds since the last confirmed one was sent; since the first was due, if none ever was.
    pub(super) fn age_ms(&self, now: u64) -> u64 {
        let since = self.last.map_or(self.began, |(sent, _)| sent);
        if since == 0 { 0 } else { now.saturating_sub(since) }
    }

    /// How long it took, in milliseconds.
    pub(super) fn took_ms(&self) -> Option<u64> {
        self.last.map(|(_, took)| took)
    }

    pub(super) fn confirmed(&mut self, sent: u64, now: u64) {
        self.last = Some((sent, now - sent));
    }
}
