//! What becomes of items is told to what waits for them.

use roost_proto::answers::Accepted;
use roost_proto::codes::{ErrorBody, ErrorCode};
use roost_proto::records::ItemResult;
use roost_proto::time::rfc3339;

use crate::core::actions::{Action, Observation};
use crate::core::channels::asker::{Asker, Caller};
use crate::core::channels::channel::Waiter;
use crate::core::keys::Now;
use crate::core::message::{ItemKey, RETRY_AFTER_MS};
use crate::core::node::NodeCore;

/// How an item left its channel, or that it did not in time.
#[derive(Debug, Clone, Copy)]
pub(in crate::core) enum Outcome<'a> {
    Result(&'a ItemResult),
    /// It was not taken.
    Dropped,
    /// It may be taken yet.
    Unknown,
}

impl NodeCore {
    /// Tells what waits for an item.
    pub(in crate::core) fn answer(&mut self, waiter: &Waiter, key: &ItemKey, outcome: Outcome<'_>, now: Now) {
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
                self.fx.push(Action::Observe(Observation::Reply, now.us.saturating_sub(waiter.since_us)));
                self.fx.count().replies_ok += 1;
                self.reply_ok(caller, id, &Accepted { at: rfc3339(*at), cursor: *cursor });
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
}
