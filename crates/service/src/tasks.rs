//! The tasks of one server, and the order in which they end.

use std::future::Future;
use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use warp::Filter;

use crate::{Health, HttpLimits, HttpMetrics, admin, reply, serve};

/// A task ended though nobody asked for it: a bug. The rest still runs.
#[derive(Debug, thiserror::Error)]
#[error("the task '{task}' ended by itself")]
pub struct TaskEnded {
    pub task: &'static str,
}

/// The tasks of one server; dropped without [`Tasks::shutdown`] they stop at once, as in a crash.
#[derive(Debug)]
pub struct Tasks {
    /// Ends everything but the admin port.
    stop: CancellationToken,
    /// Ends the admin port, and `stop` with it.
    stop_all: CancellationToken,
    tasks: JoinSet<&'static str>,
    /// Of the connections.
    tracker: TaskTracker,
    _drop: DropGuard,
}

impl Default for Tasks {
    fn default() -> Self {
        let stop_all = CancellationToken::new();
        Self {
            stop: stop_all.child_token(),
            tasks: JoinSet::new(),
            tracker: TaskTracker::new(),
            _drop: stop_all.clone().drop_guard(),
            stop_all,
        }
    }
}

impl Tasks {
    /// Cancelled when everything but the admin port is to end.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// For the connections of a listener, which a shutdown waits for.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Starts a task that runs until [`Tasks::stop`].
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Serves health and metrics until everything else has ended.
    pub fn serve_admin(
        &mut self,
        listener: TcpListener,
        health: Health,
        registry: Registry,
        metrics: HttpMetrics,
    ) {
        let api = warp::service(admin::routes(health, registry).recover(reply::recover).unify());
        let stop = self.stop_all.clone();
        let serving = serve(listener, api, HttpLimits::admin(), metrics, stop, &self.tracker);
        self.spawn("admin", serving);
    }

    /// Waits until one of them ends, which none should. Cancel safe.
    pub async fn join(&mut self) -> TaskEnded {
        match self.tasks.join_next().await {
            Some(Ok(task)) => TaskEnded { task },
            Some(Err(failure)) => {
                tracing::error!(%failure, "a task broke");
                TaskEnded { task: "(broken)" }
            }
            None => TaskEnded { task: "(all)" },
        }
    }

    /// Ends them in order, within `grace`: `/readyz` says 503, everything but the admin port ends, running requests
    /// finish, the admin port closes last.
    pub async fn shutdown(mut self, health: &Health, grace: Duration) {
        let deadline = Instant::now() + grace;
        health.drain();
        self.stop.cancel();
        // All but the admin port.
        while self.tasks.len() > 1 && timeout_at(deadline, self.tasks.join_next()).await.is_ok() {}
        self.stop_all.cancel();
        while let Ok(Some(_)) = timeout_at(deadline, self.tasks.join_next()).await {}
        self.tracker.close();
        let cut = self.tasks.len() + self.tracker.len();
        if cut > 0 {
            tracing::warn!(cut, "the grace is over: what still runs is cut");
        }
        self.tasks.abort_all();
    }
}
