//! The clients of a simulated cluster. They keep to the rules that the wire contract gives to clients, and write
//! down what they see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;
use roost_proto::codes::ErrorCode;
use roost_proto::events::Message;
use roost_proto::frames::{Reply, Send, ServerFrame};
use roost_proto::ids::{Cursor, DeviceId, Epoch, MessageId, UserId};
use roost_ws_node::core::events::{Connecting, Event, SessionKey};

use super::{Happening, Story, World};

pub(crate) fn name(user: usize) -> String {
    format!("u{user}")
}

#[derive(Debug, Clone)]
pub(crate) enum Wake {
    Begin,
    Connect { direct: Option<(usize, Epoch)> },
    Say,
    Repeat { id: String },
    GoOffline,
    GiveUp { connection: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Waiting,
    Sent,
}

#[derive(Debug, Clone)]
struct Out {
    id: String,
    to: usize,
    state: Said,
}

/// A connection to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Connection {
    pid: usize,
    key: u64,
    welcomed: bool,
}

pub struct Client {
    pub user: usize,
    wants_online: bool,
    current: Option<Connection>,
    /// The one being opened while `current` is still used.
    opening: Option<Connection>,
    pub cursor: Option<Cursor>,
    outgoing: VecDeque<Out>,
    /// Per receiver, the id that must be answered before others are sent.
    hold: BTreeMap<usize, String>,
    said: u64,
    /// Acknowledged ids, with the receiver.
    pub acked: BTreeMap<String, usize>,
    /// Ids in the order they were first said, by receiver.
    pub order: BTreeMap<usize, Vec<String>>,
    /// What the application saw: by generation, offset.
    pub seen: BTreeMap<(Epoch, u64), String>,
    pub histories: u64,
    pub resumed: u64,
    last_arrival: u64,
    last_departure: u64,
    away_since: Option<u64>,
}

impl Client {
    pub(crate) fn new(user: usize) -> Self {
        Self {
            user,
            wants_online: true,
            current: None,
            opening: None,
            cursor: None,
            outgoing: VecDeque::new(),
            hold: BTreeMap::new(),
            said: 0,
            acked: BTreeMap::new(),
            order: BTreeMap::new(),
            seen: BTreeMap::new(),
            histories: 0,
            resumed: 0,
            last_arrival: 0,
            last_departure: 0,
            away_since: None,
        }
    }

    fn all(&self) -> impl Iterator<Item = Connection> {
        self.current.into_iter().chain(self.opening)
    }

    pub(crate) fn is_on(&self, pid: usize) -> bool {
        self.all().any(|c| c.pid == pid)
    }

    pub(crate) fn connections_on(&self, pid: usize) -> Vec<u64> {
        self.all().filter(|c| c.pid == pid).map(|c| c.key).collect()
    }

    pub(crate) fn has(&self, pid: usize, key: u64) -> bool {
        self.all().any(|c| c.pid == pid && c.key == key)
    }

    /// Frames of one socket arrive in order.
    pub(crate) fn arrival(&mut self, at: u64) -> u64 {
        self.last_arrival = self.last_arrival.max(at);
        self.last_arrival
    }

    /// What a client does arrives in order too.
    fn departure(&mut self, at: u64) -> u64 {
        self.last_departure = self.last_departure.max(at);
        self.last_departure
    }

    pub fn unanswered(&self) -> usize {
        self.outgoing.len()
    }

    pub fn is_online(&self) -> bool {
        self.current.is_some_and(|c| c.welcomed)
    }

    pub fn wants_online(&self) -> bool {
        self.wants_online
    }
}

impl World {
    pub(crate) fn wake_client(&mut self, user: usize, what: Wake) {
        match what {
            Wake::Begin => {
                self.at(self.now, Happening::Client { user, what: Wake::Connect { direct: None } });
                self.at(self.now + 300, Happening::Client { user, what: Wake::Say });
                if self.setup.story == Story::Faults && self.chance(60.0) {
                    let at = self.between(2000, 12_000);
                    self.at(at, Happening::Client { user, what: Wake::GoOffline });
                }
            }
            Wake::Connect { direct } => self.connect(user, direct),
            Wake::Say => self.say(user),
            Wake::Repeat { id } => self.repeat(user, &id),
            Wake::GoOffline => {
                self.clients[user].wants_online = false;
                self.drop_client(user);
                if self.faulty() && self.chance(70.0) {
                    let back = self.now + self.between(20, 3000);
                    self.at(back, Happening::Client { user, what: Wake::Connect { direct: None } });
                    self.clients[user].wants_online = true;
                    let again = back + self.between(200, 6000);
                    self.at(again, Happening::Client { user, what: Wake::GoOffline });
                }
            }
            Wake::GiveUp { connection } => {
                let client = &self.clients[user];
                if let Some(c) = client.opening.filter(|c| c.key == connection && !c.welcomed) {
                    self.tell_core(user, c.pid, self.now + 1, Event::Closed { session: SessionKey(c.key) });
                    self.lost(user, connection);
                }
            }
        }
    }

    fn tell_core(&mut self, user: usize, pid: usize, at: u64, event: Event) {
        let at = self.clients[user].departure(at);
        self.at(at, Happening::ToCore { pid, event: Box::new(event) });
    }

    /// The application closes the socket.
    pub(crate) fn drop_client(&mut self, user: usize) {
        for connection in self.clients[user].all().collect::<Vec<_>>() {
            let at = self.now + self.between(1, 50);
            self.tell_core(user, connection.pid, at, Event::Closed { session: SessionKey(connection.key) });
            self.lost(user, connection.key);
        }
    }

    fn connect(&mut self, user: usize, direct: Option<(usize, Epoch)>) {
        if !self.clients[user].wants_online || self.clients[user].opening.is_some() {
            return;
        }
        if direct.is_none() && self.clients[user].current.is_some() {
            return;
        }
        let (pid, epoch) = match direct.map_or_else(|| self.ask_route(user), Ok) {
            Ok(target) => target,
            Err(took) => {
                let at = self.now + took + self.between(50, 200);
                return self.at(at, Happening::Client { user, what: Wake::Connect { direct: None } });
            }
        };
        let key = self.next_connection;
        self.next_connection += 1;
        self.clients[user].opening = Some(Connection { pid, key, welcomed: false });
        let client = &self.clients[user];
        let connecting = Connecting {
            session: SessionKey(key),
            user: UserId::new(name(user)).expect("a plain name"),
            device: Some(DeviceId::new("phone").expect("a plain name")),
            epoch: Some(epoch),
            cursor: client.cursor,
        };
        if self.processes[pid].core.is_none() || self.processes[pid].closing {
            return self.lost(user, key);
        }
        let at = self.now + self.between(1, 10);
        self.tell_core(user, pid, at, Event::Connect(Box::new(connecting)));
        self.at(self.now + 7000, Happening::Client { user, what: Wake::GiveUp { connection: key } });
    }

    /// The process to connect to, as a coordinator says; `Err` is how long it took to learn nothing.
    fn ask_route(&mut self, user: usize) -> Result<(usize, Epoch), u64> {
        let (node, epoch) = self.route(self.vnode_of(user))?;
        let there = self.alive().into_iter().rfind(|p| self.processes[*p].node == node);
        there.map(|pid| (pid, epoch)).ok_or(2)
    }

    fn say(&mut self, user: usize) {
        if self.busy() {
            let next = self.now + self.between(20, 400);
            self.at(next, Happening::Client { user, what: Wake::Say });
        } else {
            return;
        }
        if self.clients[user].outgoing.len() >= 12 {
            return;
        }
        let to = self.between(0, self.clients.len() as u64) as usize;
        let client = &mut self.clients[user];
        client.said += 1;
        let id = format!("{}-{}", name(user), client.said);
        client.order.entry(to).or_default().push(id.clone());
        let now = self.now;
        self.book.said.insert(id.clone(), now);
        client.outgoing.push_back(Out { id, to, state: Said::Waiting });
        self.send_waiting(user);
    }

    /// Sends what may be sent, in order per receiver.
    fn send_waiting(&mut self, user: usize) {
        let Some(connection) = self.clients[user].current.filter(|c| c.welcomed) else { return };
        let client = &mut self.clients[user];
        let mut sends = Vec::new();
        let mut stuck = BTreeSet::new();
        for out in &mut client.outgoing {
            let held = client.hold.get(&out.to).is_some_and(|id| *id != out.id);
            if out.state == Said::Waiting
                && !held
                && !stuck.contains(&out.to)
                && !client.hold.contains_key(&out.to)
            {
                out.state = Said::Sent;
                sends.push(out.clone());
            } else if out.state == Said::Waiting {
                stuck.insert(out.to);
            }
        }
        for out in sends {
            self.send(connection, &out);
        }
    }

    fn send(&mut self, connection: Connection, out: &Out) {
        let data = format!("{{\"n\":\"{}\"}}", out.id);
        let send = Send {
            id: MessageId::new(&out.id).expect("a plain id"),
            to: UserId::new(name(out.to)).expect("a plain name"),
            data: serde_json::value::RawValue::from_string(data).expect("JSON"),
        };
        let user = self.clients.iter().position(|c| c.has(connection.pid, connection.key));
        let Some(user) = user else { return };
        let event = Event::Send { session: SessionKey(connection.key), send };
        self.tell_core(user, connection.pid, self.now + 2, event);
    }

    fn repeat(&mut self, user: usize, id: &str) {
        let Some(connection) = self.clients[user].current.filter(|c| c.welcomed) else { return };
        let client = &mut self.clients[user];
        let Some(out) = client.outgoing.iter_mut().find(|o| o.id == id && o.state == Said::Waiting) else {
            return;
        };
        // Only the earliest unanswered one may be repeated; the timer of a later one may be left over.
        if client.hold.get(&out.to).is_some_and(|held| held != id) {
            return;
        }
        out.state = Said::Sent;
        let out = out.clone();
        self.send(connection, &out);
    }

    /// A socket is gone.
    fn lost(&mut self, user: usize, connection: u64) {
        let client = &mut self.clients[user];
        if client.opening.is_some_and(|c| c.key == connection) {
            client.opening = None;
        }
        if client.current.is_some_and(|c| c.key == connection) {
            client.current = None;
            client.away_since = Some(self.now);
            Self::unsend(client);
        }
        if client.current.is_none() && client.opening.is_none() && client.wants_online {
            let at = self.now + self.rng.random_range(20..300);
            self.at(at, Happening::Client { user, what: Wake::Connect { direct: None } });
        }
    }

    fn unsend(client: &mut Client) {
        client.hold.clear();
        for out in &mut client.outgoing {
            out.state = Said::Waiting;
        }
    }

    pub(crate) fn client_gets(&mut self, user: usize, connection: u64, frame: Option<bytes::Bytes>) {
        let known = self.clients[user].all().any(|c| c.key == connection);
        if !known {
            return;
        }
        let Some(frame) = frame else { return self.lost(user, connection) };
        let text = String::from_utf8_lossy(&frame).into_owned();
        self.note(|| format!("{} <- #{connection} {text}", name(user)));
        match ServerFrame::parse(&text) {
            Ok(ServerFrame::Welcome(w)) => self.welcomed(user, connection, &w),
            Ok(ServerFrame::Message(m)) => self.got(user, connection, &m),
            Ok(ServerFrame::Reset(r)) => self.history(user, r.cursor, r.through.as_deref()),
            Ok(ServerFrame::Reply(r)) => self.replied(user, connection, r),
            Ok(ServerFrame::Moved(m)) => self.moved(user, connection, &m),
            Ok(ServerFrame::Ping(_) | ServerFrame::Pong(_)) => {}
            Err(e) => self.violations.push(format!("a frame nobody can read: {e}: {text}")),
        }
    }

    fn welcomed(&mut self, user: usize, connection: u64, w: &roost_proto::frames::Welcome) {
        let client = &mut self.clients[user];
        let Some(mut opened) = client.opening.filter(|c| c.key == connection) else { return };
        opened.welcomed = true;
        client.opening = None;
        let old = client.current.replace(opened);
        let away = client.away_since.take().map_or(0, |since| self.now - since);
        Self::unsend(client);
        let shown = client.cursor;
        self.saw_gap(away);
        if let Some(old) = old {
            self.tell_core(user, old.pid, self.now + 3, Event::Closed { session: SessionKey(old.key) });
        }
        match (w.recovered, shown) {
            (false, _) => self.history(user, w.cursor, w.through.as_deref()),
            (true, None) => {
                self.clients[user].cursor = Some(Cursor::new(
                    w.cursor.generation,
                    roost_proto::Offset(w.cursor.offset.0 - w.replayed),
                ));
            }
            (true, Some(c)) => {
                self.clients[user].resumed += 1;
                // What came over the old socket in the meantime is not missing from the new one.
                let start = w.cursor.offset.0 - w.replayed;
                if c.generation != w.cursor.generation || start > c.offset.0 {
                    self.violations.push(format!("{} showed {c:?} and was 'recovered' at {w:?}", name(user)));
                }
            }
        }
        self.send_waiting(user);
    }

    /// It could not be proved that nothing was missed: the history must have it all.
    fn history(&mut self, user: usize, cursor: Cursor, through: Option<&str>) {
        let Some((partition, end)) = through.and_then(|t| t.split_once(':')) else {
            return self.violations.push(format!("{}: not recovered, without 'through'", name(user)));
        };
        let (partition, end): (usize, usize) = (partition.parse().unwrap_or(0), end.parse().unwrap_or(0));
        let stream = format!("user:{}", name(user));
        let mut offsets = BTreeSet::new();
        for payload in &self.log.chat[partition][..end] {
            let m: Message = serde_json::from_slice(payload).expect("checked elsewhere");
            if m.stream.as_str() == stream && m.generation == cursor.generation {
                offsets.insert(m.offset.0);
            }
        }
        let lacking: Vec<_> = (1..=cursor.offset.0).filter(|o| !offsets.contains(o)).collect();
        if !lacking.is_empty() {
            self.violations.push(format!(
                "{}: history through {partition}:{end} lacks offsets {lacking:?} of generation {}",
                name(user),
                cursor.generation
            ));
        }
        let client = &mut self.clients[user];
        client.histories += 1;
        client.cursor = Some(cursor);
    }

    fn got(&mut self, user: usize, connection: u64, m: &Message) {
        let client = &mut self.clients[user];
        let at = m.cursor();
        let Some(cursor) = client.cursor else { return };
        if at <= cursor {
            // Above the cursor or dropped: two sockets may show the same for a moment.
            return;
        }
        // On a socket not yet welcomed nothing may come; on the others exactly the next.
        if at.generation != cursor.generation || at.offset.0 != cursor.offset.0 + 1 {
            let what = format!("{} had {cursor:?} and got {at:?} on #{connection}", name(user));
            self.violations.push(what);
            return;
        }
        client.cursor = Some(at);
        let id = m.id.to_string();
        self.saw_message(&id);
        let client = &mut self.clients[user];
        if let Some(other) = client.seen.insert((at.generation, at.offset.0), id.clone())
            && other != id
        {
            self.violations.push(format!("{at:?} of {} names {other} and {id}", name(user)));
        }
        if self.rng.random_bool(0.3)
            && let Some(c) = self.clients[user].current
        {
            self.tell_core(user, c.pid, self.now + 2, Event::Ack { session: SessionKey(c.key), cursor: at });
        }
    }

    fn replied(&mut self, user: usize, connection: u64, reply: Reply) {
        let client = &mut self.clients[user];
        let id = reply.id.clone().unwrap_or_default();
        let Some(i) = client.outgoing.iter().position(|o| o.id == id) else { return };
        let to = client.outgoing[i].to;
        match (reply.ok, reply.error) {
            (Some(_), _) => {
                client.outgoing.remove(i);
                client.acked.insert(id.clone(), to);
                if client.hold.get(&to) == Some(&id) {
                    client.hold.remove(&to);
                }
                self.send_waiting(user);
            }
            (None, Some(e)) if e.code.retryable() => {
                // Only what the connection in use says of what was sent on it.
                if client.current.is_none_or(|c| c.key != connection) {
                    return;
                }
                client.outgoing[i].state = Said::Waiting;
                let first = client
                    .outgoing
                    .iter()
                    .find(|o| o.to == to && o.state == Said::Waiting)
                    .map(|o| o.id.clone())
                    .expect("at least the one just refused");
                client.hold.insert(to, first.clone());
                let wait = if e.code == ErrorCode::Unknown { 1 } else { self.rng.random_range(50..200) };
                self.at(self.now + wait, Happening::Client { user, what: Wake::Repeat { id: first } });
            }
            (_, error) => {
                self.violations.push(format!("{}: {id} was refused for good: {error:?}", name(user)))
            }
        }
    }

    fn moved(&mut self, user: usize, connection: u64, m: &roost_proto::frames::Moved) {
        let client = &mut self.clients[user];
        if let Some(opening) = client.opening.filter(|c| c.key == connection) {
            client.opening = None;
            let closed = Event::Closed { session: SessionKey(connection) };
            self.tell_core(user, opening.pid, self.now + 1, closed);
        }
        let epoch = m.epoch;
        let node = m.node.clone();
        let target = self.alive().into_iter().rfind(|p| self.processes[*p].node == node);
        let at = self.now + m.after_ms + self.rng.random_range(1..20);
        let direct = target.map(|pid| (pid, epoch));
        self.at(at, Happening::Client { user, what: Wake::Connect { direct } });
    }
}
