//! Records for other nodes: what one turn has for a node goes out as one bundle, and while one is under way the next
//! is gathered, so that bundles grow with the load and a lone record waits for nobody.

pub(in crate::core) mod sending;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use roost_proto::events::messages_topic;
use roost_proto::ids::{NodeId, VnodeId};

use crate::core::effects::Token;

/// Of the records that wait for one node, in bytes: twice what may be queued for one vnode. What is beyond is refused
/// as the log would refuse it, and repeated by its channel.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A bundle without a report holds the next one up for this long, in milliseconds: a tick. A log that does not answer
/// gets each record when it would have got it alone, or a record could be as old as two of the log's time-outs (rule 6).
const HOLDS_MS: u64 = 50;

/// A record that waits, as it goes into the log.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) vnode: VnodeId,
    pub(super) payload: Bytes,
    pub(super) token: Token,
}

/// What there is for one node.
#[derive(Debug)]
pub(super) struct Way {
    topic: Arc<str>,
    waiting: Vec<Waiting>,
    bytes: usize,
    /// The bundle that was sent last and has no report, and when that was.
    under_way: Option<(u64, u64)>,
}

impl Way {
    fn to(node: &NodeId) -> Self {
        let topic = Arc::from(messages_topic(node));
        Self { topic, waiting: Vec::new(), bytes: 0, under_way: None }
    }

    /// All that waits, if it may go now.
    fn take(&mut self, now: u64) -> Vec<Waiting> {
        if self.under_way.is_some_and(|(_, since)| now < since + HOLDS_MS) {
            return Vec::new();
        }
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    ways: BTreeMap<NodeId, Way>,
    /// What found no room.
    refused: Vec<Token>,
}

impl Outbound {
    fn push(&mut self, to: &NodeId, record: Waiting) {
        if !self.ways.contains_key(to) {
            self.ways.insert(to.clone(), Way::to(to));
        }
        let way = self.ways.get_mut(to).expect("just put there");
        if way.bytes >= WAITING_BYTES_MAX {
            return self.refused.push(record.token);
        }
        way.bytes += record.payload.len();
        way.waiting.push(record);
    }

    fn reported(&mut self, to: &NodeId, bundle: u64) {
        if let Some(way) = self.ways.get_mut(to).filter(|way| way.under_way.is_some_and(|(n, _)| n == bundle))
        {
            way.under_way = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> Waiting {
        Waiting { vnode: VnodeId(0), payload: vec![0; bytes].into(), token: Token::Other }
    }

    #[test]
    fn while_a_bundle_is_under_way_the_next_is_gathered_but_not_for_long() {
        let (mut outbound, node) = (Outbound::default(), NodeId::new("n").unwrap());
        let taken = |outbound: &mut Outbound, now| outbound.ways.get_mut(&node).unwrap().take(now).len();
        outbound.push(&node, record(1));
        assert_eq!(taken(&mut outbound, 5), 1, "a lone record waits for nobody");
        outbound.ways.get_mut(&node).unwrap().under_way = Some((7, 5));
        outbound.push(&node, record(1));
        outbound.push(&node, record(1));
        assert_eq!(taken(&mut outbound, 6), 0);
        outbound.reported(&node, 6);
        assert_eq!(taken(&mut outbound, 6), 0, "of another bundle");
        outbound.reported(&node, 7);
        assert_eq!(taken(&mut outbound, 6), 2);
        outbound.ways.get_mut(&node).unwrap().under_way = Some((8, 6));
        outbound.push(&node, record(1));
        assert_eq!(taken(&mut outbound, 6 + HOLDS_MS), 1, "whatever becomes of the last one");
    }

    #[test]
    fn what_waits_for_a_node_is_bounded_in_bytes() {
        let (mut outbound, node) = (Outbound::default(), NodeId::new("n").unwrap());
        outbound.push(&node, record(WAITING_BYTES_MAX));
        outbound.push(&node, record(1));
        assert_eq!((outbound.ways[&node].waiting.len(), outbound.refused.len()), (1, 1));
    }
}
