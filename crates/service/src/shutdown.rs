//! How a program begins and ends: its ports, signals, and what its exit code says. Only binaries use this.

use std::fmt::Arguments;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::TaskEnded;
use crate::config::{ConfigError, environment};
use crate::panics::{self, EXIT_BUG};

/// Wrong configuration: `EX_USAGE` of `sysexits.h`, so that a supervisor can tell it from a crash and not loop.
pub const EXIT_CONFIG: u8 = 64;
/// Anything else that kept the program from doing its work.
pub const EXIT_FAILURE: u8 = 1;
/// A second signal: 128 + SIGINT, as shells do.
pub const EXIT_IMPATIENT: i32 = 130;
/// How long tasks that nobody waited for may hold up the end. They should be none: each hangs on a handle.
const LEFTOVERS_WITHIN: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT, caught from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to catch them; inside a runtime, and before anything worth an orderly end is started.
    ///
    /// # Errors
    /// If the system refuses the handler.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first one and returns its name. From then on a second one ends the process at once with
    /// [`EXIT_IMPATIENT`]: whoever asks twice does not want to wait for the grace.
    pub async fn first(mut self) -> &'static str {
        let name = self.next().await;
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!(signal = name, "second signal: leaving at once");
            std::process::exit(EXIT_IMPATIENT);
        });
        name
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Opens the port that the variable `name` gives.
///
/// # Errors
/// If it cannot be had; the variable is named.
pub fn open(name: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    crate::listen(addr).with_context(|| format!("{name} {addr}"))
}

/// Runs a program's `main` on a runtime of its own and turns its end into an exit code: 0, [`EXIT_CONFIG`] with
/// exactly one line on standard error, [`EXIT_BUG`] after a [`TaskEnded`], which is logged, or 1 with the chain of
/// causes.
///
/// A [`ConfigError`] or [`TaskEnded`] is found wherever it is in that chain; an error type that wraps one as
/// `#[error(transparent)]` hides it.
pub fn run_main<F, Fut>(name: &str, main: F) -> ExitCode
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    ExitCode::from(run(name, main))
}

/// The same, with the exit code as a number.
pub fn run<F, Fut>(name: &str, main: F) -> u8
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    panics::install();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(failure) => {
            tell(format_args!("{name}: cannot start the runtime: {failure}"));
            return EXIT_FAILURE;
        }
    };
    let outcome = runtime.block_on(main());
    runtime.shutdown_timeout(LEFTOVERS_WITHIN);
    match outcome {
        Ok(()) => 0,
        Err(failure) => report(name, &failure),
    }
}

fn report(name: &str, failure: &anyhow::Error) -> u8 {
    if let Some(wrong) = failure.chain().find_map(|cause| cause.downcast_ref::<ConfigError>()) {
        tell(format_args!("{name}: {}", wrong.clone().as_written(&environment())));
        return EXIT_CONFIG;
    }
    if failure.chain().any(|cause| cause.is::<TaskEnded>()) {
        // Where panics are told, too.
        if tracing::dispatcher::has_been_set() {
            tracing::error!(why = format!("{failure:#}"), ends = "the process", "a bug");
        } else {
            tell(format_args!("{name}: a bug: {failure:#}"));
        }
        return EXIT_BUG;
    }
    tell(format_args!("{name}: {failure:#}"));
    EXIT_FAILURE
}

/// The last words: the exit code says the same, so it does not matter if nobody reads them any more.
fn tell(words: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{words}");
}
