//! `GET /link`: another node opens a way to this one.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use roost_backend::store::Store;
use roost_proto::ids::Sid;
use roost_proto::records;
use roost_proto::{ErrorBody, ErrorCode};
use roost_service::http::ConnectionSlot;
use roost_service::{guarded, reply};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::proof::{End, Meeting, nonce};
use super::{HEADER, OPEN_TIMEOUT, SILENT_MAX, secret, websocket};
use crate::inputs::NodeInput;
use crate::node::Status;
use crate::upgrade::{self, Upgrading};

/// What came by one link and waits for the node's task, in bytes: two of the largest messages. What is more waits in the
/// connection, and then at its other end.
const ROOM_BYTES: usize = 1024 * 1024;

/// What links to this node work with.
pub(crate) struct Accepting {
    pub store: Arc<dyn Store>,
    pub events: mpsc::Sender<NodeInput>,
    pub status: watch::Receiver<Status>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// Of the admin listener.
pub(crate) fn route(
    accepting: Accepting,
) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone + Send + Sync {
    let accepting = Arc::new(accepting);
    warp::path!("link").and(upgrade::request()).then(
        move |headers: HeaderMap, upgrade: Option<OnUpgrade>, slot: Option<ConnectionSlot>| {
            let accepting = Arc::clone(&accepting);
            async move { accept(accepting, headers, upgrade, slot).await.unwrap_or_else(|refused| refused) }
        },
    )
}

fn refuse(code: ErrorCode, why: &str) -> Response {
    reply::error(&ErrorBody::new(code, why))
}

/// Who dials, whom it means, and its nonce.
fn said(headers: &HeaderMap) -> Option<(Sid, Sid, String)> {
    let said = headers.get(HEADER)?.to_str().ok()?;
    let mut words = said.split(' ');
    let (from, to, nonce) = (words.next()?, words.next()?, words.next()?);
    Some((Sid::parse(from).ok()?, Sid::parse(to).ok()?, nonce.to_owned()))
}

async fn accept(
    accepting: Arc<Accepting>,
    headers: HeaderMap,
    upgrade: Option<OnUpgrade>,
    slot: Option<ConnectionSlot>,
) -> Result<Response, Response> {
    let Some((from, to, nonce_of_from)) = said(&headers) else {
        return Err(refuse(ErrorCode::BadRequest, "this is for nodes of the cluster"));
    };
    let own = accepting.status.borrow().sid.clone();
    if own.as_ref() != Some(&to) {
        return Err(refuse(ErrorCode::Conflict, "another node answers at this admin address"));
    }
    let secret = secret(&*accepting.store)
        .await
        .map_err(|_| refuse(ErrorCode::Unavailable, "the store does not answer"))?;
    let Upgrading { mut response, upgrade } =
        upgrade::handshake(&headers, upgrade).map_err(|why| refuse(ErrorCode::BadRequest, &why))?;
    let meeting = Meeting { from, to, nonce_of_from, nonce_of_to: nonce() };
    let answer = format!("{} {}", meeting.nonce_of_to, meeting.proof(&secret, End::Accepted));
    let answer = HeaderValue::from_str(&answer).expect("hexadecimal is a header");
    response.headers_mut().insert(HEADER, answer);
    let tasks = accepting.tasks.clone();
    tasks.spawn(async move {
        // A bug in here is one link's: it was counted and logged.
        let _ = guarded(read(accepting, upgrade, meeting, secret, slot)).await;
    });
    Ok(response)
}

/// Until it ends, or this node does.
async fn read(
    accepting: Arc<Accepting>,
    upgrade: OnUpgrade,
    meeting: Meeting,
    secret: String,
    slot: Option<ConnectionSlot>,
) {
    let opened = async {
        let socket = upgrade::socket(upgrade, websocket()).await?;
        proven(socket, &meeting, &secret).await
    };
    let Ok(Some(mut socket)) = timeout(OPEN_TIMEOUT, opened).await else {
        return tracing::debug!(from = %meeting.from, "a link was not proven");
    };
    // The places of the admin listener are for those who ask something.
    drop(slot);
    tracing::debug!(from = %meeting.from, "a link to this node is open");
    let room = Arc::new(Semaphore::new(ROOM_BYTES));
    loop {
        let message = tokio::select! {
            () = accepting.stop.cancelled() => return,
            // Whoever opened it pings, every second that brings nothing else.
            message = timeout(SILENT_MAX, socket.next()) => message,
        };
        let Ok(Some(Ok(message))) = message else { return };
        match message {
            Message::Binary(payload) if take(&accepting, &room, &meeting.to, &payload).await.is_none() => {
                return;
            }
            Message::Close(_) => return,
            _ => {}
        }
    }
}

/// The other end knows the secret as well.
async fn proven(
    mut socket: WebSocketStream<TcpStream>,
    meeting: &Meeting,
    secret: &str,
) -> Option<WebSocketStream<TcpStream>> {
    let Some(Ok(Message::Binary(proof))) = socket.next().await else { return None };
    let proof = std::str::from_utf8(&proof).ok()?;
    meeting.is_proven(secret, End::Dialled, proof).then_some(socket)
}

/// What cannot be read is in the topic, too, where it is counted.
async fn take(accepting: &Accepting, room: &Arc<Semaphore>, to: &Sid, payload: &Bytes) -> Option<()> {
    let bytes = payload.len().min(ROOM_BYTES) as u32;
    let room = Arc::clone(room).acquire_many_owned(bytes).await.ok()?;
    let records = records::read(payload).into_iter().filter_map(Result::ok).collect();
    accepting.events.send(NodeInput::Copies { to: to.clone(), records, room }).await.ok()
}
