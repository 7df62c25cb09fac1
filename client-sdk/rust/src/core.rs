//! The protocol of a client as plain state: `step(input, now) -> actions`, without a socket, a clock or a task.
//!
//! It owns what is unanswered ([`Outbox`]), what was received ([`Inbox`], [`Rooms`]), who is watched ([`Watching`]) and which connections there are
//! ([`Link`](crate::link); that and [`rooms`](crate::rooms) are the other parts of this type). The driver carries; it
//! decides nothing.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use roost_proto::events::Message;
use roost_proto::frames::{Ack, Empty, Moved, Read, Reply, Reset, Welcome};
use roost_proto::results::RESULT;
use roost_proto::{ClientFrame, Cursor, DeviceId, ServerFrame, UserId};

use crate::backoff::Backoff;
use crate::error::{BoxError, ConnectTrouble, Failure, SendError, Trouble};
use crate::event::{Event, Item};
use crate::inbox::Inbox;
use crate::link::{ConnId, Link};
use crate::outbox::{Answer, Command, Done, Outbox, Ticket};
use crate::place::{Missed, Verdict};
use crate::rooms::Rooms;
use crate::route::Route;
use crate::signals::{Outgoing, Signals};
use crate::state::State;
use crate::watching::Watching;

/// What the core must know to begin.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    pub user: UserId,
    pub device: Option<DeviceId>,
    pub cursor: Option<Cursor>,
    pub queue_max: usize,
    /// The largest frame that the server takes.
    pub frame_bytes_max: usize,
    pub backoff: Backoff,
    /// Whether a fresh token can be had.
    pub token_renewable: bool,
    /// Of the jitter.
    pub seed: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    Start,
    /// The application wants `command` answered until `expires_ms`.
    Command {
        command: Command,
        ticket: Ticket,
        expires_ms: u64,
    },
    /// The application wants this told, if it can be told now.
    Signal(Outgoing),
    /// The application has everything of its inbox up to here.
    Ack(Cursor),
    /// Its user has read everything up to here.
    Read(Cursor),
    /// Whether the application is behind, so that nothing is read.
    Paused(bool),
    Routed(ConnId, Result<Route, Trouble>),
    /// A socket is open; the token goes into `connect`.
    Opened(ConnId, Result<String, Trouble>),
    /// A fresh token for a connection that goes on.
    Token(ConnId, Result<String, BoxError>),
    Frame(ConnId, ServerFrame),
    /// Something arrived that needs no answer.
    Heard(ConnId),
    /// The server did what the protocol does not allow.
    Broken(ConnId, String),
    Closed(ConnId, Option<u16>, String),
    /// Time passed.
    Tick,
    /// The application is done.
    Close,
}

/// What to do about it.
#[derive(Debug)]
pub enum Action {
    /// Ask a coordinator; answered by [`Input::Routed`].
    Route(ConnId),
    /// Get a token and open a socket; answered by [`Input::Opened`].
    Open {
        conn: ConnId,
        url: String,
        fresh_token: bool,
    },
    /// Ask the callback for a fresh token; answered by [`Input::Token`].
    Token(ConnId),
    Write(ConnId, Arc<str>),
    /// Write, unless the socket is behind.
    Offer(ConnId, Arc<str>),
    /// Close, or forget if it is not open yet.
    Close(ConnId, u16),
    /// Hand to the application.
    Deliver(Item),
    Answer(Ticket, Result<Done, SendError>),
    /// Publish the state.
    State(State),
    /// Publish what is acknowledged.
    Cursor(Option<Cursor>),
    /// Publish what a try met.
    Trouble(ConnectTrouble),
    /// Nothing follows.
    End,
}

#[derive(Debug)]
pub struct Core {
    pub(crate) config: CoreConfig,
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) actions: Vec<Action>,
    pub(crate) state: State,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    pub(crate) rooms: Rooms,
    pub(crate) watching: Watching,
    pub(crate) signals: Signals,
    pub(crate) link: Link,
    /// The id of the refresh that waits for its answer.
    pub(crate) refreshing: Option<String>,
    pub(crate) ended: bool,
}

impl Core {
    pub fn new(config: CoreConfig) -> Self {
        Self {
            rng: StdRng::seed_from_u64(config.seed),
            now: 0,
            actions: Vec::new(),
            state: State::Disconnected,
            outbox: Outbox::new(config.queue_max, config.backoff.clone()),
            inbox: Inbox::new(&config.user, config.cursor),
            rooms: Rooms::default(),
            watching: Watching::default(),
            signals: Signals::default(),
            link: Link::new(config.backoff.clone()),
            refreshing: None,
            ended: false,
            config,
        }
    }

    /// Takes one input at `now_ms`, a clock that never goes back.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Action> {
        self.now = now_ms.max(self.now);
        if self.ended {
            if let Input::Command { ticket, .. } = input {
                self.actions.push(Action::Answer(ticket, Err(SendError::Closed { sent: false })));
            }
        } else {
            self.take(input);
            self.settle();
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Input::Tick`] is due next.
    pub fn wake_ms(&self) -> u64 {
        let (ack, signal) = if self.writes_to().is_some() {
            (self.inbox.untold(), self.signals.due_ms())
        } else {
            (None, None)
        };
        let told = ack.unwrap_or(u64::MAX).min(signal.unwrap_or(u64::MAX));
        self.link_wake_ms().min(self.outbox.wake_ms()).min(told)
    }

    fn take(&mut self, input: Input) {
        let acked = self.inbox.acked();
        match input {
            Input::Start => self.start(),
            Input::Command { command, ticket, expires_ms } => self.command(command, ticket, expires_ms),
            Input::Signal(signal) => self.signals.push(signal),
            Input::Ack(cursor) => {
                if !self.inbox.ack(cursor) {
                    tracing::debug!(?cursor, "ack of something that was not received");
                    self.actions.push(Action::Cursor(self.inbox.acked()));
                }
                return;
            }
            Input::Read(cursor) => {
                if !self.inbox.read(cursor) {
                    tracing::debug!(?cursor, "read of something that was not received");
                }
            }
            Input::Paused(paused) => self.pause(paused),
            Input::Routed(conn, result) => self.routed(conn, result),
            Input::Opened(conn, result) => self.opened(conn, result),
            Input::Token(conn, token) => self.token(conn, token),
            Input::Frame(conn, frame) => self.frame(conn, frame),
            Input::Heard(conn) => self.heard(conn),
            Input::Broken(conn, why) => self.broken(conn, why),
            Input::Closed(conn, code, reason) => self.closed(conn, code, reason),
            Input::Tick => {}
            Input::Close => self.close(),
        }
        if acked != self.inbox.acked() {
            self.actions.push(Action::Cursor(self.inbox.acked()));
        }
    }

    /// What time and the last input made possible.
    fn settle(&mut self) {
        if !self.ended {
            self.tick_link();
        }
        if self.ended {
            return;
        }
        let (answers, renew) = self.outbox.tick(self.now, self.writes_to().is_some() && !self.link.paused);
        self.answer(answers);
        if let (true, Some(conn)) = (renew, self.writes_to()) {
            self.broken(conn, "a command got no answer".to_owned());
        }
        let Some(conn) = self.writes_to() else { return self.signals.drop_all() };
        for (id, what) in self.outbox.take_ready(self.now) {
            let text = self.frame_of(id, what);
            self.actions.push(Action::Write(conn, text));
        }
        while let Some(text) = self.signals.take(self.now) {
            self.actions.push(Action::Offer(conn, text));
        }
        self.write_ack(conn);
        if let Some(cursor) = self.inbox.take_read() {
            self.write(conn, &ClientFrame::Read(Read { cursor }));
        }
    }

    fn frame(&mut self, conn: ConnId, frame: ServerFrame) {
        self.heard(conn);
        if matches!(frame, ServerFrame::Ping(_)) {
            self.write(conn, &ClientFrame::Pong(Empty {}));
        } else if self.link.greets(conn) {
            match frame {
                ServerFrame::Welcome(welcome) => self.welcome(conn, welcome),
                ServerFrame::Moved(moved) => self.moved_on(conn, moved),
                ServerFrame::Reply(Reply { id: None, error: Some(e), .. }) => self.not_welcome(conn, e),
                ServerFrame::Ping(_) | ServerFrame::Pong(_) | ServerFrame::TokenExpiring(_) => {}
                ServerFrame::Reply(_)
                | ServerFrame::Message(_)
                | ServerFrame::Reset(_)
                | ServerFrame::Read(_)
                | ServerFrame::Member(_)
                | ServerFrame::Presence(_)
                | ServerFrame::Signal(_) => {
                    self.broken(conn, "a frame before 'welcome'".to_owned());
                }
            }
        } else if self.link.is_current(conn) {
            match frame {
                ServerFrame::Reply(reply) => {
                    if let Some(reply) = self.refreshed(reply)
                        && let Some(answered) = self.outbox.reply(reply, self.now, &mut self.rng)
                    {
                        self.answered(answered);
                    }
                }
                ServerFrame::TokenExpiring(expiring) => self.token_expiring(conn, &expiring),
                ServerFrame::Message(message) => self.message(conn, message),
                ServerFrame::Reset(reset) => self.reset(reset),
                ServerFrame::Read(read) => self.read_elsewhere(read.cursor),
                ServerFrame::Moved(moved) => self.moved(moved),
                ServerFrame::Welcome(_) => self.broken(conn, "a second 'welcome'".to_owned()),
                ServerFrame::Member(member) => self.member(member),
                ServerFrame::Presence(presence) => self.presence(presence),
                ServerFrame::Signal(signal) => self.signalled(signal),
                ServerFrame::Ping(_) | ServerFrame::Pong(_) => {}
            }
        }
    }

    fn welcome(&mut self, conn: ConnId, welcome: Welcome) {
        if welcome.user != self.config.user {
            let (user, expected) = (welcome.user.to_string(), self.config.user.to_string());
            self.fail(Failure::OtherUser { user, expected });
            return;
        }
        self.promote(conn, welcome.ping_interval_ms);
        self.outbox.requeue();
        let Welcome { ref node, ref session, epoch, .. } = welcome;
        self.set_state(State::Connected { node: node.clone(), session: session.clone(), epoch }, None);
        if let Some(Missed { from, cursor }) = self.inbox.welcome(&welcome) {
            let stream = self.inbox.stream.clone();
            self.deliver(Event::Gap { stream, from, cursor, through: welcome.through }, Some(cursor));
        }
        if let Some(cursor) = welcome.read {
            self.read_elsewhere(cursor);
        }
        self.outbox.withdraw_own();
        self.welcome_rooms(welcome.rooms);
        self.watch_again();
    }

    fn read_elsewhere(&mut self, cursor: Cursor) {
        if let Some(cursor) = self.inbox.read_elsewhere(cursor) {
            self.deliver(Event::Read { cursor }, None);
        }
    }

    fn message(&mut self, conn: ConnId, message: Message) {
        let cursor = message.cursor();
        // What is taken of a room is not acknowledged to anybody.
        let (verdict, ack) = if message.stream == self.inbox.stream {
            (self.inbox.message(&message), Some(cursor))
        } else if let Some(room) = message.stream.room().and_then(|room| self.rooms.get_mut(&room)) {
            (room.place.message(&message), None)
        } else {
            return tracing::debug!(stream = %message.stream, "message of a stream that was left");
        };
        match verdict {
            Verdict::Show => {
                if ack.is_some() && message.kind == RESULT {
                    self.resulted(&message);
                }
                self.deliver(Event::Message(message), ack);
            }
            Verdict::Shown if ack.is_some() => {
                self.actions.push(Action::Deliver(Item { event: None, cursor: ack }));
            }
            Verdict::Shown | Verdict::Old => {}
            Verdict::Hole => {
                self.broken(conn, format!("message {cursor:?} of {} is not the next one", message.stream));
            }
        }
    }

    fn reset(&mut self, reset: Reset) {
        let Reset { stream, cursor, through } = reset;
        let inbox = stream == self.inbox.stream;
        let missed = if inbox {
            self.inbox.reset(cursor)
        } else {
            let room = stream.room().and_then(|room| self.rooms.get_mut(&room));
            room.and_then(|room| room.place.reset(cursor))
        };
        if let Some(Missed { from, cursor }) = missed {
            self.deliver(Event::Reset { stream, from, cursor, through }, inbox.then_some(cursor));
        }
    }

    fn moved(&mut self, moved: Moved) {
        tracing::debug!(node = %moved.node, epoch = %moved.epoch, "home moves");
        self.retire(moved);
    }

    fn close(&mut self) {
        if let Some(conn) = self.writes_to() {
            self.inbox.hurry();
            self.write_ack(conn);
        }
        self.end(State::Disconnected, Some("closed by the application".to_owned()));
    }

    /// Stops for good.
    pub(crate) fn fail(&mut self, failure: Failure) {
        tracing::warn!(%failure, "stopped");
        let reason = failure.to_string();
        self.end(State::Failed(failure), Some(reason));
    }

    fn end(&mut self, state: State, reason: Option<String>) {
        self.ended = true;
        let answers = self.outbox.close();
        self.answer(answers);
        self.close_all();
        self.set_state(state, reason);
        self.actions.push(Action::End);
    }

    fn write_ack(&mut self, conn: ConnId) {
        if let Some(cursor) = self.inbox.take_ack(self.now) {
            self.write(conn, &ClientFrame::Ack(Ack { cursor }));
        }
    }

    pub(crate) fn write(&mut self, conn: ConnId, frame: &ClientFrame) {
        self.actions.push(Action::Write(conn, Arc::from(frame.to_json())));
    }

    pub(crate) fn answer(&mut self, answers: Vec<Answer>) {
        self.actions.extend(answers.into_iter().map(|(ticket, result)| Action::Answer(ticket, result)));
    }

    pub(crate) fn deliver(&mut self, event: Event, cursor: Option<Cursor>) {
        self.actions.push(Action::Deliver(Item { event: Some(event), cursor }));
    }

    pub(crate) fn set_state(&mut self, state: State, reason: Option<String>) {
        if state == self.state {
            return;
        }
        let previous = std::mem::replace(&mut self.state, state.clone());
        self.actions.push(Action::State(state.clone()));
        self.deliver(Event::State { previous, current: state, reason }, None);
    }
}
