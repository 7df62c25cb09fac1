//! What a client is made with.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use roost_proto::limits::FRAME_BYTES_MAX;
use roost_proto::{Cursor, DeviceId, UserId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::client::{Client, Shared};
use crate::core::{Core, CoreConfig};
use crate::cursors::{CursorStore, Keeper};
use crate::driver::{Dialer, Driver, Ends};
use crate::error::{BoxError, BuildError};
use crate::event::Events;
use crate::route::Router;
use crate::state::State;
use crate::token::{self, TokenFn, Tokens, user_of};

/// Sends that wait for a connection or an answer. With the largest frames (64 KiB) that is 64 MiB.
const QUEUE_MAX: usize = 1_024;
/// Events that wait to be taken. With the largest frames that is 16 MiB.
const EVENTS_MAX: usize = 256;
/// The server says `unknown` after 20 s; this leaves time for one repeat.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The cluster tells after 30 s (`EVENT_TIMEOUT_MS`) that there is no result; as long again is for lost connections.
const EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// For each of: the token callback, `/route`, the WebSocket handshake.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Full jitter between nothing and these.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(20);
/// Orders between the handles and the task, which always takes them at once.
const ORDERS_MAX: usize = 64;
/// A server's answers may be larger than what it takes: the members of a room are up to 1.2 MB (1,000 of 1,024 bytes of
/// `info` and a name each), and `welcome` has those of several rooms.
const READ_BYTES_MIN: usize = 16 * 1024 * 1024;

/// Makes a [`Client`]; see [`Client::builder`]. A token or a token callback is required, the rest has defaults.
pub struct Builder {
    coordinator: String,
    token: Option<String>,
    token_fn: Option<TokenFn>,
    user: Option<String>,
    device: Option<String>,
    cursor: Option<Cursor>,
    cursors: Option<Arc<dyn CursorStore>>,
    queue_max: usize,
    events_max: usize,
    frame_bytes_max: usize,
    send_timeout: Duration,
    event_timeout: Duration,
    request_timeout: Duration,
    backoff: (Duration, Duration),
    jitter_seed: Option<u64>,
    manual_ack: bool,
}

impl Builder {
    pub(crate) fn new(coordinator: String) -> Self {
        Self {
            coordinator,
            token: None,
            token_fn: None,
            user: None,
            device: None,
            cursor: None,
            cursors: None,
            queue_max: QUEUE_MAX,
            events_max: EVENTS_MAX,
            frame_bytes_max: FRAME_BYTES_MAX,
            send_timeout: SEND_TIMEOUT,
            event_timeout: EVENT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            backoff: (BACKOFF_MIN, BACKOFF_MAX),
            jitter_seed: None,
            manual_ack: false,
        }
    }

    /// The JWT to connect with. If it expires the client fails; see [`Builder::token_fn`].
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Asks the application for tokens: for the first one unless [`Builder::token`] gave it, and for a fresh one
    /// when the last expires soon (the connection goes on with it) or was not accepted. An error counts as a failed try to connect: it is asked again later.
    pub fn token_fn<F, Fut, E>(mut self, token_fn: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.token_fn = Some(Box::new(move || {
            let token = token_fn();
            Box::pin(async move { token.await.map_err(Into::into) })
        }));
        self
    }

    /// The user that the tokens are for. Taken from the first token's `sub` if absent.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The device, which has an acknowledged cursor of its own on the server.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// Where to go on in the inbox: the [`Client::cursor`] that an earlier client ended with. Without one the
    /// server starts at what this device acknowledged, and for a new device at the end.
    ///
    /// After the cluster lost data only a cursor that is shown is safe: what it remembers of a device may be lost with
    /// the messages, and then it says that nothing was missed. A client shows its own at every connection after the
    /// first; to show one at the first, too, keep it: here, or by a [`cursor_store`](Builder::cursor_store).
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Keeps the cursor over restarts: what it has is where this client goes on (unless [`Builder::cursor`] says
    /// otherwise), and where it is afterwards is given back to it.
    pub fn cursor_store(mut self, store: impl CursorStore) -> Self {
        self.cursors = Some(Arc::new(store));
        self
    }

    /// The most sends that may wait for a connection or an answer (default 1,024); one more is an error.
    pub fn queue_max(mut self, queue_max: usize) -> Self {
        self.queue_max = queue_max.max(1);
        self
    }

    /// The most events that wait to be taken (default 256); then the client stops reading.
    pub fn events_max(mut self, events_max: usize) -> Self {
        self.events_max = events_max.max(1);
        self
    }

    /// The largest frame that the server is configured to take, in bytes (default 65,536).
    pub fn frame_bytes_max(mut self, frame_bytes_max: usize) -> Self {
        self.frame_bytes_max = frame_bytes_max;
        self
    }

    /// How long a send waits for a connection and its answer (default 30 s).
    pub fn send_timeout(mut self, send_timeout: Duration) -> Self {
        self.send_timeout = send_timeout;
        self
    }

    /// How long an event waits for a connection and its result (default 60 s): more than the `EVENT_TIMEOUT_MS` of the
    /// cluster, which then says so itself.
    pub fn event_timeout(mut self, event_timeout: Duration) -> Self {
        self.event_timeout = event_timeout;
        self
    }

    /// The limit for each of: the token callback, `/route`, the handshake (default 10 s).
    pub fn request_timeout(mut self, request_timeout: Duration) -> Self {
        self.request_timeout = request_timeout;
        self
    }

    /// The bounds of the waits before a new try (default 250 ms and 20 s): each is drawn evenly from nothing to a
    /// ceiling that begins at `min` and doubles up to `max`.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = (min, max);
        self
    }

    /// Draws those waits from a seed, for tests that must run the same way twice.
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter_seed = Some(seed);
        self
    }

    /// Messages count as read when the application says so with [`Client::ack`], not when it takes them from
    /// [`Events`]. A reconnect then starts at the last ack, so one should come at least every few hundred messages:
    /// what left the server's hot window (1,000 messages, 24 h) by then is a gap.
    pub fn manual_ack(mut self) -> Self {
        self.manual_ack = true;
        self
    }

    /// Starts the client. It does not wait for the connection ([`Client::connected`] does), so an application can
    /// start offline; only the token callback is waited for, if the user must be read from its token.
    ///
    /// # Errors
    /// [`BuildError`]: something given is not usable, and nothing was started.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(mut self) -> Result<(Client, Events), BuildError> {
        if self.token.is_none() && self.token_fn.is_none() {
            return Err(BuildError::NoToken);
        }
        if let Some(token) = &self.token {
            token::check(token)?;
        }
        let device = self.device.as_ref().map(DeviceId::new).transpose()?;
        let tokens = Tokens::new(self.token.clone(), self.token_fn.take(), self.request_timeout);
        let user = match &self.user {
            Some(user) => UserId::new(user)?,
            None => {
                let token = tokens.get(false).await.map_err(no_token)?;
                user_of(&token).ok_or(BuildError::NoUser)?
            }
        };
        let kept = self.cursors.take().map(|store| Keeper::new(store, &user, device.as_ref()));
        let cursor = match (self.cursor, &kept) {
            (None, Some(keeper)) => keeper.load().await.map_err(BuildError::Cursor)?,
            (given, _) => given,
        };
        let router = Router::new(&self.coordinator, &user, self.request_timeout)?;
        let core = Core::new(CoreConfig {
            user: user.clone(),
            device,
            cursor,
            queue_max: self.queue_max,
            frame_bytes_max: self.frame_bytes_max,
            backoff: Backoff::new(ms(self.backoff.0), ms(self.backoff.1)),
            token_renewable: tokens.renewable(),
            seed: self.jitter_seed.unwrap_or_else(|| rand::rng().random()),
        });
        let dialer = Dialer {
            router,
            tokens: Arc::new(tokens),
            timeout: self.request_timeout,
            frame_bytes_max: (2 * self.frame_bytes_max).max(READ_BYTES_MIN),
        };
        let (shared, ends, events) = self.channels(user, cursor);
        spawn(Driver::new(core, dialer, ends), kept, &shared);
        Ok((Client::new(shared), events))
    }

    /// What the client, its driver and its events have in common.
    fn channels(&self, user: UserId, cursor: Option<Cursor>) -> (Shared, Ends, Events) {
        let (orders, taken_orders) = mpsc::channel(ORDERS_MAX);
        let signals = Arc::default();
        let (items, taken_items) = mpsc::channel(self.events_max);
        let cursor = Arc::new(watch::Sender::new(cursor));
        let (state, trouble) = (watch::Sender::new(State::Disconnected), watch::Sender::new(None));
        let closing = CancellationToken::new();
        let shared = Shared {
            user,
            orders,
            signals: Arc::clone(&signals),
            state: state.subscribe(),
            trouble: trouble.subscribe(),
            cursor: Arc::clone(&cursor),
            closing: closing.clone(),
            tracker: TaskTracker::new(),
            send_timeout_ms: ms(self.send_timeout),
            event_timeout_ms: ms(self.event_timeout),
            frame_bytes_max: self.frame_bytes_max,
        };
        let events = Events { items: taken_items, cursor: Arc::clone(&cursor), acks: !self.manual_ack };
        let ends = Ends { orders: taken_orders, signals, items, state, trouble, cursor, closing };
        (shared, ends, events)
    }
}

/// Starts the tasks of a client, which end with the driver.
fn spawn(driver: Driver, kept: Option<Keeper>, shared: &Shared) {
    let ended = CancellationToken::new();
    if let Some(keeper) = kept {
        shared.tracker.spawn(keeper.run(shared.cursor.subscribe(), ended.clone()));
    }
    // However it ends.
    let ended = ended.drop_guard();
    shared.tracker.spawn(async move {
        driver.run().await;
        drop(ended);
    });
    shared.tracker.close();
}

impl fmt::Debug for Builder {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("coordinator", &self.coordinator)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What the callback gave is told as what it is.
fn no_token(error: BoxError) -> BuildError {
    error.downcast().map_or_else(BuildError::Token, |not_a_token| BuildError::NotAToken(*not_a_token))
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
