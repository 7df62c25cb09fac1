//! A session shows another token: what it allows from now on. Whether the token holds, and when it ends, is known to
//! the session's socket.

use roost_proto::ErrorBody;
use roost_proto::frames::Empty;
use roost_proto::ids::MessageId;

use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::rights::Rights;

impl NodeCore {
    pub(super) fn on_refresh(
        &mut self,
        key: SessionKey,
        id: &MessageId,
        token: Result<Rights, ErrorBody>,
        now: Now,
    ) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        let taken = token.map(|rights| session.rights = rights);
        self.count_waiters(key);
        match taken {
            Ok(()) => {
                self.fx.count().refreshed += 1;
                self.leave_forbidden(key, now);
                self.unwatch_forbidden(key, now);
                self.reply_ok(key, id.as_str(), &Empty {});
            }
            Err(error) => {
                self.fx.count().refreshes_refused += 1;
                self.reply_error(key, id.as_str(), error);
            }
        }
    }
}
