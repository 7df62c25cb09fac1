//! What a write did: each operation's result goes to whoever waits for it.

use std::fmt::Debug;

use bytes::Bytes;
use roost_backend::store::*;
use roost_proto::events::{message_bytes, numbered_bytes};
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, StreamId, UserId, VnodeId};
use roost_proto::records::ItemResult;

use crate::core::config::Rule;
use crate::core::homes::home::Phase;
use crate::core::homes::work::{Held, OfItem, Work, WriteInFlight};
use crate::core::keys::Now;
use crate::core::node::NodeCore;

/// What the operations of one write have in common; `event`: the number of the last one that was put into the outbox.
#[derive(Debug, Clone, Copy)]
struct Written {
    vnode: VnodeId,
    generation: Epoch,
    /// The vnode's clock then, in milliseconds.
    clock_ms: u64,
    event: Seq,
}

/// The model and the scripts answer each operation in its own way; a test holds them to that.
fn not_its_answer(asked: &dyn Debug, answer: &dyn Debug) -> ! {
    unreachable!("the store answered {answer:?} to {asked:?}")
}

impl NodeCore {
    /// Every operation of a write took effect, in order.
    pub(super) fn apply(
        &mut self,
        vnode: VnodeId,
        call: WriteInFlight,
        seq: Seq,
        results: Vec<OpResult>,
        now: Now,
    ) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        home.seq = seq;
        home.trimmed = home.trimmed.max(call.write.trim);
        home.looked = home.phase == Phase::Stopping;
        // What its acknowledgements cover was written before it.
        let need = if self.cfg.on(Rule::ConfirmAfterLog) { home.outbox.last() } else { Seq(0) };
        if home.receipts.done(need) {
            home.hold(need, Held::Receipts);
        }
        let (generation, clock_ms) = (home.generation, call.write.now_ms);
        let mut at = Written { vnode, generation, clock_ms, event: call.write.fence.seq };
        for (work, result) in call.work.into_iter().zip(results.into_iter().skip(call.acks)) {
            at.event.0 += work.emits(&result);
            match (work, result) {
                (Work::Item { item, op, arrived_us }, result) => {
                    self.item_done(at, item, op, result, arrived_us, now);
                }
                (Work::TimedOut { op, arrived_us }, result) => {
                    self.timeout_done(at, &op, result, arrived_us, now);
                }
                (Work::Member(_), OpResult::Member) => {}
                (Work::Undelivered { place, .. }, OpResult::Undelivered { message }) => {
                    self.report_done(at, &place, message);
                }
                (Work::Open { session, .. }, OpResult::Opened(opened)) => {
                    self.opened(vnode, session, opened, now);
                    if !self.cfg.on(Rule::TailWhenQuiet) {
                        self.located(session, now);
                    }
                    self.hold_result(vnode, Held::Opened { session });
                }
                (Work::Presence { op, replies }, OpResult::Presence { changed }) => {
                    if let Some(rest) = op.event.as_ref().filter(|_| changed) {
                        self.publish(at, EventTopic::Status, op.user.to_string(), rest);
                    }
                    self.hold_replies(vnode, replies);
                    self.presence_written(vnode, &op, now);
                }
                (work, result) => not_its_answer(&work, &result),
            }
        }
    }

    fn item_done(&mut self, at: Written, item: OfItem, op: Op, result: OpResult, arrived_us: u64, now: Now) {
        let vnode = at.vnode;
        let result = match (op, result) {
            (Op::Append(op), OpResult::Appended { offset }) => {
                let told = op.stream.is_room().then_some(Cursor::new(at.generation, offset));
                self.hold_at(at, Held::Result { item, result: ItemResult::Ok { at: op.at, cursor: told } });
                return self.appended(at, &op, offset, arrived_us, now);
            }
            (Op::Event(op), OpResult::Accepted) => {
                self.fx.count().events += 1;
                self.publish(at, EventTopic::Client, op.client.to_string(), &op.rest);
                self.event_is_out(at, &op);
                let result = ItemResult::Ok { at: op.at, cursor: None };
                return self.hold_at(at, Held::Result { item, result });
            }
            (Op::Event(op), OpResult::Duplicate { at: since, .. }) => {
                self.fx.count().duplicates += 1;
                // This very item, by a write whose answer was lost.
                if since == op.at {
                    self.event_is_out(at, &op);
                }
                ItemResult::Ok { at: since, cursor: None }
            }
            (Op::Append(op), OpResult::Duplicate { offset, at: since }) => {
                self.fx.count().duplicates += 1;
                let result = ItemResult::Ok { at: since, cursor: None };
                self.hold_result(vnode, Held::Result { item, result });
                return self.known(at, &op, offset, since, now);
            }
            (op, OpResult::Nobody) => {
                // Whose session is here is not in the store yet: to be said again.
                let here = matches!(&op, Op::Append(op) if self.is_here(vnode, &op.stream));
                if here { ItemResult::Void } else { ItemResult::Nobody }
            }
            (op, OpResult::Conflict) => {
                self.fx.count().conflicts += 1;
                if let (Op::Append(op), Some(home)) = (&op, self.homes.map.get_mut(&vnode)) {
                    home.close_ticket(op);
                }
                ItemResult::Conflict
            }
            (_, OpResult::Tail { tail, first }) => {
                ItemResult::Tail { tail: Cursor::new(at.generation, tail), first }
            }
            (op, result) => not_its_answer(&op, &result),
        };
        self.hold_result(vnode, Held::Result { item, result });
    }

    /// Nobody answered an event in time, or somebody did after all.
    fn timeout_done(&mut self, at: Written, op: &AppendOp, result: OpResult, arrived_us: u64, now: Now) {
        match result {
            OpResult::Appended { offset } => {
                self.fx.count().events_timed_out += 1;
                self.appended(at, op, offset, arrived_us, now);
            }
            OpResult::Duplicate { offset, at: since } => self.known(at, op, offset, since, now),
            _ => {
                if let Some(home) = self.homes.map.get_mut(&at.vnode) {
                    home.close_ticket(op);
                }
            }
        }
    }

    /// That a message was not acknowledged is reported, unless it was meanwhile.
    fn report_done(&mut self, at: Written, place: &InboxPosition, message: Option<Bytes>) {
        let Some(home) = self.homes.map.get_mut(&at.vnode) else { return };
        home.unacked.reported(place);
        if let Some(payload) = message {
            let (topic, key) = (EventTopic::Undelivered, place.0.to_string());
            home.outbox.push(OutboxEvent { seq: at.event, topic, key, payload });
            self.fx.count().undelivered += 1;
        }
    }

    /// An event goes out under its number.
    fn publish(&mut self, at: Written, topic: EventTopic, key: String, rest: &[u8]) {
        let Some(home) = self.homes.map.get_mut(&at.vnode) else { return };
        let payload = numbered_bytes(at.vnode, home.epoch, at.event, rest);
        home.outbox.push(OutboxEvent { seq: at.event, topic, key, payload });
    }

    fn event_is_out(&mut self, at: Written, op: &EventOp) {
        if let Some(home) = self.homes.map.get_mut(&at.vnode) {
            home.event_is_out(op, at.clock_ms);
        }
    }

    /// A message is in the store: its event goes out, and sessions are handed it.
    fn appended(&mut self, at: Written, op: &AppendOp, offset: Offset, arrived_us: u64, now: Now) {
        let Some(home) = self.homes.map.get_mut(&at.vnode) else { return };
        let cursor = Cursor::new(at.generation, offset);
        let payload = message_bytes(&op.stream, cursor, &op.rest);
        home.appended(op, cursor, at.clock_ms);
        home.close_ticket(op);
        let (topic, key) = (EventTopic::Chat, op.stream.to_string());
        home.outbox.push(OutboxEvent { seq: at.event, topic, key, payload: payload.clone() });
        self.fx.count().appended += 1;
        self.heard(at.vnode, op, now);
        self.deliver(at.vnode, &op.stream, cursor, &payload, arrived_us, now);
    }

    /// Who reads this was written to, and may answer as one who is known: receipts and results are nobody's word.
    fn heard(&mut self, vnode: VnodeId, op: &AppendOp, now: Now) {
        if self.is_here(vnode, &op.stream)
            && let (Some(user), Ok(from)) = (op.stream.user(), UserId::new(&op.from))
        {
            self.channels.shares_mut().heard(&user, &from, now.mono);
        }
    }

    /// Whether somebody reads this inbox here.
    fn is_here(&self, vnode: VnodeId, inbox: &StreamId) -> bool {
        !self.sessions.of(vnode, inbox).is_empty()
    }

    /// A message was in the store before, from this time on.
    fn known(&mut self, at: Written, op: &AppendOp, offset: Offset, since: u64, now: Now) {
        let cursor = Cursor::new(at.generation, offset);
        if let Some(home) = self.homes.map.get_mut(&at.vnode) {
            home.close_ticket(op);
            // This very one, by a write whose answer was lost.
            if since == op.at {
                home.appended(op, cursor, at.clock_ms);
            }
        }
        self.tail_is(at.vnode, &op.stream, cursor, now);
    }

    /// Told when this write's event is in the log (rule 13).
    fn hold_at(&mut self, at: Written, held: Held) {
        if let Some(home) = self.homes.map.get_mut(&at.vnode) {
            home.hold(at.event, held);
        }
    }

    /// Told when everything now in the outbox is in the log (rule 13).
    pub(super) fn hold_result(&mut self, vnode: VnodeId, held: Held) {
        if let Some(home) = self.homes.map.get_mut(&vnode) {
            let need = home.outbox.last();
            home.hold(need, held);
        }
    }
}
