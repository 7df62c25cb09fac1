//! A session's place in its inbox is read, the log awaited, and welcome said (rules 25, 26).

use roost_backend::store::Opened;
use roost_proto::codes::CloseCode;
use roost_proto::frames::{Reset, ServerFrame, Welcome};
use roost_proto::history::Through;
use roost_proto::ids::{Cursor, Offset, VnodeId};
use roost_proto::limits::PING_INTERVAL_MS;

use crate::core::actions::Action;
use crate::core::input::Maybe;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::said::SaidUpTo;
use crate::core::sessions::moving::CONNECT_WAIT_MS;
use crate::core::sessions::session::{Session, State, Verdict};

/// Pause before the log is asked again where it ends, in milliseconds: longer than its own time limit.
const LOG_AGAIN_MS: u64 = 3500;

impl NodeCore {
    /// The session's place in its inbox was read, in order with everything else of the vnode.
    pub(in crate::core) fn opened(&mut self, vnode: VnodeId, key: SessionKey, opened: Opened, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let generation = home.generation();
        let Some(session) = self.sessions.map.get_mut(&key).filter(|s| s.is_opening()) else { return };
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
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        if !session.welcomed || !matches!(session.verdict.0, Verdict::Resume(_)) {
            return;
        }
        // What others were told of and the store does not have.
        session.read = session.read.min(kept);
        let SaidUpTo { acked, read } = session.said;
        if let Some(cursor) = acked {
            self.take_ack(key, cursor, false, now);
        }
        if let Some(cursor) = read {
            self.take_ack(key, cursor, true, now);
        }
    }

    /// Everything that was in the outbox when the place was read is in the log: the session may hear it.
    pub(in crate::core) fn located(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.map.get_mut(&key).filter(|s| s.is_opening()) else { return };
        match session.verdict.0 {
            Verdict::Resume(_) => self.begin(key, None, now),
            Verdict::NotRecovered | Verdict::Reset => self.ask_log_end(key, now),
            Verdict::TooSlow => {
                self.close(key, CloseCode::TooSlow, "what was missed has left the hot window");
            }
        }
    }

    /// Asks where the log ends now. Asks are numbered: an answer to an earlier one is too low for what came since.
    pub(super) fn ask_log_end(&mut self, key: SessionKey, now: Now) {
        let ask = self.fx.next_call();
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        session.state = State::Locating { ask, again_at: now.mono + LOG_AGAIN_MS };
        let partition = self.cfg.partition(session.vnode);
        self.fx.push(Action::LogEnd { session: Some(key), ask, partition });
    }

    pub(in crate::core) fn on_log_end(
        &mut self,
        session: Option<SessionKey>,
        ask: u64,
        partition: u32,
        answer: Maybe<u64>,
        now: Now,
    ) {
        let Some(key) = session else { return self.on_room_log_end(ask, partition, answer, now) };
        let asked = |s: &&Session| matches!(s.state, State::Locating { ask: a, .. } if a == ask);
        let Some(session) = self.sessions.map.get(&key).filter(asked) else { return };
        match answer {
            Some(offset) => self.begin(key, Some(Through { partition, offset }.to_string()), now),
            // Without it nothing could be said about completeness (rule 26). A live session keeps its socket and
            // asks again in a while.
            None if session.welcomed => {}
            None => self.close(key, CloseCode::Overload, "the log does not answer"),
        }
    }

    /// Says welcome (or reset), then feeds the session.
    pub(in crate::core) fn begin(&mut self, key: SessionKey, through: Option<String>, now: Now) {
        let node = self.cfg.node.clone();
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        if !session.welcomed && !session.seats.is_complete() {
            // A room that was joined began a new generation in the meantime.
            session.state = State::Waiting { until: now.mono + CONNECT_WAIT_MS };
            return;
        }
        let rooms = self.take_arrival(key);
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
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
            self.sessions.accepting.welcomed(now.mono - session.opening_since);
            let replayed = tail.0 - session.inbox.sent.0;
            self.fx.count().replayed += replayed;
            let welcome = Welcome {
                session: session.id.clone(),
                user: session.user.clone(),
                node,
                vnode: session.vnode,
                epoch: self.membership.epoch_of(session.vnode),
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
}
