//! The application's processors, and what becomes of events: each goes out once and gets its result, or is told that
//! none came (decision 14).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use roost_backend::log::{LogRecord, Position};
use roost_backend::store::{Closes, Op, OpResult, Ticket, TicketId, Write, WriteAnswer};
use roost_proto::events::{ClientEvent, Message};
use roost_proto::frames;
use roost_proto::ids::{MessageId, UserId};
use roost_proto::results::{PROCESSOR, RESULT, Refused, TIMER};
use roost_ws_node::core::{Command, Input, SessionKey};

use super::{EVENT_TIMEOUT_MS, Happening, World};

/// What processors and nodes have to do with `client_results`.
#[derive(Default)]
pub(crate) struct Results {
    /// By partition.
    records: BTreeMap<u32, Vec<Bytes>>,
    committed: BTreeMap<u32, usize>,
    readings: Vec<Reading>,
    pub dead: Vec<Bytes>,
    /// What was answered, by client and event.
    answered: BTreeSet<(String, String)>,
}

struct Reading {
    pid: usize,
    partition: u32,
    ask: u64,
    next: usize,
    /// A page is at the core.
    busy: bool,
}

pub(super) fn event_frame(id: &str) -> frames::AppEvent {
    let data = serde_json::value::RawValue::from_string(format!("{{\"n\":\"{id}\"}}")).expect("JSON");
    frames::AppEvent { id: MessageId::new(id).expect("a plain id"), data }
}

impl World {
    pub(super) fn client_event(&self, session: SessionKey, id: &str) -> Input {
        Input::Command { session, command: Command::Event(event_frame(id)) }
    }

    /// An event is in the log: a processor has it soon, late, twice or never.
    pub(crate) fn processor_reads(&mut self, payload: &Bytes) {
        let event: ClientEvent = match serde_json::from_slice(payload) {
            Ok(event) => event,
            Err(error) => return self.violations.push(format!("an unreadable event: {error}")),
        };
        let times = match self.between(0, 100) {
            0..5 => 0,
            5..15 => 2,
            _ => 1,
        };
        for _ in 0..times {
            let late = self.chance(10.0);
            let after = if late {
                self.between(EVENT_TIMEOUT_MS / 2, 3 * EVENT_TIMEOUT_MS)
            } else {
                self.between(5, 500)
            };
            // One that was said twice was worked on twice, and says another time.
            let record = format!(
                "{{\"type\":\"event_accepted\",\"client_id\":\"{}\",\"event_id\":\"{}\",\"at\":{}}}",
                event.client_id,
                event.event_id,
                self.now + after
            );
            self.at(self.now + after, Happening::Answered { record: record.into() });
        }
    }

    pub(crate) fn processed(&mut self, record: Bytes) {
        let result = roost_proto::results::ClientResult::parse(&record).expect("the processor's own");
        self.results.answered.insert((result.client_id.to_string(), result.event_id.to_string()));
        // As foreign clients choose partitions: always the same of a client, and not as the nodes do.
        let partition = result.client_id.as_str().bytes().map(u32::from).sum::<u32>() % self.setup.vnodes;
        self.note(|| format!("result {}", String::from_utf8_lossy(&record)));
        self.results.records.entry(partition).or_default().push(record);
        self.feed_readings(partition);
    }

    pub(crate) fn read_results(&mut self, pid: usize, partition: u32, ask: u64) {
        let next = self.results.committed.get(&partition).copied().unwrap_or(0);
        self.results.readings.push(Reading { pid, partition, ask, next, busy: false });
        self.feed_readings(partition);
    }

    pub(crate) fn leave_results(&mut self, pid: usize, partition: u32) {
        self.results.readings.retain(|r| (r.pid, r.partition) != (pid, partition));
    }

    pub(crate) fn results_done(&mut self, pid: usize, partition: u32, ask: u64, next: u64) {
        // What is not committed is read again by the next.
        let kept = !self.faulty() || self.chance(80.0);
        let readings = &mut self.results.readings;
        let Some(reading) =
            readings.iter_mut().find(|r| (r.pid, r.partition, r.ask) == (pid, partition, ask))
        else {
            return;
        };
        (reading.next, reading.busy) = (next as usize, false);
        if kept {
            self.results.committed.insert(partition, next as usize);
        }
        self.feed_readings(partition);
    }

    fn feed_readings(&mut self, partition: u32) {
        let records = self.results.records.get(&partition).cloned().unwrap_or_default();
        let mut pages = Vec::new();
        for reading in self.results.readings.iter_mut().filter(|r| r.partition == partition && !r.busy) {
            let page: Vec<_> = (reading.next..records.len())
                .take(3)
                .map(|offset| LogRecord {
                    position: Position { partition, offset: offset as u64 },
                    key: Bytes::new(),
                    payload: records[offset].clone(),
                    at_ms: 0,
                })
                .collect();
            if !page.is_empty() {
                reading.busy = true;
                pages.push((reading.pid, reading.ask, page));
            }
        }
        for (pid, ask, records) in pages {
            let up = self.log.down_until.max(self.processes[pid].no_log_until).max(self.now);
            let at = up + self.between(1, 8);
            let event = Box::new(Input::Results { partition, ask, records });
            self.at(at, Happening::ToCore { pid, event });
        }
    }

    /// A write took effect; `tickets` are those before it.
    pub(super) fn saw_timeouts(
        &mut self,
        write: &Write,
        answer: &WriteAnswer,
        tickets: &[(TicketId, Ticket)],
    ) {
        let WriteAnswer::Done { results, .. } = answer else { return };
        for (op, result) in write.ops.iter().zip(results) {
            let (Op::Append(append), OpResult::Appended { .. }) = (op, result) else { continue };
            let Some(Closes::TimedOut(event)) = &append.closes else { continue };
            let client = append.stream.user().expect("an inbox");
            let since = tickets.iter().find(|(id, _)| *id == (client.clone(), event.clone()));
            if since.is_none_or(|(_, ticket)| write.now_ms < ticket.since_ms + EVENT_TIMEOUT_MS) {
                self.violations.push(format!("{client} was told too early that nobody answered {event}"));
            }
        }
    }

    /// Events as they are in the log, with their places.
    pub(super) fn client_events(&self, wrong: &mut Vec<String>) -> Vec<ClientEvent> {
        let mut numbers: BTreeMap<_, &Bytes> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let mut events = Vec::new();
        for payload in self.log.client.iter().flatten() {
            let event: ClientEvent = serde_json::from_slice(payload).expect("checked as it came");
            match numbers.insert((event.vnode, event.epoch, event.seq), payload) {
                Some(other) if other != payload => {
                    wrong.push(format!("P2: two events: {other:?}, {payload:?}"))
                }
                Some(_) => continue,
                None => {}
            }
            // Only a store that went back forgets that an event is out.
            if !ids.insert((event.client_id.clone(), event.event_id.clone())) && self.run == 0 {
                wrong.push(format!("P4: {} of {} went out twice", event.event_id, event.client_id));
            }
            events.push(event);
        }
        events
    }

    /// Who was answered has the result, and who was not was told so.
    pub(super) fn check_results(&self, wrong: &mut Vec<String>) {
        let mut told: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
        let chat: BTreeSet<_> = self.log.chat.iter().flatten().collect();
        let messages = chat.iter().filter_map(|payload| serde_json::from_slice::<Message>(payload).ok());
        for message in messages.filter(|m| m.kind == RESULT) {
            let client = message.stream.user().map_or_else(String::new, |user| user.to_string());
            let (results, timeouts) = told.entry((client, message.id.to_string())).or_default();
            match message.from.as_str() {
                PROCESSOR => *results += 1,
                TIMER => *timeouts += 1,
                other => wrong.push(format!("a result from {other}: {message:?}")),
            }
        }
        let dead: BTreeSet<String> = self
            .results
            .dead
            .iter()
            .filter_map(|payload| serde_json::from_slice::<Refused>(payload).ok())
            .map(|refused| refused.payload)
            .collect();
        if self.run == 0 && !dead.is_empty() {
            wrong.push(format!("refused although their clients are known: {dead:?}"));
        }
        for (client, event) in &self.results.answered {
            let got = told.get(&(client.clone(), event.clone())).is_some_and(|(results, _)| *results > 0);
            let refused = dead.iter().any(|payload| payload.contains(&format!("\"{event}\"")));
            if !got && !refused {
                wrong.push(format!("{client} never got the result of {event}"));
            }
        }
        for client in self.clients.iter() {
            let name = super::client::name(client.user);
            for id in client.acked.iter().filter(|(_, to)| self.is_event(**to)).map(|(id, _)| id) {
                let (results, timeouts) = told.get(&(name.clone(), id.clone())).copied().unwrap_or_default();
                if self.run == 0 && (results + timeouts == 0 || results > 1 || timeouts > 1) {
                    wrong.push(format!(
                        "{name} was told {results} results of {id}, and {timeouts} times that there is none"
                    ));
                }
            }
        }
        let open: Vec<_> =
            self.data.iter().flat_map(roost_backend::store::model::VnodeData::all_tickets).collect();
        let known = |user: &UserId| self.clients.iter().any(|c| super::client::name(c.user) == user.as_str());
        wrong.extend(
            open.iter().filter(|((user, _), _)| known(user)).map(|ticket| format!("still waits: {ticket:?}")),
        );
    }
}
