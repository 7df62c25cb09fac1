//! `GET /socket`: from an HTTP request to a WebSocket (RFC 6455 §4.2), or to an error a client can read.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use roost_proto::frames::SUBPROTOCOL;
use roost_proto::limits::FRAME_BYTES_MAX;
use roost_proto::{Claims, CloseCode, ErrorBody, ErrorCode};
use roost_service::http::{ConnectionSlot, names};
use roost_service::{guarded, reply, tokens};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use crate::socket::Shared;

const WEBSOCKET: &str = "websocket";
/// The version of RFC 6455.
const VERSION: &str = "13";
/// Read buffer of one connection: the frames of a chat fit; larger ones grow it while they are read. tungstenite's
/// default is 128 KiB for every idle connection.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// Most that may wait for a slow socket inside tungstenite: what the core hands over does not go through it.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// What a connection asks that means to become a WebSocket, and its place among all of the listener.
pub(crate) fn request()
-> impl Filter<Extract = (HeaderMap, Option<OnUpgrade>, Option<ConnectionSlot>), Error = Rejection>
+ Clone
+ Send
+ Sync {
    let (upgrade, slot) = (warp::ext::optional(), warp::ext::optional());
    warp::get().and(warp::header::headers_cloned()).and(upgrade).and(slot)
}

/// The route of the public listener.
pub(crate) fn route(
    shared: Arc<Shared>,
) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone + Send + Sync {
    warp::path!("socket").and(request()).map(
        move |headers: HeaderMap, upgrade: Option<OnUpgrade>, slot: Option<ConnectionSlot>| {
            accept(&shared, headers, upgrade, slot)
        },
    )
}

fn refuse(status: StatusCode, message: &str) -> Response {
    reply::error_with_status(status, &ErrorBody::new(ErrorCode::BadRequest, message))
}

/// RFC 9110 §15.5.22.
fn upgrade_required(why: &str) -> Response {
    let mut response = refuse(StatusCode::UPGRADE_REQUIRED, why);
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(WEBSOCKET));
    response
}

fn accept(
    shared: &Arc<Shared>,
    headers: HeaderMap,
    upgrade: Option<OnUpgrade>,
    slot: Option<ConnectionSlot>,
) -> Response {
    if !names(&headers, header::UPGRADE, WEBSOCKET) {
        return upgrade_required("this is a WebSocket: send an upgrade");
    }
    // RFC 6455 §4.2.2: whoever speaks another version is told which one is spoken here.
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version != VERSION) {
        let mut response = upgrade_required("version 13 of the WebSocket protocol is spoken here");
        let version = header::HeaderValue::from_static(VERSION);
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
        return response;
    }
    // Until its vnodes are elsewhere a node that stops is their users' home like any other.
    if shared.closing.is_cancelled() {
        let error = ErrorBody::new(ErrorCode::Unavailable, "this node is being stopped: ask /route again");
        return reply::error(&error.retry_after(1000));
    }
    let offered: Vec<&str> = tokens::subprotocols(&headers).collect();
    let chosen = offered.contains(&SUBPROTOCOL);
    let foreign = shared.origins.as_ref().is_some_and(|origins| !origins.allow(&headers));
    if foreign {
        shared.origins_refused.inc();
    }
    // A page cannot see why a handshake failed, and would try for ever: whoever speaks the protocol is told by a
    // close code, others are refused here.
    if foreign && !chosen {
        return reply::error(&ErrorBody::new(ErrorCode::Forbidden, "pages of this origin may not connect"));
    }
    let claims = match claims_of(shared, &headers) {
        Ok(claims) => claims,
        Err(_) if foreign => None,
        Err(error) => return reply::error(&error),
    };
    if !offered.is_empty() && !chosen {
        return refuse(StatusCode::BAD_REQUEST, "none of the offered subprotocols is spoken here: roost.v1");
    }
    let Upgrading { mut response, upgrade } = match handshake(&headers, upgrade) {
        Ok(upgrading) => upgrading,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let own = Arc::clone(shared);
    let claims = (!foreign).then_some(claims);
    // A bug in here is one connection's: it was counted and logged.
    shared.sockets.spawn(async move { guarded(upgraded(own, upgrade, claims, slot)).await });
    if chosen {
        let value = header::HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    response
}

/// A connection that becomes a WebSocket when it has been answered.
pub(crate) struct Upgrading {
    pub response: Response,
    pub upgrade: OnUpgrade,
}

/// The answer that makes a WebSocket of a connection, or why it is none.
pub(crate) fn handshake(headers: &HeaderMap, upgrade: Option<OnUpgrade>) -> Result<Upgrading, String> {
    let handshake = create_response_with_body(&as_request(headers), || ());
    let (handshake, upgrade) = match (handshake, upgrade) {
        (Ok(handshake), Some(upgrade)) => (handshake, upgrade),
        (Err(error), _) => return Err(format!("bad handshake: {error}")),
        (_, None) => return Err("this connection cannot be upgraded".into()),
    };
    let mut response = Response::new(warp::hyper::body::Bytes::new().into());
    *response.status_mut() = handshake.status();
    *response.headers_mut() = handshake.headers().clone();
    Ok(Upgrading { response, upgrade })
}

/// The socket, when the answer has gone out.
pub(crate) async fn socket(
    upgrade: OnUpgrade,
    config: WebSocketConfig,
) -> Option<WebSocketStream<TcpStream>> {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "the upgrade broke off");
            return None;
        }
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        tracing::error!("an upgraded connection is not a plain TCP stream");
        return None;
    };
    let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
    Some(WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await)
}

/// A token in the handshake is checked there and then; one in `connect` later.
fn claims_of(shared: &Shared, headers: &HeaderMap) -> Result<Option<Claims>, ErrorBody> {
    let Some(token) = tokens::bearer(headers) else { return Ok(None) };
    shared.verify(token).map(Some).map_err(|e| e.body())
}

/// As tungstenite wants it, which looks at the first line of a header only.
fn as_request(headers: &HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers.clone();
    for (header, name) in [(header::CONNECTION, "Upgrade"), (header::UPGRADE, WEBSOCKET)] {
        if names(headers, header.clone(), name) {
            request.headers_mut().insert(header, header::HeaderValue::from_static(name));
        }
    }
    request
}

/// Without `claims` it is closed at once: a page of a foreign origin.
async fn upgraded(
    shared: Arc<Shared>,
    upgrade: OnUpgrade,
    claims: Option<Option<Claims>>,
    slot: Option<ConnectionSlot>,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let Some(socket) = socket(upgrade, config).await else { return };
    match claims {
        Some(claims) => {
            let stop = shared.stop.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = crate::socket::run(shared, socket, claims) => {}
            }
        }
        None => {
            crate::socket::turn_away(socket, CloseCode::ForbiddenOrigin, "the origin is not allowed").await
        }
    }
    drop(slot);
}
