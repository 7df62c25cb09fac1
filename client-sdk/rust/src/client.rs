//! The handle that an application holds.

use std::sync::Arc;
use std::time::Duration;

use roost_proto::answers::Accepted;
use roost_proto::frames::{ChosenStatus, Send, SetStatus};
use roost_proto::{ClientFrame, Cursor, MessageId, UserId};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::builder::Builder;
use crate::driver::Order;
use crate::error::{ConnectError, ConnectTrouble, SendError};
use crate::lanes::OrderingKey;
use crate::outbox::{Command, Done, What};
use crate::signals::{Given, Outgoing};
use crate::state::State;

/// The longest that [`Client::close`] waits: two seconds of goodbyes, and some for a busy machine.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A confirmed send: it is in the recipient's stream and in the canonical log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The id of the message, given or made.
    pub id: MessageId,
    /// When it was appended (RFC 3339, UTC); a repeat of the same id gets the same.
    pub at: String,
}

/// How to send a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// An id of the application: see [`Client::send_with_id`].
    pub id: Option<MessageId>,
    /// Be told what becomes of it: messages with a [`Receipt`](crate::Receipt) that names its id come to this user's own
    /// inbox when a device of the receiver has it, and when it is read ([`Message::receipt`](crate::Message::receipt)).
    pub receipt: bool,
}

/// A user's connection to Roost. Clones are handles to the same connection; it ends with [`Client::close`], or when
/// all of them and the [`Events`](crate::Events) are gone.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) user: UserId,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) signals: Arc<Given>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) trouble: watch::Receiver<Option<ConnectTrouble>>,
    pub(crate) cursor: Arc<watch::Sender<Option<Cursor>>>,
    pub(crate) closing: CancellationToken,
    pub(crate) tracker: TaskTracker,
    pub(crate) send_timeout_ms: u64,
    pub(crate) event_timeout_ms: u64,
    pub(crate) frame_bytes_max: usize,
}

impl Client {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Begins a client of the cluster whose coordinator is at `coordinator`, such as `http://127.0.0.1:7300`.
    pub fn builder(coordinator: impl Into<String>) -> Builder {
        Builder::new(coordinator.into())
    }

    /// The user this client is connected as.
    pub fn user(&self) -> &UserId {
        &self.shared.user
    }

    /// Sends `data` to the inbox of `to` and waits until it is confirmed.
    ///
    /// Sends to one recipient arrive in the order in which these calls were first polled, over reconnects and moves
    /// too; they need not wait for each other. Dropping the future does not withdraw the send.
    ///
    /// # Errors
    /// [`SendError`]; its variants say whether the message may have been accepted.
    pub async fn send(&self, to: impl AsRef<str>, data: impl Serialize) -> Result<Sent, SendError> {
        self.send_with(to, data, SendOptions::default()).await
    }

    /// Like [`Client::send`] under an id of the application, unique per sender, so that a retry by the application
    /// (after a restart, say) within 15 minutes is safe: it gets the first answer, never a second message. While
    /// the id is still waiting for its answer, this waits for the same one.
    ///
    /// # Errors
    /// [`SendError`]; with `conflict` the id was used before with another recipient or data.
    pub async fn send_with_id(
        &self,
        id: MessageId,
        to: impl AsRef<str>,
        data: impl Serialize,
    ) -> Result<Sent, SendError> {
        self.send_with(to, data, SendOptions { id: Some(id), receipt: false }).await
    }

    /// Like [`Client::send`], with options.
    ///
    /// # Errors
    /// As [`Client::send_with_id`].
    pub async fn send_with(
        &self,
        to: impl AsRef<str>,
        data: impl Serialize,
        options: SendOptions,
    ) -> Result<Sent, SendError> {
        let SendOptions { id, receipt } = options;
        let id = id.unwrap_or_else(new_id);
        let to = UserId::new(to).map_err(|e| SendError::Invalid(e.to_string()))?;
        let data = serde_json::value::to_raw_value(&data).map_err(|e| SendError::Invalid(e.to_string()))?;
        let lane = OrderingKey::To(to.clone());
        let text = self.encode(&ClientFrame::Send(Send { id: id.clone(), to, data, receipt }))?;
        let done = self.order(Command::frame(id, lane, text)).await?;
        let Accepted { at, .. } = done.accepted();
        Ok(Sent { id: done.id, at })
    }

    /// Chooses what others see of this user.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn status(&self, status: ChosenStatus) -> Result<(), SendError> {
        let id = new_id();
        let text = self.encode(&ClientFrame::Status(SetStatus { id: id.clone(), status }))?;
        self.order(Command::frame(id, OrderingKey::Status, text)).await.map(|_| ())
    }

    /// Says that everything up to `cursor` was dealt with; only needed with
    /// [`manual_ack`](Builder::manual_ack). Cumulative: an older one than the last changes nothing.
    pub fn ack(&self, cursor: Cursor) {
        self.shared.cursor.send_if_modified(|acked| {
            let newer = Some(cursor) > *acked;
            if newer {
                *acked = Some(cursor);
            }
            newer
        });
    }

    /// Says that the user has read everything up to `cursor`: other devices are told, and senders who asked for it.
    /// Cumulative, and said again after a reconnect if the server does not know it. Of something that was not received
    /// it does nothing.
    pub async fn read(&self, cursor: Cursor) {
        // A client that ended tells nobody.
        let _ = self.shared.orders.send(Order::Read(cursor)).await;
    }

    /// Up to where the inbox was taken (or, with [`manual_ack`](Builder::manual_ack), acknowledged): what a later
    /// client should start with ([`Builder::cursor`]). `None` before the first connection.
    pub fn cursor(&self) -> Option<Cursor> {
        *self.shared.cursor.borrow()
    }

    /// The state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.clone()
    }

    /// What the last try to connect met, now and as it changes; nothing before a try has ended, and while connected only
    /// that a fresh token was not taken.
    /// An address that does not lead to a coordinator is told here within three seconds, and the client goes on trying.
    pub fn trouble(&self) -> watch::Receiver<Option<ConnectTrouble>> {
        self.shared.trouble.clone()
    }

    /// Waits at most `limit` until the client is connected.
    ///
    /// # Errors
    /// [`ConnectError`]; after `TimedOut` the client still tries.
    pub async fn connected(&self, limit: Duration) -> Result<(), ConnectError> {
        let mut state = self.state();
        let ended = self.shared.tracker.wait();
        let outcome = tokio::time::timeout(limit, async {
            tokio::select! {
                found = state.wait_for(|s| s.is_connected() || matches!(s, State::Failed(_))) => {
                    found.map_or(State::Disconnected, |s| s.clone())
                }
                () = ended => self.shared.state.borrow().clone(),
            }
        });
        match outcome.await {
            Err(_) => {
                let trouble = self.shared.trouble.borrow().as_ref().map(|trouble| trouble.reason.clone());
                Err(ConnectError::TimedOut { trouble })
            }
            Ok(State::Connected { .. }) => Ok(()),
            Ok(State::Failed(failure)) => Err(ConnectError::Failed(failure)),
            Ok(_) => Err(ConnectError::Closed),
        }
    }

    /// Ends the connection and everything that belongs to it, for all clones: sends that wait get
    /// [`SendError::Closed`], [`Events`](crate::Events) ends. Returns when it is done, at most after 5 s.
    pub async fn close(&self) {
        self.shared.closing.cancel();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.shared.tracker.wait()).await.is_err() {
            tracing::warn!("the client did not end in time");
        }
    }

    /// The frame, if the server would take it: a frame it cannot read gets no answer that names its id.
    pub(crate) fn encode(&self, frame: &ClientFrame) -> Result<Arc<str>, SendError> {
        let text = frame.to_json();
        let max = self.shared.frame_bytes_max;
        if text.len() > max {
            return Err(SendError::TooLarge { bytes: text.len(), max });
        }
        ClientFrame::parse(&text).map_err(|e| SendError::Invalid(e.error.message))?;
        Ok(Arc::from(text))
    }

    pub(crate) async fn order(&self, command: Command) -> Result<Done, SendError> {
        let timeout_ms = match command.what {
            What::Event(_) => self.shared.event_timeout_ms,
            _ => self.shared.send_timeout_ms,
        };
        let (answer, answered) = oneshot::channel();
        let order = Order::Command { command, timeout_ms, answer };
        if self.shared.orders.send(order).await.is_err() {
            return Err(SendError::Closed { sent: false });
        }
        // The driver answers every order within its timeout; it drops one only when it ends.
        answered.await.unwrap_or(Err(SendError::Closed { sent: true }))
    }

    pub(crate) fn offer(&self, signal: Outgoing) {
        self.shared.signals.push(signal);
        // If there is no room, an order that comes before this one says it too.
        let _ = self.shared.orders.try_send(Order::Signals);
    }
}

/// Time-ordered and unique (RFC 9562 §5.7): what the protocol asks of an id.
pub(crate) fn new_id() -> MessageId {
    MessageId::new(Uuid::now_v7().to_string()).expect("a UUID is a message id")
}
