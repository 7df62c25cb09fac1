//! What a [`Client`] asks the application's own processors, and what they answer.

use roost_proto::events::Message;
use roost_proto::frames::Event;
use roost_proto::results::RESULT;
use roost_proto::{ClientFrame, Json, MessageId};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use crate::client::{Client, new_id};
use crate::core::{Action, Core};
use crate::error::SendError;
use crate::lanes::Lane;
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
    pub status: Option<String>,
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

impl Client {
    /// Gives `data` to the application's processors, and waits for the result. Events come to them in the order in
    /// which these calls were first polled. Dropping the future does not withdraw the event.
    ///
    /// The result is a message of the inbox, too: take [`Events`](crate::Events) in another task than this.
    ///
    /// # Errors
    /// [`SendError`]: `TimedOut` and `NoResult` say that it is stored and no result came.
    pub async fn event(&self, data: impl Serialize) -> Result<EventResult, SendError> {
        self.event_with_id(new_id(), data).await
    }

    /// Like [`Client::event`] under an id of the application, as [`Client::send_with_id`]. A result that came into the
    /// inbox before does not come again.
    ///
    /// # Errors
    /// As [`Client::event`]; with `conflict` the id was used before with other data.
    pub async fn event_with_id(&self, id: MessageId, data: impl Serialize) -> Result<EventResult, SendError> {
        let data = to_raw_value(&data).map_err(|e| SendError::Invalid(e.to_string()))?;
        let text = self.encode(&ClientFrame::Event(Event { id: id.clone(), data }))?;
        let Done { result, .. } =
            self.order(Command { id: id.clone(), lane: Lane::Events, what: What::Event(text) }).await?;
        result.and_then(EventResult::parse).ok_or(SendError::NoResult { id })
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
                Ok(Done { id, ok: Default::default(), result: Some(record.clone()) })
            };
            self.actions.push(Action::Answer(ticket, result));
        }
    }
}
