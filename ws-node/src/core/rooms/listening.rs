//! What comes through the channels, what is read because it did not come, and how that is noticed (rule 28).

use bytes::Bytes;
use roost_backend::store::{Limit, LiveChannel, Standing, Window};
use roost_proto::ids::{Cursor, StreamId, VnodeId};
use roost_proto::live::{Note, place_of};

use crate::core::actions::Action;
use crate::core::ask::Ask;
use crate::core::config::Rule;
use crate::core::input::Maybe;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::rooms::{COMPARE_MS, How, Opening, Seats};
use crate::core::sessions::delivery::READ_MAX;
use crate::core::sessions::reader::Handed;
use crate::core::sessions::reads::{Begun, READ_BYTES_MAX, Want};
use crate::core::sessions::socket::Seat;

/// After a loss that was told, in milliseconds.
const COMPARE_SOON_MS: u64 = 200;

/// Rooms compared with one question: bounds how long the store answers nothing else.
const COMPARE_MAX: usize = 500;

impl NodeCore {
    pub(in crate::core) fn on_followed(&mut self, channel: &LiveChannel, ask: u64, done: bool, now: Now) {
        let LiveChannel::Room { stream, .. } = channel else { return };
        let Some(room) = self.rooms.get_mut(stream) else { return };
        // If not, again on the next tick.
        if room.following.answered(ask, done) && done {
            self.place_listeners(stream, now);
        }
    }

    pub(in crate::core) fn on_live(&mut self, channel: &LiveChannel, payload: &Bytes, now: Now) {
        let note = match channel {
            LiveChannel::Room { stream, .. } => match place_of(stream, payload) {
                Some(at) => return self.published(stream, at, payload, now),
                None => serde_json::from_slice(payload),
            },
            LiveChannel::Node(_) | LiveChannel::Presence(_) => serde_json::from_slice(payload),
        };
        match (channel, note) {
            (_, Err(_)) => self.fx.count().undecodable += 1,
            (LiveChannel::Room { stream, .. }, Ok(Note::Member { before, version, count, user, change })) => {
                self.on_member_note(stream, (before, version), count, user, change, now);
            }
            (LiveChannel::Room { stream, .. }, Ok(Note::Signal { session, kind, frame, .. })) => {
                self.signal_room(stream, &session, &kind, &frame);
            }
            (LiveChannel::Node(_), Ok(Note::Signal { session, kind, to: Some(to), frame })) => {
                self.signal_user(&to, &session, &kind, &frame);
            }
            (LiveChannel::Presence(vnode), Ok(Note::Presence { before, version, users })) => {
                self.on_presence_note(*vnode, before, version, users, now);
            }
            (_, Ok(_)) => self.fx.count().undecodable += 1,
        }
    }

    /// A publication: those who are just before it get it at once, the others read up to it.
    fn published(&mut self, stream: &StreamId, at: Cursor, frame: &Bytes, now: Now) {
        let Some(room) = self.rooms.get(stream) else { return };
        if at.generation > room.tail.generation {
            return self.begin_generation(stream, at, now);
        }
        let Some(room) = self.rooms.get_mut(stream).filter(|r| at.generation == r.tail.generation) else {
            return;
        };
        room.tail = room.tail.max(at);
        let (mut sessions, mut behind) = (Vec::with_capacity(room.listeners.len()), Vec::new());
        for key in &room.listeners {
            let Some(Seat { listener, mut socket, welcomed }) = self.sessions.seat(*key, stream) else {
                continue;
            };
            if listener.opening.is_some() {
                continue;
            }
            if listener.reader.offer(at, || welcomed && socket.spend(frame.len())) {
                sessions.push(*key);
            } else {
                behind.push(*key);
            }
        }
        self.fx.count().delivered += sessions.len() as u64;
        if !sessions.is_empty() {
            self.fx.push(Action::Fan { sessions, frame: frame.clone() });
        }
        for key in behind {
            self.feed_listener(key, stream);
        }
    }

    /// The room's stream began a new life: everyone finds their place again, or is told that there is a gap.
    pub(super) fn begin_generation(&mut self, stream: &StreamId, at: Cursor, now: Now) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        room.tail = at;
        room.reads.clear();
        for key in room.listeners.iter().copied().collect::<Vec<_>>() {
            self.place_again(key, stream);
        }
        self.place_listeners(stream, now);
    }

    /// A live session lost its place.
    fn place_again(&mut self, key: SessionKey, stream: &StreamId) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let welcomed = session.is_welcomed();
        let Seats { rooms, arrival, .. } = session.seats_mut();
        let Some(listener) = rooms.get_mut(stream).filter(|l| l.opening.is_none()) else { return };
        listener.reader.stop();
        let shown = Some(listener.reader.place());
        let (how, until) = match arrival.until {
            // What `welcome` was to say of this room does not hold any more.
            Some(until) if !welcomed => {
                arrival.take_back(stream);
                (How::Welcome, until)
            }
            _ => (How::Again, u64::MAX),
        };
        listener.opening = Some(Opening { how, shown, until });
        room.waiting.come(key);
    }

    /// The session may be fed now.
    pub(in crate::core) fn feed_rooms(&mut self, key: SessionKey) {
        let rooms = self.sessions.get(&key).map(|s| s.seats().rooms.keys().cloned().collect::<Vec<_>>());
        for stream in rooms.unwrap_or_default() {
            self.feed_listener(key, &stream);
        }
    }

    /// Reads on for a session that is behind.
    pub(in crate::core) fn feed_listener(&mut self, key: SessionKey, stream: &StreamId) {
        let Some(Seat { listener, welcomed, .. }) = self.sessions.seat(key, stream) else { return };
        // `welcome` is the first frame; then it is fed.
        if listener.opening.is_none() && welcomed && listener.reader.resume() {
            self.sessions.want(key, Want::Room(stream.clone()));
        }
    }

    /// Begins to read on for a session, as far as its socket takes it, and for all that stand where it does.
    pub(in crate::core) fn read_room(&mut self, key: SessionKey, stream: StreamId) -> Begun {
        let Some(room) = self.rooms.by_stream.get_mut(&stream) else { return Begun::Not };
        let Some(Seat { listener, mut socket, welcomed }) = self.sessions.seat(key, &stream) else {
            return Begun::Not;
        };
        if listener.opening.is_some() || !listener.reader.may_read() || !welcomed {
            return Begun::Not;
        }
        let Some(bytes) = socket.room() else {
            self.sessions.starve(key, &stream);
            return Begun::Not;
        };
        let place = listener.reader.read();
        let together = room.reads.entry(place).or_default();
        together.insert(key);
        if together.len() > 1 {
            return Begun::Not;
        }
        let limit = Limit { entries: READ_MAX, bytes: bytes.min(READ_BYTES_MAX) };
        let vnode = room.vnode;
        self.ask_window(key, None, (vnode, stream), place, limit)
    }

    pub(in crate::core) fn on_room_read(
        &mut self,
        stream: &StreamId,
        place: Cursor,
        answer: Maybe<Window>,
        now: Now,
    ) {
        let Some(keys) = self.rooms.get_mut(stream).and_then(|room| room.reads.remove(&place)) else {
            return;
        };
        for key in keys {
            self.hand_window(key, stream, place, answer.as_ref());
        }
        self.place_listeners(stream, now);
    }

    fn hand_window(&mut self, key: SessionKey, stream: &StreamId, place: Cursor, answer: Option<&Window>) {
        let Some(Seat { listener, mut socket, .. }) = self.sessions.seat(key, stream) else { return };
        if listener.opening.is_some() {
            return;
        }
        match listener.reader.take(place, answer, |frame| socket.hand(frame, &mut self.fx)) {
            // Tried again on the next tick.
            Handed::Nothing => drop(self.rooms.look.insert((stream.clone(), key))),
            // What comes next is not in the window any more: the home says what is, and the session is told.
            Handed::Other { missing: true, .. } => self.place_again(key, stream),
            // Its socket does not take it now: to read it at once would be in vain, again and again.
            Handed::Refused => self.sessions.starve(key, stream),
            Handed::All | Handed::Other { missing: false, .. } => self.feed_listener(key, stream),
        }
    }

    pub(in crate::core) fn tick_rooms(&mut self, now: Now) {
        for (stream, key) in std::mem::take(&mut self.rooms.look) {
            self.feed_listener(key, &stream);
        }
        self.give_up_waiting(now);
        self.tick_asking(now);
        self.tell_all_locals(now);
        if now.mono >= self.rooms.compare_at {
            self.compare_rooms(now);
            self.compare_presence();
        }
    }

    /// Something may have been missed in any room. There may be many such words at once, when there is least time.
    pub(in crate::core) fn compare_soon(&mut self, now: Now) {
        self.rooms.compare_at = self.rooms.compare_at.min(now.mono + COMPARE_SOON_MS);
    }

    fn compare_rooms(&mut self, now: Now) {
        self.rooms.compare_at = now.mono + COMPARE_MS;
        if !self.cfg.on(Rule::CompareTails) {
            return;
        }
        let followed = self.rooms.by_stream.iter().filter(|(_, room)| room.following.is_on());
        let rooms: Vec<_> = followed.map(|(stream, room)| (room.vnode, stream.clone())).collect();
        for rooms in rooms.chunks(COMPARE_MAX) {
            self.fx.push(Action::Ask(Ask::Standings(rooms.to_vec())));
        }
    }

    /// The stream is known to reach at least this far, in the generation that is known.
    pub(super) fn reaches(&mut self, stream: &StreamId, tail: Cursor) {
        let Some(room) = self.rooms.get_mut(stream).filter(|room| tail > room.tail) else { return };
        room.tail = tail;
        for key in room.listeners.iter().copied().collect::<Vec<_>>() {
            let listener = self.sessions.get_mut(&key).and_then(|s| s.seats_mut().rooms.get_mut(stream));
            if let Some(listener) = listener {
                listener.reader.reaches(tail);
            }
            self.feed_listener(key, stream);
        }
    }

    pub(in crate::core) fn on_standings(
        &mut self,
        rooms: &[(VnodeId, StreamId)],
        answer: Maybe<Vec<Option<Standing>>>,
        now: Now,
    ) {
        for ((_, stream), standing) in rooms.iter().zip(answer.into_iter().flatten()) {
            let Some(standing) = standing else { continue };
            let Some(room) = self.rooms.get_mut(stream) else { continue };
            if standing.tail.generation > room.tail.generation {
                self.begin_generation(stream, standing.tail, now);
            } else if standing.tail > room.tail {
                self.fx.count().found_by_tail += 1;
                self.reaches(stream, standing.tail);
            }
            self.compare_copy(stream, standing.version, now);
        }
    }
}
