//! Links are opened, filled, and given up.

use bytes::Bytes;
use roost_proto::ids::{NodeId, Sid};
use roost_proto::records::BUNDLES;

use crate::core::actions::Action;
use crate::core::keys::Now;
use crate::core::node::NodeCore;
use crate::core::outbound::Way;
use crate::core::outbound::link::{LinkInput, LinkKey, LinkOrder, Stretch};
use crate::core::outbound::sending::bundles;

impl NodeCore {
    pub(in crate::core) fn on_link(&mut self, input: LinkInput, now: Now) {
        let (LinkInput::Opened(key) | LinkInput::Closed(key) | LinkInput::Written(key, _)) = input;
        let Some(way) = self.outbound.ways.values_mut().find(|way| way.link.is(key)) else { return };
        match input {
            LinkInput::Opened(_) => way.link.opened(),
            LinkInput::Closed(_) => {
                way.link.closed(now.mono);
                way.boarded.clear();
                way.hasten();
            }
            LinkInput::Written(_, bytes) => way.link.written(bytes),
        }
    }

    /// Where an item may board that begins a stretch of its channel: a link to who has the row.
    pub(in crate::core) fn stretch_to(&mut self, node: &NodeId) -> Option<Stretch> {
        self.outbound.ways.get(node)?.link.stretch()
    }

    /// Puts a copy aboard the link to this life of a node, if there is one and it has room.
    pub(super) fn board(&mut self, sid: &Sid, payload: &Bytes) -> bool {
        let max = self.cfg.link_bytes_max;
        let way = self.outbound.way(&sid.node());
        let goes = way.link.leads_to(sid) && way.link.board(payload.len(), max).is_some();
        if goes {
            way.boarded.push(payload.clone());
        }
        goes
    }

    /// The same, in a stretch that has begun.
    pub(super) fn board_in(&mut self, to: &NodeId, stretch: Stretch, payload: &Bytes) -> bool {
        let max = self.cfg.link_bytes_max;
        let way = self.outbound.way(to);
        let goes = way.link.stretch() == Some(stretch) && way.link.board(payload.len(), max).is_some();
        if goes {
            way.boarded.push(payload.clone());
        }
        goes
    }

    /// What this turn has for a link goes at once, together.
    pub(super) fn send_boarded(&mut self, way: &mut Way) {
        let Some((link, _)) = way.link.current().filter(|_| !way.boarded.is_empty()) else { return };
        for (_, payload) in bundles(std::mem::take(&mut way.boarded).into_iter().map(|payload| ((), payload)))
        {
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
                way.link.closed(now.mono);
                way.boarded.clear();
                way.hasten();
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
