//! Records for other nodes, by two ways. In a node's topic what one turn has for it goes out as one bundle, and while one
//! is under way the next is gathered, so that bundles grow with the load and a lone record waits for nobody. By the link
//! copies go at once (`docs/decisions/0019-turns-and-links.md`).

pub(in crate::core) mod link;
pub(in crate::core) mod linking;
pub(in crate::core) mod sending;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use roost_proto::events::messages_topic;
use roost_proto::ids::{NodeId, VnodeId};
use roost_proto::limits::TRANSPORT_TIMEOUT_MS;

use crate::core::effects::Token;
use crate::core::outbound::link::Link;

/// Of the records that wait for one node, in bytes: twice what may be queued for one vnode. What is beyond is refused
/// as the log would refuse it, and repeated by its channel.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A bundle without a report holds the next one up for this long, in milliseconds: a tick. A log that does not answer
/// gets each record when it would have got it alone, or a record could be as old as two of the log's time-outs (rule 6).
const HOLDS_MS: u64 = 50;

/// How long a record waits for others that its reader has by the link already, in milliseconds.
const COPY_WAITS_MS: u64 = 20;

/// Of one bundle: half of what a broker takes as one record by default. One record is a frame, and what names it.
const BUNDLE_BYTES_MAX: usize = 512 * 1024;

/// A record that waits, as it goes into the log.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) vnode: VnodeId,
    pub(super) payload: Bytes,
    pub(super) token: Token,
    /// Since when, on the monotonic clock.
    pub(super) since: u64,
}

/// Whether the reader of a record waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    AtOnce,
    /// It went by the link, too.
    Copy,
}

/// What there is for one node.
#[derive(Debug)]
pub(super) struct Way {
    topic: Arc<str>,
    waiting: Vec<Waiting>,
    bytes: usize,
    /// When what waits is to go at the latest.
    due: Option<u64>,
    /// The bundle that was sent last and has no report, and when that was.
    under_way: Option<(u64, u64)>,
    link: Link,
    /// What this turn has for the link.
    boarded: Vec<Bytes>,
}

impl Way {
    fn to(node: &NodeId) -> Self {
        let topic = Arc::from(messages_topic(node));
        Self {
            topic,
            waiting: Vec::new(),
            bytes: 0,
            due: None,
            under_way: None,
            link: Link::default(),
            boarded: Vec::new(),
        }
    }

    fn push(&mut self, record: Waiting, haste: Haste) {
        let due = record.since + if haste == Haste::Copy { COPY_WAITS_MS } else { 0 };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.bytes += record.payload.len();
        self.waiting.push(record);
    }

    /// Takes out what is older than the log would have tried it: the process stood still, and it would be a second
    /// message by now (rule 6).
    fn overdue(&mut self, now: u64) -> Vec<Token> {
        let over = |waiting: &Waiting| now >= waiting.since + TRANSPORT_TIMEOUT_MS;
        if !self.waiting.first().is_some_and(over) {
            return Vec::new();
        }
        let (gone, stay) = std::mem::take(&mut self.waiting).into_iter().partition(over);
        self.waiting = stay;
        self.bytes = self.waiting.iter().map(|waiting| waiting.payload.len()).sum();
        Vec::<Waiting>::into_iter(gone).map(|waiting| waiting.token).collect()
    }

    /// All that waits, if it is to go now.
    fn take(&mut self, now: u64) -> Vec<Waiting> {
        let held = self.under_way.is_some_and(|(_, since)| now < since + HOLDS_MS);
        let early = self.due.is_none_or(|due| now < due) && self.bytes < BUNDLE_BYTES_MAX;
        if held || early { Vec::new() } else { self.take_all() }
    }

    fn take_all(&mut self) -> Vec<Waiting> {
        (self.bytes, self.due) = (0, None);
        std::mem::take(&mut self.waiting)
    }

    /// The link ended: what went by it may not have arrived, and what was to go is in the topic.
    fn link_ended(&mut self, now: u64) {
        self.link.closed(now);
        self.boarded.clear();
        self.due = self.due.map(|_| 0);
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    ways: BTreeMap<NodeId, Way>,
    /// What found no room.
    refused: Vec<Token>,
    last_link: u64,
}

impl Outbound {
    fn way(&mut self, to: &NodeId) -> &mut Way {
        if !self.ways.contains_key(to) {
            self.ways.insert(to.clone(), Way::to(to));
        }
        self.ways.get_mut(to).expect("just put there")
    }

    fn push(&mut self, to: &NodeId, record: Waiting, haste: Haste) {
        let way = self.way(to);
        if way.bytes >= WAITING_BYTES_MAX {
            return self.refused.push(record.token);
        }
        way.push(record, haste);
    }

    /// Whether any record has not been handed to the log yet.
    pub(super) fn has_waiting(&self) -> bool {
        self.ways.values().any(|way| !way.waiting.is_empty())
    }

    /// Links that are open.
    pub(super) fn links(&self) -> usize {
        self.ways.values().filter(|way| way.link.open().is_some()).count()
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
        Waiting { vnode: VnodeId(0), payload: vec![0; bytes].into(), token: Token::Other, since: 0 }
    }

    #[test]
    fn while_a_bundle_is_under_way_the_next_is_gathered_but_not_for_long() {
        let (mut outbound, node) = (Outbound::default(), NodeId::new("n").unwrap());
        let taken = |outbound: &mut Outbound, now| outbound.ways.get_mut(&node).unwrap().take(now).len();
        outbound.push(&node, record(1), Haste::AtOnce);
        assert_eq!(taken(&mut outbound, 5), 1, "a lone record waits for nobody");
        outbound.ways.get_mut(&node).unwrap().under_way = Some((7, 5));
        outbound.push(&node, record(1), Haste::AtOnce);
        outbound.push(&node, record(1), Haste::AtOnce);
        assert_eq!(taken(&mut outbound, 6), 0);
        outbound.reported(&node, 6);
        assert_eq!(taken(&mut outbound, 6), 0, "of another bundle");
        outbound.reported(&node, 7);
        assert_eq!(taken(&mut outbound, 6), 2);
        outbound.ways.get_mut(&node).unwrap().under_way = Some((8, 6));
        outbound.push(&node, record(1), Haste::AtOnce);
        assert_eq!(taken(&mut outbound, 6 + HOLDS_MS), 1, "whatever becomes of the last one");
    }

    #[test]
    fn what_went_by_the_link_waits_for_others_unless_the_link_ends() {
        let (mut outbound, node) = (Outbound::default(), NodeId::new("n").unwrap());
        let taken = |outbound: &mut Outbound, now| outbound.way(&node).take(now).len();
        let copy = |bytes, since| Waiting { since, ..record(bytes) };
        outbound.push(&node, copy(1, 100), Haste::Copy);
        outbound.push(&node, copy(1, 110), Haste::Copy);
        assert_eq!(taken(&mut outbound, 100 + COPY_WAITS_MS - 1), 0);
        assert_eq!(taken(&mut outbound, 100 + COPY_WAITS_MS), 2);
        outbound.push(&node, copy(1, 200), Haste::Copy);
        outbound.push(&node, record(1), Haste::AtOnce);
        assert_eq!(taken(&mut outbound, 200), 2, "with what does not wait");
        outbound.push(&node, copy(1, 300), Haste::Copy);
        outbound.way(&node).link_ended(300);
        assert_eq!(taken(&mut outbound, 300), 1);
        outbound.push(&node, copy(BUNDLE_BYTES_MAX, 400), Haste::Copy);
        assert_eq!(taken(&mut outbound, 400), 1, "a bundle is full");
    }

    #[test]
    fn what_waited_for_as_long_as_the_log_tries_is_not_sent_any_more() {
        let (mut outbound, node) = (Outbound::default(), NodeId::new("n").unwrap());
        outbound.push(&node, record(1), Haste::AtOnce);
        outbound.push(&node, Waiting { since: 1, ..record(2) }, Haste::AtOnce);
        let way = outbound.way(&node);
        assert_eq!(way.overdue(TRANSPORT_TIMEOUT_MS - 1).len(), 0);
        assert_eq!((way.overdue(TRANSPORT_TIMEOUT_MS).len(), way.waiting.len(), way.bytes), (1, 1, 2));
    }

    #[test]
    fn what_waits_for_a_node_is_bounded_in_bytes() {
        let (mut outbound, node) = (Outbound::default(), NodeId::new("n").unwrap());
        outbound.push(&node, record(WAITING_BYTES_MAX), Haste::AtOnce);
        outbound.push(&node, record(1), Haste::AtOnce);
        assert_eq!((outbound.ways[&node].waiting.len(), outbound.refused.len()), (1, 1));
    }
}
