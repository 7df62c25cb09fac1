//! The accept loop: what stands between a listener and a service, whatever the service is.
//!
//! `warp::serve` sets no TCP_NODELAY, no time for the headers and no cap on connections; this does. It speaks
//! HTTP/1.1 only, because WebSockets are upgraded from it. What an upgraded socket does afterwards is not its
//! business, except that the socket keeps its [`ConnectionSlot`].

mod admission;
mod metrics;
mod preface;
mod request;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use roost_proto::limits::{HANDSHAKE_TIMEOUT_MS, HEADER_BYTES_MAX, HEADERS_MAX};
use roost_proto::{ErrorBody, ErrorCode};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

pub use self::admission::ConnectionSlot;
use self::admission::{AdmissionControl, Refusal};
pub use self::metrics::HttpMetrics;
use self::preface::Told;
use self::request::Refused;
pub use self::request::names;
use crate::panics::{Panicked, guarded};
use crate::proxies::{ClientAddr, TrustedProxies};
use crate::reply;

/// Connections of one public listener: of the 20,000 files a process may usually open this leaves 3,600 for
/// Kafka, Redis, and everything else.
pub const CONNECTIONS_MAX: usize = 16_384;
/// New connections per second of one address, and the burst on top: an office of a thousand people behind one
/// address can come back at once after an outage, and a loop without back-off is slowed a hundredfold.
pub const HANDSHAKES_PER_S: u32 = 100;
pub const HANDSHAKES_BURST: u32 = 1_000;
/// Time for one request: its body, and whatever answers it. Longer than the 20 s after which a command is
/// answered `unknown`, so that the answer comes from who knows more.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// Time for running requests once the shutdown has begun.
pub const FINISH_WITHIN_MS: u64 = 5_000;
/// The first pause after the system refused a connection (no free file, no memory), and the longest.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted: as many as Linux allows unless told otherwise (`net.core.somaxconn`). After a
/// node died thousands of clients ask within a quarter of a second, and who finds no place waits a second for TCP.
const BACKLOG: u32 = 4_096;
/// Below this hyper refuses to work.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// What one listener allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at once, those upgraded included; the next one is answered `503` and closed.
    pub connections_max: usize,
    /// New connections per second of one address (IPv6: of one /64) and the burst on top; the next one is
    /// answered `429` and closed. 0 per second: no limit. Over a trusted proxy's connections each request for an
    /// upgrade counts, for the address that it comes from: it is somebody's connection, as the others are not.
    /// Where the proxy's word names nobody it counts for the proxy's own address.
    pub handshakes_per_s: u32,
    pub handshakes_burst: u32,
    /// Whose word is taken on where a connection or a request comes from.
    pub trusted_proxies: TrustedProxies,
    /// Time for the head of a request, and how long a connection may idle between two of them.
    pub header_timeout: Duration,
    /// Largest head of a request (431 beyond), and how many headers are in it (431 beyond).
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// Time for a request to be answered; `504` beyond. It ends with the head of the answer: an upgraded
    /// socket is not bound by it.
    pub request_timeout: Duration,
    /// Time for running requests once the shutdown has begun; what is cut then is counted.
    pub finish_within: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            handshakes_per_s: HANDSHAKES_PER_S,
            handshakes_burst: HANDSHAKES_BURST,
            trusted_proxies: TrustedProxies::default(),
            header_timeout: Duration::from_millis(HANDSHAKE_TIMEOUT_MS),
            header_bytes_max: HEADER_BYTES_MAX,
            headers_max: HEADERS_MAX,
            request_timeout: Duration::from_millis(REQUEST_TIMEOUT_MS),
            finish_within: Duration::from_millis(FINISH_WITHIN_MS),
        }
    }
}

impl HttpLimits {
    /// For the admin port: a few scrapers and probes, all of them from one place.
    pub fn admin() -> Self {
        Self { connections_max: 64, handshakes_per_s: 0, ..Self::default() }
    }
}

/// Opens a port.
///
/// # Errors
/// If it cannot be had.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does: a process that is started again gets its port at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves `service` (what `warp::service(filter)` returns) on `listener` until `shutdown`, then lets running
/// requests finish within `limits.finish_within` and returns. Connections run as tasks of `tracker`.
///
/// Each request carries the extensions [`ClientAddr`] and [`ConnectionSlot`]. Whoever upgrades takes the slot
/// along and, because no TLS and no HTTP/2 are in between, can downcast the upgraded connection to
/// `TokioIo<TcpStream>`.
///
/// The returned future may be spawned with any filter: that it is `Send` is proved here, for every service.
/// Of a concrete filter type inside `spawn` the compiler says "`Reply` is not general enough".
pub fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: HttpLimits,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
    tracker: &TaskTracker,
) -> impl Future<Output = ()> + Send + 'static + use<S, B>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let tracker = tracker.clone();
    async move {
        // One tracker for all tasks of the process, and one to know when those of this listener are done.
        let own = TaskTracker::new();
        let admission = AdmissionControl::new(&limits, metrics.clone());
        let context = Arc::new(Context {
            http: http1(&limits),
            limits,
            admission,
            metrics,
            shutdown: shutdown.clone(),
        });
        let mut pause = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = None;
                    let peer = peer.ip().to_canonical();
                    match context.admit(peer) {
                        Ok(slot) => {
                            let service = TowerToHyperService::new(service.clone());
                            let work = connection(stream, peer, slot, service, Arc::clone(&context));
                            tracker.spawn(own.track_future(broken_off(work)));
                        }
                        Err(refusal) => {
                            tracker.spawn(own.track_future(broken_off(refusal.answer(stream))));
                        }
                    }
                }
                Err(failure) => {
                    pause = pause_after(&failure, pause);
                    let Some(pause) = pause else { continue };
                    context.metrics.accept_failed();
                    tracing::error!(%failure, ?pause, "cannot accept connections");
                    let _ = timeout(pause, shutdown.cancelled()).await;
                }
            }
        }
        // Closed first: whoever comes now is refused by the system at once and tries elsewhere.
        drop(listener);
        own.close();
        own.wait().await;
    }
}

/// A connection that a bug ends is no more than closed: it is counted and logged already.
async fn broken_off(work: impl Future<Output = ()>) {
    let _ = guarded(work).await;
}

/// How long to leave the listener alone. Some errors are of the one connection that broke before it was taken
/// (accept(2) passes them on); the others, above all "too many open files", would come again at once and for
/// ever.
fn pause_after(failure: &io::Error, before: Option<Duration>) -> Option<Duration> {
    use io::ErrorKind as Kind;
    match failure.kind() {
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted => None,
        _ => Some(before.map_or(ACCEPT_PAUSE_MIN, |before| (before * 2).min(ACCEPT_PAUSE_MAX))),
    }
}

/// What all connections of a listener share.
struct Context {
    http: http1::Builder,
    limits: HttpLimits,
    admission: AdmissionControl,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
}

impl Context {
    fn trusts(&self, ip: IpAddr) -> bool {
        self.limits.trusted_proxies.contains(ip)
    }

    /// Before a byte is read.
    fn admit(&self, peer: IpAddr) -> Result<ConnectionSlot, Refusal> {
        if !self.trusts(peer) {
            self.admission.knock(peer).map_err(|refused| self.admission.refusal(refused))?;
        }
        self.admission.place()
    }

    /// Who is at the other end, when a proxy may say so first; nobody if the connection is of no use.
    async fn far_end(&self, stream: &mut TcpStream, peer: IpAddr) -> Option<ClientAddr> {
        if !self.trusts(peer) {
            return Some(ClientAddr::itself(peer));
        }
        let told = tokio::select! {
            () = self.shutdown.cancelled() => return None,
            told = timeout(self.limits.header_timeout, preface::read(stream)) => told,
        };
        match told {
            Ok(Ok(Told::Nothing)) => Some(ClientAddr::itself(peer)),
            Ok(Ok(Told::Client(client))) => Some(ClientAddr::itself(client)),
            Ok(Ok(Told::Nameless)) => Some(ClientAddr::nameless(peer)),
            Ok(Err(failure)) => {
                self.metrics.refused_proxy();
                tracing::debug!(%peer, %failure, "a proxy does not say who connects");
                None
            }
            Err(_) => {
                self.metrics.header_timeout();
                None
            }
        }
    }

    /// Who asks, if the request is one for a service.
    fn admitted(&self, far: ClientAddr, request: &mut Request<Incoming>) -> Result<ClientAddr, Refused> {
        request::prepare(request)?;
        self.client(far, request).map_err(|refused| (StatusCode::TOO_MANY_REQUESTS, refused))
    }

    /// Who asks, over a connection from `far`; or why not, when it is a proxy's and the client comes too often. On a
    /// connection that a proxy keeps, a plain request counts as little as on one that its client keeps.
    fn client(&self, far: ClientAddr, request: &Request<Incoming>) -> Result<ClientAddr, ErrorBody> {
        // All of it was written by somebody whom the proxy could not name, `X-Forwarded-For` too.
        if far.nameless {
            return Ok(far);
        }
        let proxies = &self.limits.trusted_proxies;
        let client = proxies.client_of(far.ip, request.headers());
        if client != far && !proxies.exempts(&client) && request.headers().contains_key(UPGRADE) {
            self.admission.knock(client.ip)?;
        }
        Ok(client)
    }
}

fn http1(limits: &HttpLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MIN));
    http
}

async fn connection<S, B>(
    mut stream: TcpStream,
    peer: IpAddr,
    slot: ConnectionSlot,
    service: TowerToHyperService<S>,
    context: Arc<Context>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    // It fails only if the peer is gone already, which the first read will tell as well.
    let _ = stream.set_nodelay(true);
    let Some(far) = context.far_end(&mut stream, peer).await else { return };
    if far != ClientAddr::itself(peer)
        && !context.limits.trusted_proxies.exempts(&far)
        && let Err(refused) = context.admission.knock(far.ip)
    {
        return context.admission.refusal(refused).answer(stream).await;
    }
    let shared = Arc::clone(&context);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let answer = shared.admitted(far, &mut request).map(|client| {
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(slot.clone());
            let service = service.clone();
            async move { service.call(request).await }
        });
        let context = Arc::clone(&shared);
        async move {
            let own = |response: Response<Bytes>| Ok(response.map(|body| Either::Right(Full::new(body))));
            let answer = match answer {
                Ok(answer) => answer,
                Err((status, refused)) => return own(reply::error_response(status, &refused)),
            };
            match timeout(context.limits.request_timeout, guarded(answer)).await {
                Ok(Ok(answered)) => answered.map(|response| response.map(Either::Left)),
                Ok(Err(bug)) => own(internal(&bug)),
                Err(_) => own(too_late(&context.metrics)),
            }
        }
    });
    let mut connection = pin!(context.http.serve_connection(TokioIo::new(stream), answer).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = context.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(context.limits.finish_within, connection).await {
                Ok(ended) => ended,
                Err(_) => {
                    context.metrics.cut();
                    tracing::warn!(%peer, "a request was cut by the shutdown");
                    return;
                }
            }
        }
    };
    if let Err(failure) = ended {
        if failure.is_timeout() {
            context.metrics.header_timeout();
        }
        // What clients do wrong is theirs to know; a log line each would be a way to fill the disk.
        tracing::debug!(%peer, %failure, "connection ended");
    }
}

/// The answer to a request that a bug ended.
fn internal(bug: &Panicked) -> Response<Bytes> {
    let body = ErrorBody::new(ErrorCode::Internal, bug.to_string());
    reply::error_response(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

/// The answer to a request nobody answered in time. It may have been carried out: repeat with the same id.
fn too_late(metrics: &HttpMetrics) -> Response<Bytes> {
    metrics.request_timeout();
    let body = ErrorBody::new(ErrorCode::Unknown, "no answer in time");
    reply::error_response(StatusCode::GATEWAY_TIMEOUT, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_table_pauses_longer_and_longer_and_a_broken_peer_not_at_all() {
        const EMFILE: i32 = 24;
        let full = io::Error::from_raw_os_error(EMFILE);
        let mut pauses = vec![pause_after(&full, None).unwrap()];
        for _ in 0..9 {
            pauses.push(pause_after(&full, pauses.last().copied()).unwrap());
        }
        assert_eq!(pauses[0], ACCEPT_PAUSE_MIN);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[9], ACCEPT_PAUSE_MAX);
        assert_eq!(pause_after(&io::ErrorKind::ConnectionAborted.into(), Some(ACCEPT_PAUSE_MAX)), None);
    }
}
