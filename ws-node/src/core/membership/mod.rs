//! What this node knows of the table: who is a node, who owns what, and its own place in it (rules 16–23).

pub(in crate::core) mod activating;
pub(in crate::core) mod claiming;
pub(in crate::core) mod claims;
pub(in crate::core) mod handover;
pub(in crate::core) mod open_write;
pub(in crate::core) mod proving;
pub(in crate::core) mod registering;
pub(in crate::core) mod view;

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::{NodeState, Row, Table};
use roost_proto::ids::{Epoch, NodeId, Seq, Sid, VnodeId};

use crate::core::config::CoreConfig;
use crate::core::keys::Now;
use crate::core::membership::claiming::Claiming;

/// An unanswered request is made again after this long, in milliseconds: longer than the store's own timeout.
pub(super) const ASK_AGAIN_MS: u64 = 2500;

/// Whether this process has a registered life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Registration {
    No,
    Asked {
        at: u64,
    },
    Yes,
    /// It was forgotten, and the process ends.
    Over,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Membership {
    sid: Sid,
    registration: Registration,
    /// This sid was registered once: a later one of this node is a successor, not a clock ahead.
    registered_before: bool,
    /// When that was last heard: what is asked from then on is asked for this sid, under this data set.
    registered_at: u64,
    state: NodeState,
    /// The table as last read, corrected by what this node knows better.
    view: Table,
    view_at: u64,
    /// Not before then is the table asked for out of turn.
    refresh_at: u64,
    /// The highest epoch seen of each vnode.
    epochs: Vec<Epoch>,
    /// Where this process left vnodes that it had: generation and seq (rule 17).
    left: BTreeMap<VnodeId, (Epoch, Seq)>,
    /// For each node the others that have something to hand over to it.
    sources: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Vnodes being claimed.
    claims: BTreeMap<VnodeId, Claiming>,
    /// By the wall clock, which goes on while the machine sleeps: when this node last heard that it is registered.
    renewed_at: u64,
    renewing: Option<u64>,
    /// Messages appended, at the last renewal: for the load in the node's row.
    rate_mark: (u64, u64),
    rate: f64,
}

impl Membership {
    /// Of a node that knows nothing yet.
    pub(super) fn new(cfg: &CoreConfig, now: Now) -> Self {
        Self {
            sid: Sid::new(&cfg.node, now.wall, cfg.random),
            registration: Registration::No,
            registered_before: false,
            registered_at: 0,
            state: NodeState::Up,
            view: Table::default(),
            view_at: now.mono,
            refresh_at: 0,
            epochs: vec![Epoch(0); cfg.vnodes as usize],
            left: BTreeMap::new(),
            sources: BTreeMap::new(),
            claims: BTreeMap::new(),
            renewed_at: 0,
            renewing: None,
            rate_mark: (now.mono, 0),
            rate: 0.0,
        }
    }

    /// Whether vnodes are on their way here.
    pub(super) fn is_claiming(&self) -> bool {
        !self.claims.is_empty()
    }

    pub(super) fn sid(&self) -> &Sid {
        &self.sid
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registration == Registration::Yes
    }

    pub(super) fn is_draining(&self) -> bool {
        self.state == NodeState::Draining
    }

    /// The table as it is known.
    pub(super) fn view(&self) -> &Table {
        &self.view
    }

    /// Since the table was read, in milliseconds.
    pub(super) fn view_age_ms(&self, now: Now) -> u64 {
        now.mono.saturating_sub(self.view_at)
    }

    /// The highest epoch seen of a vnode.
    pub(super) fn epoch_of(&self, vnode: VnodeId) -> Epoch {
        self.epochs[vnode.index()]
    }

    /// The row of a vnode that has a ready home at another node, or at another life of this one.
    pub(super) fn ready_elsewhere(&self, vnode: VnodeId) -> Option<&Row> {
        let elsewhere = |row: &&Row| row.ready && row.sid != self.sid && !self.view.ended(&row.sid);
        self.view.rows.get(&vnode).filter(elsewhere)
    }

    /// Whether a vnode has a ready home, here or elsewhere.
    pub(super) fn has_ready_home(&self, vnode: VnodeId) -> bool {
        self.view.rows.get(&vnode).is_some_and(|row| row.ready && !self.view.ended(&row.sid))
    }

    /// How many others have something to hand over to a node.
    pub(super) fn sources_to(&self, node: &NodeId) -> u64 {
        self.sources.get(node).map_or(0, BTreeSet::len) as u64
    }
}
