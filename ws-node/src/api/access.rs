//! Who may ask the server API, how many at once, and how one is refused; and what its routes work with.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use roost_backend::log::Log;
use roost_backend::store::Store;
use roost_proto::claims::Role;
use roost_proto::{Claims, ErrorBody, ErrorCode};
use roost_service::admin::SID_HEADER;
use roost_service::tokens::{self, Verifier};
use roost_service::{Permit, Permits, reply};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::reply::Response;

use crate::inputs::NodeInput;
use crate::metrics::BUCKETS;
use crate::node::Status;
use crate::socket;

/// Requests at once. At 5 ms each that is 25,000 a second; and of the largest bodies it is 128 MiB.
const REQUESTS_MAX: usize = 128;
/// Pages of streams read at once, 1 MiB each; as many again for the first of each service.
const PAGES_MAX: usize = 4;
/// When to come again if there are more, in milliseconds: some are done by then.
const BUSY_RETRY_AFTER_MS: u64 = 250;
/// Those who look at the events of a node at once.
pub(super) const LOOKERS_MAX: usize = 8;

/// What the routes work with.
pub(crate) struct Api {
    pub events: mpsc::Sender<NodeInput>,
    pub store: Arc<dyn Store>,
    pub verifier: Verifier,
    pub status: watch::Receiver<Status>,
    /// Cancelled when the node takes nothing new.
    pub closing: CancellationToken,
    pub vnodes: u32,
    /// Where clients find an archiver.
    pub archive_url: Option<String>,
    pub metrics: ApiMetrics,
    pub log: Arc<dyn Log>,
    pub tasks: TaskTracker,
    pub permits: ApiPermits,
}

/// How much of it goes on at once.
pub(crate) struct ApiPermits {
    requests: Permits,
    pub pages: Permits,
    pub lookers: Arc<Semaphore>,
}

impl Default for ApiPermits {
    fn default() -> Self {
        Self {
            requests: Permits::new(REQUESTS_MAX),
            pages: Permits::new(PAGES_MAX),
            lookers: Arc::new(Semaphore::new(LOOKERS_MAX)),
        }
    }
}

/// What Prometheus sees of it.
pub(crate) struct ApiMetrics {
    pub requests: IntCounterVec,
    pub seconds: Histogram,
}

impl ApiMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Requests of the server API by their outcome: ok, or the code of the error";
        let requests = IntCounterVec::new(Opts::new("roost_api_requests_total", help), &["outcome"])?;
        registry.register(Box::new(requests.clone()))?;
        let help = "A request of the server API: its head read until it was answered";
        let options = HistogramOpts::new("roost_api_seconds", help).buckets(BUCKETS.to_vec());
        let seconds = Histogram::with_opts(options)?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { requests, seconds })
    }
}

impl Api {
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<Claims, Refused> {
        // A coordinator says whom it means: admin addresses are often the same on every host.
        let sid = self.status.borrow().sid.clone();
        if headers.get(SID_HEADER).is_some_and(|meant| sid.is_none_or(|sid| meant != sid.as_str())) {
            let error = ErrorBody::new(ErrorCode::Unavailable, "another node answers at this admin address");
            return Err(Refused { status: Some(StatusCode::MISDIRECTED_REQUEST), error });
        }
        let token = tokens::from_authorization(headers);
        let token =
            token.ok_or_else(|| ErrorBody::new(ErrorCode::Unauthorized, "a service token is needed"))?;
        let claims = self.verifier.verify(token, socket::wall_s()).map_err(|e| e.body())?;
        if claims.role != Role::Service {
            return Err(ErrorBody::new(ErrorCode::Forbidden, "only a service token may do this").into());
        }
        Ok(claims)
    }

    pub(super) fn permit(&self, claims: &Claims) -> Result<Permit, ErrorBody> {
        if self.closing.is_cancelled() {
            return Err(ended());
        }
        self.permits.requests.take(&claims.sub).ok_or_else(|| {
            let error = ErrorBody::new(ErrorCode::RateLimited, "too many requests of the server API at once");
            error.retry_after(BUSY_RETRY_AFTER_MS)
        })
    }
}

/// An error, and its HTTP status where that is not the one of its code.
pub(super) struct Refused {
    pub status: Option<StatusCode>,
    pub error: ErrorBody,
}

impl Refused {
    /// What it counts as, and how it is said.
    pub(super) fn answer(self) -> (&'static str, Response) {
        let error = self.error;
        let response = match self.status {
            Some(status) => reply::error_with_status(status, &error),
            None => reply::error(&error),
        };
        (error.code.as_str(), response)
    }
}

impl From<ErrorBody> for Refused {
    fn from(error: ErrorBody) -> Self {
        Self { status: None, error }
    }
}

pub(super) fn bad(why: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, why.to_string())
}

pub(super) fn ended() -> ErrorBody {
    let why = "the node is ending, or has too much to do";
    ErrorBody::new(ErrorCode::Unavailable, why).retry_after(BUSY_RETRY_AFTER_MS)
}
