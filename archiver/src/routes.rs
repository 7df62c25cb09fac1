//! What the public port answers: `/history`, `/events`, `/presence/history`, `/presence/at`, and the dead letters
//! (`docs/PROTOCOL.md`, HTTP).

mod asked;
mod dead_letters;
mod events;
mod history;
mod page;
mod presence;
mod query;
mod rights;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use roost_backend::archive::{Archive, ArchiveError, QUESTIONS_MAX};
use roost_proto::{ErrorBody, ErrorCode};
use roost_service::{cors, reply};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method};
use warp::reply::Response;

use crate::config::ArchiverConfig;
use crate::metrics::Metrics;
use query::Query;

const METHODS: &str = "GET, POST, OPTIONS";
/// When to come again while the database is away, or too many ask.
const AWAY_RETRY_AFTER_MS: u64 = 2_000;

/// For a turn to ask: the next few of a burst wait, and nobody else.
const TURN_LIMIT: Duration = Duration::from_secs(1);

/// What all routes share.
pub(crate) struct Api {
    config: ArchiverConfig,
    archive: Arc<dyn Archive>,
    metrics: Metrics,
    turns: Semaphore,
}

/// The archive, for as long as it is somebody's turn to ask it.
struct Turn<'a> {
    archive: &'a dyn Archive,
    _turn: SemaphorePermit<'a>,
}

impl<'a> Deref for Turn<'a> {
    type Target = dyn Archive + 'a;

    fn deref(&self) -> &Self::Target {
        self.archive
    }
}

impl Api {
    pub(crate) fn new(config: ArchiverConfig, archive: Arc<dyn Archive>, metrics: Metrics) -> Self {
        Self { config, archive, metrics, turns: Semaphore::new(QUESTIONS_MAX) }
    }

    /// The archive, when it is the caller's turn.
    ///
    /// # Errors
    /// `unavailable` while too many ask.
    async fn archive(&self) -> Result<Turn<'_>, ErrorBody> {
        match timeout(TURN_LIMIT, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(Turn { archive: &*self.archive, _turn: turn }),
            _ => {
                let body = ErrorBody::new(ErrorCode::Unavailable, "too many ask the archive at the moment");
                Err(body.retry_after(AWAY_RETRY_AFTER_MS))
            }
        }
    }
}

/// As text, so that frames stay as they are to the byte.
type Answer = Result<Box<RawValue>, ErrorBody>;

fn told(body: &impl Serialize) -> Answer {
    serde_json::value::to_raw_value(body).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        ErrorBody::new(ErrorCode::Internal, "the answer could not be written")
    })
}

fn bad(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, why.to_string())
}

fn away(error: &ArchiveError) -> ErrorBody {
    tracing::debug!(%error, "a question could not be answered");
    let body = ErrorBody::new(ErrorCode::Unavailable, "the archive cannot be read at the moment");
    body.retry_after(AWAY_RETRY_AFTER_MS)
}

/// All of them; nothing is rejected.
pub(crate) fn routes(api: Api) -> BoxedFilter<(Response,)> {
    let api = Arc::new(api);
    let paths = [
        warp::path!("history").map(|| "/history").boxed(),
        warp::path!("events").map(|| "/events").boxed(),
        warp::path!("presence" / "history").map(|| "/presence/history").boxed(),
        warp::path!("presence" / "at").map(|| "/presence/at").boxed(),
        warp::path!("api" / "dead-letters").map(|| "/api/dead-letters").boxed(),
        warp::path!("api" / "dead-letters" / "replay").map(|| "/api/dead-letters/replay").boxed(),
        warp::path!("api" / "dead-letters" / "discard").map(|| "/api/dead-letters/discard").boxed(),
    ];
    let path = paths.into_iter().reduce(|all, one| all.or(one).unify().boxed()).expect("there are paths");
    path.and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |path: &'static str, query: String, method: Method, headers: HeaderMap, body| {
            let api = Arc::clone(&api);
            async move {
                if method == Method::OPTIONS {
                    return cors::preflight(METHODS);
                }
                let began = Instant::now();
                let response = match serve(&api, path, &query, &method, &headers, body).await {
                    Ok(Some(body)) => reply::ok(&body),
                    Ok(None) => {
                        let status = warp::http::StatusCode::METHOD_NOT_ALLOWED;
                        reply::error_with_status(status, &bad("the path does not take this method"))
                    }
                    Err(error) => reply::error(&error),
                };
                api.metrics.answered(path, response.status().as_u16(), began.elapsed());
                response
            }
        })
        .recover(reply::recover)
        .unify()
        .map(cors::for_any_origin)
        .boxed()
}

/// `None` for a method that the path does not take.
async fn serve<B: warp::Buf>(
    api: &Api,
    path: &str,
    query: &str,
    method: &Method,
    headers: &HeaderMap,
    body: impl warp::Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Option<Box<RawValue>>, ErrorBody> {
    // Who may ask at all comes first: a stranger learns nothing of how to ask.
    let reader = rights::reader(&api.config, headers)?;
    let answer = match (method, path) {
        (&Method::GET, "/history") => history::answer(api, &reader, &Query::parse(query)?).await,
        (&Method::GET, "/events") => events::answer(api, &reader, &Query::parse(query)?).await,
        (&Method::GET, "/presence/history") => presence::history(api, &reader, &Query::parse(query)?).await,
        (&Method::GET, "/presence/at") => presence::at(api, &reader, &Query::parse(query)?).await,
        (&Method::GET, "/api/dead-letters") => {
            reader.is_service()?;
            dead_letters::list(api, &Query::parse(query)?).await
        }
        (&Method::POST, "/api/dead-letters/replay") => {
            reader.is_service()?;
            dead_letters::replay(api, dead_letters::ids(body).await?).await
        }
        (&Method::POST, "/api/dead-letters/discard") => {
            reader.is_service()?;
            dead_letters::discard(api, dead_letters::ids(body).await?).await
        }
        _ => return Ok(None),
    };
    answer.map(Some)
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use roost_backend::embedded::EmbeddedArchive;
    use roost_service::Secret;
    use roost_service::tokens::{KeySource, Verifier};

    use super::*;

    #[tokio::test]
    async fn who_asks_while_too_many_do_is_told_when_to_come_again() {
        let keys = KeySource::from_secret(&Secret::new("a secret of thirty-two characters")).unwrap();
        let config = ArchiverConfig::new(Verifier::new(keys, None, None));
        let archive = Arc::new(EmbeddedArchive::memory(Arc::new(|| 0)).unwrap());
        let api = Api::new(config, archive, Metrics::register(&Registry::new()).unwrap());
        let asking = (0..QUESTIONS_MAX).map(|_| api.archive());
        let turns = futures_util::future::join_all(asking).await;
        assert!(turns.iter().all(Result::is_ok));
        let refused = api.archive().await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::Unavailable);
        assert_eq!(refused.retry_after_ms, Some(AWAY_RETRY_AFTER_MS));
        drop(turns);
        assert!(api.archive().await.is_ok());
    }
}
