//! Events of clients that wait for a result (docs/decisions/0014): they go out to the processors through the home of
//! their client, which answers itself when nobody else did in time.

use std::collections::BTreeMap;

use roost_backend::store::{AppendOp, Closes, EventOp, Ticket, TicketId};
use roost_proto::frames;
use roost_proto::ids::{MessageId, StreamId, UserId, VnodeId};
use roost_proto::records::{Append, Event, ItemBody};
use roost_proto::results::{RESULT, TIMER, timed_out};
use roost_service::turns::has_place;
use serde::Serialize;

use super::NodeCore;
use super::config::CoreConfig;
use super::events::{Now, SessionKey};
use super::home::Work;
use super::message::append_op;
use super::places::Places;

/// Events of one vnode that may wait, some 200 bytes each here, and those of one client; more are refused until some
/// are answered, or have waited long enough.
const TICKETS_MAX: usize = 10_000;
const TICKETS_OF_ONE_MAX: usize = 256;
/// And those that one client may send while its home is on its way.
const TICKETS_ELSEWHERE_MAX: usize = 16;
/// Tickets that one node shows at once: some 100 kB.
pub(super) const SHOWN_MAX: usize = 1000;

/// The events of a vnode that lives here.
#[derive(Debug, Default)]
pub struct HomeTickets {
    /// By age those whose time is not over.
    open: Places<Ticket, TicketId>,
    of_clients: BTreeMap<UserId, usize>,
}

impl HomeTickets {
    pub fn inherited(tickets: Vec<(TicketId, Ticket)>) -> Self {
        let mut home = Self::default();
        for (id, ticket) in tickets {
            home.open(id, ticket);
        }
        home
    }

    pub fn open(&mut self, id: TicketId, ticket: Ticket) {
        self.close(&id);
        *self.of_clients.entry(id.0.clone()).or_default() += 1;
        self.open.insert(id, ticket.since_ms, ticket);
    }

    pub fn close(&mut self, id: &TicketId) {
        let there = self.open.remove(id).is_some();
        if there && let Some(of_client) = self.of_clients.get_mut(&id.0) {
            *of_client -= 1;
            if *of_client == 0 {
                self.of_clients.remove(&id.0);
            }
        }
    }

    /// Whether one more of this client may wait, with so many on their way here.
    pub fn has_room(&self, client: &UserId, coming: usize) -> bool {
        let of_client = self.of_clients.get(client).copied().unwrap_or_default() + coming;
        of_client < TICKETS_OF_ONE_MAX && has_place(of_client, self.open.len() + coming, TICKETS_MAX)
    }

    /// At most `max` of those whose time is over, oldest first; they are not told again.
    fn overdue(&mut self, clock_ms: u64, after_ms: u64, max: usize) -> Vec<TicketId> {
        let mut overdue = Vec::new();
        while overdue.len() < max && self.open.oldest().is_some_and(|(since, _)| clock_ms >= since + after_ms)
        {
            overdue.extend(self.open.pass_over());
        }
        overdue
    }
}

/// An event that waits, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TicketShown {
    pub client_id: UserId,
    pub event_id: MessageId,
    /// Milliseconds since 1970.
    pub at: u64,
    pub age_ms: u64,
}

impl NodeCore {
    pub(super) fn on_client_event(&mut self, key: SessionKey, event: frames::Event, now: Now) {
        let Some(session) = self.sessions.get(&key) else { return };
        let client = session.user.clone();
        let item = (StreamId::inbox(&client), EventOp::BY.to_owned(), event.id.clone());
        let body = ItemBody::Event(Event { client, id: event.id, data: event.data });
        self.queue_item(key, item, &body, now);
    }

    /// Whether one more event of this client may wait for a result: those on their way to its home count.
    pub(super) fn events_have_room(&self, vnode: VnodeId, client: &UserId) -> bool {
        let coming = self.shares.load(client).events;
        match self.homes.get(&vnode) {
            Some(home) => home.tickets.has_room(client, coming),
            // How many wait there is not known.
            None => coming < TICKETS_ELSEWHERE_MAX,
        }
    }

    /// Tells who got no result in time. One that comes later is delivered all the same.
    pub(super) fn sweep_tickets(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode).filter(|h| h.serving(now)) else { return };
        // Half of the queue is for what is sent.
        let room = (self.cfg.queue_max / 2).saturating_sub(home.queue.len());
        let clock_ms = home.clock_ms(&self.cfg, now);
        for id in home.tickets.overdue(clock_ms, self.cfg.event_timeout_ms, room) {
            let Some(ticket) = home.tickets.open.get_mut(&id).copied() else { continue };
            let op = timeout_op(&self.cfg, &id, ticket, clock_ms, now);
            home.queue.push_back(Work::TimedOut { op, arrived_us: now.us });
            self.dirty.insert(vnode);
        }
    }

    /// The events of this node's users that wait, or of one of them; and how many there are.
    pub fn tickets(&self, client: Option<&UserId>, now: Now) -> (Vec<TicketShown>, usize) {
        let (mut shown, mut count) = (Vec::new(), 0);
        for home in self.homes.values() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(client: &str, event: &str) -> TicketId {
        (UserId::new(client).unwrap(), MessageId::new(event).unwrap())
    }

    #[test]
    fn each_is_overdue_once_and_none_that_was_answered() {
        let ticket = |since_ms| Ticket { since_ms, at: 0 };
        let waiting =
            [(id("bob", "1"), ticket(30)), (id("bob", "2"), ticket(10)), (id("eve", "1"), ticket(20))];
        let mut home = HomeTickets::inherited(waiting.to_vec());
        home.close(&id("eve", "1"));
        assert!(home.overdue(39, 30, 9).is_empty());
        assert_eq!(home.overdue(60, 30, 1), [id("bob", "2")]);
        assert_eq!(home.overdue(60, 30, 9), [id("bob", "1")]);
        assert!(home.overdue(60, 30, 9).is_empty());
        assert_eq!(home.open.len(), 2, "until it was told each still waits");
    }

    #[test]
    fn one_client_leaves_room_for_the_others() {
        let mut home = HomeTickets::default();
        for n in 0..TICKETS_OF_ONE_MAX {
            let event = id("bob", &format!("e{n}"));
            assert!(home.has_room(&event.0, 0));
            for _ in 0..2 {
                home.open(event.clone(), Ticket { since_ms: 0, at: 0 });
            }
        }
        let (bob, eve) = (id("bob", "e0"), id("eve", "e0"));
        assert!(!home.has_room(&bob.0, 0) && home.has_room(&eve.0, 255) && !home.has_room(&eve.0, 256));
        home.close(&bob);
        home.close(&bob);
        assert!(home.has_room(&bob.0, 0) && !home.has_room(&bob.0, 1));
    }

    #[test]
    fn many_clients_leave_room_for_one_more() {
        let mut home = HomeTickets::default();
        for client in 0..1000 {
            for n in 0..TICKETS_OF_ONE_MAX {
                let event = id(&format!("eve{client}"), &format!("e{n}"));
                if home.has_room(&event.0, 0) {
                    home.open(event, Ticket { since_ms: 0, at: 0 });
                }
            }
        }
        assert!(home.open.len() < 2 * TICKETS_MAX && home.has_room(&id("alice", "e").0, 0));
    }
}
