//! Reads one topic from its place on, in pages.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::db::{self, Db};
use super::topics::Topic;
use crate::log::{LogError, LogReader, LogRecord, Position};

/// The most one `next` returns.
const PAGE_RECORDS: usize = 256;

/// See the module's description. It keeps the file open, but not the writer.
pub(super) struct EmbeddedReader {
    db: Arc<Db>,
    topic: Arc<Topic>,
    changed: watch::Receiver<()>,
    /// For each partition that is read the offset after the last record returned.
    next: Vec<Position>,
    /// The one of them that the next page begins with: a busy partition must not starve those after it.
    turn: usize,
}

impl EmbeddedReader {
    pub(super) fn new(db: Arc<Db>, topic: Arc<Topic>, mut next: Vec<Position>) -> Self {
        next.sort_unstable();
        Self { db, changed: topic.changes(), next, topic, turn: 0 }
    }

    /// Where there is more to read, beginning with the partition whose turn it is.
    fn behind(&self) -> Vec<Position> {
        let (later, first) = self.next.split_at(self.turn);
        let order = first.iter().chain(later);
        order.filter(|at| self.topic.end(at.partition).is_some_and(|end| end > at.offset)).copied().collect()
    }

    /// Notes the record as returned; where its partition is in `next`.
    fn note(&mut self, Position { partition, offset }: Position) -> usize {
        let index = self.next.partition_point(|at| at.partition < partition);
        self.next[index].offset = offset + 1;
        index
    }
}

#[async_trait]
impl LogReader for EmbeddedReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, LogError> {
        loop {
            // Before the look at the ends: whatever changes after it wakes the wait below.
            self.changed.mark_unchanged();
            let behind = self.behind();
            if !behind.is_empty() {
                let topic = self.topic.id;
                let records = self.db.read(move |db| db::read(db, topic, &behind, PAGE_RECORDS)).await?;
                // From here on nothing waits, so a dropped `next` has moved no place.
                if !records.is_empty() {
                    for record in &records {
                        self.turn = (self.note(record.position) + 1) % self.next.len();
                    }
                    return Ok(records);
                }
            }
            let closed = |_| LogError::Unreachable("the log was closed".to_owned());
            self.changed.changed().await.map_err(closed)?;
        }
    }

    fn lag(&self) -> u64 {
        let behind = |at: &Position| self.topic.end(at.partition).unwrap_or(0).saturating_sub(at.offset);
        self.next.iter().map(behind).sum()
    }
}
