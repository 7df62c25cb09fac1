//! Receipts that a home owes go to their senders' homes.

use std::collections::BTreeMap;

use roost_backend::store::PendingReceipt;
use roost_proto::events::RECEIPT;
use roost_proto::ids::{MessageId, StreamId, VnodeId};
use roost_proto::records::{Append, ItemBody, ItemResult};

use crate::core::channels::asker::Asker;
use crate::core::channels::channel::By;
use crate::core::keys::Now;
use crate::core::message::{BY, ItemKey};
use crate::core::node::NodeCore;

/// Receipts of one vnode on their way to their senders, and to those of one other vnode, which may be without a home.
const UNDER_WAY_MAX: usize = 64;

const UNDER_WAY_TO_ONE_MAX: usize = 8;

impl NodeCore {
    /// Four times a second: what is too old, and what could not be sent before.
    pub(super) fn sweep_receipts(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get_mut(&vnode).filter(|h| h.serving(now)) else { return };
        let clock_ms = home.clock_ms(&self.cfg, now);
        home.receipts.forget_old(clock_ms);
        home.receipts.cover_what_was_put_off();
        if !home.receipts.all_is_taken() {
            home.write_soon(now);
        }
        self.send_receipts(vnode, now);
    }

    /// Sends what is owed, may be said, and is not on its way yet, as far as there is room.
    pub(super) fn send_receipts(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get(&vnode).filter(|h| h.serving(now)) else { return };
        let to = |owed: &PendingReceipt| self.vnode_of(&StreamId::inbox(&owed.to));
        let mut under_way: BTreeMap<VnodeId, usize> = BTreeMap::new();
        for owed in home.receipts.owed.values().filter(|owed| owed.under_way) {
            *under_way.entry(to(&owed.receipt)).or_default() += 1;
        }
        let mut room = UNDER_WAY_MAX.saturating_sub(under_way.values().sum());
        let mut unpaid = Vec::new();
        let logged = home.outbox.reported();
        for (id, owed) in home.receipts.owed.iter().filter(|(_, o)| !o.under_way && o.need <= logged) {
            if room == 0 {
                break;
            }
            let to = under_way.entry(to(&owed.receipt)).or_default();
            if *to < UNDER_WAY_TO_ONE_MAX {
                (*to, room) = (*to + 1, room - 1);
                unpaid.push((id.clone(), owed.receipt.clone()));
            }
        }
        for (id, receipt) in unpaid {
            let sent = self.send_receipt(vnode, &id, receipt, now);
            if let Some(owed) = self.homes.map.get_mut(&vnode).and_then(|h| h.receipts.owed.get_mut(&id)) {
                owed.under_way = sent;
            }
        }
    }

    fn send_receipt(&mut self, vnode: VnodeId, id: &MessageId, owed: PendingReceipt, now: Now) -> bool {
        let stream = StreamId::inbox(&owed.to);
        let to = self.vnode_of(&stream);
        if !self.has_own_place(to) {
            return false;
        }
        let item: ItemKey = (stream.clone(), BY.to_owned(), id.clone());
        let (from, id, kind) = (owed.from.to_string(), id.clone(), RECEIPT.into());
        let append = Append { stream, from, id, kind, data: owed.data.into(), receipt: false, answers: None };
        let item = self.item(By::Own, item, &ItemBody::Append(append), Asker::Receipt(vnode), now);
        self.queue(item, now);
        true
    }

    /// What the sender's home did with a receipt; `None`: nothing is known of it, and it is sent again.
    pub(in crate::core) fn receipt_answered(
        &mut self,
        vnode: VnodeId,
        id: &MessageId,
        result: Option<&ItemResult>,
        now: Now,
    ) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        let done = matches!(result, Some(ItemResult::Ok { .. } | ItemResult::Conflict | ItemResult::Bad));
        if !done {
            if let Some(owed) = home.receipts.owed.get_mut(id) {
                owed.under_way = false;
            }
        } else if home.receipts.is_paid(id) {
            home.write_soon(now);
            self.fx.count().receipts += 1;
        }
    }
}
