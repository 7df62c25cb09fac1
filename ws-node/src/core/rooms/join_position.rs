//! Where a session begins in a room: the home says where the stream ends, the log how far the history goes.

use roost_proto::answers::Listed;
use roost_proto::codes::{ErrorBody, ErrorCode};
use roost_proto::frames::{Joined, Reset, RoomWelcome, ServerFrame};
use roost_proto::history::Through;
use roost_proto::ids::{Cursor, MessageId, Offset, StreamId, VnodeId};
use roost_proto::limits::MEMBERS_BYTES_MAX;
use roost_proto::records::{ItemBody, ItemResult};

use crate::core::actions::Action;
use crate::core::channels::asker::{Asker, Question};
use crate::core::channels::channel::By;
use crate::core::config::Rule;
use crate::core::input::Maybe;
use crate::core::keys::{Now, SessionKey};
use crate::core::message::ItemKey;
use crate::core::node::NodeCore;
use crate::core::rooms::{How, Locating, Room};
use crate::core::sessions::reader::Reader;

/// Whose items they are; no user's id begins with `#`.
const ROOMS_FROM: &str = "#rooms";

/// How the ids of such items begin.
fn name(question: Question) -> &'static str {
    match question {
        Question::Tail => "tail",
        Question::MemberUpdate => "here",
        Question::Members => "members",
    }
}

impl NodeCore {
    /// Queues something for a room's home, in order with everything else for it; returns its number.
    pub(super) fn ask_home(
        &mut self,
        question: Question,
        stream: &StreamId,
        vnode: VnodeId,
        body: &ItemBody,
        now: Now,
    ) -> u64 {
        self.rooms.next_ask += 1;
        let number = self.rooms.next_ask;
        let id = MessageId::new(format!("{}-{number}", name(question))).expect("letters and digits");
        let key: ItemKey = (stream.clone(), ROOMS_FROM.to_owned(), id);
        let item = self.item(By::Own, key, body, Asker::Room(question, number), now);
        self.push(vnode, item, now);
        number
    }

    /// An answer to what this node asked; `None`: there will be none.
    pub(in crate::core) fn home_answered(
        &mut self,
        stream: &StreamId,
        question: Question,
        number: u64,
        result: Option<&ItemResult>,
        now: Now,
    ) {
        // The room was left since, and is another's now, who asked again.
        if !self.rooms.get(stream).is_some_and(|room| room.asked(question, number)) {
            return;
        }
        match (question, result) {
            (Question::Tail, Some(ItemResult::Tail { tail, first })) => {
                self.on_tail(stream, *tail, *first, now)
            }
            (Question::Members, Some(ItemResult::Members { version, as_of, partial, count, members })) => {
                let versions = (*version, *as_of);
                self.on_members_told(stream, versions, *partial, *count, members.as_deref(), now);
            }
            (Question::MemberUpdate, Some(ItemResult::Noted)) => self.on_noted(stream, now),
            // Asked again on the next tick.
            (Question::Tail, _) => drop(self.rooms.get_mut(stream).map(|room| room.waiting.not_answered())),
            (Question::Members, _) => {
                if let Some(room) = self.rooms.get_mut(stream) {
                    room.copy_asked = None;
                }
                self.give_up_asking(stream, now.mono);
            }
            (Question::MemberUpdate, _) => self.not_noted(stream),
        }
    }

    /// Does the next thing that those who wait need.
    pub(super) fn place_listeners(&mut self, stream: &StreamId, now: Now) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        if room.waiting.is_empty() {
            return;
        }
        let vnode = room.vnode;
        if room.following.is_off() {
            let ask = self.fx.next_call();
            room.following.ask(ask);
            let channel = roost_backend::store::LiveChannel::Room { vnode, stream: stream.clone() };
            return self.fx.push(Action::Follow { channel, ask });
        }
        if !room.following.is_on() {
            return;
        }
        if self.wants_copy(stream) {
            self.ask_members(stream, now);
        }
        // Too much is queued for this home already: on a later tick.
        if self.channel_is_full(vnode) {
            return;
        }
        if self.rooms.get(stream).is_some_and(|room| room.waiting.may_ask()) {
            let body = ItemBody::Tail { stream: stream.clone() };
            let number = self.ask_home(Question::Tail, stream, vnode, &body, now);
            if let Some(room) = self.rooms.get_mut(stream) {
                room.waiting.ask(number);
            }
        }
    }

    /// The home said where the stream ends, in order with everything that was appended before.
    fn on_tail(&mut self, stream: &StreamId, tail: Cursor, first: Offset, now: Now) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        if tail.generation < room.tail.generation {
            // Asked before a new generation began, which was heard of meanwhile.
            room.waiting.not_answered();
            return self.place_listeners(stream, now);
        }
        let mut asked = room.waiting.answered();
        if !self.cfg.on(Rule::OwnQuestion) {
            asked.append(&mut room.waiting.unasked);
        }
        if tail.generation > room.tail.generation {
            self.begin_generation(stream, tail, now);
        }
        self.reaches(stream, tail);
        let Some(room) = self.rooms.get(stream) else { return };
        let (ready, others) = (room.copy.is_some(), !room.waiting.is_empty());
        let mut locating = std::collections::BTreeSet::new();
        for key in asked {
            let Some(listener) = self.sessions.get(&key).and_then(|s| s.seats().rooms.get(stream)) else {
                continue;
            };
            let Some(opening) = &listener.opening else { continue };
            let reachable = |c: &Cursor| {
                c.generation == tail.generation && c.offset <= tail.offset && c.offset.0 + 1 >= first.0
            };
            if listener.presence && !ready {
                // For the list of members, which takes another question.
                self.wait_on(key, stream);
            } else if opening.shown.as_ref().is_none_or(reachable) {
                let from = opening.shown.map_or(tail.offset, |c| c.offset);
                self.begin_listening(key, stream, tail, from, None, now);
            } else {
                locating.insert(key);
            }
        }
        self.locate(stream, tail, locating);
        // Who came while it was asked. Who lacks the list waits for that, or for the next tick.
        if others {
            self.place_listeners(stream, now);
        }
    }

    /// Asks the log how far the history goes, for those who missed something (rule 26).
    fn locate(&mut self, stream: &StreamId, tail: Cursor, sessions: std::collections::BTreeSet<SessionKey>) {
        if sessions.is_empty() {
            return;
        }
        let ask = self.fx.next_call();
        let partition = self.cfg.partition(self.vnode_of(stream));
        self.rooms.locating.insert(ask, Locating { stream: stream.clone(), tail, sessions });
        self.fx.push(Action::LogEnd { session: None, ask, partition });
    }

    pub(in crate::core) fn on_room_log_end(
        &mut self,
        ask: u64,
        partition: u32,
        answer: Maybe<u64>,
        now: Now,
    ) {
        let Some(Locating { stream, tail, sessions }) = self.rooms.locating.remove(&ask) else { return };
        for key in sessions {
            match answer {
                Some(offset) => {
                    let through = Some(Through { partition, offset }.to_string());
                    self.begin_listening(key, &stream, tail, tail.offset, through, now);
                }
                None => self.wait_on(key, &stream),
            }
        }
    }

    /// Nothing can be said yet, for want of the log for example: asked again until the time is up.
    fn wait_on(&mut self, key: SessionKey, stream: &StreamId) {
        let there = self.sessions.get(&key).and_then(|s| s.seats().rooms.get(stream));
        if there.is_some_and(|listener| listener.opening.is_some())
            && let Some(room) = self.rooms.get_mut(stream)
        {
            room.waiting.come(key);
        }
    }

    /// The session has its place: it is told, and what it lacks follows.
    fn begin_listening(
        &mut self,
        key: SessionKey,
        stream: &StreamId,
        tail: Cursor,
        from: Offset,
        through: Option<String>,
        now: Now,
    ) {
        let Some(room) = self.rooms.get(stream) else { return };
        if room.tail.generation > tail.generation {
            return self.wait_on(key, stream);
        }
        let known = room.tail;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(listener) = session.seats_mut().rooms.get_mut(stream) else { return };
        let Some(opening) = listener.opening.take() else { return };
        let reader = Reader::at(Cursor::new(tail.generation, from), known);
        listener.reader = reader;
        // `welcome` lists them when it is said.
        let listed = listener.presence && matches!(opening.how, How::Reply(_));
        let open = session.takes_answers();
        let mut room_for = if open { MEMBERS_BYTES_MAX } else { 0 };
        let copy = room.copy.as_ref().filter(|_| listed).map(|copy| copy.reply(&mut room_for));
        let Listed { members, member_count } = copy.unwrap_or_default();
        let (recovered, replayed) = (through.is_none(), tail.offset.0 - from.0);
        let joined = Joined { cursor: tail, recovered, replayed, through, members, member_count };
        self.fx.count().replayed += joined.replayed;
        match opening.how {
            // A long list takes credit, as a message does.
            How::Reply(id) if open && joined.members.is_some() => {
                self.reply_on_credit(key, id.as_str(), &joined);
            }
            How::Reply(id) => self.reply_ok(key, id.as_str(), &joined),
            How::Welcome => {
                session.seats_mut().arrival.pending.remove(stream);
                let room = stream.room().expect("only streams of rooms come here");
                session.seats_mut().arrival.told.push(RoomWelcome::joined(room, joined));
                self.assign_home(key, now);
            }
            How::Again if !joined.recovered => {
                let reset = Reset { stream: stream.clone(), cursor: tail, through: joined.through };
                self.frame(key, ServerFrame::Reset(reset));
            }
            How::Again => {}
        }
        self.feed_listener(key, stream);
    }

    /// Those who waited too long are told so.
    pub(super) fn give_up_waiting(&mut self, now: Now) {
        let waits = |(_, room): &(&StreamId, &Room)| !room.waiting.is_empty();
        let streams: Vec<_> = self.rooms.by_stream.iter().filter(waits).map(|(s, _)| s.clone()).collect();
        for stream in streams {
            let Some(room) = self.rooms.get(&stream) else { continue };
            let late = |key: &&SessionKey| {
                let listener = self.sessions.get(key).and_then(|s| s.seats().rooms.get(&stream));
                listener.and_then(|l| l.opening.as_ref()).is_some_and(|o| now.mono >= o.until)
            };
            let late: Vec<_> = room.waiting.keys().filter(|key| late(&key)).collect();
            for key in late {
                self.give_up(key, &stream, now);
            }
            self.place_listeners(&stream, now);
        }
    }

    fn give_up(&mut self, key: SessionKey, stream: &StreamId, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let how = session.seats_mut().rooms.remove(stream).and_then(|l| l.opening).map(|o| o.how);
        self.leave(key, stream, false, now);
        match how {
            Some(How::Reply(id)) => self.reply_unavailable(key, id.as_str()),
            Some(How::Welcome) => {
                let Some(session) = self.sessions.get_mut(&key) else { return };
                session.seats_mut().arrival.pending.remove(stream);
                let room = stream.room().expect("only streams of rooms come here");
                let error =
                    ErrorBody::new(ErrorCode::Unavailable, "the room's home does not answer: join again");
                session.seats_mut().arrival.told.push(RoomWelcome::refused(room, error));
                self.assign_home(key, now);
            }
            Some(How::Again) | None => {}
        }
    }
}
