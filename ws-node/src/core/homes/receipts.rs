//! Receipts: senders who asked are told what became of their messages (docs/decisions/0013).
//!
//! The append notes in the store who wants to know. The write that takes an acknowledgement also puts the receipt
//! into a list there, which outlives its home; from the list it goes to the sender's home as any message does, under
//! an id by which a repeat is found, and it leaves the list when that home has confirmed it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roost_backend::store::{InboxPosition, Op, PendingReceipt, ReceiptRequest};
use roost_proto::events::Receipt;
use roost_proto::ids::{Cursor, Epoch, MessageId, Seq, UserId, VnodeId};
use roost_proto::time::rfc3339;
use roost_service::permits::has_place;
use serde_json::value::to_raw_value;

use crate::core::homes::deadlines::Deadlines;
use crate::core::homes::most::Most;
use crate::core::keys::Now;

/// Messages of one vnode whose receipts may be to come, some 400 bytes each; beyond it the oldest of who asked for most
/// get none.
const WANTED_MAX: usize = 10_000;

/// How long a receipt may come after its message, in milliseconds: a day, as long as a hot window by default.
const WANTED_KEPT_MS: u64 = 86_400_000;

/// Messages that the receipts of one write are about: some 0.5 ms in the store.
const UPDATES_MAX: usize = 500;

/// Receipts that one vnode owes, some 1 kB each, 40 kB at most. One sender may have at most as many of them as are free,
/// and there are as many again for the first of who has none. Beyond that what an acknowledgement covers is put off.
const OWED_MAX: usize = 1_000;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Became {
    Delivered,
    Read,
}

/// A receipt that is in the store until its receiver's home has confirmed it.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) receipt: PendingReceipt,
    /// It says that messages are there: not before the log has everything up to here (rule 13).
    pub(super) need: Seq,
    pub(super) under_way: bool,
}

/// The receipts of a vnode that lives here.
#[derive(Debug, Default)]
pub(crate) struct HomeReceipts {
    wanted: Deadlines<ReceiptRequest>,
    /// Who asked for most of them.
    askers: Most<InboxPosition>,
    /// What became of messages, and what is wanted no more: not in the store yet.
    updates: VecDeque<(InboxPosition, ReceiptRequest, Option<Became>)>,
    /// In the write that is in flight.
    written: Vec<(MessageId, PendingReceipt)>,
    /// In the store.
    pub(super) owed: BTreeMap<MessageId, Owed>,
    /// Confirmed, and still in the store.
    paid: Vec<MessageId>,
    /// Composed under this epoch.
    composed: u64,
    places: Places,
    /// Up to where users have or read what was sent to them, of which somebody had no place for one more receipt.
    put_off: BTreeMap<(UserId, Became), Cursor>,
}

/// Whose receipts there are: owed, in the write in flight, or to be composed.
#[derive(Debug, Default)]
struct Places {
    of: BTreeMap<UserId, usize>,
    all: usize,
    /// To be composed: what, of whom, for whom.
    promised: BTreeSet<ReceiptOf>,
}

/// What became of messages, whose they are now, and who sent them.
type ReceiptOf = (Became, UserId, UserId);

impl Places {
    fn take(&mut self, to: &UserId) {
        *self.of.entry(to.clone()).or_default() += 1;
        self.all += 1;
    }

    /// Takes a place for a receipt that is to be composed, if it has none yet and there is one.
    fn promise(&mut self, of: ReceiptOf) -> bool {
        if self.promised.contains(&of) {
            return true;
        }
        let mine = self.of.get(&of.2).copied().unwrap_or_default();
        let has_place = has_place(mine, self.all, OWED_MAX);
        if has_place {
            self.take(&of.2);
            self.promised.insert(of);
        }
        has_place
    }

    /// It is composed. Of many messages there may be more than one.
    fn keep(&mut self, of: &ReceiptOf) {
        if !self.promised.remove(of) {
            self.take(&of.2);
        }
    }

    fn give_back(&mut self, to: &UserId) {
        let Some(mine) = self.of.get_mut(to) else { return };
        (*mine, self.all) = (*mine - 1, self.all - 1);
        if *mine == 0 {
            self.of.remove(to);
        }
    }
}

impl HomeReceipts {
    pub(crate) fn inherited(
        wanted: Vec<(InboxPosition, ReceiptRequest)>,
        owed: Vec<(MessageId, PendingReceipt)>,
    ) -> Self {
        let mut home = Self::default();
        for (place, wanted) in wanted {
            home.want(place, wanted);
        }
        owed.iter().for_each(|(_, owed)| home.places.take(&owed.to));
        // The inherited outbox is out before anything is sent.
        home.owe(owed, Seq(0));
        home
    }

    fn owe(&mut self, receipts: Vec<(MessageId, PendingReceipt)>, need: Seq) {
        let owed = |(id, receipt)| (id, Owed { receipt, need, under_way: false });
        self.owed.extend(receipts.into_iter().map(owed));
    }

    pub(crate) fn want(&mut self, place: InboxPosition, wanted: ReceiptRequest) {
        self.remove(&place);
        self.askers.insert(wanted.from.as_str(), wanted.since_ms, place.clone());
        self.wanted.insert(place, wanted.since_ms, wanted);
    }

    fn remove(&mut self, place: &InboxPosition) -> Option<ReceiptRequest> {
        let wanted = self.wanted.remove(place)?;
        self.askers.remove(wanted.from.as_str(), wanted.since_ms, place);
        Some(wanted)
    }

    /// `user` has everything up to `cursor`, or has read it.
    pub(crate) fn cover(&mut self, user: &UserId, cursor: Cursor, became: Became) {
        let known = |wanted: &ReceiptRequest| became == Became::Delivered && wanted.delivered;
        let covered = self.wanted.covered(user, cursor).filter(|(_, wanted)| !known(wanted));
        let covered: Vec<_> = covered.map(|(place, wanted)| (place.clone(), wanted.from.clone())).collect();
        for (place, from) in covered {
            if !self.places.promise((became, user.clone(), from)) {
                let until = self.put_off.entry((user.clone(), became)).or_default();
                *until = cursor.max(*until);
                continue;
            }
            let wanted = match became {
                Became::Read => self.remove(&place),
                Became::Delivered => self.wanted.get_mut(&place).map(|wanted| {
                    wanted.delivered = true;
                    wanted.clone()
                }),
            };
            self.updates.extend(wanted.map(|wanted| (place, wanted, Some(became))));
        }
    }

    /// What was put off is covered as far as there are places now.
    pub(super) fn cover_what_was_put_off(&mut self) {
        for ((user, became), cursor) in std::mem::take(&mut self.put_off) {
            self.cover(&user, cursor, became);
        }
    }

    /// Its home has confirmed it; false if it is not owed.
    pub(super) fn is_paid(&mut self, id: &MessageId) -> bool {
        let Some(Owed { receipt: owed, .. }) = self.owed.remove(id) else { return false };
        self.places.give_back(&owed.to);
        self.paid.push(id.clone());
        true
    }

    /// Nobody waits for these any more: too old, or too many.
    pub(super) fn forget_old(&mut self, clock_ms: u64) {
        while let Some((since_ms, oldest)) = self.wanted.oldest() {
            let old = clock_ms >= since_ms + WANTED_KEPT_MS;
            let place = if old { Some(oldest) } else { self.askers.oldest() };
            let Some(place) = place.filter(|_| old || self.wanted.len() > WANTED_MAX).cloned() else { break };
            let forgotten = self.remove(&place).map(|wanted| (place, wanted, None));
            self.updates.extend(forgotten);
        }
    }

    /// What the next write does about receipts; one receipt for each sender.
    pub(crate) fn next_op(&mut self, vnode: VnodeId, epoch: Epoch, now: Now) -> Option<Op> {
        let mut wanted = Vec::new();
        let mut told: BTreeMap<ReceiptOf, Vec<MessageId>> = BTreeMap::new();
        for (place, what, became) in self.updates.drain(..self.updates.len().min(UPDATES_MAX)) {
            if let Some(became) = became {
                let to = (became, place.0.clone(), what.from.clone());
                told.entry(to).or_default().push(what.id.clone());
            }
            wanted.push((place, (became == Some(Became::Delivered)).then_some(what)));
        }
        for (of, ids) in told {
            self.places.keep(&of);
            let (became, from, to) = of;
            self.composed += 1;
            let at = rfc3339(now.wall);
            let (name, receipt) = match became {
                Became::Delivered => ("delivered", Receipt::Delivered { ids, at }),
                Became::Read => ("read", Receipt::Read { ids, at }),
            };
            let id = MessageId::new(format!("{name}-{vnode}-{epoch}-{}", self.composed));
            let data = to_raw_value(&receipt).expect("plain fields always encode").into();
            self.written.push((id.expect("letters and digits"), PendingReceipt { from, to, data }));
        }
        let paid = std::mem::take(&mut self.paid).into_iter().map(|id| (id, None));
        let owed = self.written.iter().map(|(id, owed)| (id.clone(), Some(owed.clone())));
        let owed: Vec<_> = paid.chain(owed).collect();
        (!wanted.is_empty() || !owed.is_empty()).then_some(Op::Receipts { wanted, owed })
    }

    /// The write took effect, and what its receipts are about is in the log when that has everything up to `need`.
    pub(crate) fn done(&mut self, need: Seq) -> bool {
        let written = std::mem::take(&mut self.written);
        let some = !written.is_empty();
        self.owe(written, need);
        some
    }

    /// All that there are places for goes with the next write, or went.
    pub(crate) fn all_is_taken(&self) -> bool {
        self.updates.is_empty()
    }

    /// And nothing is put off.
    pub(crate) fn all_is_told(&self) -> bool {
        self.all_is_taken() && self.put_off.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::ids::Offset;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn at(offset: u64) -> Cursor {
        Cursor::new(Epoch(7), Offset(offset))
    }

    fn wanting(ids: &[(&str, &str)]) -> HomeReceipts {
        let mut home = HomeReceipts::default();
        for ((from, id), offset) in ids.iter().zip(1..) {
            let (from, id) = (user(from), MessageId::new(id).unwrap());
            home.want(
                (user("bob"), at(offset)),
                ReceiptRequest { from, id, since_ms: offset, delivered: false },
            );
        }
        home
    }

    /// Whom the next write tells what, and of how many messages it changes something.
    fn next(home: &mut HomeReceipts) -> (Vec<(String, String)>, usize) {
        let Some(Op::Receipts { wanted, owed }) = home.next_op(VnodeId(3), Epoch(9), Now::default()) else {
            return (vec![], 0);
        };
        home.done(Seq(0));
        let told = |(id, owed): (MessageId, Option<PendingReceipt>)| {
            let owed = owed?;
            let receipt: Receipt = serde_json::from_str(owed.data.get()).unwrap();
            let ids: Vec<_> = receipt.ids().iter().map(ToString::to_string).collect();
            let name = id.as_str().split('-').next().unwrap_or_default().to_owned();
            Some((owed.to.to_string(), format!("{name} {}", ids.join(" "))))
        };
        (owed.into_iter().filter_map(told).collect(), wanted.len())
    }

    pub(super) fn told(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(to, what)| ((*to).to_owned(), (*what).to_owned())).collect()
    }

    #[test]
    fn one_receipt_tells_a_sender_of_all_that_was_delivered() {
        let mut home = wanting(&[("alice", "a1"), ("carol", "c1"), ("alice", "a2"), ("alice", "a3")]);
        home.cover(&user("bob"), at(3), Became::Delivered);
        home.cover(&user("bob"), at(2), Became::Delivered);
        let first = told(&[("alice", "delivered a1 a2"), ("carol", "delivered c1")]);
        assert_eq!(next(&mut home), (first, 3));
        assert_eq!(next(&mut home), (vec![], 0), "once");
        home.cover(&user("bob"), at(4), Became::Delivered);
        home.cover(&user("bob"), at(4), Became::Read);
        let rest = [("alice", "delivered a3"), ("alice", "read a1 a2 a3"), ("carol", "read c1")];
        assert_eq!(next(&mut home), (told(&rest), 5));
        home.cover(&user("bob"), at(9), Became::Read);
        assert_eq!(next(&mut home), (vec![], 0), "nothing is to be told any more");
        assert_eq!(
            home.owed.keys().map(MessageId::as_str).collect::<Vec<_>>(),
            ["delivered-3-9-1", "delivered-3-9-2", "delivered-3-9-3", "read-3-9-4", "read-3-9-5"]
        );
    }

    #[test]
    fn who_asks_for_most_displaces_nobody_else() {
        let mut home = wanting(&[("alice", "a1")]);
        for n in 2..2 * WANTED_MAX as u64 {
            let id = MessageId::new(format!("e{n}")).unwrap();
            let from = user(["eve", "eve2", "eve3"][n as usize % 3]);
            home.want((user("bob"), at(n)), ReceiptRequest { from, id, since_ms: n, delivered: false });
            home.forget_old(n);
        }
        assert_eq!(home.wanted.len(), WANTED_MAX);
        home.updates.clear();
        home.cover(&user("bob"), at(1), Became::Read);
        assert_eq!(next(&mut home).0, told(&[("alice", "read a1")]));
    }

    /// The receipt of an acknowledgement that finds no place is put off, and not for ever.
    #[test]
    fn who_has_all_places_of_receipts_holds_up_its_own_and_nobody_loses_one() {
        let mut home = HomeReceipts::default();
        let mut offset = 0;
        let mut say = |home: &mut HomeReceipts, from: &str, to: &str| {
            offset += 1;
            let id = MessageId::new(format!("m{offset}")).unwrap();
            let request = ReceiptRequest { from: user(from), id, since_ms: 0, delivered: false };
            home.want((user(to), at(offset)), request);
            home.cover(&user(to), at(offset), Became::Delivered);
        };
        for n in 0..4 * OWED_MAX {
            say(&mut home, ["eve", "eve2", "eve3"][n % 3], &format!("puppet{n}"));
        }
        say(&mut home, "alice", "bob");
        let mut owed = 0;
        while !home.all_is_taken() {
            let _ = next(&mut home);
            owed = home.owed.len();
        }
        assert!(owed <= OWED_MAX + 1, "{owed}");
        assert!(home.owed.values().any(|owed| owed.receipt.to == user("alice")) && !home.all_is_told());
        let mut paid = 0;
        while let Some(id) = home.owed.keys().next().cloned() {
            assert!(home.is_paid(&id));
            paid += 1;
            home.cover_what_was_put_off();
            let _ = next(&mut home);
        }
        assert!(paid == 4 * OWED_MAX + 1 && home.all_is_told(), "each has one in the end");
        assert!(home.places.of.is_empty() && home.places.all == 0 && home.places.promised.is_empty());
    }

    #[test]
    fn what_waits_for_too_long_is_forgotten_in_the_store_too() {
        let mut home = wanting(&[("alice", "a1"), ("alice", "a2")]);
        home.forget_old(WANTED_KEPT_MS + 1);
        assert_eq!(next(&mut home), (vec![], 1));
        home.cover(&user("bob"), at(2), Became::Read);
        assert_eq!(next(&mut home), (told(&[("alice", "read a2")]), 1));
    }
}
