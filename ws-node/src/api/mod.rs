//! The server API over HTTP: what back ends of the application ask, with a service token (`docs/PROTOCOL.md`).
//!
//! Commands go to the core and through the same channels as what sessions send ([`crate::core::calls`]); reads go
//! to the store. The same routes are on the public port and on the admin port, where coordinators come.

mod access;
mod commands;
mod events;
mod reads;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use roost_backend::store::Shown;
use roost_proto::frames::Reply;
use roost_proto::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX};
use roost_proto::{ErrorBody, ErrorCode, Json, UserId};
use roost_service::{body, cors, query, reply};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Stream};

pub(crate) use self::access::{Api, ApiMetrics, ApiPermits};
use self::access::{Refused, bad, ended};
use self::commands::Asked;
use crate::core::{ApiCommand, TicketShown};
use crate::inputs::NodeInput;

/// The core answers every command within 20 s; this is for a core that has too much to do to say so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(22);
const METHODS: &str = "GET, POST, OPTIONS";

/// `/api/<command>`: all methods, so that a page of any origin is told what was wrong.
pub(crate) fn routes(api: Arc<Api>) -> BoxedFilter<(Response,)> {
    warp::path!("api" / String)
        .and(query::raw())
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |command: String, query: String, method: Method, headers: HeaderMap, body| {
            let api = Arc::clone(&api);
            async move {
                if method == Method::OPTIONS {
                    return cors::for_any_origin(cors::preflight(METHODS));
                }
                let began = Instant::now();
                if (&method, &*command) == (&Method::GET, "events") {
                    let shown = Arc::clone(&api).look(&headers).await;
                    return cors::for_any_origin(shown.unwrap_or_else(|refused| refused.answer().1));
                }
                let (outcome, response) = match api.serve(&command, &query, &method, &headers, body).await {
                    Ok(ok) => ("ok", reply::ok(&Outcome::Ok(ok))),
                    Err(refused) => refused.answer(),
                };
                api.metrics.requests.with_label_values(&[outcome]).inc();
                api.metrics.seconds.observe(began.elapsed().as_secs_f64());
                cors::for_any_origin(response)
            }
        })
        .boxed()
}

/// What a command or a request came to, as it is said.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome<T> {
    Ok(T),
    Error(ErrorBody),
}

/// A good answer. It is written at once: a `serde_json::Value` in between would change payloads, or break on them.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Of(Json),
    Batch { results: Vec<Outcome<Json>> },
    Presence { users: Vec<Shown> },
    Tickets { tickets: Vec<TicketShown>, count: usize },
}

impl Api {
    async fn serve<B: warp::Buf>(
        &self,
        command: &str,
        query: &str,
        method: &Method,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<B, warp::Error>> + Send,
    ) -> Result<Answer, Refused> {
        // Nothing is read of who may not ask.
        let claims = self.authorize(headers)?;
        let _permit = self.permit(&claims)?;
        let asked = match (method, command) {
            (&Method::GET, "history") => commands::history(query)?,
            (&Method::GET, "tickets") => commands::tickets(query)?,
            (&Method::POST, _) => {
                let max = if command == "batch" { BATCH_BYTES_MAX } else { FRAME_BYTES_MAX };
                let body = body::read(body, max).await?;
                let text = std::str::from_utf8(&body).map_err(|_| bad("the body is not UTF-8"))?;
                commands::parse(command, text, &claims.sub)?
            }
            _ if !commands::NAMES.contains(&command) => return Err(commands::unknown(command).into()),
            _ => {
                let error = bad("the path does not take this method");
                return Err(Refused { status: Some(StatusCode::METHOD_NOT_ALLOWED), error });
            }
        };
        self.answer(asked, &claims.sub).await
    }

    async fn answer(&self, asked: Asked, by: &UserId) -> Result<Answer, Refused> {
        match asked {
            Asked::Do(call) => match self.carry_out(vec![call]).await?.pop() {
                Some(answer) => Ok(Answer::Of(answer?)),
                None => Err(ended().into()),
            },
            Asked::Tickets(client) => {
                let (tickets, count) = reads::tickets(self, client).await?;
                Ok(Answer::Tickets { tickets, count })
            }
            Asked::Batch(commands) => Ok(Answer::Batch { results: self.batch(commands).await? }),
            Asked::Presence(users) => Ok(Answer::Presence { users: reads::presence(self, users).await? }),
            Asked::History { stream, before, limit } => {
                let page = reads::history(self, by, &stream, before, limit).await?;
                Ok(Answer::Of(Json::of(&page)))
            }
        }
    }

    /// What cannot be understood is answered in its place; the others are done, in order.
    async fn batch(
        &self,
        commands: Vec<Result<ApiCommand, ErrorBody>>,
    ) -> Result<Vec<Outcome<Json>>, ErrorBody> {
        let (mut calls, mut places) = (Vec::new(), Vec::new());
        for command in commands {
            places.push(command.map(|call| calls.push(call)));
        }
        let mut answers = self.carry_out(calls).await?.into_iter();
        let results = places.into_iter().map(|place| {
            let answer = place.and_then(|()| answers.next().unwrap_or_else(|| Err(ended())));
            answer.map_or_else(Outcome::Error, Outcome::Ok)
        });
        Ok(results.collect())
    }

    /// Has the core do all of them, in order, and waits for every answer.
    async fn carry_out(&self, calls: Vec<ApiCommand>) -> Result<Vec<Result<Json, ErrorBody>>, ErrorBody> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let (asked, answers): (Vec<_>, Vec<_>) = calls
            .into_iter()
            .map(|call| {
                let (answer, answered) = oneshot::channel::<Reply>();
                ((call, answer), answered)
            })
            .unzip();
        // Not taken: nothing of it is done.
        let taken = timeout(ANSWER_TIMEOUT, self.events.send(NodeInput::Calls(asked))).await;
        taken.ok().and_then(Result::ok).ok_or_else(ended)?;
        let mut results = Vec::with_capacity(answers.len());
        for answered in answers {
            let reply = timeout_at(deadline, answered).await.ok().and_then(Result::ok);
            results.push(match reply {
                Some(Reply { error: Some(error), .. }) => Err(error),
                Some(Reply { ok: Some(ok), .. }) => Ok(ok),
                _ => Err(ErrorBody::new(
                    ErrorCode::Unknown,
                    "no answer in time: it may have been accepted; repeat with the same id",
                )),
            });
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roost_proto::answers::Paged;

    use super::*;

    /// What an earlier version let in, or another writer put there, is read all the same.
    #[test]
    fn an_answer_has_the_text_of_what_it_shows() {
        for data in [r#""cut \ud83d""#, "1e400", r#"{"b": 1,"a":2,"b":3}"#] {
            let frame = format!(r#"{{"type":"message","data":{data}}}"#);
            let messages = vec![Json::of_frame(Bytes::from(frame))];
            let page = Json::of(&Paged { messages, before: None, older: false, next: None });
            let shown = serde_json::to_string(&Outcome::Ok(Answer::Of(page.clone()))).unwrap();
            assert!(shown.contains(&format!("\"data\":{data}")), "{shown}");
            let results = vec![Outcome::Ok(page), Outcome::Error(bad("no"))];
            let shown = serde_json::to_string(&Outcome::Ok(Answer::Batch { results })).unwrap();
            assert!(shown.starts_with(r#"{"ok":{"results":[{"ok":{"messages":"#), "{shown}");
            assert!(shown.contains(data) && shown.contains(r#"{"error":{"code":"bad_request""#), "{shown}");
        }
    }
}
