//! The fake cluster: sessions, channels to the recipients' homes, the inbox, and what goes wrong with them.

use rand::RngExt;
use roost_proto::frames::Connect;
use roost_proto::limits::UNANSWERED_MAX;
use roost_proto::{ClientFrame, Cursor, Epoch, ErrorCode, Offset};
use serde_json::{Value, json};

use super::{Queued, Session, Wire, World};
use crate::link::ConnId;

impl World {
    pub(super) fn server_reads(&mut self) {
        let Some(conn) = self.pick_wire(|w| !w.up.is_empty() && w.close_code.is_none()) else { return };
        let Some(mut wire) = self.wires.remove(&conn) else { return };
        match ClientFrame::parse(&wire.up.pop_front().unwrap()).unwrap() {
            ClientFrame::Connect(connect) => self.server_connects(&mut wire, &connect),
            ClientFrame::Send(send) => {
                let (id, to) = (send.id.to_string(), send.to.to_string());
                self.server_accepts(&mut wire, id, to, send.data.get());
            }
            ClientFrame::Publish(publish) => {
                let (id, to) = (publish.id.to_string(), format!("#{}", publish.room));
                self.server_accepts(&mut wire, id, to, publish.data.get());
            }
            ClientFrame::Join(join) => {
                let (id, at) = join.into_parts();
                self.server_joins(&mut wire, &id, &at);
            }
            ClientFrame::Ack(ack) => self.ack(ack.cursor),
            ClientFrame::Ping(_) | ClientFrame::Pong(_) | ClientFrame::Status(_) => {}
            ClientFrame::Signal(_)
            | ClientFrame::Leave(_)
            | ClientFrame::Members(_)
            | ClientFrame::Watch(_)
            | ClientFrame::Unwatch(_)
            | ClientFrame::Read(_) => {
                panic!("nobody asked for that")
            }
            // Nobody asks for pages nor has events, and no token of the simulation ends.
            ClientFrame::History(_) | ClientFrame::Event(_) | ClientFrame::Refresh(_) => {
                unreachable!("not in this simulation")
            }
        }
        self.wires.insert(conn, wire);
    }

    fn ack(&mut self, cursor: Cursor) {
        assert!(Some(cursor) <= self.taken, "acknowledged before it was taken");
        self.acked = self.acked.max(Some(cursor));
    }

    fn server_connects(&mut self, wire: &mut Wire, connect: &Connect) {
        assert!(!wire.session.welcomed, "a second connect");
        if wire.node != self.home {
            wire.down.push_back(self.moved());
            return;
        }
        if self.chance(0.1) {
            let error = json!({"code": "unavailable", "message": "", "retryable": true});
            wire.down.push_back(json!({"type": "reply", "id": null, "error": error}));
            return;
        }
        if let Some(cursor) = connect.cursor.filter(|_| self.taken.is_some()) {
            self.ack(cursor);
        }
        let tail = Cursor::new(Epoch(self.generation), Offset(self.tail()));
        let from = connect.cursor.or(self.acked).unwrap_or(tail);
        let recovered =
            from.generation == tail.generation && (self.trimmed..=tail.offset.0).contains(&from.offset.0);
        self.told_gaps += usize::from(!recovered);
        wire.session.welcomed = true;
        wire.session.position = if recovered { from.offset.0 } else { tail.offset.0 };
        let rooms = self.connect_rooms(wire, &connect.rooms);
        wire.down.push_back(
            json!({"type": "welcome", "session": "s", "user": "alice", "node": "n", "vnode": 1,
            "epoch": self.epoch, "ping_interval_ms": 25_000, "cursor": tail, "recovered": recovered,
            "replayed": tail.offset.0 - wire.session.position, "rooms": rooms}),
        );
        self.feed(wire);
        self.feed_room(wire);
    }

    /// A session is a cursor: it is sent the next message and nothing else.
    fn feed(&self, wire: &mut Wire) {
        while wire.session.welcomed && wire.session.position < self.tail() {
            let id = &self.inbox[usize::try_from(wire.session.position).unwrap()];
            wire.session.position += 1;
            wire.down.push_back(json!({"type": "message", "stream": "user:alice", "generation": self.generation,
                "offset": wire.session.position, "id": id, "kind": "message", "from": "x", "at": "", "data": 1}));
        }
    }

    fn server_accepts(&mut self, wire: &mut Wire, id: String, to: String, text: &str) {
        let text = text.to_owned();
        let session = &mut wire.session;
        assert!(session.welcomed, "a send before the welcome");
        session.unanswered += 1;
        assert!(session.unanswered <= UNANSWERED_MAX, "too many unanswered");
        let n = Self::order_of(&id);
        if let Some(queued) = session.channel.iter_mut().find(|q| q.id == id) {
            queued.awaited = true;
            Self::unblock(session, &to, n);
            return;
        }
        if self.poison.contains(&id) {
            return Self::refuse(wire, &id, ErrorCode::TooLarge, None);
        }
        let refused = session.refused.get(&to).is_some_and(|first| *first < n);
        if refused || (!self.quiet && self.rng.random_bool(0.15)) {
            Self::block(session, &to, n);
            let code =
                if self.rng.random_bool(0.5) { ErrorCode::RateLimited } else { ErrorCode::Unavailable };
            let after_ms = self.rng.random_bool(0.5).then(|| self.rng.random_range(0..300));
            return Self::refuse(wire, &id, code, after_ms);
        }
        Self::unblock(session, &to, n);
        session.channel.push_back(Queued { id, to, text, awaited: true });
    }

    fn block(session: &mut Session, to: &str, n: usize) {
        let first = session.refused.entry(to.to_owned()).or_insert(n);
        *first = n.min(*first);
    }

    fn unblock(session: &mut Session, to: &str, n: usize) {
        if session.refused.get(to) == Some(&n) {
            session.refused.remove(to);
        }
    }

    fn refuse(wire: &mut Wire, id: &str, code: ErrorCode, after_ms: Option<u64>) {
        wire.session.unanswered -= 1;
        let error = json!({"code": code.as_str(), "message": "", "retryable": code.retryable(),
            "retry_after_ms": after_ms});
        wire.down.push_back(json!({"type": "reply", "id": id, "error": error}));
    }

    /// The oldest item of some channel is applied, or answered `unknown` and applied some time later.
    pub(super) fn channel_moves(&mut self) {
        if let Some(conn) = self.pick_wire(|w| !w.session.channel.is_empty()) {
            let unknown = self.chance(0.1);
            let Some(mut wire) = self.wires.remove(&conn) else { return };
            if unknown && wire.session.channel[0].awaited {
                wire.session.channel[0].awaited = false;
                let (id, to) = (wire.session.channel[0].id.clone(), wire.session.channel[0].to.clone());
                Self::block(&mut wire.session, &to, Self::order_of(&id));
                Self::refuse(&mut wire, &id, ErrorCode::Unknown, None);
            } else if let Some(queued) = wire.session.channel.pop_front() {
                self.apply(&queued);
                if queued.awaited {
                    wire.session.unanswered -= 1;
                    wire.down.push_back(json!({"type": "reply", "id": queued.id, "ok": {"at": "then"}}));
                }
            }
            self.wires.insert(conn, wire);
        }
        if !self.late.is_empty() {
            let at = self.rng.random_range(0..self.late.len());
            match self.late[at].pop_front() {
                Some(queued) => self.apply(&queued),
                None => drop(self.late.swap_remove(at)),
            }
        }
        self.feed_rooms();
    }

    /// The recipient's home: one message per id, and another body is a fault of the client.
    fn apply(&mut self, queued: &Queued) {
        if let Some(text) = self.applied.get(&queued.id) {
            assert_eq!(*text, queued.text, "an id with another body");
            return;
        }
        self.applied.insert(queued.id.clone(), queued.text.clone());
        self.streams.entry(queued.to.clone()).or_default().push(queued.id.clone());
        if queued.to.starts_with('#') {
            self.room.publish(&queued.id);
        }
    }

    pub(super) fn message_arrives(&mut self) {
        self.messages += 1;
        self.inbox.push(format!("m{}", self.messages));
        self.feed_home();
    }

    fn feed_home(&mut self) {
        for (conn, mut wire) in std::mem::take(&mut self.wires) {
            if wire.node == self.home && !wire.client_gone && wire.close_code.is_none() {
                self.feed(&mut wire);
            }
            self.wires.insert(conn, wire);
        }
    }

    fn moved(&mut self) -> Value {
        let after_ms = self.rng.random_range(0..300);
        let url = self.home.to_string();
        json!({"type": "moved", "node": "n", "url": url, "epoch": self.epoch, "after_ms": after_ms})
    }

    pub(super) fn home_moves(&mut self, told: bool) {
        self.epoch += 1;
        let old = self.home;
        self.home = (old + self.rng.random_range(1..3)) % 3;
        let moved = self.moved();
        for wire in self.wires.values_mut().filter(|w| w.node == old && w.close_code.is_none()) {
            if told && wire.session.welcomed {
                wire.down.push_back(moved.clone());
            } else {
                wire.close_code = Some(None);
                wire.down.clear();
            }
        }
    }

    /// A socket ends: with all that is on it, or with a goodbye after what is on its way down.
    pub(super) fn cut(&mut self) {
        let code = [None, Some(3001), Some(1012), Some(3501)][self.rng.random_range(0..4)];
        let Some(conn) = self.pick_wire(|w| w.close_code.is_none()) else { return };
        // A second 3501 before a welcome would be final.
        let welcomed = self.core.state.is_connected() && self.core.link.is_current(conn);
        let code = code.filter(|c| *c != 3501 || welcomed);
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.close_code = Some(code);
            wire.up.clear();
            if code.is_none() {
                wire.down.clear();
            }
        }
    }

    /// The data is lost: a new generation begins, and some of what was there comes again.
    pub(super) fn data_is_lost(&mut self) {
        self.generation += 1;
        self.trimmed = 0;
        let old = std::mem::take(&mut self.inbox);
        let again = old.len().saturating_sub(self.rng.random_range(0..5));
        self.inbox.extend(old.into_iter().skip(again));
        let cursor = Cursor::new(Epoch(self.generation), Offset(0));
        for wire in self.wires.values_mut().filter(|w| w.node == self.home && w.session.welcomed) {
            wire.session.position = 0;
            if !wire.client_gone && wire.close_code.is_none() {
                wire.down.push_back(json!({"type": "reset", "stream": "user:alice", "cursor": cursor}));
                self.told_gaps += 1;
            }
        }
        self.feed_home();
    }

    /// What is over on both sides leaves only what is in its channel.
    pub(super) fn sweep(&mut self) {
        let dropped = self.chance(0.3);
        let over = |w: &Wire| w.client_gone && (w.up.is_empty() || w.close_code.is_some());
        let gone: Vec<ConnId> = self.wires.iter().filter(|(_, w)| over(w)).map(|(c, _)| *c).collect();
        for wire in gone.iter().filter_map(|conn| self.wires.remove(conn)) {
            if !dropped {
                self.late.push(wire.session.channel);
            }
        }
    }
}
