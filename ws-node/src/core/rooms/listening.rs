//! What comes through the channels, what is read because it did not come, and how that is noticed (rule 28).

use bytes::Bytes;
use roost_backend::store::{Limit, LiveChannel, Standing, Window};
use roost_proto::ids::{Cursor, StreamId, VnodeId};
use roost_proto::live::{Note, place_of};

use super::{How, Opening};
use crate::core::ask::Ask;
use crate::core::config::Rule;
use crate::core::delivery::READ_MAX;
use crate::core::events::{Lane, Maybe, Now, SessionKey};
use crate::core::reads::{Begun, READ_BYTES_MAX, Want};
use crate::core::{Action, NodeCore};

/// How often tails are compared, in milliseconds: how long the loss of a last publication may go unnoticed.
pub(in crate::core) const COMPARE_MS: u64 = 5000;
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
            (_, Err(_)) => self.counters.undecodable += 1,
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
            (_, Ok(_)) => self.counters.undecodable += 1,
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
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let Some(listener) = session.rooms.get_mut(stream).filter(|l| l.opening.is_none()) else {
                continue;
            };
            let reader = &mut listener.reader;
            let next = session.welcomed && reader.is_next(at);
            if next && self.budget.spend(*key, &session.user, &mut session.credit, frame.len()) {
                reader.took(at.offset);
                sessions.push(*key);
            } else {
                reader.tail = reader.tail.max(at);
                behind.push(*key);
            }
        }
        self.counters.delivered += sessions.len() as u64;
        if !sessions.is_empty() {
            self.out.push(Action::Fan { sessions, frame: frame.clone() });
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
        let Some(listener) = session.rooms.get_mut(stream).filter(|l| l.opening.is_none()) else { return };
        listener.reader.reading = false;
        let shown = Some(listener.reader.place());
        let (how, until) = match session.arrival.until {
            // What `welcome` was to say of this room does not hold any more.
            Some(until) if !session.welcomed => {
                session.arrival.take_back(stream);
                (How::Welcome, until)
            }
            _ => (How::Again, u64::MAX),
        };
        listener.opening = Some(Opening { how, shown, until });
        room.waiting.come(key);
    }

    /// The session may be fed now.
    pub(in crate::core) fn feed_rooms(&mut self, key: SessionKey) {
        let rooms = self.sessions.get(&key).map(|s| s.rooms.keys().cloned().collect::<Vec<_>>());
        for stream in rooms.unwrap_or_default() {
            self.feed_listener(key, &stream);
        }
    }

    /// Reads on for a session that is behind.
    pub(in crate::core) fn feed_listener(&mut self, key: SessionKey, stream: &StreamId) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(listener) = session.rooms.get_mut(stream).filter(|l| l.opening.is_none()) else { return };
        let reader = &mut listener.reader;
        // `welcome` is the first frame; then it is fed.
        if !reader.reading && reader.is_behind() && session.welcomed {
            reader.reading = true;
            session.wants.add(Want::Room(stream.clone()));
            self.reads.wait(key, &session.user);
        }
    }

    /// Begins to read on for a session, as far as its socket takes it, and for all that stand where it does.
    pub(in crate::core) fn read_room(&mut self, key: SessionKey, stream: StreamId) -> Begun {
        let Some(room) = self.rooms.by_stream.get_mut(&stream) else { return Begun::Not };
        let Some(session) = self.sessions.get_mut(&key) else { return Begun::Not };
        let Some(listener) = session.rooms.get_mut(&stream).filter(|l| l.opening.is_none()) else {
            return Begun::Not;
        };
        let reader = &mut listener.reader;
        reader.reading = false;
        if !reader.is_behind() || !session.welcomed {
            return Begun::Not;
        }
        let Some(bytes) = self.budget.room(key, &session.user, &session.credit) else {
            session.starved.insert(stream);
            return Begun::Not;
        };
        (reader.reading, reader.look) = (true, false);
        let place = reader.place();
        let together = room.reads.entry(place).or_default();
        together.insert(key);
        if together.len() > 1 {
            return Begun::Not;
        }
        let limit = Limit { entries: READ_MAX, bytes: bytes.min(READ_BYTES_MAX) };
        self.out.push(Action::Ask(Ask::Read {
            ask: self.reads.begin(key, &session.user, limit.bytes),
            session: None,
            vnode: room.vnode,
            stream,
            generation: place.generation,
            after: place.offset,
            limit,
        }));
        Begun::Yes
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
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(listener) = session.rooms.get_mut(stream).filter(|l| l.opening.is_none()) else { return };
        let reader = &mut listener.reader;
        reader.reading = false;
        let Some(window) = answer.filter(|_| reader.place() == place) else {
            // Tried again on the next tick.
            reader.look = true;
            self.rooms.look.insert((stream.clone(), key));
            return;
        };
        let mut refused = false;
        for (offset, frame) in &window.entries {
            if offset.0 != reader.sent.0 + 1 {
                break;
            }
            refused = !self.budget.spend(key, &session.user, &mut session.credit, frame.len());
            if refused {
                break;
            }
            reader.took(*offset);
            self.counters.delivered += 1;
            self.out.push(Action::Frame { session: key, frame: frame.clone(), lane: Lane::Message });
        }
        // Another stream of the session may have taken the credit meanwhile.
        let next = window.entries.first().is_some_and(|(offset, _)| offset.0 == place.offset.0 + 1);
        if !next && reader.tail > place {
            // What comes next is not in the window any more: the home says what is, and the session is told.
            self.place_again(key, stream);
        } else if refused {
            // Its socket does not take it now: to read it at once would be in vain, again and again.
            session.starved.insert(stream.clone());
        } else {
            self.feed_listener(key, stream);
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

    pub(in crate::core) fn compare_rooms(&mut self, now: Now) {
        self.rooms.compare_at = now.mono + COMPARE_MS;
        if !self.cfg.on(Rule::CompareTails) {
            return;
        }
        let followed = self.rooms.by_stream.iter().filter(|(_, room)| room.following.is_on());
        let rooms: Vec<_> = followed.map(|(stream, room)| (room.vnode, stream.clone())).collect();
        for rooms in rooms.chunks(COMPARE_MAX) {
            self.out.push(Action::Ask(Ask::Standings(rooms.to_vec())));
        }
    }

    /// The stream is known to reach at least this far, in the generation that is known.
    pub(super) fn reaches(&mut self, stream: &StreamId, tail: Cursor) {
        let Some(room) = self.rooms.get_mut(stream).filter(|room| tail > room.tail) else { return };
        room.tail = tail;
        for key in room.listeners.iter().copied().collect::<Vec<_>>() {
            let listener = self.sessions.get_mut(&key).and_then(|s| s.rooms.get_mut(stream));
            if let Some(listener) = listener {
                listener.reader.tail = listener.reader.tail.max(tail);
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
                self.counters.found_by_tail += 1;
                self.reaches(stream, standing.tail);
            }
            self.compare_copy(stream, standing.version, now);
        }
    }
}
