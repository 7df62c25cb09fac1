//! What the public port answers: `/history`, `/events`, `/presence/history`, `/presence/at`, and the dead letters
//! (`docs/PROTOCOL.md`, HTTP).

mod api;
mod asked;
mod dead_letters;
mod events;
mod history;
mod page;
mod presence;
mod query;
mod rights;
mod shares;

use std::sync::Arc;

use bytes::Bytes;
use roost_proto::{Claims, ErrorBody, ErrorCode};
use roost_service::query as query_of;
use roost_service::{cors, guarded, reply};
use serde_json::value::RawValue;
use tokio::time::Instant;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::http::{HeaderMap, Method};
use warp::reply::Response;

pub(crate) use self::api::Api;
use self::api::bad;
use self::query::Query;
use self::rights::Reader;
use self::shares::Place;

const METHODS: &str = "GET, POST, OPTIONS";
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

    use roost_proto::UserId;

    use super::shares::Shares;
    use super::*;

    #[test]
    fn an_answer_that_is_not_taken_keeps_its_place() {
        let place = Arc::new(Shares::default().place(&UserId::new("alice").unwrap()).unwrap());
        let kept: Weak<Place> = Arc::downgrade(&place);
        let response = Held { text: "{}".into(), _place: place }.response();
        assert!(kept.upgrade().is_some());
        drop(response);
        assert!(kept.upgrade().is_none());
    }
}
