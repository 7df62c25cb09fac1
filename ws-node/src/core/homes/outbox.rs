//! Events of one vnode on their way to the log, in order.

use std::collections::VecDeque;

use roost_backend::store::{EventTopic, OutboxEvent};
use roost_proto::events::Message;
use roost_proto::ids::{MessageId, Seq, StreamId};

/// Pause before events are handed to the producer again after it did not take one, in milliseconds.
const EMIT_AGAIN_MS: u64 = 200;

/// A message in an outbox.
#[derive(Debug)]
pub(crate) struct InOutbox {
    pub(super) seq: Seq,
    pub(super) stream: StreamId,
    pub(super) from: String,
}

/// See rule 12: emitted in order, forgotten by contiguous reports only.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<(OutboxEvent, bool)>,
    /// Of their payloads together.
    bytes: usize,
    /// Of `entries`, how many were handed to the producer.
    emitted: usize,
    /// Everything up to here is in the log.
    reported: Seq,
    /// The last event ever put in.
    last: Seq,
    again_at: Option<u64>,
}

impl Outbox {
    /// What a new owner gets from activation.
    pub(crate) fn inherited(seq: Seq, events: Vec<OutboxEvent>) -> Self {
        let mut outbox = Self { last: seq, reported: seq, ..Self::default() };
        if let Some(first) = events.first() {
            outbox.reported = Seq(first.seq.0 - 1);
            outbox.last = outbox.reported;
        }
        for event in events {
            outbox.push(event);
        }
        outbox
    }

    /// Puts an event in unless it is already there.
    pub(crate) fn push(&mut self, event: OutboxEvent) {
        if event.seq > self.last {
            self.last = event.seq;
            self.bytes += event.payload.len();
            self.entries.push_back((event, false));
        }
    }

    /// The message with this id, and whether the producer was handed it. Reads every event: for people who ask.
    pub(crate) fn find(&self, id: &MessageId) -> Option<(InOutbox, bool)> {
        self.entries.iter().enumerate().find_map(|(n, (event, _))| {
            let named = event.payload.windows(id.as_str().len()).any(|part| part == id.as_str().as_bytes());
            let message: Message = (event.topic == EventTopic::Chat && named)
                .then(|| serde_json::from_slice(&event.payload).ok())
                .flatten()?;
            let Message { stream, from, .. } = message;
            (message.id == *id).then_some((InOutbox { seq: event.seq, stream, from }, n < self.emitted))
        })
    }

    /// The next event to hand to the producer.
    pub(crate) fn next(&mut self, now: u64) -> Option<&OutboxEvent> {
        if self.again_at.is_some_and(|at| now < at) {
            return None;
        }
        self.again_at = None;
        let (event, _) = self.entries.get(self.emitted)?;
        self.emitted += 1;
        Some(event)
    }

    /// Takes a report; true if more is now known to be in the log.
    pub(crate) fn report(&mut self, seq: Seq, ok: bool, now: u64) -> bool {
        let Ok(i) = self.entries.binary_search_by_key(&seq, |(e, _)| e.seq) else { return false };
        if !ok {
            // What follows was emitted after it: all of it again, so that the order holds.
            self.emitted = self.emitted.min(i);
            self.again_at = Some(now + EMIT_AGAIN_MS);
            return false;
        }
        self.entries[i].1 = true;
        let before = self.reported;
        while self.entries.front().is_some_and(|(_, reported)| *reported) {
            if let Some((event, _)) = self.entries.pop_front() {
                self.reported = event.seq;
                self.bytes -= event.payload.len();
                self.emitted = self.emitted.saturating_sub(1);
            }
        }
        self.reported > before
    }

    pub(crate) fn reported(&self) -> Seq {
        if self.entries.is_empty() { self.last } else { self.reported }
    }

    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Of all payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_backend::store::EventTopic;

    fn event(seq: u64) -> OutboxEvent {
        OutboxEvent { seq: Seq(seq), topic: EventTopic::Chat, key: "k".into(), payload: "p".into() }
    }

    #[test]
    fn only_contiguous_reports_count() {
        let mut outbox = Outbox::inherited(Seq(4), vec![]);
        for seq in [6, 7, 9] {
            outbox.push(event(seq));
        }
        while outbox.next(0).is_some() {}
        assert!(!outbox.report(Seq(7), true, 0));
        assert_eq!(outbox.reported(), Seq(4));
        assert!(outbox.report(Seq(6), true, 0));
        assert_eq!(outbox.reported(), Seq(7));
        assert!(outbox.report(Seq(9), true, 0));
        assert_eq!((outbox.reported(), outbox.len()), (Seq(9), 0));
    }

    #[test]
    fn a_failed_event_is_emitted_again_with_all_that_follow() {
        let mut outbox = Outbox::default();
        for seq in 1..=3 {
            outbox.push(event(seq));
        }
        while outbox.next(0).is_some() {}
        assert!(!outbox.report(Seq(2), false, 0));
        assert!(outbox.next(10).is_none(), "not before the pause is over");
        let again: Vec<_> = std::iter::from_fn(|| outbox.next(EMIT_AGAIN_MS).map(|e| e.seq.0)).collect();
        assert_eq!(again, [2, 3]);
    }
}
