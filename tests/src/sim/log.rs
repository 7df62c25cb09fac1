//! The log of a simulated cluster: the topics of events, and the nodes' own.

use std::collections::BTreeMap;

use bytes::Bytes;
use roost_backend::log::{Durability, Outgoing};
use roost_proto::ids::NodeId;
use roost_proto::records::{self, BUNDLES, Record};
use roost_ws_node::core::{Input, SessionKey};

use super::{Broken, Happening, World};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topic {
    Chat(u32),
    Status(u32),
    Undelivered(u32),
    Client(u32),
    Dead,
    Messages(NodeId),
}

pub struct SimLog {
    pub chat: Vec<Vec<Bytes>>,
    pub status: Vec<Vec<Bytes>>,
    pub undelivered: Vec<Vec<Bytes>>,
    pub client: Vec<Vec<Bytes>>,
    pub(crate) down_until: u64,
    /// The same, once the faults have ended.
    pub(crate) was_down_until: u64,
    /// When the last record of each outbox producer and partition arrives: they keep their order.
    order: BTreeMap<(usize, u32), u64>,
    /// The same of a transport producer and topic, while nothing goes wrong.
    transport: BTreeMap<(usize, NodeId), u64>,
}

impl SimLog {
    pub(crate) fn new(partitions: u32) -> Self {
        let empty = || (0..partitions).map(|_| Vec::new()).collect();
        Self {
            chat: empty(),
            status: empty(),
            undelivered: empty(),
            client: empty(),
            down_until: 0,
            was_down_until: 0,
            order: BTreeMap::new(),
            transport: BTreeMap::new(),
        }
    }
}

fn topic_of(record: &Outgoing) -> Topic {
    match &*record.topic {
        roost_proto::events::CHAT_EVENTS => Topic::Chat(record.partition),
        roost_proto::events::USER_STATUS_EVENTS => Topic::Status(record.partition),
        roost_proto::events::UNDELIVERED_EVENTS => Topic::Undelivered(record.partition),
        roost_proto::events::CLIENT_EVENTS => Topic::Client(record.partition),
        roost_proto::results::DEAD_LETTERS => Topic::Dead,
        other => {
            let node = other.strip_prefix("messages-").and_then(|n| NodeId::new(n).ok());
            Topic::Messages(node.expect("the core names only these topics"))
        }
    }
}

impl World {
    pub(crate) fn produce(&mut self, pid: usize, durability: Durability, record: Outgoing) {
        match durability {
            Durability::Outbox => self.produce_outbox(pid, record),
            Durability::Transport => self.produce_transport(pid, record),
        }
    }

    fn report(&mut self, pid: usize, at: u64, token: u64, ok: bool) {
        self.at(at, Happening::ToCore { pid, event: Box::new(Input::Reported { token, ok }) });
    }

    /// In order, once, however long it takes; only the death of the process may keep some back.
    fn produce_outbox(&mut self, pid: usize, record: Outgoing) {
        let up = self.log.down_until.max(self.processes[pid].no_log_until).max(self.now);
        let delay =
            if self.faulty() && self.chance(5.0) { self.between(50, 900) } else { self.between(1, 6) };
        let topic = topic_of(&record);
        let n = match topic {
            Topic::Chat(_) => 0,
            Topic::Status(_) => 1,
            Topic::Client(_) => 2,
            Topic::Undelivered(_) | Topic::Dead | Topic::Messages(_) => 3,
        };
        let partition = record.partition * 4 + n;
        let last = self.log.order.get(&(pid, partition)).copied().unwrap_or(0);
        let at = (up + delay).max(last);
        self.log.order.insert((pid, partition), at);
        // The arrival is tied to the process: see `log_arrives_from`.
        self.at(at, Happening::LogArrives { topic, payload: tag(pid, &record.payload) });
        let told = at + self.between(1, 4);
        self.report(pid, told, record.token, true);
    }

    fn produce_transport(&mut self, pid: usize, record: Outgoing) {
        let down = self.now < self.log.down_until || self.now < self.processes[pid].no_log_until;
        let dice = if self.faulty() { self.between(0, 1000) } else { 999 };
        let lost = self.is_broken(Broken::TransferLost) && contains(&record.payload, b"{\"recall\"");
        let topic = topic_of(&record);
        let payload = tag(usize::MAX, &record.payload);
        let mut soon = self.now + self.between(1, 12);
        if let (false, Topic::Messages(node)) = (self.faulty(), &topic) {
            let last = self.log.transport.entry((pid, node.clone())).or_insert(0);
            soon = soon.max(*last);
            *last = soon;
        }
        let later = self.now + self.between(100, 4000);
        let (arrivals, told, ok) = match dice {
            _ if down => (vec![], self.now + 500, false),
            _ if lost => (vec![], soon, true),
            0..20 => (vec![], self.now + 300, false),
            20..30 => (vec![soon], self.now + 300, false),
            30..40 => (vec![later], self.now + 300, false),
            40..60 => (vec![soon, later], soon + 1, true),
            60..80 => (vec![later], later, true),
            // Retention or a reader's restart lost it although it was taken.
            80..90 => (vec![], soon, true),
            _ => (vec![soon], soon + 1, true),
        };
        for at in arrivals {
            self.at(at, Happening::LogArrives { topic: topic.clone(), payload: payload.clone() });
        }
        self.report(pid, told, record.token, ok);
    }

    pub(crate) fn log_arrives(&mut self, topic: Topic, payload: Bytes) {
        let (pid, payload) = untag(&payload);
        // What a dead process had not got out stays behind, except what the broker already had.
        let killed = |p: &super::Process| p.core.is_none() && !p.flushed;
        if pid != usize::MAX && killed(&self.processes[pid]) && self.chance(70.0) {
            // In order: once one is lost, so is all that follows it.
            self.log.order.insert((pid, u32::MAX), 1);
        }
        if pid != usize::MAX && self.log.order.contains_key(&(pid, u32::MAX)) {
            return;
        }
        match topic {
            Topic::Chat(p) => {
                self.note(|| format!("chat {}", String::from_utf8_lossy(&payload)));
                self.log.chat[p as usize].push(payload);
            }
            Topic::Status(p) => {
                self.note(|| format!("status {}", String::from_utf8_lossy(&payload)));
                self.log.status[p as usize].push(payload);
            }
            Topic::Undelivered(p) => {
                self.note(|| format!("undelivered {}", String::from_utf8_lossy(&payload)));
                self.log.undelivered[p as usize].push(payload);
            }
            Topic::Client(p) => {
                self.note(|| format!("event {}", String::from_utf8_lossy(&payload)));
                self.processor_reads(&payload);
                self.log.client[p as usize].push(payload);
            }
            Topic::Dead => self.results.dead.push(payload),
            Topic::Messages(node) => {
                let readers: Vec<_> =
                    self.alive().into_iter().filter(|p| self.processes[*p].node == node).collect();
                for pid in readers {
                    let at = self.processes[pid].no_log_until;
                    for event in self.decoded(pid, &payload) {
                        if self.now < at {
                            self.at(at, Happening::ToCore { pid, event: Box::new(event) });
                        } else {
                            self.core_gets(pid, event);
                        }
                    }
                }
            }
        }
    }

    /// What a reader makes of a payload. One of an earlier version knows no bundles; and of what it knows it may not be
    /// able to read everything.
    fn decoded(&mut self, pid: usize, payload: &[u8]) -> Vec<Input> {
        let records = match self.processes[pid].reads {
            BUNDLES => records::read(payload),
            _ => vec![serde_json::from_slice::<Record>(payload)],
        };
        let garbled = self.faulty() && self.chance(0.5);
        let spoilt = garbled.then(|| self.between(0, records.len() as u64) as usize);
        let read = |(n, record): (usize, Result<Record, _>)| match record {
            Ok(record) if spoilt != Some(n) => Input::Record(record),
            _ => Input::Undecodable,
        };
        records.into_iter().enumerate().map(read).collect()
    }

    pub(crate) fn ask_log_end(&mut self, pid: usize, session: Option<SessionKey>, ask: u64, partition: u32) {
        let down = self.now < self.log.down_until || self.now < self.processes[pid].no_log_until;
        let answer = (!down).then(|| self.log.chat[partition as usize].len() as u64);
        let at = self.now + if down { 400 } else { self.between(1, 5) };
        let event = Box::new(Input::LogEnd { session, ask, partition, answer });
        self.at(at, Happening::ToCore { pid, event });
    }
}

fn contains(payload: &[u8], part: &[u8]) -> bool {
    payload.windows(part.len()).any(|window| window == part)
}

/// A payload with the process it comes from in front.
fn tag(pid: usize, payload: &[u8]) -> Bytes {
    let mut out = (pid as u64).to_be_bytes().to_vec();
    out.extend_from_slice(payload);
    out.into()
}

fn untag(payload: &Bytes) -> (usize, Bytes) {
    let mut pid = [0; 8];
    pid.copy_from_slice(&payload[..8]);
    (u64::from_be_bytes(pid) as usize, payload.slice(8..))
}
