//! What a [`Client`] reads again: pages of a stream, as far back as the hot window goes.

use roost_proto::history::{Before, History};
use roost_proto::{ClientFrame, ErrorBody, ErrorCode, Json, StreamId};

use crate::Message;
use crate::client::{Client, new_id};
use crate::error::SendError;
use crate::lanes::Lane;
use crate::outbox::{Command, Done};

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
        let lane = Lane::History(stream.clone());
        let text = self.encode(&ClientFrame::History(History { id: id.clone(), stream, before, limit }))?;
        let Done { ok, .. } = self.order(Command::frame(id, lane, text)).await?;
        let messages: Result<_, _> = ok.messages.iter().flatten().map(read).collect();
        Ok(Page { messages: messages?, before: ok.before, older: ok.older })
    }
}

fn read(message: &Json) -> Result<Message, SendError> {
    let wrong = |e| ErrorBody::new(ErrorCode::Internal, format!("a page with what is no message: {e}"));
    serde_json::from_str(message.get()).map_err(|e| SendError::Refused(wrong(e)))
}
