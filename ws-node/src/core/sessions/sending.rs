//! Sends of this node's sessions, and the channels they go through (rules 1–7).

use roost_backend::store::EventOp;
use roost_proto::codes::CloseCode;
use roost_proto::frames;
use roost_proto::frames::Send;
use roost_proto::ids::{MessageId, StreamId, UserId, VnodeId};
use roost_proto::records::{Append, Event, ItemBody};
use serde_json::value::RawValue;

use crate::core::channels::channel::{Attached, By, Pending};
use crate::core::config::Rule;
use crate::core::keys::{Now, SessionKey};
use crate::core::message::{ItemKey, MESSAGE, RETRY_AFTER_MS, key_of};
use crate::core::node::NodeCore;
use crate::core::sessions::blocked::Cause;
use crate::core::sessions::early::TOO_MUCH_EARLY;

/// And those that one client may send while its home is on its way.
const TICKETS_ELSEWHERE_MAX: usize = 16;

impl NodeCore {
    pub(super) fn on_send(&mut self, key: SessionKey, send: Send, now: Now) {
        if let Err(error) = send.to.check_reserved() {
            self.count_waiters(key);
            return self.reply_error(key, send.id.as_str(), error);
        }
        self.send_to(key, StreamId::inbox(&send.to), send.id, send.data, send.receipt, now);
    }

    /// A message of a session for any stream.
    pub(in crate::core) fn send_to(
        &mut self,
        key: SessionKey,
        stream: StreamId,
        id: MessageId,
        data: Box<RawValue>,
        receipt: bool,
        now: Now,
    ) {
        let Some(session) = self.sessions.map.get(&key) else { return };
        let (from, kind) = (session.user.to_string(), MESSAGE.into());
        let append = Append { stream, from, id, kind, data, receipt, answers: None };
        self.queue_item(key, key_of(&append), &ItemBody::Append(append), now);
    }

    /// What a session has for the home of a stream.
    fn queue_item(&mut self, key: SessionKey, item: ItemKey, body: &ItemBody, now: Now) {
        let Some(session) = self.sessions.map.get(&key) else { return };
        let named = item.clone();
        self.fx.count().sends += 1;
        if session.blocked.is_too_long() {
            return self.close(
                key,
                CloseCode::Overload,
                "too many streams wait for the repeat of a refused message",
            );
        }
        // A repeat has the place that it had.
        let first = session.blocked.arrival_of(&named);
        let mut waiter = self.waiter(key, now);
        waiter.arrival = first.unwrap_or(waiter.arrival);
        let arrival = waiter.arrival;
        if self.sessions.map.get(&key).is_some_and(|session| session.refuses) {
            // It is not what was said any more: it must not be taken for a repeat with another body.
            self.block_until_repeated(key, &named, arrival, Cause::Full);
            return self.refuse(key, named.2.as_str(), TOO_MUCH_EARLY, RETRY_AFTER_MS);
        }
        let vnode = self.vnode_of(&named.0);
        let item = Pending::new(self.by(key), item, body, waiter);
        // A repeat of what is queued comes before any refusal (rule 6).
        match self.attach(vnode, &item) {
            Attached::Yes { again } => {
                self.unblock(key, &named);
                if !again {
                    self.count_waiters(key);
                }
                return;
            }
            Attached::Conflict => {
                self.count_waiters(key);
                return self.reply_conflict(key, named.2.as_str());
            }
            Attached::No => {}
        }
        if let Err((cause, why, wait)) = self.admit(key, &item, vnode, now) {
            self.block_until_repeated(key, &named, arrival, cause);
            return self.refuse(key, named.2.as_str(), why, wait);
        }
        self.unblock(key, &named);
        self.count_waiters(key);
        self.push(vnode, item, now);
    }

    /// Whose places the items of a session take.
    pub(in crate::core) fn by(&self, key: SessionKey) -> By {
        let session = self.sessions.map.get(&key).filter(|session| !session.rights.service);
        session.map_or(By::Services, |session| By::User(session.user.clone()))
    }

    /// Whether a new item may be queued; otherwise why not, and when to try again. All that refuses is here, before
    /// the item gets a number.
    fn admit(
        &mut self,
        key: SessionKey,
        item: &Pending,
        vnode: VnodeId,
        now: Now,
    ) -> Result<(), (Cause, &'static str, u64)> {
        let full = |why| Err((Cause::Full, why, RETRY_AFTER_MS));
        let session = self.sessions.map.get(&key).expect("the caller looked it up");
        if self.cfg.on(Rule::RefusalBlocks) && session.blocked.waits(item.key()) {
            return full("an earlier message to this stream was refused: repeat that one first");
        }
        if session.unanswered >= self.cfg.unanswered_max {
            return full("too many commands without an answer");
        }
        if !self.has_place(vnode, item.by(), item.load().bytes) {
            return full("too much is queued for this receiver's home");
        }
        if let By::User(user) = item.by() {
            if !self.channels.shares().has_room(user, item.load().bytes) {
                return full("too many bytes without an answer");
            }
            if item.load().events > 0 && !self.events_have_room(vnode, user) {
                return full("too many events wait for a result");
            }
        }
        let session = self.sessions.map.get_mut(&key).expect("looked up above");
        session.bucket.take(now.mono).map_err(|wait| (Cause::Full, "too many commands", wait))?;
        let By::User(user) = item.by() else { return Ok(()) };
        let bytes = item.load().bytes;
        self.channels
            .shares_mut()
            .take(user, &item.key().0, bytes, now.mono)
            .map_err(|(why, wait)| (Cause::Quota, why, wait))
    }

    fn block_until_repeated(&mut self, key: SessionKey, item: &ItemKey, arrival: u64, cause: Cause) {
        if let Some(session) = self.sessions.map.get_mut(&key) {
            session.blocked.insert(item, arrival, cause);
        }
    }

    fn unblock(&mut self, key: SessionKey, item: &ItemKey) {
        if let Some(session) = self.sessions.map.get_mut(&key) {
            session.blocked.remove(item);
        }
    }

    pub(super) fn on_client_event(&mut self, key: SessionKey, event: frames::AppEvent, now: Now) {
        let Some(session) = self.sessions.map.get(&key) else { return };
        let client = session.user.clone();
        let item = (StreamId::inbox(&client), EventOp::BY.to_owned(), event.id.clone());
        let body = ItemBody::Event(Event { client, id: event.id, data: event.data });
        self.queue_item(key, item, &body, now);
    }

    /// Whether one more event of this client may wait for a result: those on their way to its home count.
    fn events_have_room(&self, vnode: VnodeId, client: &UserId) -> bool {
        let coming = self.channels.shares().load(client).events;
        match self.homes.get(&vnode) {
            Some(home) => home.has_room_for_event(client, coming),
            // How many wait there is not known.
            None => coming < TICKETS_ELSEWHERE_MAX,
        }
    }
}
