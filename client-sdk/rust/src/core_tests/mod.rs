//! What the core does, one rule at a time.

mod connections;
mod events;
mod messages;
mod moves;
mod rooms;
mod watching;

use roost_proto::frames::Connect;
use roost_proto::{ClientFrame, Cursor, Epoch, MessageId, Offset, ServerFrame, UserId};
use serde_json::{Value, json};

use crate::backoff::Backoff;
use crate::core::{Action, Core, CoreConfig, Input};
use crate::error::{Cause, Failure, SendError, Trouble};
use crate::event::{Event, Item};
use crate::lanes::OrderingKey;
use crate::link::ConnId;
use crate::outbox::{Command, Done, What};
use crate::route::Route;
use crate::state::State;

struct Harness {
    core: Core,
    now: u64,
    actions: Vec<Action>,
}

impl Harness {
    fn new(token_renewable: bool) -> Self {
        let core = Core::new(CoreConfig {
            user: UserId::new("alice").unwrap(),
            device: None,
            cursor: Some(at(1, 5)),
            queue_max: 100,
            frame_bytes_max: 65_536,
            backoff: Backoff::new(250, 20_000),
            token_renewable,
            seed: 7,
        });
        let mut h = Self { core, now: 0, actions: Vec::new() };
        h.step(Input::Start);
        h
    }

    /// Connected over connection 1, with nothing missed.
    fn connected() -> Self {
        let mut h = Self::new(false);
        h.connect("ws://a/socket", 3);
        h.frame(2, welcome("a", 5, true, 0));
        assert!(h.core.state.is_connected());
        h.actions.clear();
        h
    }

    fn step(&mut self, input: Input) {
        self.actions.extend(self.core.step(input, self.now));
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.step(Input::Tick);
    }

    /// Lets the jitter pass, and answers the question for the route.
    fn connect(&mut self, url: &str, epoch: u64) -> Connect {
        self.wait(20_000);
        let route = self.routing();
        let answer = Route { url: url.into(), epoch: Epoch(epoch), connect_after_ms: 0 };
        self.step(Input::Routed(route, Ok(answer)));
        self.open(url)
    }

    /// Opens the socket that is wanted, and gives the `connect` frame.
    fn open(&mut self, url: &str) -> Connect {
        let (conn, wanted, _) = self.opening();
        assert_eq!(wanted, url);
        self.step(Input::Opened(conn, Ok("token".into())));
        match &self.written(conn)[..] {
            [ClientFrame::Connect(connect)] => connect.clone(),
            other => panic!("no connect but {other:?}"),
        }
    }

    fn routing(&self) -> ConnId {
        let mut routes =
            self.actions.iter().filter_map(|a| if let Action::Route(c) = a { Some(*c) } else { None });
        routes.next_back().expect("a question for the route")
    }

    fn opening(&self) -> (ConnId, String, bool) {
        let open = |a: &Action| match a {
            Action::Open { conn, url, fresh_token } => Some((*conn, url.clone(), *fresh_token)),
            _ => None,
        };
        self.actions.iter().filter_map(open).next_back().expect("a socket to open")
    }

    fn opens(&self) -> bool {
        self.actions.iter().any(|a| matches!(a, Action::Open { .. } | Action::Route(_)))
    }

    fn frame(&mut self, conn: ConnId, frame: Value) {
        let frame = ServerFrame::parse(&frame.to_string()).unwrap();
        self.step(Input::Frame(conn, frame));
    }

    fn written(&self, conn: ConnId) -> Vec<ClientFrame> {
        let write = |a: &Action| match a {
            Action::Write(c, text) if *c == conn => Some(ClientFrame::parse(text).unwrap()),
            _ => None,
        };
        self.actions.iter().filter_map(write).collect()
    }

    fn closed(&self) -> Vec<(ConnId, u16)> {
        let close = |a: &Action| if let Action::Close(conn, code) = a { Some((*conn, *code)) } else { None };
        self.actions.iter().filter_map(close).collect()
    }

    fn events(&self) -> Vec<Event> {
        let event = |a: &Action| if let Action::Deliver(item) = a { item.event.clone() } else { None };
        self.actions.iter().filter_map(event).collect()
    }

    fn shown(&self) -> Vec<u64> {
        let offset = |e: Event| if let Event::Message(m) = e { Some(m.offset.0) } else { None };
        self.events().into_iter().filter_map(offset).collect()
    }

    fn send(&mut self, id: &str) {
        let id = MessageId::new(id).unwrap();
        let text = json!({"type": "send", "id": id, "to": "bob", "data": 1}).to_string();
        let command = Command::frame(id, OrderingKey::To(UserId::new("bob").unwrap()), text);
        self.step(Input::Command { command, ticket: 1, expires_ms: u64::MAX });
    }

    /// Shows the server a fresh token over `conn`, which it takes.
    fn refresh(&mut self, conn: ConnId) {
        self.step(Input::Token(conn, Ok("fresh".into())));
        let id = self.core.refreshing.clone().expect("a refresh was written");
        self.frame(conn, json!({"type": "reply", "id": id, "ok": {}}));
    }

    fn failure(&self) -> Failure {
        match &self.core.state {
            State::Failed(failure) => failure.clone(),
            other => panic!("not failed but {other:?}"),
        }
    }
}

fn at(generation: u64, offset: u64) -> Cursor {
    Cursor::new(Epoch(generation), Offset(offset))
}

fn welcome(node: &str, tail: u64, recovered: bool, replayed: u64) -> Value {
    json!({"type": "welcome", "session": "s-1", "user": "alice", "node": node, "vnode": 1, "epoch": 3,
        "ping_interval_ms": 25_000, "cursor": at(1, tail), "recovered": recovered, "replayed": replayed,
        "through": "p0"})
}

fn message(offset: u64) -> Value {
    json!({"type": "message", "stream": "user:alice", "generation": 1, "offset": offset, "id": format!("m{offset}"),
        "kind": "message", "from": "bob", "at": "", "data": {}})
}

fn moved(url: &str, epoch: u64) -> Value {
    json!({"type": "moved", "node": "b", "url": url, "epoch": epoch, "after_ms": 350})
}
