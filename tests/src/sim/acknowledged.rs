//! What nobody acknowledges is reported, once, and nothing else; who asks for receipts gets them (decision 13).

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::{Due, Op, OpResult, Write, WriteAnswer};
use roost_proto::events::{Message, Receipt};
use roost_proto::ids::{Cursor, StreamId, UserId};
use roost_ws_node::core::SessionKey;

use super::client::{name, wants_receipt};
use super::{UNDELIVERED_AFTER_MS, World};

/// An acknowledgement that a node took.
pub(crate) struct Heard {
    pid: usize,
    user: UserId,
    cursor: Cursor,
    at: u64,
    run: u64,
}

impl World {
    /// A session acknowledges what it was sent.
    pub(super) fn saw_ack(&mut self, pid: usize, session: SessionKey, cursor: Cursor) {
        let Some(user) = self.watch.user_of(pid, session) else { return };
        let sent = self.joins.shown(session.0, &StreamId::inbox(&user));
        if sent.is_some_and(|sent| sent.generation == cursor.generation && cursor <= sent) {
            self.watch.heard.push(Heard { pid, user, cursor, at: self.now, run: self.run });
        }
    }

    /// What a node took that lives and could always speak, the store has at the end: with home or without at that
    /// moment, and whether its session stayed or not.
    pub(super) fn check_heard(&self, wrong: &mut Vec<String>) {
        let log_down = self.log.down_until.max(self.log.was_down_until);
        for Heard { pid, user, cursor, at, run } in &self.watch.heard {
            let process = &self.processes[*pid];
            let silenced = process.core.is_none() || process.troubled_until() > *at || log_down > *at;
            let data = &self.data[roost_ring::vnode(user.as_str(), self.setup.vnodes).index()];
            let present = data.head().is_some_and(|(_, _, generation, _)| generation == cursor.generation);
            if present && *run == self.run && !silenced && data.acked_by_any(user) < Some(*cursor) {
                wrong.push(format!(
                    "p{pid} heard at {at} that {user} has {cursor:?}, and the store does not know"
                ));
            }
        }
    }

    /// A write took effect; `due` is what was due before it.
    pub(super) fn saw_reports(&mut self, write: &Write, answer: &WriteAnswer, due: &[Due]) {
        let WriteAnswer::Done { results, .. } = answer else { return };
        for (op, result) in write.ops.iter().zip(results) {
            let (Op::Undelivered { user, cursor, .. }, OpResult::Undelivered { message: Some(_) }) =
                (op, result)
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
            let Some(user) =
                message.stream.user().filter(|_| ["message", "result"].contains(&&*message.kind))
            else {
                continue;
            };
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

    /// A sender who asked is told once of each message that was acknowledged, and of no other.
    pub(super) fn check_receipts(&self, wrong: &mut Vec<String>) {
        let chat: BTreeSet<_> = self.log.chat.iter().flatten().collect();
        let messages = || chat.iter().filter_map(|payload| serde_json::from_slice::<Message>(payload).ok());
        let of = |reader: &str, id: &str| (format!("user:{reader}"), id.to_owned());
        let asked: BTreeSet<_> = messages()
            .filter(|m| m.kind == "message" && wants_receipt(m.id.as_str()))
            .map(|m| (m.stream.to_string(), m.id.to_string()))
            .collect();
        let (mut told, mut delivered) = (BTreeMap::new(), BTreeSet::new());
        for message in messages() {
            let Some(receipt) = message.receipt() else { continue };
            let read = matches!(receipt, Receipt::Read { .. });
            for id in receipt.ids() {
                let what = of(&message.from, id.as_str());
                if !asked.contains(&what) {
                    wrong.push(format!("a receipt that nobody asked for: {message:?}"));
                }
                let before = told.insert(
                    (message.stream.clone(), message.generation, read, what.clone()),
                    message.id.clone(),
                );
                // A store that went back has forgotten what was told.
                if before.is_some() && self.run == 0 {
                    wrong.push(format!(
                        "{} was told twice of {id}: {before:?} and {}",
                        message.stream, message.id
                    ));
                }
                if !read {
                    delivered.insert(what);
                }
            }
        }
        for message in messages().filter(|m| m.kind == "message" && wants_receipt(m.id.as_str())) {
            let Some(reader) = message.stream.user().filter(|user| !self.watch.hidden.contains(user)) else {
                continue;
            };
            let data = &self.data[roost_ring::vnode_of_stream(&message.stream, self.setup.vnodes).index()];
            let present = data.head().is_some_and(|(_, _, generation, _)| generation == message.generation);
            let acked = data.acked_by_any(&reader) >= Some(message.cursor());
            if present && acked && !delivered.contains(&of(reader.as_str(), message.id.as_str())) {
                wrong.push(format!("{} was not told that {reader} has {}", message.from, message.id));
            }
        }
    }

    /// Every device knows how far its user has read.
    pub(super) fn check_read(&self, wrong: &mut Vec<String>) {
        for client in self.clients.iter().filter(|c| c.is_online() && c.sdk.is_none()) {
            let user = UserId::new(name(client.user)).expect("a plain name");
            let read = self.data[self.vnode_of(client.user).index()].read_by(&user);
            if client.read < read {
                wrong.push(format!("{} knows {:?} as read, the store {read:?}", client.label, client.read));
            }
        }
    }
}
