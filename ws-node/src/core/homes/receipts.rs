//! Receipts: senders who asked are told what became of their messages (docs/decisions/0013).
//!
//! The append notes in the store who wants to know. The write that takes an acknowledgement also puts the receipt
//! into a list there, which outlives its home; from the list it goes to the sender's home as any message does, under
//! an id by which a repeat is found, and it leaves the list when that home has confirmed it.

use std::collections::{BTreeMap, VecDeque};

use roost_backend::store::{InboxPosition, Op, PendingReceipt, ReceiptRequest};
use roost_proto::events::Receipt;
use roost_proto::ids::{Cursor, Epoch, MessageId, Seq, UserId, VnodeId};
use roost_proto::time::rfc3339;
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

/// Receipts that one vnode owes, some 1 kB each, 40 kB at most; beyond it acknowledgements wait for their receipts.
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
    pub(super) paid: Vec<MessageId>,
    /// Composed under this epoch.
    composed: u64,
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
        for place in covered.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
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
        let mut told: BTreeMap<(Became, UserId, UserId), Vec<MessageId>> = BTreeMap::new();
        for (place, what, became) in self.updates.drain(..self.updates.len().min(UPDATES_MAX)) {
            if let Some(became) = became {
                let to = (became, place.0.clone(), what.from.clone());
                told.entry(to).or_default().push(what.id.clone());
            }
            wanted.push((place, (became == Some(Became::Delivered)).then_some(what)));
        }
        for ((became, from, to), ids) in told {
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

    /// More are owed than can be paid.
    pub(crate) fn is_full(&self) -> bool {
        self.owed.len() >= OWED_MAX
    }

    pub(crate) fn all_is_told(&self) -> bool {
        self.updates.is_empty()
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

    #[test]
    fn what_waits_for_too_long_is_forgotten_in_the_store_too() {
        let mut home = wanting(&[("alice", "a1"), ("alice", "a2")]);
        home.forget_old(WANTED_KEPT_MS + 1);
        assert_eq!(next(&mut home), (vec![], 1));
        home.cover(&user("bob"), at(2), Became::Read);
        assert_eq!(next(&mut home), (told(&[("alice", "read a2")]), 1));
    }
}
