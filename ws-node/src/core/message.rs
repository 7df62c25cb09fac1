//! Messages as items and as operations of the store.

use roost_backend::store::{AppendOp, Closes, EventOp, Op, ReceiptRequest};
use roost_proto::events::{RECEIPT, event_rest, message_rest};
use roost_proto::ids::{MessageId, StreamId, UserId};
use roost_proto::records::{Append, Event, ItemBody};
use roost_proto::results::RESULT;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The kind of a message that a user sent.
pub(super) const MESSAGE: &str = "message";

/// What the hash of an event begins with.
const EVENT: &str = "event";

/// By whom a receipt's id is known, so that it is none of the reader's own; no user's id begins with `#`.
pub(super) const BY: &str = "#receipt";

/// How long to wait before what was refused is repeated, when nothing better is known, in milliseconds.
pub(super) const RETRY_AFTER_MS: u64 = 250;

/// What makes an item a repeat of another: the stream, who it is from, and the id.
pub(super) type ItemKey = (StreamId, String, MessageId);

/// Tells a repeat from a conflict: of what the application gave, kind and payload.
fn body_hash(kind: &str, data: &str) -> u64 {
    xxh3_64_with_seed(data.as_bytes(), xxh3_64(kind.as_bytes()))
}

/// The same of an item. What this node asks has no repeats.
pub(super) fn hash_of(body: &ItemBody) -> u64 {
    match body {
        ItemBody::Append(append) => body_hash(&append.kind, append.data.get()),
        ItemBody::Event(event) => body_hash(EVENT, event.data.get()),
        ItemBody::MemberUpdate(_) | ItemBody::Said(_) | ItemBody::Members { .. } | ItemBody::Tail { .. } => 0,
    }
}

pub(super) fn key_of(append: &Append) -> ItemKey {
    (append.stream.clone(), append.from.clone(), append.id.clone())
}

/// `clock_ms` is the vnode's; `reports`: what nobody acknowledges is reported.
pub(super) fn append_op(append: Append, at: u64, clock_ms: u64, reports: bool) -> AppendOp {
    let said = [MESSAGE, RESULT].contains(&&*append.kind) && !append.stream.is_room();
    let asks = (said && append.receipt).then(|| UserId::new(&append.from).ok()).flatten();
    AppendOp {
        due: reports && said,
        wanted: asks.map(|from| ReceiptRequest {
            from,
            id: append.id.clone(),
            since_ms: clock_ms,
            delivered: false,
        }),
        hash: body_hash(&append.kind, append.data.get()),
        rest: message_rest(&append.id, &append.kind, &append.from, at, &append.data),
        stream: append.stream,
        from: if append.kind == RECEIPT { BY.into() } else { append.from },
        id: append.id,
        at,
        closes: append.answers.map(Closes::Answered),
    }
}

pub(super) fn event_op(event: Event, at: u64) -> Op {
    let rest = event_rest(&event.client, &event.id, at, &event.data);
    let hash = body_hash(EVENT, event.data.get());
    Op::Event(EventOp { hash, client: event.client, id: event.id, at, rest })
}
