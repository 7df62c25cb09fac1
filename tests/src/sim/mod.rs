//! A cluster of protocol cores in memory, under one seed: nodes, a store, a log and clients, with faults.
//!
//! Nothing in here knows the rules; it carries out what the cores ask, late, twice or not at all, as real back
//! ends may, and then [`check`] compares the history with the promises. Time is a number; a run of a minute takes
//! milliseconds, and the same seed gives the same run.

pub mod check;
mod client;
mod faults;
mod log;
mod store;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roost_backend::store::StoreConfig;
use roost_backend::store::model::{Control, VnodeData};
use roost_proto::ids::{NodeId, VnodeId};
use roost_ws_node::core::events::{Action, Event, Now, SessionKey};
use roost_ws_node::core::{CoreConfig, NodeCore, Rule};

use client::Client;
pub use faults::Fault;
use log::SimLog;

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    pub seed: u64,
    pub nodes: usize,
    pub vnodes: u32,
    pub users: usize,
    /// Faults happen until then; afterwards everything must settle. Milliseconds.
    pub faults_until: u64,
    pub settle: u64,
    /// A rule that is not kept, to see that the checks notice.
    pub off: Option<Rule>,
}

impl Setup {
    pub fn new(seed: u64) -> Self {
        Self { seed, nodes: 3, vnodes: 4, users: 6, faults_until: 15_000, settle: 45_000, off: None }
    }
}

/// One process of a ws-node.
pub(crate) struct Process {
    pub node: NodeId,
    pub core: Option<NodeCore>,
    /// Stopped by the scheduler until then; what arrives waits.
    pub paused_until: u64,
    backlog: VecDeque<Event>,
    /// Cut off until then.
    pub no_store_until: u64,
    pub no_log_until: u64,
}

/// Something that happens at a time.
pub(crate) enum Happening {
    ToCore { pid: usize, event: Box<Event> },
    Tick { pid: usize },
    ReadTable { pid: usize, periodic: bool },
    Store { pid: usize, run: u64, request: Box<store::Request>, answer: store::Fate },
    LogArrives { topic: log::Topic, payload: bytes::Bytes },
    Start { node: NodeId },
    Lead,
    Fault,
    Client { user: usize, what: client::Wake },
    ToClient { user: usize, connection: u64, frame: Option<bytes::Bytes> },
}

pub struct World {
    pub setup: Setup,
    pub now: u64,
    pub(crate) rng: StdRng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    pub(crate) processes: Vec<Process>,
    pub(crate) store_config: StoreConfig,
    pub(crate) control: Control,
    pub(crate) data: Vec<VnodeData>,
    pub(crate) snapshot: Option<(Control, Vec<VnodeData>)>,
    /// Names the life of the store: requests of an earlier one die with their connection.
    pub(crate) run: u64,
    pub(crate) store_down_until: u64,
    pub(crate) store_skew: i64,
    pub log: SimLog,
    pub clients: Vec<Client>,
    pub(crate) next_connection: u64,
    /// What went wrong, as it was seen.
    pub violations: Vec<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub faults: Vec<(u64, Fault)>,
    seen_beats: BTreeMap<NodeId, (String, u64, u64)>,
    pub(crate) totals: roost_ws_node::core::Counters,
}

/// Time between ticks, and between reads of the table.
const TICK_MS: u64 = 50;
const TABLE_MS: u64 = 400;
const WALL: u64 = 1_795_000_000_000;
pub(crate) const LEASE_TTL_MS: u64 = 3000;

impl World {
    pub fn new(setup: Setup) -> Self {
        let store_config =
            StoreConfig { lease_ttl_ms: LEASE_TTL_MS, stream_max_len: 6, stream_max_age_ms: 86_400_000 };
        let mut control = Control::default();
        let first = roost_backend::store::DataSet("d0".into());
        control.open_ring(setup.vnodes, first).expect("an empty ring opens");
        let mut world = Self {
            now: 0,
            rng: StdRng::seed_from_u64(setup.seed),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            processes: Vec::new(),
            store_config,
            control,
            data: vec![VnodeData::default(); setup.vnodes as usize],
            snapshot: None,
            run: 0,
            store_down_until: 0,
            store_skew: 0,
            log: SimLog::new(setup.vnodes),
            clients: (0..setup.users).map(Client::new).collect(),
            next_connection: 1,
            violations: Vec::new(),
            trace: None,
            faults: Vec::new(),
            seen_beats: BTreeMap::new(),
            totals: Default::default(),
            setup,
        };
        for i in 0..world.setup.nodes {
            let node = NodeId::new(format!("n{i}")).expect("a plain name");
            world.at(0, Happening::Start { node });
        }
        world.at(30, Happening::Lead);
        world.at(300, Happening::Fault);
        for user in 0..world.setup.users {
            let at = world.rng.random_range(100..1500);
            world.at(at, Happening::Client { user, what: client::Wake::Begin });
        }
        world
    }

    /// Keeps a trace of everything, for looking at a failed seed.
    pub fn traced(mut self) -> Self {
        self.trace = Some(Vec::new());
        self
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>6} {}", self.now, text()));
        }
    }

    pub fn trace(&self) -> &[String] {
        self.trace.as_deref().unwrap_or_default()
    }

    pub(crate) fn at(&mut self, time: u64, what: Happening) {
        self.next += 1;
        self.queue.push(Reverse((time.max(self.now), self.next)));
        self.happenings.insert(self.next, what);
    }

    pub(crate) fn chance(&mut self, percent: f64) -> bool {
        self.rng.random_bool(percent / 100.0)
    }

    pub(crate) fn between(&mut self, a: u64, b: u64) -> u64 {
        self.rng.random_range(a..b)
    }

    pub(crate) fn faulty(&self) -> bool {
        self.now < self.setup.faults_until
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: WALL + self.now, us: self.now * 1000 }
    }

    /// The store's own clock.
    pub(crate) fn store_now(&self) -> u64 {
        (WALL + self.now).saturating_add_signed(self.store_skew)
    }

    /// Runs to the end and returns what was wrong.
    pub fn run(&mut self) -> Vec<String> {
        let end = self.setup.faults_until + self.setup.settle;
        while let Some(Reverse((time, id))) = self.queue.pop() {
            if time > end || !self.violations.is_empty() {
                break;
            }
            self.now = time;
            if let Some(what) = self.happenings.remove(&id) {
                self.happen(what);
            }
        }
        if self.violations.is_empty() {
            self.now = end;
            check::at_the_end(self);
        }
        std::mem::take(&mut self.violations)
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::ToCore { pid, event } => self.core_gets(pid, *event),
            Happening::Tick { pid } => {
                if self.processes[pid].core.is_some() {
                    self.at(self.now + TICK_MS, Happening::Tick { pid });
                    self.core_gets(pid, Event::Tick);
                }
            }
            Happening::ReadTable { pid, periodic } => {
                if self.processes[pid].core.is_some() {
                    if periodic {
                        self.at(self.now + TABLE_MS, Happening::ReadTable { pid, periodic });
                    }
                    self.ask_store(pid, store::Request::Table);
                }
            }
            Happening::Store { pid, run, request, answer } => self.store_request(pid, run, *request, answer),
            Happening::LogArrives { topic, payload } => self.log_arrives(topic, payload),
            Happening::Start { node } => self.start(node),
            Happening::Lead => self.lead(),
            Happening::Fault => self.fault(),
            Happening::Client { user, what } => self.wake_client(user, what),
            Happening::ToClient { user, connection, frame } => self.client_gets(user, connection, frame),
        }
    }

    pub(crate) fn core_config(&mut self, node: &NodeId) -> CoreConfig {
        let mut cfg = CoreConfig::new(node.clone());
        cfg.url = format!("ws://{node}/socket");
        cfg.vnodes = self.setup.vnodes;
        cfg.partitions = self.setup.vnodes;
        cfg.lease_ttl_ms = LEASE_TTL_MS;
        cfg.linger_ms = 400;
        cfg.grace_ms = 2500;
        cfg.random = self.rng.random();
        cfg.channel_items_max = 12;
        cfg.queue_max = 6;
        cfg.outbox_max = 8;
        cfg.batch_max = 3;
        cfg.credit = 3;
        cfg.commands_per_s = 1000;
        cfg.commands_burst = 1000;
        cfg.accepts_per_s = 100;
        cfg.off = self.setup.off;
        cfg
    }

    pub(crate) fn start(&mut self, node: NodeId) {
        let cfg = self.core_config(&node);
        let pid = self.processes.len();
        let core = NodeCore::new(cfg, self.clock());
        self.note(|| format!("p{pid} starts as {} ({node})", core.sid()));
        self.processes.push(Process {
            node,
            core: Some(core),
            paused_until: 0,
            backlog: VecDeque::new(),
            no_store_until: 0,
            no_log_until: 0,
        });
        let phase = self.between(0, TICK_MS);
        self.at(self.now + phase, Happening::Tick { pid });
        self.at(self.now, Happening::ReadTable { pid, periodic: true });
    }

    pub(crate) fn kill(&mut self, pid: usize) {
        let Some(core) = self.processes[pid].core.take() else { return };
        self.add_totals(&core);
        self.note(|| format!("p{pid} dies"));
        let users: Vec<_> = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, c)| c.is_on(pid))
            .map(|(i, c)| (i, c.connections_on(pid)))
            .collect();
        for (user, connections) in users {
            for connection in connections {
                let at = self.now + self.between(1, 300);
                self.at(at, Happening::ToClient { user, connection, frame: None });
            }
        }
    }

    fn add_totals(&mut self, core: &NodeCore) {
        let c = core.counters();
        self.totals.appended += c.appended;
        self.totals.duplicates += c.duplicates;
        self.totals.writes_fenced += c.writes_fenced;
        self.totals.writes_unknown += c.writes_unknown;
        self.totals.handoffs += c.handoffs;
        self.totals.generations_begun += c.generations_begun;
        self.totals.asks += c.asks;
        self.totals.probes += c.probes;
    }

    pub(crate) fn core_gets(&mut self, pid: usize, event: Event) {
        let now = self.clock();
        let process = &mut self.processes[pid];
        if process.core.is_none() {
            return;
        }
        if self.now < process.paused_until {
            // A paused process misses ticks and hears everything else when it wakes.
            if !matches!(event, Event::Tick) {
                if process.backlog.is_empty() {
                    let wake = process.paused_until;
                    process.backlog.push_back(event);
                    self.at(wake, Happening::ToCore { pid, event: Box::new(Event::Tick) });
                } else {
                    process.backlog.push_back(event);
                }
            }
            return;
        }
        let mut events = std::mem::take(&mut process.backlog);
        events.push_back(event);
        for event in events {
            if self.trace.is_some() && !matches!(event, Event::Tick | Event::View(_) | Event::Drained { .. })
            {
                self.note(|| format!("p{pid} <- {event:?}"));
            }
            let Some(core) = self.processes[pid].core.as_mut() else { return };
            let actions = core.step(event, now);
            for action in actions {
                self.carry(pid, action);
            }
        }
    }

    fn carry(&mut self, pid: usize, action: Action) {
        if self.trace.is_some() && !matches!(action, Action::Observe(..) | Action::Refresh) {
            self.note(|| format!("p{pid} -> {action:?}"));
        }
        match action {
            Action::Register(r) => self.ask_store(pid, store::Request::Register(*r)),
            Action::Claim(c) => self.ask_store(pid, store::Request::Claim(c, self.now)),
            Action::Activate(a) => self.ask_store(pid, store::Request::Activate(a)),
            Action::Ready(r) => self.ask_store(pid, store::Request::Ready(r)),
            Action::Release(r) => self.ask_store(pid, store::Request::Release(r)),
            Action::Renew(r) => self.ask_store(pid, store::Request::Renew(r, self.now)),
            Action::Write { call, write } => self.ask_store(pid, store::Request::Write(call, *write)),
            Action::Read { session, vnode, stream, generation, after, limit } => {
                self.ask_store(
                    pid,
                    store::Request::Read { session, vnode, stream, generation, after, limit },
                );
            }
            Action::Refresh => {
                let at = self.now + self.between(1, 20);
                self.at(at, Happening::ReadTable { pid, periodic: false });
            }
            Action::LogEnd { session, ask, partition } => self.ask_log_end(pid, session, ask, partition),
            Action::Produce { lane, record } => self.produce(pid, lane, record),
            Action::Frame { session, frame, counted } => self.send_frame(pid, session, frame, counted),
            Action::Close { session, .. } => self.close_connection(pid, session),
            Action::Observe(..) => {}
            Action::Replaced => self.kill(pid),
        }
    }

    fn send_frame(&mut self, pid: usize, session: SessionKey, frame: bytes::Bytes, counted: bool) {
        let Some(user) = self.clients.iter().position(|c| c.has(pid, session.0)) else { return };
        let at = self.clients[user].arrival(self.now + self.rng.random_range(1..8));
        self.at(at, Happening::ToClient { user, connection: session.0, frame: Some(frame) });
        if counted {
            let event = Box::new(Event::Drained { session, frames: 1 });
            self.at(at, Happening::ToCore { pid, event });
        }
    }

    fn close_connection(&mut self, pid: usize, session: SessionKey) {
        let event = Box::new(Event::Closed { session });
        self.at(self.now + 1, Happening::ToCore { pid, event });
        if let Some(user) = self.clients.iter().position(|c| c.has(pid, session.0)) {
            let at = self.clients[user].arrival(self.now + 2);
            self.at(at, Happening::ToClient { user, connection: session.0, frame: None });
        }
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|p| self.processes[*p].core.is_some()).collect()
    }

    pub(crate) fn vnode_of(&self, user: usize) -> VnodeId {
        roost_ring::vnode(&client::name(user), self.setup.vnodes)
    }
}
