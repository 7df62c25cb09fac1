//! A cluster in the hand: protocol cores, the store model and a log, where every fault is put by a test.
//!
//! Nothing is random and nothing waits: time is a number, each kind of step takes a fixed time, and what a test
//! holds back stays back until it lets go.

#[path = "carry.rs"]
mod carry;
#[path = "links.rs"]
mod links;
#[path = "live.rs"]
pub(crate) mod live;
#[path = "sight.rs"]
mod sight;

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::log::Outgoing;
use roost_backend::store::model::{Control, VnodeData};
use roost_backend::store::*;
use roost_proto::codes::CloseCode;
use roost_proto::events::{Message, StatusEvent};
use roost_proto::frames::{ChosenStatus, OfUsers, Reply, Send, ServerFrame, SetStatus};
use roost_proto::ids::{Cursor, DeviceId, MessageId, NodeId, Sid, UserId, VnodeId};
use roost_proto::records::Record;
use roost_ws_node::core::{
    CallKey, Command, Connecting, CoreConfig, Input, LinkKey, NodeCore, Now, Rights, Rule, SessionKey,
    ShareConfig,
};
use serde_json::value::RawValue;

pub(crate) const LEASE_TTL_MS: u64 = 6000;
const WALL: u64 = 1_795_000_000_000;
const LEADER: &str = "hand";
const STORE_MS: u64 = 1;
const ROAD_MS: u64 = 5;

/// What becomes of a record between nodes. Its producer is told that it arrived, whatever happens.
pub(crate) enum Road {
    Goes,
    /// Retention or a reader's restart took it.
    Lost,
    /// Kept in [`Harness::on_road`].
    Held,
    /// Arrives as something nobody can read.
    Garbled,
    /// Arrives as another record.
    As(Box<Record>),
}

/// Decides for each record, knowing which node it comes from.
pub(crate) type Roads = Box<dyn FnMut(usize, &Record) -> Road>;

/// Decides for each record of a link whether it arrives, knowing which node it comes from.
pub(crate) type Aboard = Box<dyn FnMut(usize, &Record) -> bool>;

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Answered,
    /// It takes effect at once; nobody is told.
    Untold,
    /// The writer gives up waiting; the write stays in [`Harness::late_writes`].
    Late,
    /// On its way for long; it is answered when [`Harness::land`] lets it arrive.
    Underway,
}

/// A write that has not arrived yet.
pub(crate) struct LateWrite {
    node: usize,
    call: u64,
    write: Write,
    answered: bool,
}

pub(crate) struct Harness {
    pub now: u64,
    pub tick_ms: u64,
    pub nodes: Vec<NodeCore>,
    pub control: Control,
    pub data: Vec<VnodeData>,
    pub store: StoreConfig,
    off: Option<Rule>,
    /// Stopped by the scheduler: what arrives waits.
    asleep: BTreeSet<usize>,
    backlog: BTreeMap<usize, Vec<Input>>,
    /// Cut off from the store.
    pub no_store: BTreeSet<usize>,
    pub road: Roads,
    pub on_road: Vec<(usize, Input)>,
    /// So many bundles, or lone records, the transport does not take.
    pub not_taken: usize,
    /// Nodes may dial each other.
    pub links: bool,
    /// What links bring names another life of the node than the one that it comes to.
    pub misdirect: bool,
    linked: BTreeMap<(usize, LinkKey), (usize, Sid)>,
    /// Which records of a link arrive, knowing which node they come from.
    pub aboard: Aboard,
    /// Every record that went by a link: when, from whom, what.
    pub by_link: Vec<(u64, usize, Record)>,
    /// So many activations take effect without the caller being told.
    pub activations_untold: usize,
    /// Every record between nodes: when, from whom, how many bytes, what.
    pub sent: Vec<(u64, usize, usize, Record)>,
    pub writes: Box<dyn FnMut(&Write) -> Reach>,
    pub late_writes: Vec<LateWrite>,
    /// The log takes nothing from these nodes' outboxes for now.
    pub no_log: BTreeSet<usize>,
    unlogged: Vec<(usize, Outgoing)>,
    pub log_end_known: bool,
    pub log_end_asked: u64,
    pub live: live::Live,
    /// `chat_events` by partition, with the time of arrival.
    pub chat: Vec<Vec<(u64, Message)>>,
    /// `user_status_events`, as they arrived.
    pub statuses: Vec<StatusEvent>,
    /// `undelivered_events`, with the time of arrival.
    pub undelivered: Vec<(u64, Message)>,
    sessions: BTreeMap<u64, usize>,
    /// Sessions whose sockets take nothing.
    pub stalled: BTreeSet<u64>,
    /// Frames and bytes, of messages and of signals.
    undrained: BTreeMap<u64, [(usize, usize); 2]>,
    pub frames: Vec<(u64, ServerFrame)>,
    pub closes: Vec<(u64, CloseCode)>,
    /// To commands of the server API.
    pub answers: Vec<(CallKey, Reply)>,
    pub replaced: Vec<usize>,
    pub forgotten: Vec<usize>,
    /// Who reads a partition of `client_results`, and pages that are done with.
    pub readings: BTreeMap<u32, (usize, u64)>,
    pub handed_out: Vec<(u32, u64)>,
    pending: BTreeMap<(u64, u64), (usize, Input)>,
    next: u64,
}

impl Harness {
    /// Vnode `v` is assigned to node `homes[v]`, and ready there.
    pub(crate) fn new(homes: &[usize], off: Option<Rule>) -> Self {
        Self::with(homes, off, |_| {})
    }

    pub(crate) fn with(homes: &[usize], off: Option<Rule>, set: impl Fn(&mut CoreConfig)) -> Self {
        let vnodes = homes.len() as u32;
        let mut control = Control::default();
        let data_set = control.open_ring(vnodes, DataSet("d0".into())).unwrap();
        control.lead(&Lead { data_set, token: LEADER.into(), frozen: None });
        let mut harness = Self {
            now: 0,
            tick_ms: 50,
            nodes: Vec::new(),
            control,
            data: vec![VnodeData::default(); homes.len()],
            store: StoreConfig { lease_ttl_ms: LEASE_TTL_MS, ..StoreConfig::default() },
            off,
            asleep: BTreeSet::new(),
            backlog: BTreeMap::new(),
            no_store: BTreeSet::new(),
            road: Box::new(|_, _| Road::Goes),
            on_road: Vec::new(),
            not_taken: 0,
            links: false,
            misdirect: false,
            linked: BTreeMap::new(),
            aboard: Box::new(|_, _| true),
            by_link: Vec::new(),
            activations_untold: 0,
            sent: Vec::new(),
            writes: Box::new(|_| Reach::Answered),
            late_writes: Vec::new(),
            no_log: BTreeSet::new(),
            unlogged: Vec::new(),
            log_end_known: true,
            log_end_asked: 0,
            live: live::Live::default(),
            chat: (0..vnodes).map(|_| Vec::new()).collect(),
            statuses: Vec::new(),
            undelivered: Vec::new(),
            sessions: BTreeMap::new(),
            stalled: BTreeSet::new(),
            undrained: BTreeMap::new(),
            frames: Vec::new(),
            closes: Vec::new(),
            answers: Vec::new(),
            replaced: Vec::new(),
            forgotten: Vec::new(),
            readings: BTreeMap::new(),
            handed_out: Vec::new(),
            pending: BTreeMap::new(),
            next: 0,
        };
        for (v, node) in homes.iter().enumerate() {
            harness.assign(v, *node);
        }
        for i in 0..=homes.iter().copied().max().unwrap_or(0) {
            harness.start(i, 0, &set);
        }
        harness.run(2000);
        let table = harness.control.table(harness.store_now());
        assert_eq!(table.rows.values().filter(|r| r.ready).count(), homes.len(), "everything is ready");
        harness
    }

    /// A process of node `i`, its clock so much behind; it is known by the index that is returned.
    pub(crate) fn start(&mut self, i: usize, behind_ms: u64, set: &impl Fn(&mut CoreConfig)) -> usize {
        let mut cfg = CoreConfig::new(node(i));
        cfg.url = format!("ws://n{i}");
        (cfg.vnodes, cfg.partitions) = (self.data.len() as u32, self.data.len() as u32);
        cfg.lease_ttl_ms = LEASE_TTL_MS;
        (cfg.commands_per_s, cfg.commands_burst) = (100_000, 100_000);
        cfg.shares = ShareConfig::unlimited();
        cfg.random = self.nodes.len() as u32;
        cfg.off = self.off;
        set(&mut cfg);
        let now = self.clock();
        self.nodes.push(NodeCore::new(cfg, Now { wall: now.wall - behind_ms, ..now }));
        let at = self.nodes.len() - 1;
        self.look(at);
        at
    }

    pub(crate) fn clock(&self) -> Now {
        Now { mono: self.now, wall: WALL + self.now, us: self.now * 1000 }
    }

    pub(crate) fn store_now(&self) -> u64 {
        WALL + self.now
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let tick = (self.now / self.tick_ms + 1) * self.tick_ms;
            let due = self.pending.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            // What is due at a tick comes after it: no tick is left out.
            if due <= end && due < tick {
                self.now = due.max(self.now);
                let (_, (node, event)) = self.pending.pop_first().unwrap();
                self.give(node, event);
            } else if tick <= end {
                self.now = tick;
                self.tick();
            } else {
                self.now = end;
                return;
            }
        }
    }

    fn tick(&mut self) {
        for node in 0..self.nodes.len() {
            if self.asleep.contains(&node) {
                continue;
            }
            if self.now.is_multiple_of(1000) {
                self.look(node);
            }
            self.give(node, Input::Tick);
        }
    }

    /// Node `node` reads the table.
    pub(crate) fn look(&mut self, node: usize) {
        if !self.no_store.contains(&node) {
            let table = Box::new(self.control.table(self.store_now()));
            self.later(STORE_MS, node, Input::View(table));
        }
    }

    pub(crate) fn give(&mut self, node: usize, event: Input) {
        if self.asleep.contains(&node) {
            return self.backlog.entry(node).or_default().push(event);
        }
        let now = self.clock();
        for action in self.nodes[node].step(event, now) {
            self.act(node, action);
        }
    }

    /// Hands a sleeping process something before all that waits for it.
    pub(crate) fn give_first(&mut self, node: usize, event: Input) {
        self.backlog.entry(node).or_default().insert(0, event);
    }

    /// The scheduler stops a process, and lets it go on with all that came in the meantime.
    pub(crate) fn freeze(&mut self, node: usize) {
        self.asleep.insert(node);
    }

    pub(crate) fn thaw(&mut self, node: usize) {
        self.asleep.remove(&node);
        for event in self.backlog.remove(&node).unwrap_or_default() {
            self.give(node, event);
        }
    }

    /// Lets everything held on the road arrive, and holds no more.
    pub(crate) fn clear_road(&mut self) {
        self.road = Box::new(|_, _| Road::Goes);
        for (node, event) in std::mem::take(&mut self.on_road) {
            self.later(ROAD_MS, node, event);
        }
    }

    /// The writes that were under way or late arrive.
    pub(crate) fn land(&mut self) {
        for w in std::mem::take(&mut self.late_writes) {
            let vnode = w.write.fence.vnode;
            let answer = self.write(&w.write);
            if w.answered {
                self.later(STORE_MS, w.node, Input::Written { vnode, call: w.call, answer: Some(answer) });
            }
        }
    }

    /// The log takes what it was given, and more.
    pub(crate) fn log_again(&mut self) {
        self.no_log.clear();
        for (node, record) in std::mem::take(&mut self.unlogged) {
            self.log(node, record);
        }
    }

    pub(crate) fn assign(&mut self, vnode: usize, to: usize) {
        let from_version = self.control.table(0).assignment.version;
        let targets = vec![(VnodeId(vnode as u16), node(to))];
        let data_set = self.control.data_set.clone();
        assert!(self.control.assign(&Assign { data_set, token: LEADER.into(), from_version, targets }));
    }

    /// The leader declares the node dead.
    pub(crate) fn revoke(&mut self, i: usize) {
        let row = self.control.table(0).nodes[&node(i)].clone();
        let data_set = self.control.data_set.clone();
        let revoke = Revoke { data_set, token: LEADER.into(), sid: row.sid, beat: row.beat };
        assert!(self.control.revoke(&revoke));
    }

    /// The leader removes the row of a node that is revoked.
    pub(crate) fn forget(&mut self, i: usize) {
        let (data_set, token) = (self.control.data_set.clone(), LEADER.into());
        let sid = self.control.sid_of(&node(i)).unwrap().clone();
        assert!(self.control.forget(&Forget { data_set, token, sid, gone_for_s: None }));
    }

    pub(crate) fn connect(&mut self, node: usize, user: &str) -> u64 {
        self.connect_at(node, user, None, None)
    }

    /// Returns the session's key; it is placed when time passes.
    pub(crate) fn connect_at(
        &mut self,
        node: usize,
        user: &str,
        device: Option<&str>,
        cursor: Option<Cursor>,
    ) -> u64 {
        let key = self.sessions.len() as u64 + 1;
        self.sessions.insert(key, node);
        let device = device.map(|d| DeviceId::new(d).unwrap());
        let (session, user) = (SessionKey(key), UserId::new(user).unwrap());
        let rights = Rights::default();
        let connecting = Connecting { session, user, device, rights, epoch: None, cursor, rooms: Vec::new() };
        self.give(node, Input::Connect(Box::new(connecting)));
        self.run(50);
        key
    }

    pub(crate) fn hang_up(&mut self, session: u64) {
        self.give(self.sessions[&session], Input::Closed { session: SessionKey(session) });
    }

    pub(crate) fn say(&mut self, session: u64, to: &str, id: &str) {
        self.say_this(session, to, id, "{}");
    }

    pub(crate) fn say_this(&mut self, session: u64, to: &str, id: &str, data: &str) {
        self.say_asking(session, to, id, data, false);
    }

    /// Says something and wants to know what becomes of it.
    pub(crate) fn say_with_receipt(&mut self, session: u64, to: &str, id: &str) {
        self.say_asking(session, to, id, "{}", true);
    }

    fn say_asking(&mut self, session: u64, to: &str, id: &str, data: &str, receipt: bool) {
        let data = RawValue::from_string(data.into()).unwrap();
        let send = Send { id: MessageId::new(id).unwrap(), to: UserId::new(to).unwrap(), data, receipt };
        self.command(session, Command::Send(send));
    }

    pub(crate) fn ack(&mut self, session: u64, cursor: Cursor) {
        self.command(session, Command::Ack(cursor));
    }

    pub(crate) fn read(&mut self, session: u64, cursor: Cursor) {
        self.command(session, Command::Read(cursor));
    }

    pub(crate) fn choose(&mut self, session: u64, status: ChosenStatus, id: &str) {
        let id = MessageId::new(id).unwrap();
        self.command(session, Command::Status(SetStatus { id, status }));
    }

    pub(crate) fn watch(&mut self, session: u64, users: &[&str], id: &str) {
        self.command(session, Command::Watch(of_users(users, id)));
    }

    pub(crate) fn unwatch(&mut self, session: u64, users: &[&str], id: &str) {
        self.command(session, Command::Unwatch(of_users(users, id)));
    }

    /// The store comes up with what it had, as another data set; the first connection says so.
    pub(crate) fn another_data_set(&mut self) {
        let settling = self.store_now() + LEASE_TTL_MS;
        self.control.new_data_set(self.data.len() as u32, self.another_name(), settling);
    }

    fn another_name(&self) -> DataSet {
        DataSet(format!("{}'", self.control.data_set.0))
    }

    /// The store comes up empty, under another name.
    pub(crate) fn wipe(&mut self) {
        let (vnodes, name) = (self.data.len() as u32, self.another_name());
        self.data = vec![VnodeData::default(); self.data.len()];
        self.control = Control::default();
        let data_set = self.control.open_ring(vnodes, name).unwrap();
        self.control.lead(&Lead { data_set, token: LEADER.into(), frozen: None });
    }

    /// The socket takes everything it was handed.
    pub(crate) fn drain(&mut self, session: u64) {
        self.stalled.remove(&session);
        let [messages, signals] = self.undrained.remove(&session).unwrap_or_default();
        let session = SessionKey(session);
        self.give(self.sessions[&session.0], Input::Drained { session, messages, signals });
    }
}

fn node(i: usize) -> NodeId {
    NodeId::new(format!("n{i}")).unwrap()
}

fn of_users(users: &[&str], id: &str) -> OfUsers {
    let users = users.iter().map(|user| UserId::new(user).unwrap()).collect();
    OfUsers { id: MessageId::new(id).unwrap(), users }
}
