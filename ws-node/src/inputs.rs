//! What crosses between the node's task and the others: what reaches it, what it hands to connections, and how long
//! those wait that ask the back ends for it.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use roost_proto::codes::CloseCode;
use roost_proto::frames::Reply;
use roost_proto::ids::{Sid, UserId};
use roost_proto::records::Record;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::core::{ApiCommand, Connecting, Explained, Input, Query, SendQueue, TicketShown};

/// Events waiting for the core. A full queue makes sockets and readers wait, never drops.
pub(crate) const EVENTS_MAX: usize = 16_384;
/// Frames of sockets among them, in bytes: 512 of the largest. Beyond it sockets wait, each for its turn.
pub(crate) const INPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a call to the store may take; what is slower counts as unknown. The store's own limit is shorter.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_millis(2300);
/// Pause after a failed read.
pub(crate) const RETRY: Duration = Duration::from_millis(200);

/// What reaches the node's task.
pub(crate) enum NodeInput {
    Core(Input),
    /// What came by a link, and the room that it takes of what the link may have here at once.
    Copies {
        to: Sid,
        records: Vec<Record>,
        #[expect(dead_code, reason = "held for its drop")]
        room: OwnedSemaphorePermit,
    },
    /// What a connection said, and the bytes of the queue that it takes until it is handled.
    Said(Input, OwnedSemaphorePermit),
    /// A connection said `connect`: its frames go to `out` from now on.
    Connect(Box<Connecting>, mpsc::Sender<Out>),
    /// Somebody wants to know.
    Explain(Query, oneshot::Sender<Explained>),
    /// Commands of the server API, in order, and who waits for the answer to each.
    Calls(Vec<(ApiCommand, oneshot::Sender<Reply>)>),
    /// Which events of this client, or of anybody, wait for a result here? With how many there are.
    Tickets(Option<UserId>, oneshot::Sender<(Vec<TicketShown>, usize)>),
    /// Which vnodes have a ready home?
    Ready(oneshot::Sender<Vec<bool>>),
}

/// What the node's task hands to a connection.
#[derive(Debug)]
pub(crate) enum Out {
    /// As it goes over the wire; those on credit give it back when they are written.
    Frame {
        frame: Bytes,
        queue: SendQueue,
        /// As the core counts them.
        bytes: usize,
    },
    Close {
        code: CloseCode,
        reason: Cow<'static, str>,
    },
}
