//! Results of the application's processors, on their way to the inboxes of their clients (docs/decisions/0014).
//!
//! A partition of `client_results` is read by the home of one vnode, so the table of leases says who reads what, and
//! nobody joins a group. A page of it is handed out through the channels, as any message is: to each client one result
//! after the other, so that they keep their order. When all of a page are confirmed it is committed, and the next is
//! read. Two readers for a moment do no harm: a result is found by its id.

use std::collections::{BTreeMap, VecDeque};

use roost_backend::log::{Lane, LogRecord, Outgoing};
use roost_proto::ids::{StreamId, UserId, VnodeId};
use roost_proto::records::{Append, ItemBody, ItemResult};
use roost_proto::results::{CLIENT_RESULTS, ClientResult, DEAD_LETTERS, PROCESSOR, RESULT, Refused};
use serde_json::value::RawValue;

use super::asker::Asker;
use super::channel::{Attached, By};
use super::config::CoreConfig;
use super::events::Now;
use super::message::key_of;
use super::{Action, NodeCore, Token};

/// Of a record's key, in a dead letter.
const KEY_BYTES_MAX: usize = 1024;

/// The pages that this node is handing out.
#[derive(Debug, Default)]
pub struct Results {
    /// By partition: those that this node reads.
    pages: BTreeMap<u32, Page>,
    /// By their numbers: where those are that are under way.
    under_way: BTreeMap<u64, (u32, UserId)>,
    /// Counts readings and results.
    last: u64,
}

/// What was read of a partition and is not confirmed yet.
#[derive(Debug)]
struct Page {
    /// Names this reading of the partition.
    ask: u64,
    /// The offset after its last record, if there is a page.
    next: Option<u64>,
    /// What is left of it; the first of each client may be under way.
    clients: BTreeMap<UserId, (VecDeque<Left>, Option<u64>)>,
}

#[derive(Debug)]
struct Left {
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

/// Whose home reads a partition.
fn reader_of(partition: u32, cfg: &CoreConfig) -> VnodeId {
    VnodeId((u64::from(partition) * u64::from(cfg.vnodes) / u64::from(cfg.partitions)) as u16)
}

impl NodeCore {
    /// Begins to read what this node should read and no longer what it should not; hands out what waits.
    pub(super) fn tick_results(&mut self, now: Now) {
        for partition in 0..self.cfg.partitions {
            let home = self.homes.get(&reader_of(partition, &self.cfg));
            let mine = home.is_some_and(|home| home.serving(now));
            let reads = self.results.pages.contains_key(&partition);
            if mine && !reads {
                self.results.last += 1;
                let ask = self.results.last;
                self.results.pages.insert(partition, Page { ask, next: None, clients: BTreeMap::new() });
                self.out.push(Action::ReadResults { partition, ask });
            } else if reads && !mine {
                self.results.leave(partition);
                self.out.push(Action::LeaveResults { partition });
            }
            self.hand_out(partition, now);
        }
    }

    /// A page of a partition; the next one comes when this one is done with.
    pub(super) fn on_results(&mut self, partition: u32, ask: u64, records: Vec<LogRecord>, now: Now) {
        let Some(page) = self.results.pages.get_mut(&partition).filter(|p| p.ask == ask && p.next.is_none())
        else {
            return;
        };
        page.next = records.last().map(|record| record.position.offset + 1);
        for record in records {
            match ClientResult::parse(&record.payload) {
                Ok(result) => {
                    let client = result.client_id.clone();
                    page.clients.entry(client).or_default().0.push_back(Left { result, record });
                }
                // The archive finds the same, and keeps it as a dead letter.
                Err(_) => self.counters.results_malformed += 1,
            }
        }
        self.hand_out(partition, now);
    }

    fn hand_out(&mut self, partition: u32, now: Now) {
        let Some(page) = self.results.pages.get(&partition) else { return };
        let waiting = page.clients.iter().filter(|(_, (_, under_way))| under_way.is_none());
        for client in waiting.map(|(client, _)| client.clone()).collect::<Vec<_>>() {
            while self.hand_next(partition, &client, now) {}
        }
        self.page_done(partition);
    }

    /// Hands out a client's next; true if it was answered at once, and there may be another.
    fn hand_next(&mut self, partition: u32, client: &UserId, now: Now) -> bool {
        let stream = StreamId::inbox(client);
        let to = self.vnode_of(&stream);
        if !self.has_own_place(to) {
            return false;
        }
        let Some(page) = self.results.pages.get(&partition) else { return false };
        let waiting = page.clients.get(client).filter(|(_, under_way)| under_way.is_none());
        let Some(left) = waiting.and_then(|(left, _)| left.front()) else { return false };
        let ClientResult { result_id: id, event_id: event, record, .. } = left.result.clone();
        let data: Box<RawValue> = record.into();
        let number = self.results.number(partition, client);
        if let Some((_, under_way)) =
            self.results.pages.get_mut(&partition).and_then(|page| page.clients.get_mut(client))
        {
            *under_way = Some(number);
        }
        let (from, kind) = (PROCESSOR.to_owned(), RESULT.to_owned());
        let append = Append { stream, from, id, kind, data, receipt: false, answers: Some(event) };
        let item = self.item(By::Own, key_of(&append), &ItemBody::Append(append), Asker::Result(number), now);
        match self.queue(item, now) {
            Attached::No => {}
            Attached::Yes { .. } => self.pump(to, now),
            // Another record with its id is before it, and that one stands.
            Attached::Conflict => {
                self.counters.results_conflicting += 1;
                return self.results.settle(number, true).is_some();
            }
        }
        false
    }

    /// What the client's home did with a result; `None`: nothing is known of it, and it is handed out again.
    pub(super) fn result_answered(&mut self, number: u64, result: Option<&ItemResult>, now: Now) {
        match result {
            Some(ItemResult::Ok { .. }) => {
                self.counters.results += 1;
                self.result_done(number, true, now);
            }
            // The first with its id stands: a processor that did its work twice may well say it in other words.
            Some(ItemResult::Conflict) => {
                self.counters.results_conflicting += 1;
                self.result_done(number, true, now);
            }
            Some(ItemResult::Nobody) => {
                self.refuse_result(number, "unknown client: Roost has never heard of it")
            }
            Some(ItemResult::Bad) => self.refuse_result(number, "the home of its client could not read it"),
            _ => self.result_done(number, false, now),
        }
    }

    /// Puts a result where operators find it; it counts as handed out when it is there.
    fn refuse_result(&mut self, number: u64, reason: &str) {
        let Some(left) = self.results.handed(number) else { return };
        let Left { result, record: LogRecord { position, key: named, payload, .. } } = left;
        // A stranger's key may be as large as a record, and what is made of it must fit into one.
        let named = &named[..named.len().min(KEY_BYTES_MAX)];
        let refused = Refused {
            topic: CLIENT_RESULTS.to_owned(),
            partition: position.partition,
            offset: position.offset,
            key: String::from_utf8_lossy(named).into_owned(),
            payload: String::from_utf8_lossy(payload).into_owned(),
            reason: reason.to_owned(),
        };
        let (partition, client) = (position.partition, result.client_id.to_string());
        let payload = serde_json::to_vec(&refused).expect("plain fields always encode").into();
        let token = self.token(Token::Refused { result: number });
        let record = Outgoing { topic: DEAD_LETTERS.into(), partition, key: client.into(), payload, token };
        self.out.push(Action::Produce { lane: Lane::Outbox, record });
    }

    /// Whether the log took a refused one.
    pub(super) fn refusal_reported(&mut self, number: u64, ok: bool, now: Now) {
        self.counters.results_refused += u64::from(ok);
        self.result_done(number, ok, now);
    }

    fn result_done(&mut self, number: u64, done: bool, now: Now) {
        if let Some(partition) = self.results.settle(number, done) {
            self.hand_out(partition, now);
        }
    }

    fn page_done(&mut self, partition: u32) {
        let Some(page) = self.results.pages.get_mut(&partition).filter(|p| p.clients.is_empty()) else {
            return;
        };
        let ask = page.ask;
        if let Some(next) = page.next.take() {
            self.out.push(Action::ResultsDone { partition, ask, next });
        }
    }
}
