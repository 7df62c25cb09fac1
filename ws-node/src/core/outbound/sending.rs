//! Records are gathered, and go out at the end of the turn.

use bytes::Bytes;
use roost_backend::log::{Durability, Outgoing};
use roost_proto::ids::{NodeId, VnodeId};
use roost_proto::records::{self, BUNDLES, Confirm, Record};

use crate::core::actions::Action;
use crate::core::channels::channel::NextItem;
use crate::core::config::Rule;
use crate::core::effects::Token;
use crate::core::keys::Now;
use crate::core::node::NodeCore;
use crate::core::outbound::{BUNDLE_BYTES_MAX, Haste, Waiting};

/// Bundles of all nodes take this partition of their reader's topic: the log sends a request for each partition.
const BUNDLES_PARTITION: u32 = 0;

impl NodeCore {
    /// Hands a record to the node it is for: a call for this one (rule 5), the topic for others.
    pub(in crate::core) fn transport(
        &mut self,
        to: &NodeId,
        vnode: VnodeId,
        record: Record,
        token: Token,
        now: Now,
    ) {
        if *to == self.cfg.node {
            return self.fx.deliver_here(record);
        }
        let waiting = Waiting { vnode, payload: encoded(&record), token, since: now.mono };
        self.outbound.push(to, waiting, Haste::AtOnce);
    }

    /// An item takes the topic, and the link as well if its channel is aboard.
    pub(in crate::core) fn transport_item(&mut self, to: &NodeId, next: NextItem, token: Token, now: Now) {
        let NextItem { item, link } = next;
        if *to == self.cfg.node {
            return self.fx.deliver_here(Record::Item(item));
        }
        let (vnode, n) = (item.channel.vnode, item.n);
        let payload = encoded(&Record::Item(item));
        let mut haste = Haste::AtOnce;
        if let Some(link) = link {
            let goes = self.board(to, |(open, _)| open == link, &payload);
            self.channel(vnode, now).has_boarded(goes.then_some(n));
            haste = if goes { Haste::Copy } else { Haste::AtOnce };
        }
        self.outbound.push(to, Waiting { vnode, payload, token, since: now.mono }, haste);
    }

    /// What a sender is to hear goes by the link, or by the topic where there is none; by both if it asked.
    pub(in crate::core) fn transport_confirm(&mut self, confirm: Confirm, was_asked: bool, now: Now) {
        let (sid, vnode) = (confirm.channel.sid.clone(), confirm.channel.vnode);
        let (to, record) = (sid.node(), Record::Confirm(confirm));
        if to == self.cfg.node {
            return self.fx.deliver_here(record);
        }
        let payload = encoded(&record);
        let goes = self.board(&to, |(_, end)| *end == sid, &payload);
        if goes {
            self.told_by_link(vnode, &sid, now);
        }
        if !goes || was_asked {
            let waiting = Waiting { vnode, payload, token: Token::Other, since: now.mono };
            self.outbound.push(&to, waiting, Haste::AtOnce);
        }
    }

    /// Sends what was gathered; to a node that may not read bundles each record alone.
    pub(in crate::core) fn send_out(&mut self, now: Now) {
        let mut ways = std::mem::take(&mut self.outbound.ways);
        for (node, way) in &mut ways {
            self.send_boarded(way);
            self.outbound.refused.extend(way.overdue(now.mono));
            if way.waiting.is_empty() {
                continue;
            }
            let topic = way.topic.clone();
            if self.reads(node) < BUNDLES && self.cfg.on(Rule::BundlesToReaders) {
                for Waiting { vnode, payload, token, .. } in way.take_all() {
                    let (key, partition) = (vnode.to_string().into(), self.cfg.partition(vnode));
                    let token = self.fx.token(token);
                    self.produce(Outgoing { topic: topic.clone(), partition, key, payload, token });
                }
                continue;
            }
            let waiting = way.take(now.mono).into_iter().map(|waiting| (waiting.token, waiting.payload));
            for (of, payload) in bundles(waiting) {
                let token = self.fx.token(Token::Bundle { to: node.clone(), of });
                way.under_way = Some((token, now.mono));
                let (key, topic) = (self.cfg.node.to_string().into(), topic.clone());
                self.produce(Outgoing { topic, partition: BUNDLES_PARTITION, key, payload, token });
            }
        }
        self.outbound.ways = ways;
    }

    /// Which forms of records a node understands, by its row.
    pub(super) fn reads(&self, node: &NodeId) -> u32 {
        self.membership.view().nodes.get(node).map_or(0, |row| row.reads)
    }

    fn produce(&mut self, record: Outgoing) {
        self.fx.push(Action::Produce { durability: Durability::Transport, record });
    }

    /// The log took a bundle, or did not: so it did with all records in it.
    pub(in crate::core) fn bundle_reported(
        &mut self,
        bundle: u64,
        to: &NodeId,
        of: Vec<Token>,
        ok: bool,
        now: Now,
    ) {
        self.outbound.reported(to, bundle);
        for token in of {
            self.record_reported(token, ok, now);
        }
    }

    /// There was no room for these.
    pub(in crate::core) fn refuse_records(&mut self, now: Now) {
        for token in std::mem::take(&mut self.outbound.refused) {
            self.record_reported(token, false, now);
        }
    }
}

fn encoded(record: &Record) -> Bytes {
    serde_json::to_vec(record).expect("records always encode").into()
}

/// In their order, as few as hold them: each with what belongs to its records.
pub(super) fn bundles<T>(records: impl IntoIterator<Item = (T, Bytes)>) -> Vec<(Vec<T>, Bytes)> {
    let (mut bundles, mut bytes) = (Vec::new(), 0);
    let (mut of, mut payloads): (Vec<T>, Vec<Bytes>) = (Vec::new(), Vec::new());
    for (one, payload) in records {
        if bytes > 0 && bytes + payload.len() > BUNDLE_BYTES_MAX {
            bundles.push((std::mem::take(&mut of), records::bundle(&payloads).into()));
            payloads.clear();
            bytes = 0;
        }
        bytes += payload.len();
        of.push(one);
        payloads.push(payload);
    }
    if !of.is_empty() {
        bundles.push((of, records::bundle(&payloads).into()));
    }
    bundles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_bundle_holds_is_several_in_order() {
        let record = |n: u64| (n, Bytes::from(format!("{{\"pad\":\"{n}{}\"}}", "x".repeat(200_000))));
        let made = bundles((0..5).map(record));
        let of: Vec<_> = made.iter().map(|(of, _)| of.clone()).collect();
        assert_eq!(of, [vec![0, 1], vec![2, 3], vec![4]]);
        assert!(made.iter().all(|(_, payload)| payload.len() < BUNDLE_BYTES_MAX));
        assert!(made[1].1.starts_with(b"{\"bundle\":[{\"pad\":\"2"));
        assert!(bundles(Vec::<(u64, Bytes)>::new()).is_empty());
    }
}
