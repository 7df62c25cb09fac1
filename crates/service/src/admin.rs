//! The routes of the admin port: `/healthz` (the process runs), `/readyz` (it can do its work), `/metrics`.
//!
//! What "ready" depends on is told by those who know, through [`Health`]; nothing is probed here, so a scrape
//! costs no back end anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use http::StatusCode;
use prometheus::{Encoder, Registry, TextEncoder};
use roost_proto::{ErrorBody, ErrorCode};
use serde::Serialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::{panics, reply};

/// On a request to an admin port: the life of the node that is meant. Another one refuses it.
pub const SID_HEADER: &str = "roost-sid";

/// Whether an admin address means "this machine" wherever it is read (`0.0.0.0:7401`): nobody else can use it.
pub fn is_unspecified(addr: &str) -> bool {
    addr.parse::<SocketAddr>().is_ok_and(|addr| addr.ip().to_canonical().is_unspecified())
}

/// What one process depends on, as last seen; a cheap handle that all who know something share.
#[derive(Debug, Clone)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    checks: RwLock<BTreeMap<String, Result<(), String>>>,
    draining: AtomicBool,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub draining: bool,
    pub checks: BTreeMap<String, Check>,
}

/// One dependency, as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Health {
    /// Not ready until each of `names` has been [`set`](Self::set): a program that has just started and has
    /// reached nothing yet must not be sent work.
    pub fn new(names: &[&str]) -> Self {
        let checks = names.iter().map(|name| ((*name).to_owned(), Err("not reached yet".to_owned())));
        Self(Arc::new(State { checks: RwLock::new(checks.collect()), draining: AtomicBool::new(false) }))
    }

    /// Notes how `name` is. The error text is public to whoever reaches the admin port: no secrets in it.
    pub fn set(&self, name: &str, outcome: Result<(), String>) {
        let mut checks = self.0.checks.write().unwrap_or_else(PoisonError::into_inner);
        let before = checks.insert(name.to_owned(), outcome.clone());
        drop(checks);
        // Logged on change alone: checks repeat every second or so.
        match (before.is_none_or(|before| before.is_ok()), outcome) {
            (true, Err(error)) => tracing::warn!(name, error, "not ready"),
            (false, Ok(())) => tracing::info!(name, "ready"),
            _ => {}
        }
    }

    /// How `name` was last seen; `None` if nobody ever spoke of it.
    pub fn get(&self, name: &str) -> Option<Result<(), String>> {
        self.0.checks.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Says that the process is leaving: `/readyz` is 503 from now on, the first step of every shutdown.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// It stays after all.
    pub fn undrain(&self) {
        self.0.draining.store(false, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Everything at once, as `/readyz` shows it.
    pub fn readiness(&self) -> Readiness {
        let draining = self.is_draining();
        let checks: BTreeMap<String, Check> = {
            let checks = self.0.checks.read().unwrap_or_else(PoisonError::into_inner);
            let shown = |outcome: &Result<(), String>| Check {
                ok: outcome.is_ok(),
                error: outcome.as_ref().err().cloned(),
            };
            checks.iter().map(|(name, outcome)| (name.clone(), shown(outcome))).collect()
        };
        Readiness { ready: !draining && checks.values().all(|check| check.ok), draining, checks }
    }
}

/// `/healthz`, `/readyz` and `/metrics` of one server.
///
/// Unknown paths are left as rejections, so that a program may put routes of its own beside these; end with
/// [`reply::recover`].
pub fn routes(health: Health, registry: Registry) -> BoxedFilter<(Response,)> {
    // It may be there already: all servers of a process count together.
    let _ = panics::register(&registry);
    let healthz = warp::path!("healthz").map(|| reply::ok(&serde_json::json!({"alive": true})));
    let readyz = warp::path!("readyz").map(move || {
        let readiness = health.readiness();
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        reply::json(status, &readiness)
    });
    let metrics = warp::path!("metrics").map(move || metrics(&registry));
    warp::get().and(healthz.or(readyz).unify().or(metrics).unify()).boxed()
}

fn metrics(registry: &Registry) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => reply::with_type(StatusCode::OK, prometheus::TEXT_FORMAT, text),
        Err(failure) => {
            tracing::error!(%failure, "the metrics could not be written");
            reply::error(&ErrorBody::new(ErrorCode::Internal, "the metrics could not be written"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_named_check_and_no_drain() {
        let health = Health::new(&["redis", "kafka"]);
        assert!(!health.readiness().ready);
        health.set("redis", Ok(()));
        assert!(!health.readiness().ready);
        health.set("kafka", Ok(()));
        assert!(health.readiness().ready);
        let elsewhere = health.clone();
        elsewhere.set("kafka", Err("no broker".into()));
        assert_eq!(health.get("kafka"), Some(Err("no broker".into())));
        assert_eq!(health.get("postgres"), None);
        assert!(!health.readiness().ready);
        health.set("kafka", Ok(()));
        health.drain();
        assert!(!health.readiness().ready && health.readiness().draining);
    }
}
