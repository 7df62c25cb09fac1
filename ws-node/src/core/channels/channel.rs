//! What this node has for one vnode: items in order, kept until their home confirms them (rules 1–6).

use std::collections::{BTreeMap, HashMap, VecDeque};

use roost_backend::store::EventOp;
use roost_proto::ids::{Epoch, MessageId, NodeId, Sid, UserId, VnodeId};
use roost_proto::limits::VOID_AFTER_MS;
use roost_proto::records::{ChannelId, Confirm, Item, ItemBody, ItemResult, Probe};
use roost_service::permits::has_place;
use serde_json::value::{RawValue, to_raw_value};

use crate::core::channels::asker::Asker;
use crate::core::message::{ItemKey, hash_of};
use crate::core::outbound::link::LinkKey;

/// First wait before a silent channel probes, and the longest, in milliseconds (rule 3).
const PROBE_MIN_MS: u64 = 1000;

const PROBE_MAX_MS: u64 = 8000;

/// Pause before items are repeated because the transport did not take one, in milliseconds.
const SEND_AGAIN_MS: u64 = 500;

/// Who waits for an item's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub asker: Asker,
    /// Counts what this node's sessions sent.
    pub arrival: u64,
    pub since: u64,
    pub since_us: u64,
}

/// Whose places an item takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    User(UserId),
    /// The server API.
    Services,
    /// The cluster itself: receipts, results, what rooms ask, canaries. Their places are their own.
    Own,
}

/// How much of something waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub items: usize,
    pub bytes: usize,
    /// Of the items, events for the processors.
    pub events: usize,
}

impl Load {
    pub(crate) fn add(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.events += other.events;
    }

    pub(crate) fn remove(&mut self, other: Self) {
        self.items = self.items.saturating_sub(other.items);
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.events = self.events.saturating_sub(other.events);
    }
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) key: ItemKey,
    /// `None` is a void.
    body: Option<Box<RawValue>>,
    hash: u64,
    pub(super) by: By,
    pub(super) load: Load,
    pub(super) waiters: Vec<Waiter>,
    /// Whose it is and when it came: of who asked for it last, even if told `unknown` since.
    asker: Asker,
    arrival: u64,
    renewed: u64,
}

/// An item that left the queue without a result.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub(super) key: ItemKey,
    pub(super) by: By,
    pub(super) load: Load,
    /// Its later sends to the stream must wait until this one is repeated (rule 1).
    pub(super) asker: Asker,
    pub(super) arrival: u64,
    pub(super) waiters: Vec<Waiter>,
}

impl From<Pending> for Dropped {
    fn from(item: Pending) -> Self {
        let Pending { key, by, load, asker, arrival, waiters, .. } = item;
        Self { key, by, load, asker, arrival, waiters }
    }
}

impl Pending {
    pub(crate) fn key(&self) -> &ItemKey {
        &self.key
    }

    pub(crate) fn by(&self) -> &By {
        &self.by
    }

    pub(crate) fn load(&self) -> Load {
        self.load
    }

    pub(crate) fn new(by: By, key: ItemKey, body: &ItemBody, waiter: Waiter) -> Self {
        let hash = hash_of(body);
        let body = to_raw_value(body).expect("bodies always encode");
        let (asker, arrival, renewed) = (waiter.asker, waiter.arrival, waiter.since);
        let load = Load { items: 1, bytes: body.get().len(), events: usize::from(key.1 == EventOp::BY) };
        Self { key, by, load, body: Some(body), hash, waiters: vec![waiter], asker, arrival, renewed }
    }
}

/// Whether an item is already queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    No,
    /// `again`: this session waited for it already.
    Yes {
        again: bool,
    },
    Conflict,
}

/// See the module's text. Item `i` of the queue has the number `first + i`.
#[derive(Debug)]
pub(crate) struct Channel {
    id: ChannelId,
    home: Option<NodeId>,
    items: VecDeque<Pending>,
    first: u64,
    /// The next number to hand to the transport.
    next: u64,
    /// Where each queued key is, counted from the first item ever.
    index: HashMap<ItemKey, u64>,
    base: u64,
    /// What is queued, by whose it is; and of all but the cluster's own.
    shares: BTreeMap<By, Load>,
    others: Load,
    heard: u64,
    probe_wait: u64,
    again_at: Option<u64>,
    /// By which link copies go: since all before them was confirmed, each once, until one was refused.
    aboard: Option<LinkKey>,
    /// The last number that did.
    boarded: u64,
}

/// The next item for the transport.
#[derive(Debug)]
pub(crate) struct NextItem {
    pub item: Item,
    /// It may go by this link as well.
    pub link: Option<LinkKey>,
}

impl Channel {
    pub(crate) fn new(vnode: VnodeId, sid: Sid, now: u64) -> Self {
        Self {
            id: ChannelId { vnode, epoch: Epoch(0), sid, chan: 0, round: 0 },
            home: None,
            items: VecDeque::new(),
            first: 1,
            next: 1,
            index: HashMap::new(),
            base: 0,
            shares: BTreeMap::new(),
            others: Load::default(),
            heard: now,
            probe_wait: PROBE_MIN_MS,
            again_at: None,
            aboard: None,
            boarded: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether one more may be queued: [`has_place`] of items, and the same of bytes.
    pub(crate) fn has_place(&self, by: &By, bytes: usize, items_max: usize, bytes_max: usize) -> bool {
        let mine = self.share(by);
        if *by == By::Own {
            return mine.items < items_max;
        }
        if !has_place(mine.items, self.others.items, items_max) {
            return false;
        }
        match mine.items {
            0 => self.others.bytes < 2 * bytes_max,
            _ => mine.bytes + bytes <= bytes_max.saturating_sub(self.others.bytes),
        }
    }

    /// What is queued of somebody's.
    pub(crate) fn share(&self, by: &By) -> Load {
        self.shares.get(by).copied().unwrap_or_default()
    }

    fn enters(&mut self, by: &By, load: Load) {
        self.shares.entry(by.clone()).or_default().add(load);
        if *by != By::Own {
            self.others.add(load);
        }
    }

    fn leaves(&mut self, by: &By, load: Load) {
        if let Some(share) = self.shares.get_mut(by) {
            share.remove(load);
            if share.items == 0 {
                self.shares.remove(by);
            }
        }
        if *by != By::Own {
            self.others.remove(load);
        }
    }

    pub(crate) fn home(&self) -> Option<&NodeId> {
        self.home.as_ref()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.id.epoch
    }

    pub(crate) fn is(&self, chan: u64) -> bool {
        self.id.chan == chan
    }

    /// The home is known under a new epoch: everything unconfirmed is numbered again (rule 2).
    pub(crate) fn move_to(&mut self, epoch: Epoch, home: NodeId, chan: u64, now: u64) {
        self.id.epoch = epoch;
        self.id.chan = chan;
        self.id.round = 0;
        self.home = Some(home);
        (self.first, self.next) = (1, 1);
        self.heard = now;
        self.probe_wait = PROBE_MIN_MS;
        self.again_at = None;
        self.aboard = None;
    }

    /// A repeat of what is queued waits for the same result and renews its age (rule 6).
    pub(crate) fn attach(&mut self, repeat: &Pending) -> Attached {
        let Some(at) = self.index.get(&repeat.key) else { return Attached::No };
        let item = &mut self.items[(at - self.base) as usize];
        if item.hash != repeat.hash {
            return Attached::Conflict;
        }
        let mut waiter = Waiter { asker: repeat.asker, arrival: repeat.arrival, ..repeat.waiters[0].clone() };
        // What its session sent after it is to wait for it however often it is repeated (rule 1).
        if item.asker == waiter.asker {
            waiter.arrival = waiter.arrival.min(item.arrival);
        }
        (item.renewed, item.asker, item.arrival) = (waiter.since, waiter.asker, waiter.arrival);
        let waiting = item.waiters.len();
        item.waiters.retain(|w| w.asker != waiter.asker);
        let again = item.waiters.len() < waiting;
        item.waiters.push(waiter);
        Attached::Yes { again }
    }

    /// If all before it is confirmed, it and what follows may go by `link`.
    pub(crate) fn push(&mut self, item: Pending, link: Option<LinkKey>, now: u64) {
        if self.items.is_empty() {
            (self.aboard, self.boarded) = (link, self.first - 1);
            self.heard = now;
            self.probe_wait = PROBE_MIN_MS;
            // What the transport did not take was confirmed all the same.
            self.again_at = None;
        }
        self.index.insert(item.key.clone(), self.base + self.items.len() as u64);
        self.enters(&item.by, item.load);
        self.items.push_back(item);
    }

    /// An item went by the link, or did not: then none behind it does.
    pub(crate) fn has_boarded(&mut self, n: Option<u64>) {
        match n {
            Some(n) => self.boarded = n,
            None => self.aboard = None,
        }
    }

    /// The next item to hand to the transport, if the home is known.
    pub(crate) fn next_item(&mut self, now: u64) -> Option<NextItem> {
        self.home.as_ref()?;
        if self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        self.again_at = None;
        let item = self.items.get((self.next - self.first) as usize)?;
        let n = self.next;
        self.next += 1;
        // A canary goes by the topic alone, and so shows that this way is alive.
        if item.asker == Asker::Canary {
            self.aboard = None;
        }
        let link = self.aboard.filter(|_| n == self.boarded + 1);
        let item = Item { channel: self.id.clone(), n, acked: self.first - 1, body: item.body.clone() };
        Some(NextItem { item, link })
    }

    fn go_back(&mut self, to: u64) {
        self.next = to.max(self.first);
        self.id.round += 1;
    }

    /// The transport did not take a record of this round: everything from the first on again (rule 3).
    pub(crate) fn failed(&mut self, chan: u64, round: u32, now: u64) {
        if self.id.chan == chan && self.id.round == round && self.again_at.is_none() && !self.is_empty() {
            self.go_back(self.first);
            self.again_at = Some(now + SEND_AGAIN_MS);
        }
    }

    /// Whether a confirm is for this channel as it is now (rule 9).
    pub(crate) fn owns(&self, confirm: &Confirm) -> bool {
        let (a, b) = (&self.id, &confirm.channel);
        (a.vnode, a.epoch, &a.sid, a.chan) == (b.vnode, b.epoch, &b.sid, b.chan)
    }

    /// Takes the home's answer; returns what is done now, first first.
    pub(crate) fn confirm(&mut self, confirm: &Confirm, now: u64) -> Vec<(Pending, ItemResult)> {
        self.heard = now;
        if !confirm.results.is_empty() && confirm.from > self.first {
            // A confirm before this one was lost: ask for all of it.
            self.probe_wait = 0;
            return Vec::new();
        }
        let mut done = Vec::new();
        for (n, result) in (confirm.from..).zip(&confirm.results) {
            if n == self.first {
                match self.pop() {
                    Some(item) => {
                        self.probe_wait = PROBE_MIN_MS;
                        done.push((item, result.clone()));
                    }
                    None => break,
                }
            }
        }
        self.next = self.next.max(self.first);
        // Once per round trip: an ask that answers an older round was overtaken by going back (rule 3).
        if let Some(ask) = confirm.ask
            && confirm.channel.round == self.id.round
            && ask < self.next
            && ask >= self.first
        {
            self.go_back(ask);
        }
        done
    }

    /// Whether the home asks for what it confirmed before: it has forgotten this channel. (It took the sid for ended
    /// for a while, and then the store went back to before that.)
    pub(crate) fn is_forgotten(&self, confirm: &Confirm) -> bool {
        let asks = confirm.ask.is_some_and(|ask| ask < self.first);
        asks && confirm.channel.round == self.id.round && !self.is_empty()
    }

    /// Everything unconfirmed is numbered again under the same epoch (rule 1).
    pub(crate) fn begin_again(&mut self, chan: u64, now: u64) {
        if let Some(home) = self.home.clone() {
            self.move_to(self.id.epoch, home, chan, now);
        }
    }

    fn pop(&mut self) -> Option<Pending> {
        let item = self.items.pop_front()?;
        self.leaves(&item.by, item.load);
        if self.index.get(&item.key) == Some(&self.base) {
            self.index.remove(&item.key);
        }
        self.base += 1;
        self.first += 1;
        Some(item)
    }

    /// For the mutant of rule 1: forgets items when the transport has them.
    pub(crate) fn forget_through(&mut self, n: u64) {
        while self.first <= n && self.pop().is_some() {}
    }

    /// The home cannot read item `n` (rule 15): it leaves the queue, and so does what the same sender has for the
    /// same stream behind it, or the order would break when it is repeated. What stays is numbered again, since
    /// copies under the old numbers may still be on their way.
    pub(crate) fn unreadable(&mut self, n: u64, chan: u64, now: u64) -> Vec<Dropped> {
        if n != self.first {
            return Vec::new();
        }
        let (Some(first), Some(home)) = (self.items.front(), self.home.clone()) else { return Vec::new() };
        let (stream, from) = (first.key.0.clone(), first.key.1.clone());
        let (gone, stay): (VecDeque<_>, VecDeque<_>) =
            self.items.drain(..).partition(|i| i.key.0 == stream && i.key.1 == from);
        self.items = stay;
        gone.iter().for_each(|item| self.leaves(&item.by, item.load));
        self.index = (self.base..)
            .zip(&self.items)
            .filter(|(_, i)| i.body.is_some())
            .map(|(n, i)| (i.key.clone(), n))
            .collect();
        self.move_to(self.id.epoch, home, chan, now);
        gone.into_iter().map(Dropped::from).collect()
    }

    /// Asks the home, if it has been silent for too long (rule 3).
    pub(crate) fn probe(&mut self, now: u64) -> Option<Probe> {
        if self.is_empty() || self.home.is_none() || now < self.heard + self.probe_wait {
            return None;
        }
        self.heard = now;
        self.probe_wait = (self.probe_wait * 2).clamp(PROBE_MIN_MS, PROBE_MAX_MS);
        (self.next > 1).then(|| Probe { channel: self.id.clone(), first: self.first, last: self.next - 1 })
    }

    /// Waiters that waited longer than `limit` are told `unknown` and wait no more, but for the patient; the item
    /// stays (rule 6).
    pub(crate) fn overdue(&mut self, now: u64, limit: u64) -> Vec<(ItemKey, Waiter)> {
        let mut late = Vec::new();
        let over = |w: &Waiter| now >= w.since + limit && !w.asker.is_patient();
        for item in &mut self.items {
            if item.waiters.iter().any(over) {
                let (gone, stay) = item.waiters.drain(..).partition(over);
                item.waiters = stay;
                late.extend(Vec::<Waiter>::into_iter(gone).map(|w| (item.key.clone(), w)));
            }
        }
        late
    }

    /// An item that nobody asked for in [`VOID_AFTER_MS`] keeps its number and loses its body (rule 6): a copy
    /// that came later than the dedup window would be a second message.
    /// Returns whose bytes are free now.
    pub(crate) fn void_aged(&mut self, now: u64) -> Vec<(By, Load)> {
        let mut freed = Vec::new();
        for item in self.items.iter_mut().filter(|i| i.body.is_some() && now >= i.renewed + VOID_AFTER_MS) {
            item.body = None;
            // A repeat of the id from now on is a new item.
            self.index.remove(&item.key);
            let kept = Load { items: 1, ..Load::default() };
            freed.push((item.by.clone(), Load { items: 0, ..std::mem::replace(&mut item.load, kept) }));
        }
        freed.iter().for_each(|(by, load)| self.leaves(by, *load));
        freed
    }

    // What people ask.

    /// Items handed to the transport and not confirmed.
    pub(crate) fn handed_out(&self) -> u64 {
        self.next - self.first
    }

    /// How long the home has been silent, in milliseconds.
    pub(crate) fn silent_ms(&self, now: u64) -> u64 {
        now.saturating_sub(self.heard)
    }

    /// Items of this sender.
    pub(crate) fn items_from(&self, from: &str) -> usize {
        self.items.iter().filter(|item| item.key.1 == from).count()
    }

    /// Items with this message id: their number, whether they were handed out, and when they were last asked for.
    pub(crate) fn find<'a>(
        &'a self,
        id: &'a MessageId,
    ) -> impl Iterator<Item = (&'a ItemKey, u64, bool, u64)> {
        let numbered = (self.first..).zip(&self.items).filter(|(_, item)| item.key.2 == *id);
        numbered.map(|(n, item)| (&item.key, n, n < self.next, item.renewed))
    }

    /// Ends the channel.
    pub(crate) fn into_dropped(self) -> impl Iterator<Item = Dropped> {
        self.items.into_iter().map(Dropped::from)
    }
}

#[cfg(test)]
mod tests {
    use roost_proto::ids::StreamId;

    use super::*;
    use crate::core::keys::SessionKey;

    fn item(by: &By, n: usize, bytes: usize) -> Pending {
        let stream = StreamId::new("user:bob").unwrap();
        let id = MessageId::new(format!("m{n}")).unwrap();
        let waiter = Waiter { asker: SessionKey(1).into(), arrival: 1, since: 0, since_us: 0 };
        let body = ItemBody::Tail { stream: stream.clone() };
        let mut item = Pending::new(by.clone(), (stream, "alice".into(), id), &body, waiter);
        item.load.bytes = bytes;
        item
    }

    fn by(name: &str) -> By {
        By::User(UserId::new(name).unwrap())
    }

    /// How many of this size somebody can queue.
    fn fill(channel: &mut Channel, by: &By, bytes: usize) -> usize {
        let before = channel.len();
        while channel.has_place(by, bytes, 1000, 1_000_000) {
            channel.push(item(by, channel.len(), bytes), None, 0);
        }
        channel.len() - before
    }

    #[test]
    fn nobody_finds_all_places_taken() {
        let sid = Sid::new(&NodeId::new("ws-1").unwrap(), 1, 1);
        let mut channel = Channel::new(VnodeId(0), sid.clone(), 0);
        assert_eq!(fill(&mut channel, &by("eve"), 10), 501);
        for n in 0..100 {
            assert!(fill(&mut channel, &by(&format!("eve{n}")), 10) > 0);
        }
        assert!(channel.has_place(&By::Services, 10, 1000, 1_000_000));
        assert_eq!(fill(&mut channel, &By::Own, 10), 1000, "the cluster's own");
        assert!(channel.has_place(&by("alice"), 10, 1000, 1_000_000));
        let mut channel = Channel::new(VnodeId(0), sid, 0);
        assert_eq!(fill(&mut channel, &by("eve"), 60_000), 8, "half of the bytes");
        assert_eq!(fill(&mut channel, &by("alice"), 100), 497, "half of the items");
    }

    #[test]
    fn who_left_has_no_share_any_more() {
        let mut channel = Channel::new(VnodeId(0), Sid::new(&NodeId::new("ws-1").unwrap(), 1, 1), 0);
        for (n, by) in [by("a"), by("b"), By::Own, by("a")].iter().enumerate() {
            channel.push(item(by, n, 10), None, 0);
        }
        assert_eq!(channel.share(&by("a")), Load { items: 2, bytes: 20, events: 0 });
        while channel.pop().is_some() {}
        assert_eq!((channel.shares.len(), channel.others), (0, Load::default()));
    }
}
