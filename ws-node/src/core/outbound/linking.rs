//! Links are opened, filled, and given up.

use bytes::Bytes;
use roost_proto::ids::{NodeId, Sid};
use roost_proto::records::BUNDLES;

use crate::core::actions::Action;
use crate::core::keys::Now;
use crate::core::node::NodeCore;
use crate::core::outbound::Way;
use crate::core::outbound::link::{LinkInput, LinkKey, LinkOrder};
use crate::core::outbound::sending::bundles;

impl NodeCore {
    pub(in crate::core) fn on_link(&mut self, input: LinkInput, now: Now) {
        let (LinkInput::Opened(key) | LinkInput::Closed(key) | LinkInput::Written(key, _)) = input;
        let Some(way) = self.outbound.ways.values_mut().find(|way| way.link.is(key)) else { return };
        match input {
            LinkInput::Opened(_) => way.link.opened(),
            LinkInput::Closed(_) => {
                let to = way.link.open().map(|(_, to)| to.clone());
                way.link_ended(now.mono);
                // Nor may what was confirmed by it have been heard.
                if let Some(to) = to {
                    self.confirm_again(&to, now);
                }
            }
            LinkInput::Written(_, bytes) => way.link.written(bytes),
        }
    }

    /// The link by which items of an empty channel may go.
    pub(in crate::core) fn link_to(&self, node: &NodeId) -> Option<LinkKey> {
        self.outbound.ways.get(node)?.link.open().map(|(link, _)| link)
    }

    /// Puts a copy aboard the link to a node, if that is open, the one which is meant, and has room.
    pub(super) fn board(
        &mut self,
        to: &NodeId,
        is_meant: impl FnOnce((LinkKey, &Sid)) -> bool,
        payload: &Bytes,
    ) -> bool {
        let max = self.cfg.link_bytes_max;
        let way = self.outbound.way(to);
        let goes = way.link.open().is_some_and(is_meant) && way.link.board(payload.len(), max);
        if goes {
            way.boarded.push(payload.clone());
        }
        goes
    }

    /// What this turn has for a link goes at once, together.
    pub(super) fn send_boarded(&mut self, way: &mut Way) {
        let Some((link, _)) = way.link.current().filter(|_| !way.boarded.is_empty()) else { return };
        let boarded = std::mem::take(&mut way.boarded).into_iter().map(|payload| (payload.len(), payload));
        for (sizes, payload) in bundles(boarded) {
            way.link.grew(payload.len() - sizes.iter().sum::<usize>());
            self.fx.push(Action::Link(LinkOrder::Send { link, payload }));
        }
    }

    /// Opens a link to whoever there is, gives up those to a life that is over, and forgets nodes that are gone.
    pub(in crate::core) fn tick_outbound(&mut self, now: Now) {
        let mut ways = std::mem::take(&mut self.outbound.ways);
        for (node, way) in &mut ways {
            let row = self.membership.view().living_node(node).filter(|row| row.reads >= BUNDLES);
            let row = row.filter(|_| self.membership.is_registered());
            if let Some((link, to)) = way.link.current()
                && row.is_none_or(|row| row.sid != *to)
            {
                self.fx.push(Action::Link(LinkOrder::Close(link)));
                way.link_ended(now.mono);
            }
            let Some((admin, to)) = row.map(|row| (row.admin.clone(), row.sid.clone())) else { continue };
            if way.link.wants_to_open(now.mono) {
                self.outbound.last_link += 1;
                let (link, from) = (LinkKey(self.outbound.last_link), self.membership.sid().clone());
                way.link.opening(link, to.clone());
                self.fx.push(Action::Link(LinkOrder::Open { link, admin, from, to }));
            }
        }
        let nodes = &self.membership.view().nodes;
        ways.retain(|node, way| {
            !way.waiting.is_empty() || way.link.current().is_some() || nodes.contains_key(node)
        });
        self.outbound.ways = ways;
    }
}
