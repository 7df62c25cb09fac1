//! The tasks of one server, and the order in which they end.

use std::future::Future;
use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use warp::Filter;

use crate::panics::named;
use crate::{Health, HttpLimits, HttpMetrics, admin, reply, serve};

/// A panic drops what its task had, and whoever waits for that ends too and may be seen first: so long the panic is
/// awaited. It comes within microseconds, and on a machine that is too busy within moments.
const CAUSE_WITHIN: Duration = Duration::from_secs(1);

/// A task ended though nobody asked for it: a bug. The rest still runs. A program ends with
/// [`EXIT_BUG`](crate::panics::EXIT_BUG).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnded {
    #[error("the task '{0}' ended by itself")]
    Returned(&'static str),
    #[error("the task '{0}' panicked")]
    Panicked(&'static str),
}

/// The tasks of one server; dropped without [`Tasks::shutdown`] they stop at once, as in a crash.
#[derive(Debug)]
pub struct Tasks {
    /// Ends everything but the admin port.
    stop: CancellationToken,
    /// Ends the admin port, and `stop` with it.
    stop_all: CancellationToken,
    tasks: JoinSet<()>,
    /// Of connections and [`Jobs`].
    tracker: TaskTracker,
    ended: Ended,
    _drop: DropGuard,
}

impl Default for Tasks {
    fn default() -> Self {
        let stop_all = CancellationToken::new();
        Self {
            stop: stop_all.child_token(),
            tasks: JoinSet::new(),
            tracker: TaskTracker::new(),
            ended: Ended::default(),
            _drop: stop_all.clone().drop_guard(),
            stop_all,
        }
    }
}

/// The first of the tasks that ended, or broke.
#[derive(Debug, Clone, Default)]
struct Ended(watch::Sender<Option<TaskEnded>>);

impl Ended {
    fn tell(&self, how: TaskEnded) {
        self.0.send_if_modified(|known| {
            let news = match known {
                None => true,
                Some(TaskEnded::Returned(_)) => matches!(how, TaskEnded::Panicked(_)),
                Some(TaskEnded::Panicked(_)) => false,
            };
            if news {
                *known = Some(how);
            }
            news
        });
    }
}

impl Tasks {
    /// Cancelled when everything but the admin port is to end.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// For the connections of a listener, which a shutdown waits for. Each is guarded by itself.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Starts a task that runs until [`Tasks::stop`].
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            let how = match named(name, task).await {
                Ok(()) => TaskEnded::Returned(name),
                Err(_) => TaskEnded::Panicked(name),
            };
            ended.tell(how);
        });
    }

    /// For work that ends by itself; `name` is of all that is started with it.
    pub fn jobs(&self, name: &'static str) -> Jobs {
        Jobs { name, tracker: self.tracker.clone(), ended: self.ended.clone() }
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
    pub async fn join(&self) -> TaskEnded {
        let mut ended = self.ended.0.subscribe();
        let mut told = async |is: fn(TaskEnded) -> bool| {
            let told = ended.wait_for(|known| known.is_some_and(is)).await.map(|known| *known);
            told.ok().flatten().expect("the sender is `self`'s")
        };
        let first = told(|_| true).await;
        let panicked = timeout(CAUSE_WITHIN, told(|how| matches!(how, TaskEnded::Panicked(_))));
        panicked.await.unwrap_or(first)
    }

    /// The one that ended, if one has.
    pub fn failed(&self) -> Option<TaskEnded> {
        *self.ended.0.borrow()
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

    /// Waits until all have ended, connections and jobs with them: for a server that has an order of its own, and has
    /// asked all of them to end.
    pub async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Starts short-lived tasks: a server may have thousands, and that one ends is no news. That one panics is: somebody
/// waits for its answer, for ever.
#[derive(Debug, Clone)]
pub struct Jobs {
    name: &'static str,
    tracker: TaskTracker,
    ended: Ended,
}

impl Jobs {
    pub fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        let (name, ended) = (self.name, self.ended.clone());
        self.tracker.spawn(async move {
            if named(name, job).await.is_err() {
                ended.tell(TaskEnded::Panicked(name));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_named_and_how_it_ended() {
        let mut tasks = Tasks::default();
        tasks.spawn("well", pending());
        assert_eq!(tasks.failed(), None);
        tasks.spawn("reader", async {});
        assert_eq!(tasks.join().await, TaskEnded::Returned("reader"));
        assert_eq!(tasks.failed(), Some(TaskEnded::Returned("reader")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_task_that_panics_is_named_and_not_those_that_end_with_it() {
        let mut tasks = Tasks::default();
        let (feed, mut fed) = mpsc::channel::<()>(1);
        tasks.spawn("dependent", async move { assert_eq!(fed.recv().await, None) });
        tasks.spawn("broken", async move {
            let _feed = feed;
            tokio::task::yield_now().await;
            panic!("on purpose");
        });
        assert_eq!(tasks.join().await, TaskEnded::Panicked("broken"));
    }

    #[tokio::test]
    async fn a_job_may_end_but_not_panic() {
        let tasks = Tasks::default();
        let (well, broken) = (tasks.jobs("well"), tasks.jobs("question"));
        let (done, mut ends) = mpsc::channel(1);
        well.spawn(async move { done.send(()).await.expect("the test waits") });
        assert_eq!(ends.recv().await, Some(()));
        while !tasks.tracker().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(tasks.failed(), None);
        broken.spawn(async { panic!("on purpose") });
        assert_eq!(tasks.join().await, TaskEnded::Panicked("question"));
    }
}
