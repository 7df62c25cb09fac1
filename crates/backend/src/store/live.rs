//! Publish and subscribe: what reaches every node that listens, at once, if nothing goes wrong.
//!
//! It is never the only way: whoever listens compares what it has with what the store keeps.

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::ids::{NodeId, StreamId, VnodeId};

use super::StoreError;

/// What can be followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LiveChannel {
    /// What is published in a room; `vnode` is its home's.
    #[allow(missing_docs, reason = "said above")]
    Room { vnode: VnodeId, stream: StreamId },
    /// What the users of a vnode show to others.
    Presence(VnodeId),
    /// What other nodes have for the sessions of one node.
    Node(NodeId),
}

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveEvent {
    /// Something was published.
    Told {
        /// In which.
        channel: LiveChannel,
        /// As it was published.
        payload: Bytes,
    },
    /// Something may have been missed in any channel: the connection was made anew, or the queue was full.
    Missed,
}

/// One process's ear. Dropping it ends it.
///
/// 1. What is published after `follow` returned `Ok` is told, in the order of its publication, unless `Missed` comes
///    before what follows it.
/// 2. What is followed stays so over a lost connection.
#[async_trait]
pub trait Subscriber: Send + Sync {
    /// Follows `channel` from when it returns (promise 1).
    async fn follow(&self, channel: &LiveChannel) -> Result<(), StoreError>;
    /// Best effort: what still comes is ignored by the caller.
    async fn unfollow(&self, channel: &LiveChannel);
}
