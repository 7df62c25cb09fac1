//! A small cluster in plain steps of 50 ms: leaders and nodes around one model store.
//!
//! Nodes do what ws-nodes do with the control plane (renew, claim, set ready, release) and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use roost_backend::store::model::Control;
use roost_backend::store::*;
use roost_proto::{NodeId, Sid, VnodeId};

use super::node::Node;
use crate::leader::{Leader, LeaderAction, LeaderConfig, LeaderEvent, RevokeCause};

pub(super) const TTL: u64 = 6_000;
pub(super) const BEAT: u64 = TTL / roost_proto::limits::BEATS_PER_LEASE;
const STEP: u64 = 50;
const TICK: u64 = BEAT / 4 / STEP * STEP;
const READ_EVERY: u64 = BEAT / 2;
/// How long an answer takes, and how long nothing takes.
const LATENCY: u64 = 50;
const TIMEOUT: u64 = 2_000;
/// The store's clock is not that of the leaders.
pub(super) const WALL: u64 = 1_700_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreIs {
    Up,
    ReadOnly,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeIs {
    Alive,
    /// SIGSTOP: the kernel still accepts on its ports.
    Frozen,
    /// kill -9: its ports refuse.
    Dead,
    /// The machine is off: nothing answers.
    Gone,
}

pub(super) struct Coordinator {
    pub leader: Leader,
    pub frozen: bool,
    /// Its writes are on the way and do not arrive: taken out by [`Cluster::let_through`].
    pub hold_writes: bool,
    pub held: Vec<LeaderAction>,
    tick_due: u64,
    read_due: u64,
    seen_changes: u64,
    pending: Vec<(u64, LeaderEvent)>,
}

pub(super) struct Cluster {
    pub now: u64,
    pub vnodes: u32,
    pub control: Control,
    pub store: StoreIs,
    pub nodes: Vec<Node>,
    pub coordinators: Vec<Coordinator>,
    pub revocations: Vec<(u64, Sid, RevokeCause)>,
    pub probes: Vec<(u64, Sid)>,
    /// Assignments and moves that were taken by the store, and refused writes of leaders.
    pub assigns: usize,
    pub moves: usize,
    pub refused: usize,
    pub changes: u64,
    /// What the machines slept: only clocks that go on meanwhile show it.
    pub slept_ms: u64,
}

pub(super) fn node_id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl Cluster {
    pub(super) fn new(vnodes: u32, coordinators: usize) -> Self {
        let mut control = Control::default();
        control.open_ring(vnodes, DataSet("first".into())).unwrap();
        let mut cluster = Self {
            now: 0,
            vnodes,
            control,
            store: StoreIs::Up,
            nodes: Vec::new(),
            coordinators: Vec::new(),
            revocations: Vec::new(),
            probes: Vec::new(),
            assigns: 0,
            moves: 0,
            refused: 0,
            changes: 1,
            slept_ms: 0,
        };
        for i in 0..coordinators {
            cluster.add_coordinator(LeaderConfig::new(format!("c{i}"), TTL));
        }
        cluster
    }

    pub(super) fn add_coordinator(&mut self, config: LeaderConfig) {
        self.coordinators.push(Coordinator {
            leader: Leader::new(config),
            frozen: false,
            hold_writes: false,
            held: Vec::new(),
            tick_due: self.now,
            read_due: self.now,
            seen_changes: 0,
            pending: Vec::new(),
        });
    }

    pub(super) fn add_node(&mut self, name: &str, pins: &str) -> usize {
        self.nodes.push(Node::new(node_id(name), pins, self.now));
        self.nodes.len() - 1
    }

    /// The process of node `i` is started anew, whatever it was before.
    pub(super) fn restart_node(&mut self, i: usize) {
        self.nodes[i].new_life(self.now);
        (self.nodes[i].is, self.nodes[i].draining) = (NodeIs::Alive, false);
    }

    /// A leaving node is done: it goes in good order.
    pub(super) fn deregister(&mut self, i: usize) {
        let request = Deregister {
            data_set: self.control.data_set.clone(),
            sid: self.nodes[i].sid.clone(),
            tombstone: false,
        };
        self.control.deregister(&request);
        self.nodes[i].is = NodeIs::Gone;
        self.changes += 1;
    }

    /// Redis lost everything and came back; who holds something has until then to say so.
    pub(super) fn wipe(&mut self, name: &str, settle_ms: u64) {
        self.control = Control::default();
        self.control.new_data_set(self.vnodes, DataSet(name.into()), WALL + self.now + settle_ms);
        self.changes += 1;
    }

    /// Redis was restarted from its last snapshot, which had everything.
    pub(super) fn restart_store(&mut self, name: &str, settle_ms: u64) {
        self.control.new_data_set(self.vnodes, DataSet(name.into()), WALL + self.now + settle_ms);
        self.changes += 1;
    }

    pub(super) fn table(&self) -> Table {
        self.control.table(WALL + self.now)
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done`, and says how long that took.
    pub(super) fn run_until(&mut self, ms: u64, what: &str, done: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !done(self) {
            assert!(self.now - start < ms, "not within {ms} ms: {what}");
            self.step();
        }
        self.now - start
    }

    pub(super) fn leading(&self) -> Vec<usize> {
        let leads = |i: &usize| self.coordinators[*i].leader.is_leading();
        (0..self.coordinators.len()).filter(leads).collect()
    }

    /// Vnodes that each node holds and has ready.
    pub(super) fn ready(&self) -> BTreeMap<NodeId, usize> {
        let mut ready = BTreeMap::new();
        for row in self.table().rows.values().filter(|row| row.ready) {
            *ready.entry(row.node()).or_default() += 1;
        }
        ready
    }

    /// Every vnode is ready at its target, and the living share them evenly.
    pub(super) fn settled(&self) -> bool {
        let table = self.table();
        let at_home = |v: u16| {
            let row = table.rows.get(&VnodeId(v)).filter(|row| row.ready && !table.ended(&row.sid));
            row.is_some_and(|row| table.assignment.targets.get(&VnodeId(v)) == Some(&row.node()))
        };
        let ready = self.ready();
        let takers = self.nodes.iter().filter(|node| node.is == NodeIs::Alive && !node.draining);
        let counts: Vec<usize> = takers.map(|node| ready.get(&node.id).copied().unwrap_or(0)).collect();
        let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
        let even = least.zip(most).is_some_and(|(least, most)| most - least <= 1);
        even && counts.iter().sum::<usize>() == self.vnodes as usize && (0..self.vnodes as u16).all(at_home)
    }

    pub(super) fn step(&mut self) {
        self.now += STEP;
        let table = Arc::new(self.table());
        for i in 0..self.nodes.len() {
            if self.nodes[i].is != NodeIs::Alive || self.store != StoreIs::Up {
                self.nodes[i].well_since = self.now;
            }
            match self.store {
                _ if self.nodes[i].is != NodeIs::Alive => {}
                StoreIs::Up => self.step_node(i, &table),
                StoreIs::ReadOnly => self.nodes[i].try_in_vain(self.now, BEAT),
                StoreIs::Down => self.nodes[i].try_in_vain(self.now, TIMEOUT),
            }
        }
        for i in 0..self.coordinators.len() {
            if !self.coordinators[i].frozen {
                self.step_coordinator(i, &table);
            }
        }
    }

    fn step_coordinator(&mut self, i: usize, table: &Arc<Table>) {
        let (now, changes, store) = (self.now, self.changes, self.store);
        let boot_ms = now + self.slept_ms;
        let c = &mut self.coordinators[i];
        let mut events: Vec<LeaderEvent> =
            c.pending.extract_if(.., |(due, _)| *due <= now).map(|(_, e)| e).collect();
        let hinted = store == StoreIs::Up && c.seen_changes != changes;
        if now >= c.read_due || hinted {
            (c.read_due, c.seen_changes) = (now + READ_EVERY, changes);
            if store != StoreIs::Down {
                let table = Arc::clone(table);
                c.pending.push((now + LATENCY, LeaderEvent::Table { table, asked_at: now, boot_ms }));
            }
        }
        if now >= c.tick_due {
            c.tick_due = now + TICK;
            events.push(LeaderEvent::Tick);
        }
        for event in events {
            for action in self.coordinators[i].leader.step(event, now) {
                self.act(i, action);
            }
        }
    }

    fn act(&mut self, i: usize, action: LeaderAction) {
        let write = !matches!(action, LeaderAction::Lead(_) | LeaderAction::ProbeAdmin { .. });
        if write && self.coordinators[i].hold_writes {
            self.coordinators[i].held.push(action);
            return;
        }
        let (after, event) = match &action {
            LeaderAction::ProbeAdmin { sid, addr } => {
                self.probes.push((self.now, sid.clone()));
                self.probe(sid, addr)
            }
            _ if self.store == StoreIs::Down => (TIMEOUT, Self::unanswered(&action)),
            _ if self.store == StoreIs::ReadOnly => (LATENCY, Self::unanswered(&action)),
            _ => (LATENCY, self.write(action)),
        };
        self.coordinators[i].pending.push((self.now + after, event));
    }

    /// What was on the way arrives after all; its answer is not heard.
    pub(super) fn let_through(&mut self, i: usize) {
        for action in std::mem::take(&mut self.coordinators[i].held) {
            self.write(action);
        }
    }

    fn write(&mut self, action: LeaderAction) -> LeaderEvent {
        match action {
            LeaderAction::Lead(request) => LeaderEvent::Led(Some(self.control.lead(&request))),
            LeaderAction::Revoke { request, cause } => {
                let done = self.control.revoke(&request);
                if done {
                    let living =
                        |node: &Node| node.sid == request.sid && self.now - node.well_since > 2 * BEAT;
                    assert!(!self.nodes.iter().any(living), "{} lives and was revoked", request.sid);
                    self.revocations.push((self.now, request.sid.clone(), cause));
                }
                self.note_write(done);
                LeaderEvent::Revoked { sid: request.sid, done: Some(done) }
            }
            LeaderAction::Assign { request, moves } => {
                let done = self.control.assign(&request);
                if done {
                    self.assigns += 1;
                    self.moves += moves;
                }
                self.note_write(done);
                LeaderEvent::Assigned(Some(done))
            }
            LeaderAction::Forget(request) => {
                let done = self.control.forget(&request);
                self.note_write(done);
                LeaderEvent::Forgot { sid: request.sid, done: Some(done) }
            }
            LeaderAction::ProbeAdmin { .. } => unreachable!("not a question for the store"),
        }
    }

    fn note_write(&mut self, done: bool) {
        self.refused += usize::from(!done);
        self.changes += u64::from(done);
    }

    fn unanswered(action: &LeaderAction) -> LeaderEvent {
        match action {
            LeaderAction::Revoke { request, .. } => {
                LeaderEvent::Revoked { sid: request.sid.clone(), done: None }
            }
            LeaderAction::Assign { .. } => LeaderEvent::Assigned(None),
            LeaderAction::Forget(request) => LeaderEvent::Forgot { sid: request.sid.clone(), done: None },
            LeaderAction::Lead(_) | LeaderAction::ProbeAdmin { .. } => LeaderEvent::Led(None),
        }
    }

    fn probe(&self, sid: &Sid, addr: &str) -> (u64, LeaderEvent) {
        let node = self.nodes.iter().find(|node| node.id.as_str() == addr).expect("addresses are names here");
        let (after, refused) = match node.is {
            _ if node.wrong_admin => (LATENCY, true),
            NodeIs::Dead => (LATENCY, true),
            NodeIs::Alive | NodeIs::Frozen => (LATENCY, false),
            NodeIs::Gone => (300, false),
        };
        (after, LeaderEvent::Probed { sid: sid.clone(), refused })
    }
}
