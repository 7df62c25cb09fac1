//! What the public port answers: `/route`, `/presence`, `/ring`, `/nodes` (`docs/PROTOCOL.md`, HTTP), and files.
//!
//! The server API is passed on to a node. All else but `/presence` is answered from the current snapshot. Browsers
//! call these from any page, so any origin may; `/dev` is for the console's own page alone.

mod dev;
mod files;
mod forward;
mod operate;
mod presence;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roost_backend::store::Store;
use roost_proto::{ErrorBody, ErrorCode, UserId};
use roost_service::{cors, query, reply};
use serde::Deserialize;
use tokio::sync::Semaphore;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::gate::{Asker, Gate};
use crate::metrics::{Metrics, Routed};
use crate::view::{Snapshot, View};

/// A table older than this many leases answers `/route` no more. Until then it does, while the store is away too:
/// who had a vnode most likely has it still, and if not the node says `moved`; a 503 would only make everyone come
/// again and again. After ten leases (a minute) it is a guess, and P9 wants us honest.
const STALE_LEASES_MAX: u32 = 10;
/// When to come again while a vnode has no ready home: what a planned move takes, and a takeover from a node that is
/// known to be dead.
const NO_HOME_RETRY_AFTER_MS: u64 = 250;
/// When to come again while there is no table: as long as the outage may last, without hurry.
const STALE_RETRY_AFTER_MS: u64 = 3_000;

/// What all routes share.
pub(crate) struct Api {
    pub view: Arc<View>,
    pub store: Arc<dyn Store>,
    pub metrics: Metrics,
    pub vnodes: u32,
    pub lease_ttl: Duration,
    pub gate: Arc<Gate>,
    /// `/presence` is for everyone, without a token too.
    pub open_presence: bool,
    /// As the ws-nodes have it: a token without the claim `watch` allows to see nobody.
    pub watch_needs_claim: bool,
    /// How many operators are served at once.
    pub operators: Semaphore,
    /// To the nodes, for the server API.
    pub nodes: Forwarder,
}

pub use dev::DevCluster;
pub use files::Console;
pub(crate) use forward::Forwarder;

pub(crate) fn operators() -> Semaphore {
    Semaphore::new(operate::OPERATORS_MAX)
}

impl Api {
    fn is_stale(&self, snapshot: &Snapshot) -> bool {
        snapshot.age() > self.lease_ttl * STALE_LEASES_MAX
    }
}

#[derive(Debug, Deserialize)]
struct RouteQuery {
    #[serde(rename = "userId")]
    user_id: Option<String>,
}

/// All of them; nothing is rejected.
pub(crate) fn routes(api: Api, console: &Console) -> BoxedFilter<(Response,)> {
    let own = match console {
        Console::Dev(cluster) => files::route(console).or(dev::routes(Arc::clone(cluster))).unify().boxed(),
        Console::Off | Console::On => files::route(console),
    };
    own.or(open(api)).unify().boxed()
}

/// Those that pages of any origin may call.
fn open(api: Api) -> BoxedFilter<(Response,)> {
    let api = Arc::new(api);
    let with = |api: &Arc<Api>| {
        let api = Arc::clone(api);
        warp::any().map(move || Arc::clone(&api))
    };
    let route = warp::path!("route")
        .and(warp::get())
        .and(with(&api))
        .and(query::raw())
        .map(|api: Arc<Api>, query: String| route(&api, &query));
    let presence =
        warp::path!("presence").and(warp::get()).and(with(&api)).and(asker()).and(query::raw()).then(
            |api: Arc<Api>, asker: Arc<Asker>, query: String| async move {
                presence::answer(&api, &asker, &query).await
            },
        );
    let ring = warp::path!("ring")
        .and(warp::get())
        .and(with(&api))
        .map(|api: Arc<Api>| tables::ring(&api.view.load()));
    let nodes = warp::path!("nodes")
        .and(warp::get())
        .and(with(&api))
        .map(|api: Arc<Api>| tables::nodes(&api.view.load()));
    let drained = warp::path!("api" / "nodes" / String / "drain")
        .and(warp::post().or(warp::delete()).unify())
        .and(warp::method())
        .and(with(&api))
        .and(asker())
        .and(warp::header::headers_cloned())
        .then(|node: String, method, api: Arc<Api>, asker: Arc<Asker>, headers: HeaderMap| async move {
            operate::drain(&api, &asker, method, &node, &headers).await
        });
    let explained = warp::path!("api" / "explain")
        .and(warp::get())
        .and(with(&api))
        .and(asker())
        .and(query::raw())
        .and(warp::header::headers_cloned())
        .then(|api: Arc<Api>, asker: Arc<Asker>, query: String, headers: HeaderMap| async move {
            operate::explain(&api, &asker, &query, &headers).await
        });
    let known = warp::path!("route").or(warp::path!("presence")).unify().or(warp::path!("ring")).unify();
    let preflight =
        known.or(warp::path!("nodes")).unify().and(warp::options()).map(|| cors::preflight("GET, OPTIONS"));
    route
        .or(presence)
        .unify()
        .or(ring)
        .unify()
        .or(nodes)
        .unify()
        .or(drained)
        .unify()
        .or(explained)
        .unify()
        .or(forward::route(Arc::clone(&api)))
        .unify()
        .or(preflight)
        .unify()
        .recover(reply::recover)
        .unify()
        .map(cors::for_any_origin)
        .boxed()
}

/// Who asks: the [`Gate`] has put it there.
fn asker() -> impl Filter<Extract = (Arc<Asker>,), Error = Rejection> + Copy {
    warp::ext::get::<Arc<Asker>>()
}

fn route(api: &Api, query: &str) -> Response {
    let (result, response) = match asked_for(query) {
        Ok(user) => look_up(api, &user),
        Err(error) => (Routed::BadRequest, reply::error(&error)),
    };
    api.metrics.routed(result);
    response
}

fn asked_for(query: &str) -> Result<UserId, ErrorBody> {
    let RouteQuery { user_id } = query::read(query)?;
    let user = user_id.ok_or_else(|| bad_request_body("userId is missing: /route?userId=alice"))?;
    UserId::new(user).map_err(|error| bad_request_body(&format!("userId: {error}")))
}

fn look_up(api: &Api, user: &UserId) -> (Routed, Response) {
    let snapshot = api.view.load();
    if api.is_stale(&snapshot) {
        let body = ErrorBody::new(
            ErrorCode::Unavailable,
            "the store cannot be reached, and the last table is too old",
        );
        return (Routed::Stale, reply::error(&body.retry_after(STALE_RETRY_AFTER_MS)));
    }
    let vnode = roost_ring::vnode_of_user(user, api.vnodes);
    let Some(home) = snapshot.home(vnode) else {
        let body =
            ErrorBody::new(ErrorCode::Unavailable, format!("vnode {vnode} has no ready home at the moment"));
        return (Routed::NoHome, reply::error(&body.retry_after(NO_HOME_RETRY_AFTER_MS)));
    };
    // Composed by hand: all but the user's id was encoded when the table was read.
    let mut body = Vec::with_capacity(home.route_rest.len() + user.as_str().len() + 32);
    body.extend_from_slice(b"{\"user_id\":");
    if let Err(failure) = serde_json::to_writer(&mut body, user) {
        tracing::error!(%failure, "an id could not be written as JSON");
    }
    body.extend_from_slice(home.route_rest.as_bytes());
    body.extend_from_slice(format!("{}}}", snapshot.delay_ms(home, user)).as_bytes());
    (Routed::Ok, json_bytes(body))
}

fn bad_request_body(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, message)
}

fn json_bytes(body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
