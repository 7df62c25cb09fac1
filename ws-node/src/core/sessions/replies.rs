//! Replies to clients. A session that is gone gets none.

use std::borrow::Cow;

use bytes::Bytes;
use roost_proto::codes::{CloseCode, ErrorBody, ErrorCode};
use roost_proto::frames::{Reply, ServerFrame};
use roost_proto::ids::MessageId;
use serde::Serialize;

use crate::core::actions::{Action, SendQueue};
use crate::core::channels::asker::Caller;
use crate::core::channels::channel::Waiter;
use crate::core::keys::{Now, SessionKey};
use crate::core::message::{ItemKey, RETRY_AFTER_MS};
use crate::core::node::NodeCore;
use crate::core::sessions::blocked::Cause;
use crate::core::sessions::early::TOO_MUCH_EARLY;

impl NodeCore {
    pub(in crate::core) fn frame(&mut self, session: SessionKey, frame: ServerFrame) {
        self.fx.push(Action::Frame { session, frame: frame.to_json().into(), queue: SendQueue::Reply });
    }

    // Replies. A session that is gone gets none.
    pub(in crate::core) fn reply(&mut self, to: impl Into<Caller>, reply: Reply) {
        let key = match to.into() {
            Caller::Api(call) => return self.fx.push(Action::Answer { call, reply: Box::new(reply) }),
            Caller::Session(key) => key,
        };
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        session.unanswered = session.unanswered.saturating_sub(1);
        let frame = ServerFrame::Reply(reply).to_json().into();
        self.fx.push(Action::Frame { session: key, frame, queue: SendQueue::Reply });
    }

    pub(in crate::core) fn reply_ok(&mut self, to: impl Into<Caller>, id: &str, ok: &impl Serialize) {
        self.reply(to, Reply::ok(id, ok));
    }

    /// A reply that may be large counts as a message frame: a client that reads nothing is sent no more of them than
    /// it has credit.
    pub(in crate::core) fn reply_on_credit(&mut self, key: SessionKey, id: &str, ok: &impl Serialize) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        if !session.credit.is_open() {
            let error = ErrorBody::new(ErrorCode::RateLimited, "what was sent before is not read yet");
            return self.reply_error(key, id, error.retry_after(RETRY_AFTER_MS));
        }
        session.unanswered = session.unanswered.saturating_sub(1);
        let frame: Bytes = ServerFrame::Reply(Reply::ok(id, ok)).to_json().into();
        self.sessions.budget.take(&session.user, &mut session.credit, frame.len());
        self.fx.push(Action::Frame { session: key, frame, queue: SendQueue::Message });
    }

    pub(in crate::core) fn reply_error(&mut self, to: impl Into<Caller>, id: &str, error: ErrorBody) {
        self.reply(to, Reply::error(Some(id.to_owned()), error));
    }

    /// Refuses a command that was never counted as waiting.
    pub(in crate::core) fn refuse(
        &mut self,
        to: impl Into<Caller>,
        id: &str,
        why: &'static str,
        wait_ms: u64,
    ) {
        let to = to.into();
        self.fx.count().refused += 1;
        if let Some(key) = to.session() {
            self.count_waiters(key);
        }
        self.reply_error(to, id, ErrorBody::new(ErrorCode::RateLimited, why).retry_after(wait_ms));
    }

    pub(in crate::core) fn reply_unknown(&mut self, caller: Caller, key: &ItemKey, waiter: &Waiter) {
        self.fx.count().replies_unknown += 1;
        // Its repeat comes before anything later, also if the item is confirmed in the meantime.
        self.block(caller, key, waiter);
        let why = "no answer in time: it may have been accepted; repeat with the same id";
        self.reply_error(caller, key.2.as_str(), ErrorBody::new(ErrorCode::Unknown, why));
    }

    /// What the session sends later to the same stream waits for the repeat of this.
    pub(in crate::core) fn block(&mut self, caller: Caller, key: &ItemKey, waiter: &Waiter) {
        if let Some(session) = caller.session().and_then(|session| self.sessions.map.get_mut(&session)) {
            session.blocked.insert(key, waiter.arrival, Cause::Full);
        }
    }

    pub(in crate::core) fn reply_unavailable(&mut self, to: impl Into<Caller>, id: &str) {
        let why = "not accepted: repeat with the same id";
        let error = ErrorBody::new(ErrorCode::Unavailable, why).retry_after(RETRY_AFTER_MS);
        self.reply_error(to, id, error);
    }

    pub(in crate::core) fn reply_conflict(&mut self, to: impl Into<Caller>, id: &str) {
        let why = "this id was used before with another body";
        self.reply_error(to, id, ErrorBody::new(ErrorCode::Conflict, why));
    }

    pub(in crate::core) fn reply_bad(&mut self, to: impl Into<Caller>, id: &str, why: &'static str) {
        self.reply_error(to, id, ErrorBody::new(ErrorCode::BadRequest, why));
    }

    /// Closes a session that cannot be served any more.
    pub(in crate::core) fn close(
        &mut self,
        session: SessionKey,
        code: CloseCode,
        reason: impl Into<Cow<'static, str>>,
    ) {
        self.fx.push(Action::Close { session, code, reason: reason.into() });
    }

    pub(in crate::core) fn count_waiters(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.map.get_mut(&key) {
            session.unanswered += 1;
        }
    }

    /// Counts a command that is to be answered; false if there are too many, which it was told.
    pub(super) fn take_command(&mut self, key: SessionKey, id: &MessageId, now: Now) -> bool {
        let unanswered_max = self.cfg.unanswered_max;
        let Some(session) = self.sessions.map.get_mut(&key) else { return false };
        if session.refuses {
            self.refuse(key, id.as_str(), TOO_MUCH_EARLY, RETRY_AFTER_MS);
            return false;
        }
        if session.unanswered >= unanswered_max {
            self.refuse(key, id.as_str(), "too many commands without an answer", RETRY_AFTER_MS);
            return false;
        }
        if let Err(wait) = session.bucket.take(now.mono) {
            self.refuse(key, id.as_str(), "too many commands", wait);
            return false;
        }
        self.count_waiters(key);
        true
    }
}
