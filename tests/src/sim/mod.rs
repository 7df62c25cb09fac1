//! A cluster of protocol cores in memory, under one seed: nodes, a store, a log and clients, with faults.
//!
//! Nothing in here knows the rules; it carries out what the cores ask, late, twice or not at all, as real back
//! ends may, and then [`check`] compares the history with the promises. Time is a number; a run of a minute takes
//! milliseconds, and the same seed gives the same run.

mod acknowledged;
pub mod check;
mod client;
mod coordinator;
pub mod digest;
mod faults;
mod joins;
mod link;
mod live;
mod log;
mod memory;
mod process;
mod results;
mod rooms;
mod sdk;
mod share_out;
mod status;
mod store;
mod story;
mod watch;
mod watcher;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roost_backend::store::model::{Control, VnodeData};
use roost_backend::store::{LiveChannel, StoreConfig};
use roost_client::bare::Input;
use roost_coordinator::leader::LeaderEvent;
use roost_proto::ids::{NodeId, VnodeId};
use roost_ws_node::core::Input as CoreInput;
use roost_ws_node::core::Rule;

use client::Client;
use coordinator::Coordinator;
pub use faults::Fault;
use log::SimLog;
use process::{Process, Stop};
pub use share_out::share_out;
use store::Peer;
pub(crate) use story::Book;
pub use story::Story;
use watch::Watch;

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
    pub story: Story,
    /// A rule that is not kept, to see that the checks notice.
    pub off: Option<Rule>,
    /// Something around the cores that is not as it should be, for the same reason.
    pub broken: Option<Broken>,
}

/// What is broken in what carries the cores, or in what they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The store revokes whatever the beat.
    RevokeIgnoresBeat,
    /// The store makes a leader of whoever asks.
    LeadIgnoresFrozen,
    /// The store takes a write under an epoch that is over.
    EpochFence,
    /// The leader dates what it reads by the store's wall clock.
    LeaderByWallClock,
    /// The leader does not wait for the moves in flight.
    MovesWithoutWaiting,
    /// An admin port that does not answer counts as one that refuses.
    SilenceIsRefusal,
    /// `/route` names rows that are not ready.
    RouteNamesUnready,
    /// A planned stop gives its rows up before its outbox is empty.
    DrainReleasesEarly,
    /// A planned stop ends without handing over.
    DrainEndsAtOnce,
    /// Inherited users have no time to come back.
    NoGrace,
    /// Who closes a socket is gone at once.
    NoLinger,
    /// The store forgets what users chose to show.
    ChoiceForgotten,
    /// Data under the same run_id are taken for the same, whatever their history.
    RunIdAlone,
    /// What a store that went back says of users counts as published.
    RosterTrusted,
    /// What an earlier home tells of its users never arrives.
    TransferLost,
}

impl Setup {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            vnodes: 4,
            users: 6,
            faults_until: 15_000,
            settle: 45_000,
            story: Story::Faults,
            off: None,
            broken: None,
        }
    }

    /// Of a story: what is planned has more vnodes and users, and nothing to settle from.
    pub fn of(story: Story, seed: u64) -> Self {
        match story {
            Story::Faults => Self::new(seed),
            Story::Quiet | Story::Join | Story::Leave | Story::Restart => {
                Self { vnodes: 16, users: 12, settle: 15_000, story, ..Self::new(seed) }
            }
        }
    }
}

/// Something that happens at a time.
pub(crate) enum Happening {
    ToCore {
        pid: usize,
        event: Box<CoreInput>,
    },
    /// A process decides about what it has gathered.
    Turn {
        pid: usize,
    },
    Tick {
        pid: usize,
    },
    AskLog {
        pid: usize,
    },
    ReadTable {
        peer: Peer,
        periodic: bool,
    },
    ToLeader {
        c: usize,
        event: Box<LeaderEvent>,
    },
    LeaderTick {
        c: usize,
    },
    StartCoordinator,
    Store {
        peer: Peer,
        run: u64,
        request: Box<store::Request>,
        answer: store::Fate,
    },
    LogArrives {
        topic: log::Topic,
        payload: bytes::Bytes,
    },
    LinkArrives {
        ends: link::Ends,
        payload: bytes::Bytes,
    },
    /// A processor has done its work.
    Answered {
        record: bytes::Bytes,
    },
    Start {
        node: NodeId,
    },
    Stopping {
        pid: usize,
        stop: Stop,
    },
    Fault,
    Story,
    Client {
        user: usize,
        what: client::Wake,
    },
    /// A frame, or the end of the socket and its code.
    ToClient {
        user: usize,
        connection: u64,
        frame: Result<bytes::Bytes, Option<u16>>,
    },
    Sdk {
        client: usize,
        life: u64,
        input: Box<Input>,
    },
    Ping {
        client: usize,
        key: u64,
    },
}

pub struct World {
    pub setup: Setup,
    pub now: u64,
    pub(crate) rng: StdRng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    pub(crate) processes: Vec<Process>,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) store_config: StoreConfig,
    pub(crate) control: Control,
    pub(crate) data: Vec<VnodeData>,
    /// The processes that follow a channel.
    pub(crate) followers: BTreeMap<LiveChannel, BTreeSet<usize>>,
    pub(crate) snapshot: Option<(Control, Vec<VnodeData>)>,
    /// Counts the lives of the store's data.
    pub(crate) run: u64,
    /// Counts those of its process: requests of an earlier one die with their connection.
    pub(crate) connections: u64,
    /// The next write to a room is heard and then lost, with its answer.
    pub(crate) takes_back: bool,
    /// No fault happens before.
    pub(crate) quiet_until: u64,
    pub(crate) store_down_until: u64,
    pub(crate) store_skew: i64,
    /// By how much a node's clock is off, from its next start on.
    pub(crate) node_skew: BTreeMap<NodeId, i64>,
    pub log: SimLog,
    pub(crate) links: link::Links,
    pub(crate) results: results::Results,
    pub(crate) watch: Watch,
    pub(crate) book: Book,
    pub(crate) joins: joins::Joins,
    pub clients: Vec<Client>,
    pub(crate) next_connection: u64,
    /// What went wrong, as it was seen.
    pub violations: Vec<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) digest: Option<digest::Digest>,
    pub faults: Vec<(u64, Fault)>,
    pub(crate) totals: roost_ws_node::core::Counters,
}

/// Time between ticks, and between reads of the table.
const TICK_MS: u64 = 50;
const TABLE_MS: u64 = 400;
/// Users who have two devices.
const SECOND_DEVICES: usize = 2;
const WALL: u64 = 1_795_000_000_000;
pub(crate) const LEASE_TTL_MS: u64 = 3000;
pub(crate) const LINGER_MS: u64 = 400;
pub(crate) const UNDELIVERED_AFTER_MS: u64 = 3000;
pub(crate) const EVENT_TIMEOUT_MS: u64 = 2500;
/// Longer than the lease, as by default.
pub(crate) const GRACE_MS: u64 = 4000;

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
            coordinators: Vec::new(),
            store_config,
            control,
            data: vec![VnodeData::default(); setup.vnodes as usize],
            followers: BTreeMap::new(),
            snapshot: None,
            run: 0,
            connections: 0,
            takes_back: false,
            quiet_until: 0,
            store_down_until: 0,
            store_skew: 0,
            node_skew: BTreeMap::new(),
            log: SimLog::new(setup.vnodes),
            links: link::Links::default(),
            results: results::Results::default(),
            watch: Watch::default(),
            book: Book::default(),
            joins: joins::Joins::default(),
            clients: (0..setup.users + SECOND_DEVICES).map(|i| Client::new(i, setup.users)).collect(),
            next_connection: 1,
            violations: Vec::new(),
            trace: None,
            digest: None,
            faults: Vec::new(),
            totals: Default::default(),
            setup,
        };
        for i in 0..world.setup.nodes {
            let node = NodeId::new(format!("n{i}")).expect("a plain name");
            world.at(0, Happening::Start { node });
        }
        for _ in 0..2 {
            let at = world.rng.random_range(0..100);
            world.at(at, Happening::StartCoordinator);
        }
        match world.setup.story {
            Story::Faults => world.at(300, Happening::Fault),
            _ => world.at(story::HAPPENS_MS, Happening::Story),
        }
        for user in 0..world.clients.len() {
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

    /// Whether things go wrong.
    pub(crate) fn faulty(&self) -> bool {
        self.busy() && self.setup.story == Story::Faults
    }

    /// Whether users say things.
    pub(crate) fn busy(&self) -> bool {
        self.now < self.setup.faults_until
    }

    pub(crate) fn is_broken(&self, what: Broken) -> bool {
        self.setup.broken == Some(what)
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
            self.check_story();
        }
        std::mem::take(&mut self.violations)
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::ToCore { pid, event } => self.core_gets(pid, *event),
            Happening::Turn { pid } => self.turn(pid),
            Happening::Tick { pid } => {
                if self.processes[pid].core.is_some() {
                    self.at(self.now + TICK_MS, Happening::Tick { pid });
                    self.core_gets(pid, CoreInput::Tick);
                }
            }
            Happening::AskLog { pid } => self.ask_log(pid),
            Happening::ReadTable { peer: Peer::Coordinator(c), periodic } => self.read_table_of(c, periodic),
            Happening::ReadTable { peer: Peer::Node(pid), periodic } => {
                if self.processes[pid].core.is_some() {
                    if periodic {
                        let peer = Peer::Node(pid);
                        self.at(self.now + TABLE_MS, Happening::ReadTable { peer, periodic });
                    }
                    self.ask_store(Peer::Node(pid), store::Request::Table(self.now));
                }
            }
            Happening::ToLeader { c, event } => self.leader_gets(c, *event),
            Happening::LeaderTick { c } => self.tick_coordinator(c),
            Happening::StartCoordinator => self.start_coordinator(),
            Happening::Store { peer, run, request, answer } => {
                self.store_request(peer, run, *request, answer);
            }
            Happening::LogArrives { topic, payload } => self.log_arrives(topic, payload),
            Happening::LinkArrives { ends, payload } => self.link_arrives(ends, &payload),
            Happening::Answered { record } => self.processed(record),
            Happening::Start { node } => self.start(node),
            Happening::Stopping { pid, stop } => self.stopping(pid, stop),
            Happening::Fault => self.fault(),
            Happening::Story => self.tell_story(),
            Happening::Client { user, what } => self.wake_client(user, what),
            Happening::Sdk { client, life, input } => self.sdk_hears(client, life, *input),
            Happening::Ping { client, key } => self.ping(client, key),
            Happening::ToClient { user, connection, frame } => self.client_gets(user, connection, frame),
        }
    }

    pub(crate) fn vnode_of(&self, user: usize) -> VnodeId {
        roost_ring::vnode(&client::name(user), self.setup.vnodes)
    }
}
