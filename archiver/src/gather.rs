//! Records on their way into one batch, and what is seen of the log on the way: gaps, and that it went back.

use std::collections::BTreeMap;
use std::sync::Arc;

use roost_backend::archive::{Batch, Span};
use roost_backend::log::{LogRecord, Position};

/// A batch in the making.
#[derive(Debug)]
pub(crate) struct Gathering {
    spans: BTreeMap<u32, Span>,
    records: Vec<LogRecord>,
    bytes: usize,
    /// Records that retention removed from the log before they were read.
    pub lost: u64,
    /// Partitions that were archived further than the log goes now: the topic was made anew.
    pub went_back: Vec<u32>,
}

impl Gathering {
    /// Begins where the archive is.
    pub(crate) fn new(next: &BTreeMap<u32, u64>) -> Self {
        let span = |(&partition, &from): (&u32, &u64)| (partition, Span { partition, from, to: from });
        let spans = next.iter().map(span).collect();
        Self { spans, records: Vec::new(), bytes: 0, lost: 0, went_back: Vec::new() }
    }

    /// Covers what retention removed before `first`.
    pub(crate) fn skip_to(&mut self, partition: u32, first: u64) {
        // Readers read what they were told to.
        let Some(span) = self.spans.get_mut(&partition) else { return };
        // One that was never archived begins where the log does.
        if span.to > 0 {
            self.lost += first.saturating_sub(span.to);
        }
        span.to = span.to.max(first);
    }

    pub(crate) fn take(&mut self, records: Vec<LogRecord>) {
        for record in records {
            let Position { partition, offset } = record.position;
            self.skip_to(partition, offset);
            let Some(span) = self.spans.get_mut(&partition) else { continue };
            if offset < span.to {
                self.went_back.push(partition);
            }
            span.to = offset + 1;
            self.bytes += bytes(&record);
            self.records.push(record);
        }
    }

    /// How many more records fit.
    pub(crate) fn room(&self, records_max: usize) -> usize {
        records_max.saturating_sub(self.records.len())
    }

    pub(crate) fn is_full(&self, records_max: usize, bytes_max: usize) -> bool {
        self.records.len() >= records_max || self.bytes >= bytes_max
    }

    /// Of the partitions that something came from.
    pub(crate) fn batch(self, topic: &str) -> Batch {
        let spans = self.spans.into_values().filter(|span| span.from != span.to).collect();
        Batch { topic: Arc::from(topic), spans, records: self.records }
    }
}

pub(crate) fn bytes(record: &LogRecord) -> usize {
    record.key.len() + record.payload.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(partition: u32, offset: u64) -> LogRecord {
        let position = Position { partition, offset };
        LogRecord { position, at_ms: 0, key: Bytes::new(), payload: Bytes::from_static(b"12345") }
    }

    #[test]
    fn a_batch_covers_what_came_and_gaps_are_counted() {
        let mut gathering = Gathering::new(&[(0, 5), (1, 0), (2, 9)].into());
        gathering.take(vec![record(0, 5), record(0, 6), record(1, 3)]);
        gathering.take(vec![record(0, 10), record(1, 4), record(9, 0)]);
        assert_eq!((gathering.lost, gathering.went_back.len()), (3, 0));
        assert_eq!((gathering.room(7), gathering.room(3)), (2, 0));
        assert!(gathering.is_full(5, 100) && gathering.is_full(100, 25) && !gathering.is_full(6, 26));
        let batch = gathering.batch("t");
        let span = |partition, from, to| Span { partition, from, to };
        assert_eq!(batch.spans, [span(0, 5, 11), span(1, 0, 5)]);
        assert_eq!(batch.records.len(), 5);
    }

    #[test]
    fn what_was_removed_is_covered_without_a_record() {
        let mut gathering = Gathering::new(&[(0, 5), (1, 0), (2, 9)].into());
        for partition in 0..3 {
            gathering.skip_to(partition, 7);
        }
        assert_eq!(gathering.lost, 2, "of one that was never archived nobody knows");
        let span = |partition, from, to| Span { partition, from, to };
        assert_eq!(gathering.batch("t").spans, [span(0, 5, 7), span(1, 0, 7)]);
    }

    #[test]
    fn a_log_that_went_back_is_seen() {
        let mut gathering = Gathering::new(&[(0, 100)].into());
        gathering.take(vec![record(0, 0), record(0, 1)]);
        assert_eq!((gathering.lost, gathering.went_back.as_slice()), (0, [0].as_slice()));
        assert_eq!(gathering.batch("t").spans, [Span { partition: 0, from: 100, to: 2 }]);
    }
}
