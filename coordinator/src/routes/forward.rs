//! `/api/*`: passed on to a node that is ready, which checks the token once more and answers.
//!
//! Over the nodes' admin ports, which a coordinator reaches whatever stands before the public ones. A node that
//! cannot be reached is passed over; once a request was sent it is not sent again here, since whoever asked knows
//! better whether a repeat is safe.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use roost_backend::store::{NodeRow, NodeState};
use roost_proto::limits::BATCH_BYTES_MAX;
use roost_proto::{ErrorBody, ErrorCode};
use roost_service::admin::{SID_HEADER, is_unspecified};
use roost_service::{Permits, body, cors, query, reply};
use tokio::time::timeout;
use warp::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use warp::http::{HeaderMap, Method, Request, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::{Api, NO_HOME_RETRY_AFTER_MS, asker};
use crate::gate::Asker;
use crate::metrics::Forwarded;

/// Requests at once: what a node takes. More would only wait there.
const REQUESTS_MAX: usize = 128;
/// Nodes tried, when one cannot be reached.
const TRIES: usize = 3;
/// Time to reach one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A node answers within 20 s, or says that it does not know; the listener here ends a request after 30.
const NODE_TIMEOUT: Duration = Duration::from_secs(25);
/// An idle connection is dropped before the node does it, which gives it 10 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is passed on: a page of history, and what is around its messages.
const ANSWER_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// The connections to the nodes.
pub(crate) struct Forwarder {
    client: Client<HttpConnector, Full<Bytes>>,
    permits: Permits,
    /// Which node is next.
    next: AtomicUsize,
}

impl Forwarder {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self { client, permits: Permits::new(REQUESTS_MAX), next: AtomicUsize::new(0) }
    }
}

/// What one node cannot answer for all of them.
const EACH_ITS_OWN: [&str; 2] = ["/api/tickets", "/api/events"];

/// The path and query as they came, and what is needed to pass a request on.
pub(super) fn route(api: Arc<Api>) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path("api")
        .and(warp::path::full())
        .and(query::raw())
        .and(warp::method())
        .and(asker())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |path: FullPath, query: String, method: Method, asker: Arc<Asker>, headers, body| {
            let api = Arc::clone(&api);
            async move {
                if method == Method::OPTIONS {
                    return cors::preflight("GET, POST, DELETE, OPTIONS");
                }
                let query = if query.is_empty() { query } else { format!("?{query}") };
                let uri = format!("{}{query}", path.as_str());
                let answer = forward(&api, &asker, method, &uri, headers, body).await;
                api.metrics.forwarded(result_of(&answer));
                answer.unwrap_or_else(|error| reply::error(&error))
            }
        })
}

fn result_of(answer: &Result<Response, ErrorBody>) -> Forwarded {
    match answer.as_ref().map_err(|error| error.code) {
        Ok(_) => Forwarded::Answered,
        Err(ErrorCode::Unavailable) => Forwarded::Unavailable,
        Err(ErrorCode::Unknown) => Forwarded::Unknown,
        Err(_) => Forwarded::Refused,
    }
}

fn unavailable(why: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, why).retry_after(NO_HOME_RETRY_AFTER_MS)
}

async fn forward<B: warp::Buf>(
    api: &Api,
    asker: &Asker,
    method: Method,
    uri: &str,
    headers: HeaderMap,
    body: impl warp::Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Response, ErrorBody> {
    // First of all: who may not ask takes no place, and no body of theirs is read.
    let claims = asker.is_service()?;
    if EACH_ITS_OWN.iter().any(|path| uri.split('?').next() == Some(path)) {
        let why = "each node answers for itself: ask those that /nodes names";
        return Err(ErrorBody::new(ErrorCode::NotFound, why));
    }
    let busy = || ErrorBody::new(ErrorCode::RateLimited, "too many requests of the server API at once");
    let permit = api.nodes.permits.take(&claims.sub);
    let _permit = permit.ok_or_else(|| busy().retry_after(NO_HOME_RETRY_AFTER_MS))?;
    let body = body::read(body, BATCH_BYTES_MAX).await?;
    for node in candidates(api) {
        let mut request = Request::builder().method(&method).uri(format!("http://{}{uri}", node.admin));
        request = request.header(SID_HEADER, node.sid.as_str());
        for name in [AUTHORIZATION, CONTENT_TYPE] {
            if let Some(value) = headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let bad = |_| ErrorBody::new(ErrorCode::BadRequest, "the request cannot be passed on");
        let request = request.body(Full::new(body.clone())).map_err(bad)?;
        let answered = timeout(NODE_TIMEOUT, api.nodes.client.request(request)).await;
        match answered {
            Ok(Err(error)) if error.is_connect() => {
                tracing::debug!(node = %node.sid, %error, "not reached: another one is asked");
            }
            Ok(Ok(response)) if response.status() == StatusCode::MISDIRECTED_REQUEST => {
                tracing::warn!(node = %node.sid, admin = node.admin, "another node answers there");
            }
            Ok(Ok(response)) => return passed_on(response).await,
            Ok(Err(_)) | Err(_) => {
                let why = "the node did not answer: it may have been done; repeat with the same id";
                return Err(ErrorBody::new(ErrorCode::Unknown, why));
            }
        }
    }
    Err(unavailable("no node is ready at the moment"))
}

/// Nodes that have something ready, one after the other as requests come, and as many as may be tried.
fn candidates(api: &Api) -> Vec<NodeRow> {
    let snapshot = api.view.load();
    let table = &snapshot.table;
    let mut ready: Vec<_> = table.rows.values().filter(|row| row.ready).map(|row| &row.sid).collect();
    ready.sort_unstable();
    ready.dedup();
    let nodes =
        ready.into_iter().filter_map(|sid| table.nodes.get(&sid.node()).filter(|row| row.sid == *sid));
    let up = |row: &&NodeRow| row.state == NodeState::Up && !is_unspecified(&row.admin);
    let mut nodes: Vec<NodeRow> = nodes.filter(up).cloned().collect();
    if !nodes.is_empty() {
        let first = api.nodes.next.fetch_add(1, Ordering::Relaxed) % nodes.len();
        nodes.rotate_left(first);
        nodes.truncate(TRIES);
    }
    nodes
}

async fn passed_on(response: hyper::Response<hyper::body::Incoming>) -> Result<Response, ErrorBody> {
    let (head, body) = response.into_parts();
    let unknown =
        || ErrorBody::new(ErrorCode::Unknown, "the node's answer broke off: repeat with the same id");
    let body = timeout(NODE_TIMEOUT, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| unknown())?.map_err(|_| unknown())?.to_bytes();
    let mut response = Response::new(body.into());
    *response.status_mut() = head.status;
    for name in [CONTENT_TYPE, RETRY_AFTER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}
