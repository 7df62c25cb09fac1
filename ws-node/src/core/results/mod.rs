//! Results of the application's processors, on their way to the inboxes of their clients (docs/decisions/0014).
//!
//! A partition of `client_results` is read by the home of one vnode, so the table of leases says who reads what, and
//! nobody joins a group. A page of it is handed out through the channels, as any message is: to each client one result
//! after the other, so that they keep their order. When all of a page are confirmed it is committed, and the next is
//! read. Two readers for a moment do no harm: a result is found by its id.

pub(in crate::core) mod handing;

use std::collections::{BTreeMap, VecDeque};

use roost_backend::log::LogRecord;
use roost_proto::ids::UserId;
use roost_proto::results::ClientResult;

/// The pages that this node is handing out.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// By partition: those that this node reads.
    pages: BTreeMap<u32, ResultsPage>,
    /// By their numbers: where those are that are under way.
    under_way: BTreeMap<u64, (u32, UserId)>,
    /// Counts readings and results.
    last: u64,
}

/// What was read of a partition and is not confirmed yet.
#[derive(Debug)]
pub(super) struct ResultsPage {
    /// Names this reading of the partition.
    ask: u64,
    /// The offset after its last record, if there is a page.
    next: Option<u64>,
    /// What is left of it; the first of each client may be under way.
    clients: BTreeMap<UserId, (VecDeque<Left>, Option<u64>)>,
}

#[derive(Debug)]
pub(super) struct Left {
    result: ClientResult,
    record: LogRecord,
}

impl Results {
    fn number(&mut self, partition: u32, client: &UserId) -> u64 {
        self.last += 1;
        self.under_way.insert(self.last, (partition, client.clone()));
        self.last
    }

    fn leave(&mut self, partition: u32) {
        self.pages.remove(&partition);
        self.under_way.retain(|_, (of, _)| *of != partition);
    }

    /// The first of a client's, where it is the one with this number.
    fn handed(&self, number: u64) -> Option<&Left> {
        let (partition, client) = self.under_way.get(&number)?;
        let (left, _) = self.pages.get(partition)?.clients.get(client)?;
        left.front()
    }

    /// One is done with, and the partition goes on; or it is to be tried again.
    fn settle(&mut self, number: u64, done: bool) -> Option<u32> {
        let (partition, client) = self.under_way.remove(&number)?;
        let page = self.pages.get_mut(&partition)?;
        let (left, under_way) = page.clients.get_mut(&client)?;
        under_way.take_if(|is| *is == number)?;
        if done {
            left.pop_front();
        }
        if left.is_empty() {
            page.clients.remove(&client);
        }
        done.then_some(partition)
    }
}
