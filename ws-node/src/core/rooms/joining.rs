//! Sessions come into rooms and go: commands, rights, limits.

use roost_proto::claims::matches_any;
use roost_proto::codes::{ErrorBody, ErrorCode};
use roost_proto::frames::{Empty, InRoom, Join, Publish, RoomAt, RoomWelcome};
use roost_proto::ids::{MessageId, RoomId, StreamId};
use roost_proto::limits::{INFO_BYTES_MAX, ROOMS_PER_SESSION_MAX, UNKNOWN_AFTER_MS};

use crate::core::actions::Action;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::rooms::{Arrival, How, Listener, MembersAsked, Opening, Room};
use crate::core::sessions::reader::Reader;
use crate::core::sessions::session::Session;

/// How long `welcome` waits for the rooms of `connect`, in milliseconds: less than `connect` waits for its inbox.
const ARRIVAL_MS: u64 = 4000;

impl NodeCore {
    /// Whether the session may join, read and publish to a room.
    pub(in crate::core) fn may(&self, key: SessionKey, room: &RoomId) -> Result<(), ErrorBody> {
        let Some(session) = self.sessions.get(&key) else { return Ok(()) };
        let named = session.rights().rooms.as_ref();
        let allowed = named.map_or(self.cfg.open_rooms, |patterns| matches_any(patterns, room.as_str()));
        if allowed || self.cfg.auto_join.contains(room) {
            return Ok(());
        }
        Err(ErrorBody::new(ErrorCode::Forbidden, "the token does not allow this room"))
    }

    pub(in crate::core) fn on_publish(&mut self, key: SessionKey, publish: Publish, now: Now) {
        if let Err(error) = self.may(key, &publish.room) {
            self.count_waiters(key);
            return self.reply_error(key, publish.id.as_str(), error);
        }
        self.send_to(key, StreamId::of_room(&publish.room), publish.id, publish.data, false, now);
    }

    pub(in crate::core) fn on_join(
        &mut self,
        key: SessionKey,
        join: Join,
        now: Now,
    ) -> Result<(), ErrorBody> {
        let (id, at) = join.into_parts();
        self.join(key, at, How::Reply(id), now.mono + UNKNOWN_AFTER_MS, now)
    }

    /// The rooms of `connect`, and those that everyone joins.
    pub(in crate::core) fn arrive(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.seats().arrival.until.is_some() || session.is_welcomed() {
            return;
        }
        let mut rooms = std::mem::take(&mut session.seats_mut().wanted);
        for room in &self.cfg.auto_join {
            if !rooms.iter().any(|r| r.room == *room) {
                rooms.push(RoomAt { room: room.clone(), cursor: None, presence: false, info: None });
            }
        }
        let until = now.mono + ARRIVAL_MS;
        session.seats_mut().arrival = Arrival { until: Some(until), ..Arrival::default() };
        // A slow room is told in `welcome`; it must not cost the connection.
        session.wait_until(until + 1000);
        for at in rooms {
            let room = at.room.clone();
            let joined = self.join(key, at, How::Welcome, until, now);
            let Some(session) = self.sessions.get_mut(&key) else { return };
            match joined {
                Ok(()) => drop(session.seats_mut().arrival.pending.insert(StreamId::of_room(&room))),
                Err(error) => session.seats_mut().arrival.told.push(RoomWelcome::refused(room, error)),
            }
        }
    }

    fn join(&mut self, key: SessionKey, at: RoomAt, how: How, until: u64, now: Now) -> Result<(), ErrorBody> {
        self.may(key, &at.room)?;
        if at.info.as_ref().is_some_and(|info| info.get().len() > INFO_BYTES_MAX) {
            return Err(ErrorBody::new(ErrorCode::TooLarge, "'info' is too large"));
        }
        let stream = StreamId::of_room(&at.room);
        let vnode = self.vnode_of(&stream);
        let Some(session) = self.sessions.get_mut(&key) else { return Ok(()) };
        if session.seats().rooms.len() >= ROOMS_PER_SESSION_MAX
            && !session.seats().rooms.contains_key(&stream)
        {
            return Err(ErrorBody::new(ErrorCode::TooLarge, "too many rooms in this session"));
        }
        let user = session.user().clone();
        // What waits of an earlier time here is older than what the answer says.
        session.drop_latest(|latest| latest.is_of(&stream));
        let again = if let How::Reply(id) = &how { Some(id.clone()) } else { None };
        let opening = Some(Opening { how, shown: at.cursor, until });
        let listener = Listener { reader: Reader::default(), opening, presence: at.presence };
        // A second join is a new beginning: the client says where it is.
        let before = session.seats_mut().rooms.insert(stream.clone(), listener);
        self.overtaken(
            key,
            before.and_then(|b| b.opening),
            again.as_ref(),
            "joined again before this was done",
        );
        self.rooms.not_located(key, &stream);
        let sight = self.sight(key);
        let room = self.rooms.open(&stream, vnode);
        room.listeners.insert(key);
        room.waiting.come(key);
        if at.presence {
            room.presence.insert(key);
            room.locals.come(key, &user, at.info, sight);
        } else {
            room.presence.remove(&key);
            room.locals.go(key, &user, true);
        }
        self.tell_locals(&stream, now);
        self.place_listeners(&stream, now);
        Ok(())
    }

    pub(in crate::core) fn on_leave(
        &mut self,
        key: SessionKey,
        command: &InRoom,
        now: Now,
    ) -> Result<(), ErrorBody> {
        let stream = StreamId::of_room(&command.room);
        let there = self.sessions.get_mut(&key).and_then(|s| s.seats_mut().rooms.remove(&stream));
        let Some(listener) = there else {
            return Err(ErrorBody::new(ErrorCode::NotFound, "this session is not in the room"));
        };
        self.overtaken(key, listener.opening, None, "left before the join was done");
        self.leave(key, &stream, true, now);
        self.reply_ok(key, command.id.as_str(), &Empty {});
        Ok(())
    }

    /// A later command of the same session takes the place of a join that is not done: it is answered so that nobody
    /// repeats it, which would undo what was said later. Its own repeat shares its reply.
    fn overtaken(
        &mut self,
        key: SessionKey,
        join: Option<Opening>,
        by: Option<&MessageId>,
        why: &'static str,
    ) {
        let Some(Opening { how: How::Reply(id), .. }) = join else { return };
        if by != Some(&id) {
            self.reply_error(key, id.as_str(), ErrorBody::new(ErrorCode::Conflict, why));
        } else if let Some(session) = self.sessions.get_mut(&key) {
            session.answered();
        }
    }

    /// A session is not in a room any more; `left` if it said so.
    pub(in crate::core) fn leave(&mut self, key: SessionKey, stream: &StreamId, left: bool, now: Now) {
        let Some(user) = self.sessions.get(&key).map(|s| s.user().clone()) else { return };
        self.forget_listener(key, stream, &user, left, now);
    }

    fn forget_listener(
        &mut self,
        key: SessionKey,
        stream: &StreamId,
        user: &roost_proto::UserId,
        left: bool,
        now: Now,
    ) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        room.listeners.remove(&key);
        room.presence.remove(&key);
        room.waiting.go(key);
        room.locals.go(key, user, left);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.forget_starved(stream);
            session.drop_latest(|latest| latest.is_of(stream));
        }
        self.rooms.look.remove(&(stream.clone(), key));
        self.rooms.not_located(key, stream);
        self.tell_locals(stream, now);
        self.close_room(stream);
    }

    /// A connection is gone, and with it its places in rooms.
    pub(in crate::core) fn leave_all(&mut self, key: SessionKey, session: &Session, now: Now) {
        for stream in session.seats().rooms.keys() {
            self.forget_listener(key, stream, session.user(), false, now);
        }
    }

    pub(super) fn close_room(&mut self, stream: &StreamId) {
        if self.rooms.get(stream).is_some_and(Room::is_idle)
            && let Some(channel) = self.rooms.close(stream)
        {
            self.fx.push(Action::Unfollow { channel });
        }
    }

    pub(in crate::core) fn on_members(
        &mut self,
        key: SessionKey,
        command: InRoom,
        now: Now,
    ) -> Result<(), ErrorBody> {
        self.may(key, &command.room)?;
        let stream = StreamId::of_room(&command.room);
        let vnode = self.vnode_of(&stream);
        if self.has_copy(&stream) {
            self.reply_members(key, &stream, &command.id);
        } else if self.channel_is_full(vnode) {
            return Err(ErrorBody::new(ErrorCode::Unavailable, "too much is queued for this room's home"));
        } else {
            let asking = MembersAsked { key, id: command.id, at: now.mono, asked: false };
            self.rooms.open(&stream, vnode).asking.push(asking);
            self.ask_members(&stream, now);
        }
        Ok(())
    }

    pub(super) fn tick_asking(&mut self, now: Now) {
        let Some(since) = now.mono.checked_sub(UNKNOWN_AFTER_MS) else { return };
        let late = |room: &Room| room.asking.iter().any(|asking| asking.at <= since);
        let streams: Vec<_> =
            self.rooms.by_stream.iter().filter(|(_, room)| late(room)).map(|(s, _)| s.clone()).collect();
        for stream in streams {
            self.give_up_asking(&stream, since);
        }
    }

    /// The session's token allows less now.
    pub(in crate::core) fn leave_forbidden(&mut self, key: SessionKey, now: Now) {
        let rooms = self.sessions.get(&key).map(|s| s.seats().rooms.keys().cloned().collect::<Vec<_>>());
        for stream in rooms.unwrap_or_default() {
            if stream.room().is_some_and(|room| self.may(key, &room).is_ok()) {
                continue;
            }
            let there = self.sessions.get_mut(&key).and_then(|s| s.seats_mut().rooms.remove(&stream));
            if let Some(Opening { how: How::Reply(id), .. }) = there.and_then(|l| l.opening) {
                let why = "the token does not allow this room";
                self.reply_error(key, id.as_str(), ErrorBody::new(ErrorCode::Forbidden, why));
            }
            self.leave(key, &stream, true, now);
        }
    }
}
