//! A message of the node's own, every few seconds, through the whole path: channel, transport, home, store, log and
//! back. The age of the last one that was confirmed says whether messages get through, whatever else looks healthy.

use roost_proto::events::CANARY_KIND;
use roost_proto::ids::{MessageId, NodeId, StreamId, UserId, VnodeId};
use roost_proto::records::{Append, ItemBody};

use super::asker::Asker;
use super::channel::By;
use super::events::Now;
use super::message::key_of;
use super::{NodeCore, Registration};

/// The sender; no user's id begins with `#`.
const FROM: &str = "#canary";
/// Names tried until one lies on the vnode, as a multiple of the number of vnodes: 1 in e^8 (3,000) finds none, and
/// then the next vnode has its turn.
const TRIES: u32 = 8;
/// Unconfirmed ones at which no more are sent.
const WAITING_MAX: usize = 4;

#[derive(Debug, Default)]
pub struct Canary {
    next_at: u64,
    sent: u64,
    /// The vnode that the last one was for.
    vnode: u16,
    /// Of the last one that was confirmed: when it was sent, and how long it took.
    last: Option<(u64, u64)>,
    began: u64,
}

impl Canary {
    /// Milliseconds since the last confirmed one was sent; since the first was due, if none ever was.
    pub fn age_ms(&self, now: u64) -> u64 {
        let since = self.last.map_or(self.began, |(sent, _)| sent);
        if since == 0 { 0 } else { now.saturating_sub(since) }
    }

    /// How long it took, in milliseconds.
    pub fn took_ms(&self) -> Option<u64> {
        self.last.map(|(_, took)| took)
    }

    pub(super) fn confirmed(&mut self, sent: u64, now: u64) {
        self.last = Some((sent, now - sent));
    }
}

impl NodeCore {
    pub(super) fn tick_canary(&mut self, now: Now) {
        let every = self.cfg.canary_every_ms;
        if every == 0 || self.registration != Registration::Yes || now.mono < self.canary.next_at {
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
        self.channels.values().map(|channel| channel.items_from(FROM)).sum()
    }

    /// The next vnode that is at home at another node, if there is another; each has its turn.
    fn canary_vnode(&self) -> Option<VnodeId> {
        let up = |node: &NodeId| self.view.living_node(node).is_some();
        let ready = |elsewhere: bool, vnode: u16| {
            let row = self.view.rows.get(&VnodeId(vnode))?;
            let there = row.ready && up(&row.node()) && (row.node() != self.cfg.node) == elsewhere;
            there.then_some(VnodeId(vnode))
        };
        let vnodes = u16::try_from(self.view.vnodes.saturating_sub(1)).ok()?;
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
        let id = format!("canary-{:08x}-{}-{}", self.cfg.random, self.sid.born(), self.canary.sent);
        let Ok(id) = MessageId::new(id) else { return };
        let data = format!("{{\"node\":\"{}\"}}", self.cfg.node);
        let data = serde_json::value::RawValue::from_string(data).expect("a node's name needs no escape");
        let stream = StreamId::inbox(user);
        let append = Append {
            stream,
            from: FROM.into(),
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
