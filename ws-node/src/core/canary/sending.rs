//! Canaries are sent, to each vnode in turn.

use roost_proto::events::CANARY_KIND;
use roost_proto::ids::{MessageId, NodeId, StreamId, UserId, VnodeId};
use roost_proto::records::{Append, ItemBody};

use crate::core::channels::asker::Asker;
use crate::core::channels::channel::By;
use crate::core::keys::Now;
use crate::core::message::key_of;
use crate::core::node::NodeCore;

/// The sender; no user's id begins with `#`.
const CANARY_FROM: &str = "#canary";

/// Names tried until one lies on the vnode, as a multiple of the number of vnodes: 1 in e^8 (3,000) finds none, and
/// then the next vnode has its turn.
const TRIES: u32 = 8;

/// Unconfirmed ones at which no more are sent.
const WAITING_MAX: usize = 4;

impl NodeCore {
    pub(in crate::core) fn tick_canary(&mut self, now: Now) {
        let every = self.cfg.canary_every_ms;
        if every == 0 || !self.membership.is_registered() || now.mono < self.canary.next_at {
            return;
        }
        if self.canary.began == 0 {
            self.canary.began = now.mono;
        }
        self.canary.next_at = now.mono + every;
        let Some(vnode) = self.canary_vnode() else { return };
        self.canary.vnode = vnode.0;
        // While earlier ones are stuck more would only be in the way.
        if self.canary_waiting() >= WAITING_MAX {
            return;
        }
        if let Some(user) = self.canary_user(vnode) {
            self.send_canary(&user, now);
        }
    }

    fn canary_waiting(&self) -> usize {
        self.channels.values().map(|channel| channel.items_from(CANARY_FROM)).sum()
    }

    /// The next vnode that is at home at another node, if there is another; each has its turn.
    fn canary_vnode(&self) -> Option<VnodeId> {
        let up = |node: &NodeId| self.membership.view().living_node(node).is_some();
        let ready = |elsewhere: bool, vnode: u16| {
            let row = self.membership.view().rows.get(&VnodeId(vnode))?;
            let there = row.ready && up(&row.node()) && (row.node() != self.cfg.node) == elsewhere;
            there.then_some(VnodeId(vnode))
        };
        let vnodes = u16::try_from(self.membership.view().vnodes.saturating_sub(1)).ok()?;
        let turn = || (self.canary.vnode.saturating_add(1)..=vnodes).chain(0..=self.canary.vnode.min(vnodes));
        turn().find_map(|vnode| ready(true, vnode)).or_else(|| turn().find_map(|vnode| ready(false, vnode)))
    }

    /// The reserved user of a vnode: few, so that their streams stay few.
    fn canary_user(&self, vnode: VnodeId) -> Option<UserId> {
        let names = (0..TRIES * self.cfg.vnodes)
            .filter_map(|k| UserId::new(format!("{}canary.{k}", UserId::RESERVED)).ok());
        names.into_iter().find(|user| self.vnode_of(&StreamId::inbox(user)) == vnode)
    }

    fn send_canary(&mut self, user: &UserId, now: Now) {
        self.canary.sent += 1;
        // Nodes share the reserved users, and may be born in the same millisecond.
        let id =
            format!("canary-{:08x}-{}-{}", self.cfg.random, self.membership.sid().born(), self.canary.sent);
        let Ok(id) = MessageId::new(id) else { return };
        let data = format!("{{\"node\":\"{}\"}}", self.cfg.node);
        let data = serde_json::value::RawValue::from_string(data).expect("a node's name needs no escape");
        let stream = StreamId::inbox(user);
        let append = Append {
            stream,
            from: CANARY_FROM.into(),
            id,
            kind: CANARY_KIND.into(),
            data,
            receipt: false,
            answers: None,
        };
        let item = self.item(By::Own, key_of(&append), &ItemBody::Append(append), Asker::Canary, now);
        self.queue(item, now);
    }
}
