//! What a back end of the application asks for, and the commands that every node is being told.

pub(in crate::core) mod commands;

use std::collections::BTreeMap;

use bytes::Bytes;
use roost_proto::ids::{MessageId, StreamId, UserId};
use serde_json::value::RawValue;

use crate::core::keys::CallKey;

/// What a back end of the application asks for.
#[derive(Debug)]
pub enum ApiCommand {
    /// A message for a stream, as if `from` had sent it.
    Append { stream: StreamId, from: UserId, id: MessageId, data: Box<RawValue>, receipt: bool },
    /// A result, as if a processor had produced it.
    Result { client: UserId, record: Bytes },
    /// Close whatever sessions the user has, wherever they are.
    Disconnect { user: UserId, reason: String },
}

/// A command that other nodes are being told.
#[derive(Debug)]
pub(super) struct Telling {
    /// Nodes whose record the log has not taken yet.
    left: usize,
    failed: bool,
    until: u64,
}

/// Commands that every node is being told.
#[derive(Debug, Default)]
pub(super) struct Calls {
    telling: BTreeMap<CallKey, Telling>,
}
