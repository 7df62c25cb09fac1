//! Where the client is.

use roost_proto::{Epoch, NodeId, SessionId};

use crate::error::Failure;

/// What a client is doing about its connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum State {
    /// Not started yet, or closed by the application.
    #[default]
    Disconnected,
    /// On the way to the first connection.
    Connecting,
    /// Welcomed. A planned move goes from one `Connected` to the next without anything between.
    Connected {
        /// The user's home.
        node: NodeId,
        /// This connection.
        session: SessionId,
        /// The epoch of the home.
        epoch: Epoch,
    },
    /// The connection is gone; sends wait, and the client tries again until it is closed.
    Reconnecting,
    /// Stopped for good.
    Failed(Failure),
}

impl State {
    /// Whether sends go out at once.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}
