//! The data of one vnode: head, streams, ids, outbox, roster, cursors.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use roost_proto::events::{message_bytes, numbered_bytes};
use roost_proto::ids::{Cursor, DeviceId, Epoch, MessageId, Offset, Seq, Sid, StreamId, UserId, VnodeId};
use roost_proto::limits::IDS_KEPT_MS;
use roost_proto::live::{Version, presence_note};
use serde::{Deserialize, Serialize};

use super::devices::Devices;
use super::due::{Waiting, cursor_of};
use crate::store::*;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    epoch: Epoch,
    sid: Sid,
    generation: Epoch,
    seq: Seq,
    data_set: DataSet,
    /// Files of earlier versions have none.
    #[serde(default)]
    clock_ms: u64,
    /// Of the last change of presence that others see.
    #[serde(default)]
    presence: Version,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Tail {
    generation: Epoch,
    offset: Offset,
    touched: u64,
}

#[derive(Debug, Clone, Default)]
struct Stream {
    tail: Tail,
    entries: VecDeque<Bytes>,
}

impl Stream {
    fn first(&self) -> Offset {
        Offset(self.tail.offset.0 + 1 - self.entries.len() as u64)
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Known {
    /// 0 for an event.
    pub offset: Offset,
    pub at: u64,
    pub hash: u64,
}

impl Known {
    /// To whoever says it again.
    pub(super) fn answer(self, hash: u64) -> OpResult {
        if self.hash == hash {
            OpResult::Duplicate { offset: self.offset, at: self.at }
        } else {
            OpResult::Conflict
        }
    }
}

/// Ids by time, in two slices: the older one is dropped whole when a new one begins.
#[derive(Debug, Clone, Default)]
struct Ids {
    slice: u64,
    /// `[slice % 2]` is the current one.
    slices: [HashMap<String, Known>; 2],
}

/// A durable effect of a call, for a store that writes to disk: a put, or a removal of a range of `n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        table: &'static str,
        stream: String,
        key: String,
        n: u64,
        value: Vec<u8>,
    },
    Remove {
        table: &'static str,
        stream: String,
        key: String,
    },
    /// All of `(table, stream)` with a number below this.
    RemoveBelow {
        table: &'static str,
        stream: String,
        n: u64,
    },
}

/// The members of a room.
#[derive(Debug, Clone, Default)]
struct Room {
    version: Version,
    members: BTreeMap<UserId, MemberEntry>,
}

impl Room {
    fn roster(&self) -> RoomRoster {
        let members = self.members.iter().map(|(user, entry)| (user.clone(), entry.clone()));
        RoomRoster { version: self.version, members: members.collect() }
    }
}

#[derive(Debug, Clone, Default)]
pub struct VnodeData {
    head: Option<Head>,
    streams: HashMap<StreamId, Stream>,
    ids: HashMap<StreamId, Ids>,
    outbox: VecDeque<OutboxEvent>,
    roster: BTreeMap<UserId, RosterEntry>,
    seen: HashMap<UserId, Seen>,
    pub(super) devices: HashMap<UserId, Devices>,
    rooms: BTreeMap<StreamId, Room>,
    read: HashMap<UserId, Cursor>,
    pub(super) due: BTreeMap<InboxPosition, Waiting>,
    pub(super) wanted: BTreeMap<InboxPosition, ReceiptRequest>,
    pub(super) owed: BTreeMap<MessageId, PendingReceipt>,
    pub(super) tickets: BTreeMap<TicketId, Ticket>,
    /// What was published in rooms, or of the vnode's presence, for a store to tell.
    published: Vec<(Option<StreamId>, Bytes)>,
    /// What is to be written to disk; nobody reads it in memory-only use.
    journal: Option<Vec<Change>>,
}

pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always encodes")
}

/// The event of an operation by which others see a change of presence.
fn told<'a>((op, result): (&'a Op, &OpResult)) -> Option<&'a Bytes> {
    match (op, result) {
        (Op::Presence(op), OpResult::Presence { changed: true }) => op.event.as_ref(),
        _ => None,
    }
}

fn id_key(from: &str, id: &str) -> String {
    format!("{from}\n{id}")
}

impl VnodeData {
    /// One that records its changes for [`VnodeData::take_changes`].
    pub fn journaled() -> Self {
        Self { journal: Some(Vec::new()), ..Self::default() }
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        self.journal.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What was published since the last call, in order; `vnode` is the one whose data this is.
    pub fn take_published(&mut self, vnode: VnodeId) -> Vec<(LiveChannel, Bytes)> {
        let channel = |stream| match stream {
            Some(stream) => LiveChannel::Room { vnode, stream },
            None => LiveChannel::Presence(vnode),
        };
        self.published.drain(..).map(|(stream, payload)| (channel(stream), payload)).collect()
    }

    pub(super) fn put(
        &mut self,
        table: &'static str,
        stream: &str,
        key: &str,
        n: u64,
        value: impl FnOnce() -> Vec<u8>,
    ) {
        if let Some(journal) = &mut self.journal {
            journal.push(Change::Put { table, stream: stream.into(), key: key.into(), n, value: value() });
        }
    }

    pub(super) fn remove(&mut self, change: Change) {
        if let Some(journal) = &mut self.journal {
            journal.push(change);
        }
    }

    fn put_head(&mut self) {
        let head = self.head.clone();
        self.put("head", "", "", 0, || json(&head));
    }

    /// Core rules 17 and 18.
    pub fn activate(&mut self, request: &Activate) -> ActivateAnswer {
        let mut generation = request.epoch;
        let mut seq = Seq(0);
        let (mut previous, mut clock_ms, mut presence) = (None, 0, Version::default());
        if let Some(head) = &self.head {
            let went_back = request.left.is_some_and(|left| (head.generation, head.seq) < left);
            // A generation is named by its epoch, so a new one needs a new epoch.
            let over = request.epoch == head.epoch && (request.sid != head.sid || went_back);
            if request.epoch < head.epoch || over {
                return ActivateAnswer::Refused(head.epoch);
            }
            let known = head.data_set == request.data_set;
            let repeated = request.epoch == head.epoch && known;
            let proved = request.held.is_some_and(|(epoch, seq)| {
                head.epoch == epoch && head.sid == request.sid && head.seq >= seq
            });
            if !went_back && (repeated || proved || (known && !request.prove)) {
                generation = head.generation;
            }
            seq = head.seq;
            (previous, clock_ms, presence) = (Some(head.sid.clone()), head.clock_ms, head.presence);
        }
        self.head = Some(Head {
            epoch: request.epoch,
            sid: request.sid.clone(),
            generation,
            seq,
            data_set: request.data_set.clone(),
            clock_ms,
            presence,
        });
        self.put_head();
        ActivateAnswer::Activated(Activated {
            generation,
            seq,
            outbox: self.outbox.iter().cloned().collect(),
            roster: self.roster.iter().map(|(u, e)| (u.clone(), e.clone())).collect(),
            rooms: self.rooms.iter().map(|(stream, room)| (stream.clone(), room.roster())).collect(),
            due: self.all_due(),
            wanted: self.wanted.iter().map(|(place, w)| (place.clone(), w.clone())).collect(),
            owed: self.all_owed(),
            tickets: self.all_tickets(),
            previous,
            clock_ms,
        })
    }

    pub fn write(&mut self, request: &Write, config: &StoreConfig) -> WriteAnswer {
        let fence = &request.fence;
        let Some(head) = &mut self.head else { return WriteAnswer::Lost };
        if head.epoch > fence.epoch {
            return WriteAnswer::Deposed;
        }
        if head.epoch < fence.epoch || head.sid != fence.sid {
            return WriteAnswer::Lost;
        }
        if head.seq < fence.seq {
            return WriteAnswer::Rewound;
        }
        if head.seq > fence.seq {
            head.seq.0 += 1;
            let seq = head.seq;
            self.put_head();
            return WriteAnswer::Behind { seq, outbox: self.outbox.iter().cloned().collect() };
        }
        head.clock_ms = head.clock_ms.max(request.now_ms);
        let (generation, now) = (head.generation, head.clock_ms);
        self.trim(request.trim);
        let mut seq = fence.seq;
        let ops = request.ops.iter();
        let results: Vec<_> =
            ops.map(|op| self.apply(op, fence, generation, now, &mut seq, config)).collect();
        // Raised even without an event, so that a copy of this write that lands later does not apply.
        let seq = seq.max(Seq(fence.seq.0 + 1));
        let told: Vec<_> = request.ops.iter().zip(&results).filter_map(told).collect();
        if let Some(head) = &mut self.head {
            head.seq = seq;
            if !told.is_empty() {
                let version = Version { epoch: fence.epoch, n: seq.0 };
                let before = std::mem::replace(&mut head.presence, version);
                self.published.push((None, presence_note(before, version, told)));
            }
        }
        self.put_head();
        WriteAnswer::Done { seq, results }
    }

    fn trim(&mut self, through: Seq) {
        let before = self.outbox.len();
        while self.outbox.front().is_some_and(|e| e.seq <= through) {
            self.outbox.pop_front();
        }
        if self.outbox.len() < before {
            self.remove(Change::RemoveBelow { table: "outbox", stream: String::new(), n: through.0 + 1 });
        }
    }

    fn apply(
        &mut self,
        op: &Op,
        fence: &Fence,
        generation: Epoch,
        now: u64,
        seq: &mut Seq,
        config: &StoreConfig,
    ) -> OpResult {
        match op {
            Op::Append(append) => self.append(append, now, generation, seq, config),
            Op::Event(event) => self.event(event, fence, now, seq),
            Op::Presence(op) => self.set_presence(op, fence, seq),
            Op::Member(op) => self.set_member(op),
            Op::Tail { stream } => {
                let (tail, first) = self.ends(stream, generation, now, config);
                OpResult::Tail { tail, first }
            }
            Op::Open { user, device } => {
                let (tail, first) = self.ends(&StreamId::inbox(user), generation, now, config);
                let device = device.as_ref().map(|device| self.device_opened(user, device));
                let (acked, forgotten) = device.unwrap_or_default();
                let (read, presence) = (self.read.get(user).copied(), self.presence(user));
                OpResult::Opened(Opened { tail, first, acked, forgotten, read, presence })
            }
            Op::Ack { user, device, cursor } => self.ack(user, device, *cursor),
            Op::Read { user, cursor } => {
                let read = self.read.entry(user.clone()).or_default();
                *read = (*read).max(*cursor);
                let read = *read;
                self.put("read", user.as_str(), "", 0, || json(&read));
                OpResult::Acked
            }
            Op::Receipts { wanted, owed } => self.set_receipts(wanted, owed),
            Op::Settle { places } => self.settle(places),
            Op::Undelivered { user, cursor, .. } => self.undelivered(user, *cursor, seq),
        }
    }

    /// The stream as it is in this generation, with an outlived window dropped.
    fn stream(
        &mut self,
        id: &StreamId,
        generation: Epoch,
        now: u64,
        config: &StoreConfig,
    ) -> Option<&mut Stream> {
        let stream = self.streams.get(id)?;
        let age = now.saturating_sub(stream.tail.touched);
        let (gone, stale) =
            (stream.tail.generation != generation || age > TAILS_KEPT_MS, age > config.stream_max_age_ms);
        if gone || stale {
            self.remove(Change::RemoveBelow { table: "entry", stream: id.to_string(), n: u64::MAX });
        }
        if gone {
            self.remove(Change::Remove { table: "tail", stream: id.to_string(), key: String::new() });
            self.streams.remove(id);
            return None;
        }
        let stream = self.streams.get_mut(id)?;
        if stale {
            stream.entries.clear();
        }
        Some(stream)
    }

    /// The tail of a stream, and the first offset in its window.
    fn ends(&mut self, id: &StreamId, generation: Epoch, now: u64, config: &StoreConfig) -> (Offset, Offset) {
        let stream = self.stream(id, generation, now, config);
        stream.map_or((Offset(0), Offset(1)), |s| (s.tail.offset, s.first()))
    }

    fn append(
        &mut self,
        op: &AppendOp,
        now: u64,
        generation: Epoch,
        seq: &mut Seq,
        config: &StoreConfig,
    ) -> OpResult {
        let known = self.known(&op.stream, &op.from, &op.id, now);
        let closed =
            op.closes.as_ref().zip(op.stream.user()).map(|(closes, client)| self.close(&client, closes));
        if let Some(known) = known {
            return known.answer(op.hash);
        }
        if closed == Some(false) {
            return OpResult::Nobody;
        }
        let last = self.stream(&op.stream, generation, now, config).map_or(0, |s| s.tail.offset.0);
        let offset = Offset(last + 1);
        let payload = message_bytes(&op.stream, Cursor::new(generation, offset), &op.rest);
        let stream = self.streams.entry(op.stream.clone()).or_default();
        stream.tail = Tail { generation, offset, touched: now };
        stream.entries.push_back(payload.clone());
        let over = stream.entries.len().saturating_sub(config.stream_max_len);
        stream.entries.drain(..over);
        let (tail, first) = (stream.tail, stream.first());
        let name = op.stream.as_str();
        self.put("tail", name, "", 0, || json(&tail));
        self.put("entry", name, "", offset.0, || payload.to_vec());
        if over > 0 {
            self.remove(Change::RemoveBelow { table: "entry", stream: name.into(), n: first.0 });
        }
        self.know(&op.stream, &op.from, &op.id, Known { offset, at: op.at, hash: op.hash });
        seq.0 += 1;
        if op.stream.is_room() {
            self.published.push((Some(op.stream.clone()), payload.clone()));
        }
        if let Some(user) = op.stream.user() {
            let place = (user, Cursor::new(generation, offset));
            if op.wanted.is_some() {
                self.set_wanted(&place, op.wanted.as_ref());
            }
            if op.due {
                self.put_due(place, now, payload.clone());
            }
        }
        self.push_event(OutboxEvent {
            seq: *seq,
            topic: EventTopic::Chat,
            key: op.stream.to_string(),
            payload,
        });
        OpResult::Appended { offset }
    }

    /// Looks an id up, after turning the slices to the present. Ids that are ahead of the clock (the head was lost
    /// without them) turn nothing.
    pub(super) fn known(&mut self, stream: &StreamId, from: &str, id: &MessageId, now: u64) -> Option<Known> {
        let slice = now / IDS_KEPT_MS;
        let ids = self.ids.entry(stream.clone()).or_default();
        if slice > ids.slice {
            let (old, skipped) = ((slice % 2) as usize, slice > ids.slice + 1);
            ids.slice = slice;
            ids.slices[old].clear();
            if skipped {
                ids.slices[1 - old].clear();
            }
            for (i, table) in ["ids0", "ids1"].into_iter().enumerate() {
                if i == old || skipped {
                    self.remove(Change::RemoveBelow { table, stream: stream.to_string(), n: u64::MAX });
                }
            }
        }
        let key = id_key(from, id.as_str());
        self.ids.get(stream)?.slices.iter().find_map(|slice| slice.get(&key).copied())
    }

    /// Whether there is anything about a user.
    pub(super) fn knows(&self, user: &UserId) -> bool {
        self.roster.contains_key(user)
            || self.seen.contains_key(user)
            || self.streams.contains_key(&StreamId::inbox(user))
    }

    /// Keeps an id, in the slice of the present.
    pub(super) fn know(&mut self, stream: &StreamId, from: &str, id: &MessageId, known: Known) {
        let key = id_key(from, id.as_str());
        let ids = self.ids.entry(stream.clone()).or_default();
        let slice = ids.slice;
        ids.slices[(slice % 2) as usize].insert(key.clone(), known);
        let table = if slice.is_multiple_of(2) { "ids0" } else { "ids1" };
        self.put(table, stream.as_str(), &key, slice, || json(&known));
    }

    fn set_presence(&mut self, op: &PresenceOp, fence: &Fence, seq: &mut Seq) -> OpResult {
        if let Some(seen) = op.seen {
            self.seen.insert(op.user.clone(), seen);
            self.put("seen", op.user.as_str(), "", 0, || json(&seen));
        }
        if self.roster.get(&op.user) == op.roster.as_ref() {
            return OpResult::Presence { changed: false };
        }
        match &op.roster {
            Some(entry) => {
                self.roster.insert(op.user.clone(), entry.clone());
                self.put("roster", op.user.as_str(), "", 0, || json(entry));
            }
            None => {
                self.roster.remove(&op.user);
                let (stream, key) = (op.user.to_string(), String::new());
                self.remove(Change::Remove { table: "roster", stream, key });
            }
        }
        if let Some(rest) = &op.event {
            seq.0 += 1;
            let payload = numbered_bytes(fence.vnode, fence.epoch, *seq, rest);
            self.push_event(OutboxEvent {
                seq: *seq,
                topic: EventTopic::Status,
                key: op.user.to_string(),
                payload,
            });
        }
        OpResult::Presence { changed: true }
    }

    fn set_member(&mut self, op: &MemberOp) -> OpResult {
        let (name, user) = (op.stream.as_str(), op.user.as_str());
        let room = self.rooms.entry(op.stream.clone()).or_default();
        room.version = if op.last { Version::default() } else { op.version };
        match &op.entry {
            Some(entry) => drop(room.members.insert(op.user.clone(), entry.clone())),
            None => drop(room.members.remove(&op.user)),
        }
        if room.members.is_empty() && op.last {
            self.rooms.remove(&op.stream);
        }
        match &op.entry {
            Some(entry) => self.put("member", name, user, 0, || json(entry)),
            None => self.remove(Change::Remove { table: "member", stream: name.into(), key: user.into() }),
        }
        if op.last {
            self.remove(Change::Remove { table: "version", stream: name.into(), key: String::new() });
        } else {
            self.put("version", name, "", 0, || json(&op.version));
        }
        self.published.push((Some(op.stream.clone()), op.note.clone()));
        OpResult::Member
    }

    /// Where a room stands.
    pub fn standing(&self, stream: &StreamId) -> Option<Standing> {
        let generation = self.head.as_ref()?.generation;
        let tail = self.streams.get(stream).map(|s| s.tail).filter(|t| t.generation == generation);
        let version = self.rooms.get(stream).map(|room| room.version).unwrap_or_default();
        Some(Standing { tail: Cursor::new(generation, tail.map_or(Offset(0), |t| t.offset)), version })
    }

    pub(super) fn push_event(&mut self, event: OutboxEvent) {
        let value = (event.topic, &event.key, String::from_utf8_lossy(&event.payload));
        let value = json(&value);
        self.put("outbox", "", "", event.seq.0, || value);
        self.outbox.push_back(event);
    }

    pub fn read(&self, stream: &StreamId, generation: Epoch, after: Offset, limit: Limit) -> Window {
        let Some(s) = self.streams.get(stream).filter(|s| s.tail.generation == generation) else {
            return Window::default();
        };
        if s.entries.is_empty() {
            return Window::default();
        }
        let first = s.first();
        let skip = (after.0 + 1).saturating_sub(first.0) as usize;
        let numbered = s.entries.iter().enumerate().map(|(i, e)| (Offset(first.0 + i as u64), e));
        Window { first, entries: limit.fit(numbered.skip(skip)).collect() }
    }

    pub fn page(&self, stream: &StreamId, before: Option<Cursor>, limit: Limit) -> Page {
        let generation = self.head.as_ref().map_or(Epoch(0), |h| h.generation);
        let Some(s) = self.streams.get(stream) else {
            return Page::of(generation, None, None, before, vec![]);
        };
        let first = (!s.entries.is_empty()).then(|| s.first());
        let numbered = s.entries.iter().enumerate().map(|(i, e)| (Offset(s.first().0 + i as u64), e));
        let older = numbered.rev().filter(|(offset, _)| before.is_none_or(|b| *offset < b.offset));
        let tail = Cursor::new(s.tail.generation, s.tail.offset);
        Page::of(generation, Some(tail), first, before, limit.fit(older).collect())
    }

    pub fn presence(&self, user: &UserId) -> PresenceRow {
        PresenceRow { roster: self.roster.get(user).cloned(), seen: self.seen.get(user).copied() }
    }

    pub fn presences(&self, users: &[UserId]) -> Presences {
        let rows = users.iter().map(|user| self.presence(user)).collect();
        Presences { standing: self.presence_standing(), rows }
    }

    /// Where the vnode's presence stands.
    pub fn presence_standing(&self) -> PresenceStanding {
        let standing = |head: &Head| PresenceStanding { generation: head.generation, version: head.presence };
        self.head.as_ref().map(standing).unwrap_or_default()
    }

    /// Forgets ids of messages that left the hot window: what a store that kept ids with the entries would do.
    /// Only the simulation calls it, to see that the loss is noticed (core rule 11).
    pub fn forget_ids_outside_windows(&mut self) {
        for (stream, ids) in &mut self.ids {
            let first = self.streams.get(stream).map_or(Offset(1), Stream::first);
            for slice in &mut ids.slices {
                slice.retain(|_, known| known.offset >= first);
            }
        }
    }

    /// Up to where a user has read, for checks.
    pub fn read_by(&self, user: &UserId) -> Option<Cursor> {
        self.read.get(user).copied()
    }

    /// The head's owner and generation, for checks.
    pub fn head(&self) -> Option<(Epoch, &Sid, Epoch, Seq)> {
        self.head.as_ref().map(|h| (h.epoch, &h.sid, h.generation, h.seq))
    }

    /// Takes one saved row back in; rows of one stream come in ascending order of `n`.
    ///
    /// # Errors
    /// If it cannot be understood.
    pub fn load(
        &mut self,
        table: &str,
        stream: &str,
        key: &str,
        n: u64,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let row = Loaded { table, stream, key, n, value };
        match table {
            "head" => self.head = row.value()?,
            "tail" => self.streams.entry(row.stream()?).or_default().tail = row.value()?,
            "entry" => {
                let stream = self.streams.entry(row.stream()?).or_default();
                stream.entries.push_back(Bytes::copy_from_slice(value));
            }
            "ids0" | "ids1" => {
                let ids = self.ids.entry(row.stream()?).or_default();
                ids.slice = ids.slice.max(n);
                ids.slices[usize::from(table == "ids1")].insert(key.into(), row.value()?);
            }
            "outbox" => {
                let (topic, key, payload): (_, _, String) = row.value()?;
                self.outbox.push_back(OutboxEvent { seq: Seq(n), topic, key, payload: payload.into() });
            }
            "roster" => drop(self.roster.insert(row.user()?, row.value()?)),
            "seen" => drop(self.seen.insert(row.user()?, row.value()?)),
            "acked" => {
                let device = DeviceId::new(key).map_err(|e| row.garbled(&e))?;
                self.devices.entry(row.user()?).or_default().load(device, row.value()?);
            }
            "forgot" => self.devices.entry(row.user()?).or_default().forgot = true,
            "read" => drop(self.read.insert(row.user()?, row.value()?)),
            "due" => {
                let waiting = Waiting::of(value).ok_or_else(|| row.garbled(&"a message that is due"))?;
                self.due.insert(row.place()?, waiting);
            }
            "wanted" => drop(self.wanted.insert(row.place()?, row.value()?)),
            "owed" => drop(self.owed.insert(row.message()?, row.value()?)),
            "ticket" => drop(self.tickets.insert((row.user()?, row.message()?), row.value()?)),
            "member" => {
                let user = UserId::new(key).map_err(|e| row.garbled(&e))?;
                self.rooms.entry(row.stream()?).or_default().members.insert(user, row.value()?);
            }
            "version" => self.rooms.entry(row.stream()?).or_default().version = row.value()?,
            other => return Err(row.garbled(&format!("unknown table {other}"))),
        }
        Ok(())
    }
}

/// A row as it was kept.
struct Loaded<'a> {
    table: &'a str,
    stream: &'a str,
    key: &'a str,
    n: u64,
    value: &'a [u8],
}

impl<'a> Loaded<'a> {
    fn value<T: Deserialize<'a>>(&self) -> Result<T, StoreError> {
        serde_json::from_slice(self.value).map_err(|e| self.garbled(&e))
    }

    fn stream(&self) -> Result<StreamId, StoreError> {
        StreamId::new(self.stream).map_err(|e| self.garbled(&e))
    }

    fn user(&self) -> Result<UserId, StoreError> {
        UserId::new(self.stream).map_err(|e| self.garbled(&e))
    }

    fn message(&self) -> Result<MessageId, StoreError> {
        MessageId::new(self.key).map_err(|e| self.garbled(&e))
    }

    fn place(&self) -> Result<(UserId, Cursor), StoreError> {
        Ok((self.user()?, cursor_of(self.key).ok_or_else(|| self.garbled(&"a place"))?))
    }

    fn garbled(&self, e: &dyn std::fmt::Display) -> StoreError {
        let Self { table, stream, key, n, .. } = self;
        StoreError::Garbled(format!("{table} {stream} {key} {n}: {e}"))
    }
}
