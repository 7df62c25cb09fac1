//! `/dev/*`: what the console of `roost dev` may do and no other: make tokens, kill nodes and start them.
//!
//! A page of another origin must not, though a browser would send its requests here: the `Origin` of a request has to
//! be the page's own (against CSRF), and its `Host` a name of this machine (against DNS rebinding). The answers
//! carry no CORS headers, and nothing of them is logged.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Buf;
use roost_proto::claims::Role;
use roost_proto::{ErrorBody, ErrorCode, NodeId, UserId};
use roost_service::{body, reply};
use serde::Deserialize;
use serde_json::{Value, json};
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, HOST, HeaderValue, ORIGIN};
use warp::http::{HeaderMap, Method};
use warp::path::Tail;
use warp::reply::Response;
use warp::{Filter, Stream};

/// The names under which a browser reaches a listener on the loopback interface.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// A user's name and a role.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// A cluster in this process, on which somebody develops.
#[async_trait]
pub trait DevCluster: Send + Sync {
    /// A token such as the application's login would make.
    ///
    /// # Errors
    /// `unavailable` if there is no secret to sign with.
    fn token(&self, user: &UserId, role: Role) -> Result<String, ErrorBody>;

    /// Ends a node as a crash would: it hands nothing over.
    ///
    /// # Errors
    /// `not_found` if no such node runs.
    async fn kill(&self, node: &NodeId) -> Result<(), ErrorBody>;

    /// Starts a node that was killed, under its name and at its address.
    ///
    /// # Errors
    /// `not_found` if there was none, `conflict` if it runs, `internal` if it does not start.
    async fn restart(&self, node: &NodeId) -> Result<(), ErrorBody>;

    /// Starts another node.
    ///
    /// # Errors
    /// `conflict` if no port is left for it, `internal` if it does not start.
    async fn add(&self) -> Result<NodeId, ErrorBody>;
}

#[derive(Deserialize)]
struct TokenFor {
    user: String,
    role: Option<Role>,
}

/// Everything below `/dev`, also what is not there.
pub(super) fn routes(cluster: Arc<dyn DevCluster>) -> BoxedFilter<(Response,)> {
    warp::path("dev")
        .and(warp::path::tail())
        .and(warp::method())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(move |path: Tail, method: Method, headers: HeaderMap, body| {
            let cluster = Arc::clone(&cluster);
            async move {
                let done = match from_own_page(&headers) {
                    Ok(()) => carry_out(&*cluster, &method, path.as_str(), body).await,
                    Err(error) => Err(error),
                };
                let mut response = done.map_or_else(|error| reply::error(&error), |body| reply::ok(&body));
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
        })
        .boxed()
}

/// Whoever sends no `Origin` to a `POST` is no page (Fetch standard, Origin header).
fn from_own_page(headers: &HeaderMap) -> Result<(), ErrorBody> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let host = headers.get(HOST).map(text).unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name =
        host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host.as_str(), |(name, _)| name);
    let is_own = headers.get(ORIGIN).is_none_or(|origin| text(origin) == format!("http://{host}"));
    if LOOPBACK.contains(&name) && is_own {
        return Ok(());
    }
    let text = "only the console's own page, at an address of this machine, may do this";
    Err(ErrorBody::new(ErrorCode::Forbidden, text))
}

async fn carry_out<B: Buf>(
    cluster: &dyn DevCluster,
    method: &Method,
    path: &str,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Value, ErrorBody> {
    let node = |name| NodeId::new(name).map_err(|error| bad_request(&format!("node: {error}")));
    let parts: Vec<&str> = path.split('/').collect();
    match (method, parts.as_slice()) {
        (&Method::POST, ["token"]) => {
            let TokenFor { user, role } = body::fields(&body::read(body, BODY_BYTES_MAX).await?)?;
            let user = UserId::new(user).map_err(|error| bad_request(&format!("user: {error}")))?;
            Ok(json!({"token": cluster.token(&user, role.unwrap_or_default())?}))
        }
        (&Method::POST, ["nodes"]) => Ok(json!({"node": cluster.add().await?})),
        (&Method::POST, ["nodes", name, "kill"]) => {
            cluster.kill(&node(*name)?).await.map(|()| json!({"node": name}))
        }
        (&Method::POST, ["nodes", name, "restart"]) => {
            cluster.restart(&node(*name)?).await.map(|()| json!({"node": name}))
        }
        _ => Err(ErrorBody::new(ErrorCode::NotFound, "no such path, or not with this method")),
    }
}

fn bad_request(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, message)
}
