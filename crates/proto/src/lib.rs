//! What goes over Roost's wires: ids, client frames, records between nodes, events for consumers, codes.
//!
//! This crate alone defines bytes. It does no I/O, keeps no state and knows no back end; the contract in words
//! is `docs/PROTOCOL.md`.

#![warn(missing_docs)]

pub mod answers;
pub mod claims;
pub mod codes;
pub mod events;
pub mod frames;
pub mod history;
pub mod ids;
pub mod json;
pub mod limits;
pub mod live;
pub mod reading;
pub mod records;
pub mod results;
#[cfg(feature = "schema")]
mod schema;
pub mod time;

pub use claims::Claims;
pub use codes::{CloseCode, ErrorBody, ErrorCode};
pub use frames::{ClientFrame, FrameError, ServerFrame};
pub use ids::{
    Cursor, DeviceId, Epoch, IdError, MessageId, NodeId, Offset, RoomId, Seq, SessionId, Sid, StreamId,
    UserId, VnodeId,
};
pub use json::Json;
