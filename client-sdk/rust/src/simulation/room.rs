//! The room of the fake cluster, and what the application sees of it: every message once, in order, or a gap told.

use std::collections::{BTreeMap, HashSet};

use rand::RngExt;
use roost_proto::frames::{Joined, RoomAt};
use roost_proto::{Cursor, Epoch, MessageId, Offset, RoomId};
use serde_json::{Value, json};

use super::{Wire, World};
use crate::core::Input;
use crate::error::SendError;
use crate::event::Event;
use crate::outbox::{Command, Done, What};

const ROOM: &str = "lobby";
pub(super) const STREAM: &str = "room:lobby";
/// Tickets of joins: above those of sends.
const JOINS: u64 = 1 << 60;

#[derive(Default)]
pub(super) struct Room {
    generation: u64,
    /// What was published, by generation.
    ids: BTreeMap<u64, Vec<String>>,
    trimmed: u64,
    pub told_gaps: usize,
    joins: u64,
    answered: u64,
    taken: Option<Cursor>,
    pub shown: HashSet<String>,
    pub gaps: usize,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { generation: 1, ids: BTreeMap::from([(1, Vec::new())]), ..Self::default() }
    }

    fn tail(&self) -> Cursor {
        Cursor::new(Epoch(self.generation), Offset(self.ids[&self.generation].len() as u64))
    }

    pub(super) fn is_settled(&self) -> bool {
        self.joins == self.answered
    }

    /// What a session is told that shows `cursor`, and where it goes on.
    fn place(&mut self, cursor: Option<Cursor>) -> (Value, u64) {
        let tail = self.tail();
        let from = cursor.unwrap_or(tail);
        let recovered =
            from.generation == tail.generation && (self.trimmed..=tail.offset.0).contains(&from.offset.0);
        self.told_gaps += usize::from(!recovered);
        let position = if recovered { from.offset.0 } else { tail.offset.0 };
        let replayed = tail.offset.0 - position;
        let joined = json!({"room": ROOM, "cursor": tail, "recovered": recovered, "replayed": replayed, "through": "p"});
        (joined, position)
    }

    pub(super) fn publish(&mut self, id: &str) {
        self.ids.get_mut(&self.generation).unwrap().push(id.to_owned());
    }

    /// The next message of the room, or one after it that is not hidden by having been shown before.
    fn is_next(&mut self, cursor: Cursor) {
        if let Some(taken) = self.taken {
            assert_eq!(cursor.generation, taken.generation, "not the next in the room");
            self.are_known(taken, cursor.offset.0 - 1);
        }
        self.taken = Some(cursor);
    }

    /// All after `taken` and up to `offset` were shown before, under another generation.
    fn are_known(&self, taken: Cursor, offset: u64) {
        for at in taken.offset.0..offset {
            let id = &self.ids[&taken.generation.0][usize::try_from(at).unwrap()];
            assert!(self.shown.contains(id), "{id} of the room was passed over");
        }
    }

    pub(super) fn took(&mut self, event: &Event) {
        match event {
            Event::Message(m) => {
                self.is_next(m.cursor());
                assert!(self.shown.insert(m.id.to_string()), "{} was shown twice", m.id);
            }
            Event::Gap { from, cursor, .. } | Event::Reset { from, cursor, .. } => {
                if let (Some(taken), Some(from)) = (self.taken, from) {
                    assert_eq!(taken.generation, from.generation, "a gap from elsewhere");
                    self.are_known(taken, from.offset.0);
                }
                self.gaps += 1;
                self.taken = Some(*cursor);
            }
            _ => {}
        }
    }

    pub(super) fn check(&self) {
        let tail = self.tail();
        let Some(taken) = self.taken else {
            return assert_eq!(self.joins, 0, "nothing is known of the room");
        };
        assert_eq!(taken.generation, tail.generation, "{taken:?} of {tail:?}");
        self.are_known(taken, tail.offset.0);
        assert!(self.gaps <= self.told_gaps, "a gap that nobody told of");
    }
}

impl World {
    /// The application comes into the room, or changes how it is there.
    pub(super) fn join(&mut self) {
        let start = Cursor::new(Epoch(1), Offset(0));
        let first = self.room.joins == 0;
        let cursor = (first && self.rng.random_bool(0.5)).then_some(start);
        self.room.taken = self.room.taken.or(cursor);
        let at = RoomAt { room: RoomId::new(ROOM).unwrap(), cursor, presence: false, info: None };
        let id = MessageId::new(format!("j{}", self.room.joins)).unwrap();
        let command = Command::within(id, &at.room.clone(), What::Join(at));
        self.room.joins += 1;
        self.step(Input::Command { command, ticket: JOINS + self.room.joins, expires_ms: u64::MAX });
    }

    /// Whether this was the answer to a join.
    pub(super) fn join_answered(&mut self, ticket: u64, result: &Result<Done, SendError>) -> bool {
        if ticket >= JOINS {
            self.room.answered += 1;
            let ok = &result.as_ref().expect("joins are repeated until they succeed").ok;
            if self.room.taken.is_none() {
                self.room.taken = ok.read::<Joined>().ok().map(|joined| joined.cursor);
            }
        }
        ticket >= JOINS
    }

    pub(super) fn connect_rooms(&mut self, wire: &mut Wire, rooms: &[RoomAt]) -> Vec<Value> {
        let mut told = Vec::new();
        for at in rooms {
            // At the end too: the last connection must be in the room by itself.
            if self.rng.random_bool(0.2) {
                let error = json!({"code": "unavailable", "message": "", "retryable": true});
                told.push(json!({"room": at.room, "error": error}));
            } else {
                let (joined, position) = self.room.place(at.cursor);
                wire.session.room = Some(position);
                told.push(joined);
            }
        }
        told
    }

    pub(super) fn server_joins(&mut self, wire: &mut Wire, id: &MessageId, at: &RoomAt) {
        assert!(wire.session.welcomed, "a join before the welcome");
        if self.chance(0.2) {
            // A join that does not succeed ends what was.
            wire.session.room = None;
            let error = json!({"code": "unavailable", "message": "", "retryable": true});
            return wire.down.push_back(json!({"type": "reply", "id": id, "error": error}));
        }
        let (joined, position) = self.room.place(at.cursor);
        wire.session.room = Some(position);
        wire.down.push_back(json!({"type": "reply", "id": id, "ok": joined}));
        self.feed_room(wire);
    }

    /// The next messages of the room, to whichever node the session is at.
    pub(super) fn feed_room(&self, wire: &mut Wire) {
        let Some(position) = &mut wire.session.room else { return };
        let ids = &self.room.ids[&self.room.generation];
        while let Some(id) = ids.get(usize::try_from(*position).unwrap()) {
            *position += 1;
            wire.down
                .push_back(json!({"type": "message", "stream": STREAM, "generation": self.room.generation,
                "offset": *position, "id": id, "kind": "message", "from": "x", "at": "", "data": 1}));
        }
    }

    pub(super) fn feed_rooms(&mut self) {
        for (conn, mut wire) in std::mem::take(&mut self.wires) {
            if wire.session.welcomed && !wire.client_gone && wire.close_code.is_none() {
                self.feed_room(&mut wire);
            }
            self.wires.insert(conn, wire);
        }
    }

    /// Somebody else publishes.
    pub(super) fn room_is_told(&mut self) {
        self.messages += 1;
        let id = format!("r{}", self.messages);
        self.room.publish(&id);
        self.feed_rooms();
    }

    pub(super) fn room_is_trimmed(&mut self) {
        self.room.trimmed = self.room.tail().offset.0;
    }

    /// A new generation begins, and some of what was there comes again.
    pub(super) fn room_is_lost(&mut self) {
        let old = &self.room.ids[&self.room.generation];
        let again = old.len().saturating_sub(self.rng.random_range(0..5));
        let again = old[again..].to_vec();
        self.room.generation += 1;
        self.room.ids.insert(self.room.generation, again);
        self.room.trimmed = 0;
        let cursor = Cursor::new(Epoch(self.room.generation), Offset(0));
        for wire in self.wires.values_mut().filter(|w| w.session.room.is_some()) {
            wire.session.room = Some(0);
            if !wire.client_gone && wire.close_code.is_none() {
                wire.down.push_back(json!({"type": "reset", "stream": STREAM, "cursor": cursor}));
                self.room.told_gaps += 1;
            }
        }
        self.feed_rooms();
    }
}
