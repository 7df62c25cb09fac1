//! What becomes of a bug that panics: it is counted and logged, and never an empty answer.
//!
//! In a request it is `500 internal`, in a connection's task the end of that connection: these run [`guarded`].
//! Anywhere else a task that others rely on is gone, and they would wait for it for ever: the process ends, as if it had
//! been killed, and what promises hold for that case do. Tasks of [`Tasks`](crate::Tasks) are named in the log.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::{Pin, pin};
use std::process;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use prometheus::{IntCounter, Registry};

/// The exit code of a program that ends by a bug of its own (`EX_SOFTWARE`, sysexits.h).
pub const EXIT_BUG: u8 = 70;

static PANICS: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Bugs that ended a request, a connection or the process; any is one too many";
    IntCounter::new("roost_panics_total", help).expect("a name and a help of our own")
});

/// The work that a thread is at, which a panic of it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Unknown,
    /// A request's or a connection's.
    Guarded,
    Task(&'static str),
}

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work::Unknown) };
}

/// What ran [`guarded`], or as a task, panicked; it was counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bug in the server")]
pub struct Panicked;

/// Shows how many there were. All servers of a process count together.
///
/// # Errors
/// If the registry has it already.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(PANICS.clone()))
}

/// From now on panics are counted and logged, and one that is not [`guarded`] ends the process. For programs: a test
/// or a library keeps the hook that it has.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let work = WORK.get();
        count(info, work);
        if work != Work::Guarded {
            process::exit(EXIT_BUG.into());
        }
    }));
}

fn count(info: &PanicHookInfo<'_>, work: Work) {
    PANICS.inc();
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let why = text(info.payload());
    let ends = if work == Work::Guarded { "a request or a connection" } else { "the process" };
    let task = if let Work::Task(task) = work { Some(task) } else { None };
    if tracing::dispatcher::has_been_set() {
        tracing::error!(at, why, task, ends, "a bug");
    } else {
        let of = task.map(|task| format!(" in the task '{task}'")).unwrap_or_default();
        eprintln!("a bug at {at}{of}: {why}");
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// Runs `work` so that a panic of it is an error, and of nobody else's.
///
/// # Errors
/// [`Panicked`].
pub async fn guarded<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    Caught { what: Work::Guarded, work: pin!(work) }.await
}

/// Runs `work` as the task of this name. Under the hook of a program a panic of it ends the process and is not seen
/// here.
///
/// # Errors
/// [`Panicked`].
pub(crate) async fn named<T>(task: &'static str, work: impl Future<Output = T>) -> Result<T, Panicked> {
    Caught { what: Work::Task(task), work: pin!(work) }.await
}

struct Caught<'a, F> {
    what: Work,
    work: Pin<&'a mut F>,
}

impl<F: Future> Future for Caught<'_, F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // One may be polled within another.
        let before = WORK.replace(self.what);
        // After a panic the work is not polled again, and what it borrowed is closed or dropped.
        let polled = panic::catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(cx)));
        WORK.set(before);
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_guarded_ends_alone_and_what_was_around_it_goes_on() {
        assert_eq!(guarded(async { 7 }).await, Ok(7));
        let outer = guarded(async {
            let inner = guarded(async {
                tokio::task::yield_now().await;
                panic!("on purpose");
            });
            let inner: Result<(), _> = inner.await;
            assert_eq!(WORK.get(), Work::Guarded, "still within the outer one");
            inner
        });
        assert_eq!(outer.await, Ok(Err(Panicked)));
        assert_eq!(WORK.get(), Work::Unknown);
    }
}
