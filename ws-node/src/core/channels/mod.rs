//! What this node has for others: a channel for each vnode, and what users have of what all of them share (rules 1–7).

pub(in crate::core) mod answering;
pub(in crate::core) mod asker;
pub(in crate::core) mod channel;
pub(in crate::core) mod queueing;
pub(in crate::core) mod shares;

use std::collections::BTreeMap;

use roost_proto::ids::VnodeId;

use crate::core::channels::channel::{Channel, Dropped};
use crate::core::channels::shares::{ShareConfig, Shares};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Channels {
    map: BTreeMap<VnodeId, Channel>,
    /// Counts channels.
    next_chan: u64,
    /// Counts what was queued.
    next_arrival: u64,
    shares: Shares,
}

impl Channels {
    pub(super) fn new(shares: ShareConfig) -> Self {
        Self { map: BTreeMap::new(), next_chan: 1, next_arrival: 1, shares: Shares::new(shares) }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    pub(super) fn shares_mut(&mut self) -> &mut Shares {
        &mut self.shares
    }

    /// Everything that is in them.
    pub(super) fn drop_all(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.map).into_values().flat_map(Channel::into_dropped).collect()
    }

    pub(super) fn get(&self, vnode: &VnodeId) -> Option<&Channel> {
        self.map.get(vnode)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&VnodeId, &Channel)> {
        self.map.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Channel> {
        self.map.values()
    }
}
