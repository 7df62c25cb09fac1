//! The program `coordinator`: the environment in, one [`Coordinator`] until a signal comes.

use std::process::ExitCode;
use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use roost_backend::redis::RedisStore;
use roost_backend::store::StoreError;
use roost_coordinator::config::Settings;
use roost_coordinator::{BindError, Coordinator};
use roost_service::about::REDIS_URL;
use roost_service::config::environment;
use roost_service::{About, Signals, Variable, open, telemetry};

const ABOUT: About = About {
    name: "coordinator",
    does: "A coordinator of a Roost cluster: tells clients where a user is at home, and one of them plans who owns what.",
    variables: &[
        REDIS_URL,
        Variable::new("LISTEN_ADDR", "127.0.0.1:7300", "the public listener"),
        Variable::new("ADMIN_ADDR", "127.0.0.1:7400", "health and metrics, not for the public"),
        Variable::new("CONSOLE", "false", "true: a console at /console"),
        Variable::new("OPEN_PRESENCE", "false", "true: /presence answers without a token"),
    ],
};

fn main() -> ExitCode {
    ABOUT.run_main(run)
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_vars(environment())?;
    telemetry::init(settings.common.log_format, &settings.common.log_filter)?;
    settings.common.warn();
    let signals = Signals::install()?;
    let public = open("LISTEN_ADDR", settings.common.listen_addr)?;
    let admin = open("ADMIN_ADDR", settings.common.admin_addr)?;
    let store = RedisStore::connect(settings.redis_url.expose(), settings.store())
        .await
        .map_err(|error| blamed(&settings, error).context("Redis"))?;
    let bound = Coordinator::bind(settings.coordinator.clone(), Arc::new(store), public, admin).await;
    let coordinator = bound.map_err(|error| match error {
        BindError::Store(error) => blamed(&settings, error).context("the ring"),
        other => other.into(),
    })?;
    coordinator.registry().register(Box::new(ProcessCollector::for_self()))?;
    tracing::info!(addr = %coordinator.addr(), admin = %coordinator.admin_addr(), "serving");

    tokio::select! {
        signal = signals.first() => tracing::info!(signal, "leaving"),
        // In order it would need the part that is gone (decision 17).
        bug = coordinator.join() => return Err(bug.into()),
    }
    coordinator.shutdown(settings.common.shutdown_grace).await;
    Ok(())
}

/// As an error of configuration if it is one, so that the exit code says so.
fn blamed(settings: &Settings, error: StoreError) -> anyhow::Error {
    settings.blame(&error).map_or_else(|| error.into(), anyhow::Error::from)
}
