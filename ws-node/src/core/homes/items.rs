//! Items come in: numbered, each once, in order (rules 8, 9, 14, 15).

use roost_backend::store::*;
use roost_proto::ids::Sid;
use roost_proto::records::{Confirm, Item, ItemBody, ItemResult, Probe, Said};

use crate::core::config::Rule;
use crate::core::keys::Now;
use crate::core::message::{append_op, event_op};
use crate::core::node::NodeCore;
use crate::core::said::{SaidUpTo, Who};

/// A sid that began so long ago and is in no table was forgotten, in milliseconds: half a day. Rows stay for a day at
/// least after their node is gone, and the clocks that give a sid its birth may be hours apart.
const FORGOTTEN_MS: u64 = 43_200_000;

impl NodeCore {
    /// A sid that is in no table may be just starting; but if it began long ago, it was forgotten, and its tombstone
    /// with it (rule 21): what comes of it now waited in a process that slept.
    pub(in crate::core) fn is_forgotten(&self, sid: &Sid, now: Now) -> bool {
        let began_long_ago = now.wall > sid.born() + FORGOTTEN_MS;
        began_long_ago
            && !self.membership.view().nodes.contains_key(&sid.node())
            && self.cfg.on(Rule::Forgotten)
    }

    /// Rules 8, 9, 14, 15; of a copy that came by the link, rule 34.
    pub(in crate::core) fn on_item(&mut self, item: Item, is_copy: bool, now: Now) {
        let channel = &item.channel;
        let vnode = channel.vnode;
        let ended = self.membership.view().ended(&channel.sid) || self.is_forgotten(&channel.sid, now);
        let Some(home) = self.homes.map.get_mut(&vnode).filter(|h| h.epoch == channel.epoch && !ended) else {
            self.fx.count().void_records += 1;
            return;
        };
        let (takes, room) = (home.takes_items(), home.has_room(&self.cfg));
        let Some(sender) = home.sender(channel) else { return };
        // Only what this very channel says: a late record of an earlier one counted other items.
        sender.prune(item.acked);
        let expected = sender.last + 1;
        let in_order = self.cfg.on(Rule::NextOnly) && (!is_copy || self.cfg.on(Rule::CopiesInOrder));
        let skip = !in_order && item.n > expected;
        // A copy neither asks nor is answered for.
        if is_copy && !(takes && room && (item.n == expected || skip)) {
            return;
        }
        sender.seen = sender.seen.max(item.n);
        if !takes {
            return;
        }
        if item.n < expected {
            sender.came_again(item.channel.round, &self.cfg);
        } else if !room {
            sender.dropped = true;
        } else if item.n > expected && !skip {
            sender.gap();
        } else {
            let body = item.body.as_ref().map(|b| serde_json::from_str::<ItemBody>(b.get()));
            match body {
                None => sender.take(item.n, Some(ItemResult::Void)),
                Some(Err(_)) => {
                    self.fx.count().undecodable += 1;
                    sender.take(item.n, Some(ItemResult::Bad));
                }
                Some(Ok(ItemBody::MemberUpdate(here))) => {
                    sender.take(item.n, Some(ItemResult::Noted));
                    let sid = channel.sid.clone();
                    self.on_member_update(vnode, &sid, here, now);
                }
                Some(Ok(ItemBody::Said(said))) => {
                    sender.take(item.n, Some(ItemResult::Noted));
                    for Said { user, device, acked, read, quiet } in said {
                        let said = SaidUpTo { acked, read };
                        self.hear_said(vnode, Who { user, device, quiet }, said, now);
                    }
                }
                Some(Ok(ItemBody::Members { stream })) => {
                    let list = home.rooms.list(home.epoch, &stream, now);
                    if let Some(sender) = home.sender(channel) {
                        sender.take(item.n, Some(list));
                    }
                }
                Some(Ok(ItemBody::Tail { stream })) => {
                    home.work_on(&item, Op::Tail { stream }, now);
                }
                // Whether it may wait was asked where it was sent: a refusal here could let a later one pass.
                Some(Ok(ItemBody::Event(event))) => home.work_on(&item, event_op(event, now.wall), now),
                Some(Ok(ItemBody::Append(append))) => {
                    let clock_ms = home.clock_ms(&self.cfg, now);
                    let op = append_op(append, now.wall, clock_ms, self.cfg.undelivered_after_ms > 0);
                    home.work_on(&item, Op::Append(op), now);
                }
            }
        }
        self.fx.touch(vnode);
    }

    /// A sender heard nothing for a while (rule 3).
    pub(in crate::core) fn on_probe(&mut self, probe: &Probe, now: Now) {
        let channel = &probe.channel;
        let undecodable = self.fx.counters().undecodable;
        let Some(home) = self.homes.map.get_mut(&channel.vnode) else { return };
        if home.epoch != channel.epoch || !home.takes_items() {
            return;
        }
        let room = home.has_room(&self.cfg);
        let Some(sender) = home.sender(channel) else { return };
        sender.prune(probe.first - 1);
        sender.seen = sender.seen.max(probe.last);
        sender.repeat();
        // Without room it would only be dropped again: asked for when there is some (rule 14).
        (sender.ask, sender.dropped) = (room, sender.dropped || !room);
        if sender.is_stuck(undecodable) {
            let confirm = Confirm {
                channel: channel.clone(),
                from: sender.last + 1,
                results: vec![],
                ask: None,
                unreadable: true,
            };
            self.transport_confirm(confirm, true, now);
        }
        self.fx.touch(channel.vnode);
    }

    pub(in crate::core) fn on_undecodable(&mut self) {
        self.fx.count().undecodable += 1;
    }
}
