//! The rooms of a client: where it is in each, and how it stays in them over connections.
//!
//! A room is kept from the answer to the application's `join` until it is left: `connect` names it with the cursor up
//! to which messages were received, and what `welcome` does not grant is joined again, by a command of the core's own.

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::frames::{Empty, InRoom, Join, Joined, Member, OfUsers, RoomAt, RoomWelcome, Signalled};
use roost_proto::limits::ROOMS_PER_SESSION_MAX;
use roost_proto::{ClientFrame, ErrorBody, ErrorCode, Json, MessageId, RoomId, StreamId};

use crate::core::{Action, Core};
use crate::error::SendError;
use crate::event::{Event, Members};
use crate::lanes::OrderingKey;
use crate::outbox::{Answered, Command, Ticket, What, read};
use crate::place::{Missed, Place};

/// A room that this client is in.
#[derive(Debug)]
pub(crate) struct Room {
    /// As the application joined it; without a cursor.
    at: RoomAt,
    pub(crate) place: Place,
    /// The server has everyone join it.
    auto: bool,
}

impl Room {
    fn new(at: RoomAt, auto: bool) -> Self {
        let place = Place::new(at.cursor);
        Self { at: RoomAt { cursor: None, ..at }, place, auto }
    }

    /// What the server is shown, to go on from here.
    fn show(&mut self) -> RoomAt {
        let cursor = self.place.received();
        self.place.show(cursor);
        RoomAt { cursor, ..self.at.clone() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: BTreeMap<RoomId, Room>,
    /// What the last `connect` named.
    asked: BTreeSet<RoomId>,
    /// Rooms that the server has everyone join, and the application left.
    declined: BTreeSet<RoomId>,
}

impl Rooms {
    pub(crate) fn get_mut(&mut self, room: &RoomId) -> Option<&mut Room> {
        self.rooms.get_mut(room)
    }

    /// The rooms for a `connect` frame, as many as there are `bytes` for; the others are joined after it.
    pub(crate) fn hello(&mut self, mut bytes: usize) -> Vec<RoomAt> {
        self.asked.clear();
        let mut named = Vec::new();
        for (room, at) in &mut self.rooms {
            let shown = at.show();
            let size = serde_json::to_string(&shown).map_or(usize::MAX, |text| text.len() + 1);
            if size > bytes {
                break;
            }
            bytes -= size;
            self.asked.insert(room.clone());
            named.push(shown);
        }
        named
    }

    fn remove(&mut self, room: &RoomId) {
        if self.rooms.remove(room).is_some_and(|r| r.auto) {
            self.declined.insert(room.clone());
        }
    }

    /// Whether the client should be in a room that `welcome` names and it is not in.
    fn takes(&self, room: &RoomId) -> bool {
        !self.asked.contains(room) && !self.declined.contains(room)
    }
}

impl Core {
    pub(crate) fn command(&mut self, command: Command, ticket: Ticket, expires_ms: u64) {
        if let What::Join(at) = &command.what
            && self.rooms.rooms.len() >= ROOMS_PER_SESSION_MAX
            && !self.rooms.rooms.contains_key(&at.room)
        {
            let full = SendError::TooManyRooms { max: ROOMS_PER_SESSION_MAX };
            return self.actions.push(Action::Answer(ticket, Err(full)));
        }
        let watching =
            matches!(command.what, What::Watch(_) | What::Unwatch(_)).then(|| command.what.clone());
        let left = if let What::Leave(room) = &command.what { Some(room.clone()) } else { None };
        if let Err(e) = self.outbox.push(command, ticket, expires_ms) {
            return self.actions.push(Action::Answer(ticket, Err(e)));
        }
        if let Some(what) = watching {
            self.wants_watched(&what);
        }
        if let Some(room) = left {
            // At once: nothing more of it is shown, and no later connection names it.
            self.rooms.remove(&room);
            let answers = self.outbox.withdraw_joins(&room);
            self.answer(answers);
        }
    }

    /// The frame of a command that is written now.
    pub(crate) fn frame_of(&mut self, id: MessageId, what: What) -> std::sync::Arc<str> {
        let frame = match what {
            What::Frame(text) | What::Event(text) => return text,
            What::Join(at) => {
                let place = self.rooms.get_mut(&at.room).map(|room| room.show().cursor);
                ClientFrame::Join(Join::new(id, RoomAt { cursor: place.unwrap_or(at.cursor), ..at }))
            }
            What::Leave(room) => ClientFrame::Leave(InRoom { id, room }),
            What::Watch(users) => ClientFrame::Watch(OfUsers { id, users }),
            What::Unwatch(users) => ClientFrame::Unwatch(OfUsers { id, users }),
        };
        frame.to_json().into()
    }

    /// A command has its final answer.
    pub(crate) fn answered(&mut self, mut answered: Answered) {
        let Answered { what, own, result, .. } = &mut answered;
        match (&*what, &mut *result) {
            (What::Join(at), Ok(ok)) => match read(ok) {
                Ok(joined) => self.joined(at.clone(), *own, joined),
                Err(error) => *result = Err(error),
            },
            (What::Join(at), Err(error)) if *own => {
                let (room, error) = (at.room.clone(), error.clone());
                self.lose(room, error);
            }
            (What::Leave(room), outcome) => {
                self.rooms.remove(room);
                // It was not in the room: over this connection, or by a first copy of this command.
                if outcome.as_ref().is_err_and(|e| e.code == ErrorCode::NotFound) {
                    *outcome = Ok(Json::of(&Empty {}));
                }
            }
            (What::Watch(users), Ok(ok)) => match read(ok) {
                Ok(watched) => self.watched(users, *own, watched),
                Err(error) => *result = Err(error),
            },
            (What::Watch(users), Err(error)) if *own => self.not_watched_again(users, error),
            (What::Unwatch(users), _) => self.unwatched(users),
            _ => {}
        }
        self.answer(answered.answers());
    }

    fn joined(&mut self, at: RoomAt, own: bool, joined: Joined) {
        let name = at.room.clone();
        self.rooms.declined.remove(&name);
        match self.rooms.rooms.get_mut(&name) {
            Some(room) if !own => room.at = RoomAt { cursor: None, ..at },
            Some(_) => {}
            None if own => return,
            None => drop(self.rooms.rooms.insert(name.clone(), Room::new(at, false))),
        }
        self.placed(&name, joined);
    }

    /// The client has its place in a room.
    fn placed(&mut self, name: &RoomId, joined: Joined) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if let Some(Missed { from, cursor }) = room.place.welcome(&joined) {
            let stream = StreamId::of_room(name);
            self.deliver(Event::Gap { stream, from, cursor, through: joined.through }, None);
        }
        if let Some(members) = Members::of(joined.members, joined.member_count) {
            self.deliver(Event::Members { room: name.clone(), members }, None);
        }
    }

    /// What `welcome` says of rooms. Those that it does not name are joined again.
    pub(crate) fn welcome_rooms(&mut self, told: Vec<RoomWelcome>) {
        let mut missing: BTreeSet<RoomId> = self.rooms.rooms.keys().cloned().collect();
        for RoomWelcome { room, cursor, recovered, replayed, through, members, member_count, error } in told {
            let joined = cursor.zip(recovered).map(|(cursor, recovered)| {
                let replayed = replayed.unwrap_or(0);
                Joined { cursor, recovered, replayed, through, members, member_count }
            });
            if !missing.remove(&room) {
                self.welcome_unasked(room, joined, error);
            } else if let Some(joined) = joined.filter(|_| error.is_none()) {
                self.placed(&room, joined);
            } else if let Some(error) = error.filter(|e| !e.retryable) {
                self.lose(room, error);
            } else {
                self.join_again(&room);
            }
        }
        // Not named in `connect`: joined over the last connection meanwhile, or there was no place for it. Or there
        // was no `connect` but a fresh token, which may allow less.
        for room in missing {
            self.join_again(&room);
        }
    }

    /// A room that the client is not in: left since it was asked for, or one that everyone joins.
    fn welcome_unasked(&mut self, room: RoomId, joined: Option<Joined>, error: Option<ErrorBody>) {
        if self.rooms.takes(&room) {
            let at = RoomAt { room: room.clone(), cursor: None, presence: false, info: None };
            match (joined, error) {
                (Some(joined), None) => {
                    self.rooms.rooms.insert(room.clone(), Room::new(at, true));
                    self.placed(&room, joined);
                }
                (_, Some(error)) if !error.retryable => {}
                _ => {
                    self.rooms.rooms.insert(room.clone(), Room::new(at, true));
                    self.join_again(&room);
                }
            }
        } else if joined.is_some() && !self.outbox.has(&OrderingKey::Within(room.clone())) {
            // A command that is under way knows better.
            self.outbox.push_own(OrderingKey::Within(room.clone()), What::Leave(room));
        }
    }

    fn join_again(&mut self, room: &RoomId) {
        if let Some(Room { at, .. }) = self.rooms.get_mut(room) {
            let join = What::Join(at.clone());
            self.outbox.push_own(OrderingKey::Within(room.clone()), join);
        }
    }

    /// A room that cannot be kept.
    fn lose(&mut self, room: RoomId, error: ErrorBody) {
        tracing::debug!(%room, %error, "the room cannot be kept");
        if self.rooms.rooms.remove(&room).is_some() {
            self.deliver(Event::RoomLost { room, error }, None);
        }
    }

    pub(crate) fn member(&mut self, member: Member) {
        let Member { room, user, change, info } = member;
        if self.rooms.get_mut(&room).is_some_and(|room| room.at.presence) {
            self.deliver(Event::Member { room, user, change, info }, None);
        }
    }

    pub(crate) fn signalled(&mut self, signal: Signalled) {
        if signal.room.as_ref().is_none_or(|room| self.rooms.get_mut(room).is_some()) {
            self.deliver(Event::Signal(signal), None);
        }
    }
}
