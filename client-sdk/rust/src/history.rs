//! What a [`Client`] reads again: pages of a stream, as far back as the hot window goes.

use roost_proto::answers::Paged;
use roost_proto::history::{Before, History};
use roost_proto::{ClientFrame, StreamId};

use crate::Message;
use crate::client::{Client, new_id};
use crate::error::SendError;
use crate::lanes::OrderingKey;
use crate::outbox::{Command, read};

/// A part of a stream.
#[derive(Debug, Clone)]
pub struct Page {
    /// The newest first.
    pub messages: Vec<Message>,
    /// There is more in the hot window, and this asks for it.
    pub before: Option<Before>,
    /// The hot window ends here, and the stream does not.
    pub older: bool,
}

impl Client {
    /// Reads messages of a stream that are still in the hot window, newest first: of the own inbox
    /// ([`StreamId::inbox`]), or of a room that the token allows ([`StreamId::of_room`]), in which this client need
    /// not be. `before` is that of an earlier page; without it the page begins with the newest message. A page has
    /// at most `limit` messages (1 to 100; 50 if nothing is said), and fewer where more would not fit into a frame.
    ///
    /// # Errors
    /// [`SendError`]; `Refused` with `forbidden` for a stream that this user may not read.
    pub async fn history(
        &self,
        stream: &StreamId,
        before: Option<Before>,
        limit: Option<usize>,
    ) -> Result<Page, SendError> {
        let (id, stream) = (new_id(), stream.clone());
        let lane = OrderingKey::History(stream.clone());
        let text = self.encode(&ClientFrame::History(History { id: id.clone(), stream, before, limit }))?;
        let page: Paged = self.order(Command::frame(id, lane, text)).await?.read()?;
        let messages: Result<_, _> = page.messages.iter().map(read).collect();
        let messages = messages.map_err(SendError::Refused)?;
        Ok(Page { messages, before: page.before, older: page.older })
    }
}
