//! Sends of this node's sessions, and the channels they go through (rules 1–7).

use roost_backend::store::Row;
use roost_proto::codes::CloseCode;
use roost_proto::frames::Send;
use roost_proto::ids::{MessageId, StreamId, VnodeId};
use roost_proto::limits::UNKNOWN_AFTER_MS;
use roost_proto::records::{Append, Confirm, ItemBody, Record};

use serde_json::value::RawValue;

use super::answering::Outcome;
use super::asker::Asker;
use super::blocked::Cause;
use super::channel::{Attached, By, Channel, Dropped, Pending, Waiter};
use super::config::Rule;
use super::events::{Now, SessionKey};
use super::message::{ItemKey, MESSAGE, RETRY_AFTER_MS, key_of};
use super::{NodeCore, Token};

impl NodeCore {
    pub(super) fn on_send(&mut self, key: SessionKey, send: Send, now: Now) {
        if let Err(error) = send.to.check_reserved() {
            self.count_waiters(key);
            return self.reply_error(key, send.id.as_str(), error);
        }
        self.send_to(key, StreamId::inbox(&send.to), send.id, send.data, send.receipt, now);
    }

    /// A message of a session for any stream.
    pub(super) fn send_to(
        &mut self,
        key: SessionKey,
        stream: StreamId,
        id: MessageId,
        data: Box<RawValue>,
        receipt: bool,
        now: Now,
    ) {
        let Some(session) = self.sessions.get(&key) else { return };
        let (from, kind) = (session.user.to_string(), MESSAGE.into());
        let append = Append { stream, from, id, kind, data, receipt, answers: None };
        self.queue_item(key, key_of(&append), &ItemBody::Append(append), now);
    }

    /// What a session has for the home of a stream.
    pub(super) fn queue_item(&mut self, key: SessionKey, item: ItemKey, body: &ItemBody, now: Now) {
        let Some(session) = self.sessions.get(&key) else { return };
        let named = item.clone();
        self.counters.sends += 1;
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
            let session = self.sessions.get_mut(&key).expect("looked up above");
            session.blocked.insert(&named, arrival, cause);
            return self.refuse(key, named.2.as_str(), why, wait);
        }
        self.unblock(key, &named);
        self.count_waiters(key);
        self.push(vnode, item, now);
    }

    /// Whose places the items of a session take.
    fn by(&self, key: SessionKey) -> By {
        let session = self.sessions.get(&key).filter(|session| !session.rights.service);
        session.map_or(By::Services, |session| By::User(session.user.clone()))
    }

    /// What waits for an item from now on.
    fn waiter(&mut self, asker: impl Into<Asker>, now: Now) -> Waiter {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        Waiter { asker: asker.into(), arrival, since: now.mono, since_us: now.us }
    }

    /// An item for whatever asks.
    pub(super) fn item(
        &mut self,
        by: By,
        key: ItemKey,
        body: &ItemBody,
        asker: impl Into<Asker>,
        now: Now,
    ) -> Pending {
        let waiter = self.waiter(asker, now);
        Pending::new(by, key, body, waiter)
    }

    /// Queues it, unless it is queued already.
    pub(super) fn queue(&mut self, item: Pending, now: Now) -> Attached {
        let vnode = self.vnode_of(&item.key.0);
        let attached = self.attach(vnode, &item);
        if attached == Attached::No {
            self.push(vnode, item, now);
        }
        attached
    }

    pub(super) fn attach(&mut self, vnode: VnodeId, item: &Pending) -> Attached {
        self.channels.get_mut(&vnode).map_or(Attached::No, |channel| channel.attach(item))
    }

    /// Puts an item into its channel.
    pub(super) fn push(&mut self, vnode: VnodeId, item: Pending, now: Now) {
        self.shares.begin(&item.by, item.load);
        self.channel(vnode, now).push(item, now.mono);
        self.pump(vnode, now);
    }

    /// Whether a channel has a place for one more of somebody's.
    pub(super) fn has_place(&self, vnode: VnodeId, by: &By, bytes: usize) -> bool {
        let (items_max, bytes_max) = (self.cfg.channel_items_max, self.cfg.channel_bytes_max);
        self.channels.get(&vnode).is_none_or(|c| c.has_place(by, bytes, items_max, bytes_max))
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
        let session = self.sessions.get(&key).expect("the caller looked it up");
        if self.cfg.on(Rule::RefusalBlocks) && session.blocked.waits(&item.key) {
            return full("an earlier message to this stream was refused: repeat that one first");
        }
        if session.unanswered >= self.cfg.unanswered_max {
            return full("too many commands without an answer");
        }
        if !self.has_place(vnode, &item.by, item.load.bytes) {
            return full("too much is queued for this receiver's home");
        }
        if let By::User(user) = &item.by {
            if !self.shares.has_room(user, item.load.bytes) {
                return full("too many bytes without an answer");
            }
            if item.load.events > 0 && !self.events_have_room(vnode, user) {
                return full("too many events wait for a result");
            }
        }
        let session = self.sessions.get_mut(&key).expect("looked up above");
        session.bucket.take(now.mono).map_err(|wait| (Cause::Full, "too many commands", wait))?;
        let By::User(user) = &item.by else { return Ok(()) };
        let bytes = item.load.bytes;
        self.shares.take(user, &item.key.0, bytes, now.mono).map_err(|(why, wait)| (Cause::Quota, why, wait))
    }

    fn unblock(&mut self, key: SessionKey, item: &ItemKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.blocked.remove(item);
        }
    }

    /// Items left their queue without a result: what their sessions send to the same streams must wait until the
    /// first of them is repeated (rule 1).
    pub(super) fn drop_items(
        &mut self,
        items: impl IntoIterator<Item = Dropped>,
        outcome: Outcome<'static>,
        now: Now,
    ) {
        for item in items {
            self.shares.end(&item.by, item.load);
            if let Some(session) = item.asker.session().and_then(|key| self.sessions.get_mut(&key)) {
                session.blocked.insert(&item.key, item.arrival, Cause::Full);
            }
            for waiter in &item.waiters {
                self.answer(waiter, &item.key, outcome, now);
            }
        }
    }

    pub(super) fn count_waiters(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.unanswered += 1;
        }
    }

    /// Counts a command that is to be answered; false if there are too many, which it was told.
    pub(super) fn take_command(&mut self, key: SessionKey, id: &MessageId, now: Now) -> bool {
        let unanswered_max = self.cfg.unanswered_max;
        let Some(session) = self.sessions.get_mut(&key) else { return false };
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

    pub(super) fn channel(&mut self, vnode: VnodeId, now: Now) -> &mut Channel {
        if !self.channels.contains_key(&vnode) {
            self.channels.insert(vnode, Channel::new(vnode, self.sid.clone(), now.mono));
            self.follow_row(vnode, now);
        }
        self.channels.get_mut(&vnode).expect("just put there")
    }

    /// The channel goes where the row says, if that changed (rule 2). Rows that are not ready yet may be used:
    /// the home asks for what it could not take.
    pub(super) fn follow_row(&mut self, vnode: VnodeId, now: Now) {
        let Some(Row { epoch, sid, .. }) = self.view.rows.get(&vnode) else { return };
        let Some(channel) = self.channels.get_mut(&vnode).filter(|c| c.epoch() != *epoch) else { return };
        channel.move_to(*epoch, sid.node(), self.next_chan, now.mono);
        self.next_chan += 1;
        self.pump(vnode, now);
        self.tell_anew(vnode, now);
    }

    /// Hands everything not yet handed out to the transport.
    pub(super) fn pump(&mut self, vnode: VnodeId, now: Now) {
        while let Some(channel) = self.channels.get_mut(&vnode)
            && let Some(item) = channel.next_item(now.mono)
        {
            let home = channel.home().cloned().expect("there is no next item without a home");
            let token = Token::Item { vnode, chan: item.channel.chan, round: item.channel.round, n: item.n };
            self.transport(&home, vnode, Record::Item(item), token);
        }
    }

    pub(super) fn item_reported(
        &mut self,
        vnode: VnodeId,
        chan: u64,
        round: u32,
        n: u64,
        ok: bool,
        now: Now,
    ) {
        let Some(channel) = self.channels.get_mut(&vnode) else { return };
        if !ok {
            channel.failed(chan, round, now.mono);
        } else if !self.cfg.on(Rule::KeepUntilConfirmed) && channel.is(chan) {
            channel.forget_through(n);
        }
    }

    pub(super) fn on_confirm(&mut self, confirm: Confirm, now: Now) {
        let vnode = confirm.channel.vnode;
        let Some(channel) = self.channels.get_mut(&vnode) else { return };
        if self.cfg.on(Rule::ConfirmIdentity) && !channel.owns(&confirm) {
            return;
        }
        if confirm.unreadable {
            let gone = channel.unreadable(confirm.from, self.next_chan, now.mono);
            self.next_chan += 1;
            self.drop_items(gone, Outcome::Dropped, now);
            return self.pump(vnode, now);
        }
        if channel.is_forgotten(&confirm) {
            channel.begin_again(self.next_chan, now.mono);
            self.next_chan += 1;
            return self.pump(vnode, now);
        }
        for (item, result) in channel.confirm(&confirm, now.mono) {
            self.shares.end(&item.by, item.load);
            for waiter in &item.waiters {
                self.answer(waiter, &item.key, Outcome::Result(&result), now);
            }
        }
        self.pump(vnode, now);
    }

    pub(super) fn tick_channels(&mut self, now: Now) {
        for vnode in self.channels.keys().copied().collect::<Vec<_>>() {
            let Some(channel) = self.channels.get_mut(&vnode) else { continue };
            if self.cfg.on(Rule::VoidAge) {
                for (by, load) in channel.void_aged(now.mono) {
                    self.shares.end(&by, load);
                }
            }
            let overdue = channel.overdue(now.mono, UNKNOWN_AFTER_MS);
            let probe = channel.probe(now.mono).filter(|_| self.cfg.on(Rule::Probe));
            let home = channel.home().cloned();
            for (key, waiter) in overdue {
                self.answer(&waiter, &key, Outcome::Unknown, now);
            }
            if let (Some(probe), Some(home)) = (probe, home) {
                self.counters.probes += 1;
                self.transport(&home, vnode, Record::Probe(probe), Token::Other);
            }
            self.pump(vnode, now);
        }
    }
}
