//! Messages to sessions: each is sent the offset after its own and nothing else (rule 25). That one rule serves
//! replay, live delivery and slow readers.

use bytes::Bytes;
use roost_backend::store::{Limit, Window};
use roost_proto::codes::CloseCode;
use roost_proto::ids::{Cursor, Epoch, Offset, StreamId, UserId, VnodeId};

use super::ask::Ask;
use super::events::{Lane, Maybe, Now, Observation, SessionKey};
use super::reads::{Begun, READ_BYTES_MAX, Want};
use super::session::State;
use super::{Action, NodeCore};

/// Entries asked of the store at once: half the credit, so that a reader that keeps up is never idle.
pub(super) const READ_MAX: usize = 128;

impl NodeCore {
    /// An append took effect: sessions that are just before it get it at once, the others read up to it.
    pub(super) fn deliver(
        &mut self,
        vnode: VnodeId,
        stream: &StreamId,
        at: Cursor,
        frame: &Bytes,
        arrived_us: u64,
        now: Now,
    ) {
        let leased = self.homes.get(&vnode).is_some_and(|h| h.leased(now));
        let Some(keys) = self.by_vnode.get(&vnode).and_then(|s| s.get(stream)) else { return };
        let mut behind = Vec::new();
        for key in keys {
            let known = |s: &&mut super::session::Session| s.inbox.tail.generation == at.generation;
            let Some(session) = self.sessions.get_mut(key).filter(known) else { continue };
            session.inbox.tail = session.inbox.tail.max(at);
            if session.state != State::Live {
                continue;
            }
            let next = session.inbox.is_next(at) && leased;
            if next && self.budget.spend(*key, &session.user, &mut session.credit, frame.len()) {
                session.inbox.sent = at.offset;
                self.counters.delivered += 1;
                self.out.push(Action::Frame { session: *key, frame: frame.clone(), lane: Lane::Message });
                self.out.push(Action::Observe(Observation::Delivery, now.us.saturating_sub(arrived_us)));
            } else {
                behind.push(*key);
            }
        }
        for key in behind {
            self.feed(key, now);
        }
    }

    /// The stream is known to reach at least this far.
    pub(super) fn tail_is(&mut self, vnode: VnodeId, stream: &StreamId, at: Cursor, now: Now) {
        let keys = self.by_vnode.get(&vnode).and_then(|s| s.get(stream)).cloned().unwrap_or_default();
        for key in keys {
            if let Some(session) =
                self.sessions.get_mut(&key).filter(|s| s.inbox.tail.generation == at.generation)
            {
                session.inbox.tail = session.inbox.tail.max(at);
            }
            self.feed(key, now);
        }
    }

    /// Something may have been appended without this node hearing of it: every session of the vnode looks.
    pub(super) fn look_again(&mut self, vnode: VnodeId, now: Now) {
        let keys: Vec<_> =
            self.by_vnode.get(&vnode).map(|s| s.values().flatten().copied().collect()).unwrap_or_default();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(&key) {
                session.inbox.look = true;
            }
            self.feed(key, now);
        }
    }

    /// Reads on for a session that is behind.
    pub(super) fn feed(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let leased = self.homes.get(&session.vnode).is_some_and(|h| h.leased(now));
        if session.state != State::Live || session.inbox.reading || !session.inbox.is_behind() {
            return;
        }
        // Without the lease nothing is handed out; the next tick looks again.
        session.inbox.look |= !leased;
        if leased {
            session.inbox.reading = true;
            session.wants.add(Want::Inbox);
            self.reads.wait(key, &session.user);
        }
    }

    /// Begins to read on for a session, as far as its socket takes it.
    pub(super) fn read_inbox(&mut self, key: SessionKey, now: Now) -> Begun {
        let Some(session) = self.sessions.get_mut(&key) else { return Begun::Not };
        session.inbox.reading = false;
        let leased = self.homes.get(&session.vnode).is_some_and(|h| h.leased(now));
        if session.state != State::Live || !session.inbox.is_behind() {
            return Begun::Not;
        }
        session.inbox.look |= !leased;
        if !leased {
            return Begun::Not;
        }
        // Without room it is fed again when there is some.
        let Some(room) = self.budget.room(key, &session.user, &session.credit) else { return Begun::Not };
        let limit = Limit { entries: session.credit.frames().min(READ_MAX), bytes: room.min(READ_BYTES_MAX) };
        session.inbox.reading = true;
        session.inbox.look = false;
        self.out.push(Action::Ask(Ask::Read {
            ask: self.reads.begin(key, &session.user, limit.bytes),
            session: Some(key),
            vnode: session.vnode,
            stream: session.stream.clone(),
            generation: session.inbox.generation,
            after: session.inbox.sent,
            limit,
        }));
        Begun::Yes
    }

    pub(super) fn on_read(
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
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.inbox.reading = false;
        if session.state != State::Live
            || session.inbox.generation != generation
            || session.inbox.sent != after
        {
            session.inbox.look = true;
            return;
        }
        let Some(window) = answer else {
            // Tried again on the next tick.
            session.inbox.look = true;
            return;
        };
        // A room of the session may have taken the credit meanwhile.
        let next = window.entries.first().is_some_and(|(offset, _)| offset.0 == after.0 + 1);
        let (first, mut refused) = (window.first, false);
        for (offset, frame) in window.entries {
            if offset.0 != session.inbox.sent.0 + 1 {
                break;
            }
            refused = !self.budget.spend(key, &session.user, &mut session.credit, frame.len());
            if refused {
                break;
            }
            session.inbox.took(offset);
            self.counters.delivered += 1;
            self.out.push(Action::Frame { session: key, frame, lane: Lane::Message });
        }
        if !next && first.0 != 0 && first.0 <= after.0 + 1 {
            // It was read before the append that told of the tail: read again.
            session.inbox.look = true;
            return;
        }
        if !next && session.inbox.tail > session.inbox.place() {
            // What comes next is not in the window any more: never skip it silently.
            return self.close(key, CloseCode::TooSlow, "what was missed has left the hot window");
        }
        // What its socket does not take now is read when it does: to read it at once would be in vain, again and again.
        if !refused {
            self.feed(key, now);
        }
    }

    pub(super) fn on_drained(&mut self, key: SessionKey, taken: (usize, usize), now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        self.budget.give_back(&session.user, &mut session.credit, taken);
        let user = session.user.clone();
        self.feed_all(key, now);
        self.wake(Some(&user), now);
    }

    /// Those who waited for others: this user's, and some of the node's.
    pub(super) fn wake(&mut self, user: Option<&UserId>, now: Now) {
        for key in self.budget.woken(user) {
            self.feed_all(key, now);
        }
    }

    /// Everything that the session lacks, and could not be given.
    pub(super) fn feed_all(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !session.wants.is_empty() {
            self.reads.wait(key, &session.user);
        }
        let starved = std::mem::take(&mut session.starved);
        self.feed(key, now);
        for stream in starved {
            self.feed_listener(key, &stream);
        }
        self.hand_waiting(key);
    }
}
