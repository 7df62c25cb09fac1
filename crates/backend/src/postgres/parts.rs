//! The parts of the tables by time: a week each, made when the first row of a week comes, and dropped as a whole.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use roost_proto::time::{parse_rfc3339, rfc3339};

use super::copy::Table;
use super::link::Link;
use super::{LOCK, moment};
use crate::archive::ArchiveError;
use crate::archive::row::Entry;

/// A part is the unit of retention. A question about a stream looks into the index of every part, and a year has 52.
const WEEK_MS: u64 = 7 * 86_400_000;
/// Whoever reads a table for longer than this keeps parts of it from being dropped until the next try. Who comes after
/// the one that waits waits too, so it is much shorter than what a question may take.
const LOCK_WAIT: &str = "SET LOCAL lock_timeout = '1s'";

/// Which parts are known to be there.
#[derive(Default)]
pub(super) struct Parts(Mutex<BTreeSet<String>>);

/// The name of a part says when it begins.
fn name(table: Table, week: u64) -> String {
    let begin = rfc3339(week * WEEK_MS);
    format!("{}_{}", table.name(), begin[..10].replace('-', "_"))
}

/// When a part begins, by its name.
fn begin_ms(table: Table, name: &str) -> Option<u64> {
    let day = name.strip_prefix(table.name())?.strip_prefix('_')?.replace('_', "-");
    parse_rfc3339(&format!("{day}T00:00:00Z"))
}

impl Parts {
    /// Makes the parts that these rows belong to.
    pub(super) async fn make(&self, link: &Link, entries: &[Entry<'_>]) -> Result<(), ArchiveError> {
        let weeks: BTreeSet<(u64, Table)> =
            entries.iter().map(|entry| (entry.row.at_ms() / WEEK_MS, Table::of(&entry.row))).collect();
        for (week, table) in weeks {
            let (name, of) = (name(table, week), table.name());
            if self.known().contains(&name) {
                continue;
            }
            let (from, to) = (rfc3339(week * WEEK_MS), rfc3339((week + 1) * WEEK_MS));
            // In one transaction, with the lock, because "if not exists" alone loses a race with an error. Made apart
            // and attached: that waits for nobody who reads or writes the table, as `pg_dump` does for hours.
            let make = format!(
                "BEGIN; {LOCK_WAIT}; SELECT pg_advisory_xact_lock({LOCK});
                 DO $$ BEGIN IF to_regclass('{name}') IS NULL THEN
                   CREATE TABLE {name} (LIKE {of} INCLUDING ALL);
                   ALTER TABLE {of} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}');
                 END IF; END $$; COMMIT"
            );
            link.ask(async |client| client.batch_execute(&make).await).await?;
            tracing::info!(part = name, "a part of the archive was made");
            self.known().insert(name);
        }
        Ok(())
    }

    /// Somebody dropped a part: all are looked at again.
    pub(super) fn forget(&self) {
        self.known().clear();
    }

    /// Drops the parts that end before this moment; one that cannot be dropped keeps no other.
    pub(super) async fn drop_before(&self, link: &Link, before_ms: u64) -> Result<(), ArchiveError> {
        let mut done = Ok(());
        for table in Table::ALL {
            let select = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                          WHERE i.inhparent = $1::text::regclass";
            let names = link.ask(async |client| client.query(select, &[&table.name()]).await).await?;
            for row in names {
                let name: String = row.get(0);
                let over = begin_ms(table, &name).is_some_and(|begin_ms| begin_ms + WEEK_MS <= before_ms);
                if over {
                    let remove = format!("BEGIN; {LOCK_WAIT}; DROP TABLE IF EXISTS {name}; COMMIT");
                    match link.ask(async |client| client.batch_execute(&remove).await).await {
                        Ok(()) => {
                            tracing::info!(part = name, "a part of the archive was dropped");
                            self.known().remove(&name);
                        }
                        Err(error) => done = Err(error),
                    }
                }
            }
        }
        let aliases = "DELETE FROM aliases WHERE at < $1";
        link.ask(async |client| client.execute(aliases, &[&moment(before_ms)]).await.map(drop)).await?;
        done
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_named_after_the_day_it_begins() {
        let week = 1_795_243_200_123 / WEEK_MS;
        let made = name(Table::Messages, week);
        assert_eq!(made, "messages_2026_11_19");
        assert_eq!(begin_ms(Table::Messages, &made), Some(week * WEEK_MS));
        assert_eq!(begin_ms(Table::Messages, "messages_by_hand"), None);
    }
}
