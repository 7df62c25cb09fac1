//! The clients of a simulated cluster. They keep to the rules that the wire contract gives to clients, and write
//! down what they see.

mod hearing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;
use roost_proto::frames::Send;
use roost_proto::ids::{Cursor, DeviceId, Epoch, MessageId, UserId};
use roost_ws_node::core::{Command, Connecting, Input, Rights, SessionKey};

use super::rooms::{self, Seat};
use super::sdk::{self, Sdk};
use super::status::Choice;
use super::watcher::Watcher;
use super::{Happening, Story, World};

pub(crate) fn name(user: usize) -> String {
    format!("u{user}")
}

pub(super) fn send_frame(id: &str, to: usize) -> Send {
    let data = format!("{{\"n\":\"{id}\"}}");
    Send {
        id: MessageId::new(id).expect("a plain id"),
        to: UserId::new(name(to)).expect("a plain name"),
        data: serde_json::value::RawValue::from_string(data).expect("JSON"),
        receipt: wants_receipt(id),
    }
}

/// Of every third message its sender wants to know what becomes of it.
pub(super) fn wants_receipt(id: &str) -> bool {
    id.bytes().last().is_some_and(|digit| digit % 3 == 0)
}

#[derive(Debug, Clone)]
pub(crate) enum Wake {
    Begin,
    Connect { direct: Option<(usize, Epoch)> },
    Say,
    Choose,
    Seat,
    Watch,
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
pub(super) struct Out {
    pub id: String,
    pub to: usize,
    state: Said,
}

/// A connection to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection {
    pub pid: usize,
    pub key: u64,
    pub welcomed: bool,
}

pub struct Client {
    pub user: usize,
    pub device: DeviceId,
    /// Names it: the user's name, and a letter for a second device.
    pub label: String,
    /// The real one, in place of what is written here by hand.
    pub(super) sdk: Option<Sdk>,
    pub(super) choice: Choice,
    pub(super) seats: Vec<Seat>,
    pub(super) watcher: Watcher,
    wants_online: bool,
    current: Option<Connection>,
    /// The one being opened while `current` is still used.
    opening: Option<Connection>,
    pub cursor: Option<Cursor>,
    /// How far its user has read, as it said or was told.
    pub read: Option<Cursor>,
    pub(super) outgoing: VecDeque<Out>,
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
    pub(super) away_since: Option<u64>,
}

impl Client {
    pub(crate) fn new(i: usize, users: usize) -> Self {
        let (user, second) = (i % users, i >= users);
        let device = if second { "laptop" } else { "phone" };
        Self {
            user,
            device: DeviceId::new(device).expect("a plain name"),
            label: if second { format!("{}b", name(user)) } else { name(user) },
            sdk: (i % 2 == 1).then(|| sdk::asleep(user)),
            choice: Choice::default(),
            seats: rooms::seats(i),
            watcher: Watcher::new(i, users),
            wants_online: true,
            current: None,
            opening: None,
            cursor: None,
            read: None,
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
        let by_sdk = self.sdk.iter().flat_map(Sdk::connections);
        self.current.into_iter().chain(self.opening).chain(by_sdk)
    }

    pub(super) fn current(&self) -> Option<Connection> {
        self.current
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

    fn has_read(&mut self, cursor: Option<Cursor>) {
        self.read = self.read.max(cursor);
    }

    pub fn unanswered(&self) -> usize {
        self.outgoing.len()
    }

    pub fn is_online(&self) -> bool {
        self.current.is_some_and(|c| c.welcomed) || self.sdk.as_ref().is_some_and(|sdk| sdk.online)
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
                self.at(self.now + 2000, Happening::Client { user, what: Wake::Choose });
                self.at(self.now + 1000, Happening::Client { user, what: Wake::Seat });
                self.at(self.now + 1000, Happening::Client { user, what: Wake::Watch });
                if self.setup.story == Story::Faults && self.chance(60.0) {
                    let at = self.between(2000, 12_000);
                    self.at(at, Happening::Client { user, what: Wake::GoOffline });
                }
            }
            Wake::Connect { direct } => self.connect(user, direct),
            Wake::Say => self.say(user),
            Wake::Choose => {
                if self.faulty() {
                    let next = self.now + self.between(300, 4000);
                    self.at(next, Happening::Client { user, what: Wake::Choose });
                    self.choose(user);
                }
            }
            Wake::Seat => self.wake_seats(user),
            Wake::Watch => self.wake_lookout(user),
            Wake::Repeat { id } => self.repeat(user, &id),
            Wake::GoOffline => {
                self.clients[user].wants_online = false;
                match self.clients[user].sdk {
                    Some(_) => self.stop_sdk(user),
                    None => self.drop_client(user),
                }
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
                    self.tell_core(user, c.pid, self.now + 1, Input::Closed { session: SessionKey(c.key) });
                    self.lost(user, connection);
                }
            }
        }
    }

    pub(super) fn tell_core(&mut self, user: usize, pid: usize, at: u64, event: Input) {
        let at = self.clients[user].departure(at);
        self.saw_asked(&event);
        self.at(at, Happening::ToCore { pid, event: Box::new(event) });
    }

    /// The application closes the socket.
    pub(crate) fn drop_client(&mut self, user: usize) {
        if self.clients[user].sdk.is_some() {
            return self.cut_sdk(user);
        }
        for connection in self.clients[user].all().collect::<Vec<_>>() {
            let at = self.now + self.between(1, 50);
            self.tell_core(user, connection.pid, at, Input::Closed { session: SessionKey(connection.key) });
            self.lost(user, connection.key);
        }
    }

    fn connect(&mut self, user: usize, direct: Option<(usize, Epoch)>) {
        if !self.clients[user].wants_online || self.clients[user].opening.is_some() {
            return;
        }
        if self.clients[user].sdk.is_some() {
            return self.start_sdk(user);
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
        let rooms = self.rooms_to_join(user);
        let client = &self.clients[user];
        let connecting = Connecting {
            session: SessionKey(key),
            user: UserId::new(name(client.user)).expect("a plain name"),
            device: Some(client.device.clone()),
            rights: Rights::default(),
            epoch: Some(epoch),
            cursor: client.cursor,
            rooms,
        };
        if self.processes[pid].core.is_none() || self.processes[pid].closing {
            return self.lost(user, key);
        }
        let at = self.now + self.between(1, 10);
        self.tell_core(user, pid, at, Input::Connect(Box::new(connecting)));
        self.at(self.now + 7000, Happening::Client { user, what: Wake::GiveUp { connection: key } });
    }

    /// The process to connect to, as a coordinator says; `Err` is how long it took to learn nothing.
    fn ask_route(&mut self, user: usize) -> Result<(usize, Epoch), u64> {
        let (node, epoch) = self.route(self.vnode_of(self.clients[user].user))?;
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
        // The last is for the processors.
        let to = self.between(0, (self.setup.users + rooms::ROOMS + 1) as u64) as usize;
        let event = self.is_event(to);
        let client = &mut self.clients[user];
        client.said += 1;
        let id = format!("{}-{}", client.label, client.said);
        client.order.entry(to).or_default().push(id.clone());
        let now = self.now;
        if !event {
            self.book.said.insert(id.clone(), now);
        }
        client.outgoing.push_back(Out { id: id.clone(), to, state: Said::Waiting });
        match client.sdk {
            Some(_) => self.send_by_sdk(user, &id, to),
            None => self.send_waiting(user),
        }
    }

    /// Whether this is no receiver, but the processors.
    pub(super) fn is_event(&self, to: usize) -> bool {
        to == self.setup.users + rooms::ROOMS
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
        let user = self.clients.iter().position(|c| c.has(connection.pid, connection.key));
        let Some(user) = user else { return };
        let session = SessionKey(connection.key);
        let event = if self.is_event(out.to) {
            self.client_event(session, &out.id)
        } else if out.to < self.setup.users {
            Input::Command { session, command: Command::Send(send_frame(&out.id, out.to)) }
        } else {
            self.publish_event(session, &out.id, out.to)
        };
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
        client.choice.cut();
        client.watcher.cut();
        Self::unseat(&mut client.seats);
        client.hold.clear();
        for out in &mut client.outgoing {
            out.state = Said::Waiting;
        }
    }
}
