use std::sync::Arc;

use async_trait::async_trait;
use roost_backend::archive::{Archive, ArchiveError};
use roost_backend::contract::archive::Fixture;
use roost_backend::postgres::PostgresArchive;
use tokio_postgres::NoTls;

/// A schema of a test's own in the database of `DATABASE_URL`.
struct Postgres {
    url: String,
    schema: String,
    archive: Arc<PostgresArchive>,
}

/// Where PostgreSQL is, if the tests are to use it.
fn database() -> Option<String> {
    let url = std::env::var("DATABASE_URL").ok();
    if url.is_none() {
        let required = std::env::var("ROOST_REQUIRE_SERVICES").is_ok_and(|v| v == "1");
        assert!(!required, "ROOST_REQUIRE_SERVICES=1, but DATABASE_URL is not set");
        eprintln!("skipped: DATABASE_URL is not set");
    }
    url
}

async fn run(url: &str, statement: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("DATABASE_URL answers");
    let driving = tokio::spawn(connection);
    client.batch_execute(statement).await.expect("PostgreSQL does it");
    driving.abort();
}

async fn fixture() -> Option<Postgres> {
    let url = database()?;
    let schema = format!("archive_{:016x}", rand::random::<u64>());
    run(&url, &format!("CREATE SCHEMA {schema}")).await;
    let archive = PostgresArchive::connect(&within(&url, &schema)).await.expect("the schema is made");
    Some(Postgres { url, schema, archive: Arc::new(archive) })
}

fn within(url: &str, schema: &str) -> String {
    format!("{url}?options=-c%20search_path%3D{schema}")
}

impl Postgres {
    async fn run(&self, statement: &str) {
        run(&within(&self.url, &self.schema), statement).await;
    }
}

impl Drop for Postgres {
    /// From a thread of its own, because the test's thread is inside its runtime.
    fn drop(&mut self) {
        let (url, drop) = (self.url.clone(), format!("DROP SCHEMA {} CASCADE", self.schema));
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(run(&url, &drop));
        };
        let _ = std::thread::spawn(remove).join();
    }
}

#[async_trait]
impl Fixture for Postgres {
    fn archive(&self) -> Arc<dyn Archive> {
        Arc::clone(&self.archive) as Arc<dyn Archive>
    }

    async fn refuse(&self, refuse: bool) {
        let add = "ALTER TABLE messages ADD CONSTRAINT refuse CHECK (kind <> 'refused')";
        self.run(if refuse { add } else { "ALTER TABLE messages DROP CONSTRAINT refuse" }).await;
    }

    async fn pass(&self, ms: u64) {
        self.run(&format!("UPDATE archivers SET beat = beat - interval '{ms} ms'")).await;
    }
}

roost_backend::archive_contract!(fixture());

/// Several processes of a new version start at once.
#[tokio::test]
async fn archivers_that_start_together_make_the_schema_once() {
    let Some(url) = database() else { return };
    let schema = format!("archive_{:016x}", rand::random::<u64>());
    run(&url, &format!("CREATE SCHEMA {schema}")).await;
    let place = within(&url, &schema);
    let starting = (0..4).map(|_| PostgresArchive::connect(&place));
    for started in futures_util::future::join_all(starting).await {
        started.expect("each finds a good schema");
    }
    run(&url, &format!("DROP SCHEMA {schema} CASCADE")).await;
}

/// `scripts/services` makes an authority, and a certificate for 127.0.0.1.
#[tokio::test]
async fn tls_is_spoken_and_the_certificate_checked_as_the_address_says() {
    let Some(url) = database() else { return };
    let Ok(roots) = std::env::var("ROOST_POSTGRES_CA") else {
        eprintln!("skipped: ROOST_POSTGRES_CA is not set");
        return;
    };
    let schema = format!("archive_{:016x}", rand::random::<u64>());
    run(&url, &format!("CREATE SCHEMA {schema}")).await;
    let place = format!("{}&application_name={schema}", within(&url, &schema));
    let encrypted = format!(
        "DO $$ BEGIN ASSERT (SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                             WHERE application_name = '{schema}'); END $$"
    );
    let full = format!("sslmode=verify-full&sslrootcert={roots}");
    for how in ["sslmode=require", &full] {
        let archive = PostgresArchive::connect(&format!("{place}&{how}")).await.expect("it is taken");
        archive.beat("a").await.expect("it answers");
        run(&url, &encrypted).await;
    }
    // Not what the certificate is for.
    let named = format!("{}&{full}", place.replace("127.0.0.1", "localhost"));
    let other = PostgresArchive::connect(&named).await;
    assert!(
        matches!(&other, Err(ArchiveError::Unreachable(why)) if why.contains("certificate")),
        "{:?}",
        other.err()
    );
    run(&url, &format!("DROP SCHEMA {schema} CASCADE")).await;
}

#[tokio::test]
async fn a_schema_that_cannot_be_is_told_apart() {
    let Some(url) = database() else { return };
    let schema = format!("archive_{:016x}", rand::random::<u64>());
    run(&url, &format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.messages (somebody text)")).await;
    let taken = PostgresArchive::connect(&within(&url, &schema)).await;
    run(&url, &format!("DROP SCHEMA {schema} CASCADE")).await;
    let Err(ArchiveError::Schema(why)) = taken.map(drop) else { panic!("a schema of somebody else") };
    assert!(why.contains("\"messages\" already exists"), "{why}");
}

#[tokio::test]
async fn what_is_wrong_with_the_address_is_told_apart_from_a_database_that_is_away() {
    let nowhere = PostgresArchive::connect("postgres://roost@127.0.0.1:1/roost").await;
    assert!(matches!(nowhere, Err(ArchiveError::Unreachable(_))), "{:?}", nowhere.err());
    let wrong = PostgresArchive::connect("postgres://roost@127.0.0.1:port/roost").await;
    assert!(matches!(wrong, Err(ArchiveError::Config(_))), "{:?}", wrong.err());
}
