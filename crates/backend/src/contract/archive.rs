//! The contract of [`Archive`]: one function for each sentence that follows from its numbered promises.
//!
//! A back end gives a [`Fixture`] and runs the list at the end of this file
//! ([`archive_contract!`](crate::archive_contract)).

pub mod dead;
pub mod events;
pub mod pages;
pub mod read;
pub mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::events::{
    CHAT_EVENTS, CLIENT_EVENTS, ClientEvent, Status, StatusCause, UNDELIVERED_EVENTS, USER_STATUS_EVENTS,
    event_rest, message_bytes, message_rest, numbered_bytes, status_rest,
};
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, Seq, StreamId, UserId, VnodeId};
use roost_proto::results::{CLIENT_RESULTS, DEAD_LETTERS, Refused};
use serde_json::value::RawValue;

use crate::archive::{
    AGAIN_WITHIN_MS, Answered, Archive, ArchivePosition, Asked, Batch, DeadLetter, Moment, RESULTS_SHOWN_MAX,
    Replayed, Span, Stored, Tally,
};
use crate::log::{LogRecord, Position};

/// An archive under test, empty at first.
#[async_trait]
pub trait Fixture: Send + Sync {
    fn archive(&self) -> Arc<dyn Archive>;

    /// From now on the database itself refuses messages of the kind `refused`; or takes them again.
    async fn refuse(&self, refuse: bool);

    /// The archive's clock goes on by this much.
    async fn pass(&self, ms: u64);
}

/// Of every question to an archive under test.
const ANSWERS: &str = "the archive answers";

/// A moment when a generation began long ago.
const NOW_MS: u64 = 1_795_243_200_123;
const OLD: Epoch = Epoch(NOW_MS - 100 * 3_600_000);

fn stream(name: &str) -> StreamId {
    StreamId::new(name).expect("a stream")
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user's id")
}

/// A message, and the payload of its record.
#[derive(Debug, Clone)]
struct Said {
    stream: StreamId,
    cursor: Cursor,
    id: String,
    kind: &'static str,
    at_ms: u64,
    data: String,
}

impl Said {
    fn new(stream: &StreamId, offset: u64) -> Self {
        let (cursor, id) = (Cursor::new(OLD, Offset(offset)), format!("m-{offset}"));
        // Blanks and an escape, to see that the text is kept as it is.
        let data = format!("{{\"n\": {offset}, \"t\":\"\\u0000\\u00e4\\n\"}}");
        Self { stream: stream.clone(), cursor, id, kind: "message", at_ms: NOW_MS + offset, data }
    }

    fn payload(&self) -> Bytes {
        let id = MessageId::new(&self.id).expect("a message's id");
        let data = RawValue::from_string(self.data.clone()).expect("JSON");
        let rest = message_rest(&id, self.kind, "al\"ice", self.at_ms, &data);
        message_bytes(&self.stream, self.cursor, &rest)
    }
}

/// A change of a user's status, and the payload of its record.
fn changed(name: &str, seq: u64, status: Status, at_ms: u64) -> Bytes {
    let last_seen = (status == Status::Offline).then_some(at_ms - 1);
    let rest = status_rest(&user(name), status, StatusCause::Connected, at_ms, at_ms, last_seen);
    numbered_bytes(VnodeId(9), OLD, Seq(seq), &rest)
}

/// What has been written to a topic so far; batches are made of what is new.
struct Topic {
    name: &'static str,
    ends: BTreeMap<u32, u64>,
}

impl Topic {
    fn new(name: &'static str) -> Self {
        Self { name, ends: BTreeMap::new() }
    }

    fn chat() -> Self {
        Self::new(CHAT_EVENTS)
    }

    /// A batch of these records, of which each goes to its partition.
    fn batch(&mut self, payloads: impl IntoIterator<Item = (u32, Bytes)>) -> Batch {
        let mut spans: BTreeMap<u32, Span> = BTreeMap::new();
        let mut records = Vec::new();
        for (partition, payload) in payloads {
            let end = self.ends.entry(partition).or_default();
            let span = spans.entry(partition).or_insert(Span { partition, from: *end, to: *end });
            let position = Position { partition, offset: *end };
            let key = Bytes::from_static(b"key");
            records.push(LogRecord { position, at_ms: NOW_MS + *end, key, payload });
            *end += 1;
            span.to = *end;
        }
        Batch { topic: self.name.into(), spans: spans.into_values().collect(), records }
    }

    /// Stores a batch of one partition; it must not be fenced.
    async fn store(&mut self, archive: &dyn Archive, payloads: impl IntoIterator<Item = Bytes>) -> Tally {
        let batch = self.batch(payloads.into_iter().map(|payload| (0, payload)));
        kept(archive, &batch).await
    }
}

async fn kept(archive: &dyn Archive, batch: &Batch) -> Tally {
    match archive.store(batch).await.expect(ANSWERS) {
        Stored::Kept(tally) => tally,
        Stored::Fenced => panic!("fenced"),
    }
}

/// All messages of a stream as they are shown, newest first.
async fn shown(archive: &dyn Archive, stream: &StreamId) -> Vec<Bytes> {
    let page = archive.messages(stream, ArchivePosition::Newest, 10_000).await.expect(ANSWERS);
    page.into_iter().map(|(_, frame)| frame).collect()
}

fn newest_first(said: &[Said]) -> Vec<Bytes> {
    said.iter().rev().map(Said::payload).collect()
}

/// One test for each sentence. `$make` is an expression whose future answers `Option<impl Fixture>`; `None` skips.
#[macro_export]
macro_rules! archive_contract {
    ($make:expr) => {
        $crate::archive_contract! { $make;
            write::a_batch_is_stored_with_its_positions,
            write::a_batch_from_elsewhere_is_fenced_and_changes_nothing,
            write::a_copy_changes_nothing,
            write::a_message_that_comes_again_is_kept_once,
            write::of_two_who_read_the_same_partition_each_record_is_kept_once,
            write::random_batches_are_kept_as_they_came,
            write::canaries_are_not_kept,
            dead::what_cannot_be_read_is_a_dead_letter_and_holds_up_nothing,
            dead::what_the_database_refuses_is_a_dead_letter_and_holds_up_nothing,
            dead::a_dead_letter_is_replayed_or_stays_with_its_reason,
            dead::dead_letters_come_in_pages_and_can_be_discarded,
            read::pages_of_messages_show_everything_once_in_both_directions,
            read::generations_come_one_after_the_other,
            read::changes_of_a_status_are_found_by_time,
            read::pages_of_changes_show_everything_once_in_both_directions,
            read::the_living_are_those_who_beat,
            read::what_is_too_old_is_removed,
            events::events_are_shown_with_their_results,
            events::pages_of_events_show_everything_once_in_both_directions,
            events::an_event_and_a_result_are_kept_once_by_their_ids,
            events::what_is_no_result_is_a_dead_letter_and_holds_up_nothing,
            events::what_a_node_could_not_place_is_the_letter_of_the_original,
            events::that_a_message_was_not_delivered_is_kept_once,
            events::pages_of_large_texts_are_shorter,
            events::events_that_are_too_old_are_removed,
            pages::a_page_of_messages_ends_with_the_byte_that_is_too_much,
            pages::pages_of_uneven_messages_show_everything_once_in_both_directions,
            pages::an_entry_that_is_larger_than_a_page_is_shown,
            pages::pages_of_events_with_large_results_show_everything_once_in_both_directions,
            pages::a_page_of_events_ends_with_the_byte_that_is_too_much,
            pages::pages_of_dead_letters_are_bounded_in_bytes,
        }
    };
    ($make:expr; $($group:ident::$name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(fixture) = $make.await else { return };
                $crate::contract::archive::$group::$name(&fixture).await;
            }
        )*
    };
}
