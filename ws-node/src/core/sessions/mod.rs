//! Connections: who they are, where they are, what they may have on its way (rules 25–27).

pub(in crate::core) mod acks;
pub(in crate::core) mod blocked;
pub(in crate::core) mod budget;
pub(in crate::core) mod commands;
pub(in crate::core) mod connecting;
pub(in crate::core) mod credit;
pub(in crate::core) mod delivery;
pub(in crate::core) mod early;
pub(in crate::core) mod explaining;
pub(in crate::core) mod history;
pub(in crate::core) mod limit;
pub(in crate::core) mod moving;
pub(in crate::core) mod opening;
pub(in crate::core) mod rates;
pub(in crate::core) mod reader;
pub(in crate::core) mod reading;
pub(in crate::core) mod reads;
pub(in crate::core) mod refresh;
pub(in crate::core) mod replies;
pub(in crate::core) mod sending;
pub(in crate::core) mod session;
pub(in crate::core) mod signalling;
pub(in crate::core) mod signals;
pub(in crate::core) mod socket;

use std::collections::BTreeMap;

use roost_proto::ids::{NodeId, StreamId, VnodeId};

use crate::core::config::CoreConfig;
use crate::core::keys::{Now, SessionKey};
use crate::core::sessions::budget::Budget;
use crate::core::sessions::early::EarlyBytes;
use crate::core::sessions::rates::{Accepting, MigrationRate};
use crate::core::sessions::reads::{Reads, Want};
use crate::core::sessions::session::Session;
use crate::core::sessions::socket::{Seat, Socket};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Sessions {
    map: BTreeMap<SessionKey, Session>,
    /// Those of each vnode, by the inbox they read.
    by_vnode: BTreeMap<VnodeId, BTreeMap<StreamId, Vec<SessionKey>>>,
    /// Bytes on their way to sockets.
    budget: Budget,
    /// What was said before `welcome`.
    early: EarlyBytes,
    reads: Reads,
    /// Newcomers this node takes, and sessions it sends to others.
    accepting: Accepting,
    migration_rate: MigrationRate,
}

impl Sessions {
    pub(super) fn new(cfg: &CoreConfig) -> Self {
        Self {
            map: BTreeMap::new(),
            by_vnode: BTreeMap::new(),
            budget: Budget::new(cfg.credit_bytes),
            early: EarlyBytes::default(),
            reads: Reads::default(),
            accepting: Accepting::new(cfg.accepts_per_s),
            migration_rate: MigrationRate::default(),
        }
    }

    pub(super) fn get(&self, key: &SessionKey) -> Option<&Session> {
        self.map.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Session> {
        self.map.get_mut(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Session> {
        self.map.values()
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Those who read an inbox.
    pub(super) fn of(&self, vnode: VnodeId, inbox: &StreamId) -> &[SessionKey] {
        self.by_vnode.get(&vnode).and_then(|streams| streams.get(inbox)).map_or(&[], Vec::as_slice)
    }

    /// Those whose users are at home at a vnode.
    pub(super) fn at(&self, vnode: VnodeId) -> impl Iterator<Item = SessionKey> {
        self.by_vnode.get(&vnode).into_iter().flat_map(|streams| streams.values().flatten().copied())
    }

    /// The vnodes at which somebody's user is at home.
    pub(super) fn vnodes(&self) -> impl Iterator<Item = VnodeId> {
        self.by_vnode.keys().copied()
    }

    /// How long what was promised to a node so far takes it, in milliseconds.
    pub(super) fn behind(&self, node: &NodeId, now: Now) -> u64 {
        self.migration_rate.behind(node, now.mono)
    }

    /// Newcomers a second that this node takes.
    pub(super) fn accepts_per_s(&self) -> u64 {
        self.accepting.per_s()
    }

    /// A beat: the rate of newcomers is set anew.
    pub(super) fn beat(&mut self) {
        self.accepting.beat();
    }

    /// Bytes under way from the store for sessions.
    pub(super) fn read_bytes(&self) -> usize {
        self.reads.bytes()
    }

    /// And to sockets, beyond what each has for itself.
    pub(super) fn socket_bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// A session in a room that it has a place in, or waits for one.
    pub(super) fn seat(&mut self, key: SessionKey, stream: &StreamId) -> Option<Seat<'_>> {
        let session = self.map.get_mut(&key)?;
        let listener = session.seats.listener_mut(stream)?;
        let (user, credit, budget) = (&session.user, &mut session.credit, &mut self.budget);
        Some(Seat { listener, socket: Socket { key, user, credit, budget }, welcomed: session.welcomed })
    }

    /// The session wants something to be read, when it has its turn.
    pub(super) fn want(&mut self, key: SessionKey, want: Want) {
        if let Some(session) = self.map.get_mut(&key) {
            session.wants.add(want);
            self.reads.wait(key, &session.user);
        }
    }

    /// It is fed with the room when its socket has taken something.
    pub(super) fn starve(&mut self, key: SessionKey, stream: &StreamId) {
        if let Some(session) = self.map.get_mut(&key) {
            session.starved.insert(stream.clone());
        }
    }
}
