//! What a home does because time went by.

use roost_backend::store::{AppendOp, Closes, Ticket, TicketId};
use roost_proto::ids::{MessageId, StreamId, UserId, VnodeId};
use roost_proto::records::Append;
use roost_proto::results::{RESULT, TIMER, timed_out};
use serde::Serialize;

use crate::core::config::CoreConfig;
use crate::core::homes::SWEEP_MS;
use crate::core::homes::home::Phase;
use crate::core::homes::work::Work;
use crate::core::keys::Now;
use crate::core::message::append_op;
use crate::core::node::NodeCore;

/// Tickets that one node shows at once: some 100 kB.
pub(super) const SHOWN_MAX: usize = 1000;

/// An event that waits, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TicketShown {
    pub client_id: UserId,
    pub event_id: MessageId,
    /// Milliseconds since 1970.
    pub at: u64,
    pub age_ms: u64,
}

fn timeout_op(cfg: &CoreConfig, id: &TicketId, ticket: Ticket, clock_ms: u64, now: Now) -> AppendOp {
    let (client, event) = id;
    let append = Append {
        stream: StreamId::inbox(client),
        from: TIMER.into(),
        id: event.clone(),
        kind: RESULT.into(),
        data: timed_out(client, event, ticket.at),
        receipt: false,
        answers: None,
    };
    let op = append_op(append, now.wall, clock_ms, cfg.undelivered_after_ms > 0);
    AppendOp { closes: Some(Closes::TimedOut(event.clone())), ..op }
}

impl NodeCore {
    pub(in crate::core) fn tick_homes(&mut self, now: Now) {
        let sweep = now.mono >= self.homes.swept_at + SWEEP_MS;
        if sweep {
            self.homes.swept_at = now.mono;
        }
        for vnode in self.homes.map.keys().copied().collect::<Vec<_>>() {
            self.ask_again(vnode, now);
            let Some(home) = self.homes.map.get_mut(&vnode) else { continue };
            let suspended = home.phase != Phase::Activating && !home.leased(now);
            if suspended && !home.suspended {
                self.fx.count().suspensions += 1;
            }
            home.suspended = suspended;
            let over = home.lease_until + self.cfg.grace_ms;
            if sweep {
                let view = self.membership.view();
                home.senders.retain(|sid, _| !view.ended(sid));
            }
            let cut_off = self.homes.no_log_since.is_some_and(|at| now.mono >= at + self.cfg.grace_ms);
            if suspended && cut_off && now.mono >= over {
                self.give_up_sessions(vnode, now);
            }
            self.fx.touch(vnode);
            if sweep {
                self.sweep_presence(vnode, now);
                self.sweep_members(vnode, now);
                self.sweep_unacked(vnode, now);
                self.sweep_receipts(vnode, now);
                self.sweep_tickets(vnode, now);
            }
        }
        self.emit_draining(now);
    }

    /// Reports what nobody acknowledged in time.
    fn sweep_unacked(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get_mut(&vnode).filter(|h| h.serving(now)) else { return };
        // Half of the queue is for what is sent.
        let room = (self.cfg.queue_max / 2).saturating_sub(home.queue.len());
        let clock_ms = home.clock_ms(&self.cfg, now);
        for (place, bytes) in home.unacked.overdue(clock_ms, self.cfg.undelivered_after_ms, room, now) {
            home.queue.push_back(Work::Undelivered { place, bytes });
            self.fx.touch(vnode);
        }
    }

    /// Tells who got no result in time. One that comes later is delivered all the same.
    fn sweep_tickets(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get_mut(&vnode).filter(|h| h.serving(now)) else { return };
        // Half of the queue is for what is sent.
        let room = (self.cfg.queue_max / 2).saturating_sub(home.queue.len());
        let clock_ms = home.clock_ms(&self.cfg, now);
        for id in home.tickets.overdue(clock_ms, self.cfg.event_timeout_ms, room) {
            let Some(ticket) = home.tickets.open.get_mut(&id).copied() else { continue };
            let op = timeout_op(&self.cfg, &id, ticket, clock_ms, now);
            home.queue.push_back(Work::TimedOut { op, arrived_us: now.us });
            self.fx.touch(vnode);
        }
    }

    /// The events of this node's users that wait, or of one of them; and how many there are.
    pub fn tickets(&self, client: Option<&UserId>, now: Now) -> (Vec<TicketShown>, usize) {
        let (mut shown, mut count) = (Vec::new(), 0);
        for home in self.homes.map.values() {
            let clock_ms = home.clock_ms(&self.cfg, now);
            for ((of, event), ticket) in home.tickets.open.iter() {
                if client.is_some_and(|client| client != of) {
                    continue;
                }
                count += 1;
                let age_ms = clock_ms.saturating_sub(ticket.since_ms);
                let (client_id, event_id) = (of.clone(), event.clone());
                shown.push(TicketShown { client_id, event_id, at: ticket.at, age_ms });
            }
        }
        // The oldest matter most.
        shown.sort_by(|a, b| b.age_ms.cmp(&a.age_ms).then_with(|| a.event_id.cmp(&b.event_id)));
        shown.truncate(SHOWN_MAX);
        (shown, count)
    }
}
