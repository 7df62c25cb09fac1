//! The direct ways between nodes: `GET /link` on the admin listener, a WebSocket that carries in each message the payload
//! that a topic would carry in a record (`docs/decisions/0019-turns-and-links.md`).
//!
//! What a link is for, what goes by it and when it is opened is decided by the core. Here it is dialled, proven, written
//! and read, and given up when it is silent.

mod accept;
mod dial;
mod proof;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roost_backend::store::Store;
use roost_service::Jobs;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;

pub(crate) use self::accept::{Accepting, route};
use crate::core::{Input, LinkInput, LinkKey, LinkOrder};
use crate::inputs::NodeInput;

/// In the request: who dials, whom it means, and a nonce. In the answer: a nonce and a proof.
const HEADER: &str = "roost-link";
/// Making a connection and proving it, each.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// A link that brought nothing for so long is pinged, and given up after three times that.
const PING_EVERY: Duration = Duration::from_secs(1);
const SILENT_MAX: Duration = Duration::from_secs(3);
/// Payloads that wait for the connection; their bytes are bounded by the core.
const QUEUE_MAX: usize = 4096;
/// A turn's payload, and what is around it.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// A record or two; larger ones grow it while they are read.
const READ_BUFFER_BYTES: usize = 64 * 1024;

fn websocket() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// The links that this node opened.
pub(crate) struct Links {
    store: Arc<dyn Store>,
    events: mpsc::Sender<NodeInput>,
    jobs: Jobs,
    stop: CancellationToken,
    open: HashMap<LinkKey, mpsc::Sender<Bytes>>,
}

impl Links {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        events: mpsc::Sender<NodeInput>,
        jobs: Jobs,
        stop: CancellationToken,
    ) -> Self {
        Self { store, events, jobs, stop, open: HashMap::new() }
    }

    /// Does what the core wants; what comes of it at once is returned.
    pub(crate) fn carry_out(&mut self, order: LinkOrder) -> Option<Input> {
        match order {
            LinkOrder::Open { link, admin, from, to } => {
                let (payloads, queue) = mpsc::channel(QUEUE_MAX);
                self.open.insert(link, payloads);
                let (store, events, stop) = (self.store.clone(), self.events.clone(), self.stop.clone());
                self.jobs.spawn(async move {
                    let link = dial::Dialled { link, admin, from, to, events };
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = link.run(&*store, queue) => {}
                    }
                });
                None
            }
            LinkOrder::Send { link, payload } => {
                // Only if thousands of small ones wait: the core counts bytes.
                let full = self.open.get(&link)?.try_send(payload).is_err();
                full.then(|| {
                    self.open.remove(&link);
                    Input::Link(LinkInput::Closed(link))
                })
            }
            LinkOrder::Close(link) => {
                self.open.remove(&link);
                None
            }
        }
    }

    /// A link ended.
    pub(crate) fn forget(&mut self, link: LinkKey) {
        self.open.remove(&link);
    }
}
