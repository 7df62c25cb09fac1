//! Who gets in: a place for each connection, and a rate for each address.
//!
//! Both are decided before a byte is read. Whoever is refused gets a short fixed answer and is closed.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use roost_proto::{ErrorBody, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{HttpLimits, HttpMetrics, Instant};
use crate::ratelimit::Bucket;
use crate::reply;

/// Addresses remembered at once: 65,536 × 64 bytes are 4 MiB. Beyond that a new address is let in unremembered:
/// to refuse it would let anyone with many addresses lock out everyone else, and the cap on connections holds.
const ADDRESSES_MAX: usize = 65_536;
/// Between two sweeps of that table at least, in milliseconds: a sweep looks at every entry.
const SWEEP_EVERY_MS: u64 = 1_000;
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

/// Owned by the accept loop alone, so it needs no lock.
pub(super) struct Door {
    places: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    addresses: Addresses,
    metrics: HttpMetrics,
    opened_at: Instant,
}

impl Door {
    pub(super) fn new(limits: &HttpLimits, metrics: HttpMetrics) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.connections_max)),
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            addresses: Addresses::new(limits.handshakes_per_s, limits.handshakes_burst, ADDRESSES_MAX),
            metrics,
            opened_at: Instant::now(),
        }
    }

    pub(super) fn admit(&mut self, ip: IpAddr) -> Result<ConnectionSlot, Refusal> {
        let now_ms = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Err(retry_after_ms) = self.addresses.take(ip, now_ms) {
            self.metrics.refused_rate();
            return Err(self.refusal(ErrorCode::RateLimited, "too many connections", retry_after_ms));
        }
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refused_full();
            return Err(self.refusal(ErrorCode::Unavailable, "all places are taken", FULL_RETRY_AFTER_MS));
        };
        self.metrics.opened();
        Ok(ConnectionSlot(Arc::new(Place { _permit: permit, _counted: Counted(self.metrics.clone()) })))
    }

    fn refusal(&self, code: ErrorCode, message: &str, retry_after_ms: u64) -> Refusal {
        Refusal {
            body: ErrorBody::new(code, message).retry_after(retry_after_ms),
            permit: Arc::clone(&self.answers).try_acquire_owned().ok(),
        }
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

/// A bucket for each address that came lately.
struct Addresses {
    per_s: u32,
    burst: u32,
    max: usize,
    buckets: HashMap<IpAddr, Bucket>,
    sweep_after_ms: u64,
}

impl Addresses {
    fn new(per_s: u32, burst: u32, max: usize) -> Self {
        Self { per_s, burst, max, buckets: HashMap::new(), sweep_after_ms: 0 }
    }

    fn take(&mut self, ip: IpAddr, now_ms: u64) -> Result<(), u64> {
        if self.per_s == 0 {
            return Ok(());
        }
        let key = network_of(ip);
        if let Some(bucket) = self.buckets.get_mut(&key) {
            return bucket.take(now_ms);
        }
        if self.buckets.len() >= self.max && now_ms >= self.sweep_after_ms {
            self.sweep_after_ms = now_ms + SWEEP_EVERY_MS;
            self.buckets.retain(|_, bucket| !bucket.is_full(now_ms));
        }
        if self.buckets.len() < self.max {
            let mut bucket = Bucket::new(self.per_s, self.burst);
            let taken = bucket.take(now_ms);
            self.buckets.insert(key, bucket);
            return taken;
        }
        Ok(())
    }
}

/// One customer of an IPv6 provider has a /64 (RFC 6177), so that is one address; an IPv4 address written as
/// IPv6 is itself.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_own_rate_and_a_64_counts_as_one() {
        let mut addresses = Addresses::new(1, 2, 10);
        assert!(addresses.take(ip("10.0.0.1"), 0).is_ok());
        assert!(addresses.take(ip("::ffff:10.0.0.1"), 0).is_ok());
        assert_eq!(addresses.take(ip("10.0.0.1"), 0), Err(1000));
        assert!(addresses.take(ip("10.0.0.2"), 0).is_ok());
        assert!(addresses.take(ip("2001:db8::1"), 0).is_ok());
        assert!(addresses.take(ip("2001:db8::2"), 0).is_ok());
        assert_eq!(addresses.take(ip("2001:db8::3"), 0), Err(1000));
        assert!(addresses.take(ip("2001:db8:0:1::3"), 0).is_ok());
    }

    #[test]
    fn the_table_of_addresses_is_bounded_and_forgets_the_idle() {
        let mut addresses = Addresses::new(1, 1, 3);
        for last in 1..=3 {
            assert!(addresses.take(ip(&format!("10.0.0.{last}")), 0).is_ok());
        }
        // Full, and nobody idle: let in unremembered, and those remembered are still held to their rate.
        assert!(addresses.take(ip("10.0.0.4"), 10).is_ok());
        assert!(addresses.take(ip("10.0.0.4"), 10).is_ok());
        assert_eq!(addresses.take(ip("10.0.0.1"), 10), Err(990));
        assert_eq!(addresses.buckets.len(), 3);
        // A second later all buckets are full again and make room.
        assert!(addresses.take(ip("10.0.0.4"), 2_000).is_ok());
        assert_eq!(addresses.buckets.len(), 1);
        assert_eq!(addresses.take(ip("10.0.0.4"), 2_000), Err(1000));
    }
}
