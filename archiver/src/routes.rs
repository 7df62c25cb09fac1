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
mod shares;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roost_backend::archive::{Archive, ArchiveError, QUESTIONS_MAX};
use roost_proto::{Claims, ErrorBody, ErrorCode};
use roost_service::query as query_of;
use roost_service::{cors, guarded, reply};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::http::{HeaderMap, Method};
use warp::reply::Response;

use crate::config::ArchiverConfig;
use crate::metrics::Metrics;
use query::Query;
use rights::Reader;
use shares::{Place, Shares, exceeded};

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
    /// Of all users; each has one of them at most.
    turns: Semaphore,
    shares: Shares,
    /// Questions under way, also those that nobody waits for any more.
    questions: TaskTracker,
}

/// The archive, for as long as it is somebody's turn to ask it.
struct Turn<'a> {
    archive: &'a dyn Archive,
    _own: OwnedMutexGuard<()>,
    _turn: SemaphorePermit<'a>,
}

impl<'a> Deref for Turn<'a> {
    type Target = dyn Archive + 'a;

    fn deref(&self) -> &Self::Target {
        self.archive
    }
}

impl Api {
    /// A shutdown waits for `questions`.
    pub(crate) fn new(
        config: ArchiverConfig,
        archive: Arc<dyn Archive>,
        metrics: Metrics,
        questions: TaskTracker,
    ) -> Self {
        let turns = Semaphore::new(QUESTIONS_MAX);
        Self { config, archive, metrics, turns, shares: Shares::default(), questions }
    }

    /// The archive, when it is the caller's turn: the first of its user's, and then one of all.
    ///
    /// # Errors
    /// `rate_limited` while the same user asks, `unavailable` while too many others do.
    async fn archive(&self, place: &Place) -> Result<Turn<'_>, ErrorBody> {
        let until = Instant::now() + TURN_LIMIT;
        let own = timeout_at(until, place.asks()).await.map_err(|_| exceeded())?;
        match timeout_at(until, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(Turn { archive: &*self.archive, _own: own, _turn: turn }),
            _ => {
                let body = ErrorBody::new(ErrorCode::Unavailable, "too many ask the archive at the moment");
                Err(body.retry_after(AWAY_RETRY_AFTER_MS))
            }
        }
    }
}

/// A good answer. It keeps the place of its request until the system has taken it or the client has gone: what clients
/// do not read is bounded for each user.
struct Held {
    text: Box<str>,
    _place: Arc<Place>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Held {
    fn response(self) -> Response {
        let mut response = Response::new(Bytes::from_owner(self).into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
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
    path.and(query_of::raw())
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
                let response = match serve(&api, path, query, &method, &headers, body).await {
                    Ok(Some(answer)) => answer.response(),
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
    api: &Arc<Api>,
    path: &'static str,
    query: String,
    method: &Method,
    headers: &HeaderMap,
    body: impl warp::Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Option<Held>, ErrorBody> {
    // Who may ask at all comes first: a stranger learns nothing of how to ask, and takes no place and no time.
    let claims = rights::claims(&api.config, headers)?;
    let place = Arc::new(api.shares.place(&claims.sub)?);
    let text = if method == Method::GET {
        // In a task of its own: the database goes on with a question whose client has left, and so long it is still
        // its user's turn. It ends with the time for an answer.
        let question = question(Arc::clone(api), path, query, claims, Arc::clone(&place));
        match api.questions.spawn(guarded(question)).await {
            Ok(Ok(answer)) => answer,
            // A bug, or the runtime ends.
            Ok(Err(_)) | Err(_) => Err(ErrorBody::new(ErrorCode::Internal, "the question did not end")),
        }
    } else {
        change(api, path, method, &Reader::new(&api.config, claims, Arc::clone(&place)), body).await
    };
    Ok(text?.map(|text| Held { text: text.into(), _place: place }))
}

async fn question(
    api: Arc<Api>,
    path: &'static str,
    query: String,
    claims: Claims,
    place: Arc<Place>,
) -> Result<Option<Box<RawValue>>, ErrorBody> {
    let (api, reader) = (&*api, &Reader::new(&api.config, claims, place));
    let answer = match path {
        "/history" => history::answer(api, reader, &Query::parse(&query)?).await,
        "/events" => events::answer(api, reader, &Query::parse(&query)?).await,
        "/presence/history" => presence::history(api, reader, &Query::parse(&query)?).await,
        "/presence/at" => presence::at(api, reader, &Query::parse(&query)?).await,
        "/api/dead-letters" => {
            reader.is_service()?;
            dead_letters::list(api, reader, &Query::parse(&query)?).await
        }
        _ => return Ok(None),
    };
    answer.map(Some)
}

async fn change<B: warp::Buf>(
    api: &Api,
    path: &str,
    method: &Method,
    reader: &Reader<'_>,
    body: impl warp::Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Option<Box<RawValue>>, ErrorBody> {
    let answer = match (method, path) {
        (&Method::POST, "/api/dead-letters/replay") => {
            reader.is_service()?;
            dead_letters::replay(api, reader, dead_letters::ids(body).await?).await
        }
        (&Method::POST, "/api/dead-letters/discard") => {
            reader.is_service()?;
            dead_letters::discard(api, reader, dead_letters::ids(body).await?).await
        }
        _ => return Ok(None),
    };
    answer.map(Some)
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use futures_util::future::join_all;
    use prometheus::Registry;
    use roost_backend::embedded::EmbeddedArchive;
    use roost_proto::UserId;
    use roost_service::Secret;
    use roost_service::tokens::{KeySource, Verifier};

    use super::*;

    fn api() -> Api {
        let keys = KeySource::from_secret(&Secret::new("a secret of thirty-two characters")).unwrap();
        let config = ArchiverConfig::new(Verifier::new(keys, None, None));
        let archive = Arc::new(EmbeddedArchive::memory(Arc::new(|| 0)).unwrap());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        Api::new(config, archive, metrics, TaskTracker::new())
    }

    fn place(api: &Api, user: &str) -> Place {
        api.shares.place(&UserId::new(user).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn who_asks_while_too_many_do_is_told_when_to_come_again() {
        let api = api();
        let others: Vec<_> = (0..QUESTIONS_MAX).map(|n| place(&api, &format!("user-{n}"))).collect();
        let turns = join_all(others.iter().map(|place| api.archive(place))).await;
        assert!(turns.iter().all(Result::is_ok));
        let alice = place(&api, "alice");
        let refused = api.archive(&alice).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::Unavailable);
        assert_eq!(refused.retry_after_ms, Some(AWAY_RETRY_AFTER_MS));
        drop(turns);
        assert!(api.archive(&alice).await.is_ok());
    }

    #[tokio::test]
    async fn a_user_asks_one_question_at_a_time_and_takes_one_turn_of_all() {
        let api = api();
        let (first, second, bob) = (place(&api, "alice"), place(&api, "alice"), place(&api, "bob"));
        let asking = api.archive(&first).await.unwrap();
        let refused = api.archive(&second).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(api.turns.available_permits(), QUESTIONS_MAX - 1);
        assert!(api.archive(&bob).await.is_ok());
        drop(asking);
        assert!(api.archive(&second).await.is_ok());
    }

    #[test]
    fn an_answer_that_is_not_taken_keeps_its_place() {
        let place = Arc::new(place(&api(), "alice"));
        let kept: Weak<Place> = Arc::downgrade(&place);
        let response = Held { text: "{}".into(), _place: place }.response();
        assert!(kept.upgrade().is_some());
        drop(response);
        assert!(kept.upgrade().is_none());
    }
}
