use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roost_backend::archive::{Archive, ArchiveError, ArchivePosition, Asked};
use roost_backend::contract::archive::Fixture;
use roost_backend::postgres::PostgresArchive;
use roost_proto::ids::{Cursor, StreamId, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

/// A database of a test's own: advisory locks are of a database, and other tests bring schemas up to date, too.
struct OwnDatabase {
    server: String,
    name: String,
    url: String,
}

impl OwnDatabase {
    async fn create() -> Option<Self> {
        let server = database()?;
        let name = format!("archive_{:016x}", rand::random::<u64>());
        run(&server, &format!("CREATE DATABASE {name}")).await;
        let url = format!("{}/{name}", server.rsplit_once('/').expect("an address with a database").0);
        Some(Self { server, name, url })
    }

    async fn drop(self) {
        run(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

/// "roost" in ASCII: what archivers lock.
const LOCK: i64 = 0x72_6f_6f_73_74;

/// As a pooler does that gives a connection to the next client when a transaction ends: a client that leaves is not
/// told to the server, and its session stays. Returns where it listens (`host:port`).
async fn pooler(host: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&host).await.expect("DATABASE_URL answers");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            let to_server = Arc::new(tokio::sync::Mutex::new(to_server));
            kept.push(Arc::clone(&to_server));
            tokio::spawn(async move {
                let mut buffer = [0; 16_384];
                while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                    // `Terminate` is a message of its own, and the last.
                    let leaves = buffer[..n].ends_with(b"X\0\0\0\x04");
                    let passed = if leaves { &buffer[..n - 5] } else { &buffer[..n] };
                    if to_server.lock().await.write_all(passed).await.is_err() || leaves {
                        break;
                    }
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        }
    });
    addr.to_string()
}

/// Behind a pooler the session outlives the archiver: what it locked must not.
#[tokio::test]
async fn the_lock_of_the_schema_ends_with_its_transaction() {
    let Some(own) = OwnDatabase::create().await else { return };
    let (head, rest) = own.url.rsplit_once('@').expect("an address with a user");
    let (host, name) = rest.split_once('/').expect("an address with a database");
    let pooled = format!("{head}@{}/{name}", pooler(host.to_owned()).await);
    let first = PostgresArchive::connect(&format!("{pooled}?sslmode=disable")).await;
    drop(first.expect("the schema is made"));
    let (watcher, watching) = tokio_postgres::connect(&own.url, NoTls).await.expect("DATABASE_URL answers");
    let watching = tokio::spawn(watching);
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE l.locktype = 'advisory' AND d.datname = current_database()";
    let held: i64 = watcher.query_one(locks, &[]).await.expect("an answer").get(0);
    let second = tokio::time::timeout(Duration::from_secs(10), PostgresArchive::connect(&own.url)).await;
    drop(watcher);
    watching.await.expect("no panic").expect("the connection ends");
    own.drop().await;
    assert_eq!(held, 0, "locks that nobody gives back");
    second.expect("it does not wait for the first").expect("the schema is there");
}

/// Somebody is at the schema, or left a lock behind. Who waits says for whom, and goes on when it is free.
#[tokio::test]
async fn who_waits_for_the_schema_says_for_whom() {
    let Some(own) = OwnDatabase::create().await else { return };
    let named = format!("{}?application_name=somebody", own.url);
    let (holder, holding) = tokio_postgres::connect(&named, NoTls).await.expect("DATABASE_URL answers");
    let holding = tokio::spawn(holding);
    holder.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await.expect("the lock");
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await.expect("an answer").get(0);
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |waits: &str| {
        let _ = told.send(waits.to_owned());
    };
    let waiting = tokio::spawn({
        let url = own.url.clone();
        async move { PostgresArchive::connect_telling(&url, tell).await }
    });
    let said = tokio::time::timeout(Duration::from_secs(15), heard.recv()).await;
    drop(holder);
    holding.await.expect("no panic").expect("the connection ends");
    let made = tokio::time::timeout(Duration::from_secs(15), waiting).await;
    own.drop().await;
    let said = said.expect("within seconds").expect("before it ends");
    assert!(said.contains(&format!("process {pid}")) && said.contains("(somebody)"), "{said}");
    made.expect("it goes on").expect("no panic").expect("the schema is made");
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

/// Counts how often the large column of a table is read: a view in its place.
fn counted(table: &str, columns: &str, large: &str) -> String {
    format!(
        "ALTER TABLE {table} RENAME TO stored_{table};
         CREATE VIEW {table} AS SELECT {columns}, counted({large}) AS {large} FROM stored_{table};"
    )
}

/// Promise 6, as the database sees it. A column that counts who reads it, and 500 rows of which a page shows a few.
#[tokio::test]
async fn a_question_reads_hardly_more_than_its_page_shows() {
    let Some(fixture) = fixture().await else { return };
    fixture
        .run(
            "CREATE TABLE all_messages PARTITION OF messages DEFAULT;
             CREATE TABLE all_events PARTITION OF client_events DEFAULT;
             CREATE TABLE all_results PARTITION OF client_results DEFAULT;
             INSERT INTO messages SELECT 'user:bob', 1, n, 'm-' || n, 'message', 'alice',
                    timestamptz '2026-11-21' + n * interval '1 s', to_json(repeat('x', 60000))
                FROM generate_series(1, 500) AS n;
             INSERT INTO client_events SELECT 'bob', 'e-' || n, 1, 1, n,
                    timestamptz '2026-11-21' + n * interval '1 s', '{}' FROM generate_series(1, 500) AS n;
             INSERT INTO client_results SELECT 'bob', 'r-' || n || '-' || i, 'e-' || n, 't',
                    timestamptz '2026-11-21' + i * interval '1 s', to_json(repeat('x', 60000))
                FROM generate_series(401, 500) AS n, generate_series(1, 20) AS i;
             CREATE SEQUENCE rows_read;
             CREATE FUNCTION counted(json) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
                'BEGIN PERFORM nextval(''rows_read''); RETURN $1; END';",
        )
        .await;
    let columns = "stream, generation, \"offset\", id, kind, sender, at";
    fixture.run(&counted("messages", columns, "data")).await;
    fixture.run(&counted("client_results", "client_id, result_id, event_id, kind, at", "record")).await;
    let bob = StreamId::new("user:bob").expect("a stream");
    for place in [ArchivePosition::Newest, ArchivePosition::After(Cursor::default())] {
        fixture.run("SELECT setval('rows_read', 1, false)").await;
        let page = fixture.archive.messages(&bob, place, 501).await.expect("it answers");
        assert_eq!(page.len(), 18);
        // Sixteen at first, and what fits then.
        fixture.run("DO $$ BEGIN ASSERT (SELECT last_value FROM rows_read) BETWEEN 18 AND 20; END $$").await;
    }
    let user = UserId::new("bob").expect("a user");
    let asked = Asked { user, from_ms: 0, to_ms: u64::MAX, place: ArchivePosition::Newest, limit: 501 };
    fixture.run("SELECT setval('rows_read', 1, false)").await;
    let page = fixture.archive.events(&asked).await.expect("it answers");
    assert_eq!(page.iter().map(|(_, event)| event.results.len()).collect::<Vec<_>>(), [16, 16]);
    // One more shows that the second event has no more of them; it comes with others.
    fixture.run("DO $$ BEGIN ASSERT (SELECT last_value FROM rows_read) BETWEEN 33 AND 48; END $$").await;
}

/// Nobody waits for it any more. Its table is locked, and whoever asked leaves.
#[tokio::test]
async fn an_abandoned_question_does_not_run_on() {
    let Some(fixture) = fixture().await else { return };
    let (url, name) = (within(&fixture.url, &fixture.schema), &fixture.schema);
    let archive = PostgresArchive::connect(&format!("{url}&application_name={name}")).await;
    let archive = archive.expect("it is reached");
    let (holder, holding) = tokio_postgres::connect(&url, NoTls).await.expect("DATABASE_URL answers");
    let (watcher, watching) = tokio_postgres::connect(&url, NoTls).await.expect("DATABASE_URL answers");
    let (holding, watching) = (tokio::spawn(holding), tokio::spawn(watching));
    holder.batch_execute("BEGIN; LOCK TABLE messages").await.expect("the lock");
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'"
    );
    let waiting = async || watcher.query_one(&waiting, &[]).await.expect("an answer").get::<_, i64>(0);
    let bob = StreamId::new("user:bob").expect("a stream");
    let asked = archive.messages(&bob, ArchivePosition::Newest, 10);
    let seen = async {
        while waiting().await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let left = tokio::select! {
        _ = asked => false,
        () = seen => true,
    };
    let ended = async {
        while waiting().await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(6), ended).await;
    // Before anything may fail: the schema is not removed while the lock is held.
    drop(holder);
    holding.await.expect("no panic").expect("the connection ends");
    watching.abort();
    assert!(left, "it waited for the lock");
    ended.expect("the server gives it up");
}
