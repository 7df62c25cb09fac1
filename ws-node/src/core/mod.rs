//! The protocol core of a ws-node: everything it decides, as one state machine.
//!
//! `step(event, now)` takes what happened and returns what to do; there is no clock, no socket and no back end in
//! here. The node's task ([`crate::node`]) carries actions out and brings their answers back as events; the
//! simulation in `tests/` does the same with faults. A file per noun: [`channel`] (what this node has for
//! others), [`home`] (a vnode that lives here) with its [`outbox`], [`ownership`], [`sessions`], [`presence`].
//! The rule numbers in comments are those of `docs/decisions/0001-protocol-core.md`.

mod answering;
pub mod ask;
mod asker;
pub mod blocked;
mod budget;
pub mod calls;
mod canary;
pub mod channel;
pub mod command;
pub mod config;
pub mod credit;
mod delivery;
mod due;
pub mod events;
pub mod explain;
mod flow;
mod following;
mod handover;
pub mod history;
pub mod home;
mod homes;
mod kept;
pub mod limit;
mod message;
mod most;
mod outbox;
mod ownership;
mod pace;
mod places;
mod presence;
mod proof;
mod reader;
mod reads;
mod recall;
mod receipts;
mod refresh;
mod results;
pub mod rooms;
mod saying;
mod sending;
pub mod session;
mod sessions;
pub mod shares;
mod signals;
pub mod tickets;
mod view;
mod watching;
mod writes;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use roost_backend::store::{LiveChannel, NodeState, Table};
use roost_proto::ids::{Epoch, NodeId, Seq, Sid, StreamId, VnodeId};
use roost_proto::records::Record;

pub use ask::Ask;
use budget::Budget;
use canary::Canary;
use channel::Channel;
pub use command::Command;
pub use config::{CoreConfig, Rule};
pub use events::{Action, CallKey, Event, Now, Observation, SessionKey};
use home::Home;
use kept::Kept;
use outbox::Outbox;
use pace::{Accepting, Pace};
use reads::Reads;
use results::Results;
use rooms::Rooms;
use session::Session;
use shares::Shares;
use watching::Watching;
use writes::Writes;

/// Whether this process has a registered life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    No,
    Asked {
        at: u64,
    },
    Yes,
    /// It was forgotten, and the process ends.
    Over,
}

/// What a produced record was, to understand its report.
#[derive(Debug, Clone, Copy)]
enum Token {
    Item {
        vnode: VnodeId,
        chan: u64,
        round: u32,
        n: u64,
    },
    Event {
        vnode: VnodeId,
        epoch: Epoch,
        seq: u64,
    },
    Told {
        call: CallKey,
    },
    /// Of the result with this number.
    Refused {
        result: u64,
    },
    Other,
}

/// Least time between reads of the table that were asked for, in milliseconds.
const REFRESH_MS: u64 = 100;

/// Numbers for the metrics; only ever grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub sends: u64,
    pub refused: u64,
    pub appended: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub delivered: u64,
    pub replayed: u64,
    pub replies_ok: u64,
    pub replies_unknown: u64,
    pub confirms: u64,
    pub asks: u64,
    pub probes: u64,
    pub void_records: u64,
    pub undecodable: u64,
    pub writes: u64,
    pub writes_unknown: u64,
    /// Writes refused because the fence no longer held (`deposed`, `lost`, `rewound`).
    pub writes_fenced: u64,
    pub claims: u64,
    pub handoffs: u64,
    pub takeovers: u64,
    pub suspensions: u64,
    pub generations_begun: u64,
    pub status_events: u64,
    /// Messages that nobody acknowledged in time.
    pub undelivered: u64,
    /// Receipts that their senders' homes have confirmed.
    pub receipts: u64,
    /// Acknowledgements that no home could hear, and for which there was no room.
    pub acks_not_kept: u64,
    /// Events of clients that went out, and those that were without a result in time.
    pub events: u64,
    pub events_timed_out: u64,
    /// Results that their clients' homes have confirmed; those that came before with another body; those for clients
    /// that nobody knows; and those that cannot be read.
    pub results: u64,
    pub results_conflicting: u64,
    pub results_refused: u64,
    pub results_malformed: u64,
    /// Publications that only the comparison of tails found.
    pub found_by_tail: u64,
    pub signals: u64,
    pub signals_dropped: u64,
    /// Frames to watchers about a change of presence, and changes that were not heard of but read.
    pub presence_told: u64,
    pub presence_found: u64,
    pub moved: u64,
    /// Newcomers beyond their user's limit.
    pub sessions_refused: u64,
    /// Sessions that gave way to a newcomer of their user.
    pub sessions_replaced: u64,
    /// Sessions closed by the server API.
    pub sessions_disconnected: u64,
    pub refreshed: u64,
    pub refreshes_refused: u64,
}

/// The state of one node. See the module's text.
pub struct NodeCore {
    cfg: CoreConfig,
    sid: Sid,
    registration: Registration,
    /// This sid was registered once: a later one of this node is a successor, not a clock ahead.
    registered_before: bool,
    /// When that was last heard: what is asked from then on is asked for this sid, under this data set.
    registered_at: u64,
    state: NodeState,
    /// The table as last read, corrected by what this node knows better.
    view: Table,
    /// The highest epoch seen of each vnode.
    epochs: Vec<Epoch>,
    /// Where this process left vnodes that it had: generation and seq (rule 17).
    left: BTreeMap<VnodeId, (Epoch, Seq)>,
    /// For each node the others that have something to hand over to it.
    givers: BTreeMap<NodeId, BTreeSet<NodeId>>,
    homes: BTreeMap<VnodeId, Home>,
    /// Vnodes being claimed.
    claims: BTreeMap<VnodeId, ownership::Claiming>,
    /// The users of homes that ended here, until another's home knows them.
    remembered: BTreeMap<VnodeId, recall::Remembered>,
    /// What was acknowledged and no home has written yet.
    kept: Kept,
    /// Outboxes of homes that ended with events not yet in the log.
    leftovers: BTreeMap<(VnodeId, Epoch), Outbox>,
    channels: BTreeMap<VnodeId, Channel>,
    next_chan: u64,
    /// Counts sends of this node's sessions.
    next_arrival: u64,
    sessions: BTreeMap<SessionKey, Session>,
    /// What users have of what all of them share.
    shares: Shares,
    /// Bytes on their way to sockets.
    budget: Budget,
    /// What goes to the store and may be much.
    reads: Reads,
    writes: Writes,
    rooms: Rooms,
    results: Results,
    watching: Watching,
    /// The sessions of each vnode, by the inbox they read.
    by_vnode: BTreeMap<VnodeId, BTreeMap<StreamId, Vec<SessionKey>>>,
    /// Newcomers this node takes, and sessions it sends to others.
    accepting: Accepting,
    pace: Pace,
    canary: Canary,
    /// Commands of the server API that every node is being told.
    telling: BTreeMap<CallKey, calls::Telling>,
    tokens: HashMap<u64, Token>,
    next_token: u64,
    next_call: u64,
    topics: HashMap<NodeId, Arc<str>>,
    /// Records for this very node: handled before the step ends.
    local: VecDeque<Record>,
    /// Homes whose confirms are to be sent when the step ends.
    dirty: BTreeSet<VnodeId>,
    /// By the wall clock, which goes on while the machine sleeps: when this node last heard that it is registered.
    renewed_at: u64,
    renewing: Option<u64>,
    view_at: u64,
    /// Not before then is the table asked for out of turn.
    refresh_at: u64,
    swept_at: u64,
    /// Since when the log has not answered.
    no_log_since: Option<u64>,
    /// Messages appended, at the last renewal: for the load in the node's row.
    rate_mark: (u64, u64),
    rate: f64,
    counters: Counters,
    out: Vec<Action>,
}

impl NodeCore {
    // Whatever is iterated is ordered, so that the same events give the same actions.

    /// A node that knows nothing yet; it registers when it has seen the table.
    pub fn new(cfg: CoreConfig, now: Now) -> Self {
        let sid = Sid::new(&cfg.node, now.wall, cfg.random);
        Self {
            epochs: vec![Epoch(0); cfg.vnodes as usize],
            left: BTreeMap::new(),
            givers: BTreeMap::new(),
            sid,
            registration: Registration::No,
            registered_before: false,
            registered_at: 0,
            state: NodeState::Up,
            view: Table::default(),
            homes: BTreeMap::new(),
            claims: BTreeMap::new(),
            remembered: BTreeMap::new(),
            kept: Kept::default(),
            leftovers: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_chan: 1,
            next_arrival: 1,
            sessions: BTreeMap::new(),
            shares: Shares::new(cfg.shares),
            budget: Budget::new(cfg.credit_bytes),
            reads: Reads::default(),
            writes: Writes::default(),
            rooms: Rooms::default(),
            results: Results::default(),
            watching: Watching::default(),
            by_vnode: BTreeMap::new(),
            accepting: Accepting::new(cfg.accepts_per_s),
            pace: Pace::default(),
            canary: Canary::default(),
            telling: BTreeMap::new(),
            tokens: HashMap::new(),
            next_token: 1,
            next_call: 1,
            topics: HashMap::new(),
            local: VecDeque::new(),
            dirty: BTreeSet::new(),
            renewed_at: 0,
            renewing: None,
            view_at: now.mono,
            refresh_at: 0,
            swept_at: 0,
            no_log_since: None,
            rate_mark: (now.mono, 0),
            rate: 0.0,
            counters: Counters::default(),
            out: Vec::new(),
            cfg,
        }
    }

    /// Takes one event and returns what to do about it, in order.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        self.handle(event, now);
        loop {
            while let Some(record) = self.local.pop_front() {
                self.on_record(record, now);
            }
            for vnode in std::mem::take(&mut self.dirty) {
                self.settle_home(vnode, now);
            }
            while let Some(vnode) = self.writes.next() {
                self.write(vnode, now);
            }
            if self.local.is_empty() && self.dirty.is_empty() {
                break;
            }
        }
        self.begin_reads(now);
        std::mem::take(&mut self.out)
    }

    fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Tick => self.on_tick(now),
            Event::View(table) => self.on_view(&table, now),
            Event::Registered(answer) => self.on_registered(answer, now),
            Event::Renewed { sent, rows, answer } => self.on_renewed(sent, &rows, answer, now),
            Event::Claimed { vnode, sent, answer } => self.on_claimed(vnode, sent, answer, now),
            Event::Activated { vnode, epoch, answer } => self.on_activated(vnode, epoch, answer, now),
            Event::Readied { vnode, epoch, answer } => self.on_readied(vnode, epoch, answer, now),
            Event::Released { vnode, epoch } => self.on_released(vnode, epoch, now),
            Event::Written { vnode, call, answer } => self.on_written(vnode, call, answer, now),
            Event::Read { ask, session, stream, generation, after, answer } => {
                self.read_ended(ask, answer.is_some());
                self.on_read(session, &stream, generation, after, answer, now);
            }
            Event::LogEnd { session, ask, partition, answer } => {
                self.on_log_end(session, ask, partition, answer, now);
            }
            Event::LogAnswers(true) => self.no_log_since = None,
            Event::LogAnswers(false) => drop(self.no_log_since.get_or_insert(now.mono)),
            Event::Reported { token, ok } => self.on_reported(token, ok, now),
            Event::Record(record) => self.on_record(record, now),
            Event::Undecodable => self.on_undecodable(),
            Event::Connect(connect) => self.on_connect(*connect, now),
            Event::Command { session, command } => self.on_command(session, command, now),
            Event::Results { partition, ask, records } => self.on_results(partition, ask, records, now),
            Event::Followed { channel: LiveChannel::Presence(vnode), ask, done } => {
                self.on_presence_followed(vnode, ask, done, now);
            }
            Event::Followed { channel, ask, done } => self.on_followed(&channel, ask, done, now),
            Event::Live { channel, payload } => self.on_live(&channel, &payload, now),
            Event::Missed => self.compare_soon(now),
            Event::Standings { rooms, answer } => self.on_standings(&rooms, answer, now),
            Event::PresenceRead { vnode, users, ask, answer } => {
                self.on_presence_read(vnode, users, ask, answer, now);
            }
            Event::PresenceStandings { vnodes, answer } => self.on_presence_standings(&vnodes, answer, now),
            Event::Drained { session, messages, signals } => {
                if messages.0 > 0 {
                    self.on_drained(session, messages, now);
                }
                if signals.0 > 0 {
                    self.signals_drained(session, signals, now);
                }
            }
            Event::Paged { ask, session, id, stream, before, answer } => {
                self.read_ended(ask, answer.is_some());
                self.on_paged(session, &id, &stream, before, answer, now);
            }
            Event::Calls(calls) => self.on_calls(calls, now),
            Event::Closed { session } => self.on_closed(session, now),
            Event::Drain => self.on_drain(now),
            Event::Undrain => self.on_undrain(now),
            Event::ReleaseAll => self.release_all(now),
        }
    }

    fn on_record(&mut self, record: Record, now: Now) {
        match record {
            Record::Item(item) => self.on_item(item, now),
            Record::Confirm(confirm) => self.on_confirm(confirm, now),
            Record::Probe(probe) => self.on_probe(&probe),
            Record::Took(took) => self.on_took(&took, now),
            Record::Recall(recall) => self.on_recall(recall, now),
            Record::Recalled(recalled) => self.on_recalled(&recalled),
            Record::Disconnect(disconnect) => self.on_disconnect(&disconnect, now),
        }
    }

    /// Hands a record to the node it is for: a call for this one (rule 5), the transport for others.
    fn transport(&mut self, to: &NodeId, vnode: VnodeId, record: Record, token: Token) {
        if *to == self.cfg.node {
            self.local.push_back(record);
            return;
        }
        let topic = self
            .topics
            .entry(to.clone())
            .or_insert_with(|| Arc::from(roost_proto::events::messages_topic(to)))
            .clone();
        let payload = serde_json::to_vec(&record).expect("records always encode").into();
        let token = self.token(token);
        self.out.push(Action::Produce {
            lane: roost_backend::log::Lane::Transport,
            record: roost_backend::log::Outgoing {
                topic,
                partition: self.cfg.partition(vnode),
                key: vnode.to_string().into(),
                payload,
                token,
            },
        });
    }

    /// Has the table read now, at most ten times a second: what is waited for may take longer than a read.
    fn refresh(&mut self, now: Now) {
        if now.mono >= self.refresh_at {
            self.refresh_at = now.mono + REFRESH_MS;
            self.out.push(Action::Refresh);
        }
    }

    fn token(&mut self, what: Token) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.tokens.insert(token, what);
        token
    }

    fn vnode_of(&self, stream: &StreamId) -> VnodeId {
        roost_ring::vnode_of_stream(stream, self.cfg.vnodes)
    }

    fn on_tick(&mut self, now: Now) {
        self.tick_ownership(now);
        self.tick_homes(now);
        self.tick_kept(now);
        self.tick_channels(now);
        self.tick_shares(now);
        self.tick_canary(now);
        self.tick_telling(now);
        self.tick_sessions(now);
        self.tick_rooms(now);
        self.tick_watching(now);
        self.tick_results(now);
    }

    pub fn sid(&self) -> &Sid {
        &self.sid
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the gauges show.
    pub fn gauges(&self, now: Now) -> events::Gauges {
        let leases = self.homes.values().map(|h| h.lease_until.saturating_sub(now.mono));
        events::Gauges {
            sessions: self.sessions.len(),
            rooms: self.rooms.count(),
            listeners: self.rooms.listeners(),
            watched: self.watching.users(),
            watchers: self.watching.watchers(),
            owned: self.homes.len(),
            ready: self.homes.values().filter(|h| h.serving(now)).count(),
            lease_left_ms: leases.min(),
            outbox: self.homes.values().map(Home::outbox_len).sum(),
            channel_items: self.channels.values().map(Channel::len).sum(),
            view_age_ms: now.mono.saturating_sub(self.view_at),
            assigned: !self.view.assignment.targets.is_empty()
                || !self.cfg.pinned.is_empty()
                || !self.homes.is_empty(),
            registered: self.registration == Registration::Yes,
            canary_age_ms: self.canary.age_ms(now.mono),
            canary_took_ms: self.canary.took_ms(),
            accepts_per_s: self.accepting.per_s(),
            write_bytes: self.writes.bytes(),
            read_bytes: self.reads.bytes(),
            socket_bytes: self.budget.bytes(),
            draining: self.state == NodeState::Draining,
        }
    }

    /// Whether the node stops and has handed everything over.
    pub fn is_empty_handed(&self) -> bool {
        self.state == NodeState::Draining
            && self.homes.is_empty()
            && self.claims.is_empty()
            && self.leftovers.is_empty()
    }

    /// Whether any item still waits for its confirm, or what was acknowledged for a home that hears it.
    pub fn has_unconfirmed(&self) -> bool {
        self.channels.values().any(|c| !c.is_empty()) || self.kept.has_unheard()
    }
}
