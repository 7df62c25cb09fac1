//! The processes of the ws-nodes: a real core each, and what its carrier would do for it.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt;
use roost_backend::store::{Deregister, OwnRows};
use roost_proto::ids::NodeId;
use roost_ws_node::core::{
    Action, Ask, Command, CoreConfig, Ending, Input, ItemLane, NodeCore, Now, SendQueue, SessionKey,
    ShareConfig, Taken,
};

use super::store::Peer;
use super::{
    Broken, EVENT_TIMEOUT_MS, GRACE_MS, Happening, LEASE_TTL_MS, LINGER_MS, Story, TICK_MS,
    UNDELIVERED_AFTER_MS, WALL, World, store,
};

/// One process of a ws-node.
pub(crate) struct Process {
    pub node: NodeId,
    pub core: Option<NodeCore>,
    /// Stopped by the scheduler until then; what arrives waits.
    pub paused_until: u64,
    backlog: VecDeque<Input>,
    /// What the turn that it gathers for has so far; none gathers if this is empty.
    gathered: VecDeque<Input>,
    /// Which forms of records it understands.
    pub reads: u32,
    /// Cut off until then.
    pub no_store_until: u64,
    pub no_log_until: u64,
    pub isolated_until: u64,
    /// Until when it was paused or cut off before the faults ended.
    pub troubled_until: u64,
    /// By how much its wall clock is off: read at its start, carried on by the monotonic one.
    skew: i64,
    canaries: bool,
    /// Frames on credit for one socket, of each queue.
    credit: [(usize, usize); 2],
    taken: BTreeMap<SessionKey, Taken>,
    /// When the last publication reaches it.
    pub heard_at: u64,
    /// It takes no new connections any more.
    pub closing: bool,
    /// It ended in good order: what it had produced is out.
    pub flushed: bool,
}

/// How far a planned stop has come: as `Server::shutdown` in `ws-node/src/server.rs`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    step: Step,
    /// When this step ends at the latest.
    until: u64,
    /// When another process of the node starts, after the end of this one.
    back_after: Option<u64>,
    /// Vnodes left, and since when.
    left: (usize, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    HandOver,
    Release,
    Sessions,
}

/// Between two canaries of a node, where there are any.
pub(super) const CANARY_MS: u64 = 2000;
/// How often a node asks whether the log answers.
const ASK_LOG_MS: u64 = 1000;
/// The whole of a planned stop.
pub(super) const STOP_GRACE_MS: u64 = 10_000;
/// Without a vnode fewer for this long the handover has stalled.
const HANDOFF_STALLS_MS: u64 = 2000;

impl Process {
    /// Where its admin port is: with its node's, as a successor would have it.
    pub(crate) fn admin(&self) -> &str {
        self.node.as_str()
    }

    /// Until when it was last paused or cut off.
    pub(crate) fn troubled_until(&self) -> u64 {
        let cut = self.no_store_until.max(self.no_log_until).max(self.isolated_until);
        self.troubled_until.max(self.paused_until).max(cut)
    }

    /// How long ago its last message to itself that got through was sent, if it lives and sends any.
    pub(crate) fn canary_age_ms(&self, now: u64) -> Option<u64> {
        let core = self.core.as_ref().filter(|_| self.canaries)?;
        Some(core.gauges(Now { mono: now, ..Now::default() }).canary_age_ms)
    }
}

impl World {
    pub(crate) fn core_config(&mut self, node: &NodeId) -> CoreConfig {
        let mut cfg = CoreConfig::new(node.clone());
        cfg.url = format!("ws://{node}/socket");
        cfg.admin = node.to_string();
        cfg.vnodes = self.setup.vnodes;
        cfg.partitions = self.setup.vnodes;
        cfg.lease_ttl_ms = LEASE_TTL_MS;
        cfg.linger_ms = LINGER_MS;
        cfg.grace_ms = GRACE_MS;
        cfg.undelivered_after_ms = UNDELIVERED_AFTER_MS;
        cfg.event_timeout_ms = EVENT_TIMEOUT_MS;
        cfg.random = self.rng.random();
        cfg.channel_items_max = 12;
        cfg.queue_max = 6;
        cfg.outbox_max = 8;
        cfg.batch_max = 3;
        cfg.credit = 3;
        // Fewer than that of the larger messages.
        (cfg.credit_bytes, cfg.signal_credit_bytes) = (1000, 1000);
        // Refusals in the middle of a stream; in the other stories nothing is late.
        if self.setup.seed % 3 == 1 && self.setup.story == Story::Faults {
            cfg.shares = ShareConfig {
                to_one: (2, 2),
                to_all: (5, 5),
                from_new: (2, 2),
                new_streams: (3600, 2),
                ..ShareConfig::default()
            };
        }
        cfg.commands_per_s = 1000;
        cfg.commands_burst = 1000;
        cfg.accepts_per_s = 100;
        cfg.canary_every_ms = if self.setup.seed % 4 == 1 { CANARY_MS } else { 0 };
        // An upgrade that is half done.
        if self.setup.seed % 5 == 2 && node.as_str() == "n1" {
            cfg.reads = 0;
        }
        // Some of what a turn has, and not all of it.
        cfg.link_bytes_max = 1500;
        if self.setup.seed % 7 == 3 {
            cfg.item_lane = ItemLane::Topic;
        }
        cfg.off = self.setup.off;
        if self.is_broken(Broken::NoGrace) {
            cfg.grace_ms = 0;
        }
        if self.is_broken(Broken::NoLinger) {
            cfg.linger_ms = 0;
        }
        cfg
    }

    pub(crate) fn start(&mut self, node: NodeId) {
        let mut cfg = self.core_config(&node);
        cfg.open_rooms = true;
        let pid = self.processes.len();
        let skew = self.node_skew.get(&node).copied().unwrap_or(0);
        let canaries = cfg.canary_every_ms > 0;
        let credit = [(cfg.credit, cfg.credit_bytes), (cfg.signal_credit, cfg.signal_credit_bytes)];
        let reads = cfg.reads;
        let core = NodeCore::new(cfg, self.clock(skew));
        self.note(|| format!("p{pid} starts as {} ({node})", core.sid()));
        self.processes.push(Process {
            node,
            core: Some(core),
            paused_until: 0,
            backlog: VecDeque::new(),
            gathered: VecDeque::new(),
            reads,
            no_store_until: 0,
            no_log_until: 0,
            isolated_until: 0,
            troubled_until: 0,
            skew,
            canaries,
            credit,
            taken: BTreeMap::new(),
            heard_at: 0,
            closing: false,
            flushed: false,
        });
        let phase = self.between(0, TICK_MS);
        self.at(self.now + phase, Happening::Tick { pid });
        self.at(self.now + ASK_LOG_MS, Happening::AskLog { pid });
        self.at(self.now, Happening::ReadTable { peer: Peer::Node(pid), periodic: true });
    }

    fn clock(&self, skew: i64) -> Now {
        let wall = (WALL + self.now).saturating_add_signed(skew);
        Now { mono: self.now, wall, us: self.now * 1000 }
    }

    pub(crate) fn ask_log(&mut self, pid: usize) {
        if self.processes[pid].core.is_none() {
            return;
        }
        self.at(self.now + ASK_LOG_MS, Happening::AskLog { pid });
        let answers = self.now >= self.log.down_until.max(self.processes[pid].no_log_until);
        let after = if answers { 2 } else { 400 };
        let event = Box::new(Input::LogAnswers(answers));
        self.at(self.now + after, Happening::ToCore { pid, event });
    }

    /// Begins a planned stop.
    pub(crate) fn stop(&mut self, pid: usize, back_after: Option<u64>) {
        self.core_gets(pid, Input::Drain);
        if self.is_broken(Broken::DrainEndsAtOnce) {
            return self.end(pid, back_after);
        }
        if self.is_broken(Broken::DrainReleasesEarly) {
            self.release_behind(pid);
        }
        let until = self.now + STOP_GRACE_MS * 6 / 10;
        let stop = Stop { step: Step::HandOver, until, back_after, left: (usize::MAX, self.now) };
        self.at(self.now + 20, Happening::Stopping { pid, stop });
    }

    pub(crate) fn stopping(&mut self, pid: usize, mut stop: Stop) {
        let now = self.now;
        let clock = self.clock(self.processes[pid].skew);
        let process = &mut self.processes[pid];
        let Some(core) = &process.core else { return };
        if now < process.paused_until {
            let at = process.paused_until + 1;
            return self.at(at, Happening::Stopping { pid, stop });
        }
        let gauges = core.gauges(clock);
        let empty = core.is_empty_handed();
        let idle = gauges.sessions == 0 && !core.has_unconfirmed();
        if gauges.owned < stop.left.0 {
            stop.left = (gauges.owned, now);
        }
        match stop.step {
            Step::HandOver if empty => (stop.step, stop.until) = (Step::Sessions, now + STOP_GRACE_MS / 5),
            Step::HandOver if now >= stop.until || now >= stop.left.1 + HANDOFF_STALLS_MS => {
                (stop.step, stop.until) = (Step::Release, now + STOP_GRACE_MS / 5);
                self.core_gets(pid, Input::ReleaseAll);
            }
            Step::Release if empty || now >= stop.until => {
                (stop.step, stop.until) = (Step::Sessions, now + STOP_GRACE_MS / 5);
            }
            Step::Sessions if idle || now >= stop.until => return self.end(pid, stop.back_after),
            Step::HandOver | Step::Release => {}
            Step::Sessions => process.closing = true,
        }
        self.at(now + 20, Happening::Stopping { pid, stop });
    }

    /// Gives up the rows of a process that knows nothing of it.
    fn release_behind(&mut self, pid: usize) {
        let Some(sid) = self.processes[pid].core.as_ref().map(|c| c.sid().clone()) else { return };
        let table = self.control.table(self.store_now());
        let rows: Vec<_> =
            table.rows.iter().filter(|(_, row)| row.sid == sid).map(|(v, row)| (*v, row.epoch)).collect();
        let request = OwnRows { data_set: table.data_set, sid, rows };
        let released = self.control.release(&request, self.store_now());
        for ((vnode, epoch), released) in request.rows.iter().zip(released) {
            if released {
                self.saw_released(*vnode, *epoch, &request.sid);
            }
        }
    }

    fn end(&mut self, pid: usize, back_after: Option<u64>) {
        self.processes[pid].flushed = true;
        if let Some(core) = &self.processes[pid].core {
            let (data_set, sid) = (self.control.data_set.clone(), core.sid().clone());
            let leave = Deregister { data_set, sid, tombstone: self.setup.seed.is_multiple_of(2) };
            self.ask_store(Peer::Node(pid), store::Request::Deregister(leave));
        }
        self.kill(pid);
        if let Some(after) = back_after {
            let node = self.processes[pid].node.clone();
            self.at(self.now + after, Happening::Start { node });
        }
    }

    pub(crate) fn kill(&mut self, pid: usize) {
        let Some(core) = self.processes[pid].core.take() else { return };
        self.add_totals(&core);
        self.note(|| format!("p{pid} dies"));
        self.cut_links(pid);
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
                self.at(at, Happening::ToClient { user, connection, frame: Err(None) });
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

    pub(crate) fn core_gets(&mut self, pid: usize, event: Input) {
        let process = &mut self.processes[pid];
        if process.core.is_none() {
            return;
        }
        if self.now < process.paused_until {
            // A paused process misses ticks and hears everything else when it wakes.
            if !matches!(event, Input::Tick) {
                if process.backlog.is_empty() {
                    let wake = process.paused_until;
                    process.backlog.push_back(event);
                    self.at(wake, Happening::ToCore { pid, event: Box::new(Input::Tick) });
                } else {
                    process.backlog.push_back(event);
                }
            }
            return;
        }
        let mut events = std::mem::take(&mut process.backlog);
        events.push_back(event);
        // A turn takes what is there: often one thing alone, often more.
        let gathers = !process.gathered.is_empty();
        process.gathered.append(&mut events);
        if gathers {
            return;
        }
        match self.between(0, 3) {
            0 => {
                let at = self.now + self.between(0, 4);
                self.at(at, Happening::Turn { pid });
            }
            _ => self.turn(pid),
        }
    }

    /// What was gathered is decided.
    pub(crate) fn turn(&mut self, pid: usize) {
        let now = self.clock(self.processes[pid].skew);
        let process = &mut self.processes[pid];
        let events = std::mem::take(&mut process.gathered);
        if self.now < process.paused_until {
            for event in events {
                self.core_gets(pid, event);
            }
            return;
        }
        for event in &events {
            if self.trace.is_some() && !matches!(event, Input::Tick | Input::View(_) | Input::Drained { .. })
            {
                self.note(|| format!("p{pid} <- {event:?}"));
            }
            match event {
                Input::Readied { vnode, answer: Some(true), .. } => self.heard_ready(pid, *vnode),
                Input::Closed { session } => self.saw_closed(pid, *session),
                Input::Command { session, command: Command::Ack(cursor) | Command::Read(cursor) } => {
                    self.saw_ack(pid, *session, *cursor);
                }
                _ => {}
            }
        }
        let closed =
            |event: &Input| if let Input::Closed { session } = event { Some(*session) } else { None };
        let closed: Vec<_> = events.iter().filter_map(closed).collect();
        let Some(core) = self.processes[pid].core.as_mut() else { return };
        for action in core.turn(events, || now) {
            self.run_action(pid, action);
        }
        // What was welcomed in the same turn.
        closed.into_iter().for_each(|session| self.saw_closed(pid, session));
    }

    fn run_action(&mut self, pid: usize, action: Action) {
        if let Some(digest) = &mut self.digest {
            digest.add(self.now, pid, &action);
        }
        if self.trace.is_some() && !matches!(action, Action::Observe(..) | Action::RefreshTable) {
            self.note(|| format!("p{pid} -> {action:?}"));
        }
        match action {
            Action::Ask(ask) => {
                if let Ask::Write { write, .. } = &ask {
                    self.saw_presence_of(pid, write);
                }
                self.ask_store(Peer::Node(pid), store::Request::Ask(ask));
            }
            Action::RefreshTable => {
                let at = self.now + self.between(1, 20);
                self.at(at, Happening::ReadTable { peer: Peer::Node(pid), periodic: false });
            }
            Action::LogEnd { session, ask, partition } => self.ask_log_end(pid, session, ask, partition),
            Action::Link(order) => self.link_order(pid, order),
            Action::Produce { durability, record } => self.produce(pid, durability, record),
            Action::Frame { session, frame, queue } => self.send_frame(pid, session, frame, queue),
            Action::Fan { sessions, frame } => {
                for session in sessions {
                    self.send_frame(pid, session, frame.clone(), SendQueue::Message);
                }
            }
            Action::Close { session, code, .. } => self.close_connection(pid, session, code.code()),
            Action::Follow { channel, ask } => self.follow(pid, channel, ask),
            Action::Unfollow { channel } => self.unfollow(pid, &channel),
            Action::Publish { channel, payload } => self.publish(&channel, &payload),
            Action::ReadResults { partition, ask } => self.read_results(pid, partition, ask),
            Action::LeaveResults { partition } => self.leave_results(pid, partition),
            Action::ResultsDone { partition, ask, next } => self.results_done(pid, partition, ask, next),
            // Nobody asks over HTTP.
            Action::Observe(..) | Action::Answer { .. } => {}
            Action::End(Ending::Replaced) => self.kill(pid),
            // As a supervisor does.
            Action::End(Ending::Forgotten) => self.crash(pid, 0),
        }
    }

    fn send_frame(&mut self, pid: usize, session: SessionKey, frame: bytes::Bytes, queue: SendQueue) {
        self.saw_frame(pid, session, &frame);
        let Some(user) = self.clients.iter().position(|c| c.has(pid, session.0)) else { return };
        let (at, bytes) = (self.clients[user].arrival(self.now + self.rng.random_range(1..8)), frame.len());
        self.at(at, Happening::ToClient { user, connection: session.0, frame: Ok(frame) });
        let process = &mut self.processes[pid];
        let [credit, signals] = process.credit;
        let taken = process.taken.entry(session).or_insert_with(|| Taken::new(session, credit, signals));
        taken.take(queue, bytes);
        if let Some(event) = taken.due() {
            self.at(at, Happening::ToCore { pid, event: Box::new(event) });
        }
    }

    fn close_connection(&mut self, pid: usize, session: SessionKey, code: u16) {
        let event = Box::new(Input::Closed { session });
        self.at(self.now + 1, Happening::ToCore { pid, event });
        if let Some(user) = self.clients.iter().position(|c| c.has(pid, session.0)) {
            let at = self.clients[user].arrival(self.now + 2);
            self.at(at, Happening::ToClient { user, connection: session.0, frame: Err(Some(code)) });
        }
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|p| self.processes[*p].core.is_some()).collect()
    }
}
