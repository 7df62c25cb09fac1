//! Reads begin when sessions have their turn.

use roost_backend::store::Limit;
use roost_proto::ids::{Cursor, StreamId, VnodeId};

use crate::core::actions::Action;
use crate::core::ask::Ask;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::sessions::reads::{Begun, Want};

impl NodeCore {
    /// Begins what may be read now.
    pub(in crate::core) fn begin_reads(&mut self, now: Now) {
        while let Some(key) = self.sessions.reads.next() {
            while let Some(want) = self.sessions.map.get_mut(&key).and_then(|session| session.wants.next()) {
                let begun = match want {
                    Want::Inbox => self.read_inbox(key, now),
                    Want::Room(stream) => self.read_room(key, stream),
                    Want::Page(history) => self.read_page(key, history),
                };
                match begun {
                    Begun::Yes => break,
                    Begun::Not => {}
                    Begun::Later(want) => {
                        if let Some(session) = self.sessions.map.get_mut(&key) {
                            session.wants.put_back(want);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Asks for what comes after a place, on the account of `key`: for that session, or for all that stand there.
    pub(in crate::core) fn ask_window(
        &mut self,
        key: SessionKey,
        session: Option<SessionKey>,
        (vnode, stream): (VnodeId, StreamId),
        place: Cursor,
        limit: Limit,
    ) -> Begun {
        let Some(user) = self.sessions.map.get(&key).map(|session| &session.user) else { return Begun::Not };
        let ask = self.sessions.reads.begin(key, user, limit.bytes);
        let (generation, after) = (place.generation, place.offset);
        self.fx.push(Action::Ask(Ask::Read { ask, session, vnode, stream, generation, after, limit }));
        Begun::Yes
    }

    /// A read was answered, or will not be.
    pub(in crate::core) fn read_ended(&mut self, ask: u64, answered: bool) {
        let Some(key) = self.sessions.reads.end(ask, answered) else { return };
        if let Some(session) = self.sessions.map.get(&key).filter(|session| !session.wants.is_empty()) {
            self.sessions.reads.wait(key, &session.user);
        }
    }
}
