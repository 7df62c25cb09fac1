//! What becomes of items, told to what waits for them; and replies to clients.

use std::borrow::Cow;

use bytes::Bytes;
use roost_proto::codes::{CloseCode, ErrorBody, ErrorCode};
use roost_proto::frames::{Reply, ReplyOk, ServerFrame};
use roost_proto::records::ItemResult;
use roost_proto::time::rfc3339;

use super::asker::{Asker, Caller};
use super::blocked::Cause;
use super::channel::Waiter;
use super::events::{Lane, Now, Observation, SessionKey};
use super::message::{ItemKey, RETRY_AFTER_MS};
use super::{Action, NodeCore};

/// How an item left its channel, or that it did not in time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome<'a> {
    Result(&'a ItemResult),
    /// It was not taken.
    Dropped,
    /// It may be taken yet.
    Unknown,
}

impl NodeCore {
    /// Tells what waits for an item.
    pub(super) fn answer(&mut self, waiter: &Waiter, key: &ItemKey, outcome: Outcome<'_>, now: Now) {
        let result = if let Outcome::Result(result) = outcome { Some(result) } else { None };
        match waiter.asker {
            Asker::Caller(caller) => self.answer_caller(caller, waiter, key, outcome, now),
            Asker::Room(question, number) => self.home_answered(&key.0, question, number, result, now),
            Asker::Canary => {
                if matches!(result, Some(ItemResult::Ok { .. })) {
                    self.canary.confirmed(waiter.since, now.mono);
                }
            }
            Asker::Receipt(vnode) => self.receipt_answered(vnode, &key.2, result, now),
            Asker::Acks(vnode) => self.said_answered(vnode, &key.2, result),
            Asker::Result(number) => self.result_answered(number, result, now),
        }
    }

    fn answer_caller(
        &mut self,
        caller: Caller,
        waiter: &Waiter,
        key: &ItemKey,
        outcome: Outcome<'_>,
        now: Now,
    ) {
        let id = key.2.as_str();
        let result = match outcome {
            Outcome::Result(result) => result,
            Outcome::Dropped => return self.reply_unavailable(caller, id),
            Outcome::Unknown => return self.reply_unknown(caller, key, waiter),
        };
        match result {
            ItemResult::Ok { at, cursor } => {
                self.out.push(Action::Observe(Observation::Reply, now.us.saturating_sub(waiter.since_us)));
                self.counters.replies_ok += 1;
                let ok = ReplyOk { at: Some(rfc3339(*at)), cursor: *cursor, ..ReplyOk::default() };
                self.reply_ok(caller, id, ok);
            }
            ItemResult::Conflict => self.reply_conflict(caller, id),
            ItemResult::Full => {
                self.block(caller, key, waiter);
                let error = ErrorBody::new(ErrorCode::RateLimited, "too many events wait for a result");
                self.reply_error(caller, id, error.retry_after(RETRY_AFTER_MS));
            }
            ItemResult::Bad => self.reply_bad(caller, id, "the home node could not read this message"),
            ItemResult::Tail { .. }
            | ItemResult::Members { .. }
            | ItemResult::Noted
            | ItemResult::Nobody
            | ItemResult::Void => self.reply_unavailable(caller, id),
        }
    }

    // Replies. A session that is gone gets none.

    pub(super) fn reply(&mut self, to: impl Into<Caller>, reply: Reply) {
        let key = match to.into() {
            Caller::Api(call) => return self.out.push(Action::Answer { call, reply: Box::new(reply) }),
            Caller::Session(key) => key,
        };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.unanswered = session.unanswered.saturating_sub(1);
        let frame = ServerFrame::Reply(reply).to_json().into();
        self.out.push(Action::Frame { session: key, frame, lane: Lane::Reply });
    }

    pub(super) fn reply_ok(&mut self, to: impl Into<Caller>, id: &str, ok: ReplyOk) {
        self.reply(to, Reply::ok(id, ok));
    }

    /// A reply that may be large counts as a message frame: a client that reads nothing is sent no more of them than
    /// it has credit.
    pub(super) fn reply_on_credit(&mut self, key: SessionKey, id: &str, ok: ReplyOk) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !session.credit.is_open() {
            let error = ErrorBody::new(ErrorCode::RateLimited, "what was sent before is not read yet");
            return self.reply_error(key, id, error.retry_after(RETRY_AFTER_MS));
        }
        session.unanswered = session.unanswered.saturating_sub(1);
        let frame: Bytes = ServerFrame::Reply(Reply::ok(id, ok)).to_json().into();
        self.budget.take(&session.user, &mut session.credit, frame.len());
        self.out.push(Action::Frame { session: key, frame, lane: Lane::Message });
    }

    pub(super) fn reply_error(&mut self, to: impl Into<Caller>, id: &str, error: ErrorBody) {
        self.reply(to, Reply::error(Some(id.to_owned()), error));
    }

    /// Refuses a command that was never counted as waiting.
    pub(super) fn refuse(&mut self, to: impl Into<Caller>, id: &str, why: &'static str, wait_ms: u64) {
        let to = to.into();
        self.counters.refused += 1;
        if let Some(key) = to.session() {
            self.count_waiters(key);
        }
        self.reply_error(to, id, ErrorBody::new(ErrorCode::RateLimited, why).retry_after(wait_ms));
    }

    fn reply_unknown(&mut self, caller: Caller, key: &ItemKey, waiter: &Waiter) {
        self.counters.replies_unknown += 1;
        // Its repeat comes before anything later, also if the item is confirmed in the meantime.
        self.block(caller, key, waiter);
        let why = "no answer in time: it may have been accepted; repeat with the same id";
        self.reply_error(caller, key.2.as_str(), ErrorBody::new(ErrorCode::Unknown, why));
    }

    /// What the session sends later to the same stream waits for the repeat of this.
    fn block(&mut self, caller: Caller, key: &ItemKey, waiter: &Waiter) {
        if let Some(session) = caller.session().and_then(|session| self.sessions.get_mut(&session)) {
            session.blocked.insert(key, waiter.arrival, Cause::Full);
        }
    }

    pub(super) fn reply_unavailable(&mut self, to: impl Into<Caller>, id: &str) {
        let why = "not accepted: repeat with the same id";
        let error = ErrorBody::new(ErrorCode::Unavailable, why).retry_after(RETRY_AFTER_MS);
        self.reply_error(to, id, error);
    }

    pub(super) fn reply_conflict(&mut self, to: impl Into<Caller>, id: &str) {
        let why = "this id was used before with another body";
        self.reply_error(to, id, ErrorBody::new(ErrorCode::Conflict, why));
    }

    pub(super) fn reply_bad(&mut self, to: impl Into<Caller>, id: &str, why: &'static str) {
        self.reply_error(to, id, ErrorBody::new(ErrorCode::BadRequest, why));
    }

    /// Closes a session that cannot be served any more.
    pub(super) fn close(
        &mut self,
        session: SessionKey,
        code: CloseCode,
        reason: impl Into<Cow<'static, str>>,
    ) {
        self.out.push(Action::Close { session, code, reason: reason.into() });
    }
}
