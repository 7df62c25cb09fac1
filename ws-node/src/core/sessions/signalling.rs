//! Signals: latest wins, lost without harm, never in the log. A signal goes straight from its sender's node to every
//! node with listeners; a session that does not read gets, when it reads again, the last one of each sender and kind.

use bytes::Bytes;
use roost_backend::store::LiveChannel;
use roost_proto::codes::CloseCode;
use roost_proto::frames::{ServerFrame, Signal, Signalled};
use roost_proto::ids::{RoomId, SessionId, StreamId, UserId};
use roost_proto::limits::KIND_BYTES_MAX;
use roost_proto::live::Note;
use serde_json::value::RawValue;

use crate::core::actions::{Action, SendQueue};
use crate::core::channels::shares::Shares;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::sessions::signals::Latest;

/// What a session that does not read has waiting: as many cursors as anyone can look at, and their bytes.
const WAITING_MAX: usize = 256;

const WAITING_BYTES_MAX: usize = 256 * 1024;

/// Members of rooms whose news a session that does not read has waiting; with more it is too slow.
const MEMBERS_WAITING_MAX: usize = 4096;

impl NodeCore {
    pub(super) fn on_signal(&mut self, key: SessionKey, signal: Signal, now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        // Nobody waits for an answer: what is too much or not allowed is dropped, and counted.
        let spent = session.signals.bucket.take(now.mono).is_err();
        let stream = signal.room.as_ref().map(StreamId::of_room);
        let inside = stream.as_ref().is_none_or(|stream| session.seats.has(stream));
        let bytes = signal.data.get().len();
        let weighs = |shares: &mut Shares| shares.signals(&session.user, bytes, now.mono);
        let reserved = signal.to.as_ref().is_some_and(UserId::is_reserved);
        if spent
            || !inside
            || reserved
            || signal.kind.len() > KIND_BYTES_MAX
            || !weighs(self.channels.shares_mut())
        {
            self.fx.count().signals_dropped += 1;
            return;
        }
        let Signal { room, to, kind, data } = signal;
        let (from, id) = (session.user.clone(), session.id.clone());
        let frame = ServerFrame::Signal(Signalled { room, from, kind: kind.clone(), data }).to_json();
        let frame = RawValue::from_string(frame).expect("a frame is JSON");
        self.fx.count().signals += 1;
        let channel = match (stream, &to) {
            (Some(stream), None) => LiveChannel::Room { vnode: self.vnode_of(&stream), stream },
            (None, Some(to)) => {
                let home = self
                    .membership
                    .view()
                    .rows
                    .get(&self.vnode_of(&StreamId::inbox(to)))
                    .map(|row| row.node());
                match home {
                    Some(node) if node == self.cfg.node => return self.signal_user(to, &id, &kind, &frame),
                    Some(node) => LiveChannel::Node(node),
                    None => return self.fx.count().signals_dropped += 1,
                }
            }
            _ => return self.fx.count().signals_dropped += 1,
        };
        let payload = Note::Signal { session: id, kind, to, frame }.to_json().into();
        self.fx.push(Action::Publish { channel, payload });
    }

    pub(in crate::core) fn signal_room(
        &mut self,
        stream: &StreamId,
        from: &SessionId,
        kind: &str,
        frame: &RawValue,
    ) {
        let Some(room) = self.rooms.get(stream) else { return };
        let keys: Vec<_> = room.listeners().collect();
        self.hand_signal(&keys, stream.room(), from, kind, frame);
    }

    pub(in crate::core) fn signal_user(
        &mut self,
        to: &UserId,
        from: &SessionId,
        kind: &str,
        frame: &RawValue,
    ) {
        let stream = StreamId::inbox(to);
        let keys = self.sessions.of(self.vnode_of(&stream), &stream).to_vec();
        self.hand_signal(&keys, None, from, kind, frame);
    }

    fn hand_signal(
        &mut self,
        keys: &[SessionKey],
        room: Option<RoomId>,
        from: &SessionId,
        kind: &str,
        frame: &RawValue,
    ) {
        let frame = Bytes::copy_from_slice(frame.get().as_bytes());
        let latest = Latest::Signal(room, from.clone(), kind.to_owned());
        for key in keys {
            // Who sent it knows.
            if self.sessions.map.get(key).is_some_and(|s| s.welcomed && s.id != *from) {
                self.hand_latest(*key, &latest, &frame);
            }
        }
    }

    /// Hands a frame to a session that reads; for one that does not it waits, until a later one takes its place.
    pub(in crate::core) fn hand_latest(&mut self, key: SessionKey, latest: &Latest, frame: &Bytes) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        let signals = &mut session.signals;
        let member = matches!(latest, Latest::Member(..));
        let (max, bytes_max) = match latest {
            Latest::Member(..) => (MEMBERS_WAITING_MAX, usize::MAX),
            Latest::Signal(..) => (WAITING_MAX, WAITING_BYTES_MAX),
            // There is one; there are as many as the session may watch.
            Latest::Read | Latest::Presence(_) => (usize::MAX, usize::MAX),
        };
        let before = signals.waiting.get(latest).map(Bytes::len);
        let bytes = signals.waiting_bytes - before.unwrap_or_default() + frame.len();
        // What waits goes first: a later one of its key takes its place there.
        if signals.waiting.is_empty()
            && self.sessions.budget.spend(key, &session.user, &mut signals.credit, frame.len())
        {
            self.fx.push(Action::Frame { session: key, frame: frame.clone(), queue: SendQueue::Signal });
        } else if (signals.waiting.len() < max || before.is_some()) && bytes <= bytes_max {
            signals.keep(latest.clone(), frame.clone());
        } else if member {
            self.close(key, CloseCode::TooSlow, "too many changes of members wait to be read");
        } else {
            self.fx.count().signals_dropped += 1;
        }
    }

    /// The session's socket took this many signals.
    pub(in crate::core) fn signals_drained(
        &mut self,
        key: SessionKey,
        (frames, bytes): (usize, usize),
        now: Now,
    ) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        self.sessions.budget.give_back(&session.user, &mut session.signals.credit, (frames, bytes));
        let user = session.user.clone();
        self.hand_waiting(key);
        self.wake(Some(&user), now);
    }

    /// What waits, as far as its socket takes it.
    pub(super) fn hand_waiting(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        let signals = &mut session.signals;
        while let Some(bytes) = signals.next_bytes()
            && self.sessions.budget.spend(key, &session.user, &mut signals.credit, bytes)
            && let Some(frame) = signals.take_next()
        {
            self.fx.push(Action::Frame { session: key, frame, queue: SendQueue::Signal });
        }
    }
}
