//! The schema, brought up to date by one archiver at a time.
//!
//! All of it is one transaction: what a pooler in between gives to another client at its end (PgBouncer's transaction
//! mode) has no lock of ours on it, and a half-made schema is never seen. Only simple queries are used, for the same
//! reason. The files and the table are refinery's; its runner wants a transaction of its own for each file.

use std::collections::BTreeMap;
use std::time::Duration;

use refinery::Migration;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::LOCK;
use super::link::{Link, trouble};
use crate::archive::ArchiveError;

refinery::embed_migrations!("src/postgres/migrations");

/// A later version may rewrite something.
const LIMIT: Duration = Duration::from_secs(600);
/// Between two looks whether the lock is free.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Whoever waits says so after this long, and again every time it has passed.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Nobody waits for a lock in a transaction here, and what is made may take its time.
const SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
                        SET LOCAL idle_in_transaction_session_timeout = 0";
const HISTORY: &str = "CREATE TABLE IF NOT EXISTS refinery_schema_history (
                         version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255))";
const APPLIED: &str = "SELECT version, name, checksum FROM refinery_schema_history";
/// As refinery writes it (RFC 3339).
const NOW: &str = r#"to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;

/// Name and checksum of what was applied, by version.
type Applied = BTreeMap<String, (String, String)>;

enum Tried {
    Done,
    /// Somebody else is at it.
    Held,
}

/// Brings the schema up to date, and `tell`s what it waits for.
///
/// # Errors
/// [`ArchiveError::Schema`] if it cannot be; [`ArchiveError::Timeout`] if somebody else is at it for ten minutes; what
/// the database answers.
pub(super) async fn migrate(link: &Link, tell: &(dyn Fn(&str) + Sync)) -> Result<(), ArchiveError> {
    let done = timeout(LIMIT, until_done(link, tell)).await;
    done.map_err(|_| ArchiveError::Timeout(LIMIT))?
}

async fn until_done(link: &Link, tell: &(dyn Fn(&str) + Sync)) -> Result<(), ArchiveError> {
    let mut told = Instant::now();
    loop {
        // A connection that is given back between two looks: whoever holds the lock may need it.
        let mut lease = link.lease().await?;
        let tried = attempt(lease.client()).await?;
        if let Tried::Done = tried {
            lease.done();
            return Ok(());
        }
        if told.elapsed() >= TELL_EVERY {
            let holder = holder(lease.client()).await;
            tracing::warn!(holder, "waiting for another archiver, which brings the schema up to date");
            tell(&format!("waits for another archiver, which brings the schema up to date: {holder}"));
            told = Instant::now();
        }
        lease.done();
        sleep(LOOK_EVERY).await;
    }
}

/// One transaction. Without anything to do it takes no lock.
async fn attempt(client: &mut Client) -> Result<Tried, ArchiveError> {
    let migrations = migrations::runner();
    let known = migrations.get_migrations();
    let transaction = client.transaction().await.map_err(|e| trouble(&e))?;
    transaction.batch_execute(SETTINGS).await.map_err(|e| trouble(&e))?;
    if missing(known, &applied(transaction.client()).await?)?.is_empty() {
        transaction.commit().await.map_err(|e| trouble(&e))?;
        return Ok(Tried::Done);
    }
    let lock = format!("SELECT pg_try_advisory_xact_lock({LOCK})");
    let taken = rows(transaction.client(), &lock).await.map_err(|e| trouble(&e))?;
    if taken.first().and_then(|row| row.get(0)) != Some("t") {
        transaction.rollback().await.map_err(|e| trouble(&e))?;
        return Ok(Tried::Held);
    }
    // Somebody may have been at it in between.
    for migration in missing(known, &applied(transaction.client()).await?)? {
        let (version, name) = (migration.version(), migration.name());
        let sql = migration.sql().unwrap_or_default();
        let note = format!(
            "{HISTORY}; INSERT INTO refinery_schema_history VALUES ({version}, '{name}', {NOW}, '{}')",
            migration.checksum()
        );
        transaction.batch_execute(&format!("{sql};{note}")).await.map_err(|e| of_schema(migration, &e))?;
        tracing::info!(version, name, "the schema was brought up to date");
    }
    transaction.commit().await.map_err(|e| trouble(&e))?;
    Ok(Tried::Done)
}

async fn rows(client: &Client, query: &str) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    Ok(client.simple_query(query).await?.into_iter().filter_map(row).collect())
}

async fn applied(client: &Client) -> Result<Applied, ArchiveError> {
    let there =
        rows(client, "SELECT to_regclass('refinery_schema_history')").await.map_err(|e| trouble(&e))?;
    if there.first().is_none_or(|row| row.get(0).is_none()) {
        return Ok(Applied::new());
    }
    let column = |row: &SimpleQueryRow, n| row.get(n).unwrap_or_default().to_owned();
    let found = rows(client, APPLIED).await.map_err(|e| trouble(&e))?;
    Ok(found.iter().map(|row| (column(row, 0), (column(row, 1), column(row, 2)))).collect())
}

/// What is not applied yet, in order; an error if this version would not have applied what was.
fn missing<'a>(known: &'a [Migration], applied: &Applied) -> Result<Vec<&'a Migration>, ArchiveError> {
    let by_version: BTreeMap<String, &Migration> =
        known.iter().map(|m| (m.version().to_string(), m)).collect();
    for (version, (name, checksum)) in applied {
        let same = by_version
            .get(version)
            .is_some_and(|m| m.name() == name && m.checksum().to_string() == *checksum);
        if !same {
            let whose = "a later version of the archiver, or another program, made it";
            return Err(ArchiveError::Schema(format!(
                "it has V{version}__{name}, which this version has not: {whose}"
            )));
        }
    }
    let mut missing: Vec<_> =
        known.iter().filter(|m| !applied.contains_key(&m.version().to_string())).collect();
    missing.sort_by_key(|m| m.version());
    Ok(missing)
}

/// Who has the lock, as far as PostgreSQL shows it to us.
async fn holder(client: &Client) -> String {
    let query = format!(
        "SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.state, ''), a.state_change::text
         FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objid = {LOCK} & 4294967295 AND l.classid = {LOCK} >> 32"
    );
    let Ok(found) = rows(client, &query).await else { return "nobody knows whom".to_owned() };
    let Some(row) = found.first() else { return "it has just ended".to_owned() };
    let column = |n| row.get(n).unwrap_or_default();
    format!("process {} of the database ({}), {} since {}", column(0), column(1), column(2), column(3))
}

/// A migration that failed: because the database went away, or because of what it said.
fn of_schema(migration: &Migration, error: &tokio_postgres::Error) -> ArchiveError {
    match trouble(error) {
        ArchiveError::Refused(why) => ArchiveError::Schema(format!("{migration}: {why}")),
        passes => passes,
    }
}
