//! Events of clients that wait for a result.

use roost_proto::events::numbered_bytes;
use roost_proto::ids::{MessageId, Offset, Seq, StreamId, UserId};

use super::data::{Change, Known, VnodeData, json};
use crate::store::*;

impl VnodeData {
    pub(super) fn event(&mut self, op: &EventOp, fence: &Fence, now: u64, seq: &mut Seq) -> OpResult {
        let inbox = StreamId::inbox(&op.client);
        if let Some(known) = self.known(&inbox, EventOp::BY, &op.id, now) {
            return known.answer(op.hash);
        }
        self.know(&inbox, EventOp::BY, &op.id, Known { offset: Offset(0), at: op.at, hash: op.hash });
        let ticket = Ticket { since_ms: now, at: op.at };
        self.put("ticket", op.client.as_str(), op.id.as_str(), 0, || json(&ticket));
        self.tickets.insert((op.client.clone(), op.id.clone()), ticket);
        seq.0 += 1;
        let payload = numbered_bytes(fence.vnode, fence.epoch, *seq, &op.rest);
        let (topic, key) = (EventTopic::Client, op.client.to_string());
        self.push_event(OutboxEvent { seq: *seq, topic, key, payload });
        OpResult::Accepted
    }

    /// Whether the message may be taken; then its event waits no more.
    pub(super) fn close(&mut self, client: &UserId, closes: &Closes) -> bool {
        match closes {
            Closes::Answered(event) => self.take_ticket(client, event) || self.knows(client),
            Closes::TimedOut(event) => self.take_ticket(client, event),
        }
    }

    /// By client and id.
    pub fn all_tickets(&self) -> Vec<(TicketId, Ticket)> {
        self.tickets.iter().map(|(id, ticket)| (id.clone(), *ticket)).collect()
    }

    fn take_ticket(&mut self, client: &UserId, event: &MessageId) -> bool {
        let there = self.tickets.remove(&(client.clone(), event.clone())).is_some();
        if there {
            let (stream, key) = (client.to_string(), event.to_string());
            self.remove(Change::Remove { table: "ticket", stream, key });
        }
        there
    }
}
