//! What a write did: each operation's result goes to whoever waits for it.

use roost_backend::store::*;
use roost_proto::events::{message_bytes, numbered_bytes};
use roost_proto::ids::{Cursor, Offset, Seq, StreamId, VnodeId};
use roost_proto::records::ItemResult;

use crate::core::config::Rule;
use crate::core::homes::home::Phase;
use crate::core::homes::work::{Held, Work, WriteInFlight};
use crate::core::keys::Now;
use crate::core::node::NodeCore;

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
        let mut event = call.write.fence.seq;
        home.seq = seq;
        home.trimmed = home.trimmed.max(call.write.trim);
        home.looked = home.phase == Phase::Stopping;
        let owes = home.receipts.done();
        let (epoch, generation) = (home.epoch, home.generation);
        for (work, result) in call.work.into_iter().zip(results.into_iter().skip(call.acks)) {
            match (work, result) {
                (
                    Work::Item { sid, chan, n, op: Op::Append(op), arrived_us, .. },
                    OpResult::Appended { offset },
                ) => {
                    event.0 += 1;
                    let cursor_told = op.stream.is_room().then_some(Cursor::new(generation, offset));
                    let result = ItemResult::Ok { at: op.at, cursor: cursor_told };
                    let Some(home) = self.homes.map.get_mut(&vnode) else { return };
                    home.hold(event, Held::Result { sid, chan, n, result });
                    self.appended(vnode, &op, offset, event, (call.write.now_ms, arrived_us), now);
                }
                (Work::TimedOut { op, arrived_us, .. }, OpResult::Appended { offset }) => {
                    event.0 += 1;
                    self.fx.count().events_timed_out += 1;
                    self.appended(vnode, &op, offset, event, (call.write.now_ms, arrived_us), now);
                }
                (Work::Item { sid, chan, n, op: Op::Event(op), .. }, OpResult::Accepted) => {
                    event.0 += 1;
                    self.fx.count().events += 1;
                    let payload = numbered_bytes(vnode, epoch, event, &op.rest);
                    let (topic, key) = (EventTopic::Client, op.client.to_string());
                    let Some(home) = self.homes.map.get_mut(&vnode) else { return };
                    home.outbox.push(OutboxEvent { seq: event, topic, key, payload });
                    home.event_is_out(&op, call.write.now_ms);
                    let result = ItemResult::Ok { at: op.at, cursor: None };
                    home.hold(event, Held::Result { sid, chan, n, result });
                }
                (Work::Item { sid, chan, n, op: Op::Event(op), .. }, OpResult::Duplicate { at, .. }) => {
                    self.fx.count().duplicates += 1;
                    // This very item, by a write whose answer was lost.
                    if let Some(home) = self.homes.map.get_mut(&vnode).filter(|_| at == op.at) {
                        home.event_is_out(&op, call.write.now_ms);
                    }
                    let result = ItemResult::Ok { at, cursor: None };
                    self.hold_result(vnode, Held::Result { sid, chan, n, result });
                }
                (Work::Item { sid, chan, n, op, .. }, OpResult::Nobody) => {
                    // Whose session is here is not in the store yet: to be said again.
                    let here = matches!(&op, Op::Append(op) if self.is_here(vnode, &op.stream));
                    let result = if here { ItemResult::Void } else { ItemResult::Nobody };
                    self.hold_result(vnode, Held::Result { sid, chan, n, result });
                }
                (Work::Item { sid, chan, n, op: Op::Append(op), .. }, OpResult::Duplicate { offset, at }) => {
                    self.fx.count().duplicates += 1;
                    self.hold_result(
                        vnode,
                        Held::Result { sid, chan, n, result: ItemResult::Ok { at, cursor: None } },
                    );
                    self.known(vnode, &op, Cursor::new(generation, offset), at, call.write.now_ms, now);
                }
                (Work::TimedOut { op, .. }, OpResult::Duplicate { offset, at }) => {
                    self.known(vnode, &op, Cursor::new(generation, offset), at, call.write.now_ms, now);
                }
                // Somebody answered before.
                (Work::TimedOut { op, .. }, _) => {
                    let Some(home) = self.homes.map.get_mut(&vnode) else { return };
                    home.close_ticket(&op);
                }
                (Work::Item { sid, chan, n, op, .. }, OpResult::Conflict) => {
                    self.fx.count().conflicts += 1;
                    if let (Op::Append(op), Some(home)) = (&op, self.homes.map.get_mut(&vnode)) {
                        home.close_ticket(op);
                    }
                    self.hold_result(vnode, Held::Result { sid, chan, n, result: ItemResult::Conflict });
                }
                (Work::Item { sid, chan, n, .. }, OpResult::Tail { tail, first }) => {
                    let tail = Cursor::new(generation, tail);
                    self.hold_result(
                        vnode,
                        Held::Result { sid, chan, n, result: ItemResult::Tail { tail, first } },
                    );
                }
                (Work::Member(_), OpResult::Member) => {}
                (Work::Undelivered { place }, OpResult::Undelivered { message }) => {
                    let Some(home) = self.homes.map.get_mut(&vnode) else { return };
                    home.due.reported(&place);
                    if let Some(payload) = message {
                        event.0 += 1;
                        let (topic, key) = (EventTopic::Undelivered, place.0.to_string());
                        home.outbox.push(OutboxEvent { seq: event, topic, key, payload });
                        self.fx.count().undelivered += 1;
                    }
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
                        event.0 += 1;
                        let payload = numbered_bytes(vnode, epoch, event, rest);
                        let (topic, key) = (EventTopic::Status, op.user.to_string());
                        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
                        home.outbox.push(OutboxEvent { seq: event, topic, key, payload });
                    }
                    self.hold_replies(vnode, replies);
                    self.presence_written(vnode, &op, now);
                }
                (work, result) => unreachable!("the store answered {result:?} to {work:?}"),
            }
        }
        if owes {
            self.pay(vnode, now);
        }
    }

    /// A message is in the store: its event goes out, and sessions are handed it. `times`: the vnode's clock, and when it
    /// arrived in microseconds.
    pub(in crate::core) fn appended(
        &mut self,
        vnode: VnodeId,
        op: &AppendOp,
        offset: Offset,
        event: Seq,
        (clock_ms, arrived_us): (u64, u64),
        now: Now,
    ) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        let cursor = Cursor::new(home.generation, offset);
        let payload = message_bytes(&op.stream, cursor, &op.rest);
        home.appended(op, cursor, clock_ms);
        home.close_ticket(op);
        let (topic, key) = (EventTopic::Chat, op.stream.to_string());
        home.outbox.push(OutboxEvent { seq: event, topic, key, payload: payload.clone() });
        self.fx.count().appended += 1;
        self.deliver(vnode, &op.stream, cursor, &payload, arrived_us, now);
    }

    /// Whether somebody reads this inbox here.
    fn is_here(&self, vnode: VnodeId, inbox: &StreamId) -> bool {
        !self.sessions.of(vnode, inbox).is_empty()
    }

    /// A message was in the store before, from this time on.
    pub(in crate::core) fn known(
        &mut self,
        vnode: VnodeId,
        op: &AppendOp,
        cursor: Cursor,
        at: u64,
        clock_ms: u64,
        now: Now,
    ) {
        if let Some(home) = self.homes.map.get_mut(&vnode) {
            home.close_ticket(op);
            // This very one, by a write whose answer was lost.
            if at == op.at {
                home.appended(op, cursor, clock_ms);
            }
        }
        self.tail_is(vnode, &op.stream, cursor, now);
    }

    /// Told when everything now in the outbox is in the log (rule 13).
    pub(super) fn hold_result(&mut self, vnode: VnodeId, held: Held) {
        if let Some(home) = self.homes.map.get_mut(&vnode) {
            let need = home.outbox.last();
            home.hold(need, held);
        }
    }
}
