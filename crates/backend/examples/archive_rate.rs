//! How many rows a second the archive takes, beside a bare `COPY` of the same rows into a table of the same kind.
//!
//! `DATABASE_URL=… cargo run --release -p roost-backend --example archive_rate -- 500000`

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use roost_backend::archive::{Archive, Batch, Span, Stored};
use roost_backend::log::{LogRecord, Position};
use roost_backend::postgres::PostgresArchive;
use roost_proto::events::{CHAT_EVENTS, message_bytes, message_rest};
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, StreamId};
use serde_json::value::RawValue;
use tokio_postgres::{Client, NoTls};

type Answer<T> = Result<T, Box<dyn std::error::Error>>;

/// As the archiver takes them.
const BATCH: u64 = 5_000;
const STREAMS: u64 = 1_000;
const NOW_MS: u64 = 1_795_243_200_000;

fn record(n: u64, generation: Epoch) -> LogRecord {
    let stream = StreamId::new(format!("user:user-{}", n % STREAMS)).expect("a stream");
    let id = MessageId::new(format!("0199a7c2-7e1a-7cc3-98c4-{n:012x}")).expect("an id");
    let text = "a message of the usual length, such as people send each other all day long";
    let data = RawValue::from_string(format!("{{\"text\":\"{text}\",\"n\":{n}}}")).expect("JSON");
    let rest = message_rest(&id, "message", "user-7", NOW_MS + n, &data);
    let payload = message_bytes(&stream, Cursor::new(generation, Offset(n / STREAMS + 1)), &rest);
    LogRecord {
        position: Position { partition: 0, offset: n },
        at_ms: NOW_MS + n,
        key: Bytes::new(),
        payload,
    }
}

fn batches(count: u64, generation: Epoch) -> Vec<Batch> {
    let batch = |from: u64| {
        let to = (from + BATCH).min(count);
        let records = (from..to).map(|n| record(n, generation)).collect();
        Batch { topic: CHAT_EVENTS.into(), spans: vec![Span { partition: 0, from, to }], records }
    };
    (0..count.div_ceil(BATCH)).map(|n| batch(n * BATCH)).collect()
}

async fn rate(url: &str, admin: &Client, count: u64, generation: Epoch) -> Answer<f64> {
    let schema = "archive_rate";
    admin.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")).await?;
    let archive = Arc::new(
        PostgresArchive::connect(&format!("{url}?sslmode=disable&options=-c%20search_path%3D{schema}"))
            .await?,
    );
    let batches = batches(count, generation);
    let began = Instant::now();
    for batch in &batches {
        assert!(
            matches!(archive.store(batch).await?, Stored::Kept(tally) if tally.rows == batch.records.len() as u64)
        );
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Of the rows that were archived last.
async fn bare(admin: &Client, count: u64) -> Answer<f64> {
    admin
        .batch_execute(
            "SET search_path = archive_rate;
             CREATE TABLE bare (LIKE messages INCLUDING ALL)",
        )
        .await?;
    let mut out = Box::pin(admin.copy_out("COPY (SELECT * FROM messages) TO STDOUT (FORMAT binary)").await?);
    let mut pieces = Vec::new();
    while let Some(piece) = out.next().await {
        pieces.push(piece?);
    }
    let began = Instant::now();
    let mut sink = Box::pin(admin.copy_in::<_, Bytes>("COPY bare FROM STDIN (FORMAT binary)").await?);
    for piece in pieces {
        sink.feed(piece).await?;
    }
    sink.flush().await?;
    assert_eq!(sink.as_mut().finish().await?, count);
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> Answer<()> {
    let url = std::env::var("DATABASE_URL")?;
    let count = std::env::args().nth(1).map_or(Ok(200_000), |count| count.parse())?;
    let (admin, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    let young = rate(&url, &admin, count, Epoch(NOW_MS)).await?;
    println!("archive, in a generation's first hours   {young:>9.0} rows/s");
    let old = rate(&url, &admin, count, Epoch(1)).await?;
    println!("archive, later                           {old:>9.0} rows/s");
    let bare = bare(&admin, count).await?;
    println!("bare COPY of the same rows               {bare:>9.0} rows/s");
    println!("later / bare                             {:>9.2}", old / bare);
    admin.batch_execute("DROP SCHEMA archive_rate CASCADE").await?;
    Ok(())
}
