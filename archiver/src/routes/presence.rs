//! `GET /presence/history` and `/presence/at`: when a user came and went, and who was there when.

use roost_backend::archive::{ArchivePosition, Asked};
use roost_proto::events::StatusEvent;
use roost_proto::time::rfc3339;
use serde_json::{Value, json};

use super::api::{Answer, Api, away, bad, told};
use super::asked::{asked, mark, user};
use super::page::Page;
use super::query::{Query, moment};
use super::rights::Reader;

/// Some hundred bytes; pages of them are bounded by their number.
fn shown(event: &StatusEvent) -> Value {
    let StatusEvent { status, cause, at, since, last_seen, .. } = event;
    json!({"status": status, "cause": cause, "at": at, "since": since, "last_seen": last_seen})
}

pub(super) async fn history(api: &Api, reader: &Reader<'_>, query: &Query) -> Answer {
    let asked = asked(reader, query, "/presence/history?userId=bob")?;
    let archive = api.archive(reader.place()).await?;
    query.wait_through(&*archive).await?;
    let found = archive.changes(&asked).await.map_err(|error| away(&error))?;
    let page = Page::of(found, asked.place, asked.limit - 1, |_| 0);
    let changes: Vec<Value> = page.entries.iter().map(|(_, event)| shown(event)).collect();
    let (before, after) = (page.before.map(mark), page.after.map(mark));
    told(&json!({"user_id": asked.user, "changes": changes, "before": before, "after": after}))
}

/// What the last change before a moment says; a user nothing is known of was offline.
pub(super) async fn at(api: &Api, reader: &Reader<'_>, query: &Query) -> Answer {
    const EXAMPLE: &str = "/presence/at?userId=bob&at=2026-11-21T06:40:00.123Z";
    let user = user(reader, query, EXAMPLE)?;
    let at_ms = moment("at", query.at.as_ref())?.ok_or_else(|| bad(format!("at is missing: {EXAMPLE}")))?;
    let archive = api.archive(reader.place()).await?;
    query.wait_through(&*archive).await?;
    let asked =
        Asked { user: user.clone(), from_ms: 0, to_ms: at_ms, place: ArchivePosition::Newest, limit: 1 };
    let found = archive.changes(&asked).await.map_err(|error| away(&error))?;
    let mut answer =
        json!({"user_id": user, "at": rfc3339(at_ms), "status": "offline", "since": null, "last_seen": null});
    if let Some((_, event)) = found.first() {
        answer["status"] = json!(event.status);
        answer["since"] = json!(event.since);
        answer["last_seen"] = json!(event.last_seen);
    }
    told(&answer)
}
