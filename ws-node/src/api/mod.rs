//! The server API over HTTP: what back ends of the application ask, with a service token (`docs/PROTOCOL.md`).
//!
//! Commands go to the core and through the same channels as what sessions send ([`crate::core::calls`]); reads go
//! to the store. The same routes are on the public port and on the admin port, where coordinators come.

mod commands;
mod events;
mod reads;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use roost_backend::log::Log;
use roost_backend::store::{Shown, Store};
use roost_proto::claims::Role;
use roost_proto::frames::{Reply, ReplyOk};
use roost_proto::limits::{BATCH_BYTES_MAX, FRAME_BYTES_MAX};
use roost_proto::{Claims, ErrorBody, ErrorCode, UserId};
use roost_service::admin::SID_HEADER;
use roost_service::tokens::{self, Verifier};
use roost_service::{Turn, Turns, body, cors, query, reply};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Stream};

use self::commands::Asked;
use crate::core::ApiCommand;
use crate::core::TicketShown;
use crate::metrics::BUCKETS;
use crate::node::{Input, Status};
use crate::socket;

/// Requests at once. At 5 ms each that is 25,000 a second; and of the largest bodies it is 128 MiB.
const REQUESTS_MAX: usize = 128;
/// Pages of streams read at once, 1 MiB each; as many again for the first of each service.
const PAGES_MAX: usize = 4;
/// When to come again if there are more, in milliseconds: some are done by then.
const BUSY_RETRY_AFTER_MS: u64 = 250;
/// The core answers every command within 20 s; this is for a core that has too much to do to say so.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(22);
const METHODS: &str = "GET, POST, OPTIONS";

/// What the routes work with.
pub struct Api {
    pub events: mpsc::Sender<Input>,
    pub store: Arc<dyn Store>,
    pub verifier: Verifier,
    pub status: watch::Receiver<Status>,
    /// Cancelled when the node takes nothing new.
    pub closing: CancellationToken,
    pub vnodes: u32,
    /// Where clients find an archiver.
    pub archive_url: Option<String>,
    pub metrics: ApiMetrics,
    pub log: Arc<dyn Log>,
    pub tasks: TaskTracker,
    turns: Turns,
    pages: Turns,
    lookers: Arc<Semaphore>,
}

/// What Prometheus sees of it.
pub struct ApiMetrics {
    requests: IntCounterVec,
    seconds: Histogram,
}

impl ApiMetrics {
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Requests of the server API by their outcome: ok, or the code of the error";
        let requests = IntCounterVec::new(Opts::new("roost_api_requests_total", help), &["outcome"])?;
        registry.register(Box::new(requests.clone()))?;
        let help = "A request of the server API: its head read until it was answered";
        let options = HistogramOpts::new("roost_api_seconds", help).buckets(BUCKETS.to_vec());
        let seconds = Histogram::with_opts(options)?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { requests, seconds })
    }
}

impl Api {
    pub fn new(
        events: mpsc::Sender<Input>,
        store: Arc<dyn Store>,
        verifier: Verifier,
        status: watch::Receiver<Status>,
        closing: CancellationToken,
        vnodes: u32,
        archive_url: Option<String>,
        metrics: ApiMetrics,
        log: Arc<dyn Log>,
        tasks: TaskTracker,
    ) -> Self {
        let turns = Turns::new(REQUESTS_MAX);
        let lookers = Arc::new(Semaphore::new(events::LOOKERS_MAX));
        Self {
            events,
            store,
            verifier,
            status,
            closing,
            vnodes,
            archive_url,
            metrics,
            log,
            tasks,
            turns,
            pages: Turns::new(PAGES_MAX),
            lookers,
        }
    }
}

/// `/api/<command>`: all methods, so that a page of any origin is told what was wrong.
pub fn routes(api: Arc<Api>) -> BoxedFilter<(Response,)> {
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
    Of(ReplyOk),
    Batch { results: Vec<Outcome<ReplyOk>> },
    Presence { users: Vec<Shown> },
    Tickets { tickets: Vec<TicketShown>, count: usize },
}

/// An error, and its HTTP status where that is not the one of its code.
struct Refused {
    status: Option<StatusCode>,
    error: ErrorBody,
}

impl Refused {
    /// What it counts as, and how it is said.
    fn answer(self) -> (&'static str, Response) {
        let error = self.error;
        let response = match self.status {
            Some(status) => reply::error_with_status(status, &error),
            None => reply::error(&error),
        };
        (error.code.as_str(), response)
    }
}

impl From<ErrorBody> for Refused {
    fn from(error: ErrorBody) -> Self {
        Self { status: None, error }
    }
}

fn bad(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, why.to_string())
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
        let _turn = self.turn(&claims)?;
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
                Ok(Answer::Of(reads::history(self, by, &stream, before, limit).await?))
            }
        }
    }

    /// What cannot be understood is answered in its place; the others are done, in order.
    async fn batch(
        &self,
        commands: Vec<Result<ApiCommand, ErrorBody>>,
    ) -> Result<Vec<Outcome<ReplyOk>>, ErrorBody> {
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

    fn authorize(&self, headers: &HeaderMap) -> Result<Claims, Refused> {
        // A coordinator says whom it means: admin addresses are often the same on every host.
        let sid = self.status.borrow().sid.clone();
        if headers.get(SID_HEADER).is_some_and(|meant| sid.is_none_or(|sid| meant != sid.as_str())) {
            let error = ErrorBody::new(ErrorCode::Unavailable, "another node answers at this admin address");
            return Err(Refused { status: Some(StatusCode::MISDIRECTED_REQUEST), error });
        }
        let token = tokens::from_authorization(headers);
        let token =
            token.ok_or_else(|| ErrorBody::new(ErrorCode::Unauthorized, "a service token is needed"))?;
        let claims = self.verifier.verify(token, socket::wall_s()).map_err(|e| e.body())?;
        if claims.role != Role::Service {
            return Err(ErrorBody::new(ErrorCode::Forbidden, "only a service token may do this").into());
        }
        Ok(claims)
    }

    fn turn(&self, claims: &Claims) -> Result<Turn, ErrorBody> {
        if self.closing.is_cancelled() {
            return Err(ended());
        }
        self.turns.take(&claims.sub).ok_or_else(|| {
            let error = ErrorBody::new(ErrorCode::RateLimited, "too many requests of the server API at once");
            error.retry_after(BUSY_RETRY_AFTER_MS)
        })
    }

    /// Has the core do all of them, in order, and waits for every answer.
    async fn carry_out(&self, calls: Vec<ApiCommand>) -> Result<Vec<Result<ReplyOk, ErrorBody>>, ErrorBody> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let (asked, answers): (Vec<_>, Vec<_>) = calls
            .into_iter()
            .map(|call| {
                let (answer, answered) = oneshot::channel::<Reply>();
                ((call, answer), answered)
            })
            .unzip();
        // Not taken: nothing of it is done.
        let taken = timeout(ANSWER_TIMEOUT, self.events.send(Input::Calls(asked))).await;
        taken.ok().and_then(Result::ok).ok_or_else(ended)?;
        let mut results = Vec::with_capacity(answers.len());
        for answered in answers {
            let reply = timeout_at(deadline, answered).await.ok().and_then(Result::ok);
            results.push(match reply {
                Some(Reply { error: Some(error), .. }) => Err(error),
                Some(Reply { ok, .. }) => Ok(ok.unwrap_or_default()),
                None => Err(ErrorBody::new(
                    ErrorCode::Unknown,
                    "no answer in time: it may have been accepted; repeat with the same id",
                )),
            });
        }
        Ok(results)
    }
}

fn ended() -> ErrorBody {
    let why = "the node is ending, or has too much to do";
    ErrorBody::new(ErrorCode::Unavailable, why).retry_after(BUSY_RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roost_proto::Json;

    use super::*;

    /// What an earlier version let in, or another writer put there, is read all the same.
    #[test]
    fn an_answer_has_the_text_of_what_it_shows() {
        for data in [r#""cut \ud83d""#, "1e400", r#"{"b": 1,"a":2,"b":3}"#] {
            let frame = format!(r#"{{"type":"message","data":{data}}}"#);
            let page =
                ReplyOk { messages: Some(vec![Json::of_frame(Bytes::from(frame))]), ..ReplyOk::default() };
            let shown = serde_json::to_string(&Outcome::Ok(Answer::Of(page.clone()))).unwrap();
            assert!(shown.contains(&format!("\"data\":{data}")), "{shown}");
            let results = vec![Outcome::Ok(page), Outcome::Error(bad("no"))];
            let shown = serde_json::to_string(&Outcome::Ok(Answer::Batch { results })).unwrap();
            assert!(shown.starts_with(r#"{"ok":{"results":[{"ok":{"messages":"#), "{shown}");
            assert!(shown.contains(data) && shown.contains(r#"{"error":{"code":"bad_request""#), "{shown}");
        }
    }
}
