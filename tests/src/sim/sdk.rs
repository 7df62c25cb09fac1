//! Clients that run the real SDK: its core, and an application that takes what it gives.

mod rooms;

use std::collections::BTreeMap;

use rand::RngExt;
use roost_client::bare::Trouble;
use roost_client::bare::{
    Action, Backoff, Command, ConnId, Core, CoreConfig, Done, Input, Item, OrderingKey, Route, Ticket, What,
};
use roost_client::{Event as Shown, SendError, State};
use roost_proto::events::Message;
use roost_proto::frames::{ClientFrame, Connect, Reset, ServerFrame};
use roost_proto::ids::{Cursor, MessageId, NodeId, Offset, UserId};
use roost_ws_node::core::Command as Said;
use roost_ws_node::core::{Connecting, Input as CoreInput, Rights, SessionKey};

use super::client::{Connection, name};
use super::results::event_frame;
use super::rooms::{publish_frame, room};
use super::{Happening, World};
use rooms::Within;

/// An application gives a send up after this long: longer than any run.
const SEND_TIMEOUT_MS: u64 = 600_000;
/// The application waits for no answer to its `watch`: it is told what is, sooner or later.
const WATCH: Ticket = Ticket::MAX;
/// As the sockets of a node do.
const PING_EVERY_MS: u64 = 25_000;

/// One life of an application, with its SDK.
pub(crate) struct Sdk {
    core: Core,
    wires: BTreeMap<ConnId, Wire>,
    tickets: BTreeMap<Ticket, String>,
    pub life: u64,
    wakes_at: u64,
    pub online: bool,
    /// What the application keeps over its restarts.
    saved: Option<Cursor>,
}

/// A socket, and what came over it.
struct Wire {
    to: Connection,
    /// The last message of this session: it is sent the next one and nothing else (core rule 25).
    at: Option<Cursor>,
    rooms: Within,
}

impl Sdk {
    pub(crate) fn connections(&self) -> impl Iterator<Item = Connection> {
        self.wires.values().map(|w| w.to)
    }

    fn conn_of(&self, key: u64) -> Option<ConnId> {
        self.wires.iter().find(|(_, w)| w.to.key == key).map(|(conn, _)| *conn)
    }
}

/// Before its first life.
pub(crate) fn asleep(client: usize) -> Sdk {
    let config = config(client, 0, None);
    let (wires, tickets) = (BTreeMap::new(), BTreeMap::new());
    Sdk { core: Core::new(config), wires, tickets, life: 0, wakes_at: u64::MAX, online: false, saved: None }
}

fn config(user: usize, seed: u64, cursor: Option<Cursor>) -> CoreConfig {
    CoreConfig {
        user: UserId::new(name(user)).expect("a plain name"),
        device: None,
        cursor,
        queue_max: 100,
        frame_bytes_max: 65_536,
        backoff: Backoff::new(20, 500),
        token_renewable: true,
        seed,
    }
}

impl World {
    /// The application starts, and sends again what it has no answer for.
    pub(super) fn start_sdk(&mut self, i: usize) {
        let seed = self.rng.random();
        let client = &mut self.clients[i];
        client.choice.cut();
        client.watcher.cut();
        let watched = client.watcher.wanted();
        let (user, device) = (client.user, client.device.clone());
        let waiting: Vec<_> = client.outgoing.iter().map(|out| (out.id.clone(), out.to)).collect();
        let Some(sdk) = &mut client.sdk else { return };
        client.cursor = sdk.saved;
        sdk.core = Core::new(CoreConfig { device: Some(device), ..config(user, seed, sdk.saved) });
        sdk.life += 1;
        sdk.tickets.clear();
        sdk.wakes_at = u64::MAX;
        self.sdk_gets(i, Input::Start);
        let (id, what) = (MessageId::new("watch").expect("a word"), What::Watch(watched));
        let (command, expires_ms) =
            (Command { id, lane: OrderingKey::Watch, what }, self.now + SEND_TIMEOUT_MS);
        self.sdk_gets(i, Input::Command { command, ticket: WATCH, expires_ms });
        self.begin_sdk_seats(i);
        for (id, to) in waiting {
            self.send_by_sdk(i, &id, to);
        }
    }

    pub(super) fn stop_sdk(&mut self, i: usize) {
        self.sdk_gets(i, Input::Close);
        if let Some(sdk) = &mut self.clients[i].sdk {
            sdk.life += 1;
        }
    }

    pub(super) fn send_by_sdk(&mut self, i: usize, id: &str, to: usize) {
        let (lane, frame) = match to.checked_sub(self.setup.users) {
            _ if self.is_event(to) => (OrderingKey::Events, ClientFrame::Event(event_frame(id))),
            None => {
                let lane = OrderingKey::To(UserId::new(name(to)).expect("a plain name"));
                (lane, ClientFrame::Send(super::client::send_frame(id, to)))
            }
            Some(r) => (OrderingKey::Room(room(r)), ClientFrame::Publish(publish_frame(id, r))),
        };
        self.command_sdk(i, MessageId::new(id).expect("a plain id"), lane, &frame);
    }

    pub(super) fn command_sdk(&mut self, i: usize, id: MessageId, lane: OrderingKey, frame: &ClientFrame) {
        self.order_sdk(i, Command::frame(id, lane, frame.to_json()));
    }

    fn order_sdk(&mut self, i: usize, command: Command) {
        let Some(sdk) = &mut self.clients[i].sdk else { return };
        let ticket = sdk.tickets.len() as u64;
        sdk.tickets.insert(ticket, command.id.to_string());
        let expires_ms = self.now + SEND_TIMEOUT_MS;
        self.sdk_gets(i, Input::Command { command, ticket, expires_ms });
    }

    /// Something for the SDK in its present life.
    fn later(&mut self, i: usize, at: u64, input: Input) {
        let life = self.clients[i].sdk.as_ref().map_or(0, |sdk| sdk.life);
        self.at(at, Happening::Sdk { client: i, life, input: Box::new(input) });
    }

    pub(super) fn sdk_hears(&mut self, i: usize, life: u64, input: Input) {
        if self.clients[i].sdk.as_ref().is_some_and(|sdk| sdk.life == life) {
            self.sdk_gets(i, input);
        }
    }

    fn sdk_gets(&mut self, i: usize, input: Input) {
        let now = self.now;
        let Some(sdk) = &mut self.clients[i].sdk else { return };
        let actions = sdk.core.step(input, now);
        for action in actions {
            self.carry_for_sdk(i, action);
        }
        let Some(sdk) = &mut self.clients[i].sdk else { return };
        let wake = sdk.core.wake_ms();
        if wake != u64::MAX && (wake < sdk.wakes_at || sdk.wakes_at <= now) {
            sdk.wakes_at = wake;
            self.later(i, wake.max(now + 1), Input::Tick);
        }
    }

    fn carry_for_sdk(&mut self, i: usize, action: Action) {
        match action {
            Action::Route(conn) => {
                let answer = self.route(self.vnode_of(self.clients[i].user));
                let (took, routed) = match answer {
                    Ok((node, epoch)) => (2, Ok(Route { url: node.to_string(), epoch, connect_after_ms: 0 })),
                    Err(took) => (took, Err(Trouble::retry("no answer from /route"))),
                };
                let at = self.now + took + self.between(1, 10);
                self.later(i, at, Input::Routed(conn, routed));
            }
            Action::Open { conn, url, .. } => self.open_for_sdk(i, conn, &url),
            Action::Write(conn, text) | Action::Offer(conn, text) => self.write_for_sdk(i, conn, &text),
            Action::Close(conn, _) => {
                let wire = self.clients[i].sdk.as_mut().and_then(|sdk| sdk.wires.remove(&conn));
                if let Some(wire) = wire {
                    let at = self.now + self.between(1, 50);
                    self.tell_core(
                        i,
                        wire.to.pid,
                        at,
                        CoreInput::Closed { session: SessionKey(wire.to.key) },
                    );
                }
            }
            Action::Deliver(item) => self.show(i, item),
            Action::Answer(ticket, answer) => self.answered(i, ticket, answer),
            Action::State(state) => self.sdk_is(i, state),
            Action::Cursor(cursor) => {
                let client = &mut self.clients[i];
                // Without one the first connection says where it starts.
                client.cursor = client.cursor.or(cursor);
                if let Some(sdk) = &mut client.sdk {
                    sdk.saved = cursor;
                }
            }
            Action::Trouble(_) | Action::End | Action::Token(_) => {}
        }
    }

    fn open_for_sdk(&mut self, i: usize, conn: ConnId, url: &str) {
        let named = url.trim_start_matches("ws://").split('/').next().unwrap_or_default();
        let node = NodeId::new(named).expect("urls name nodes");
        let there = self.alive().into_iter().rfind(|p| self.processes[*p].node == node);
        let at = self.now + self.between(1, 10);
        let Some(pid) = there.filter(|p| !self.processes[*p].closing) else {
            return self.later(i, at, Input::Opened(conn, Err(Trouble::retry("refused"))));
        };
        let key = self.next_connection;
        self.next_connection += 1;
        if let Some(sdk) = &mut self.clients[i].sdk {
            let to = Connection { pid, key, welcomed: false };
            sdk.wires.insert(conn, Wire { to, at: None, rooms: Within::default() });
        }
        self.later(i, at, Input::Opened(conn, Ok("token".into())));
        self.at(self.now + PING_EVERY_MS, Happening::Ping { client: i, key });
    }

    pub(super) fn ping(&mut self, i: usize, key: u64) {
        let Some(conn) = self.clients[i].sdk.as_ref().and_then(|sdk| sdk.conn_of(key)) else { return };
        let pid = self.clients[i].sdk.as_ref().map_or(0, |sdk| sdk.wires[&conn].to.pid);
        self.at(self.now + PING_EVERY_MS, Happening::Ping { client: i, key });
        if self.processes[pid].core.is_some() && self.now >= self.processes[pid].paused_until {
            self.sdk_gets(i, Input::Heard(conn));
        }
    }

    fn write_for_sdk(&mut self, i: usize, conn: ConnId, text: &str) {
        let user = UserId::new(name(self.clients[i].user)).expect("a plain name");
        let wire = self.clients[i].sdk.as_mut().and_then(|sdk| sdk.wires.get_mut(&conn));
        let Some(wire) = wire else { return };
        let (pid, session) = (wire.to.pid, SessionKey(wire.to.key));
        let event = match ClientFrame::parse(text) {
            Ok(ClientFrame::Connect(Connect { device, epoch, cursor, rooms, .. })) => {
                let rights = Rights::default();
                CoreInput::Connect(Box::new(Connecting {
                    session,
                    user,
                    device,
                    rights,
                    epoch,
                    cursor,
                    rooms,
                }))
            }
            Ok(frame) => {
                if let ClientFrame::Join(join) = &frame {
                    wire.rooms.joining.insert(join.id.clone(), join.room.clone());
                }
                let Ok(command) = Said::of(frame, |_| Ok(Rights::default())) else { return };
                CoreInput::Command { session, command }
            }
            Err(e) => {
                return self.violations.push(format!("the SDK wrote what nobody can read: {e}: {text}"));
            }
        };
        let at = self.now + self.between(1, 5);
        self.tell_core(i, pid, at, event);
    }

    /// A frame or the end of a socket.
    pub(super) fn sdk_reads(&mut self, i: usize, key: u64, frame: Result<ServerFrame, Option<u16>>) {
        let Some(sdk) = &mut self.clients[i].sdk else { return };
        let Some(conn) = sdk.conn_of(key) else { return };
        match frame {
            Ok(frame) => {
                self.follows(i, conn, &frame);
                self.sdk_gets(i, Input::Frame(conn, frame));
            }
            Err(code) => {
                sdk.wires.remove(&conn);
                self.sdk_gets(i, Input::Closed(conn, code, "the socket ended".into()));
            }
        }
    }

    /// P5 on the wire: the SDK would only connect again, and hide it.
    fn follows(&mut self, i: usize, conn: ConnId, frame: &ServerFrame) {
        let Some(wire) = self.clients[i].sdk.as_mut().and_then(|sdk| sdk.wires.get_mut(&conn)) else {
            return;
        };
        if let ServerFrame::Message(Message { stream, .. }) | ServerFrame::Reset(Reset { stream, .. }) = frame
            && stream.is_room()
        {
            return self.follows_rooms(i, conn, frame);
        }
        match frame {
            ServerFrame::Welcome(w) => {
                let from = w.cursor.offset.0 - if w.recovered { w.replayed } else { 0 };
                wire.at = Some(Cursor::new(w.cursor.generation, Offset(from)));
            }
            ServerFrame::Reset(r) => wire.at = Some(r.cursor),
            ServerFrame::Message(m) => {
                let (before, at) = (wire.at.replace(m.cursor()), m.cursor());
                let next = before.map(|c| Cursor::new(c.generation, Offset(c.offset.0 + 1)));
                if next != Some(at) {
                    let label = &self.clients[i].label;
                    self.violations
                        .push(format!("P5: a session of {label} was at {before:?} and got {at:?}"));
                }
            }
            _ => {}
        }
        if !matches!(frame, ServerFrame::Message(_) | ServerFrame::Reset(_)) {
            self.follows_rooms(i, conn, frame);
        }
    }

    /// The application takes what it is shown: each message once, in order, or it is told that some were missed.
    fn show(&mut self, i: usize, item: Item) {
        if item.event.as_ref().is_some_and(|event| self.shown_of_room(i, event)) {
            return;
        }
        match item.event {
            Some(Shown::Message(m)) => self.shown(i, m.cursor(), Some(m.id.as_str())),
            Some(Shown::Gap { cursor, through, .. } | Shown::Reset { cursor, through, .. }) => {
                self.history(i, cursor, through.as_deref());
            }
            Some(Shown::Presence(told)) => return self.lookout_is_shown(i, told),
            Some(_) => return,
            None => item.cursor.into_iter().for_each(|cursor| self.shown(i, cursor, None)),
        }
        if let Some(cursor) = item.cursor {
            let at = self.now + self.between(0, 150);
            self.later(i, at, Input::Ack(cursor));
        }
    }

    fn shown(&mut self, i: usize, at: Cursor, id: Option<&str>) {
        let client = &mut self.clients[i];
        let before = client.cursor.replace(at);
        if let Some(c) = before
            && (c.generation != at.generation || c.offset.0 + 1 != at.offset.0)
        {
            self.violations.push(format!("P5: {} was shown {at:?} after {c:?}", client.label));
            return;
        }
        let Some(id) = id else { return };
        let before = client.seen.insert((at.generation, at.offset.0), id.to_owned());
        if let Some(other) = before.filter(|other| other != id) {
            self.violations.push(format!("{at:?} of {} names {other} and {id}", client.label));
        }
        self.saw_message(id);
    }

    fn answered(&mut self, i: usize, ticket: Ticket, answer: Result<Done, SendError>) {
        let client = &mut self.clients[i];
        let Some(id) = client.sdk.as_mut().and_then(|sdk| sdk.tickets.get(&ticket).cloned()) else { return };
        if id.starts_with("seat-") {
            return self.sdk_seat_answered(i, &id, answer);
        }
        if client.choice.is_about(&id) {
            return client.choice.answered(answer.is_ok());
        }
        match answer {
            Ok(_) => {
                if let Some(at) = client.outgoing.iter().position(|out| out.id == id)
                    && let Some(out) = client.outgoing.remove(at)
                {
                    client.acked.insert(id, out.to);
                }
            }
            // The next life of the application sends it again.
            Err(SendError::Closed { .. }) => {}
            Err(error) => self.violations.push(format!("{}: {id} failed: {error}", client.label)),
        }
    }

    fn sdk_is(&mut self, i: usize, state: State) {
        let now = self.now;
        let client = &mut self.clients[i];
        let Some(sdk) = &mut client.sdk else { return };
        let was = std::mem::replace(&mut sdk.online, state.is_connected());
        if let State::Failed(failure) = state {
            let text = format!("the SDK of {} stopped for good: {failure}", client.label);
            return self.violations.push(text);
        }
        match (was, state.is_connected()) {
            (true, false) => client.away_since = Some(now),
            (false, true) => {
                let away = client.away_since.take().map_or(0, |since| now - since);
                self.saw_gap(away);
            }
            _ => {}
        }
    }

    /// The network cuts every socket.
    pub(super) fn cut_sdk(&mut self, i: usize) {
        let Some(sdk) = &mut self.clients[i].sdk else { return };
        for (conn, wire) in std::mem::take(&mut sdk.wires) {
            let at = self.now + self.between(1, 50);
            self.tell_core(i, wire.to.pid, at, CoreInput::Closed { session: SessionKey(wire.to.key) });
            self.sdk_gets(i, Input::Closed(conn, None, "cut".into()));
        }
    }
}
