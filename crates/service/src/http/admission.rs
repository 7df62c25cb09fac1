//! Who gets in: a place for each connection, and a rate for each address.
//!
//! Both are decided before a byte is read, except that a trusted proxy's own address has no rate: those for whom it
//! connects have one each, as soon as it has said who they are, and share that of its address if it names nobody.
//! Whoever is refused gets a short fixed answer and is closed.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use roost_proto::{ErrorBody, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{HttpLimits, HttpMetrics};
use crate::ratelimit::{Rates, network_of};
use crate::reply;

/// Refused connections that are answered at once; beyond that they are closed without a word.
const ANSWERS_MAX: usize = 128;
/// Time to hand a refusal over, and how much of the request is read meanwhile: closing with unread bytes makes
/// TCP send a reset, which can overtake the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_READ_MAX: u64 = 32 * 1024;
/// What a client is told when all places are taken, in milliseconds.
const FULL_RETRY_AFTER_MS: u64 = 1_000;

/// A connection's place among `connections_max`: free again when the last clone is dropped. An extension of
/// every request; whoever upgrades the connection keeps it as long as the socket is open.
#[derive(Clone)]
pub struct ConnectionSlot(#[expect(dead_code, reason = "held for its drop")] Arc<Place>);

/// The order matters: whoever sees the count fall finds the place free.
struct Place {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

struct Counted(HttpMetrics);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.closed();
    }
}

impl fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionSlot")
    }
}

/// Shared by the accept loop and the connections that came through a proxy.
pub(super) struct AdmissionControl {
    places: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    addresses: Rates<IpAddr>,
    metrics: HttpMetrics,
}

impl AdmissionControl {
    pub(super) fn new(limits: &HttpLimits, metrics: HttpMetrics) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.connections_max)),
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            addresses: Rates::new(limits.handshakes_per_s, limits.handshakes_burst),
            metrics,
        }
    }

    /// A place, for whoever it is.
    pub(super) fn place(&self) -> Result<ConnectionSlot, Refusal> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refused_full();
            return Err(self.refusal(
                ErrorBody::new(ErrorCode::Unavailable, "all places are taken")
                    .retry_after(FULL_RETRY_AFTER_MS),
            ));
        };
        self.metrics.opened();
        Ok(ConnectionSlot(Arc::new(Place { _permit: permit, _counted: Counted(self.metrics.clone()) })))
    }

    /// Whether this address may come once more.
    pub(super) fn knock(&self, ip: IpAddr) -> Result<(), ErrorBody> {
        self.addresses.take(&network_of(ip), 1).map_err(|retry_after_ms| {
            self.metrics.refused_rate();
            ErrorBody::new(ErrorCode::RateLimited, "too many connections").retry_after(retry_after_ms)
        })
    }

    pub(super) fn refusal(&self, body: ErrorBody) -> Refusal {
        Refusal { body, permit: Arc::clone(&self.answers).try_acquire_owned().ok() }
    }
}

/// Why a connection is not served, and the right to say so.
pub(super) struct Refusal {
    body: ErrorBody,
    permit: Option<OwnedSemaphorePermit>,
}

impl Refusal {
    pub(super) async fn answer(self, mut stream: TcpStream) {
        let Some(_permit) = self.permit else { return };
        let text = head_and_body(&self.body);
        let hand_over = async {
            stream.write_all(&text).await?;
            stream.shutdown().await?;
            let mut rest = stream.take(ANSWER_READ_MAX);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // Late or broken: it is refused either way.
        let _ = timeout(ANSWER_WITHIN, hand_over).await;
    }
}

fn head_and_body(error: &ErrorBody) -> Vec<u8> {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let response = reply::error_response(status, error);
    let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in response.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let length = response.body().len();
    text.extend_from_slice(format!("content-length: {length}\r\nconnection: close\r\n\r\n").as_bytes());
    text.extend_from_slice(response.body());
    text
}
