//! What nobody acknowledges is reported, once, and nothing else (decision 9).

use std::collections::BTreeSet;

use roost_backend::store::{Due, Op, OpResult, Write, WriteAnswer};
use roost_proto::events::Message;

use super::{UNDELIVERED_AFTER_MS, World};

impl World {
    /// A write took effect; `due` is what was due before it.
    pub(super) fn saw_reports(&mut self, write: &Write, answer: &WriteAnswer, due: &[Due]) {
        let WriteAnswer::Done { results, .. } = answer else { return };
        for (op, result) in write.ops.iter().zip(results) {
            let (Op::Undelivered { user, cursor }, OpResult::Undelivered { message: Some(_) }) = (op, result)
            else {
                continue;
            };
            let acked = self.data[write.fence.vnode.index()].acked_by_any(user);
            let since = due.iter().find(|d| d.user == *user && d.cursor == *cursor).map(|d| d.since_ms);
            let early = since.is_none_or(|since| write.now_ms < since + UNDELIVERED_AFTER_MS);
            let again = !self.watch.reported.insert((self.run, user.clone(), *cursor));
            for (wrong, what) in [
                (acked >= Some(*cursor), "although it was acknowledged"),
                (early, "before its time"),
                (again, "twice"),
            ] {
                if wrong {
                    self.violations.push(format!("{cursor:?} of {user} was reported as undelivered {what}"));
                }
            }
        }
    }

    /// Every message of the present generation was acknowledged or reported, and what was reported is in the log.
    pub(super) fn check_undelivered(&self, wrong: &mut Vec<String>) {
        let chat: BTreeSet<_> = self.log.chat.iter().flatten().collect();
        let reported: BTreeSet<_> = self.log.undelivered.iter().flatten().collect();
        wrong.extend(
            reported.difference(&chat).map(|event| format!("undelivered, and no message: {event:?}")),
        );
        for payload in chat.difference(&reported) {
            let Ok(message) = serde_json::from_slice::<Message>(payload) else { continue };
            let Some(user) = message.stream.user().filter(|_| message.kind == "message") else { continue };
            let data = &self.data[roost_ring::vnode_of_stream(&message.stream, self.setup.vnodes).index()];
            let present = data.head().is_some_and(|(_, _, generation, _)| generation == message.generation);
            if present && data.acked_by_any(&user) < Some(message.cursor()) {
                wrong.push(format!(
                    "nobody acknowledged {} of {user} {:?}, and nobody says so",
                    message.id,
                    message.cursor()
                ));
            }
        }
    }
}
