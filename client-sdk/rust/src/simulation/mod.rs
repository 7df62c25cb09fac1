//! The core against a fake cluster that does its worst, from a seed: it loses sockets with all that is on them,
//! answers late, refuses, forgets to answer, moves home, loses its data, and the application stalls.
//!
//! Promises checked: every send is applied exactly once and in order per stream; every inbox message is shown
//! exactly once, in order, or told as a gap, and so is every message of a room; nothing is acknowledged that the application does not have; and the
//! rules for writing (holding a stream, nothing new over a retiring connection, the limit of unanswered sends).

mod cluster;
mod room;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use room::Room;
use roost_proto::events::Message;
use roost_proto::frames::{Publish, Reply, Send};
use roost_proto::{ClientFrame, Cursor, Epoch, MessageId, Offset, RoomId, ServerFrame, UserId};
use serde_json::{Value, json};

use crate::backoff::Backoff;
use crate::core::{Action, Core, CoreConfig, Input};
use crate::error::{SendError, Trouble};
use crate::event::{Event, Item};
use crate::lanes::OrderingKey;
use crate::link::ConnId;
use crate::outbox::Command;
use crate::route::Route;

/// The last is a room, to which is published.
const RECIPIENTS: [&str; 4] = ["bob", "carol", "dave", "#lobby"];

/// A send on its way through the cluster, and whether somebody waits for its answer.
struct Queued {
    id: String,
    to: String,
    text: String,
    awaited: bool,
}

/// One session as the server sees it.
#[derive(Default)]
struct Session {
    welcomed: bool,
    position: u64,
    /// Where it is in the room, if it is in it.
    room: Option<u64>,
    unanswered: usize,
    /// The earliest send to each recipient that was refused, or whose outcome was `unknown`: nothing that came
    /// after it is taken until it was repeated (core rule 1).
    refused: HashMap<String, usize>,
    /// To the recipients' homes: applied in order, at any time, even after the session is gone.
    channel: VecDeque<Queued>,
}

#[derive(Default)]
struct Wire {
    node: u64,
    up: VecDeque<String>,
    down: VecDeque<Value>,
    session: Session,
    client_gone: bool,
    close_code: Option<Option<u16>>,
    told_moved: bool,
    /// The sends that the client wrote, and the last to each recipient, by their place in the application's order.
    written: HashSet<usize>,
    last: [Option<usize>; RECIPIENTS.len()],
}

struct World {
    rng: StdRng,
    core: Core,
    now: u64,
    quiet: bool,
    // The cluster.
    home: u64,
    epoch: u64,
    wires: BTreeMap<ConnId, Wire>,
    late: Vec<VecDeque<Queued>>,
    applied: HashMap<String, String>,
    streams: HashMap<String, Vec<String>>,
    generation: u64,
    inbox: Vec<String>,
    trimmed: u64,
    acked: Option<Cursor>,
    told_gaps: usize,
    messages: u64,
    room: Room,
    // The client's side.
    asked: Vec<Action>,
    paused: bool,
    /// What the application sent: to whom, under which id.
    sent: Vec<(usize, String)>,
    poison: HashSet<String>,
    answers: HashMap<u64, Result<(), SendError>>,
    /// Refused and not answered since, by recipient.
    held: [BTreeSet<usize>; RECIPIENTS.len()],
    /// Written and not answered for good.
    unanswered: BTreeSet<usize>,
    items: VecDeque<Item>,
    taken: Option<Cursor>,
    shown: HashSet<String>,
    gaps: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let cursor = rng.random_bool(0.5).then_some(Cursor::new(Epoch(1), Offset(0)));
        let core = Core::new(CoreConfig {
            user: UserId::new("alice").unwrap(),
            device: None,
            cursor,
            queue_max: 10_000,
            frame_bytes_max: 65_536,
            backoff: Backoff::new(20, 500),
            token_renewable: true,
            seed,
        });
        Self {
            rng,
            core,
            now: 0,
            quiet: false,
            home: 0,
            epoch: 1,
            wires: BTreeMap::new(),
            late: Vec::new(),
            applied: HashMap::new(),
            streams: HashMap::new(),
            generation: 1,
            inbox: Vec::new(),
            trimmed: 0,
            acked: None,
            told_gaps: 0,
            messages: 0,
            room: Room::new(),
            asked: Vec::new(),
            paused: false,
            sent: Vec::new(),
            poison: HashSet::new(),
            answers: HashMap::new(),
            held: Default::default(),
            unanswered: BTreeSet::new(),
            items: VecDeque::new(),
            taken: cursor,
            shown: HashSet::new(),
            gaps: 0,
        }
    }

    fn chance(&mut self, p: f64) -> bool {
        !self.quiet && self.rng.random_bool(p)
    }

    fn tail(&self) -> u64 {
        self.inbox.len() as u64
    }

    fn pick_wire(&mut self, wanted: impl Fn(&Wire) -> bool) -> Option<ConnId> {
        let found: Vec<ConnId> = self.wires.iter().filter(|(_, w)| wanted(w)).map(|(c, _)| *c).collect();
        (!found.is_empty()).then(|| found[self.rng.random_range(0..found.len())])
    }

    fn step(&mut self, input: Input) {
        for action in self.core.step(input, self.now) {
            match action {
                Action::Route(_) | Action::Open { .. } => self.asked.push(action),
                Action::Write(conn, text) | Action::Offer(conn, text) => self.written(conn, &text),
                Action::Close(conn, _) => self.closed_by_client(conn),
                Action::Deliver(item) => self.items.push_back(item),
                Action::Answer(ticket, result) if self.join_answered(ticket, &result) => {}
                Action::Answer(ticket, result) => {
                    assert!(self.answers.insert(ticket, result.map(|_| ())).is_none(), "answered twice");
                }
                Action::State(_) | Action::Cursor(_) | Action::Trouble(_) | Action::Token(_) => {}
                Action::End => panic!("the client stopped: {:?}", self.core.state),
            }
        }
        assert!(self.core.wake_ms() > self.now, "something is due that a step should have done");
    }

    fn send(&mut self) {
        let ticket = self.sent.len() as u64;
        let to = self.rng.random_range(0..RECIPIENTS.len());
        let id = format!("s{ticket}");
        if self.rng.random_bool(0.03) {
            self.poison.insert(id.clone());
        }
        let (lane, text) = match RECIPIENTS[to].strip_prefix('#') {
            None => {
                let text = json!({"type": "send", "id": id, "to": RECIPIENTS[to], "data": ticket});
                (OrderingKey::To(UserId::new(RECIPIENTS[to]).unwrap()), text.to_string())
            }
            Some(room) => {
                let text = json!({"type": "publish", "id": id, "room": room, "data": ticket});
                (OrderingKey::Room(RoomId::new(room).unwrap()), text.to_string())
            }
        };
        let command = Command::frame(MessageId::new(&id).unwrap(), lane, text);
        self.sent.push((to, id));
        self.step(Input::Command { command, ticket, expires_ms: u64::MAX });
    }

    fn order_of(id: &str) -> usize {
        id[1..].parse().unwrap()
    }

    /// Checks what the client writes against the rules, then puts it on the wire.
    fn written(&mut self, conn: ConnId, text: &str) {
        let frame = ClientFrame::parse(text).unwrap();
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        if wire.told_moved {
            assert!(matches!(frame, ClientFrame::Pong(_)), "over a retiring connection: {text}");
        }
        if let ClientFrame::Send(Send { id, .. }) | ClientFrame::Publish(Publish { id, .. }) = &frame {
            let n = Self::order_of(id.as_str());
            let to = self.sent[n].0;
            let (held, repeated) = (&self.held[to], self.held[to].contains(&n));
            assert!(
                held.first().is_none_or(|first| n <= *first),
                "s{n} was sent past {held:?}, which was refused"
            );
            let last = wire.last[to].replace(n);
            assert!(repeated || last.is_none_or(|last| last < n), "s{n} was sent after s{last:?}");
            if self.unanswered.insert(n) {
                let free = self.held.each_ref().map(BTreeSet::is_empty);
                let missed = |u: &&usize| **u != n && free[self.sent[**u].0] && !wire.written.contains(*u);
                assert_eq!(self.unanswered.iter().find(missed), None, "before s{n}, which is new");
            }
            wire.written.insert(n);
        }
        if !wire.client_gone && wire.close_code.is_none() {
            wire.up.push_back(text.to_owned());
        }
    }

    fn closed_by_client(&mut self, conn: ConnId) {
        self.asked.retain(|a| !matches!(a, Action::Route(c) | Action::Open { conn: c, .. } if *c == conn));
        let lossy = self.chance(0.5);
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.client_gone = true;
            wire.down.clear();
            if lossy {
                wire.up.clear();
            }
        }
    }

    /// The coordinator and the network answer one question.
    fn answer_asked(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.asked.len());
        let fails = self.chance(0.2);
        match self.asked.remove(at) {
            Action::Route(conn) if fails => self.step(Input::Routed(conn, Err(Trouble::retry("503")))),
            Action::Route(conn) => {
                let connect_after_ms = self.rng.random_range(0..50);
                // It may know an older home than the one there is.
                let node = if self.chance(0.2) { self.rng.random_range(0..3) } else { self.home };
                let route = Route { url: node.to_string(), epoch: Epoch(self.epoch), connect_after_ms };
                self.step(Input::Routed(conn, Ok(route)));
            }
            Action::Open { conn, .. } if fails => {
                self.step(Input::Opened(conn, Err(Trouble::retry("refused"))))
            }
            Action::Open { conn, url, .. } => {
                let wire = Wire { node: url.parse().unwrap(), ..Wire::default() };
                self.wires.insert(conn, wire);
                self.step(Input::Opened(conn, Ok("token".into())));
            }
            other => panic!("not a question: {other:?}"),
        }
    }

    /// One frame, or the end of a wire, reaches the client.
    fn client_reads(&mut self) {
        if self.paused {
            return;
        }
        let Some(conn) = self.pick_wire(|w| !w.client_gone && (!w.down.is_empty() || w.close_code.is_some()))
        else {
            return;
        };
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let Some(frame) = wire.down.pop_front() else {
            wire.client_gone = true;
            let code = wire.close_code.flatten();
            return self.step(Input::Closed(conn, code, "cut".into()));
        };
        let frame = ServerFrame::parse(&frame.to_string()).unwrap();
        match &frame {
            ServerFrame::Moved(_) if self.core.link.is_current(conn) => wire.told_moved = true,
            ServerFrame::Reply(reply) => self.client_reads_reply(reply),
            _ => {}
        }
        self.step(Input::Frame(conn, frame));
    }

    fn client_reads_reply(&mut self, reply: &Reply) {
        // Joins are not sends.
        let Some(n) = reply.id.as_deref().filter(|id| id.starts_with('s') && !id.starts_with("sdk")) else {
            return;
        };
        let n = Self::order_of(n);
        let held = &mut self.held[self.sent[n].0];
        if reply.error.as_ref().is_some_and(|e| e.retryable) {
            held.insert(n);
        } else {
            held.remove(&n);
            self.unanswered.remove(&n);
        }
    }

    /// The application takes one item.
    fn take(&mut self) {
        let Some(item) = self.items.pop_front() else { return };
        let stream = item.event.as_ref().and_then(|event| match event {
            Event::Message(Message { stream, .. })
            | Event::Gap { stream, .. }
            | Event::Reset { stream, .. } => Some(stream.as_str()),
            _ => None,
        });
        if let (Some(event), Some(room::STREAM)) = (&item.event, stream) {
            assert_eq!(item.cursor, None, "a room is not acknowledged");
            return self.room.took(event);
        }
        match item.event {
            Some(Event::Message(m)) => {
                self.is_next(m.cursor());
                assert!(self.shown.insert(m.id.to_string()), "{} was shown twice", m.id);
            }
            None => self.is_next(item.cursor.unwrap()),
            Some(Event::Gap { from, cursor, .. } | Event::Reset { from, cursor, .. }) => {
                assert!(self.taken.is_none() || from == self.taken, "a gap from elsewhere");
                self.gaps += 1;
                self.taken = Some(cursor);
            }
            Some(_) => return,
        }
        self.step(Input::Ack(item.cursor.unwrap()));
    }

    fn is_next(&mut self, cursor: Cursor) {
        if let Some(taken) = self.taken {
            assert_eq!(
                (cursor.generation, cursor.offset.0),
                (taken.generation, taken.offset.0 + 1),
                "not the next"
            );
        }
        self.taken = Some(cursor);
    }

    /// Time flies when nothing is on its way; now and then it does anyway.
    fn pass_time(&mut self) {
        let wake = self.core.wake_ms().saturating_sub(self.now);
        let moving = |w: &Wire| !w.up.is_empty() || !w.down.is_empty() || !w.session.channel.is_empty();
        let busy = !self.asked.is_empty() || self.wires.values().any(moving);
        let waits = busy && !self.chance(0.02);
        // The 15 minutes in which a repeat is safe are tested elsewhere: here they must not pass.
        let longest = if self.now < 600_000 { 40_000 } else { 100 };
        self.now += if waits { self.rng.random_range(0..10) } else { wake.min(longest) };
        self.step(Input::Tick);
    }

    fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 => self.client_reads(),
            20..40 => self.server_reads(),
            40..55 => self.channel_moves(),
            55..65 => self.take(),
            65..72 => self.pass_time(),
            72..80 => self.answer_asked(),
            80..84 => self.sweep(),
            _ if self.quiet => {}
            84..90 => self.send(),
            90..93 => self.message_arrives(),
            93..95 => self.room_is_told(),
            95 => {
                let paused = self.rng.random_bool(0.3);
                self.paused = paused;
                self.step(Input::Paused(paused));
            }
            96 => match self.rng.random_range(0..10) {
                0 if self.rng.random_bool(0.5) => self.room_is_lost(),
                0 => self.data_is_lost(),
                1 if self.rng.random_bool(0.5) => self.room_is_trimmed(),
                1 => self.trimmed = self.tail(),
                2..4 => self.home_moves(false),
                4..6 => self.home_moves(true),
                6 if self.sent.len() < 5_000 => (0..300).for_each(|_| self.send()),
                _ => self.cut(),
            },
            97 if self.rng.random_bool(0.2) => self.join(),
            _ => {}
        }
    }

    fn settled(&self) -> bool {
        let read =
            |w: &Wire| w.client_gone || (w.down.is_empty() && w.up.is_empty() && w.close_code.is_none());
        self.answers.len() == self.sent.len()
            && self.room.is_settled()
            && self.core.state.is_connected()
            && self.items.is_empty()
            && self.late.is_empty()
            && self.wires.values().all(|w| read(w) && w.session.channel.is_empty())
    }

    fn check(&self) {
        for (ticket, (_, id)) in self.sent.iter().enumerate() {
            match &self.answers[&(ticket as u64)] {
                Ok(()) => assert!(self.applied.contains_key(id), "{id} was confirmed and is not there"),
                Err(SendError::Refused(_)) => assert!(self.poison.contains(id)),
                Err(other) => panic!("{id}: {other}"),
            }
        }
        for (to, ids) in &self.streams {
            let good = |sent: &&(usize, String)| RECIPIENTS[sent.0] == to && !self.poison.contains(&sent.1);
            let want: Vec<&String> = self.sent.iter().filter(good).map(|(_, id)| id).collect();
            assert_eq!(ids.iter().collect::<Vec<_>>(), want, "the stream of {to}");
        }
        let tail = Cursor::new(Epoch(self.generation), Offset(self.tail()));
        assert!(self.taken.is_none_or(|taken| taken == tail), "{:?} of {tail:?}", self.taken);
        assert!(self.gaps <= self.told_gaps, "a gap that nobody told of");
        self.room.check();
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.step(Input::Start);
    for _ in 0..3_000 {
        world.act();
    }
    world.quiet = true;
    world.paused = false;
    world.step(Input::Paused(false));
    let mut asked_more = false;
    // 256 refused sends to one recipient are repeated one by one; every step is a twentieth of a round trip or so.
    for _ in 0..400_000 {
        if world.settled() && asked_more {
            world.check();
            return world;
        }
        if world.settled() {
            // Whoever is still there gets these, without another fault that makes it look.
            world.message_arrives();
            world.room_is_told();
            asked_more = true;
        }
        world.act();
    }
    let missing = world.sent.len() - world.answers.len();
    panic!("not settled: {missing} unanswered, {:?}, wake {}", world.core.state, world.core.wake_ms());
}

#[test]
fn whatever_happens_nothing_is_lost_doubled_or_out_of_order() {
    let (mut sends, mut gaps, mut shown, mut in_room, mut room_gaps) = (0, 0, 0, 0, 0);
    for seed in seeds() {
        let world = match std::panic::catch_unwind(|| run(seed)) {
            Ok(world) => world,
            Err(e) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(e);
            }
        };
        sends += world.sent.len();
        gaps += world.gaps;
        shown += world.shown.len();
        in_room += world.room.shown.len();
        room_gaps += world.room.gaps;
    }
    // The schedules reach what they are for.
    assert!(in_room > 2_000 && room_gaps > 20, "{in_room} shown of the room, {room_gaps} gaps");
    assert!(sends > 5_000 && gaps > 40 && shown > 2_000, "{sends} sends, {gaps} gaps, {shown} shown");
}

/// `ROOST_SIM_SEEDS=from..to` runs others, or more.
fn seeds() -> std::ops::Range<u64> {
    let parse = |s: String| {
        let (from, to) = s.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    std::env::var("ROOST_SIM_SEEDS").ok().and_then(parse).unwrap_or(0..40)
}
