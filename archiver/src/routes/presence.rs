//! `GET /presence/history` and `/presence/at`: when a user came and went, and who was there when.

use std::fmt;
use std::str::FromStr;

use roost_backend::archive::{AT_MAX_MS, Change, Changes, Place};
use roost_proto::events::StatusEvent;
use roost_proto::ids::{Epoch, Seq};
use roost_proto::time::rfc3339;
use roost_proto::{ErrorBody, UserId};
use serde_json::{Value, json};

use super::page::Page;
use super::query::{Query, moment, required};
use super::rights::Reader;
use super::{Answer, Api, away, bad, told};

/// A [`Change`] as a cursor. For clients it is an opaque text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(Change);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0.at_ms, self.0.epoch, self.0.seq)
    }
}

impl FromStr for Mark {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "not what a page said";
        let numbers: Vec<u64> =
            text.split(':').map(|digits| digits.parse().map_err(|_| WHY)).collect::<Result<_, _>>()?;
        let [at_ms, epoch, seq] = numbers[..] else { return Err(WHY) };
        Ok(Self(Change { at_ms, epoch: Epoch(epoch), seq: Seq(seq) }))
    }
}

fn user(reader: &Reader<'_>, query: &Query, example: &str) -> Result<UserId, ErrorBody> {
    let user = required("userId", query.user_id.as_ref(), example)?;
    reader.may_see(&user)?;
    Ok(user)
}

/// Some hundred bytes; pages of them are bounded by their number.
fn shown(event: &StatusEvent) -> Value {
    let StatusEvent { status, cause, at, since, last_seen, .. } = event;
    json!({"status": status, "cause": cause, "at": at, "since": since, "last_seen": last_seen})
}

pub(super) async fn history(api: &Api, reader: &Reader<'_>, query: &Query) -> Answer {
    let user = user(reader, query, "/presence/history?userId=bob")?;
    let limit = query.limit()?;
    let place = match query.place::<Mark>()? {
        Place::Newest => Place::Newest,
        Place::Before(key) => Place::Before(key.0),
        Place::After(key) => Place::After(key.0),
    };
    let from_ms = moment("from", query.from.as_ref())?.unwrap_or(0);
    let to_ms = moment("to", query.to.as_ref())?.unwrap_or(AT_MAX_MS);
    if from_ms > to_ms {
        return Err(bad("to: is before 'from'"));
    }
    query.wait_through(&*api.archive).await?;
    let asked = Changes { user: user.clone(), from_ms, to_ms, place, limit: limit + 1 };
    let found = api.archive.changes(&asked).await.map_err(|error| away(&error))?;
    let page = Page::of(found, place, limit, |_| 0);
    let text = |change: Change| Mark(change).to_string();
    let changes: Vec<Value> = page.entries.iter().map(|(_, event)| shown(event)).collect();
    let (before, after) = (page.before.map(text), page.after.map(text));
    told(&json!({"user_id": user, "changes": changes, "before": before, "after": after}))
}

/// What the last change before a moment says; a user nothing is known of was offline.
pub(super) async fn at(api: &Api, reader: &Reader<'_>, query: &Query) -> Answer {
    const EXAMPLE: &str = "/presence/at?userId=bob&at=2026-11-21T06:40:00.123Z";
    let user = user(reader, query, EXAMPLE)?;
    let at_ms = moment("at", query.at.as_ref())?.ok_or_else(|| bad(format!("at is missing: {EXAMPLE}")))?;
    query.wait_through(&*api.archive).await?;
    let asked = Changes { user: user.clone(), from_ms: 0, to_ms: at_ms, place: Place::Newest, limit: 1 };
    let found = api.archive.changes(&asked).await.map_err(|error| away(&error))?;
    let mut answer =
        json!({"user_id": user, "at": rfc3339(at_ms), "status": "offline", "since": null, "last_seen": null});
    if let Some((_, event)) = found.first() {
        answer["status"] = json!(event.status);
        answer["since"] = json!(event.since);
        answer["last_seen"] = json!(event.last_seen);
    }
    told(&answer)
}
