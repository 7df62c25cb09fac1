//! Archivers for tests, a database for each test, and who asks them.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Client, StatusCode};
use roost_archiver::{Archiver, ArchiverConfig};
use roost_backend::archive::Archive;
use roost_backend::embedded::EmbeddedArchive;
use roost_backend::log::{Durability, Log, Outgoing};
use roost_backend::postgres::PostgresArchive;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_postgres::NoTls;
use tokio_postgres::types::FromSqlOwned;

use crate::cluster::{Backend, eventually, listen, now_s, verifier};

/// The longest pause of an archiver here, in milliseconds.
const BACKOFF_MAX_MS: u64 = 1_000;

/// An archiver on free ports.
pub async fn archiver(log: Arc<dyn Log>, archive: Arc<dyn Archive>) -> Archiver {
    let mut config = ArchiverConfig::new(verifier());
    config.backoff_max_ms = BACKOFF_MAX_MS;
    Archiver::bind(config, log, archive, listen().await, listen().await).await.expect("the archiver starts")
}

/// A schema of a test's own in the database of `DATABASE_URL`; removed at the end.
pub struct Database {
    url: String,
    schema: String,
}

impl Database {
    /// Nothing, and a line that says so, without `DATABASE_URL`; with `ROOST_REQUIRE_SERVICES=1` that is a failure.
    pub async fn find() -> Option<Self> {
        let Some(url) = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) else {
            let required = std::env::var("ROOST_REQUIRE_SERVICES").as_deref() == Ok("1");
            assert!(!required, "ROOST_REQUIRE_SERVICES=1, but DATABASE_URL is not set");
            eprintln!("skipped: DATABASE_URL is not set (scripts/services up postgres)");
            return None;
        };
        let schema = format!("test_{:016x}", rand::random::<u64>());
        let database = Self { url, schema };
        run(&database.url, &format!("CREATE SCHEMA {}", database.schema)).await;
        Some(database)
    }

    /// Its own tables, by way of this address (`host:port`); the name by which its connections are known is the
    /// schema's.
    pub fn url_at(&self, addr: &str) -> String {
        let host = self.host();
        format!(
            "{}?options=-c%20search_path%3D{schema}&application_name={schema}",
            self.url.replace(&host, addr),
            schema = self.schema
        )
    }

    /// Where the server is (`host:port`).
    pub fn host(&self) -> String {
        let rest = self.url.split("://").nth(1).expect("a URL");
        let host = rest.split('/').next().expect("an authority");
        host.rsplit('@').next().expect("a host").to_owned()
    }

    pub async fn connect(&self) -> Arc<dyn Archive> {
        let archive = PostgresArchive::connect(&self.url_at(&self.host())).await;
        Arc::new(archive.expect("DATABASE_URL answers"))
    }

    /// Ends every connection of its archivers, in the middle of whatever they do.
    pub async fn end_connections(&self) {
        let name = &self.schema;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
        );
        run(&self.url, &end).await;
    }

    /// The first column of a query on its tables.
    pub async fn numbers(&self, query: &str) -> Vec<i64> {
        let url = format!("{}?options=-c%20search_path%3D{}", self.url, self.schema);
        column(&url, query).await.expect("DATABASE_URL answers")
    }
}

/// The first column of a query.
///
/// # Errors
/// If the database is away.
pub async fn column<T: FromSqlOwned>(url: &str, query: &str) -> Result<Vec<T>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let driving = tokio::spawn(connection);
    let rows = client.query(query, &[]).await;
    driving.abort();
    rows?.iter().map(|row| row.try_get(0)).collect()
}

/// Has the database at `url` do something.
///
/// # Panics
/// If it does not.
pub async fn run(url: &str, statement: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("DATABASE_URL answers");
    let driving = tokio::spawn(connection);
    client.batch_execute(statement).await.expect("PostgreSQL does it");
    driving.abort();
}

impl Drop for Database {
    /// From a thread of its own, because the caller is inside its runtime.
    fn drop(&mut self) {
        let (url, drop) = (self.url.clone(), format!("DROP SCHEMA {} CASCADE", self.schema));
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(run(&url, &drop));
        };
        let _ = std::thread::spawn(remove).join();
    }
}

/// An archive for this back end, and what keeps it.
pub async fn archive(backend: &Backend) -> Option<(Arc<dyn Archive>, Option<Database>)> {
    if let Backend::Services = backend {
        let database = Database::find().await?;
        return Some((database.connect().await, Some(database)));
    }
    let archive = EmbeddedArchive::memory(Arc::new(|| now_s() * 1_000)).expect("an archive in memory");
    Some((Arc::new(archive), None))
}

/// Writes records to the partition 0 of a topic, as anybody may; the offset after the last of them.
pub async fn write(log: &dyn Log, topic: &str, key: &str, payloads: impl IntoIterator<Item = String>) -> u64 {
    let (reports, mut reported) = mpsc::channel(16);
    let producer = log.producer(Durability::Outbox, reports).expect("a producer");
    let mut end = 0;
    for (token, payload) in (0..).zip(payloads) {
        let (topic, key) = (topic.into(), Bytes::from(key.to_owned()));
        let record = Outgoing { topic, partition: 0, key, payload: payload.into(), token };
        producer.produce(record).expect("room");
        end = reported.recv().await.expect("a report").result.expect("it is in the log").offset + 1;
    }
    end
}

/// Asks an archiver with one token.
pub struct Reader {
    base: String,
    token: String,
    http: Client,
}

impl Reader {
    pub fn new(archiver: &Archiver, token: String) -> Self {
        Self { base: format!("http://{}", archiver.addr()), token, http: Client::new() }
    }

    pub async fn ask(&self, path: &str) -> (StatusCode, Value) {
        self.ask_at(&format!("{}{path}", self.base)).await
    }

    /// A whole URL.
    pub async fn ask_at(&self, url: &str) -> (StatusCode, Value) {
        let answer = self.http.get(url).bearer_auth(&self.token).send().await.expect("an answer");
        let status = answer.status();
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            assert!(answer.headers().contains_key("retry-after"), "{status} says when to come again");
        }
        (status, answer.json().await.expect("JSON"))
    }

    /// The text of a good answer, as it came.
    pub async fn text(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token).send().await;
        answer.expect("an answer").text().await.expect("a text")
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token).json(&body);
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    /// Asks until it is answered with 200; anything but 503 in between is a failure.
    pub async fn good(&self, path: &str) -> Value {
        eventually(path, async || {
            let (status, body) = self.ask(path).await;
            assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status} {body}");
            (status == StatusCode::OK).then_some(body)
        })
        .await
    }

    /// The dead letters in which `mark` is, oldest first.
    pub async fn dead_letters(&self, mark: &str) -> Vec<Value> {
        let (mut all, mut before) = (Vec::new(), String::new());
        loop {
            let page = self.good(&format!("/api/dead-letters?limit=500{before}")).await;
            let letters = page["dead_letters"].as_array().expect("a list").iter();
            all.extend(letters.filter(|letter| letter["payload"].to_string().contains(mark)).cloned());
            let Some(next) = page["before"].as_str() else { break };
            before = format!("&before={next}");
        }
        all.reverse();
        all
    }

    /// All messages of a stream, oldest first, read back page by page once the archive has passed `through`.
    pub async fn history(&self, stream: &str, through: &str) -> Vec<Value> {
        let (mut all, mut before) = (Vec::new(), String::new());
        loop {
            let path = format!("/history?stream={stream}&limit=7&through={through}{before}");
            let page = self.good(&path).await;
            all.extend(page["messages"].as_array().expect("messages").iter().cloned());
            let Some(next) = page["before"].as_str() else { break };
            before = format!("&before={next}");
        }
        all.reverse();
        all
    }
}
