//! What a [`Client`] asks the application's own processors, and what they answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use roost_proto::events::Message;
use roost_proto::frames::AppEvent;
use roost_proto::results::RESULT;
use roost_proto::{ClientFrame, Json, MessageId};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use crate::client::{Client, new_id};
use crate::core::{Action, Core};
use crate::error::SendError;
use crate::lanes::OrderingKey;
use crate::outbox::{Command, Done, What};

/// The type of a result that the cluster makes when no other came in time.
const TIMED_OUT: &str = "event_timeout";

/// The result of an event, as a processor of the application wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventResult {
    /// Its `type`, such as `event_accepted`. `event_timeout` is the cluster's: no result came in time.
    pub kind: String,
    /// What it is the result of.
    pub event_id: MessageId,
    /// If the processor gave one, as a text.
    pub status: Option<String>,
    /// If the processor gave any.
    pub data: Option<Json>,
    /// All of it, what is not named here included.
    pub record: Json,
}

impl EventResult {
    /// What a message of the inbox says as a result, if it is one.
    pub fn of(message: &Message) -> Option<Self> {
        (message.kind == RESULT).then(|| Self::parse(message.data.clone().into())).flatten()
    }

    fn parse(record: Json) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            r#type: String,
            event_id: MessageId,
            // Whatever a processor means by it, a number beyond all bounds too.
            status: Option<Json>,
            data: Option<Json>,
        }
        let Fields { r#type: kind, event_id, status, data } = serde_json::from_str(record.get()).ok()?;
        let status = status.and_then(|status| serde_json::from_str(status.get()).ok());
        Some(Self { kind, event_id, status, data, record })
    }
}

/// An event on its way: a future of its result, which has its id at once. Nothing is sent until it is polled.
#[must_use = "nothing is sent until it is awaited"]
pub struct EventCall {
    id: MessageId,
    result: Pin<Box<dyn Future<Output = Result<EventResult, SendError>> + Send>>,
}

impl EventCall {
    /// What the result, and a later one in the inbox, is the result of ([`EventResult::event_id`]).
    pub fn id(&self) -> &MessageId {
        &self.id
    }
}

impl Future for EventCall {
    type Output = Result<EventResult, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.result.as_mut().poll(cx)
    }
}

impl fmt::Debug for EventCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventCall").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Client {
    /// Gives `data` to the application's processors, and waits for the result. Events come to them in the order in
    /// which these calls were first polled. Dropping the future does not withdraw the event.
    ///
    /// The id is there before the result ([`EventCall::id`]): an application that keeps it knows what a result in the
    /// inbox is about, also after a restart.
    ///
    /// The result is a message of the inbox, too: take [`Events`](crate::Events) in another task than this.
    ///
    /// # Errors
    /// [`SendError`]: `TimedOut` and `NoResult` say that it is stored and no result came.
    pub fn event(&self, data: impl Serialize) -> EventCall {
        self.event_with_id(new_id(), data)
    }

    /// Like [`Client::event`] under an id of the application, as [`Client::send_with_id`]. A result that came into the
    /// inbox before does not come again.
    ///
    /// # Errors
    /// As [`Client::event`]; with `conflict` the id was used before with other data.
    pub fn event_with_id(&self, id: MessageId, data: impl Serialize) -> EventCall {
        let (client, text) = (self.clone(), self.event_text(id.clone(), data));
        let asked = id.clone();
        let result = async move {
            let what = What::Event(text?);
            let done = client.order(Command { id: id.clone(), lane: OrderingKey::Events, what }).await?;
            EventResult::parse(done.ok).ok_or(SendError::NoResult { id })
        };
        EventCall { id: asked, result: Box::pin(result) }
    }

    fn event_text(&self, id: MessageId, data: impl Serialize) -> Result<Arc<str>, SendError> {
        let data = to_raw_value(&data).map_err(|e| SendError::Invalid(e.to_string()))?;
        self.encode(&ClientFrame::Event(AppEvent { id, data }))
    }
}

impl Core {
    /// A result came into the inbox.
    pub(crate) fn resulted(&mut self, message: &Message) {
        let Some(EventResult { kind, event_id: id, record, .. }) = EventResult::of(message) else { return };
        for ticket in self.outbox.withdraw_event(&id) {
            let id = id.clone();
            let result = if kind == TIMED_OUT {
                Err(SendError::TimedOut { id })
            } else {
                Ok(Done { id, ok: record.clone() })
            };
            self.actions.push(Action::Answer(ticket, result));
        }
    }
}
