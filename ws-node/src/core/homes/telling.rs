//! Events go out to the log, and what its reports allow to be told is told (rules 12, 13).

use roost_backend::log::{Durability, Outgoing};
use roost_backend::store::*;
use roost_proto::events::{CHAT_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS};
use roost_proto::frames::Empty;
use roost_proto::ids::{Epoch, Seq, Sid, VnodeId};

use crate::core::actions::Action;
use crate::core::effects::Token;
use crate::core::homes::outbox::Outbox;
use crate::core::homes::work::{Held, OfItem};
use crate::core::keys::Now;
use crate::core::node::NodeCore;

impl NodeCore {
    /// Hands new outbox events to the producer, in order (rule 12).
    pub(in crate::core) fn emit(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        let epoch = home.epoch;
        let mut outbox = std::mem::take(&mut home.outbox);
        self.emit_from(&mut outbox, vnode, epoch, now);
        if let Some(home) = self.homes.map.get_mut(&vnode) {
            home.outbox = outbox;
        }
    }

    pub(in crate::core) fn emit_draining(&mut self, now: Now) {
        let mut draining_outboxes = std::mem::take(&mut self.homes.draining_outboxes);
        for ((vnode, epoch), outbox) in &mut draining_outboxes {
            self.emit_from(outbox, *vnode, *epoch, now);
        }
        self.homes.draining_outboxes = draining_outboxes;
    }

    fn emit_from(&mut self, outbox: &mut Outbox, vnode: VnodeId, epoch: Epoch, now: Now) {
        while let Some(event) = outbox.next(now.mono) {
            let topic = match event.topic {
                EventTopic::Chat => CHAT_EVENTS,
                EventTopic::Status => USER_STATUS_EVENTS,
                EventTopic::Undelivered => UNDELIVERED_EVENTS,
                EventTopic::Client => CLIENT_EVENTS,
            };
            let (key, payload) = (event.key.clone().into(), event.payload.clone());
            let token = self.fx.token(Token::Event { vnode, epoch, seq: event.seq.0 });
            let partition = self.cfg.partition(vnode);
            let record = Outgoing { topic: topic.into(), partition, key, payload, token };
            self.fx.push(Action::Produce { durability: Durability::Outbox, record });
        }
    }

    /// A delivery report.
    pub(in crate::core) fn on_reported(&mut self, token: u64, ok: bool, now: Now) {
        match self.fx.reported(token) {
            Some(Token::Bundle { to, of }) => self.bundle_reported(token, &to, of, ok, now),
            Some(one) => self.record_reported(one, ok, now),
            None => {}
        }
    }

    pub(in crate::core) fn record_reported(&mut self, token: Token, ok: bool, now: Now) {
        match token {
            Token::Item { vnode, chan, round, n } => self.item_reported(vnode, chan, round, n, ok, now),
            Token::Event { vnode, epoch, seq } => {
                if let Some(home) = self.homes.map.get_mut(&vnode).filter(|h| h.epoch == epoch) {
                    if home.outbox.report(Seq(seq), ok, now.mono) {
                        home.reported_at = now.mono;
                    }
                    self.fx.touch(vnode);
                } else if let Some(outbox) = self.homes.draining_outboxes.get_mut(&(vnode, epoch)) {
                    outbox.report(Seq(seq), ok, now.mono);
                    if outbox.is_empty() {
                        self.homes.draining_outboxes.remove(&(vnode, epoch));
                    }
                }
            }
            Token::Told { call } => self.told(call, ok),
            Token::Refused { result } => self.refusal_reported(result, ok, now),
            // A bundle holds none.
            Token::Other | Token::Bundle { .. } => {}
        }
    }

    /// Sends what the log's progress allows to be told.
    pub(super) fn tell(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        if !home.leased(now) {
            return;
        }
        for held in home.release_held(&self.cfg) {
            match held {
                Held::Result { item: OfItem { sid, chan, n }, result } => {
                    let sender = self.homes.map.get_mut(&vnode).and_then(|h| h.senders.get_mut(&sid));
                    if let Some(sender) = sender.filter(|s| s.chan == chan) {
                        sender.set(n, result);
                    }
                }
                Held::Opened { session } => self.located(session, now),
                Held::Reply { session, id } => self.reply_ok(session, id.as_str(), &Empty {}),
                Held::Receipts => self.send_receipts(vnode, now),
            }
        }
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        for (confirm, was_asked) in home.confirms(&self.cfg, now) {
            self.fx.count().confirms += 1;
            self.fx.count().asks += u64::from(confirm.ask.is_some());
            self.transport_confirm(confirm, was_asked, now);
        }
    }

    /// A sender was told something by the link.
    pub(in crate::core) fn told_by_link(&mut self, vnode: VnodeId, sid: &Sid, now: Now) {
        let home = self.homes.map.get_mut(&vnode);
        if let Some(sender) = home.and_then(|home| home.senders.get_mut(sid)) {
            sender.tell_by_link(now.mono);
        }
    }

    /// The link to a life of a node ended: what its channels were told by it lately is told again.
    pub(in crate::core) fn confirm_again(&mut self, sid: &Sid, now: Now) {
        for (vnode, home) in &mut self.homes.map {
            if home.senders.get_mut(sid).is_some_and(|sender| sender.link_ended(now.mono)) {
                self.fx.touch(*vnode);
            }
        }
    }
}
