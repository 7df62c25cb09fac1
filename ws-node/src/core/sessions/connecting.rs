//! Sessions come and go, within what their user may have.

use roost_proto::codes::CloseCode;
use roost_proto::ids::{DeviceId, Offset, SessionId, StreamId, VnodeId};
use roost_proto::limits::{SIGNALS_BURST, SIGNALS_PER_S};
use roost_service::ratelimit::Bucket;

use crate::core::input::Connecting;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::rooms::Seats;
use crate::core::said::SaidUpTo;
use crate::core::sessions::credit::Credit;
use crate::core::sessions::limit::leaving;
use crate::core::sessions::moving::CONNECT_WAIT_MS;
use crate::core::sessions::reader::Reader;
use crate::core::sessions::session::{Session, State, Verdict};
use crate::core::sessions::signals::Signals;

impl NodeCore {
    pub(in crate::core) fn on_connect(&mut self, connect: Connecting, now: Now) {
        let Connecting { session: key, user, device, rights, epoch, cursor, rooms } = connect;
        let stream = StreamId::inbox(&user);
        let vnode = self.vnode_of(&stream);
        let Some(leaving) = self.make_room(vnode, &stream, device.as_ref()) else {
            self.fx.count().sessions_refused += 1;
            return self.close(key, CloseCode::TooManySessions, "the user has too many sessions");
        };
        let id = SessionId::new(format!("{:08x}-{:x}", self.cfg.random, key.0)).expect("hex and a dash");
        self.sessions.by_vnode.entry(vnode).or_default().entry(stream.clone()).or_default().push(key);
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
            refuses: false,
            verdict: (Verdict::NotRecovered, Offset(0)),
            counted: false,
            inbox: Reader::default(),
            read: None,
            said: SaidUpTo::default(),
            credit: Credit::new(self.cfg.credit, self.cfg.credit_bytes),
            wants: Default::default(),
            signals: Signals {
                bucket: Bucket::new(SIGNALS_PER_S, SIGNALS_BURST),
                credit: Credit::new(self.cfg.signal_credit, self.cfg.signal_credit_bytes),
                waiting: Default::default(),
                waiting_bytes: 0,
            },
            seats: Seats::of(rooms),
            watches: Default::default(),
            starved: Default::default(),
            unanswered: 0,
            blocked: Default::default(),
            bucket: Bucket::new(self.cfg.commands_per_s, self.cfg.commands_burst),
        };
        self.sessions.map.insert(key, session);
        // In the step in which the newcomer is taken: who is on the way in is not gone.
        for other in leaving {
            self.fx.count().sessions_replaced += 1;
            self.dismiss(
                other,
                CloseCode::TooManySessions,
                "a newer session of the user took the place",
                now,
            );
        }
        self.assign_home(key, now);
    }

    pub(in crate::core) fn on_closed(&mut self, key: SessionKey, now: Now) {
        let Some(mut session) = self.sessions.map.remove(&key) else { return };
        self.sessions.budget.forget(key, &session.user, &mut session.credit);
        self.sessions.budget.forget(key, &session.user, &mut session.signals.credit);
        drop(self.sessions.early.take(&session.user, &mut session.early));
        self.leave_all(key, &session, now);
        self.unwatch_all(key, &session, now);
        if let Some(streams) = self.sessions.by_vnode.get_mut(&session.vnode) {
            if let Some(keys) = streams.get_mut(&session.stream) {
                keys.retain(|k| *k != key);
                if keys.is_empty() {
                    streams.remove(&session.stream);
                }
            }
            if streams.is_empty() {
                self.sessions.by_vnode.remove(&session.vnode);
            }
        }
        if session.counted {
            self.session_went(session.vnode, &session.user, now);
        } else if session.welcomed && session.is_coming() {
            self.uncounted_went(session.vnode, &session.user, now);
        }
        self.wake(Some(&session.user), now);
    }

    /// Who is to leave so that one more session of this user can stay; `None` if it cannot.
    fn make_room(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        device: Option<&DeviceId>,
    ) -> Option<Vec<SessionKey>> {
        // Who was told to move opens the next connection before it closes this one, maybe here again: it does not
        // count, and is not closed with a code that would stop it.
        let stays = |s: &&Session| !matches!(s.state, State::Moved { .. });
        let staying = self.sessions.of(vnode, stream).iter().filter_map(|key| {
            let session = self.sessions.map.get(key).filter(stays)?;
            Some((*key, device.is_some() && session.device.as_ref() == device))
        });
        leaving(&staying.collect::<Vec<_>>(), self.cfg.sessions_per_user_max, self.cfg.session_policy)
    }

    /// Closes a session that is not to come back; it counts for nothing from here on.
    pub(in crate::core) fn dismiss(
        &mut self,
        key: SessionKey,
        code: CloseCode,
        reason: impl Into<std::borrow::Cow<'static, str>>,
        now: Now,
    ) {
        self.close(key, code, reason);
        self.on_closed(key, now);
    }
}
