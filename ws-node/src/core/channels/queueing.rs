//! Items are queued, handed to the transport, confirmed, and asked after (rules 1–6).

use roost_backend::store::Row;
use roost_proto::ids::VnodeId;
use roost_proto::limits::UNKNOWN_AFTER_MS;
use roost_proto::records::{ChannelId, Confirm, Item, ItemBody, Record};

use crate::core::channels::answering::Outcome;
use crate::core::channels::asker::Asker;
use crate::core::channels::channel::{Attached, By, Channel, Dropped, Pending, Waiter};
use crate::core::config::{ItemLane, Rule};
use crate::core::effects::Token;
use crate::core::keys::Now;
use crate::core::message::ItemKey;
use crate::core::node::NodeCore;
use crate::core::sessions::blocked::Cause;

impl NodeCore {
    pub(in crate::core) fn tick_shares(&mut self, now: Now) {
        self.channels.shares.forget(now.mono);
    }

    /// What waits for an item from now on.
    pub(in crate::core) fn waiter(&mut self, asker: impl Into<Asker>, now: Now) -> Waiter {
        let arrival = self.channels.next_arrival;
        self.channels.next_arrival += 1;
        Waiter { asker: asker.into(), arrival, since: now.mono, since_us: now.us }
    }

    /// An item for whatever asks.
    pub(in crate::core) fn item(
        &mut self,
        by: By,
        key: ItemKey,
        body: &ItemBody,
        asker: impl Into<Asker>,
        now: Now,
    ) -> Pending {
        let waiter = self.waiter(asker, now);
        Pending::new(by, key, body, waiter)
    }

    /// Queues it, unless it is queued already.
    pub(in crate::core) fn queue(&mut self, item: Pending, now: Now) -> Attached {
        let vnode = self.vnode_of(&item.key.0);
        let attached = self.attach(vnode, &item);
        if attached == Attached::No {
            self.push(vnode, item, now);
        }
        attached
    }

    pub(in crate::core) fn attach(&mut self, vnode: VnodeId, item: &Pending) -> Attached {
        self.channels.map.get_mut(&vnode).map_or(Attached::No, |channel| channel.attach(item))
    }

    /// Puts an item into its channel.
    pub(in crate::core) fn push(&mut self, vnode: VnodeId, item: Pending, now: Now) {
        self.channels.shares.begin(&item.by, item.load);
        let channel = self.channel(vnode, now);
        let boards = channel.home().filter(|_| channel.is_empty()).cloned();
        let boards = boards.filter(|_| self.cfg.item_lane == ItemLane::Both);
        let link = boards.and_then(|home| self.link_to(&home));
        self.channel(vnode, now).push(item, link, now.mono);
        self.pump(vnode, now);
    }

    /// Whether a channel has a place for one more of somebody's.
    pub(in crate::core) fn has_place(&self, vnode: VnodeId, by: &By, bytes: usize) -> bool {
        let (items_max, bytes_max) = (self.cfg.channel_items_max, self.cfg.channel_bytes_max);
        self.channels.map.get(&vnode).is_none_or(|c| c.has_place(by, bytes, items_max, bytes_max))
    }

    /// Items left their queue without a result: what their sessions send to the same streams must wait until the
    /// first of them is repeated (rule 1).
    pub(in crate::core) fn drop_items(
        &mut self,
        items: impl IntoIterator<Item = Dropped>,
        outcome: Outcome<'static>,
        now: Now,
    ) {
        for item in items {
            self.channels.shares.end(&item.by, item.load);
            if let Some(session) = item.asker.session().and_then(|key| self.sessions.get_mut(&key)) {
                session.block(&item.key, item.arrival, Cause::Full);
            }
            for waiter in &item.waiters {
                self.answer(waiter, &item.key, outcome, now);
            }
        }
    }

    pub(in crate::core) fn channel(&mut self, vnode: VnodeId, now: Now) -> &mut Channel {
        if !self.channels.map.contains_key(&vnode) {
            self.channels.map.insert(vnode, Channel::new(vnode, self.membership.sid().clone(), now.mono));
            self.follow_row(vnode, now);
        }
        self.channels.map.get_mut(&vnode).expect("just put there")
    }

    /// The channel goes where the row says, if that changed (rule 2). Rows that are not ready yet may be used:
    /// the home asks for what it could not take.
    pub(in crate::core) fn follow_row(&mut self, vnode: VnodeId, now: Now) {
        let Some(Row { epoch, sid, .. }) = self.membership.view().rows.get(&vnode) else { return };
        let (epoch, node) = (*epoch, sid.node());
        let Some(channel) = self.channels.map.get_mut(&vnode).filter(|c| c.epoch() != epoch) else { return };
        channel.move_to(epoch, node, self.channels.next_chan, now.mono);
        self.channels.next_chan += 1;
        self.pump(vnode, now);
        self.tell_anew(vnode, now);
    }

    /// Hands everything not yet handed out to the transport.
    pub(in crate::core) fn pump(&mut self, vnode: VnodeId, now: Now) {
        while let Some(channel) = self.channels.map.get_mut(&vnode)
            && let Some(next) = channel.next_item(now.mono)
        {
            let home = channel.home().cloned().expect("there is no next item without a home");
            let Item { channel: ChannelId { chan, round, .. }, n, .. } = next.item;
            let token = Token::Item { vnode, chan, round, n };
            self.transport_item(&home, next, token, now);
        }
    }

    pub(in crate::core) fn item_reported(
        &mut self,
        vnode: VnodeId,
        chan: u64,
        round: u32,
        n: u64,
        ok: bool,
        now: Now,
    ) {
        let Some(channel) = self.channels.map.get_mut(&vnode) else { return };
        if !ok {
            channel.failed(chan, round, now.mono);
        } else if !self.cfg.on(Rule::KeepUntilConfirmed) && channel.is(chan) {
            channel.forget_through(n);
        }
    }

    pub(in crate::core) fn on_confirm(&mut self, confirm: Confirm, now: Now) {
        let vnode = confirm.channel.vnode;
        let Some(channel) = self.channels.map.get_mut(&vnode) else { return };
        if self.cfg.on(Rule::ConfirmIdentity) && !channel.owns(&confirm) {
            return;
        }
        if confirm.unreadable {
            let gone = channel.unreadable(confirm.from, self.channels.next_chan, now.mono);
            self.channels.next_chan += 1;
            self.drop_items(gone, Outcome::Dropped, now);
            return self.pump(vnode, now);
        }
        if channel.is_forgotten(&confirm) {
            channel.begin_again(self.channels.next_chan, now.mono);
            self.channels.next_chan += 1;
            return self.pump(vnode, now);
        }
        for (item, result) in channel.confirm(&confirm, now.mono) {
            self.channels.shares.end(&item.by, item.load);
            for waiter in &item.waiters {
                self.answer(waiter, &item.key, Outcome::Result(&result), now);
            }
        }
        self.pump(vnode, now);
    }

    pub(in crate::core) fn tick_channels(&mut self, now: Now) {
        for vnode in self.channels.map.keys().copied().collect::<Vec<_>>() {
            let Some(channel) = self.channels.map.get_mut(&vnode).filter(|c| !c.is_empty()) else { continue };
            if self.cfg.on(Rule::VoidAge) {
                for (by, load) in channel.void_aged(now.mono) {
                    self.channels.shares.end(&by, load);
                }
            }
            let overdue = channel.overdue(now.mono, UNKNOWN_AFTER_MS);
            let probe = channel.probe(now.mono).filter(|_| self.cfg.on(Rule::Probe));
            let home = channel.home().cloned();
            for (key, waiter) in overdue {
                self.answer(&waiter, &key, Outcome::Unknown, now);
            }
            if let (Some(probe), Some(home)) = (probe, home) {
                self.fx.count().probes += 1;
                self.transport(&home, vnode, Record::Probe(probe), Token::Other, now);
            }
            self.pump(vnode, now);
        }
    }

    pub(in crate::core) fn channel_is_full(&self, vnode: VnodeId) -> bool {
        !self.has_place(vnode, &By::Own, 0)
    }

    /// Whether one more receipt or result may wait for a home: half of the cluster's own places are for what is asked
    /// of rooms' homes, and for canaries.
    pub(in crate::core) fn has_own_place(&self, vnode: VnodeId) -> bool {
        let half = self.cfg.channel_items_max.div_ceil(2);
        self.channels.map.get(&vnode).is_none_or(|c| c.share(&By::Own).items < half)
    }
}
