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
    /// For each partition the offset after the last record returned.
    next: Vec<u64>,
    /// The partition the next page begins with: a busy one must not starve those after it.
    turn: usize,
}

impl EmbeddedReader {
    pub(super) fn at_end(db: Arc<Db>, topic: Arc<Topic>) -> Self {
        Self { db, changed: topic.changes(), next: topic.ends().collect(), topic, turn: 0 }
    }

    /// Where there is more to read, beginning with the partition whose turn it is.
    fn behind(&self) -> Vec<Position> {
        let ends: Vec<u64> = self.topic.ends().collect();
        let count = ends.len();
        let order = (self.turn..count).chain(0..self.turn);
        let behind = order.filter(|&p| ends[p] > self.next[p]);
        behind.map(|p| Position { partition: p as u32, offset: self.next[p] }).collect()
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
                if let Some(last) = records.last() {
                    self.turn = (last.position.partition as usize + 1) % self.next.len();
                    for record in &records {
                        self.next[record.position.partition as usize] = record.position.offset + 1;
                    }
                    return Ok(records);
                }
            }
            let closed = |_| LogError::Unreachable("the log was closed".to_owned());
            self.changed.changed().await.map_err(closed)?;
        }
    }

    fn lag(&self) -> u64 {
        self.topic.ends().zip(&self.next).map(|(end, &next)| end.saturating_sub(next)).sum()
    }
}
