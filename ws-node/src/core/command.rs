//! What an open session may say.

use roost_proto::frames::{ClientFrame, InRoom, Join, OfUsers, Publish, Send, SetStatus, Signal};
use roost_proto::history::History;
use roost_proto::ids::{Cursor, MessageId, UserId};
use roost_proto::{ErrorBody, Json, frames};
use serde_json::value::RawValue;

use crate::core::rights::Rights;

/// A frame that the core hears of.
#[derive(Debug)]
pub enum Command {
    Send(Send),
    /// Something for the application's processors.
    Event(frames::AppEvent),
    Publish(Publish),
    Join(Join),
    Leave(InRoom),
    Members(InRoom),
    Watch(OfUsers),
    Unwatch(OfUsers),
    Status(SetStatus),
    History(History),
    /// Another token: what it allows, or why it is not taken.
    Refresh(MessageId, Result<Rights, ErrorBody>),
    /// The device has everything up to there.
    Ack(Cursor),
    /// And its user has read it.
    Read(Cursor),
    Signal(Signal),
}

/// A frame that is the connection's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfConnection {
    Connect,
    Ping,
    Pong,
}

/// What of a command may be large: the rest of it is some hundred bytes.
#[derive(Debug)]
pub(crate) enum Bulk<'a> {
    Data(&'a mut Box<RawValue>),
    Info(&'a mut Option<Json>),
    Users(&'a mut Vec<UserId>),
    Nothing,
}

impl Bulk<'_> {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.get().len(),
            Self::Info(info) => info.as_ref().map_or(0, |info| info.get().len()),
            // A name is kept behind a pointer and two counts.
            Self::Users(users) => users.iter().map(|user| user.as_str().len() + 32).sum(),
            Self::Nothing => 0,
        }
    }

    pub(crate) fn shed(self) {
        match self {
            Self::Data(data) => *data = RawValue::NULL.to_owned(),
            Self::Info(info) => *info = None,
            Self::Users(users) => *users = Vec::new(),
            Self::Nothing => {}
        }
    }
}

impl Command {
    pub(crate) fn bulk(&mut self) -> Bulk<'_> {
        match self {
            Self::Send(Send { data, .. })
            | Self::Event(frames::AppEvent { data, .. })
            | Self::Publish(Publish { data, .. }) => Bulk::Data(data),
            Self::Join(join) => Bulk::Info(&mut join.info),
            Self::Watch(of) | Self::Unwatch(of) => Bulk::Users(&mut of.users),
            _ => Bulk::Nothing,
        }
    }

    /// What a frame says; `verify` is shown a token.
    ///
    /// # Errors
    /// It says nothing to the core.
    pub fn of(
        frame: ClientFrame,
        verify: impl FnOnce(&str) -> Result<Rights, ErrorBody>,
    ) -> Result<Self, OfConnection> {
        Ok(match frame {
            ClientFrame::Send(send) => Self::Send(send),
            ClientFrame::Event(event) => Self::Event(event),
            ClientFrame::Publish(publish) => Self::Publish(publish),
            ClientFrame::Join(join) => Self::Join(join),
            ClientFrame::Leave(leave) => Self::Leave(leave),
            ClientFrame::Members(of) => Self::Members(of),
            ClientFrame::Watch(watch) => Self::Watch(watch),
            ClientFrame::Unwatch(unwatch) => Self::Unwatch(unwatch),
            ClientFrame::Status(status) => Self::Status(status),
            ClientFrame::History(history) => Self::History(history),
            ClientFrame::Refresh(refresh) => {
                let rights = verify(&refresh.token);
                Self::Refresh(refresh.id, rights)
            }
            ClientFrame::Ack(ack) => Self::Ack(ack.cursor),
            ClientFrame::Read(read) => Self::Read(read.cursor),
            ClientFrame::Signal(signal) => Self::Signal(signal),
            ClientFrame::Connect(_) => return Err(OfConnection::Connect),
            ClientFrame::Ping(_) => return Err(OfConnection::Ping),
            ClientFrame::Pong(_) => return Err(OfConnection::Pong),
        })
    }
}
