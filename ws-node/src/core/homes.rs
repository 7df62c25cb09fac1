//! The vnodes that live here: items come in, writes go out, answers and reports come back (rules 8–15, 18).

use roost_backend::log::{Lane, Outgoing};
use roost_backend::store::*;
use roost_proto::events::{
    CHAT_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS, message_bytes, numbered_bytes,
};
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, Sid, StreamId, VnodeId};
use roost_proto::records::{Confirm, Item, ItemBody, ItemResult, Probe, Record, Said};

use super::ask::Ask;
use super::config::Rule;
use super::events::{Maybe, Now, Observation};
use super::home::{Call, Held, Home, Phase, Work};
use super::kept::Who;
use super::message::{append_op, event_op};
use super::{Action, NodeCore, Token};

/// First wait before a write of unknown outcome is tried again, doubled up to the second, in milliseconds.
const WRITE_AGAIN_MS: u64 = 50;
const WRITE_AGAIN_MAX_MS: u64 = 1000;

/// How often every user of every home is looked at: the precision of linger and grace, in milliseconds.
pub(super) const SWEEP_MS: u64 = 250;

/// A sid that began so long ago and is in no table was forgotten, in milliseconds: half a day. Rows stay for a day at
/// least after their node is gone, and the clocks that give a sid its birth may be hours apart.
const FORGOTTEN_MS: u64 = 43_200_000;

impl NodeCore {
    /// A sid that is in no table may be just starting; but if it began long ago, it was forgotten, and its tombstone
    /// with it (rule 21): what comes of it now waited in a process that slept.
    fn is_forgotten(&self, sid: &Sid, now: Now) -> bool {
        let began_long_ago = now.wall > sid.born() + FORGOTTEN_MS;
        began_long_ago && !self.view.nodes.contains_key(&sid.node()) && self.cfg.on(Rule::Forgotten)
    }

    /// Rules 8, 9, 14, 15.
    pub(super) fn on_item(&mut self, item: Item, now: Now) {
        let channel = &item.channel;
        let vnode = channel.vnode;
        let ended = self.view.ended(&channel.sid) || self.is_forgotten(&channel.sid, now);
        let Some(home) = self.homes.get_mut(&vnode).filter(|h| h.epoch == channel.epoch && !ended) else {
            self.counters.void_records += 1;
            return;
        };
        let (takes, room) = (home.takes_items(), home.has_room(&self.cfg));
        let Some(sender) = home.sender(channel) else { return };
        // Only what this very channel says: a late record of an earlier one counted other items.
        sender.prune(item.acked);
        sender.seen = sender.seen.max(item.n);
        let expected = sender.last + 1;
        let skip = !self.cfg.on(Rule::NextOnly) && item.n > expected;
        if !takes {
            return;
        }
        if item.n < expected {
            sender.repeat();
        } else if !room {
            sender.dropped = true;
        } else if item.n > expected && !skip {
            sender.gap();
        } else {
            let body = item.body.as_ref().map(|b| serde_json::from_str::<ItemBody>(b.get()));
            match body {
                None => sender.take(item.n, Some(ItemResult::Void)),
                Some(Err(_)) => {
                    self.counters.undecodable += 1;
                    sender.take(item.n, Some(ItemResult::Bad));
                }
                Some(Ok(ItemBody::Here(here))) => {
                    sender.take(item.n, Some(ItemResult::Noted));
                    let sid = channel.sid.clone();
                    self.on_here(vnode, &sid, here, now);
                }
                Some(Ok(ItemBody::Said(said))) => {
                    sender.take(item.n, Some(ItemResult::Noted));
                    for Said { user, device, acked, read, quiet } in said {
                        let said = super::session::Said { acked, read };
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
        self.dirty.insert(vnode);
    }

    /// A sender heard nothing for a while (rule 3).
    pub(super) fn on_probe(&mut self, probe: &Probe) {
        let channel = &probe.channel;
        let undecodable = self.counters.undecodable;
        let Some(home) = self.homes.get_mut(&channel.vnode) else { return };
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
            let to = channel.sid.node();
            self.transport(&to, channel.vnode, Record::Confirm(confirm), Token::Other);
        }
        self.dirty.insert(channel.vnode);
    }

    pub(super) fn on_undecodable(&mut self) {
        self.counters.undecodable += 1;
    }

    /// What a home does after anything about it changed: write, emit, tell.
    pub(super) fn settle_home(&mut self, vnode: VnodeId, now: Now) {
        if self.homes.get(&vnode).is_some_and(|home| home.wants_to_write(now)) && self.writes.may(vnode) {
            self.write(vnode, now);
        }
        self.emit(vnode, now);
        self.ask_ready(vnode, now);
        self.tell(vnode, now);
        self.release_if_done(vnode, now);
    }

    /// Sends the next write of a vnode, if there is one.
    pub(super) fn write(&mut self, vnode: VnodeId, now: Now) {
        let (next_call, sid) = (self.next_call, self.sid.clone());
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        if let Some(write) = home.next_write(&sid, &self.cfg, now, next_call) {
            self.next_call += 1;
            self.counters.writes += 1;
            self.writes.begin(next_call, write.size());
            self.out.push(Action::Ask(Ask::Write { call: next_call, write: Box::new(write) }));
        }
    }

    /// Hands new outbox events to the producer, in order (rule 12).
    pub(super) fn emit(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let epoch = home.epoch;
        let mut outbox = std::mem::take(&mut home.outbox);
        self.emit_from(&mut outbox, vnode, epoch, now);
        if let Some(home) = self.homes.get_mut(&vnode) {
            home.outbox = outbox;
        }
    }

    pub(super) fn emit_leftovers(&mut self, now: Now) {
        let mut leftovers = std::mem::take(&mut self.leftovers);
        for ((vnode, epoch), outbox) in &mut leftovers {
            self.emit_from(outbox, *vnode, *epoch, now);
        }
        self.leftovers = leftovers;
    }

    fn emit_from(&mut self, outbox: &mut super::outbox::Outbox, vnode: VnodeId, epoch: Epoch, now: Now) {
        while let Some(event) = outbox.next(now.mono) {
            let topic = match event.topic {
                EventTopic::Chat => CHAT_EVENTS,
                EventTopic::Status => USER_STATUS_EVENTS,
                EventTopic::Undelivered => UNDELIVERED_EVENTS,
                EventTopic::Client => CLIENT_EVENTS,
            };
            let (key, payload) = (event.key.clone().into(), event.payload.clone());
            let token = self.next_token;
            self.next_token += 1;
            self.tokens.insert(token, Token::Event { vnode, epoch, seq: event.seq.0 });
            let partition = self.cfg.partition(vnode);
            let record = Outgoing { topic: topic.into(), partition, key, payload, token };
            self.out.push(Action::Produce { lane: Lane::Outbox, record });
        }
    }

    /// A delivery report.
    pub(super) fn on_reported(&mut self, token: u64, ok: bool, now: Now) {
        match self.tokens.remove(&token) {
            Some(Token::Item { vnode, chan, round, n }) => self.item_reported(vnode, chan, round, n, ok, now),
            Some(Token::Event { vnode, epoch, seq }) => {
                if let Some(home) = self.homes.get_mut(&vnode).filter(|h| h.epoch == epoch) {
                    if home.outbox.report(Seq(seq), ok, now.mono) {
                        home.reported_at = now.mono;
                    }
                    self.dirty.insert(vnode);
                } else if let Some(outbox) = self.leftovers.get_mut(&(vnode, epoch)) {
                    outbox.report(Seq(seq), ok, now.mono);
                    if outbox.is_empty() {
                        self.leftovers.remove(&(vnode, epoch));
                    }
                }
            }
            Some(Token::Told { call }) => self.told(call, ok),
            Some(Token::Refused { result }) => self.refusal_reported(result, ok, now),
            Some(Token::Other) | None => {}
        }
    }

    /// Sends what the log's progress allows to be told.
    fn tell(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        if !home.leased(now) {
            return;
        }
        for held in home.release_held(&self.cfg) {
            match held {
                Held::Result { sid, chan, n, result } => {
                    let sender = self.homes.get_mut(&vnode).and_then(|h| h.senders.get_mut(&sid));
                    if let Some(sender) = sender.filter(|s| s.chan == chan) {
                        sender.set(n, result);
                    }
                }
                Held::Opened { session } => self.located(session, now),
                Held::Reply { session, id, ok } => self.reply_ok(session, id.as_str(), ok),
            }
        }
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        for confirm in home.confirms(&self.cfg, now) {
            self.counters.confirms += 1;
            self.counters.asks += u64::from(confirm.ask.is_some());
            let to = confirm.channel.sid.node();
            self.transport(&to, vnode, Record::Confirm(confirm), Token::Other);
        }
    }

    /// The answer to a write (rule 18).
    pub(super) fn on_written(&mut self, vnode: VnodeId, call: u64, answer: Maybe<WriteAnswer>, now: Now) {
        self.writes.end(call, answer.is_some());
        if self.open_write_answered(vnode, call, answer.as_ref(), now) {
            return;
        }
        let is_it = |h: &&mut Home| h.call.as_ref().is_some_and(|c| c.id == call);
        let Some(home) = self.homes.get_mut(&vnode).filter(is_it) else { return };
        self.dirty.insert(vnode);
        match answer {
            None => {
                self.counters.writes_unknown += 1;
                if let Some(call) = &mut home.call {
                    let wait = (WRITE_AGAIN_MS << call.tries.min(8)).min(WRITE_AGAIN_MAX_MS);
                    (call.again_at, call.tries) = (Some(now.mono + wait), call.tries + 1);
                }
            }
            // Its data answers: the lease is renewed, and the write is tried again. One that stops is not kept by it.
            Some(WriteAnswer::Refused) => {
                self.counters.writes_unknown += 1;
                let stops = home.phase == Phase::Stopping;
                if let Some(call) = &mut home.call {
                    call.again_at = Some(now.mono + WRITE_AGAIN_MAX_MS);
                    call.since = if stops { call.since } else { now.mono };
                }
            }
            Some(WriteAnswer::Done { seq, results }) => {
                let Some(call) = home.call.take() else { return };
                home.has_written(&call);
                self.out.push(Action::Observe(Observation::Append, now.us.saturating_sub(call.sent_us)));
                self.apply(vnode, call, seq, results, now);
            }
            Some(WriteAnswer::Behind { seq, outbox }) => {
                home.catch_up(seq, outbox);
                if let Some(call) = &mut home.call {
                    call.again_at = Some(now.mono);
                }
                self.look_again(vnode, now);
            }
            Some(WriteAnswer::Deposed) => {
                self.counters.writes_fenced += 1;
                self.refresh(now);
                self.end_home(vnode, now);
            }
            Some(WriteAnswer::Lost | WriteAnswer::Rewound) => {
                self.counters.writes_fenced += 1;
                self.claim_again(vnode, true, now);
            }
        }
    }

    /// Every operation of a write took effect, in order.
    fn apply(&mut self, vnode: VnodeId, call: Call, seq: Seq, results: Vec<OpResult>, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
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
                    let Some(home) = self.homes.get_mut(&vnode) else { return };
                    home.hold(event, Held::Result { sid, chan, n, result });
                    self.appended(vnode, &op, offset, event, (call.write.now_ms, arrived_us), now);
                }
                (Work::TimedOut { op, arrived_us, .. }, OpResult::Appended { offset }) => {
                    event.0 += 1;
                    self.counters.events_timed_out += 1;
                    self.appended(vnode, &op, offset, event, (call.write.now_ms, arrived_us), now);
                }
                (Work::Item { sid, chan, n, op: Op::Event(op), .. }, OpResult::Accepted) => {
                    event.0 += 1;
                    self.counters.events += 1;
                    let payload = numbered_bytes(vnode, epoch, event, &op.rest);
                    let (topic, key) = (EventTopic::Client, op.client.to_string());
                    let Some(home) = self.homes.get_mut(&vnode) else { return };
                    home.outbox.push(OutboxEvent { seq: event, topic, key, payload });
                    home.event_is_out(&op, call.write.now_ms);
                    let result = ItemResult::Ok { at: op.at, cursor: None };
                    home.hold(event, Held::Result { sid, chan, n, result });
                }
                (Work::Item { sid, chan, n, op: Op::Event(op), .. }, OpResult::Duplicate { at, .. }) => {
                    self.counters.duplicates += 1;
                    // This very item, by a write whose answer was lost.
                    if let Some(home) = self.homes.get_mut(&vnode).filter(|_| at == op.at) {
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
                    self.counters.duplicates += 1;
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
                    let Some(home) = self.homes.get_mut(&vnode) else { return };
                    home.close_ticket(&op);
                }
                (Work::Item { sid, chan, n, op, .. }, OpResult::Conflict) => {
                    self.counters.conflicts += 1;
                    if let (Op::Append(op), Some(home)) = (&op, self.homes.get_mut(&vnode)) {
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
                    let Some(home) = self.homes.get_mut(&vnode) else { return };
                    home.due.reported(&place);
                    if let Some(payload) = message {
                        event.0 += 1;
                        let (topic, key) = (EventTopic::Undelivered, place.0.to_string());
                        home.outbox.push(OutboxEvent { seq: event, topic, key, payload });
                        self.counters.undelivered += 1;
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
                        let Some(home) = self.homes.get_mut(&vnode) else { return };
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
    fn appended(
        &mut self,
        vnode: VnodeId,
        op: &AppendOp,
        offset: Offset,
        event: Seq,
        (clock_ms, arrived_us): (u64, u64),
        now: Now,
    ) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let cursor = Cursor::new(home.generation, offset);
        let payload = message_bytes(&op.stream, cursor, &op.rest);
        home.appended(op, cursor, clock_ms);
        home.close_ticket(op);
        let (topic, key) = (EventTopic::Chat, op.stream.to_string());
        home.outbox.push(OutboxEvent { seq: event, topic, key, payload: payload.clone() });
        self.counters.appended += 1;
        self.deliver(vnode, &op.stream, cursor, &payload, arrived_us, now);
    }

    /// Whether somebody reads this inbox here.
    fn is_here(&self, vnode: VnodeId, inbox: &StreamId) -> bool {
        self.by_vnode.get(&vnode).is_some_and(|streams| streams.contains_key(inbox))
    }

    /// A message was in the store before, from this time on.
    fn known(&mut self, vnode: VnodeId, op: &AppendOp, cursor: Cursor, at: u64, clock_ms: u64, now: Now) {
        if let Some(home) = self.homes.get_mut(&vnode) {
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
        if let Some(home) = self.homes.get_mut(&vnode) {
            let need = home.outbox.last();
            home.hold(need, held);
        }
    }

    pub(super) fn tick_homes(&mut self, now: Now) {
        let sweep = now.mono >= self.swept_at + SWEEP_MS;
        if sweep {
            self.swept_at = now.mono;
        }
        for vnode in self.homes.keys().copied().collect::<Vec<_>>() {
            self.ask_again(vnode, now);
            let Some(home) = self.homes.get_mut(&vnode) else { continue };
            let suspended = home.phase != Phase::Activating && !home.leased(now);
            if suspended && !home.suspended {
                self.counters.suspensions += 1;
            }
            home.suspended = suspended;
            let over = home.lease_until + self.cfg.grace_ms;
            if sweep {
                let view = &self.view;
                home.senders.retain(|sid, _| !view.ended(sid));
            }
            let cut_off = self.no_log_since.is_some_and(|at| now.mono >= at + self.cfg.grace_ms);
            if suspended && cut_off && now.mono >= over {
                self.give_up_sessions(vnode, now);
            }
            self.dirty.insert(vnode);
            if sweep {
                self.sweep_presence(vnode, now);
                self.sweep_members(vnode, now);
                self.sweep_due(vnode, now);
                self.sweep_receipts(vnode, now);
                self.sweep_tickets(vnode, now);
            }
        }
        self.emit_leftovers(now);
    }
}
