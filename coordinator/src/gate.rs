//! Who asks, and how much: in front of every route of the public port.
//!
//! A token is looked at once, before anything is done for who sent it: the routes find an [`Asker`] among the
//! request's extensions. Each request costs its address a token of a bucket, and its user one of another; a service's
//! requests cost nothing, since a service may do everything, and its places are counted.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::Either;
use hyper::body::Incoming;
use roost_proto::claims::Role;
use roost_proto::{Claims, ErrorBody, ErrorCode, UserId};
use roost_service::ratelimit::network_of;
use roost_service::tokens::{self, TokenError};
use roost_service::{ClientAddr, Rates, TrustedProxies, Verifier, cors, reply};
use tower_service::Service;
use warp::http::Request;
use warp::reply::Response;

use crate::metrics::{Limited, Metrics};

/// Requests per second of one address (IPv6: of one /64), and the burst on top: an office of a thousand people behind
/// one address can come back at once after an outage, and ask twice. Of `/presence`, of which one costs Redis at most
/// 100 commands, these are 20,000 commands a second.
pub(crate) const REQUESTS_PER_S: u32 = 200;
pub(crate) const REQUESTS_BURST: u32 = 2_000;
/// The same of one user, whatever the address: a page may ask for its list of contacts, 9,000 people, at once, and
/// then for 450 a second.
pub(crate) const USER_REQUESTS_PER_S: u32 = 10;
pub(crate) const USER_REQUESTS_BURST: u32 = 200;

/// How much may be asked for. A rate of 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    pub per_s: u32,
    pub burst: u32,
    pub user_per_s: u32,
    pub user_burst: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            per_s: REQUESTS_PER_S,
            burst: REQUESTS_BURST,
            user_per_s: USER_REQUESTS_PER_S,
            user_burst: USER_REQUESTS_BURST,
        }
    }
}

impl RequestLimits {
    /// Where all clients have one address: measurements, and tests that ask again and again.
    pub const NONE: Self = Self { per_s: 0, burst: 1, user_per_s: 0, user_burst: 1 };
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Asker {
    /// `None` for a trusted proxy that asks for itself; one that does not say for whom it asks has its own.
    address: Option<IpAddr>,
    claims: Option<Result<Claims, TokenError>>,
}

impl Asker {
    fn may_do_everything(&self) -> bool {
        matches!(&self.claims, Some(Ok(claims)) if claims.role == Role::Service)
    }

    /// What the token says, if there is one.
    ///
    /// # Errors
    /// `unauthorized` for one that is not accepted.
    pub(crate) fn claims(&self) -> Result<Option<&Claims>, ErrorBody> {
        self.claims.as_ref().map(|claims| claims.as_ref().map_err(TokenError::body)).transpose()
    }

    /// # Errors
    /// `unauthorized` without a good token, `forbidden` for one of another role.
    pub(crate) fn is_service(&self) -> Result<&Claims, ErrorBody> {
        match self.claims()? {
            None => Err(ErrorBody::new(ErrorCode::Unauthorized, "a service token is needed")),
            Some(claims) if claims.role != Role::Service => {
                Err(ErrorBody::new(ErrorCode::Forbidden, "only a service token may do this"))
            }
            Some(claims) => Ok(claims),
        }
    }
}

/// Knows tokens, and what each asked for lately.
pub(crate) struct Gate {
    verifier: Verifier,
    trusted: TrustedProxies,
    addresses: Rates<IpAddr>,
    users: Rates<UserId>,
    metrics: Metrics,
}

impl Gate {
    pub(crate) fn new(
        verifier: Verifier,
        limits: RequestLimits,
        trusted: TrustedProxies,
        metrics: Metrics,
    ) -> Self {
        Self {
            verifier,
            trusted,
            addresses: Rates::new(limits.per_s, limits.burst),
            users: Rates::new(limits.user_per_s, limits.user_burst),
            metrics,
        }
    }

    /// Takes so many tokens of who asks.
    ///
    /// # Errors
    /// `rate_limited`, with when to come again.
    pub(crate) fn charge(&self, asker: &Asker, cost: u32) -> Result<(), ErrorBody> {
        if asker.may_do_everything() {
            return Ok(());
        }
        let refuse = |by: Limited| {
            move |retry_after_ms| {
                self.metrics.limited(by);
                let whose = if by == Limited::Address { "of this address" } else { "of this user" };
                let error = ErrorBody::new(ErrorCode::RateLimited, format!("too many requests {whose}"));
                error.retry_after(retry_after_ms)
            }
        };
        if let Some(address) = &asker.address {
            self.addresses.take(address, cost).map_err(refuse(Limited::Address))?;
        }
        if let Some(Ok(claims)) = &asker.claims {
            self.users.take(&claims.sub, cost).map_err(refuse(Limited::User))?;
        }
        Ok(())
    }

    fn asker<B>(&self, request: &Request<B>) -> Asker {
        let client = request.extensions().get::<ClientAddr>().filter(|client| !self.trusted.exempts(client));
        let address = client.map(|client| network_of(client.ip));
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let token = tokens::from_authorization(request.headers());
        Asker { address, claims: token.map(|token| self.verifier.verify(token, now_s)) }
    }

    fn admit<B>(&self, request: &Request<B>) -> Result<Asker, ErrorBody> {
        let asker = self.asker(request);
        self.charge(&asker, 1)?;
        Ok(asker)
    }
}

/// The routes behind it.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    pub gate: Arc<Gate>,
    pub routes: S,
}

impl<S> Service<Request<Incoming>> for Gated<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        match self.gate.admit(&request) {
            Ok(asker) => {
                request.extensions_mut().insert(Arc::new(asker));
                Either::Left(self.routes.call(request))
            }
            // A page of any origin is to see what it is told.
            Err(error) => Either::Right(ready(Ok(cors::for_any_origin(reply::error(&error))))),
        }
    }
}
