//! One vnode that lives here: what senders have given, the one write in flight, what waits for the log
//! (rules 8–15).

use std::collections::{BTreeMap, VecDeque};

use roost_backend::store::{AppendOp, Closes, DataSet, EventOp, Fence, Op, OutboxEvent, Ticket, Write};
use roost_proto::events::StatusCause;
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{Cursor, DeviceId, Epoch, MessageId, Seq, Sid, UserId, VnodeId};
use roost_proto::records::{ChannelId, Confirm, Item};

use crate::core::config::{CoreConfig, Rule};
use crate::core::homes::members::HomeRooms;
use crate::core::homes::outbox::Outbox;
use crate::core::homes::presence::UserPresence;
use crate::core::homes::receipts::{Became, HomeReceipts};
use crate::core::homes::sender::Sender;
use crate::core::homes::tickets::HomeTickets;
use crate::core::homes::unacked::Unacked;
use crate::core::homes::work::{Held, OfItem, Work, WriteInFlight};
use crate::core::keys::{Now, SessionKey};
use crate::core::said::{SaidUpTo, Who};

/// How far the vnode's takeover has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The row is ours; the head is not raised yet.
    Activating,
    /// The inherited outbox is on its way to the log; then the row is set ready (rule 17).
    Inheriting,
    Ready,
    /// Being handed over: nothing new, the outbox empties.
    Stopping,
    /// Handed over; the store's answer is awaited.
    Releasing,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Home {
    pub(super) vnode: VnodeId,
    pub(super) epoch: Epoch,
    pub(super) phase: Phase,
    pub(super) generation: Epoch,
    pub(super) seq: Seq,
    /// The data it was activated under.
    pub(super) data_set: DataSet,
    /// The vnode's clock when the head was raised, and the monotonic one at that moment (rule 11).
    clock: (u64, u64),
    /// On the monotonic clock; counted from before the request that earned it was sent.
    pub(super) lease_until: u64,
    pub(super) suspended: bool,
    pub(super) previous: Option<Sid>,
    pub(super) asked_at: Option<u64>,
    pub(super) queue: VecDeque<Work>,
    /// Of the items in it.
    queued_bytes: usize,
    /// When it was claimed, on the monotonic clock.
    claimed_at: u64,
    pub(super) acks: BTreeMap<Who, Cursor>,
    /// How far users have read.
    reads: BTreeMap<Who, Cursor>,
    /// What was taken of both into writes, until all that follows from it is in the store.
    said: BTreeMap<Who, SaidUpTo>,
    /// When acks and the like are written even if nothing else is.
    write_at: Option<u64>,
    pub(super) call: Option<WriteInFlight>,
    /// Since when it has something to write and it is others' turn, on the monotonic clock.
    waits_since: Option<u64>,
    pub(super) outbox: Outbox,
    pub(super) senders: BTreeMap<Sid, Sender>,
    pub(super) held: VecDeque<(Seq, Held)>,
    pub(super) members: BTreeMap<UserId, UserPresence>,
    pub(super) rooms: HomeRooms,
    pub(super) unacked: Unacked,
    pub(super) receipts: HomeReceipts,
    pub(super) tickets: HomeTickets,
    /// Outbox events up to here are gone from the store.
    pub(super) trimmed: Seq,
    /// Since it is stopping, a write was answered: its data have not gone back unnoticed (rule 17).
    pub(super) looked: bool,
    pub(super) reported_at: u64,
}

/// An idle vnode's outbox is trimmed in the store this long after the last report, in milliseconds: later than
/// the next message of a conversation, so that trimming rides on it.
const TRIM_IDLE_MS: u64 = 1000;

/// Of the items that wait for a write, and of the events that wait for the log, in bytes; and of one write, which some
/// 2 ms in the store are.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

const OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;

const WRITE_BYTES_MAX: usize = 256 * 1024;

/// How long an ack waits for a write to ride on, in milliseconds.
const ACK_WAIT_MS: u64 = 200;

impl Home {
    pub(crate) fn claimed(vnode: VnodeId, epoch: Epoch, lease_until: u64, now: Now) -> Self {
        Self {
            vnode,
            epoch,
            phase: Phase::Activating,
            generation: Epoch(0),
            seq: Seq(0),
            data_set: DataSet::default(),
            clock: (0, 0),
            lease_until,
            suspended: false,
            previous: None,
            asked_at: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            claimed_at: now.mono,
            acks: BTreeMap::new(),
            reads: BTreeMap::new(),
            said: BTreeMap::new(),
            write_at: None,
            call: None,
            waits_since: None,
            outbox: Outbox::default(),
            senders: BTreeMap::new(),
            held: VecDeque::new(),
            members: BTreeMap::new(),
            rooms: HomeRooms::default(),
            unacked: Unacked::default(),
            receipts: HomeReceipts::default(),
            tickets: HomeTickets::default(),
            trimmed: Seq(0),
            looked: false,
            reported_at: 0,
        }
    }

    /// Whether its data has not answered for a lease: then it is not renewed, since a renewal goes another way and
    /// proves nothing; when the lease is over it is claimed anew. One that waits for its turn, behind writes that are
    /// not answered, has heard of no data either, but for answers to others, the last of which came at `answered_at`.
    pub(super) fn is_silent(&self, cfg: &CoreConfig, answered_at: u64, now: Now) -> bool {
        let since = match (&self.call, self.phase) {
            (Some(call), _) => call.since,
            (None, Phase::Activating) => self.claimed_at,
            (None, _) => match self.waits_since {
                Some(since) => since.max(answered_at),
                None => return false,
            },
        };
        now.mono >= since + cfg.lease_ttl_ms
    }

    /// It has something to write, and it is others' turn.
    pub(super) fn waits_to_write(&mut self, now: Now) {
        self.waits_since.get_or_insert(now.mono);
    }

    pub(crate) fn vnode(&self) -> VnodeId {
        self.vnode
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn generation(&self) -> Epoch {
        self.generation
    }

    /// Where its data is: generation and seq.
    pub(crate) fn stands_at(&self) -> (Epoch, Seq) {
        (self.generation, self.seq)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The write that is under way, or whose answer was lost.
    pub(crate) fn open_write(&self) -> Option<&Write> {
        self.call.as_ref().map(|call| &call.write)
    }

    /// Until when it may answer, on the monotonic clock.
    pub(crate) fn lease_until(&self) -> u64 {
        self.lease_until
    }

    pub(crate) fn lease_left_ms(&self, now: Now) -> u64 {
        self.lease_until.saturating_sub(now.mono)
    }

    /// A renewal was answered.
    pub(crate) fn extend_lease(&mut self, until: u64) {
        self.lease_until = self.lease_until.max(until);
    }

    /// When the store was last asked for its next phase and has not answered, on the monotonic clock.
    pub(crate) fn asked_at(&self) -> Option<u64> {
        self.asked_at
    }

    pub(crate) fn asked(&mut self, at: Option<u64>) {
        self.asked_at = at;
    }

    /// Who had the vnode before.
    pub(crate) fn previous(&self) -> Option<&Sid> {
        self.previous.as_ref()
    }

    /// What a user chose to show, if the user is known here.
    pub(crate) fn chosen(&self, user: &UserId) -> Option<ChosenStatus> {
        self.members.get(user).map(|member| member.chosen)
    }

    /// Whether one more event of a client may wait for a result, with so many on their way here.
    pub(crate) fn has_room_for_event(&self, client: &UserId, coming: usize) -> bool {
        self.tickets.has_room(client, coming)
    }

    /// Takes a session that waits; whoever asks has seen that there is room.
    pub(crate) fn open(&mut self, session: SessionKey, user: UserId, device: Option<DeviceId>) {
        self.queue.push_back(Work::Open { session, user, device });
    }

    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Its outbox, which outlives it.
    pub(crate) fn take_outbox(&mut self) -> Outbox {
        std::mem::take(&mut self.outbox)
    }

    /// The inherited outbox is in the log.
    pub(crate) fn is_out(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Handed over: nothing new. Who waits for something that will not be done here is returned.
    pub(crate) fn stop(&mut self) -> Vec<(SessionKey, MessageId)> {
        self.phase = Phase::Stopping;
        self.drop_work()
    }

    /// Nothing is in flight and nothing left for the log: it may give its row up.
    pub(crate) fn is_done(&self, now: Now) -> bool {
        let quiet = self.call.is_none() && self.outbox.is_empty() && self.held.is_empty();
        // Without a lease nothing is written any more, and nothing is asked.
        let looked = self.looked || !self.leased(now);
        let trimmed = self.trimmed >= self.outbox.reported();
        self.phase == Phase::Stopping && quiet && self.all_acks_are_taken() && looked && trimmed
    }

    /// The row is given up.
    pub(crate) fn release(&mut self, now: Now) {
        self.phase = Phase::Releasing;
        self.asked_at = Some(now.mono);
    }

    /// Clients may come, and those have until `grace` whom the last home had: the inherited outbox may have waited for
    /// the log longer than the grace.
    pub(crate) fn ready(&mut self, grace: u64) {
        self.phase = Phase::Ready;
        for (at, cause) in self.members.values_mut().filter_map(|m| m.due.as_mut()) {
            if *cause == StatusCause::Lost {
                *at = grace;
            }
        }
        self.rooms.ready(grace);
        self.unacked.ready(grace);
    }

    pub(crate) fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// The vnode's clock begins at the first owner's wall clock; from then on no wall clock has a part in it.
    pub(crate) fn set_clock(&mut self, clock_ms: u64, now: Now) {
        self.clock = (if clock_ms == 0 { now.wall } else { clock_ms }, now.mono);
    }

    pub(crate) fn clock_ms(&self, cfg: &CoreConfig, now: Now) -> u64 {
        let (began, at) = self.clock;
        if cfg.on(Rule::IdsByOwnTime) { began + (now.mono - at) } else { now.wall }
    }

    pub(crate) fn leased(&self, now: Now) -> bool {
        now.mono < self.lease_until
    }

    /// Whether it takes sessions and answers.
    pub(crate) fn serving(&self, now: Now) -> bool {
        self.phase == Phase::Ready && self.leased(now)
    }

    /// The activated phases: items are taken.
    pub(crate) fn takes_items(&self) -> bool {
        matches!(self.phase, Phase::Inheriting | Phase::Ready)
    }

    pub(crate) fn sender(&mut self, channel: &ChannelId) -> Option<&mut Sender> {
        let sender = self.senders.entry(channel.sid.clone()).or_insert_with(|| Sender::of(channel.chan));
        if channel.chan > sender.chan {
            *sender = Sender::of(channel.chan);
        }
        if channel.chan < sender.chan {
            return None;
        }
        sender.round = sender.round.max(channel.round);
        Some(sender)
    }

    pub(crate) fn has_room(&self, cfg: &CoreConfig) -> bool {
        let few = self.queue.len() < cfg.queue_max && self.outbox.len() < cfg.outbox_max;
        let small = self.queued_bytes < QUEUE_BYTES_MAX && self.outbox.bytes() < OUTBOX_BYTES_MAX;
        few && small && !self.unacked.is_full()
    }

    /// Half empty: asking for the rest at the first free place would have it all sent for one place.
    fn has_ample_room(&self, cfg: &CoreConfig) -> bool {
        let few = self.queue.len() <= cfg.queue_max / 2 && self.outbox.len() <= cfg.outbox_max / 2;
        let small = self.queued_bytes <= QUEUE_BYTES_MAX / 2 && self.outbox.bytes() <= OUTBOX_BYTES_MAX / 2;
        self.has_room(cfg) && few && small
    }

    /// The event waits no more that a message is an answer to.
    pub(crate) fn close_ticket(&mut self, op: &AppendOp) {
        if let (Some(Closes::Answered(event) | Closes::TimedOut(event)), Some(client)) =
            (&op.closes, op.stream.user())
        {
            self.tickets.close(&(client, event.clone()));
        }
    }

    /// A message is in the store, at this place.
    pub(crate) fn appended(&mut self, op: &AppendOp, cursor: Cursor, clock_ms: u64) {
        let Some(user) = op.stream.user() else { return };
        if let Some(wanted) = &op.wanted {
            self.receipts.want((user.clone(), cursor), wanted.clone());
        }
        if op.due {
            self.unacked.insert((user, cursor), &op.from, op.rest.len(), clock_ms);
        }
    }

    /// An event is in the store, and waits for a result from now on.
    pub(crate) fn event_is_out(&mut self, op: &EventOp, since_ms: u64) {
        self.tickets.open((op.client.clone(), op.id.clone()), Ticket { since_ms, at: op.at });
    }

    /// Takes an item: its operation goes with the next write.
    pub(crate) fn work_on(&mut self, item: &Item, op: Op, now: Now) {
        let of = OfItem { sid: item.channel.sid.clone(), chan: item.channel.chan, n: item.n };
        if let Some(sender) = self.sender(&item.channel) {
            sender.take(of.n, None);
            self.queued_bytes += op.size();
            self.queue.push_back(Work::Item { item: of, op, arrived_us: now.us });
        }
    }

    /// Acks and the like wait [`ACK_WAIT_MS`] for a write to go with.
    pub(crate) fn write_soon(&mut self, now: Now) {
        self.write_at.get_or_insert(now.mono + ACK_WAIT_MS);
    }

    /// Keeps an ack for the next write.
    pub(crate) fn ack(&mut self, who: Who, cursor: Cursor, now: Now) {
        let acked = self.acks.entry(who).or_default();
        *acked = (*acked).max(cursor);
        self.write_soon(now);
    }

    /// The same of how far a user has read.
    pub(crate) fn read(&mut self, who: Who, cursor: Cursor, now: Now) {
        let read = self.reads.entry(who).or_default();
        *read = (*read).max(cursor);
        self.write_soon(now);
    }

    /// Whether [`Home::next_write`] may find something to do: cheap, and not for certain.
    pub(crate) fn wants_to_write(&self, now: Now) -> bool {
        match &self.call {
            Some(call) => call.again_at.is_some_and(|at| now.mono >= at),
            None => {
                let waits = !self.queue.is_empty() || self.write_at.is_some_and(|at| now.mono >= at);
                waits || self.phase == Phase::Stopping || self.outbox.reported() > self.trimmed
            }
        }
    }

    /// The next write, if one may go out now (rule 10: at most one).
    pub(crate) fn next_write(
        &mut self,
        sid: &Sid,
        cfg: &CoreConfig,
        now: Now,
        call_id: u64,
    ) -> Option<Write> {
        self.waits_since = None;
        if !self.leased(now) || self.phase == Phase::Activating || self.phase == Phase::Releasing {
            return None;
        }
        let clock_ms = self.clock_ms(cfg, now);
        if let Some(call) = &mut self.call {
            if call.again_at.is_none_or(|at| now.mono < at) {
                return None;
            }
            (call.id, call.again_at, call.sent_us) = (call_id, None, now.us);
            (call.write.fence.seq, call.write.now_ms) = (self.seq, clock_ms);
            return Some(call.write.clone());
        }
        if self.phase == Phase::Inheriting {
            return None;
        }
        let (work, acks, ops) = self.batch(cfg, now);
        let trim = self.outbox.reported();
        let trim_due = trim > self.trimmed
            && (self.phase == Phase::Stopping || now.mono >= self.reported_at + TRIM_IDLE_MS);
        // A home that stops looks once more: whoever comes next cannot tell that its data went back.
        let looks = self.phase == Phase::Stopping && !self.looked;
        if ops.is_empty() && !trim_due && !looks {
            return None;
        }
        let fence = Fence { vnode: self.vnode, epoch: self.epoch, sid: sid.clone(), seq: self.seq };
        let write = Write { fence, now_ms: clock_ms, trim, ops };
        let says_all = self.unacked.all_is_settled() && self.receipts.all_is_told();
        self.call = Some(WriteInFlight {
            id: call_id,
            work,
            acks,
            says_all,
            write: write.clone(),
            since: now.mono,
            sent_us: now.us,
            again_at: None,
            tries: 0,
        });
        Some(write)
    }

    fn batch(&mut self, cfg: &CoreConfig, now: Now) -> (Vec<Work>, usize, Vec<Op>) {
        let mut work = Vec::new();
        // A stopping home's queue is empty.
        let room = cfg.batch_max.min(cfg.outbox_max.saturating_sub(self.outbox.len()));
        let company = (room > 0 && !self.queue.is_empty()) || self.phase == Phase::Stopping;
        let mut ops = if company || self.write_at.is_some_and(|at| now.mono >= at) {
            self.take_acks(now)
        } else {
            Vec::new()
        };
        let acks = ops.len();
        let (mut bytes, outbox) = (0, self.outbox.bytes());
        while work.len() < room && bytes < WRITE_BYTES_MAX && outbox + bytes < OUTBOX_BYTES_MAX {
            let Some(next) = self.queue.pop_front() else { break };
            if let Work::Item { op, .. } = &next {
                self.queued_bytes -= op.size();
            }
            let op = match &next {
                Work::Item { op, .. } => op.clone(),
                Work::Member(op) => Op::Member(op.clone()),
                Work::Open { user, device, .. } => Op::Open { user: user.clone(), device: device.clone() },
                Work::Presence { op, .. } => {
                    if let Some(member) = self.members.get_mut(&op.user) {
                        member.said.clone_from(&op.roster);
                    }
                    Op::Presence(op.clone())
                }
                Work::Undelivered { place: (user, cursor), bytes } => {
                    Op::Undelivered { user: user.clone(), cursor: *cursor, bytes: *bytes }
                }
                Work::TimedOut { op, .. } => Op::Append(op.clone()),
            };
            bytes += op.size();
            ops.push(op);
            work.push(next);
        }
        (work, acks, ops)
    }

    /// Nothing that waits for a write will be done here. Items are repeated by their senders, openings by their sessions'
    /// state; these wait for a reply about a user, in the order in which they asked.
    pub(crate) fn drop_work(&mut self) -> Vec<(SessionKey, MessageId)> {
        self.queued_bytes = 0;
        let mut replies: Vec<_> =
            std::mem::take(&mut self.queue).into_iter().flat_map(Work::replies).collect();
        replies.extend(self.members.values_mut().flat_map(|m| std::mem::take(&mut m.waiting)));
        replies
    }

    /// The same of a home that ends, with what is in flight, and what the log was awaited for.
    pub(crate) fn drop_all(&mut self) -> Vec<(SessionKey, MessageId)> {
        let held = std::mem::take(&mut self.held).into_iter().filter_map(|(_, held)| match held {
            Held::Reply { session, id } => Some((session, id)),
            Held::Result { .. } | Held::Opened { .. } | Held::Receipts => None,
        });
        let call = self.call.take().map(|call| call.work).unwrap_or_default();
        let mut replies: Vec<_> = held.chain(call.into_iter().flat_map(Work::replies)).collect();
        replies.extend(self.drop_work());
        replies
    }

    /// Everything acknowledged so far, which is all that was applied: no write is in flight.
    fn take_acks(&mut self, now: Now) -> Vec<Op> {
        self.write_at = None;
        let mut ops = Vec::new();
        self.note_said();
        for (who, cursor) in std::mem::take(&mut self.acks) {
            self.unacked.settle(&who.user, cursor);
            self.cover(&who, cursor, Became::Delivered);
            let Who { user, device, .. } = who;
            ops.extend(device.map(|device| Op::Ack { user, device, cursor }));
        }
        for (who, cursor) in std::mem::take(&mut self.reads) {
            self.cover(&who, cursor, Became::Read);
            // Of an earlier generation it marks no place that a client could know.
            if cursor.generation == self.generation {
                ops.push(Op::Read { user: who.user, cursor });
            }
        }
        let places = self.unacked.take_settled();
        if !places.is_empty() {
            ops.push(Op::Settle { places });
        }
        ops.extend(self.receipts.next_op(self.vnode, self.epoch, now));
        if !self.all_acks_are_taken() {
            self.write_at = Some(now.mono);
        }
        ops
    }

    fn note_said(&mut self) {
        let acked =
            |(who, cursor): (&Who, &Cursor)| (who.clone(), SaidUpTo { acked: Some(*cursor), read: None });
        let read =
            |(who, cursor): (&Who, &Cursor)| (who.clone(), SaidUpTo { acked: None, read: Some(*cursor) });
        let all: Vec<_> = self.acks.iter().map(acked).chain(self.reads.iter().map(read)).collect();
        for (mut who, said) in all {
            who.quiet = self.is_quiet(&who);
            self.said.entry(who).or_default().add(said);
        }
    }

    /// A receipt tells that somebody is there: of who is invisible there are none, until the first ack after that.
    fn is_quiet(&self, who: &Who) -> bool {
        who.quiet || self.members.get(&who.user).is_some_and(|m| m.chosen == ChosenStatus::Invisible)
    }

    /// A write took effect.
    pub(crate) fn has_written(&mut self, call: &WriteInFlight) {
        if call.says_all {
            self.said.clear();
        }
    }

    /// What was acknowledged and is not known to be in the store.
    pub(crate) fn take_said(&mut self) -> BTreeMap<Who, SaidUpTo> {
        self.note_said();
        std::mem::take(&mut self.said)
    }

    fn cover(&mut self, who: &Who, cursor: Cursor, became: Became) {
        if !self.is_quiet(who) {
            self.receipts.cover(&who.user, cursor, became);
        }
    }

    /// Whether all that was acknowledged is on its way to the store.
    pub(crate) fn all_acks_are_taken(&self) -> bool {
        self.acks.is_empty()
            && self.reads.is_empty()
            && self.unacked.all_is_settled()
            && self.receipts.all_is_taken()
    }

    /// Puts off what is to be told until the log has everything up to `need` (rule 13).
    pub(crate) fn hold(&mut self, need: Seq, held: Held) {
        self.held.push_back((need, held));
    }

    /// What may be told now.
    pub(crate) fn release_held(&mut self, cfg: &CoreConfig) -> Vec<Held> {
        let reported = self.outbox.reported();
        let mut released = Vec::new();
        while let Some((need, held)) = self.held.front() {
            let early = match held {
                Held::Result { .. } | Held::Reply { .. } => !cfg.on(Rule::ConfirmAfterLog),
                Held::Opened { .. } | Held::Receipts => false,
            };
            if *need > reported && !early {
                break;
            }
            released.extend(self.held.pop_front().map(|(_, held)| held));
        }
        released
    }

    /// Confirms for all senders that have something to hear; none past the lease deadline (rule 13).
    /// With each whether its sender asked for it.
    pub(crate) fn confirms(&mut self, cfg: &CoreConfig, now: Now) -> Vec<(Confirm, bool)> {
        if !self.leased(now) {
            return Vec::new();
        }
        if self.takes_items() && self.has_ample_room(cfg) {
            // What was dropped while there was no room is asked for (rule 14).
            for sender in self.senders.values_mut().filter(|s| s.dropped) {
                (sender.ask, sender.dropped) = (true, false);
            }
        }
        let (vnode, epoch) = (self.vnode, self.epoch);
        let all = |(sid, sender): (&Sid, &mut Sender)| -> Vec<(Confirm, bool)> {
            let was_asked = sender.was_asked();
            std::iter::from_fn(|| sender.confirm(vnode, epoch, sid)).map(|c| (c, was_asked)).collect()
        };
        self.senders.iter_mut().flat_map(all).collect()
    }

    /// Merges what an answer `behind` brought (rule 18).
    pub(crate) fn catch_up(&mut self, seq: Seq, events: Vec<OutboxEvent>) {
        self.seq = seq;
        for event in events {
            self.outbox.push(event);
        }
    }
}
