//! Pages of results are read and handed out to the inboxes of their clients, in order for each client.

use std::collections::BTreeMap;

use roost_backend::log::{Durability, LogRecord, Outgoing};
use roost_proto::ids::{StreamId, UserId, VnodeId};
use roost_proto::records::{Append, ItemBody, ItemResult};
use roost_proto::results::{CLIENT_RESULTS, ClientResult, DEAD_LETTERS, PROCESSOR, RESULT, Refused};
use serde_json::value::RawValue;

use crate::core::actions::Action;
use crate::core::channels::asker::Asker;
use crate::core::channels::channel::{Attached, By};
use crate::core::config::CoreConfig;
use crate::core::effects::Token;
use crate::core::keys::Now;
use crate::core::message::key_of;
use crate::core::node::NodeCore;
use crate::core::results::{Left, ResultsPage};

/// Of a record's key, in a dead letter.
const KEY_BYTES_MAX: usize = 1024;

/// Whose home reads a partition.
fn reader_of(partition: u32, cfg: &CoreConfig) -> VnodeId {
    VnodeId((u64::from(partition) * u64::from(cfg.vnodes) / u64::from(cfg.partitions)) as u16)
}

impl NodeCore {
    /// Begins to read what this node should read and no longer what it should not; hands out what waits.
    pub(in crate::core) fn tick_results(&mut self, now: Now) {
        for partition in 0..self.cfg.partitions {
            let home = self.homes.get(&reader_of(partition, &self.cfg));
            let mine = home.is_some_and(|home| home.serving(now));
            let reads = self.results.pages.contains_key(&partition);
            if mine && !reads {
                self.results.last += 1;
                let ask = self.results.last;
                self.results
                    .pages
                    .insert(partition, ResultsPage { ask, next: None, clients: BTreeMap::new() });
                self.fx.push(Action::ReadResults { partition, ask });
            } else if reads && !mine {
                self.results.leave(partition);
                self.fx.push(Action::LeaveResults { partition });
            }
            self.hand_out(partition, now);
        }
    }

    /// A page of a partition; the next one comes when this one is done with.
    pub(in crate::core) fn on_results(
        &mut self,
        partition: u32,
        ask: u64,
        records: Vec<LogRecord>,
        now: Now,
    ) {
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
                Err(_) => self.fx.count().results_malformed += 1,
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
                self.fx.count().results_conflicting += 1;
                return self.results.settle(number, true).is_some();
            }
        }
        false
    }

    /// What the client's home did with a result; `None`: nothing is known of it, and it is handed out again.
    pub(in crate::core) fn result_answered(&mut self, number: u64, result: Option<&ItemResult>, now: Now) {
        match result {
            Some(ItemResult::Ok { .. }) => {
                self.fx.count().results += 1;
                self.result_done(number, true, now);
            }
            // The first with its id stands: a processor that did its work twice may well say it in other words.
            Some(ItemResult::Conflict) => {
                self.fx.count().results_conflicting += 1;
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
        let token = self.fx.token(Token::Refused { result: number });
        let record = Outgoing { topic: DEAD_LETTERS.into(), partition, key: client.into(), payload, token };
        self.fx.push(Action::Produce { durability: Durability::Outbox, record });
    }

    /// Whether the log took a refused one.
    pub(in crate::core) fn refusal_reported(&mut self, number: u64, ok: bool, now: Now) {
        self.fx.count().results_refused += u64::from(ok);
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
            self.fx.push(Action::ResultsDone { partition, ask, next });
        }
    }
}
