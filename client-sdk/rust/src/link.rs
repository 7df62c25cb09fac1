//! The connections of a client: the one in use, and the try to get the next one.
//!
//! There is a try only while the connection in use is gone or retiring (after `moved`). A retiring connection is
//! still read, and closed when the next one is welcomed: make before break.

use rand::RngExt;
use roost_proto::codes::reconnects;
use roost_proto::frames::{Connect, Empty, Moved};
use roost_proto::limits::{CONNECT_TIMEOUT_MS, PONG_TIMEOUT_MS};
use roost_proto::{ClientFrame, CloseCode, Epoch, ErrorBody, ErrorCode};

use crate::backoff::Backoff;
use crate::core::{Action, Core};
use crate::error::{Cause, ConnectTrouble, Failure, Trouble};
use crate::event::Event;
use crate::route::Route;
use crate::state::State;

/// Names one try to connect, and the connection that comes of it.
pub type ConnId = u64;

/// A connection that lasted this long makes the next wait a short one again.
const STABLE_MS: u64 = 10_000;
/// A node holds `connect` up to 5 s while it activates (core rule 27); the rest is for the way.
const WELCOME_TIMEOUT_MS: u64 = 5_000 + 2 * CONNECT_TIMEOUT_MS;
/// The longest delay that a server may ask for (`after_ms`, `connect_after_ms`, `Retry-After`).
const SERVER_DELAY_MS_MAX: u64 = 60_000;
/// `moved` answers to `connect` in a row before the coordinator is asked again: two views may differ for a moment.
const HOPS_MAX: u32 = 3;
/// What rooms add to a `connect` frame, beside themselves.
const EMPTY_ROOMS: &str = r#","rooms":[]"#;
/// What a client closes with (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;

/// The connection in use.
#[derive(Debug)]
struct Current {
    conn: ConnId,
    /// After `moved`: it is read, and nothing new is written to it.
    retiring: bool,
    since_ms: u64,
    heard_ms: u64,
    /// After so much silence the server is asked whether it is there: it asks itself only while it hears nothing, so
    /// who only tells it things hears nothing from it.
    ask_after_ms: u64,
    dead_after_ms: u64,
    asked: bool,
}

impl Current {
    fn asks_at(&self) -> u64 {
        let never = self.asked || self.retiring;
        if never { u64::MAX } else { self.heard_ms.saturating_add(self.ask_after_ms) }
    }

    fn dies_at(&self) -> u64 {
        self.heard_ms.saturating_add(self.dead_after_ms)
    }
}

/// Where to open a socket.
#[derive(Debug, Clone)]
struct Target {
    url: String,
    epoch: Epoch,
}

#[derive(Debug, Clone)]
enum Step {
    Route,
    Open(Target),
}

/// The try to get the next connection.
#[derive(Debug)]
enum Try {
    None,
    Wait { at: u64, step: Step },
    Routing { conn: ConnId },
    Opening { conn: ConnId, target: Target },
    Greeting { conn: ConnId, epoch: Epoch, until: u64 },
}

impl Try {
    fn conn(&self) -> Option<ConnId> {
        match self {
            Self::None | Self::Wait { .. } => None,
            Self::Routing { conn } | Self::Opening { conn, .. } | Self::Greeting { conn, .. } => Some(*conn),
        }
    }

    /// The epoch it aims at, if it does not ask the coordinator.
    fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Wait { step: Step::Open(target), .. } | Self::Opening { target, .. } => Some(target.epoch),
            Self::Greeting { epoch, .. } => Some(*epoch),
            Self::None | Self::Wait { step: Step::Route, .. } | Self::Routing { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Link {
    current: Option<Current>,
    next: Try,
    last_conn: ConnId,
    backoff: Backoff,
    hops: u32,
    fresh_token: bool,
    asked_fresh: bool,
    /// What was told last of tries that failed, since the last `welcome`.
    told: Option<Cause>,
    pub(crate) paused: bool,
}

impl Link {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            current: None,
            next: Try::None,
            last_conn: 0,
            backoff,
            hops: 0,
            fresh_token: false,
            asked_fresh: false,
            told: None,
            paused: false,
        }
    }

    pub(crate) fn is_current(&self, conn: ConnId) -> bool {
        self.current.as_ref().is_some_and(|c| c.conn == conn)
    }

    /// Whether `conn` waits for its `welcome`.
    pub(crate) fn greets(&self, conn: ConnId) -> bool {
        matches!(self.next, Try::Greeting { conn: c, .. } if c == conn)
    }
}

impl Core {
    pub(crate) fn start(&mut self) {
        self.set_state(State::Connecting, None);
        self.link.next = Try::Wait { at: self.now, step: Step::Route };
    }

    /// The connection that commands go over, if there is one.
    pub(crate) fn writes_to(&self) -> Option<ConnId> {
        self.link.current.as_ref().filter(|c| !c.retiring).map(|c| c.conn)
    }

    pub(crate) fn link_wake_ms(&self) -> u64 {
        if self.link.paused {
            return u64::MAX;
        }
        let next = match &self.link.next {
            Try::Wait { at, .. } => *at,
            Try::Greeting { until, .. } => *until,
            Try::None | Try::Routing { .. } | Try::Opening { .. } => u64::MAX,
        };
        let current = self.link.current.as_ref().map_or(u64::MAX, |c| c.asks_at().min(c.dies_at()));
        next.min(current)
    }

    pub(crate) fn tick_link(&mut self) {
        if self.link.paused {
            return;
        }
        if let Some(c) = &mut self.link.current {
            let conn = c.conn;
            if c.dies_at() <= self.now {
                self.broken(conn, "nothing was heard from the server".to_owned());
            } else if c.asks_at() <= self.now {
                c.asked = true;
                self.write(conn, &ClientFrame::Ping(Empty {}));
            }
        }
        match &self.link.next {
            Try::Wait { at, step } if *at <= self.now => {
                let step = step.clone();
                self.begin(step);
            }
            Try::Greeting { conn, until, .. } if *until <= self.now => {
                let conn = *conn;
                self.broken(conn, "no 'welcome' in time".to_owned());
            }
            _ => {}
        }
    }

    /// While the application is behind nothing is read: no silence counts, and no new try begins.
    pub(crate) fn pause(&mut self, paused: bool) {
        if self.link.paused && !paused {
            let now = self.now;
            if let Some(c) = &mut self.link.current {
                c.heard_ms = now;
            }
            if let Try::Greeting { until, .. } = &mut self.link.next {
                *until = now + WELCOME_TIMEOUT_MS;
            }
            self.outbox.forgive(now);
        }
        self.link.paused = paused;
    }

    fn begin(&mut self, step: Step) {
        self.link.last_conn += 1;
        let conn = self.link.last_conn;
        match step {
            Step::Route => {
                self.link.next = Try::Routing { conn };
                self.actions.push(Action::Route(conn));
            }
            Step::Open(target) => {
                let (url, fresh_token) = (target.url.clone(), self.link.fresh_token);
                self.link.next = Try::Opening { conn, target };
                self.actions.push(Action::Open { conn, url, fresh_token });
            }
        }
    }

    pub(crate) fn routed(&mut self, conn: ConnId, result: Result<Route, Trouble>) {
        if self.link.next.conn() != Some(conn) {
            return;
        }
        match result {
            Ok(Route { url, epoch, connect_after_ms }) => {
                self.open_after(connect_after_ms, Target { url, epoch })
            }
            Err(trouble) => self.try_failed(trouble),
        }
    }

    fn open_after(&mut self, delay_ms: u64, target: Target) {
        let at = self.now + delay_ms.min(SERVER_DELAY_MS_MAX);
        self.link.next = Try::Wait { at, step: Step::Open(target) };
    }

    pub(crate) fn opened(&mut self, conn: ConnId, result: Result<String, Trouble>) {
        match (&self.link.next, result) {
            (Try::Opening { conn: c, target }, Ok(token)) if *c == conn => {
                let epoch = target.epoch;
                self.link.next = Try::Greeting { conn, epoch, until: self.now + WELCOME_TIMEOUT_MS };
                self.link.fresh_token = false;
                let (device, cursor) = (self.config.device.clone(), self.inbox.hello());
                let rooms = Vec::new();
                let mut connect = Connect { token: Some(token), device, epoch: Some(epoch), cursor, rooms };
                let bytes = ClientFrame::Connect(connect.clone()).to_json().len() + EMPTY_ROOMS.len();
                connect.rooms = self.rooms.hello(self.config.frame_bytes_max.saturating_sub(bytes));
                self.write(conn, &ClientFrame::Connect(connect));
            }
            (Try::Opening { conn: c, .. }, Err(trouble)) if *c == conn => self.try_failed(trouble),
            _ => self.actions.push(Action::Close(conn, NORMAL)),
        }
    }

    /// `conn` was welcomed: it takes the place of the one in use.
    pub(crate) fn promote(&mut self, conn: ConnId, ping_interval_ms: u64) {
        if let Some(old) = self.link.current.take() {
            self.note_stability(&old);
            self.actions.push(Action::Close(old.conn, NORMAL));
        }
        self.link.current = Some(Current {
            conn,
            retiring: false,
            since_ms: self.now,
            heard_ms: self.now,
            ask_after_ms: ping_interval_ms.saturating_add(PONG_TIMEOUT_MS / 2),
            dead_after_ms: ping_interval_ms.saturating_add(PONG_TIMEOUT_MS),
            asked: false,
        });
        self.link.next = Try::None;
        self.link.hops = 0;
        self.link.asked_fresh = false;
        self.link.told = None;
    }

    /// Home moves: the next connection goes straight there.
    pub(crate) fn retire(&mut self, moved: Moved) {
        if self.link.next.epoch().is_some_and(|e| e >= moved.epoch) {
            return;
        }
        if let Some(c) = &mut self.link.current {
            c.retiring = true;
        }
        self.abandon_try();
        self.open_after(moved.after_ms, Target { url: moved.url, epoch: moved.epoch });
    }

    /// `moved` in place of `welcome`.
    pub(crate) fn moved_on(&mut self, conn: ConnId, moved: Moved) {
        self.actions.push(Action::Close(conn, NORMAL));
        self.link.hops += 1;
        if self.link.hops > HOPS_MAX {
            self.link.hops = 0;
            self.try_failed(Trouble::retry("sent from node to node"));
        } else {
            self.open_after(moved.after_ms, Target { url: moved.url, epoch: moved.epoch });
        }
    }

    /// An error in place of `welcome`.
    pub(crate) fn not_welcome(&mut self, conn: ConnId, error: ErrorBody) {
        self.actions.push(Action::Close(conn, NORMAL));
        let trouble = if error.code == ErrorCode::Unauthorized {
            Trouble::Token(error.message)
        } else if error.retryable {
            let after_ms = error.retry_after_ms.unwrap_or(0);
            Trouble::Retry { after_ms, cause: Cause::Node, why: error.to_string() }
        } else {
            Trouble::Fatal(Failure::Refused { status: error.code.http_status(), message: error.message })
        };
        self.try_failed(trouble);
    }

    pub(crate) fn heard(&mut self, conn: ConnId) {
        if let Some(c) = self.link.current.as_mut().filter(|c| c.conn == conn) {
            (c.heard_ms, c.asked) = (self.now, false);
        }
    }

    /// Gives a connection up that cannot be relied on.
    pub(crate) fn broken(&mut self, conn: ConnId, why: String) {
        self.actions.push(Action::Close(conn, CloseCode::Protocol.code()));
        self.closed(conn, None, why);
    }

    pub(crate) fn closed(&mut self, conn: ConnId, code: Option<u16>, reason: String) {
        let trouble = match code {
            Some(c) if c == CloseCode::BadToken.code() || c == CloseCode::TokenExpired.code() => {
                Trouble::Token(format!("closed with {c}: {reason}"))
            }
            Some(code) if !reconnects(code) => Trouble::Fatal(Failure::Closed { code, reason }),
            Some(code) => Trouble::retry(format!("closed with {code}: {reason}")),
            None => Trouble::retry(reason),
        };
        if self.link.next.conn() == Some(conn) {
            self.try_failed(trouble);
        } else if self.link.is_current(conn) {
            self.current_lost(trouble);
        }
    }

    fn current_lost(&mut self, trouble: Trouble) {
        if let Some(old) = self.link.current.take() {
            self.note_stability(&old);
        }
        let reason = match &trouble {
            Trouble::Retry { why, .. } | Trouble::Token(why) => why.clone(),
            Trouble::Fatal(failure) => failure.to_string(),
        };
        match (&self.link.next, trouble) {
            (_, Trouble::Fatal(failure)) => self.fail(failure),
            // Told as a change of the state: no try has failed yet.
            (Try::None, trouble) => self.try_again(trouble, false),
            // The move goes on by itself, and meets the same trouble if it is one.
            _ => {}
        }
        if !self.ended {
            self.set_state(State::Reconnecting, Some(reason));
        }
    }

    fn try_failed(&mut self, trouble: Trouble) {
        self.try_again(trouble, true);
    }

    /// Schedules the next try, through the coordinator.
    fn try_again(&mut self, trouble: Trouble, tell: bool) {
        self.link.next = Try::None;
        let (after_ms, cause, why) = match trouble {
            Trouble::Fatal(failure) => return self.fail(failure),
            Trouble::Token(why) if self.config.token_renewable && !self.link.asked_fresh => {
                self.link.asked_fresh = true;
                self.link.fresh_token = true;
                (0, Cause::Token, why)
            }
            Trouble::Token(why) => return self.fail(Failure::BadToken(why)),
            Trouble::Retry { after_ms, cause, why } => (after_ms.min(SERVER_DELAY_MS_MAX), cause, why),
        };
        let jitter_ms = self.rng.random_range(0..=after_ms);
        let wait_ms = after_ms + jitter_ms.max(self.link.backoff.next_ms(&mut self.rng));
        tracing::debug!(why, wait_ms, "will connect again");
        let trouble = ConnectTrouble { cause, reason: why };
        if tell {
            self.tell(&trouble, wait_ms);
        }
        self.actions.push(Action::Trouble(trouble));
        // Never now: what is due now has been looked at.
        self.link.next = Try::Wait { at: self.now + wait_ms.max(1), step: Step::Route };
    }

    /// Tells it as an event, if it is another than before: an application that takes none must not be full of them after
    /// a long night.
    fn tell(&mut self, trouble: &ConnectTrouble, retry_in_ms: u64) {
        if self.link.told != Some(trouble.cause) {
            self.link.told = Some(trouble.cause);
            self.deliver(Event::NotConnected { trouble: trouble.clone(), retry_in_ms }, None);
        }
    }

    fn abandon_try(&mut self) {
        if let Some(conn) = self.link.next.conn() {
            self.actions.push(Action::Close(conn, NORMAL));
        }
        self.link.next = Try::None;
    }

    pub(crate) fn close_all(&mut self) {
        self.abandon_try();
        if let Some(c) = self.link.current.take() {
            self.actions.push(Action::Close(c.conn, NORMAL));
        }
    }

    fn note_stability(&mut self, old: &Current) {
        if self.now.saturating_sub(old.since_ms) >= STABLE_MS {
            self.link.backoff.reset();
        }
    }
}
