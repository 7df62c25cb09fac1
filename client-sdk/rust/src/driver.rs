//! The one task of a client: carries between the core, the sockets, the coordinator and the application.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use roost_proto::{Cursor, ServerFrame};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, Incoming};
use crate::core::{Action, Core, Input};
use crate::error::{BoxError, Cause, ConnectTrouble, SendError, Trouble};
use crate::event::Item;
use crate::link::ConnId;
use crate::outbox::{Command, Done, Ticket};
use crate::route::{Route, Router};
use crate::signals::Given;
use crate::state::State;
use crate::token::Tokens;

/// How long an ended client waits for sockets to say goodbye; they themselves take a second at most.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// The core wants to be woken much later, or never; the loop looks anyway.
const IDLE: Duration = Duration::from_secs(3600);

/// What is on its way from the application to the core.
#[derive(Debug)]
pub(crate) enum Order {
    Command {
        command: Command,
        timeout_ms: u64,
        answer: oneshot::Sender<Result<Done, SendError>>,
    },
    /// There are signals.
    Signals,
    Read(Cursor),
}

/// How sockets are opened.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) router: Router,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) timeout: Duration,
    pub(crate) frame_bytes_max: usize,
}

/// The ends of the client's channels that are the driver's.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) signals: Arc<Given>,
    pub(crate) items: mpsc::Sender<Item>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) trouble: watch::Sender<Option<ConnectTrouble>>,
    pub(crate) cursor: Arc<watch::Sender<Option<Cursor>>>,
    pub(crate) closing: CancellationToken,
}

enum Dialed {
    Routed(ConnId, Result<Route, Trouble>),
    Opened(ConnId, Result<(String, Box<Connection>), Trouble>),
    Token(ConnId, Result<String, BoxError>),
}

/// What the loop woke for.
enum Woke {
    Order(Order),
    /// Every `Client` is gone.
    OrdersEnded,
    Dialed(Dialed),
    Incoming(ConnId, Incoming),
    /// Room for one more item.
    Room,
    /// `Events` is gone.
    ItemsEnded,
    Acked,
    Goodbye,
    Time,
    Close,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pub(crate) struct Driver {
    core: Core,
    dialer: Dialer,
    ends: Ends,
    acked: watch::Receiver<Option<Cursor>>,
    started: Instant,
    connections: Vec<(ConnId, Box<Connection>)>,
    dials: FuturesUnordered<BoxFuture<Dialed>>,
    goodbyes: FuturesUnordered<BoxFuture<()>>,
    waiting: HashMap<Ticket, oneshot::Sender<Result<Done, SendError>>>,
    last_ticket: Ticket,
    /// Items for which the application has no room yet. While there are any, nothing is read.
    backlog: VecDeque<Item>,
    /// What the core was told about the backlog.
    behind: bool,
    orders_ended: bool,
    items_ended: bool,
    ended: bool,
}

impl Driver {
    pub(crate) fn new(core: Core, dialer: Dialer, ends: Ends) -> Self {
        Self {
            core,
            dialer,
            acked: ends.cursor.subscribe(),
            ends,
            started: Instant::now(),
            connections: Vec::new(),
            dials: FuturesUnordered::new(),
            goodbyes: FuturesUnordered::new(),
            waiting: HashMap::new(),
            last_ticket: 0,
            backlog: VecDeque::new(),
            behind: false,
            orders_ended: false,
            items_ended: false,
            ended: false,
        }
    }

    /// Runs until the client is closed, has failed, or nobody holds it any more.
    pub(crate) async fn run(mut self) {
        self.step(Input::Start);
        while !self.ended {
            let woke = self.wait().await;
            self.on(woke);
        }
        self.finish().await;
    }

    async fn wait(&mut self) -> Woke {
        let wake_ms = self.core.wake_ms().saturating_sub(self.now_ms());
        let time = tokio::time::sleep(Duration::from_millis(wake_ms).min(IDLE));
        let (connections, read) = (&mut self.connections, self.backlog.is_empty());
        let incoming = std::future::poll_fn(|cx| {
            // The newest first: it is the one that waits for its welcome.
            for (conn, connection) in connections.iter_mut().rev() {
                if let Poll::Ready(incoming) = connection.poll(cx, read) {
                    return Poll::Ready(Woke::Incoming(*conn, incoming));
                }
            }
            Poll::Pending
        });
        tokio::select! {
            () = self.ends.closing.cancelled() => Woke::Close,
            order = self.ends.orders.recv(), if !self.orders_ended => order.map_or(Woke::OrdersEnded, Woke::Order),
            Some(dialed) = self.dials.next() => Woke::Dialed(dialed),
            Some(()) = self.goodbyes.next() => Woke::Goodbye,
            woke = incoming => woke,
            room = self.ends.items.reserve(), if !read => room.map_or(Woke::ItemsEnded, |_| Woke::Room),
            () = self.ends.items.closed(), if !self.items_ended => Woke::ItemsEnded,
            Ok(()) = self.acked.changed() => Woke::Acked,
            () = time => Woke::Time,
        }
    }

    fn on(&mut self, woke: Woke) {
        match woke {
            Woke::Order(order) => self.order(order),
            Woke::OrdersEnded => {
                self.orders_ended = true;
                self.close_if_alone();
            }
            Woke::Dialed(Dialed::Routed(conn, result)) => self.step(Input::Routed(conn, result)),
            Woke::Dialed(Dialed::Opened(conn, result)) => {
                let result = result.map(|(token, connection)| {
                    self.connections.push((conn, connection));
                    token
                });
                self.step(Input::Opened(conn, result));
            }
            Woke::Dialed(Dialed::Token(conn, token)) => self.step(Input::Token(conn, token)),
            Woke::Incoming(conn, incoming) => self.incoming(conn, incoming),
            Woke::Room => {
                self.drain();
                self.step(Input::Tick);
            }
            Woke::ItemsEnded => {
                tracing::info!("nobody takes events: messages are not kept or acknowledged from here on");
                self.items_ended = true;
                self.drain();
                self.step(Input::Tick);
                self.close_if_alone();
            }
            Woke::Acked => {
                let cursor = *self.acked.borrow_and_update();
                if let Some(cursor) = cursor {
                    self.step(Input::Ack(cursor));
                }
            }
            Woke::Time => self.step(Input::Tick),
            Woke::Close => self.step(Input::Close),
            Woke::Goodbye => {}
        }
    }

    fn close_if_alone(&mut self) {
        if self.orders_ended && self.items_ended {
            self.step(Input::Close);
        }
    }

    fn order(&mut self, order: Order) {
        // With any order: there may have been no room for theirs.
        for signal in self.ends.signals.take() {
            self.step(Input::Signal(signal));
        }
        let (command, timeout_ms, answer) = match order {
            Order::Command { command, timeout_ms, answer } => (command, timeout_ms, answer),
            Order::Signals => return,
            Order::Read(cursor) => return self.step(Input::Read(cursor)),
        };
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.waiting.insert(ticket, answer);
        let expires_ms = self.now_ms().saturating_add(timeout_ms);
        self.step(Input::Command { command, ticket, expires_ms });
    }

    fn incoming(&mut self, conn: ConnId, incoming: Incoming) {
        let input = match incoming {
            Incoming::Text(text) => read(conn, &text),
            Incoming::Control => Input::Heard(conn),
            Incoming::Binary => Input::Broken(conn, "a binary frame".to_owned()),
            Incoming::Closed { code, reason } => {
                // 1000 here is only for a server that did not close first.
                self.close_connection(conn, 1000);
                Input::Closed(conn, code, reason)
            }
        };
        self.step(input);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn step(&mut self, input: Input) {
        for action in self.core.step(input, self.now_ms()) {
            self.act(action);
        }
        let behind = !self.backlog.is_empty();
        if behind != self.behind {
            self.behind = behind;
            self.step(Input::Paused(behind));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Route(conn) => {
                let (router, trouble) = (self.dialer.router.clone(), self.ends.trouble.clone());
                // Who has a connection is not in trouble.
                let connected = self.ends.state.borrow().is_connected();
                let tell = move |quiet| {
                    if !connected {
                        trouble.send_replace(Some(quiet));
                    }
                };
                self.dials
                    .push(Box::pin(async move { Dialed::Routed(conn, router.route_or_tell(tell).await) }));
            }
            Action::Open { conn, url, fresh_token } => {
                let dialer = self.dialer.clone();
                self.dials.push(Box::pin(async move {
                    Dialed::Opened(conn, dialer.open(&url, fresh_token).await)
                }));
            }
            Action::Token(conn) => {
                let tokens = Arc::clone(&self.dialer.tokens);
                self.dials.push(Box::pin(async move { Dialed::Token(conn, tokens.get(true).await) }));
            }
            Action::Write(conn, text) => {
                if let Some((_, connection)) = self.connections.iter_mut().find(|(c, _)| *c == conn) {
                    connection.write(&text);
                }
            }
            Action::Offer(conn, text) => {
                if let Some((_, connection)) = self.connections.iter_mut().find(|(c, _)| *c == conn) {
                    connection.offer(&text);
                }
            }
            Action::Close(conn, code) => self.close_connection(conn, code),
            Action::Deliver(item) => self.deliver(item),
            Action::Answer(ticket, result) => {
                if let Some(answer) = self.waiting.remove(&ticket) {
                    // The caller may have stopped waiting; the command was carried out all the same.
                    let _ = answer.send(result);
                }
            }
            Action::State(state) => {
                if state.is_connected() {
                    self.ends.trouble.send_replace(None);
                }
                self.ends.state.send_replace(state);
            }
            Action::Cursor(cursor) => {
                self.ends.cursor.send_replace(cursor);
            }
            Action::Trouble(trouble) => {
                self.ends.trouble.send_replace(Some(trouble));
            }
            Action::End => self.ended = true,
        }
    }

    fn close_connection(&mut self, conn: ConnId, code: u16) {
        if let Some(at) = self.connections.iter().position(|(c, _)| *c == conn) {
            let (_, connection) = self.connections.remove(at);
            self.goodbyes.push(Box::pin(connection.close(code)));
        }
    }

    fn deliver(&mut self, item: Item) {
        if self.items_ended {
            return;
        }
        self.backlog.push_back(item);
        self.drain();
    }

    /// Hands over what there is room for. What remains stops the reading, so it never grows by more than the few
    /// items that come of one frame and of losing the connections there are.
    fn drain(&mut self) {
        while let Some(item) = self.backlog.pop_front() {
            match self.ends.items.try_send(item) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(item)) => {
                    self.backlog.push_front(item);
                    break;
                }
            }
        }
    }

    /// After the end: goodbyes to the servers, and the last events to an application that still takes them.
    async fn finish(mut self) {
        self.dials.clear();
        self.waiting.clear();
        self.ends.orders.close();
        while let Ok(order) = self.ends.orders.try_recv() {
            if let Order::Command { answer, .. } = order {
                let _ = answer.send(Err(SendError::Closed { sent: false }));
            }
        }
        let goodbyes = async { while self.goodbyes.next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbyes).await;
        for item in self.backlog {
            tokio::select! {
                sent = self.ends.items.send(item) => if sent.is_err() { return },
                () = self.ends.closing.cancelled() => return,
            }
        }
    }
}

/// A frame of the server. One of a type that this version does not know is heard and passed over; one that should
/// be known and cannot be read is a fault of the connection.
fn read(conn: ConnId, text: &str) -> Input {
    #[derive(serde::Deserialize)]
    struct Tag {
        r#type: String,
    }
    match ServerFrame::parse(text) {
        Ok(frame) => Input::Frame(conn, frame),
        Err(e) => match serde_json::from_str::<Tag>(text) {
            Ok(tag) if !ServerFrame::TAGS.contains(&tag.r#type.as_str()) => {
                tracing::debug!(kind = tag.r#type, "a frame of an unknown type");
                Input::Heard(conn)
            }
            _ => Input::Broken(conn, e.to_string()),
        },
    }
}

impl Dialer {
    /// Gets a token and opens a socket.
    async fn open(self, url: &str, fresh_token: bool) -> Result<(String, Box<Connection>), Trouble> {
        let token = self.tokens.get(fresh_token).await;
        let token =
            token.map_err(|e| Trouble::because(Cause::Token, format!("the token callback failed: {e}")))?;
        let opening = Connection::open(url, self.frame_bytes_max);
        let opened = tokio::time::timeout(self.timeout, opening).await;
        let connection = opened.map_err(|_| Trouble::retry(format!("{url}: no connection in time")))??;
        Ok((token, Box::new(connection)))
    }
}
