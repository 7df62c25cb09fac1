//! `GET /history?stream=user:bob`: pages of a stream, newest first.

use roost_backend::archive::ArchivePosition;
use roost_proto::history::Before;
use roost_proto::{Json, StreamId};
use serde::Serialize;

use super::api::{Answer, Api, away, told};
use super::page::Page;
use super::query::{Query, required};
use super::rights::Reader;

#[derive(Serialize)]
struct History {
    messages: Vec<Json>,
    before: Option<Before>,
    after: Option<Before>,
}

pub(super) async fn answer(api: &Api, reader: &Reader<'_>, query: &Query) -> Answer {
    let stream: StreamId = required("stream", query.stream.as_ref(), "/history?stream=user:bob")?;
    let limit = query.limit()?;
    let place = match query.place::<Before>()? {
        ArchivePosition::Newest => ArchivePosition::Newest,
        ArchivePosition::Before(key) => ArchivePosition::Before(key.0),
        ArchivePosition::After(key) => ArchivePosition::After(key.0),
    };
    reader.may_read(&stream)?;
    let archive = api.archive(reader.place()).await?;
    query.wait_through(&*archive).await?;
    // One more than is shown says whether there is more.
    let found = archive.messages(&stream, place, limit + 1).await.map_err(|error| away(&error))?;
    drop(archive);
    let page = Page::of(found, place, limit, |frame| frame.len());
    let messages = page.entries.into_iter().map(|(_, frame)| Json::of_frame(frame)).collect();
    told(&History { messages, before: page.before.map(Before), after: page.after.map(Before) })
}
