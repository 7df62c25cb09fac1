//! Links between nodes, in the hand.

use roost_proto::ids::Sid;
use roost_proto::records;
use roost_ws_node::core::{Input, LinkInput, LinkOrder};

use super::{Harness, ROAD_MS};

/// Twice as fast as the topic.
const LINK_MS: u64 = ROAD_MS / 2;

impl Harness {
    /// Opened where a test has links; else there is no way between nodes but the log.
    pub(super) fn link(&mut self, node: usize, order: LinkOrder) {
        match order {
            LinkOrder::Open { link, to, .. } => {
                let other = self.nodes.iter().position(|core| *core.sid() == to).filter(|_| self.links);
                let input = if other.is_some() { LinkInput::Opened(link) } else { LinkInput::Closed(link) };
                self.linked.extend(other.map(|other| ((node, link), (other, to))));
                self.later(LINK_MS, node, Input::Link(input));
            }
            LinkOrder::Send { link, payload } => {
                let Some((other, mut to)) = self.linked.get(&(node, link)).cloned() else { return };
                let mut copies: Vec<_> = records::read(&payload)
                    .into_iter()
                    .map(|record| record.expect("cores write what they read"))
                    .collect();
                self.by_link.extend(copies.iter().map(|record| (self.now, node, record.clone())));
                copies.retain(|record| (self.aboard)(node, record));
                if self.misdirect {
                    to = Sid::new(&to.node(), to.born() - 1, 0);
                }
                let written = LinkInput::Written(link, payload.len());
                self.later(LINK_MS, other, Input::Copies { to, records: copies });
                self.later(LINK_MS, node, Input::Link(written));
            }
            LinkOrder::Close(link) => drop(self.linked.remove(&(node, link))),
        }
    }

    /// All links break.
    pub(crate) fn cut_links(&mut self) {
        for ((node, link), _) in std::mem::take(&mut self.linked) {
            self.give(node, Input::Link(LinkInput::Closed(link)));
        }
    }
}
