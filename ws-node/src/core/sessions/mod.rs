//! Connections: who they are, where they are, what they may have on its way (rules 25–27).

pub(in crate::core) mod acks;
pub(in crate::core) mod blocked;
pub(in crate::core) mod budget;
pub(in crate::core) mod commands;
pub(in crate::core) mod connecting;
pub(in crate::core) mod credit;
pub(in crate::core) mod delivery;
pub(in crate::core) mod history;
pub(in crate::core) mod limit;
pub(in crate::core) mod moving;
pub(in crate::core) mod opening;
pub(in crate::core) mod pace;
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

use roost_proto::ids::{StreamId, VnodeId};

use crate::core::config::CoreConfig;
use crate::core::keys::SessionKey;
use crate::core::sessions::budget::Budget;
use crate::core::sessions::pace::{Accepting, Pace};
use crate::core::sessions::reads::{Reads, Want};
use crate::core::sessions::session::Session;
use crate::core::sessions::socket::{Seat, Socket};

/// See the module's text.
#[derive(Debug)]
pub struct Sessions {
    map: BTreeMap<SessionKey, Session>,
    /// Those of each vnode, by the inbox they read.
    pub(in crate::core) by_vnode: BTreeMap<VnodeId, BTreeMap<StreamId, Vec<SessionKey>>>,
    /// Bytes on their way to sockets.
    pub(in crate::core) budget: Budget,
    pub(in crate::core) reads: Reads,
    /// Newcomers this node takes, and sessions it sends to others.
    pub(in crate::core) accepting: Accepting,
    pub(in crate::core) pace: Pace,
}

impl Sessions {
    pub fn new(cfg: &CoreConfig) -> Self {
        Self {
            map: BTreeMap::new(),
            by_vnode: BTreeMap::new(),
            budget: Budget::new(cfg.credit_bytes),
            reads: Reads::default(),
            accepting: Accepting::new(cfg.accepts_per_s),
            pace: Pace::default(),
        }
    }

    pub fn get(&self, key: &SessionKey) -> Option<&Session> {
        self.map.get(key)
    }

    pub fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Session> {
        self.map.get_mut(key)
    }

    pub fn values(&self) -> impl Iterator<Item = &Session> {
        self.map.values()
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// A session in a room that it has a place in, or waits for one.
    pub fn seat(&mut self, key: SessionKey, stream: &StreamId) -> Option<Seat<'_>> {
        let session = self.map.get_mut(&key)?;
        let listener = session.rooms.get_mut(stream)?;
        let (user, credit, budget) = (&session.user, &mut session.credit, &mut self.budget);
        Some(Seat { listener, socket: Socket { key, user, credit, budget }, welcomed: session.welcomed })
    }

    /// The session wants something to be read, when it has its turn.
    pub fn want(&mut self, key: SessionKey, want: Want) {
        if let Some(session) = self.map.get_mut(&key) {
            session.wants.add(want);
            self.reads.wait(key, &session.user);
        }
    }

    /// A read is begun for the session; the number under which it is answered.
    pub fn begin_read(&mut self, key: SessionKey, bytes: usize) -> Option<u64> {
        let session = self.map.get(&key)?;
        Some(self.reads.begin(key, &session.user, bytes))
    }

    /// It is fed with the room when its socket has taken something.
    pub fn starve(&mut self, key: SessionKey, stream: &StreamId) {
        if let Some(session) = self.map.get_mut(&key) {
            session.starved.insert(stream.clone());
        }
    }
}
