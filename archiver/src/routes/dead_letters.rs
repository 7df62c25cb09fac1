//! `/api/dead-letters`: what could not be archived, for operators.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use roost_backend::archive::{ArchivePosition, DeadLetter, Replayed};
use roost_proto::ErrorBody;
use roost_proto::time::rfc3339;
use roost_service::body;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Answer, Api, away, bad, told};
use super::page::Page;
use super::query::Query;
use super::rights::Reader;

/// Dead letters in one request: each is a transaction of its own.
const IDS_MAX: usize = 100;
/// A list of so many numbers, generously.
const BODY_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Deserialize)]
struct Ids {
    ids: Vec<u64>,
}

/// The ids that a request is about.
pub(super) async fn ids<B: warp::Buf>(
    stream: impl warp::Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Vec<u64>, ErrorBody> {
    let bytes = body::read(stream, BODY_BYTES_MAX).await?;
    let Ids { ids } = body::fields(&bytes)?;
    let fits = (1..=IDS_MAX).contains(&ids.len());
    fits.then_some(ids).ok_or_else(|| bad(format!("ids: 1 to {IDS_MAX} of them")))
}

/// As text where it is text.
fn shown(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"text": text}),
        Err(_) => json!({"base64": BASE64_STANDARD.encode(bytes)}),
    }
}

pub(super) async fn list(api: &Api, reader: &Reader<'_>, query: &Query) -> Answer {
    let (before, limit) = (query.before_id()?, query.limit()?);
    let found = api
        .archive(reader.place())
        .await?
        .dead_letters(before, limit + 1)
        .await
        .map_err(|error| away(&error))?;
    let found = found.into_iter().map(|letter| (letter.id, letter)).collect();
    let size = |letter: &DeadLetter| letter.key.len() + letter.payload.len();
    let page = Page::of(found, before.map_or(ArchivePosition::Newest, ArchivePosition::Before), limit, size);
    let letter = |letter: &DeadLetter| {
        json!({
            "id": letter.id,
            "topic": letter.topic,
            "partition": letter.position.partition,
            "offset": letter.position.offset,
            "reason": letter.reason,
            "at": rfc3339(letter.at_ms),
            "key": shown(&letter.key),
            "payload": shown(&letter.payload),
        })
    };
    let letters: Vec<Value> = page.entries.iter().map(|(_, found)| letter(found)).collect();
    told(&json!({"dead_letters": letters, "before": page.before.map(|id| id.to_string())}))
}

pub(super) async fn replay(api: &Api, reader: &Reader<'_>, ids: Vec<u64>) -> Answer {
    let (archive, mut results) = (api.archive(reader.place()).await?, Vec::new());
    for id in ids {
        let replayed = archive.replay(id).await.map_err(|error| away(&error))?;
        results.push(match replayed {
            Replayed::Stored => json!({"id": id, "result": "stored"}),
            Replayed::Refused(reason) => json!({"id": id, "result": "refused", "reason": reason}),
            Replayed::Missing => json!({"id": id, "result": "missing"}),
        });
    }
    told(&json!({"results": results}))
}

pub(super) async fn discard(api: &Api, reader: &Reader<'_>, ids: Vec<u64>) -> Answer {
    let (archive, mut results) = (api.archive(reader.place()).await?, Vec::new());
    for id in ids {
        let there = archive.discard(id).await.map_err(|error| away(&error))?;
        results.push(json!({"id": id, "result": if there { "discarded" } else { "missing" }}));
    }
    told(&json!({"results": results}))
}
