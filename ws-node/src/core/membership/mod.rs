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

use roost_backend::store::{NodeState, Table};
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
pub struct Membership {
    pub(in crate::core) sid: Sid,
    pub(in crate::core) registration: Registration,
    /// This sid was registered once: a later one of this node is a successor, not a clock ahead.
    registered_before: bool,
    /// When that was last heard: what is asked from then on is asked for this sid, under this data set.
    registered_at: u64,
    pub(in crate::core) state: NodeState,
    /// The table as last read, corrected by what this node knows better.
    pub(in crate::core) view: Table,
    pub(in crate::core) view_at: u64,
    /// Not before then is the table asked for out of turn.
    refresh_at: u64,
    /// The highest epoch seen of each vnode.
    pub(in crate::core) epochs: Vec<Epoch>,
    /// Where this process left vnodes that it had: generation and seq (rule 17).
    left: BTreeMap<VnodeId, (Epoch, Seq)>,
    /// For each node the others that have something to hand over to it.
    pub(in crate::core) givers: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Vnodes being claimed.
    pub(super) claims: BTreeMap<VnodeId, Claiming>,
    /// By the wall clock, which goes on while the machine sleeps: when this node last heard that it is registered.
    renewed_at: u64,
    renewing: Option<u64>,
    /// Messages appended, at the last renewal: for the load in the node's row.
    rate_mark: (u64, u64),
    rate: f64,
}

impl Membership {
    /// Whether vnodes are on their way here.
    pub fn is_claiming(&self) -> bool {
        !self.claims.is_empty()
    }

    pub fn sid(&self) -> &Sid {
        &self.sid
    }

    /// Of a node that knows nothing yet.
    pub fn new(cfg: &CoreConfig, now: Now) -> Self {
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
            givers: BTreeMap::new(),
            claims: BTreeMap::new(),
            renewed_at: 0,
            renewing: None,
            rate_mark: (now.mono, 0),
            rate: 0.0,
        }
    }
}
