//! How long nothing has been heard on a connection, and when that is too long.

use std::time::Duration;

use roost_proto::limits::{PING_INTERVAL_MS, PONG_TIMEOUT_MS};
use tokio::time::Instant;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Silence {
    since: Instant,
    pinged: bool,
}

impl Default for Silence {
    fn default() -> Self {
        Self { since: Instant::now(), pinged: false }
    }
}

impl Silence {
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    /// From now on an answer is expected.
    pub(crate) fn ping(&mut self) {
        *self = Self { since: Instant::now(), pinged: true };
    }

    pub(crate) fn was_pinged(&self) -> bool {
        self.pinged
    }

    /// When it is too long.
    pub(crate) fn ends(&self) -> Instant {
        self.since + Duration::from_millis(if self.pinged { PONG_TIMEOUT_MS } else { PING_INTERVAL_MS })
    }
}
