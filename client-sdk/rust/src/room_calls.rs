//! What a [`Client`] does in rooms.

use roost_proto::answers::{Accepted, Listed};
use roost_proto::frames::{self, InRoom, Join, Publish, RoomAt, Signal};
use roost_proto::limits::KIND_BYTES_MAX;
use roost_proto::{ClientFrame, Cursor, Epoch, Json, MessageId, Offset, RoomId, UserId};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::client::{Client, new_id};
use crate::error::SendError;
use crate::event::Members;
use crate::lanes::OrderingKey;
use crate::outbox::{Command, What};
use crate::signals::{Audience, Outgoing};

/// How to be in a room.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JoinOptions {
    /// The last message of the room that the application has: those after it come first. Without it the room begins
    /// with what is published from now on. In a room that this client is in already it is not looked at.
    pub cursor: Option<Cursor>,
    /// Be shown as a member, and be told of the others ([`Event::Members`](crate::Event::Members),
    /// [`Event::Member`](crate::Event::Member)).
    pub presence: bool,
    /// With `presence`: what others are told of this member, at most 1,024 bytes of JSON. Of a user's several
    /// connections that of the latest counts.
    pub info: Option<serde_json::Value>,
}

/// Where a client begins in a room. What [`Event`](crate::Event)s say is complete without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The end of the room's stream at that moment.
    pub cursor: Cursor,
    /// Everything after the cursor that was shown follows, or none was shown. If not, some messages were missed
    /// ([`Event::Gap`](crate::Event::Gap)), and the room goes on after `cursor`.
    pub recovered: bool,
    /// If not `recovered`: the history must be read through this point.
    pub through: Option<String>,
    /// With [`JoinOptions::presence`]: who is there. This user may not be among them yet; then a
    /// [`Event::Member`](crate::Event::Member) follows.
    pub members: Option<Members>,
}

/// A confirmed publish: it is in the room's stream and in the canonical log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The id of the message, given or made.
    pub id: MessageId,
    /// When it was appended (RFC 3339, UTC); a repeat of the same id gets the same.
    pub at: String,
    /// Where it is in the room; not told to a repeat of what was published before.
    pub cursor: Option<Cursor>,
}

impl Client {
    /// Comes into a room, and stays there over reconnects and moves until [`Client::leave`]: its messages are
    /// [`Event::Message`](crate::Event::Message)s, each once, in order. In a room that the client is in already this
    /// changes `presence` and `info`. Rooms that the server has everyone join need no call.
    ///
    /// # Errors
    /// [`SendError`]. After `Unknown` the client still tries to come in; [`Client::leave`] ends that.
    pub async fn join(&self, room: impl AsRef<str>, options: JoinOptions) -> Result<Joined, SendError> {
        let JoinOptions { cursor, presence, info } = options;
        let info = info.map(|info| raw(&info).map(Json::from)).transpose()?;
        let at = RoomAt { room: room_id(room)?, cursor, presence, info };
        let id = new_id();
        // The frame is made when it is written, with a cursor no longer than this one.
        let longest = Some(Cursor::new(Epoch(u64::MAX), Offset(u64::MAX)));
        let frame = Join::new(id.clone(), RoomAt { cursor: longest, ..at.clone() });
        self.encode(&ClientFrame::Join(frame))?;
        let room = at.room.clone();
        let done = self.order(Command::within(id, &room, What::Join(at))).await?;
        let frames::Joined { cursor, recovered, through, members, member_count, .. } = done.read()?;
        Ok(Joined { cursor, recovered, through, members: Members::of(members, member_count) })
    }

    /// Leaves a room: from this call on nothing of it is shown. A join of the room that waits for its answer ends
    /// with [`SendError::Left`].
    ///
    /// # Errors
    /// [`SendError`]; if there is no connection in time it is left all the same.
    pub async fn leave(&self, room: impl AsRef<str>) -> Result<(), SendError> {
        let room = room_id(room)?;
        match self.order(Command::within(new_id(), &room, What::Leave(room.clone()))).await {
            // The next connection does not name it.
            Ok(_) | Err(SendError::NotSent) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Publishes `data` to a room, in which this client need not be, and waits until it is confirmed. Publishes to
    /// one room come into it in the order in which these calls were first polled, as with [`Client::send`].
    ///
    /// # Errors
    /// [`SendError`]; its variants say whether the message may have been accepted.
    pub async fn publish(&self, room: impl AsRef<str>, data: impl Serialize) -> Result<Published, SendError> {
        self.publish_with_id(new_id(), room, data).await
    }

    /// Like [`Client::publish`] under an id of the application; see [`Client::send_with_id`].
    ///
    /// # Errors
    /// [`SendError`]; with `conflict` the id was used before with other data.
    pub async fn publish_with_id(
        &self,
        id: MessageId,
        room: impl AsRef<str>,
        data: impl Serialize,
    ) -> Result<Published, SendError> {
        let (room, data) = (room_id(room)?, raw(&data)?);
        let lane = OrderingKey::Room(room.clone());
        let text = self.encode(&ClientFrame::Publish(Publish { id: id.clone(), room, data }))?;
        let done = self.order(Command::frame(id, lane, text)).await?;
        let Accepted { at, cursor } = done.accepted();
        Ok(Published { id: done.id, at, cursor })
    }

    /// Asks who is in a room, in which this client need not be.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn members(&self, room: impl AsRef<str>) -> Result<Members, SendError> {
        let (id, room) = (new_id(), room_id(room)?);
        let lane = OrderingKey::Within(room.clone());
        let text = self.encode(&ClientFrame::Members(InRoom { id: id.clone(), room }))?;
        let Listed { members, member_count } = self.order(Command::frame(id, lane, text)).await?.read()?;
        Ok(Members::of(members, member_count).unwrap_or_default())
    }

    /// Tells those who are in a room, if this client is in it: a cursor, typing, a reaction. Nothing is kept and
    /// nothing is confirmed. Without a connection it is dropped, and of several with the same `kind` (at most 64
    /// bytes) that wait for their turn only the latest goes out.
    ///
    /// # Errors
    /// [`SendError`]: only if it could never be sent.
    pub fn signal_room(
        &self,
        room: impl AsRef<str>,
        kind: impl Into<String>,
        data: impl Serialize,
    ) -> Result<(), SendError> {
        self.signal(Audience::Room(room_id(room)?), kind.into(), raw(&data)?)
    }

    /// Tells every connection of a user; otherwise like [`Client::signal_room`].
    ///
    /// # Errors
    /// [`SendError`]: only if it could never be sent.
    pub fn signal_user(
        &self,
        to: impl AsRef<str>,
        kind: impl Into<String>,
        data: impl Serialize,
    ) -> Result<(), SendError> {
        let to = UserId::new(to).map_err(|e| SendError::Invalid(e.to_string()))?;
        self.signal(Audience::User(to), kind.into(), raw(&data)?)
    }

    fn signal(&self, to: Audience, kind: String, data: Box<RawValue>) -> Result<(), SendError> {
        if kind.len() > KIND_BYTES_MAX {
            return Err(SendError::Invalid(format!("the kind is longer than {KIND_BYTES_MAX} bytes")));
        }
        let (room, user) = match &to {
            Audience::Room(room) => (Some(room.clone()), None),
            Audience::User(user) => (None, Some(user.clone())),
        };
        let frame = ClientFrame::Signal(Signal { room, to: user, kind: kind.clone(), data });
        let text = self.encode(&frame)?;
        self.offer(Outgoing { to, kind, text });
        Ok(())
    }
}

fn room_id(room: impl AsRef<str>) -> Result<RoomId, SendError> {
    RoomId::new(room).map_err(|e| SendError::Invalid(e.to_string()))
}

fn raw(data: &impl Serialize) -> Result<Box<RawValue>, SendError> {
    to_raw_value(data).map_err(|e| SendError::Invalid(e.to_string()))
}
