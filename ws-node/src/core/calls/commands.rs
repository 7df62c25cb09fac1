//! Commands of the server API are done, through the same channels as what sessions send, with the same answers.

use bytes::Bytes;
use roost_backend::log::{Durability, Outgoing};
use roost_proto::codes::{CloseCode, ErrorBody, ErrorCode};
use roost_proto::frames::Empty;
use roost_proto::ids::{NodeId, StreamId, UserId, VnodeId};
use roost_proto::limits::UNKNOWN_AFTER_MS;
use roost_proto::records::{Append, Disconnect, ItemBody, Record};
use roost_proto::results::CLIENT_RESULTS;

use crate::core::actions::Action;
use crate::core::calls::{ApiCommand, Telling};
use crate::core::channels::channel::{Attached, By};
use crate::core::effects::Token;
use crate::core::keys::{CallKey, Now};
use crate::core::message::{MESSAGE, RETRY_AFTER_MS, key_of};
use crate::core::node::NodeCore;

impl NodeCore {
    /// Takes commands in order. What was refused must be repeated before anything later to the same stream is
    /// taken (rule 1): in one batch that is so because a channel only fills while the batch is taken; over several
    /// whoever sends them sees to it.
    pub(in crate::core) fn on_calls(&mut self, calls: Vec<(CallKey, ApiCommand)>, now: Now) {
        for (key, call) in calls {
            match call {
                ApiCommand::Append { stream, from, id, data, receipt } => {
                    let (from, kind) = (from.to_string(), MESSAGE.to_owned());
                    let append = Append { stream, from, id, kind, data, receipt, answers: None };
                    self.call_append(key, append, now);
                }
                ApiCommand::Result { client, record } => self.call_result(key, &client, record, now),
                ApiCommand::Disconnect { user, reason } => self.call_disconnect(key, user, reason, now),
            }
        }
    }

    fn call_append(&mut self, key: CallKey, append: Append, now: Now) {
        self.fx.count().sends += 1;
        let vnode = self.vnode_of(&append.stream);
        let (named, bytes) = (append.id.clone(), append.data.get().len());
        let item = self.item(By::Services, key_of(&append), &ItemBody::Append(append), key, now);
        match self.attach(vnode, &item) {
            Attached::Yes { .. } => {}
            Attached::Conflict => self.reply_conflict(key, named.as_str()),
            Attached::No if self.has_place(vnode, &By::Services, bytes) => self.push(vnode, item, now),
            Attached::No => {
                let why = "too much is queued for this receiver's home";
                self.refuse(key, named.as_str(), why, RETRY_AFTER_MS);
            }
        }
    }

    /// Puts a result into the topic, from where it takes the way of all results.
    fn call_result(&mut self, key: CallKey, client: &UserId, payload: Bytes, now: Now) {
        let partition = self.cfg.partition(self.vnode_of(&StreamId::inbox(client)));
        let until = now.mono + UNKNOWN_AFTER_MS;
        self.calls.telling.insert(key, Telling { left: 1, failed: false, until });
        let token = self.fx.token(Token::Told { call: key });
        let (topic, key) = (CLIENT_RESULTS.into(), client.to_string().into());
        let record = Outgoing { topic, partition, key, payload, token };
        self.fx.push(Action::Produce { durability: Durability::Outbox, record });
    }

    /// Tells every living node: who is on the way from one home to the next has sessions at both.
    fn call_disconnect(&mut self, key: CallKey, user: UserId, reason: String, now: Now) {
        if self.membership.view_age_ms(now) > self.cfg.lease_ttl_ms {
            let why = "the table of nodes cannot be read: not all would be told";
            let error = ErrorBody::new(ErrorCode::Unavailable, why).retry_after(RETRY_AFTER_MS);
            return self.reply_error(key, "", error);
        }
        let vnode = self.vnode_of(&StreamId::inbox(&user));
        let record = Disconnect { user, reason };
        let others = self.membership.view().nodes.iter().filter(|(node, row)| {
            **node != self.cfg.node && row.state != roost_backend::store::NodeState::Revoked
        });
        let others: Vec<NodeId> = others.map(|(node, _)| node.clone()).collect();
        self.fx.deliver_here(Record::Disconnect(record.clone()));
        let until = now.mono + UNKNOWN_AFTER_MS;
        self.calls.telling.insert(key, Telling { left: others.len(), failed: false, until });
        for node in others {
            self.transport(&node, vnode, Record::Disconnect(record.clone()), Token::Told { call: key }, now);
        }
        self.answer_if_told(key);
    }

    /// The log took, or did not take, what one node is to be told.
    pub(in crate::core) fn told(&mut self, call: CallKey, ok: bool) {
        if let Some(telling) = self.calls.telling.get_mut(&call) {
            telling.left -= 1;
            telling.failed |= !ok;
        }
        self.answer_if_told(call);
    }

    fn answer_if_told(&mut self, call: CallKey) {
        let Some(telling) = self.calls.telling.get(&call).filter(|t| t.left == 0) else { return };
        let failed = telling.failed;
        self.calls.telling.remove(&call);
        if failed { self.reply_unavailable(call, "") } else { self.reply_ok(call, "", &Empty {}) }
    }

    pub(in crate::core) fn tick_telling(&mut self, now: Now) {
        let late = self.calls.telling.iter().filter(|(_, t)| now.mono >= t.until).map(|(call, _)| *call);
        for call in late.collect::<Vec<_>>() {
            self.calls.telling.remove(&call);
            let why = "no answer in time: not every node may have been told";
            self.reply_error(call, "", ErrorBody::new(ErrorCode::Unknown, why));
        }
    }

    pub(in crate::core) fn on_disconnect(&mut self, disconnect: &Disconnect, now: Now) {
        let stream = StreamId::inbox(&disconnect.user);
        let vnode = self.vnode_of(&stream);
        let keys = self.sessions.of(vnode, &stream).to_vec();
        for key in keys {
            self.fx.count().sessions_disconnected += 1;
            self.dismiss(key, CloseCode::Disconnected, disconnect.reason.clone(), now);
        }
    }

    /// Which vnodes have a ready home.
    pub fn ready_vnodes(&self) -> Vec<bool> {
        let ready = |vnode| self.membership.has_ready_home(VnodeId(vnode));
        (0..self.cfg.vnodes).map(|vnode| u16::try_from(vnode).is_ok_and(ready)).collect()
    }
}
