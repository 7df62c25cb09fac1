//! What a session acknowledges reaches its home, and how far its user has read the user's other sessions.

use roost_proto::frames::{Read, ServerFrame};
use roost_proto::ids::{Cursor, StreamId, VnodeId};

use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::said::SaidUpTo;
use crate::core::sessions::session::Session;
use crate::core::sessions::signals::Latest;

impl NodeCore {
    pub(super) fn on_ack(&mut self, key: SessionKey, cursor: Cursor, read: bool, now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        if cursor > Cursor::new(session.inbox.generation, session.inbox.sent) {
            return;
        }
        let said = SaidUpTo { acked: Some(cursor), read: read.then_some(cursor) };
        session.said.add(said);
        if session.counted {
            return self.take_ack(key, cursor, read, now);
        }
        // It may leave before there is a home.
        let vnode = session.vnode;
        let quiet = self.shows(key) == Some(false);
        let who = self.sessions.map.get(&key).map(|session| session.who(quiet));
        self.keep_said(vnode, who.map(|who| (who, said)));
    }

    /// Its home hears it; without one it is said again when there is one.
    pub(super) fn take_ack(&mut self, key: SessionKey, cursor: Cursor, read: bool, now: Now) {
        let Some(session) = self.sessions.map.get(&key) else { return };
        let Some(home) = self.homes.get_mut(&session.vnode) else { return };
        home.ack(session.who(false), cursor, now);
        if read && session.read < Some(cursor) {
            home.read(session.who(false), cursor, now);
            self.tell_read(key, cursor);
        }
    }

    /// The user's other sessions learn what this one said.
    fn tell_read(&mut self, key: SessionKey, cursor: Cursor) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        session.read = Some(cursor);
        let (vnode, stream) = (session.vnode, session.stream.clone());
        self.show_read_to(vnode, &stream, cursor);
    }

    /// All sessions of a user.
    pub(in crate::core) fn show_read_to(&mut self, vnode: VnodeId, stream: &StreamId, cursor: Cursor) {
        for key in self.sessions.of(vnode, stream).to_vec() {
            self.show_read(key, cursor);
        }
    }

    /// Tells a session how far its user has read, unless it knows; `welcome` tells who is not welcomed yet.
    pub(super) fn show_read(&mut self, key: SessionKey, cursor: Cursor) {
        let news = |s: &&mut Session| s.read < Some(cursor);
        let Some(session) = self.sessions.map.get_mut(&key).filter(news) else { return };
        session.read = Some(cursor);
        if session.welcomed {
            let frame = ServerFrame::Read(Read { cursor }).to_json().into();
            self.hand_latest(key, &Latest::Read, &frame);
        }
    }
}
