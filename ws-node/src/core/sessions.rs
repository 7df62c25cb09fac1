//! Sessions come, are placed at their home, told to move, and go (rules 25–27).

use std::collections::BTreeSet;

use roost_backend::store::{NodeState, Opened, Row};
use roost_proto::codes::CloseCode;
use roost_proto::frames::{Moved, Read, Reset, ServerFrame, Welcome};
use roost_proto::history::Through;
use roost_proto::ids::{Cursor, Epoch, NodeId, Offset, SessionId, StreamId, VnodeId};
use roost_proto::limits::{PING_INTERVAL_MS, SIGNALS_BURST, SIGNALS_PER_S};
use roost_service::ratelimit::Bucket;

use super::credit::Credit;
use super::events::{Connecting, Lane, Maybe, Now, SessionKey};
use super::home::Work;
use super::homes::SWEEP_MS;
use super::reader::Reader;
use super::session::{Said, Session, Signals, State, Verdict};
use super::signals::Latest;
use super::{Action, NodeCore};

/// How long a `connect` waits for a home that is on its way (rule 27), in milliseconds.
const CONNECT_WAIT_MS: u64 = 5000;
/// A session that was told to move is closed this long after it should have gone, in milliseconds.
const MOVED_CLOSE_MS: u64 = 5000;
/// Pause before the log is asked again where it ends, in milliseconds: longer than its own time limit.
const LOG_AGAIN_MS: u64 = 3500;

impl NodeCore {
    pub(super) fn on_connect(&mut self, connect: Connecting, now: Now) {
        let Connecting { session: key, user, device, rights, epoch, cursor, rooms } = connect;
        let stream = StreamId::inbox(&user);
        let vnode = self.vnode_of(&stream);
        let Some(leaving) = self.make_room(vnode, &stream, device.as_ref()) else {
            self.counters.sessions_refused += 1;
            return self.close(key, CloseCode::TooManySessions, "the user has too many sessions");
        };
        let id = SessionId::new(format!("{:08x}-{:x}", self.cfg.random, key.0)).expect("hex and a dash");
        self.by_vnode.entry(vnode).or_default().entry(stream.clone()).or_default().push(key);
        let session = Session {
            user,
            stream,
            vnode,
            id,
            device,
            rights,
            cursor,
            epoch,
            state: State::Waiting { until: now.mono + CONNECT_WAIT_MS },
            welcomed: false,
            opening_since: now.mono,
            early: Default::default(),
            verdict: (Verdict::NotRecovered, Offset(0)),
            counted: false,
            shows: None,
            inbox: Reader::default(),
            read: None,
            said: Said::default(),
            credit: Credit::new(self.cfg.credit, self.cfg.credit_bytes),
            wants: Default::default(),
            signals: Signals {
                bucket: Bucket::new(SIGNALS_PER_S, SIGNALS_BURST),
                credit: Credit::new(self.cfg.signal_credit, self.cfg.signal_credit_bytes),
                waiting: Default::default(),
                waiting_bytes: 0,
            },
            rooms: Default::default(),
            watches: Default::default(),
            wanted: rooms,
            arrival: Default::default(),
            starved: Default::default(),
            unanswered: 0,
            blocked: Default::default(),
            bucket: Bucket::new(self.cfg.commands_per_s, self.cfg.commands_burst),
        };
        self.sessions.insert(key, session);
        // In the step in which the newcomer is taken: who is on the way in is not gone.
        for other in leaving {
            self.counters.sessions_replaced += 1;
            self.dismiss(
                other,
                CloseCode::TooManySessions,
                "a newer session of the user took the place",
                now,
            );
        }
        self.place(key, now);
    }

    /// Puts a session that has no home into the queue of its home, or tells it where that is.
    pub(super) fn place(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !matches!(session.state, State::Waiting { .. } | State::Adrift { .. }) {
            return;
        }
        let vnode = session.vnode;
        if self.homes.get(&vnode).is_some_and(|h| h.serving(now)) {
            // The rooms first: what is read of the inbox gets old while they are waited for.
            self.arrive(key, now);
            let full = self.cfg.queue_max;
            let room = |h: &&mut super::home::Home| h.queue.len() < full;
            let Some(home) = self.homes.get_mut(&vnode).filter(room) else { return };
            let Some(session) = self.sessions.get_mut(&key) else { return };
            if session.arrival.is_complete() {
                let (user, device) = (session.user.clone(), session.device.clone());
                session.state = State::Opening { until: now.mono + CONNECT_WAIT_MS };
                session.opening_since = now.mono;
                home.queue.push_back(Work::Open { session: key, user, device });
                self.dirty.insert(vnode);
            }
            return;
        }
        // A client that was sent here by newer knowledge waits until this node has it too.
        let stale = session.epoch.is_some_and(|e| e > self.epochs[vnode.index()]);
        let ready = |r: &&Row| r.ready && r.sid != self.sid && !self.view.ended(&r.sid) && !stale;
        let row = self.view.rows.get(&vnode).filter(ready);
        let there =
            row.and_then(|r| self.view.nodes.get(&r.node()).map(|n| (r.node(), n.url.clone(), r.epoch)));
        match there {
            Some((node, url, epoch)) if !self.homes.contains_key(&vnode) => {
                self.tell_moved(key, &node, &url, epoch, now);
            }
            _ => self.refresh(now),
        }
    }

    /// The table changed: sessions without a home may have one now.
    pub(super) fn place_sessions(&mut self, now: Now) {
        let keys: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, s)| matches!(s.state, State::Waiting { .. } | State::Adrift { .. }))
            .map(|(k, _)| *k)
            .collect();
        for key in keys {
            self.place(key, now);
        }
    }

    fn keys_of(&self, vnode: VnodeId) -> Vec<SessionKey> {
        self.by_vnode.get(&vnode).map(|s| s.values().flatten().copied().collect()).unwrap_or_default()
    }

    /// The vnode's home is not ready for now: its sessions wait.
    pub(super) fn hold_sessions(&mut self, vnode: VnodeId, now: Now) {
        for key in self.keys_of(vnode) {
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            session.counted = false;
            match session.state {
                State::Opening { .. } | State::Locating { .. } | State::Live if session.welcomed => {
                    session.state = State::Adrift { since: now.mono };
                }
                State::Opening { .. } | State::Locating { .. } | State::Live => {
                    session.state = State::Waiting { until: now.mono + CONNECT_WAIT_MS };
                }
                State::Waiting { .. } | State::Adrift { .. } | State::Moved { .. } => {}
            }
        }
    }

    /// The vnode is not here any more.
    pub(super) fn set_adrift(&mut self, vnode: VnodeId, now: Now) {
        self.hold_sessions(vnode, now);
        for key in self.keys_of(vnode) {
            self.place(key, now);
        }
    }

    /// The vnode is ready here: sessions that waited are opened, those that were live are opened again.
    pub(super) fn welcome_back(&mut self, vnode: VnodeId, now: Now) {
        for key in self.keys_of(vnode) {
            self.place(key, now);
        }
    }

    /// Cut off from the store and from the log for longer than the grace: another has the vnode by now, and this
    /// node will not hear of it. The sessions go and ask, spread.
    pub(super) fn give_up_sessions(&mut self, vnode: VnodeId, now: Now) {
        for key in self.keys_of(vnode) {
            let Some(session) = self.sessions.get(&key) else { continue };
            // As many as fit before the next sweep.
            let ahead = self.pace.behind(&self.cfg.node, now.mono);
            if ahead <= SWEEP_MS && !matches!(session.state, State::Moved { .. }) {
                self.pace.next(&self.cfg.node, self.cfg.accepts_per_s, now.mono);
                self.close(key, CloseCode::LeaseLost, "this node does not know where home is");
            }
        }
    }

    pub(super) fn send_moved(&mut self, vnode: VnodeId, node: &NodeId, url: &str, epoch: Epoch, now: Now) {
        if *node == self.cfg.node {
            return;
        }
        for key in self.keys_of(vnode) {
            let waits = |s: &Session| matches!(s.state, State::Waiting { .. } | State::Adrift { .. });
            if self.sessions.get(&key).is_some_and(waits) {
                self.tell_moved(key, node, url, epoch, now);
            }
        }
    }

    fn tell_moved(&mut self, key: SessionKey, node: &NodeId, url: &str, epoch: Epoch, now: Now) {
        let per_s = self.sends_per_s(node);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        // Live sessions go at the pace the target can take; a newcomer costs it nothing more than it did here.
        let after_ms = if session.welcomed { self.pace.next(node, per_s, now.mono) } else { 0 };
        session.state = State::Moved { close_at: now.mono + after_ms + MOVED_CLOSE_MS };
        self.counters.moved += 1;
        let moved = Moved { node: node.clone(), url: url.to_owned(), epoch, after_ms };
        self.frame(key, ServerFrame::Moved(moved));
    }

    /// Sessions a second that this node may send to another: its part of what the other takes, of all that hand over
    /// to it now.
    pub(super) fn sends_per_s(&self, node: &NodeId) -> u64 {
        let takes = self.view.nodes.get(node).map_or(0, |row| row.load.accepts_per_s);
        let takes = if takes == 0 { self.cfg.accepts_per_s } else { takes };
        let others = self.givers.get(node).map_or(0, BTreeSet::len) as u64;
        (takes / (others + 1)).max(1)
    }

    pub(super) fn frame(&mut self, session: SessionKey, frame: ServerFrame) {
        self.out.push(Action::Frame { session, frame: frame.to_json().into(), lane: Lane::Reply });
    }

    /// The session's place in its inbox was read, in order with everything else of the vnode.
    pub(super) fn opened(&mut self, vnode: VnodeId, key: SessionKey, opened: Opened, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let generation = home.generation;
        let Some(session) = self.sessions.get_mut(&key).filter(|s| s.is_opening()) else { return };
        let reachable = |offset: Offset| offset <= opened.tail && offset.0 + 1 >= opened.first.0;
        let verdict = if session.welcomed {
            match (session.inbox.generation == generation, reachable(session.inbox.sent)) {
                (true, true) => Verdict::Resume(session.inbox.sent),
                (true, false) => Verdict::TooSlow,
                (false, _) => Verdict::Reset,
            }
        } else {
            match session.cursor.or(opened.acked) {
                // What it acknowledged once is not known any more, and what came since may never have reached it.
                None if opened.forgotten => Verdict::NotRecovered,
                None => Verdict::Resume(opened.tail),
                Some(c) if c.generation == generation && reachable(c.offset) => Verdict::Resume(c.offset),
                Some(_) => Verdict::NotRecovered,
            }
        };
        session.verdict = (verdict, opened.tail);
        session.inbox.tail = Cursor::new(generation, opened.tail);
        let read = opened.read;
        // A shown cursor counts as an ack. One of an earlier generation is no place to go on from, but what was due by
        // then its user has.
        if let (Some(cursor), false) = (session.cursor, session.welcomed) {
            if verdict != Verdict::NotRecovered {
                session.said.acked = session.said.acked.max(Some(cursor));
                home.ack(session.who(false), cursor, now);
            } else if cursor.generation < generation {
                home.ack(session.who(false).on_no_device(), cursor, now);
            }
        }
        if !session.counted {
            session.counted = true;
            let user = session.user.clone();
            self.session_came(vnode, &user, opened.presence, now);
        }
        self.say_again(key, read, now);
        if let Some(cursor) = read {
            self.show_read(key, cursor);
        }
    }

    /// A home may have ended before it had written what it heard; of an earlier generation it means nothing any more.
    fn say_again(&mut self, key: SessionKey, kept: Option<Cursor>, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !session.welcomed || !matches!(session.verdict.0, Verdict::Resume(_)) {
            return;
        }
        // What others were told of and the store does not have.
        session.read = session.read.min(kept);
        let Said { acked, read } = session.said;
        if let Some(cursor) = acked {
            self.take_ack(key, cursor, false, now);
        }
        if let Some(cursor) = read {
            self.take_ack(key, cursor, true, now);
        }
    }

    /// Everything that was in the outbox when the place was read is in the log: the session may hear it.
    pub(super) fn located(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(&key).filter(|s| s.is_opening()) else { return };
        match session.verdict.0 {
            Verdict::Resume(_) => self.begin(key, None, now),
            Verdict::NotRecovered | Verdict::Reset => self.ask_log_end(key, now),
            Verdict::TooSlow => {
                self.close(key, CloseCode::TooSlow, "what was missed has left the hot window");
            }
        }
    }

    /// Asks where the log ends now. Asks are numbered: an answer to an earlier one is too low for what came since.
    fn ask_log_end(&mut self, key: SessionKey, now: Now) {
        let ask = self.next_call;
        self.next_call += 1;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.state = State::Locating { ask, again_at: now.mono + LOG_AGAIN_MS };
        let partition = self.cfg.partition(session.vnode);
        self.out.push(Action::LogEnd { session: Some(key), ask, partition });
    }

    pub(super) fn on_log_end(
        &mut self,
        session: Option<SessionKey>,
        ask: u64,
        partition: u32,
        answer: Maybe<u64>,
        now: Now,
    ) {
        let Some(key) = session else { return self.on_room_log_end(ask, partition, answer, now) };
        let asked = |s: &&Session| matches!(s.state, State::Locating { ask: a, .. } if a == ask);
        let Some(session) = self.sessions.get(&key).filter(asked) else { return };
        match answer {
            Some(offset) => self.begin(key, Some(Through { partition, offset }.to_string()), now),
            // Without it nothing could be said about completeness (rule 26). A live session keeps its socket and
            // asks again in a while.
            None if session.welcomed => {}
            None => self.close(key, CloseCode::Overload, "the log does not answer"),
        }
    }

    /// Says welcome (or reset), then feeds the session.
    fn begin(&mut self, key: SessionKey, through: Option<String>, now: Now) {
        let node = self.cfg.node.clone();
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !session.welcomed && !session.arrival.is_complete() {
            // A room that was joined began a new generation in the meantime.
            session.state = State::Waiting { until: now.mono + CONNECT_WAIT_MS };
            return;
        }
        let rooms = self.take_arrival(key);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let (verdict, tail) = session.verdict;
        session.inbox.generation = session.inbox.tail.generation;
        let cursor = Cursor::new(session.inbox.generation, tail);
        session.state = State::Live;
        session.inbox.sent = match verdict {
            Verdict::Resume(from) => from,
            Verdict::NotRecovered | Verdict::Reset | Verdict::TooSlow => tail,
        };
        if session.welcomed {
            if verdict == Verdict::Reset {
                let reset = Reset { stream: session.stream.clone(), cursor, through };
                self.frame(key, ServerFrame::Reset(reset));
            }
        } else {
            session.welcomed = true;
            self.accepting.welcomed(now.mono - session.opening_since);
            let replayed = tail.0 - session.inbox.sent.0;
            self.counters.replayed += replayed;
            let welcome = Welcome {
                session: session.id.clone(),
                user: session.user.clone(),
                node,
                vnode: session.vnode,
                epoch: self.epochs[session.vnode.index()],
                ping_interval_ms: PING_INTERVAL_MS,
                cursor,
                recovered: verdict != Verdict::NotRecovered,
                replayed,
                read: session.read,
                through,
                rooms,
            };
            self.frame(key, ServerFrame::Welcome(welcome));
            self.do_early(key, now);
        }
        self.feed(key, now);
        self.feed_rooms(key);
    }

    pub(super) fn on_ack(&mut self, key: SessionKey, cursor: Cursor, read: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if cursor > Cursor::new(session.inbox.generation, session.inbox.sent) {
            return;
        }
        let said = Said { acked: Some(cursor), read: read.then_some(cursor) };
        session.said.add(said);
        if session.counted {
            return self.take_ack(key, cursor, read, now);
        }
        // It may leave before there is a home.
        let vnode = session.vnode;
        let quiet = self.shows(key) == Some(false);
        let who = self.sessions.get(&key).map(|session| session.who(quiet));
        self.keep_said(vnode, who.map(|who| (who, said)));
    }

    /// Its home hears it; without one it is said again when there is one.
    fn take_ack(&mut self, key: SessionKey, cursor: Cursor, read: bool, now: Now) {
        let Some(session) = self.sessions.get(&key) else { return };
        let Some(home) = self.homes.get_mut(&session.vnode) else { return };
        home.ack(session.who(false), cursor, now);
        if read && session.read < Some(cursor) {
            home.read(session.who(false), cursor, now);
            self.tell_read(key, cursor);
        }
    }

    /// The user's other sessions learn what this one said.
    fn tell_read(&mut self, key: SessionKey, cursor: Cursor) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.read = Some(cursor);
        let (vnode, stream) = (session.vnode, session.stream.clone());
        self.show_read_to(vnode, &stream, cursor);
    }

    /// All sessions of a user.
    pub(super) fn show_read_to(&mut self, vnode: VnodeId, stream: &StreamId, cursor: Cursor) {
        for key in self.by_vnode.get(&vnode).and_then(|s| s.get(stream)).cloned().unwrap_or_default() {
            self.show_read(key, cursor);
        }
    }

    /// Tells a session how far its user has read, unless it knows; `welcome` tells who is not welcomed yet.
    fn show_read(&mut self, key: SessionKey, cursor: Cursor) {
        let news = |s: &&mut Session| s.read < Some(cursor);
        let Some(session) = self.sessions.get_mut(&key).filter(news) else { return };
        session.read = Some(cursor);
        if session.welcomed {
            let frame = ServerFrame::Read(Read { cursor }).to_json().into();
            self.hand_latest(key, &Latest::Read, &frame);
        }
    }

    pub(super) fn on_closed(&mut self, key: SessionKey, now: Now) {
        let Some(mut session) = self.sessions.remove(&key) else { return };
        self.budget.forget(key, &session.user, &mut session.credit);
        self.budget.forget(key, &session.user, &mut session.signals.credit);
        self.leave_all(key, &session, now);
        self.unwatch_all(key, &session, now);
        if let Some(streams) = self.by_vnode.get_mut(&session.vnode) {
            if let Some(keys) = streams.get_mut(&session.stream) {
                keys.retain(|k| *k != key);
                if keys.is_empty() {
                    streams.remove(&session.stream);
                }
            }
            if streams.is_empty() {
                self.by_vnode.remove(&session.vnode);
            }
        }
        if session.counted {
            self.session_went(session.vnode, &session.user, now);
        }
        self.wake(Some(&session.user), now);
    }

    pub(super) fn tick_sessions(&mut self, now: Now) {
        let grace = self.cfg.grace_ms;
        let mut waiting = Vec::new();
        let (mut closing, mut locating) = (Vec::new(), Vec::new());
        for (key, session) in &self.sessions {
            match session.state {
                State::Waiting { until } if now.mono >= until => {
                    closing.push((*key, CloseCode::Overload, "the user's home is not ready"));
                }
                State::Moved { close_at } if now.mono >= close_at => {
                    closing.push((*key, CloseCode::Moved, "the user's home is elsewhere"));
                }
                State::Adrift { since } if now.mono >= since + grace && self.state == NodeState::Draining => {
                    closing.push((*key, CloseCode::Draining, "this node gives everything away"));
                }
                State::Adrift { since } if now.mono >= since + grace => {
                    closing.push((*key, CloseCode::LeaseLost, "this node does not know where home is"));
                }
                State::Opening { until } if now.mono >= until && !session.welcomed => {
                    closing.push((*key, CloseCode::Overload, "the user's home does not answer"));
                }
                State::Locating { again_at, .. } if now.mono >= again_at => locating.push(*key),
                State::Waiting { .. } | State::Adrift { .. } => waiting.push(*key),
                State::Live if session.inbox.look => waiting.push(*key),
                State::Opening { .. } | State::Locating { .. } | State::Live | State::Moved { .. } => {}
            }
        }
        for (key, code, reason) in closing {
            self.close(key, code, reason);
        }
        for key in locating {
            self.ask_log_end(key, now);
        }
        for key in waiting {
            self.place(key, now);
            self.feed(key, now);
        }
        self.wake(None, now);
    }
}
