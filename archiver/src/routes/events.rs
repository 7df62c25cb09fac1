//! `GET /events?userId=bob`: what a client sent to the customer's processors, and what those said, newest first.

use roost_backend::archive::Answered;
use roost_proto::{Json, MessageId, UserId};
use serde::Serialize;

use super::api::{Answer, Api, away, told};
use super::asked::{asked, mark};
use super::page::Page;
use super::query::Query;
use super::rights::Reader;

#[derive(Serialize)]
struct Events {
    user_id: UserId,
    events: Vec<Event>,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Serialize)]
struct Event {
    event_id: MessageId,
    created_at: String,
    data: Json,
    results: Vec<Json>,
}

impl Event {
    fn of(Answered { event, results }: Answered) -> Self {
        let (event_id, created_at, data) = (event.event_id, event.created_at, event.data.into());
        Self { event_id, created_at, data, results }
    }
}

pub(super) async fn answer(api: &Api, reader: &Reader<'_>, query: &Query) -> Answer {
    let asked = asked(reader, query, "/events?userId=bob")?;
    let found = api.archive(reader.place()).await?.events(&asked).await.map_err(|error| away(&error))?;
    let page = Page::of(found, asked.place, asked.limit - 1, Answered::size);
    let (before, after) = (page.before.map(mark), page.after.map(mark));
    let events = page.entries.into_iter().map(|(_, event)| Event::of(event)).collect();
    told(&Events { user_id: asked.user, events, before, after })
}
