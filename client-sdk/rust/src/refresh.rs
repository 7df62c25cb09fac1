//! A fresh token in band: the server says that the token ends soon, the application's callback gives the next one,
//! and the connection goes on. If that fails the connection ends with its token, and the way back asks again.

use rand::RngExt;
use roost_proto::frames::{RefreshToken, Reply, TokenExpiring};
use roost_proto::{ClientFrame, MessageId};

use crate::core::{Action, Core};
use crate::error::{BoxError, Cause, ConnectTrouble};
use crate::event::Event;
use crate::link::ConnId;

impl Core {
    pub(crate) fn token_expiring(&mut self, conn: ConnId, expiring: &TokenExpiring) {
        let in_ms = expiring.in_ms;
        if self.config.token_renewable {
            self.actions.push(Action::Token(conn));
        } else {
            self.deliver(Event::TokenExpiring { in_ms }, None);
        }
    }

    /// The callback gave a token, or did not.
    pub(crate) fn token(&mut self, conn: ConnId, token: Result<String, BoxError>) {
        // After `moved` the next connection shows it.
        if self.writes_to() != Some(conn) {
            return;
        }
        match token {
            Ok(token) => {
                let id = format!("refresh-{:016x}", self.rng.random::<u64>());
                let id = MessageId::new(id).expect("a word and hex digits");
                self.refreshing = Some(id.to_string());
                self.write(conn, &ClientFrame::Refresh(RefreshToken { id, token }));
            }
            Err(error) => self.not_refreshed(error.to_string()),
        }
    }

    /// Takes the answer to a refresh; gives back any other.
    pub(crate) fn refreshed(&mut self, reply: Reply) -> Option<Reply> {
        if reply.id.is_none() || reply.id != self.refreshing {
            return Some(reply);
        }
        self.refreshing = None;
        match reply.error {
            Some(error) => self.not_refreshed(error.to_string()),
            // The server does not say which rooms the fresh token does not allow, nor whom to watch; a refusal does.
            None => {
                self.welcome_rooms(Vec::new());
                self.watch_again();
            }
        }
        None
    }

    fn not_refreshed(&mut self, why: String) {
        tracing::warn!(why, "the token was not refreshed: the connection ends with it");
        self.actions.push(Action::Trouble(ConnectTrouble { cause: Cause::Token, reason: why }));
    }
}
