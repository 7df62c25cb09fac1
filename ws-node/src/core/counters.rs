//! Numbers for the metrics.

/// What the gauges show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    pub sessions: usize,
    /// Rooms with sessions of this node in them, and how many sessions that are.
    pub rooms: usize,
    pub listeners: usize,
    /// Users watched from this node, and sessions that watch.
    pub watched: usize,
    pub watchers: usize,
    pub owned: usize,
    pub ready: usize,
    pub lease_left_ms: Option<u64>,
    pub outbox: usize,
    pub channel_items: usize,
    pub view_age_ms: u64,
    /// There is an assignment, or it has pins: it knows which vnodes are its own.
    pub assigned: bool,
    pub registered: bool,
    /// Since the last canary that got through was sent.
    pub canary_age_ms: u64,
    pub canary_took_ms: Option<u64>,
    pub accepts_per_s: u64,
    /// Bytes under way to the store in writes and in reads, and to sockets beyond what each has for itself.
    pub write_bytes: usize,
    pub read_bytes: usize,
    pub socket_bytes: usize,
    pub draining: bool,
    /// To other nodes, open.
    pub links: usize,
}

/// Numbers for the metrics; only ever grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub sends: u64,
    pub refused: u64,
    pub appended: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub delivered: u64,
    pub replayed: u64,
    pub replies_ok: u64,
    pub replies_unknown: u64,
    pub confirms: u64,
    pub asks: u64,
    pub probes: u64,
    pub void_records: u64,
    /// Items that came by a link.
    pub copies: u64,
    pub undecodable: u64,
    pub writes: u64,
    pub writes_unknown: u64,
    /// Writes refused because the fence no longer held (`deposed`, `lost`, `rewound`).
    pub writes_fenced: u64,
    pub claims: u64,
    pub handoffs: u64,
    pub takeovers: u64,
    pub suspensions: u64,
    pub generations_begun: u64,
    pub status_events: u64,
    /// Messages that nobody acknowledged in time.
    pub undelivered: u64,
    /// Receipts that their senders' homes have confirmed.
    pub receipts: u64,
    /// Acknowledgements that no home could hear, and for which there was no room.
    pub acks_not_kept: u64,
    /// Events of clients that went out, and those that were without a result in time.
    pub events: u64,
    pub events_timed_out: u64,
    /// Results that their clients' homes have confirmed; those that came before with another body; those for clients
    /// that nobody knows; and those that cannot be read.
    pub results: u64,
    pub results_conflicting: u64,
    pub results_refused: u64,
    pub results_malformed: u64,
    /// Publications that only the comparison of tails found.
    pub found_by_tail: u64,
    pub signals: u64,
    pub signals_dropped: u64,
    /// Frames to watchers about a change of presence, and changes that were not heard of but read.
    pub presence_told: u64,
    pub presence_found: u64,
    pub moved: u64,
    /// Newcomers beyond their user's limit.
    pub sessions_refused: u64,
    /// Sessions that gave way to a newcomer of their user.
    pub sessions_replaced: u64,
    /// Sessions closed by the server API.
    pub sessions_disconnected: u64,
    pub refreshed: u64,
    pub refreshes_refused: u64,
}
