//! What the core is told once, and the rules that a test may switch off.

use roost_proto::ids::{NodeId, RoomId, VnodeId};
use roost_proto::limits;

use crate::core::channels::shares::ShareConfig;
use crate::core::sessions::limit::SessionPolicy;

/// A rule of the protocol core that the project's own tests switch off to see that they would notice.
/// The numbers are those of `docs/decisions/0001-protocol-core.md`. Nothing but tests sets one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// 1: items are kept until confirmed.
    KeepUntilConfirmed,
    /// 1: what was refused is repeated before anything later to the same stream is taken.
    RefusalBlocks,
    /// 3: a silent channel probes.
    Probe,
    /// 4: who may not read bundles gets each record alone.
    BundlesToReaders,
    /// 6: an item nobody renews becomes a void.
    VoidAge,
    /// 9: only the next number is applied.
    NextOnly,
    /// 9: a confirm counts only for its own sid, epoch and channel.
    ConfirmIdentity,
    /// 34: a copy that comes by the link is taken only if it is the next.
    CopiesInOrder,
    /// 34: a repeat in the topic is answered once for each round.
    RepeatsAnswered,
    /// 10: a write applies only on the seq it was made for.
    SeqFence,
    /// 11: ids are kept by time, not by what is in the window.
    IdsByTime,
    /// 11: that time is the vnode's own, not the writer's wall clock.
    IdsByOwnTime,
    /// 13: confirmed only when the log has it.
    ConfirmAfterLog,
    /// 17: the inherited outbox goes out first.
    InheritFirst,
    /// 17: who had the vnode before notices that the data are behind where it left them.
    LeftSeq,
    /// 18: an owner notices that the data went back.
    Rewound,
    /// 18: a write of unknown outcome is made before the generation goes on.
    OpenWriteFirst,
    /// 18: what a home knew of its users outlives it, until another's is ready.
    UsersRemembered,
    /// 19: claims and renewals name the data set they know.
    DataSetNamed,
    /// 19: while settling only an epoch held now is served.
    HeldWhileSettling,
    /// 21: a sid that began long ago and is in no table is over, and ends when it is told so.
    Forgotten,
    /// 28: tails are compared, so that the loss of a last publication is noticed.
    CompareTails,
    /// 28: who comes into a room takes no answer to a question that was asked before.
    OwnQuestion,
    /// Decision 13: what was acknowledged outlives its home, and the session that said so.
    AcksKept,
    /// Decision 13: what is due and owed outlives its home.
    UnackedInherited,
    /// 30: so is where the presence of watched users stands.
    ComparePresence,
    /// 30: who is in no roster since the store lost its data is not taken for offline before the grace.
    HoldOffline,
    /// 26: the tail is read when nothing is in flight, and told when the outbox is out.
    TailWhenQuiet,
}

/// `ITEM_LANE`: which ways an item takes to its home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemLane {
    /// The topic and the link, whichever is first.
    Both,
    /// The topic alone.
    Topic,
}

/// The core's settings. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    pub node: NodeId,
    /// What clients dial.
    pub url: String,
    /// Where health and metrics are.
    pub admin: String,
    pub weight: u32,
    /// `ASSIGNED_VNODES` as written, and read.
    pub pins: String,
    pub pinned: Vec<VnodeId>,
    pub vnodes: u32,
    pub partitions: u32,
    pub lease_ttl_ms: u64,
    pub linger_ms: u64,
    pub grace_ms: u64,
    /// How long a message waits for an acknowledgement before it is reported; 0: none is.
    pub undelivered_after_ms: u64,
    /// How long an event waits for a result before its client is told.
    pub event_timeout_ms: u64,
    /// A part of the sid and of session ids.
    pub random: u32,
    /// Unconfirmed items in one channel: ten times what the transport acknowledges in one round trip of 1 ms
    /// at 100,000 records/s.
    pub channel_items_max: usize,
    /// And their bytes.
    pub channel_bytes_max: usize,
    /// Items queued at one home.
    pub queue_max: usize,
    /// Events of one vnode that the log has not confirmed; at this many, appends of the vnode stop.
    pub outbox_max: usize,
    /// Operations in one write: bounds how long a store script runs (128 × about 10 µs).
    pub batch_max: usize,
    /// Frames handed to one session's socket and not yet written, and their bytes: four of the largest at least, of which
    /// one is the socket's own.
    pub credit: usize,
    pub credit_bytes: usize,
    /// Vnodes being claimed or activated at once.
    pub claims_max: usize,
    /// Newcomers taken per second at most.
    pub accepts_per_s: u64,
    /// Signals handed to one session's socket and not yet written, and their bytes: two of the largest at least, or what
    /// a socket took and did not say yet could keep the next one waiting for ever.
    pub signal_credit: usize,
    pub signal_credit_bytes: usize,
    /// A token that names no rooms allows all of them.
    pub open_rooms: bool,
    /// Rooms that everyone is in.
    pub auto_join: Vec<RoomId>,
    pub watched_per_session_max: usize,
    /// A token that names nobody to watch allows nobody.
    pub watch_needs_claim: bool,
    /// Where clients find an archiver, which has what left the hot window.
    pub archive_url: Option<String>,
    pub unanswered_max: usize,
    pub sessions_per_user_max: usize,
    pub session_policy: SessionPolicy,
    pub commands_per_s: u32,
    pub commands_burst: u32,
    pub shares: ShareConfig,
    /// Between two canaries; 0: none.
    pub canary_every_ms: u64,
    /// What carries items beside their reader's topic.
    pub item_lane: ItemLane,
    /// Handed to one link and not written yet, in bytes: what is beyond goes by the topic alone.
    pub link_bytes_max: usize,
    /// Which forms of records the reader of this node's topic understands; another value only in tests of upgrades.
    pub reads: u32,
    pub off: Option<Rule>,
}

impl CoreConfig {
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            url: String::new(),
            admin: String::new(),
            weight: 1,
            pins: "auto".into(),
            pinned: Vec::new(),
            vnodes: 1024,
            partitions: 8,
            lease_ttl_ms: 6000,
            linger_ms: 10_000,
            grace_ms: 20_000,
            undelivered_after_ms: 30_000,
            event_timeout_ms: 30_000,
            random: 0,
            channel_items_max: 1000,
            channel_bytes_max: 8 * 1024 * 1024,
            queue_max: 1000,
            outbox_max: 1000,
            batch_max: 128,
            credit: 256,
            credit_bytes: 4 * limits::FRAME_BYTES_MAX,
            claims_max: 64,
            accepts_per_s: 1000,
            signal_credit: 32,
            signal_credit_bytes: 2 * limits::FRAME_BYTES_MAX,
            open_rooms: false,
            auto_join: Vec::new(),
            watched_per_session_max: limits::WATCHED_PER_SESSION_MAX,
            watch_needs_claim: false,
            archive_url: None,
            unanswered_max: limits::UNANSWERED_MAX,
            sessions_per_user_max: limits::SESSIONS_PER_USER_MAX,
            session_policy: SessionPolicy::default(),
            commands_per_s: limits::COMMANDS_PER_S,
            commands_burst: limits::COMMANDS_BURST,
            shares: ShareConfig::default(),
            canary_every_ms: 0,
            item_lane: ItemLane::Both,
            link_bytes_max: 4 * 1024 * 1024,
            reads: roost_proto::records::BUNDLES,
            off: None,
        }
    }

    pub fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// Core rule 4: set explicitly, the same for every topic.
    pub fn partition(&self, vnode: VnodeId) -> u32 {
        u32::from(vnode.0) % self.partitions
    }

    /// Core rule 23.
    pub fn renew_every_ms(&self) -> u64 {
        self.lease_ttl_ms / limits::BEATS_PER_LEASE
    }
}
