//! What the application is told, and the bounded stream it takes it from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use roost_proto::events::Message;
use roost_proto::frames::{Change, InfoOf, Presence, Signalled};
use roost_proto::{Cursor, ErrorBody, Json, RoomId, StreamId, UserId};
use tokio::sync::{mpsc, watch};

use crate::error::ConnectTrouble;
use crate::state::State;

/// Something the application should know, in the order in which it happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants say what is in them")]
pub enum Event {
    /// The next message of the user's inbox, or of a room (its `stream` says which): of each stream every one once,
    /// in order. [`Message::receipt`] tells whether it is a receipt.
    Message(Message),
    /// Messages after `from` were missed and are no longer in the hot window: read the history of `stream` from
    /// `from` (absent: from the start) through `through`. What follows on this stream comes after `cursor`.
    Gap { stream: StreamId, from: Option<Cursor>, cursor: Cursor, through: Option<String> },
    /// The stream began a new life while connected, or this client fell behind a room's hot window; to be handled
    /// like a [`Event::Gap`].
    Reset { stream: StreamId, from: Option<Cursor>, cursor: Cursor, through: Option<String> },
    /// The user has read everything up to `cursor`, on another device or before.
    Read { cursor: Cursor },
    /// The token ends soon and there is no callback for another: the client fails then.
    TokenExpiring { in_ms: u64 },
    /// Who is in a room that was joined with [`presence`](crate::JoinOptions::presence): at every join, those after
    /// a reconnect included. It replaces what was known of the members.
    Members { room: RoomId, members: Members },
    /// Somebody came into such a room or left it. A `Join` of somebody who is there is a change of `info`.
    Member { room: RoomId, user: UserId, change: Change, info: Option<Json> },
    /// A signal, to a room or (without one) to this user. An application that is slow to take its events gets the
    /// last of each sender and kind.
    Signal(Signalled),
    /// What users show who are watched ([`Client::watch`](crate::Client::watch)): each once when it begins, then
    /// those of whom something else is known; after a reconnect what changed meanwhile. An application that is slow
    /// to take its events gets the last of each user.
    Presence(Vec<Presence>),
    /// This user is not watched any more, because the server refuses it: with another token that allows less, say.
    WatchLost { user: UserId, error: ErrorBody },
    /// This client is not in the room any more, because the server refuses it: with another token that allows less,
    /// say. [`Client::join`](crate::Client::join) may try again.
    RoomLost { room: RoomId, error: ErrorBody },
    /// A try to connect failed, for another cause than the last one; the client goes on trying.
    /// [`Client::trouble`](crate::Client::trouble) has each of them.
    NotConnected { trouble: ConnectTrouble, retry_in_ms: u64 },
    /// The connection changed.
    State { previous: State, current: State, reason: Option<String> },
}

/// Who is in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Each user once. `None` if there are more than 1,000.
    pub listed: Option<Vec<InfoOf>>,
    /// All of them, listed or not.
    pub count: usize,
}

impl Members {
    /// As an answer says it, if it does.
    pub(crate) fn of(listed: Option<Vec<InfoOf>>, count: Option<usize>) -> Option<Self> {
        let count = count.or(listed.as_ref().map(Vec::len))?;
        Some(Self { listed, count })
    }
}

/// An event, and what taking it acknowledges. Without an event: a message that had been shown before.
#[derive(Debug, Clone)]
pub struct Item {
    /// What happened.
    pub event: Option<Event>,
    /// Acknowledged when it is taken.
    pub cursor: Option<Cursor>,
}

/// The events of one client, as a [`Stream`] or by [`Events::recv`]. It ends after the client was closed or failed.
///
/// It is bounded ([`events_max`](crate::Builder::events_max)): an application that does not take its events makes
/// the client stop reading the socket, replies to sends included, so take events in another task than the one that
/// waits for sends. Nothing is lost by this: what the server then drops is replayed when reading goes on.
///
/// Dropping it means that this client is not interested in events: messages are then neither kept nor acknowledged.
#[derive(Debug)]
pub struct Events {
    pub(crate) items: mpsc::Receiver<Item>,
    pub(crate) cursor: Arc<watch::Sender<Option<Cursor>>>,
    pub(crate) acks: bool,
}

impl Events {
    /// Waits for the next event; `None` after the client ended. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let Some(item) = ready!(self.items.poll_recv(cx)) else { return Poll::Ready(None) };
            if let (true, Some(cursor)) = (self.acks, item.cursor) {
                self.cursor.send_replace(Some(cursor));
            }
            if let Some(event) = item.event {
                return Poll::Ready(Some(event));
            }
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().poll_event(cx)
    }
}
