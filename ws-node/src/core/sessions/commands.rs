//! What sessions say comes through one gate: after `welcome`, and in the order in which it was said.

use roost_proto::ErrorBody;
use roost_proto::codes::CloseCode;
use roost_proto::ids::MessageId;

use crate::core::command::Command;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;

impl NodeCore {
    pub(in crate::core) fn on_command(&mut self, key: SessionKey, command: Command, now: Now) {
        let Some(session) = self.sessions.map.get(&key) else { return };
        if !session.welcomed {
            return self.keep_early(key, command);
        }
        match command {
            Command::Send(send) => self.on_send(key, send, now),
            Command::Event(event) => self.on_client_event(key, event, now),
            Command::Publish(publish) => self.on_publish(key, publish, now),
            Command::Join(join) => {
                self.accountable(key, join.id.clone(), now, |core| core.on_join(key, join, now));
            }
            Command::Leave(of) => {
                self.accountable(key, of.id.clone(), now, |core| core.on_leave(key, &of, now));
            }
            Command::Members(of) => {
                self.accountable(key, of.id.clone(), now, |core| core.on_members(key, of, now));
            }
            Command::Watch(of) => {
                self.accountable(key, of.id.clone(), now, |core| core.on_watch(key, of, now))
            }
            Command::Unwatch(of) => {
                self.accountable(key, of.id.clone(), now, |core| core.on_unwatch(key, &of, now));
            }
            Command::History(history) => {
                self.accountable(key, history.id.clone(), now, |core| core.on_history(key, history));
            }
            Command::Status(status) => self.on_status(key, status, now),
            Command::Refresh(id, token) => self.on_refresh(key, &id, token, now),
            Command::Ack(cursor) => self.on_ack(key, cursor, false, now),
            Command::Read(cursor) => self.on_ack(key, cursor, true, now),
            Command::Signal(signal) => self.on_signal(key, signal, now),
        }
    }

    /// A command that takes a place among those without an answer; what it does may be refused.
    pub(in crate::core) fn accountable(
        &mut self,
        key: SessionKey,
        id: MessageId,
        now: Now,
        what: impl FnOnce(&mut Self) -> Result<(), ErrorBody>,
    ) {
        if self.take_command(key, &id, now)
            && let Err(error) = what(self)
        {
            self.reply_error(key, id.as_str(), error);
        }
    }

    /// Keeps a command until `welcome` was said, which is the first frame; the bound is that of unanswered ones. Nobody
    /// waits for an answer to a signal, and nothing was given yet that could be acknowledged.
    fn keep_early(&mut self, key: SessionKey, command: Command) {
        let max = self.cfg.unanswered_max;
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        match command {
            Command::Ack(_) | Command::Read(_) => {}
            Command::Signal(_) => self.fx.count().signals_dropped += 1,
            command if session.early.len() < max => {
                self.sessions.early.keep(&session.user, &mut session.early, command);
            }
            _ => self.close(key, CloseCode::Overload, "too many commands before welcome"),
        }
    }

    pub(super) fn do_early(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        for (command, refused) in self.sessions.early.take(&session.user, &mut session.early) {
            self.refuses_all(key, refused);
            self.on_command(key, command, now);
        }
        self.refuses_all(key, false);
    }

    fn refuses_all(&mut self, key: SessionKey, refuses: bool) {
        if let Some(session) = self.sessions.map.get_mut(&key) {
            session.refuses = refuses;
        }
    }
}
