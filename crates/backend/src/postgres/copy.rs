//! Rows in the binary form of `COPY` (PostgreSQL 17 documentation, COPY, "Binary Format").

use bytes::{BufMut, Bytes, BytesMut};
use roost_proto::VnodeId;

use crate::archive::row::{EventRow, MessageRow, ResultRow, Row, StatusRow, name_of};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// From 1970 to PostgreSQL's year 0, 2000-01-01, in milliseconds.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;
/// Bytes of a row beside its texts, about.
const ROW_BYTES: usize = 200;

/// A table that rows go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Messages,
    Undelivered,
    StatusChanges,
    ClientEvents,
    ClientResults,
}

impl Table {
    pub(super) const ALL: [Self; 5] =
        [Self::Messages, Self::Undelivered, Self::StatusChanges, Self::ClientEvents, Self::ClientResults];

    pub(super) fn of(row: &Row) -> Self {
        match row {
            Row::Message(_) => Self::Messages,
            Row::Undelivered(_) => Self::Undelivered,
            Row::Status(_) => Self::StatusChanges,
            Row::Event(_) => Self::ClientEvents,
            Row::Result(_) => Self::ClientResults,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Undelivered => "undelivered",
            Self::StatusChanges => "status_changes",
            Self::ClientEvents => "client_events",
            Self::ClientResults => "client_results",
        }
    }

    /// The column of the id of [`Row::id`].
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::ClientResults => "result_id",
            _ => "event_id",
        }
    }

    /// In the order of [`encode`].
    pub(super) fn columns(self) -> &'static str {
        match self {
            Self::Messages | Self::Undelivered => {
                "stream, generation, \"offset\", id, kind, sender, at, data"
            }
            Self::StatusChanges => "vnode, epoch, seq, user_id, status, cause, at, since, last_seen",
            Self::ClientEvents => "client_id, event_id, vnode, epoch, seq, at, data",
            Self::ClientResults => "client_id, result_id, event_id, kind, at, record",
        }
    }
}

/// All that `COPY … FROM STDIN BINARY` is sent.
pub(super) fn encode<'a>(rows: impl ExactSizeIterator<Item = &'a Row>) -> Bytes {
    let mut out = BytesMut::with_capacity(rows.len() * ROW_BYTES);
    out.put_slice(SIGNATURE);
    // No flags, no extension of the header.
    out.put_u64(0);
    for row in rows {
        match row {
            Row::Message(row) | Row::Undelivered(row) => message(&mut out, row),
            Row::Status(row) => status(&mut out, row),
            Row::Event(row) => event(&mut out, row),
            Row::Result(row) => result(&mut out, row),
        }
    }
    out.put_i16(-1);
    out.freeze()
}

fn message(out: &mut BytesMut, row: &MessageRow) {
    let message = &row.message;
    out.put_i16(8);
    text(out, message.stream.as_str());
    bigint(out, message.generation.0);
    bigint(out, message.offset.0);
    text(out, message.id.as_str());
    text(out, &message.kind);
    text(out, &message.from);
    moment(out, row.at_ms);
    text(out, message.data.get());
}

fn status(out: &mut BytesMut, row: &StatusRow) {
    let event = &row.event;
    out.put_i16(9);
    vnode(out, event.vnode);
    bigint(out, event.epoch.0);
    bigint(out, event.seq.0);
    text(out, event.user.as_str());
    text(out, &name_of(&event.status));
    text(out, &name_of(&event.cause));
    moment(out, row.at_ms);
    moment(out, row.since_ms);
    match row.last_seen_ms {
        Some(ms) => moment(out, ms),
        None => out.put_i32(-1),
    }
}

fn event(out: &mut BytesMut, row: &EventRow) {
    let event = &row.event;
    out.put_i16(7);
    text(out, event.client_id.as_str());
    text(out, event.event_id.as_str());
    vnode(out, event.vnode);
    bigint(out, event.epoch.0);
    bigint(out, event.seq.0);
    moment(out, row.at_ms);
    text(out, event.data.get());
}

fn result(out: &mut BytesMut, row: &ResultRow) {
    let result = &row.result;
    out.put_i16(6);
    text(out, result.client_id.as_str());
    text(out, result.result_id.as_str());
    text(out, result.event_id.as_str());
    text(out, &result.kind);
    moment(out, row.at_ms);
    text(out, result.record.get());
}

fn vnode(out: &mut BytesMut, vnode: VnodeId) {
    out.put_i32(4);
    out.put_i32(i32::from(vnode.0));
}

/// `text` and `json` are both sent as text.
fn text(out: &mut BytesMut, text: &str) {
    out.put_i32(text.len().try_into().expect("a record is much smaller than 2 GiB"));
    out.put_slice(text.as_bytes());
}

fn bigint(out: &mut BytesMut, number: u64) {
    out.put_i32(8);
    out.put_i64(super::int(number));
}

/// Microseconds since 2000.
fn moment(out: &mut BytesMut, ms: u64) {
    out.put_i32(8);
    out.put_i64((super::int(ms) - POSTGRES_EPOCH_MS) * 1_000);
}
