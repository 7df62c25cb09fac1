//! What a [`Client`] does about the presence of others.

use roost_proto::answers::Watched;
use roost_proto::frames::{OfUsers, Presence};
use roost_proto::{ClientFrame, MessageId, UserId};

use crate::client::{Client, new_id};
use crate::error::SendError;
use crate::lanes::OrderingKey;
use crate::outbox::{Command, What};

impl Client {
    /// Watches users, and goes on over reconnects and moves until [`Client::unwatch`]. Returns what they show now, in
    /// the order given; that and every change comes as [`Event::Presence`](crate::Event::Presence) too, so events are
    /// complete without the answer. Who is watched already may be named again.
    ///
    /// # Errors
    /// [`SendError`]; then none of them is watched that was not before. `forbidden`: the token does not allow one of
    /// them; `too_large`: more than a connection may watch (1,000 by default). After `Unknown` the client still
    /// tries; [`Client::unwatch`] ends that.
    pub async fn watch<U: AsRef<str>>(
        &self,
        users: impl IntoIterator<Item = U>,
    ) -> Result<Vec<Presence>, SendError> {
        let (id, users) = self.of_users(users, ClientFrame::Watch)?;
        let done = self.order(Command { id, lane: OrderingKey::Watch, what: What::Watch(users) }).await?;
        Ok(done.read::<Watched>()?.users)
    }

    /// Ceases to watch users: from this call on nothing of them is told.
    ///
    /// # Errors
    /// [`SendError`]; if there is no connection in time they are not watched all the same.
    pub async fn unwatch<U: AsRef<str>>(&self, users: impl IntoIterator<Item = U>) -> Result<(), SendError> {
        let (id, users) = self.of_users(users, ClientFrame::Unwatch)?;
        match self.order(Command { id, lane: OrderingKey::Watch, what: What::Unwatch(users) }).await {
            // The next connection does not watch them.
            Ok(_) | Err(SendError::NotSent) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn of_users<U: AsRef<str>>(
        &self,
        users: impl IntoIterator<Item = U>,
        frame: fn(OfUsers) -> ClientFrame,
    ) -> Result<(MessageId, Vec<UserId>), SendError> {
        let users =
            users.into_iter().map(|user| UserId::new(user).map_err(|e| SendError::Invalid(e.to_string())));
        let (id, users) = (new_id(), users.collect::<Result<Vec<_>, _>>()?);
        self.encode(&frame(OfUsers { id: id.clone(), users: users.clone() }))?;
        Ok((id, users))
    }
}
