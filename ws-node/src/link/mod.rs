//! The direct ways between nodes: `GET /link` on the admin listener, a WebSocket that carries in each message the payload
//! that a topic would carry in a record (`docs/decisions/0019-turns-and-links.md`).
//!
//! What a link is for, what goes by it and when it is opened is decided by the core. Here it is dialled, proven, written
//! and read, and given up when it is silent.

pub(crate) mod accept;
mod dial;
pub(crate) mod opened;
mod proof;

use std::time::Duration;

use roost_backend::store::Store;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::inputs::STORE_TIMEOUT;

/// In the request: who dials, whom it means, and a nonce. In the answer: a nonce and a proof.
const HEADER: &str = "roost-link";
/// Making a connection and proving it, each.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// A link that brought nothing for so long is pinged, and given up after three times that.
const PING_EVERY: Duration = Duration::from_secs(1);
const SILENT_MAX: Duration = Duration::from_secs(3);
/// A turn's payload, and what is around it.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// A record or two; larger ones grow it while they are read.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What both ends prove that they have, or why it is not known now.
async fn secret(store: &dyn Store) -> Result<String, String> {
    match timeout(STORE_TIMEOUT, store.link_secret()).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the store does not answer".into()),
    }
}

fn websocket() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}
