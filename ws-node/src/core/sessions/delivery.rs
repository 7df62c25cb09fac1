//! Messages to sessions: each is sent the offset after its own and nothing else (rule 25). That one rule serves
//! replay, live delivery and slow readers.

use bytes::Bytes;
use roost_backend::store::{Limit, Window};
use roost_proto::codes::CloseCode;
use roost_proto::ids::{Cursor, Epoch, Offset, StreamId, UserId, VnodeId};

use crate::core::actions::{Action, Observation};
use crate::core::input::Maybe;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::sessions::reader::Handed;
use crate::core::sessions::reads::{Begun, READ_BYTES_MAX, Want};
use crate::core::sessions::session::{Session, State};

/// Entries asked of the store at once: half the credit, so that a reader that keeps up is never idle.
pub(in crate::core) const READ_MAX: usize = 128;

impl NodeCore {
    /// An append took effect: sessions that are just before it get it at once, the others read up to it.
    pub(in crate::core) fn deliver(
        &mut self,
        vnode: VnodeId,
        stream: &StreamId,
        at: Cursor,
        frame: &Bytes,
        arrived_us: u64,
        now: Now,
    ) {
        let leased = self.homes.get(&vnode).is_some_and(|h| h.leased(now));
        let Some(keys) = self.sessions.by_vnode.get(&vnode).and_then(|s| s.get(stream)) else { return };
        let mut behind = Vec::new();
        for key in keys {
            let known = |s: &&mut Session| s.inbox.tail.generation == at.generation;
            let Some(session) = self.sessions.map.get_mut(key).filter(known) else { continue };
            if session.state != State::Live {
                session.inbox.reaches(at);
                continue;
            }
            let (inbox, mut socket) = session.inbox_and_socket(*key, &mut self.sessions.budget);
            if inbox.offer(at, || leased && socket.hand(frame, &mut self.fx)) {
                self.fx.push(Action::Observe(Observation::Delivery, now.us.saturating_sub(arrived_us)));
            } else {
                behind.push(*key);
            }
        }
        for key in behind {
            self.feed(key, now);
        }
    }

    /// The stream is known to reach at least this far.
    pub(in crate::core) fn tail_is(&mut self, vnode: VnodeId, stream: &StreamId, at: Cursor, now: Now) {
        for key in self.sessions.of(vnode, stream).to_vec() {
            if let Some(session) =
                self.sessions.map.get_mut(&key).filter(|s| s.inbox.tail.generation == at.generation)
            {
                session.inbox.reaches(at);
            }
            self.feed(key, now);
        }
    }

    /// Something may have been appended without this node hearing of it: every session of the vnode looks.
    pub(in crate::core) fn look_again(&mut self, vnode: VnodeId, now: Now) {
        for key in self.sessions.at(vnode).collect::<Vec<_>>() {
            if let Some(session) = self.sessions.map.get_mut(&key) {
                session.inbox.look = true;
            }
            self.feed(key, now);
        }
    }

    /// Reads on for a session that is behind.
    pub(super) fn feed(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        let leased = self.homes.get(&session.vnode).is_some_and(|h| h.leased(now));
        if session.state != State::Live || session.inbox.reading || !session.inbox.is_behind() {
            return;
        }
        // Without the lease nothing is handed out; the next tick looks again.
        session.inbox.look |= !leased;
        if leased {
            session.inbox.resume();
            self.sessions.want(key, Want::Inbox);
        }
    }

    /// Begins to read on for a session, as far as its socket takes it.
    pub(super) fn read_inbox(&mut self, key: SessionKey, now: Now) -> Begun {
        let Some(session) = self.sessions.map.get_mut(&key) else { return Begun::Not };
        let leased = self.homes.get(&session.vnode).is_some_and(|h| h.leased(now));
        if !session.inbox.may_read() || session.state != State::Live {
            return Begun::Not;
        }
        session.inbox.look |= !leased;
        if !leased {
            return Begun::Not;
        }
        // Without room it is fed again when there is some.
        let Some(room) = self.sessions.budget.room(key, &session.user, &session.credit) else {
            return Begun::Not;
        };
        let limit = Limit { entries: session.credit.frames().min(READ_MAX), bytes: room.min(READ_BYTES_MAX) };
        let place = session.inbox.read();
        let (vnode, stream) = (session.vnode, session.stream.clone());
        self.ask_window(key, Some(key), (vnode, stream), place, limit)
    }

    pub(in crate::core) fn on_read(
        &mut self,
        session: Option<SessionKey>,
        stream: &StreamId,
        generation: Epoch,
        after: Offset,
        answer: Maybe<Window>,
        now: Now,
    ) {
        let Some(key) = session else {
            return self.on_room_read(stream, Cursor::new(generation, after), answer, now);
        };
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        let place = Cursor::new(generation, after);
        // Whoever is not live looks again when it is.
        let window = answer.filter(|_| session.state == State::Live);
        let (inbox, mut socket) = session.inbox_and_socket(key, &mut self.sessions.budget);
        match inbox.take(place, window.as_ref(), |frame| socket.hand(frame, &mut self.fx)) {
            // Tried again on the next tick. What its socket does not take now is read when it does: to read it at once
            // would be in vain, again and again.
            Handed::Nothing | Handed::Refused => {}
            // It was read before the append that told of the tail: read again.
            Handed::Other { first, .. } if first.0 != 0 && first.0 <= after.0 + 1 => {
                session.inbox.look = true
            }
            // What comes next is not in the window any more: never skip it silently.
            Handed::Other { missing: true, .. } => {
                self.close(key, CloseCode::TooSlow, "what was missed has left the hot window");
            }
            Handed::All | Handed::Other { missing: false, .. } => self.feed(key, now),
        }
    }

    pub(in crate::core) fn on_drained(&mut self, key: SessionKey, taken: (usize, usize), now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        self.sessions.budget.give_back(&session.user, &mut session.credit, taken);
        let user = session.user.clone();
        self.feed_all(key, now);
        self.wake(Some(&user), now);
    }

    /// Those who waited for others: this user's, and some of the node's.
    pub(super) fn wake(&mut self, user: Option<&UserId>, now: Now) {
        for key in self.sessions.budget.woken(user) {
            self.feed_all(key, now);
        }
    }

    /// Everything that the session lacks, and could not be given.
    pub(super) fn feed_all(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        if !session.wants.is_empty() {
            self.sessions.reads.wait(key, &session.user);
        }
        let starved = std::mem::take(&mut session.starved);
        self.feed(key, now);
        for stream in starved {
            self.feed_listener(key, &stream);
        }
        self.hand_waiting(key);
    }
}
