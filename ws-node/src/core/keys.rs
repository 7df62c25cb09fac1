//! What names a connection, a command of the server API, and a moment.

/// The time of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a monotonic clock: all deadlines.
    pub mono: u64,
    /// Milliseconds since 1970: what is shown, and ages of ids. Unlike `mono` it goes on while the machine sleeps.
    pub wall: u64,
    /// Microseconds on the monotonic clock: for the histograms only.
    pub us: u64,
}

/// One connection, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u64);

/// One command of the server API, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey(pub u64);
