//! The node's task: takes events, lets the core decide, carries its actions out.
//!
//! One task owns the core, so nothing in it needs a lock and every step is whole. What waits (the store, the log,
//! sockets) waits in tasks of its own and comes back as an event.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use roost_backend::log::{Durability, Log, LogReader, LogRecord, Producer, Report};
use roost_backend::store::{LiveChannel, Store};
use roost_proto::events::CHAT_EVENTS;
use roost_proto::frames::Reply;
use roost_proto::ids::Sid;
use roost_proto::reading::fault;
use roost_proto::records;
use roost_service::{Health, Jobs, boot_ms};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::core::{
    Action, Ask, CallKey, Ending, Gauges, Input, LinkInput, NodeCore, Now, SendQueue, SessionKey,
};
use crate::error::Ended;
use crate::inputs::{NodeInput, Out, RETRY, STORE_TIMEOUT};
use crate::janitor::Names;
use crate::link::opened::Links;
use crate::live::SubscribeRequest;
use crate::metrics::Metrics;
use crate::questions::Questions;
use crate::results::Readings;
use crate::wire;

/// What one turn takes at most: some 2 ms, in which sockets and the back ends wait for what was decided.
const TURN_MAX: usize = 256;
/// The core's clockwork: a fraction of every deadline it keeps.
const TICK: Duration = Duration::from_millis(50);
/// How long the log may take to say where a partition ends.
const LOG_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the table is read without a hint (core rule 20).
const TABLE_EVERY: Duration = Duration::from_secs(1);
/// Between two reads for the sake of hints: many come together when many vnodes move, and one read serves them.
const HINT_PAUSE: Duration = Duration::from_millis(20);
/// How often the log is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(2);

/// The clocks of a node. The wall clock is read once, so a step of the system's clock moves nothing, and goes on with
/// [`boot_ms`]: also while the machine sleeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    boot_ms: u64,
    wall_ms: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), boot_ms: boot_ms(), wall_ms: wall.as_millis() as u64 }
    }

    pub(crate) fn now(&self) -> Now {
        let us = self.start.elapsed().as_micros() as u64;
        let since = boot_ms().saturating_sub(self.boot_ms);
        // From 1, so that 0 can mean never.
        Now { mono: us / 1000 + 1, wall: self.wall_ms + since, us }
    }
}

/// What the rest of the process may know of the core.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The life under which the node is registered, or means to be.
    pub sid: Option<Sid>,
    pub gauges: Gauges,
    pub empty_handed: bool,
    pub unconfirmed: bool,
    /// Why the node is to end.
    pub ended: Option<Ended>,
}

/// What a [`Node`] works with.
pub(crate) struct Parts {
    pub core: NodeCore,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub follows: mpsc::Sender<SubscribeRequest>,
    pub publications: mpsc::Sender<(LiveChannel, Bytes)>,
    pub log: Arc<dyn Log>,
    pub transport: Arc<dyn Producer>,
    pub outbox: Arc<dyn Producer>,
    pub events: mpsc::Sender<NodeInput>,
    pub refresh: Arc<Notify>,
    pub metrics: Metrics,
    pub lag: Arc<AtomicU64>,
    pub lease_ttl_ms: u64,
    pub status: watch::Sender<Status>,
    /// Questions to the store and the log.
    pub tasks: Jobs,
    pub readings: Jobs,
    pub links: Jobs,
    pub stop: CancellationToken,
}

/// The node's task.
pub(crate) struct Node {
    parts: Parts,
    sessions: HashMap<SessionKey, mpsc::Sender<Out>>,
    /// Who waits for the answers to commands of the server API; each is answered within 20 s.
    calls: HashMap<CallKey, oneshot::Sender<Reply>>,
    next_call: u64,
    questions: Arc<Questions>,
    links: Links,
    /// Of `client_results`.
    readings: Readings,
    /// What the next turn has.
    queue: VecDeque<Input>,
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Self {
        let (log, events) = (Arc::clone(&parts.log), parts.events.clone());
        let (jobs, stop) = (parts.readings.clone(), parts.stop.clone());
        let store = Arc::clone(&parts.store);
        let links = Links::new(store, events.clone(), parts.links.clone(), stop.clone());
        let questions = Questions::new(Arc::clone(&parts.store), Arc::clone(&parts.lag));
        Self {
            readings: Readings::new(log, events, parts.metrics.results_lag(), jobs, stop),
            links,
            parts,
            sessions: HashMap::new(),
            calls: HashMap::new(),
            next_call: 0,
            questions: Arc::new(questions),
            queue: VecDeque::new(),
        }
    }

    /// Runs until stopped.
    pub(crate) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<NodeInput>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::with_capacity(TURN_MAX);
        let mut told = Vec::with_capacity(TURN_MAX);
        loop {
            let mut ticked = false;
            tokio::select! {
                () = self.parts.stop.cancelled() => return,
                _ = tick.tick() => ticked = true,
                n = reports.recv_many(&mut told, TURN_MAX) => {
                    if n == 0 {
                        return;
                    }
                }
                n = inputs.recv_many(&mut taken, TURN_MAX) => {
                    if n == 0 {
                        return;
                    }
                }
            }
            // What else is there is of the same turn.
            drain(&mut reports, &mut told);
            drain(&mut inputs, &mut taken);
            for Report { token, result } in told.drain(..) {
                if let Err(why) = &result {
                    tracing::debug!(token, why, "a record was not taken");
                }
                self.queue.push_back(Input::Reported { token, ok: result.is_ok() });
            }
            let mut decided = 0;
            for input in taken.drain(..) {
                decided += weight(&input);
                self.take(input);
                if decided >= TURN_MAX {
                    self.turn();
                    decided = 0;
                }
            }
            // Last: what it would miss may be there.
            if ticked {
                self.queue.push_back(Input::Tick);
            }
            self.turn();
            if ticked {
                self.publish();
            }
        }
    }

    fn take(&mut self, input: NodeInput) {
        match input {
            NodeInput::Core(event) => {
                match &event {
                    Input::Closed { session } => drop(self.sessions.remove(session)),
                    Input::Link(LinkInput::Closed(link)) => self.links.forget(*link),
                    _ => {}
                }
                self.queue.push_back(event);
            }
            NodeInput::Said(said, _bytes) => self.queue.push_back(said),
            NodeInput::Connect(connecting, out) => {
                self.sessions.insert(connecting.session, out);
                self.queue.push_back(Input::Connect(connecting));
            }
            // Its room is free again: it is decided about now.
            NodeInput::Copies { to, records, room: _ } => {
                self.queue.push_back(Input::Copies { to, records });
            }
            NodeInput::Explain(query, answer) => {
                let now = self.parts.clock.now();
                // Whoever asked may have gone.
                let _ = answer.send(self.parts.core.explain(&query, now));
            }
            NodeInput::Calls(calls) => {
                let mut keyed = Vec::with_capacity(calls.len());
                for (call, answer) in calls {
                    self.next_call += 1;
                    let key = CallKey(self.next_call);
                    self.calls.insert(key, answer);
                    keyed.push((key, call));
                }
                self.queue.push_back(Input::Calls(keyed));
            }
            NodeInput::Tickets(client, answer) => {
                let now = self.parts.clock.now();
                drop(answer.send(self.parts.core.tickets(client.as_ref(), now)));
            }
            NodeInput::Ready(answer) => drop(answer.send(self.parts.core.ready_vnodes())),
        }
    }

    /// Has all that happened decided, and carried out; what comes of that at once is another turn.
    fn turn(&mut self) {
        while !self.queue.is_empty() {
            let clock = self.parts.clock;
            let inputs = std::mem::take(&mut self.queue);
            for action in self.parts.core.turn(inputs, || clock.now()) {
                self.run_action(action);
            }
        }
    }

    fn publish(&mut self) {
        let gauges = self.parts.core.gauges(self.parts.clock.now());
        self.parts.metrics.update(
            self.parts.core.counters(),
            gauges,
            self.parts.lease_ttl_ms,
            self.parts.store.commands(),
        );
        self.parts.metrics.lag(self.parts.lag.load(Ordering::Relaxed));
        let (empty_handed, unconfirmed) =
            (self.parts.core.is_empty_handed(), self.parts.core.has_unconfirmed());
        let sid = Some(self.parts.core.sid().clone());
        self.parts.status.send_modify(|s| {
            s.sid = sid;
            (s.gauges, s.empty_handed, s.unconfirmed) = (gauges, empty_handed, unconfirmed);
        });
    }

    /// Asks the store in a task of its own; the answer, or that there is none, comes back as an event.
    fn ask(&self, ask: Ask) {
        let (questions, events) = (Arc::clone(&self.questions), self.parts.events.clone());
        self.parts.tasks.spawn(async move {
            // Fails only when the node has ended.
            let _ = events.send(NodeInput::Core(questions.put(ask).await)).await;
        });
    }

    fn run_action(&mut self, action: Action) {
        match action {
            Action::Frame { session, frame, queue } => self.fan(&[session], &frame, queue),
            Action::Fan { sessions, frame } => self.fan(&sessions, &frame, SendQueue::Message),
            Action::Close { session, code, reason } => self.hand(session, Out::Close { code, reason }),
            Action::Produce { durability, record } => {
                let producer =
                    if durability == Durability::Outbox { &self.parts.outbox } else { &self.parts.transport };
                let token = record.token;
                if producer.produce(record).is_err() {
                    self.queue.push_back(Input::Reported { token, ok: false });
                }
            }
            Action::Ask(ask) => self.ask(ask),
            Action::Link(order) => self.queue.extend(self.links.carry_out(order)),
            Action::Follow { channel, ask } => {
                // The queue is longer than what waits at once: then it is asked again.
                if self.parts.follows.try_send((channel.clone(), Some(ask))).is_err() {
                    self.queue.push_back(Input::Followed { channel, ask, done: false });
                }
            }
            Action::Unfollow { channel } => {
                if self.parts.follows.try_send((channel, None)).is_err() {
                    tracing::warn!("a channel stays followed that nobody needs");
                }
            }
            Action::Publish { channel, payload } => {
                // Nobody waits for it, and a later one makes up for it.
                if self.parts.publications.try_send((channel, payload)).is_err() {
                    self.parts.metrics.signal_dropped();
                }
            }
            Action::Answer { call, reply } => {
                if let Some(answer) = self.calls.remove(&call) {
                    // Whoever asked may have gone.
                    let _ = answer.send(*reply);
                }
            }
            Action::ReadResults { partition, ask } => self.readings.begin(partition, ask),
            Action::LeaveResults { partition } => self.readings.leave(partition),
            Action::ResultsDone { partition, ask, next } => self.readings.done(partition, ask, next),
            Action::Observe(what, us) => self.parts.metrics.observe(what, us),
            Action::RefreshTable => self.parts.refresh.notify_one(),
            Action::LogEnd { session, ask, partition } => {
                let (log, events) = (Arc::clone(&self.parts.log), self.parts.events.clone());
                self.parts.tasks.spawn(async move {
                    let answer = timeout(LOG_TIMEOUT, log.end(CHAT_EVENTS, partition)).await;
                    let answer = answer.ok().and_then(Result::ok);
                    let _ =
                        events.send(NodeInput::Core(Input::LogEnd { session, ask, partition, answer })).await;
                });
            }
            Action::End(Ending::Replaced) => {
                tracing::error!("another process with this NODE_ID took over");
                self.parts.status.send_modify(|s| s.ended = Some(Ended::Replaced));
            }
            Action::End(Ending::Forgotten) => {
                tracing::error!("this node's row was removed while it was away: it has to begin anew");
                self.parts.status.send_modify(|s| s.ended = Some(Ended::Forgotten));
            }
        }
    }

    fn fan(&mut self, sessions: &[SessionKey], frame: &[u8], queue: SendQueue) {
        match wire::encode(frame) {
            Ok(wire) => {
                for session in sessions {
                    self.hand(*session, Out::Frame { frame: wire.clone(), queue, bytes: frame.len() });
                }
            }
            Err(error) => {
                tracing::error!(%error, "the store holds a frame that is not text");
                sessions.iter().for_each(|session| self.lose(*session));
            }
        }
    }

    /// Hands something to a session. Its queue has room for all its credit and all its replies, so a full one
    /// means that it reads nothing at all.
    fn hand(&mut self, session: SessionKey, out: Out) {
        let Some(queue) = self.sessions.get(&session) else { return };
        // Full, or its task ended without a word.
        if let Err(error) = queue.try_send(out) {
            tracing::debug!(session = session.0, %error, "a session takes nothing more");
            self.lose(session);
        }
    }

    fn lose(&mut self, session: SessionKey) {
        self.sessions.remove(&session);
        self.queue.push_back(Input::Closed { session });
    }
}

/// What an input takes of a turn.
fn weight(input: &NodeInput) -> usize {
    if let NodeInput::Copies { records, .. } = input { records.len() } else { 1 }
}

/// Takes what waits, as much as a turn has room for.
fn drain<T>(queue: &mut mpsc::Receiver<T>, into: &mut Vec<T>) {
    while into.len() < TURN_MAX
        && let Ok(one) = queue.try_recv()
    {
        into.push(one);
    }
}

/// Keeps the core's view fresh: on hints, when asked, and every second.
pub(crate) async fn watch_table(
    store: Arc<dyn Store>,
    events: mpsc::Sender<NodeInput>,
    refresh: Arc<Notify>,
    names: watch::Sender<Names>,
    health: Health,
    stop: CancellationToken,
) {
    let mut hints = store.hints();
    loop {
        let asked_at = tokio::time::Instant::now();
        let outcome = match timeout(STORE_TIMEOUT, store.table()).await {
            Ok(Ok(table)) => {
                names.send_replace(Names::of(&table, boot_ms()));
                if events.send(NodeInput::Core(Input::View(Box::new(table)))).await.is_err() {
                    return;
                }
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let failed = outcome.is_err();
        // The table goes another way than the data.
        let outcome = match outcome {
            Ok(()) => match timeout(STORE_TIMEOUT, store.ping()).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err("the data does not answer in time".to_owned()),
            },
            failed => failed,
        };
        health.set("redis", outcome);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if failed { RETRY } else { TABLE_EVERY }) => {}
            () = refresh.notified() => {}
            // The first of many is not kept waiting: whoever hands over or takes over waits for it.
            changed = hints.changed() => {
                let pause = if changed.is_err() { TABLE_EVERY } else { HINT_PAUSE };
                tokio::time::sleep_until(asked_at + pause).await;
                hints.mark_unchanged();
            }
        }
    }
}

/// Brings the records of the node's topic to the core.
pub(crate) async fn read_inbox(
    mut reader: Box<dyn LogReader>,
    events: mpsc::Sender<NodeInput>,
    lag: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    loop {
        let records = tokio::select! {
            () = stop.cancelled() => return,
            records = reader.next() => records,
        };
        match records {
            Ok(records) => {
                for LogRecord { payload, position, .. } in records {
                    for record in records::read(&payload) {
                        let event = match record {
                            Ok(record) => Input::Record(record),
                            Err(error) => {
                                // It may quote all of the record.
                                let error = fault(&error);
                                tracing::warn!(error, ?position, "a record nobody can read");
                                Input::Undecodable
                            }
                        };
                        if events.send(NodeInput::Core(event)).await.is_err() {
                            return;
                        }
                    }
                }
                lag.store(reader.lag(), Ordering::Relaxed);
            }
            Err(error) => {
                tracing::debug!(%error, "the node's topic cannot be read now");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Says in `/readyz` whether the log answers.
pub(crate) async fn watch_log(
    log: Arc<dyn Log>,
    events: mpsc::Sender<NodeInput>,
    health: Health,
    stop: CancellationToken,
) {
    loop {
        let outcome = match timeout(LOG_TIMEOUT, log.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let answers = Input::LogAnswers(outcome.is_ok());
        health.set("kafka", outcome);
        if events.send(NodeInput::Core(answers)).await.is_err() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
    }
}
