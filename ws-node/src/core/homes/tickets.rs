//! Events of clients that wait for a result (docs/decisions/0014): they go out to the processors through the home of
//! their client, which answers itself when nobody else did in time.

use std::collections::BTreeMap;

use roost_backend::store::{Ticket, TicketId};
use roost_proto::ids::UserId;
use roost_service::permits::has_place;

use crate::core::homes::deadlines::Deadlines;

/// Events of one vnode that may wait, some 200 bytes each here, and those of one client; more are refused until some
/// are answered, or have waited long enough.
const TICKETS_MAX: usize = 10_000;

const TICKETS_OF_ONE_MAX: usize = 256;

/// The events of a vnode that lives here.
#[derive(Debug, Default)]
pub(crate) struct HomeTickets {
    /// By age those whose time is not over.
    pub(super) open: Deadlines<Ticket, TicketId>,
    of_clients: BTreeMap<UserId, usize>,
}

impl HomeTickets {
    pub(crate) fn inherited(tickets: Vec<(TicketId, Ticket)>) -> Self {
        let mut home = Self::default();
        for (id, ticket) in tickets {
            home.open(id, ticket);
        }
        home
    }

    pub(crate) fn open(&mut self, id: TicketId, ticket: Ticket) {
        self.close(&id);
        *self.of_clients.entry(id.0.clone()).or_default() += 1;
        self.open.insert(id, ticket.since_ms, ticket);
    }

    pub(crate) fn close(&mut self, id: &TicketId) {
        let there = self.open.remove(id).is_some();
        if there && let Some(of_client) = self.of_clients.get_mut(&id.0) {
            *of_client -= 1;
            if *of_client == 0 {
                self.of_clients.remove(&id.0);
            }
        }
    }

    /// Whether one more of this client may wait, with so many on their way here.
    pub(crate) fn has_room(&self, client: &UserId, coming: usize) -> bool {
        let of_client = self.of_clients.get(client).copied().unwrap_or_default() + coming;
        of_client < TICKETS_OF_ONE_MAX && has_place(of_client, self.open.len() + coming, TICKETS_MAX)
    }

    /// At most `max` of those whose time is over, oldest first; they are not told again.
    pub(super) fn overdue(&mut self, clock_ms: u64, after_ms: u64, max: usize) -> Vec<TicketId> {
        let mut overdue = Vec::new();
        while overdue.len() < max && self.open.oldest().is_some_and(|(since, _)| clock_ms >= since + after_ms)
        {
            overdue.extend(self.open.pass_over());
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use roost_proto::ids::MessageId;

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
