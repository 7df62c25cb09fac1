//! Messages that come again: after a loss of Redis' data a client repeats what was not answered, and it is appended
//! under a new generation though the log has it under the old one (core rule 32).

use std::collections::HashMap;

use roost_proto::ids::{Cursor, MessageId, StreamId};

use super::row::{Entry, MessageRow, Row};

/// A message may come again for so long after its generation began, in milliseconds: ids are known for some 20 minutes,
/// and clocks of nodes may be an hour apart.
pub const AGAIN_WITHIN_MS: u64 = 2 * 3_600_000;

/// Whether a row may be one that came again. A generation is named by about the time of its beginning.
fn may_be(row: &MessageRow) -> bool {
    row.at_ms < row.message.generation.0.saturating_add(AGAIN_WITHIN_MS)
}

/// Which earlier messages have to be looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Suspects {
    pub streams: Vec<StreamId>,
    /// In pairs with `streams`.
    pub generations: Vec<u64>,
    /// None of them is older.
    pub since_ms: u64,
}

impl Suspects {
    /// Nothing where no message can be one that came again: nearly always, a few hours after the last loss.
    pub(crate) fn of(entries: &[Entry<'_>]) -> Option<Self> {
        let young = entries.iter().filter_map(|entry| match &entry.row {
            Row::Message(row) => may_be(row).then_some(row),
            _ => None,
        });
        let mut newest: HashMap<&StreamId, u64> = HashMap::new();
        let mut first_ms = None;
        for row in young {
            let generation = newest.entry(&row.message.stream).or_default();
            *generation = row.message.generation.0.max(*generation);
            first_ms = Some(first_ms.map_or(row.at_ms, |first: u64| first.min(row.at_ms)));
        }
        let since_ms = first_ms?.saturating_sub(AGAIN_WITHIN_MS);
        let (streams, generations) =
            newest.into_iter().map(|(stream, generation)| (stream.clone(), generation)).unzip();
        Some(Self { streams, generations, since_ms })
    }
}

/// Where messages are, by what stays the same when they come again.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<(StreamId, String, MessageId), (Cursor, String)>);

impl Known {
    pub(crate) fn note(&mut self, row: &MessageRow) {
        let message = &row.message;
        let key = (message.stream.clone(), message.from.clone(), message.id.clone());
        self.0.entry(key).or_insert_with(|| (message.cursor(), message.data.get().to_owned()));
    }

    /// Where the same message is under an older generation.
    fn original(&self, row: &MessageRow) -> Option<Cursor> {
        let message = &row.message;
        let key = (message.stream.clone(), message.from.clone(), message.id.clone());
        let (cursor, data) = self.0.get(&key)?;
        (cursor.generation < message.generation && data == message.data.get()).then_some(*cursor)
    }

    /// Parts the entries, in their order, into those to keep and those that came again, with where they were first.
    pub(crate) fn part<'a>(mut self, entries: Vec<Entry<'a>>) -> (Vec<Entry<'a>>, Vec<(Entry<'a>, Cursor)>) {
        let (mut keep, mut again) = (Vec::with_capacity(entries.len()), Vec::new());
        for entry in entries {
            if let Row::Message(row) = &entry.row {
                if may_be(row)
                    && let Some(original) = self.original(row)
                {
                    again.push((entry, original));
                    continue;
                }
                self.note(row);
            }
            keep.push(entry);
        }
        (keep, again)
    }
}
