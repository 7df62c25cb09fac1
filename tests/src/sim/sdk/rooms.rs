//! Rooms of clients that run the real SDK: the application joins, leaves and publishes, and what it is shown is held to
//! the promises.

use std::collections::{BTreeMap, BTreeSet};

use roost_client::bare::{Command, ConnId, Done, OrderingKey, What};
use roost_client::{Event as Shown, SendError};
use roost_proto::answers::Listed;
use roost_proto::events::Message;
use roost_proto::frames::{Change, InRoom, Joined, RoomAt, ServerFrame};
use roost_proto::ids::{Cursor, MessageId, Offset, RoomId, StreamId};
use roost_proto::{ClientFrame, limits::MEMBERS_LISTED_MAX};

use super::super::World;
use super::super::rooms::{ROOMS, room};

/// The rooms of one socket: each is sent the next message and nothing else (core rule 25).
#[derive(Default)]
pub(super) struct Within {
    at: BTreeMap<StreamId, Cursor>,
    /// Joins that wait for their answer.
    pub joining: BTreeMap<MessageId, RoomId>,
}

impl Within {
    fn begins(&mut self, room: &RoomId, end: Cursor, replayed: u64) {
        let start = Cursor::new(end.generation, Offset(end.offset.0 - replayed));
        self.at.insert(StreamId::of_room(room), start);
    }

    /// What is wrong with `frame`, if anything.
    pub(super) fn follows(&mut self, frame: &ServerFrame) -> Option<String> {
        match frame {
            ServerFrame::Welcome(w) => {
                for told in &w.rooms {
                    if let Some(end) = told.cursor {
                        self.begins(&told.room, end, told.replayed.unwrap_or(0));
                    }
                }
            }
            ServerFrame::Reply(reply) => {
                let id = reply.id.as_deref().and_then(|id| MessageId::new(id).ok())?;
                let room = self.joining.remove(&id)?;
                let joined: Joined = reply.ok.as_ref()?.read().ok()?;
                self.begins(&room, joined.cursor, joined.replayed);
            }
            ServerFrame::Reset(reset) => drop(self.at.insert(reset.stream.clone(), reset.cursor)),
            ServerFrame::Message(m) => {
                let (before, at) = (self.at.insert(m.stream.clone(), m.cursor()), m.cursor());
                let next = before.map(|c| Cursor::new(c.generation, Offset(c.offset.0 + 1)));
                return (next != Some(at))
                    .then(|| format!("was at {before:?} of {} and got {at:?}", m.stream));
            }
            _ => {}
        }
        None
    }
}

impl World {
    /// The rooms of the application begin anew with its life.
    pub(super) fn begin_sdk_seats(&mut self, i: usize) {
        Self::unseat(&mut self.clients[i].seats);
        for r in 0..ROOMS {
            self.clients[i].seats[r].fresh.clear();
            if self.clients[i].seats[r].wanted {
                self.join_by_sdk(i, r);
            }
        }
    }

    /// Comes into a room or leaves it.
    pub(in crate::sim) fn move_sdk_seat(&mut self, i: usize) {
        let r = self.between(0, ROOMS as u64) as usize;
        let seat = &mut self.clients[i].seats[r];
        if seat.asked.is_some() {
            return;
        }
        seat.wanted = !seat.joined;
        if std::mem::take(&mut seat.joined) {
            // Who comes back may be shown what came again meanwhile.
            seat.fresh.clear();
            self.ask_sdk(i, r, |_, room| What::Leave(room));
        } else {
            self.join_by_sdk(i, r);
        }
    }

    fn join_by_sdk(&mut self, i: usize, r: usize) {
        let (cursor, presence) = (self.clients[i].seats[r].cursor, self.clients[i].seats[r].presence);
        self.ask_sdk(i, r, |_, room| What::Join(RoomAt { room, cursor, presence, info: None }));
    }

    fn ask_sdk(&mut self, i: usize, r: usize, what: impl FnOnce(MessageId, RoomId) -> What) {
        self.next_connection += 1;
        let id = MessageId::new(format!("seat-{}", self.next_connection)).expect("a plain id");
        self.clients[i].seats[r].asked = Some(id.to_string());
        let what = what(id.clone(), room(r));
        self.order_sdk(i, Command { id, lane: OrderingKey::Within(room(r)), what });
    }

    /// The answer to a `join`, a `leave` or `members`.
    pub(super) fn sdk_seat_answered(&mut self, i: usize, id: &str, answer: Result<Done, SendError>) {
        let client = &mut self.clients[i];
        let Some(r) = client.seats.iter().position(|seat| seat.asked.as_deref() == Some(id)) else { return };
        let seat = &mut client.seats[r];
        seat.asked = None;
        match answer {
            Ok(Done { ok, .. }) => {
                if let Ok(Listed { members: Some(members), .. }) = ok.read() {
                    seat.members = members.into_iter().map(|m| m.user.to_string()).collect();
                }
                let Ok(Joined { cursor: end, replayed, member_count, .. }) = ok.read() else { return };
                seat.joined = true;
                let start = Cursor::new(end.generation, Offset(end.offset.0 - replayed));
                let at = *seat.cursor.get_or_insert(start);
                // What was missed was told before this answer.
                if at.generation != end.generation || at < start {
                    let text =
                        format!("P5: {} is at {at:?} in a room that begins at {start:?}", client.label);
                    self.violations.push(text);
                }
                if let Some(count) = member_count {
                    self.ask_for_members(i, r, count);
                }
            }
            // The next life of the application comes in again.
            Err(SendError::Closed { .. }) => {}
            Err(error) => self.violations.push(format!("{}: {id} failed: {error}", client.label)),
        }
    }

    /// What the application is shown of rooms; false if it is about something else.
    pub(super) fn shown_of_room(&mut self, i: usize, event: &Shown) -> bool {
        let seat_of = |name: &RoomId| (0..ROOMS).find(|r| room(*r) == *name);
        match event {
            Shown::Message(m) => match m.stream.room().and_then(|name| seat_of(&name)) {
                Some(r) => self.shown_in(i, r, m),
                None => return false,
            },
            Shown::Gap { stream, cursor, through, .. } | Shown::Reset { stream, cursor, through, .. } => {
                let Some(r) = stream.room().and_then(|name| seat_of(&name)) else { return false };
                self.room_history(i, r, *cursor, through.as_deref());
            }
            Shown::Members { room, members } => {
                let Some(r) = seat_of(room) else { return true };
                match &members.listed {
                    Some(all) => {
                        self.clients[i].seats[r].members = all.iter().map(|m| m.user.to_string()).collect();
                    }
                    None => self.ask_for_members(i, r, members.count),
                }
            }
            Shown::Member { room, user, change, .. } => {
                let Some(r) = seat_of(room) else { return true };
                let members = &mut self.clients[i].seats[r].members;
                match change {
                    Change::Join => drop(members.insert(user.to_string())),
                    Change::Leave => drop(members.remove(user.as_str())),
                }
            }
            Shown::RoomLost { room, error } => {
                let text = format!("{} cannot stay in {room}: {error}", self.clients[i].label);
                self.violations.push(text);
            }
            _ => return false,
        }
        true
    }

    /// Too much was on its way to the socket for the list.
    fn ask_for_members(&mut self, i: usize, r: usize, count: usize) {
        if count > MEMBERS_LISTED_MAX || self.clients[i].seats[r].asked.is_some() {
            return;
        }
        self.ask_sdk(i, r, |id, room| {
            What::Frame(ClientFrame::Members(InRoom { id, room }).to_json().into())
        });
    }

    fn shown_in(&mut self, i: usize, r: usize, m: &Message) {
        let client = &mut self.clients[i];
        let (at, id, seat) = (m.cursor(), m.id.to_string(), &mut client.seats[r]);
        if !seat.joined {
            self.violations.push(format!("{} was shown {id} of r{r}, in which it is not", client.label));
            return;
        }
        let before = seat.cursor.replace(at).unwrap_or_default();
        if before.generation != at.generation || at <= before {
            self.violations.push(format!("P5: {} was shown {at:?} of r{r} after {before:?}", client.label));
            return;
        }
        // What it was shown under an earlier generation it is not shown again.
        seat.passed.extend((before.offset.0 + 1..at.offset.0).map(|offset| (at.generation, offset)));
        seat.seen.insert((at.generation, at.offset.0), id.clone());
        if !seat.fresh.insert(id.clone()) {
            self.violations.push(format!("P4: {} was shown {id} of r{r} twice", client.label));
        }
    }

    /// P5 on the wire: the SDK would only connect again, and hide it.
    pub(super) fn follows_rooms(&mut self, i: usize, conn: ConnId, frame: &ServerFrame) {
        let client = &mut self.clients[i];
        let Some(wire) = client.sdk.as_mut().and_then(|sdk| sdk.wires.get_mut(&conn)) else { return };
        if let Some(wrong) = wire.rooms.follows(frame) {
            self.violations.push(format!("P5: a session of {} {wrong}", client.label));
        }
    }

    /// Places that an application was not shown: it knows those messages from an earlier generation.
    pub(in crate::sim) fn passed_over(
        &self,
        i: usize,
        r: usize,
        tail: Cursor,
    ) -> BTreeSet<(roost_proto::Epoch, u64)> {
        let seat = &self.clients[i].seats[r];
        let at = seat.cursor.filter(|c| c.generation == tail.generation).map_or(0, |c| c.offset.0);
        let to_come = (at + 1..=tail.offset.0).map(|offset| (tail.generation, offset));
        seat.passed.iter().copied().chain(to_come).collect()
    }
}
