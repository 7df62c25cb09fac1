//! The archive on PostgreSQL. Only this module names it.
//!
//! It owns connections, the schema and its parts by time. All names are unqualified: `search_path` says where they are.

mod copy;
mod link;
mod migrate;
mod parts;
mod read;
mod tls;
mod write;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::events::StatusEvent;
use roost_proto::ids::{Cursor, StreamId};

use crate::archive::{
    Answered, Archive, ArchiveError, ArchivePosition, Asked, Batch, DeadLetter, LIVING_MS, Moment, Replayed,
    Stored,
};
use link::Link;
use parts::Parts;

/// A name by which archivers that start at the same time, or make the same part, wait for each other: "roost" in ASCII.
const LOCK: i64 = 0x72_6f_6f_73_74;

/// An [`Archive`] on PostgreSQL 15 or later.
pub struct PostgresArchive {
    link: Link,
    parts: Parts,
}

impl PostgresArchive {
    /// Reaches the database at `url` (`postgres://user:password@host:port/database`) and brings its schema up to date.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ArchiveError::Config`] for an address that is not one, or a database that cannot be used,
    /// [`ArchiveError::Schema`] for one whose schema cannot be; the others mean that it does not answer.
    pub async fn connect(url: &str) -> Result<Self, ArchiveError> {
        Self::connect_telling(url, |_| ()).await
    }

    /// As [`PostgresArchive::connect`], and `tell`s what it waits for, if it waits.
    ///
    /// # Errors
    /// The same.
    pub async fn connect_telling(url: &str, tell: impl Fn(&str) + Send + Sync) -> Result<Self, ArchiveError> {
        let link = Link::new(url)?;
        migrate::migrate(&link, &tell).await?;
        Ok(Self { link, parts: Parts::default() })
    }
}

#[async_trait]
impl Archive for PostgresArchive {
    async fn positions(&self, topic: &str) -> Result<BTreeMap<u32, u64>, ArchiveError> {
        self.link.ask(async |client| read::positions(client, topic).await).await
    }

    async fn store(&self, batch: &Batch) -> Result<Stored, ArchiveError> {
        write::store(&self.link, &self.parts, batch).await
    }

    async fn beat(&self, id: &str) -> Result<Vec<String>, ArchiveError> {
        // The second statement sees what the first did; those who are long gone are removed with the same look.
        let beat = "INSERT INTO archivers VALUES ($1, clock_timestamp())
                    ON CONFLICT (id) DO UPDATE SET beat = excluded.beat";
        let forget = "DELETE FROM archivers WHERE beat < clock_timestamp() - interval '1 day'";
        let living = "SELECT id FROM archivers
                      WHERE beat > clock_timestamp() - $1::bigint * interval '1 ms' ORDER BY id";
        let ask = async |client: &tokio_postgres::Client| {
            client.execute(beat, &[&id]).await?;
            client.execute(forget, &[]).await?;
            let rows = client.query(living, &[&(LIVING_MS as i64)]).await?;
            rows.iter().map(|row| row.try_get(0)).collect()
        };
        self.link.ask(ask).await
    }

    async fn leave(&self, id: &str) -> Result<(), ArchiveError> {
        let leave = "DELETE FROM archivers WHERE id = $1";
        self.link.ask(async |client| client.execute(leave, &[&id]).await.map(drop)).await
    }

    async fn messages(
        &self,
        stream: &StreamId,
        place: ArchivePosition<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, Bytes)>, ArchiveError> {
        let rows = self.link.question(async |tx| read::messages(tx, stream, place, limit).await).await?;
        rows.into_iter().collect::<Result<_, _>>().map_err(ArchiveError::Refused)
    }

    async fn changes(&self, asked: &Asked) -> Result<Vec<(Moment, StatusEvent)>, ArchiveError> {
        let rows = self.link.question(async |tx| read::changes(tx, asked).await).await?;
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>().map_err(ArchiveError::Refused)?;
        Ok(rows.into_iter().map(|row| (row.moment(), row.event)).collect())
    }

    async fn events(&self, asked: &Asked) -> Result<Vec<(Moment, Answered)>, ArchiveError> {
        let rows = self.link.question(async |tx| read::events(tx, asked).await).await?;
        rows.into_iter().collect::<Result<_, _>>().map_err(ArchiveError::Refused)
    }

    async fn dead_letters(&self, before: Option<u64>, limit: usize) -> Result<Vec<DeadLetter>, ArchiveError> {
        self.link.question(async |tx| read::dead_letters(tx, before, limit).await).await
    }

    async fn replay(&self, id: u64) -> Result<Replayed, ArchiveError> {
        write::replay(&self.link, &self.parts, id).await
    }

    async fn discard(&self, id: u64) -> Result<bool, ArchiveError> {
        let discard = "DELETE FROM dead_letters WHERE id = $1";
        self.link.ask(async |client| Ok(client.execute(discard, &[&int(id)]).await? > 0)).await
    }

    async fn trim(&self, before_ms: u64) -> Result<(), ArchiveError> {
        self.parts.drop_before(&self.link, before_ms).await
    }
}

/// PostgreSQL counts to 2^63; what is larger was refused before.
fn int(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn number(int: i64) -> u64 {
    int.try_into().unwrap_or_default()
}

/// A moment as the driver wants it.
fn moment(ms: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms)
}

fn millis(moment: std::time::SystemTime) -> u64 {
    let since = moment.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
