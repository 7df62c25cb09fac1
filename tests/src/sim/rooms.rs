//! Rooms of a simulated cluster: clients are in some, publish, leave, come back, and write down what they are shown.
//! Here are those written by hand, and what must be true of all; those that run the SDK are in `sdk/rooms.rs`.

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::events::Message;
use roost_proto::frames::{
    Change, ChosenStatus, InRoom, InfoOf, Join, Joined, Member, Publish, Reply, RoomAt, RoomWelcome,
};
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, RoomId, StreamId, UserId, VnodeId};
use roost_ws_node::core::{Command, Input, SessionKey};

use super::client::Wake;
use super::{Happening, World};

/// Rooms of every run.
pub(super) const ROOMS: usize = 3;

/// One client in one room.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// It is to be in the room.
    pub wanted: bool,
    /// It is shown as a member and told of the others.
    pub presence: bool,
    /// The last `connect` named it.
    named: bool,
    hello: Option<Cursor>,
    /// What the join showed that is being answered.
    shown: Option<Cursor>,
    /// Over the connection in use.
    pub joined: bool,
    /// The command that waits for its answer.
    pub asked: Option<String>,
    pub cursor: Option<Cursor>,
    /// What the application saw.
    pub seen: BTreeMap<(Epoch, u64), String>,
    /// Of an SDK: what it was shown in this life, and places that it passed over because it had shown the message.
    pub fresh: BTreeSet<String>,
    pub passed: BTreeSet<(Epoch, u64)>,
    pub members: BTreeSet<String>,
}

pub(super) fn room(r: usize) -> RoomId {
    RoomId::new(format!("r{r}")).expect("a plain name")
}

pub(super) fn publish_frame(id: &str, r: usize) -> Publish {
    let data = format!("{{\"n\":\"{id}\"}}");
    Publish {
        id: MessageId::new(id).expect("a plain id"),
        room: room(r),
        data: serde_json::value::RawValue::from_string(data).expect("JSON"),
    }
}

/// Client `i` is in two of three rooms, and a member in two of three.
pub(super) fn seats(i: usize) -> Vec<Seat> {
    let seat = |r: usize| Seat {
        wanted: !(i / 2 + r).is_multiple_of(3),
        presence: (i / 2 + r) % 3 != 1,
        ..Seat::default()
    };
    (0..ROOMS).map(seat).collect()
}

/// What a place in the list of receivers stands for: the users, then the rooms.
pub(super) fn stream_of(users: usize, to: usize) -> StreamId {
    match to.checked_sub(users) {
        Some(r) => StreamId::of_room(&room(r)),
        None => StreamId::new(format!("user:{}", super::client::name(to))).expect("a plain name"),
    }
}

impl World {
    pub(super) fn stream_to(&self, to: usize) -> StreamId {
        stream_of(self.setup.users, to)
    }

    pub(super) fn vnode_to(&self, to: usize) -> VnodeId {
        roost_ring::vnode_of_stream(&self.stream_to(to), self.setup.vnodes)
    }

    pub(super) fn publish_event(&self, session: SessionKey, id: &str, to: usize) -> Input {
        let publish = publish_frame(id, to - self.setup.users);
        Input::Command { session, command: Command::Publish(publish) }
    }

    /// What `connect` says of rooms.
    pub(super) fn rooms_to_join(&mut self, i: usize) -> Vec<RoomAt> {
        for seat in &mut self.clients[i].seats {
            (seat.named, seat.hello) = (seat.wanted, seat.cursor);
        }
        let seats = self.clients[i].seats.iter().enumerate().filter(|(_, seat)| seat.wanted);
        let at = |(r, seat): (usize, &Seat)| RoomAt {
            room: room(r),
            cursor: seat.cursor,
            presence: seat.presence,
            info: None,
        };
        seats.map(at).collect()
    }

    pub(super) fn seats_welcomed(&mut self, i: usize, told: &[RoomWelcome]) {
        for r in 0..ROOMS {
            let seat = &mut self.clients[i].seats[r];
            (seat.joined, seat.asked, seat.shown) = (false, None, seat.hello);
            match told.iter().find(|t| t.room == room(r)) {
                Some(RoomWelcome { cursor: Some(cursor), recovered, replayed, through, members, .. }) => {
                    let verdict = (recovered.unwrap_or(false), replayed.unwrap_or(0));
                    self.seated(i, r, *cursor, verdict, through.as_deref(), members.as_deref());
                }
                // Not now: it comes again.
                Some(_) => {}
                None if seat.named => {
                    let text = format!("{} was welcomed without a word about r{r}", self.clients[i].label);
                    self.violations.push(text);
                }
                None => {}
            }
        }
    }

    fn seated(
        &mut self,
        i: usize,
        r: usize,
        cursor: Cursor,
        (recovered, replayed): (bool, u64),
        through: Option<&str>,
        members: Option<&[InfoOf]>,
    ) {
        let label = self.clients[i].label.clone();
        let seat = &mut self.clients[i].seats[r];
        seat.joined = true;
        if seat.presence {
            match members {
                Some(all) => seat.members = all.iter().map(|m| m.user.to_string()).collect(),
                None => self.violations.push(format!("{label} is a member of r{r} and told of none")),
            }
        }
        let seat = &mut self.clients[i].seats[r];
        let start = cursor.offset.0 - replayed;
        match seat.cursor {
            _ if !recovered => self.room_history(i, r, cursor, through),
            None => seat.cursor = Some(Cursor::new(cursor.generation, Offset(start))),
            // What came over the old socket in the meantime is not missing from the new one.
            Some(c) if c.generation == cursor.generation && start <= c.offset.0 => {}
            // The old socket told of a new life after this one was asked: the reset comes here too.
            Some(c)
                if c.generation > cursor.generation
                    && seat.shown.is_some_and(|shown| shown.generation == cursor.generation) => {}
            // It began over the old socket after this one was asked: it shows now where it is. If it left there
            // meanwhile, the new one is told that it leaves.
            Some(_) if seat.shown.is_none() => seat.joined = !seat.wanted,
            Some(c) => {
                let text = format!(
                    "P5: {label} showed {c:?} of r{r} and was 'recovered' at {cursor:?} - {replayed}"
                );
                self.violations.push(text);
            }
        }
    }

    pub(super) fn room_history(&mut self, i: usize, r: usize, cursor: Cursor, through: Option<&str>) {
        let stream = StreamId::of_room(&room(r));
        self.read_history(i, stream.as_str(), cursor, through);
        self.clients[i].seats[r].cursor = Some(cursor);
    }

    /// A room's stream began anew, or ran away.
    pub(super) fn seat_reset(&mut self, i: usize, stream: &StreamId, cursor: Cursor, through: Option<&str>) {
        if let Some(r) = (0..ROOMS).find(|r| StreamId::of_room(&room(*r)) == *stream) {
            self.room_history(i, r, cursor, through);
        }
    }

    pub(super) fn seat_got(&mut self, i: usize, connection: u64, m: &Message) {
        let Some(r) = (0..ROOMS).find(|r| StreamId::of_room(&room(*r)) == m.stream) else { return };
        let label = self.clients[i].label.clone();
        let seat = &mut self.clients[i].seats[r];
        let at = m.cursor();
        let Some(cursor) = seat.cursor else { return };
        // Above the cursor or dropped: two sockets may show the same for a moment. Who left, or is about to, may get what
        // was under way.
        if at <= cursor || !seat.joined || !seat.wanted {
            return;
        }
        if at.generation != cursor.generation || at.offset.0 != cursor.offset.0 + 1 {
            let text = format!("P5: {label} had {cursor:?} of r{r} and got {at:?} on #{connection}");
            return self.violations.push(text);
        }
        seat.cursor = Some(at);
        let id = m.id.to_string();
        if let Some(other) = seat.seen.insert((at.generation, at.offset.0), id.clone())
            && other != id
        {
            self.violations.push(format!("{at:?} of r{r} names {other} and {id} to {label}"));
        }
    }

    pub(super) fn seat_member(&mut self, i: usize, connection: u64, member: &Member) {
        let Some(r) = (0..ROOMS).find(|r| room(*r) == member.room) else { return };
        let current = self.clients[i].current().is_some_and(|c| c.key == connection);
        let seat = &mut self.clients[i].seats[r];
        // Of a connection not in use any more nothing is known.
        if current && seat.joined {
            match member.change {
                Change::Join => drop(seat.members.insert(member.user.to_string())),
                Change::Leave => drop(seat.members.remove(member.user.as_str())),
            }
        }
    }

    /// Joins a room it should be in, or leaves one, or wants to be in one again.
    pub(super) fn move_seat(&mut self, i: usize) {
        let Some(c) = self.clients[i].current().filter(|c| c.welcomed) else { return };
        let missing = (0..ROOMS).find(|r| {
            let seat = &self.clients[i].seats[*r];
            seat.wanted != seat.joined && seat.asked.is_none()
        });
        let some = self.between(0, ROOMS as u64) as usize;
        let r = missing.unwrap_or(some);
        let seat = &mut self.clients[i].seats[r];
        if seat.asked.is_some() || (missing.is_none() && !self.now.is_multiple_of(2)) {
            return;
        }
        self.next_connection += 1;
        let id = format!("seat-{}", self.next_connection);
        seat.asked = Some(id.clone());
        let id = MessageId::new(id).expect("a plain id");
        if missing.is_none() {
            seat.wanted = !seat.wanted;
        }
        let command = if seat.joined {
            seat.joined = false;
            Command::Leave(InRoom { id, room: room(r) })
        } else {
            seat.shown = seat.cursor;
            let at = RoomAt { room: room(r), cursor: seat.cursor, presence: seat.presence, info: None };
            Command::Join(Join::new(id, at))
        };
        self.tell_core(i, c.pid, self.now + 2, Input::Command { session: SessionKey(c.key), command });
    }

    /// An answer to a `join` or `leave`; false if it is about something else.
    pub(super) fn seat_answered(&mut self, i: usize, connection: u64, reply: &Reply) -> bool {
        let id = reply.id.as_deref().unwrap_or_default();
        if !id.starts_with("seat-") {
            return false;
        }
        let current = self.clients[i].current().is_some_and(|c| c.key == connection);
        let seats = &mut self.clients[i].seats;
        let Some(r) = seats.iter().position(|seat| seat.asked.as_deref() == Some(id)).filter(|_| current)
        else {
            return true;
        };
        seats[r].asked = None;
        let joined = reply.ok.as_ref().and_then(|ok| ok.read::<Joined>().ok());
        match (joined, &reply.error) {
            // Too much on its way to the socket for the list: it comes again.
            (Some(at), _) if at.members.is_none() && at.member_count.is_some() => {}
            (Some(at), _) if seats[r].wanted => {
                let verdict = (at.recovered, at.replayed);
                self.seated(i, r, at.cursor, verdict, at.through.as_deref(), at.members.as_deref());
            }
            (None, Some(e)) if !e.code.retryable() => {
                let text = format!("{}: {id} was refused for good: {e:?}", self.clients[i].label);
                self.violations.push(text);
            }
            _ => {}
        }
        true
    }

    /// The connection is gone, and what was asked over it.
    pub(super) fn unseat(seats: &mut [Seat]) {
        for seat in seats {
            (seat.joined, seat.asked) = (false, None);
        }
    }

    pub(super) fn wake_seats(&mut self, i: usize) {
        let by_sdk = self.clients[i].sdk.is_some();
        // Those who could not join come again after the faults too.
        let pause = if self.busy() { self.between(200, 2500) } else { 1000 };
        let again = self.clients[i].seats.iter().any(|seat| seat.wanted != seat.joined);
        if by_sdk && self.faulty() {
            self.move_sdk_seat(i);
        } else if !by_sdk && (self.faulty() || again) {
            self.move_seat(i);
        }
        self.at(self.now + pause, Happening::Client { user: i, what: Wake::Seat });
    }

    /// Whether the user of a client chose to be invisible: in a room, and not shown.
    fn is_hidden(&self, i: usize) -> bool {
        let user = self.clients[i].user;
        let name = UserId::new(super::client::name(user)).expect("a plain name");
        let roster = self.data[self.vnode_of(user).index()].presence(&name).roster;
        roster.is_some_and(|entry| entry.chosen == ChosenStatus::Invisible)
    }

    /// P5 and P6 at the end: everyone in a room is where it ends, saw what the log has, and lists who is there and shown.
    pub(super) fn check_rooms(
        &self,
        canon: &BTreeMap<(String, Epoch, u64), String>,
        wrong: &mut Vec<String>,
    ) {
        for r in 0..ROOMS {
            let to = self.setup.users + r;
            let (stream, data) = (self.stream_to(to), &self.data[self.vnode_to(to).index()]);
            let Some(standing) = data.standing(&stream) else { continue };
            let inside = |i: usize| self.clients[i].is_online() && self.clients[i].seats[r].joined;
            let all = 0..self.clients.len();
            let there: BTreeSet<String> = all
                .clone()
                .filter(|i| inside(*i) && self.clients[*i].seats[r].presence && !self.is_hidden(*i))
                .map(|i| super::client::name(self.clients[i].user))
                .collect();
            for i in all {
                let (label, seat) = (&self.clients[i].label, &self.clients[i].seats[r]);
                for ((generation, offset), id) in &seat.seen {
                    let kept = canon.get(&(stream.to_string(), *generation, *offset));
                    // Shown before it was in the log, and the store lost it meanwhile: its sender repeats it.
                    if kept.is_some_and(|kept| kept != id) {
                        wrong.push(format!(
                            "P2: {label} saw {id} at {generation}/{offset} of {stream}: {kept:?}"
                        ));
                    }
                }
                if self.clients[i].is_online() && seat.wanted && !seat.joined {
                    wrong.push(format!("{label} wants to be in {stream} and is not"));
                }
                if !inside(i) {
                    continue;
                }
                if self.clients[i].sdk.is_some() {
                    let known: BTreeSet<&String> = seat.seen.values().collect();
                    for (generation, offset) in self.passed_over(i, r, standing.tail) {
                        let kept = canon.get(&(stream.to_string(), generation, offset));
                        if kept.is_some_and(|id| !known.contains(id)) {
                            wrong
                                .push(format!("P5: {label} was not shown {generation}/{offset} of {stream}"));
                        }
                    }
                } else if seat.cursor != Some(standing.tail) {
                    wrong.push(format!(
                        "P5: {label} is at {:?}, {stream} at {:?}",
                        seat.cursor, standing.tail
                    ));
                }
                if seat.presence && seat.members != there {
                    wrong.push(format!(
                        "P6: {label} lists {:?} in {stream}; there are {there:?}",
                        seat.members
                    ));
                }
            }
        }
    }
}
