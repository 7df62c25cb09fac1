//! The program `ws-node`: the environment in, one [`Server`] until a signal comes.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use prometheus::process_collector::ProcessCollector;
use roost_backend::kafka::KafkaLog;
use roost_backend::redis::RedisStore;
use roost_service::about::{KAFKA_BROKERS, REDIS_URL};
use roost_service::config::environment;
use roost_service::{About, Signals, Variable, open, telemetry};
use roost_ws_node::{Backends, BindError, Ended, Ports, Server, Settings};

const ABOUT: About = About {
    name: "ws-node",
    does: "A node of a Roost cluster: holds the WebSockets of the users at home here, their messages and presence.",
    variables: &[
        Variable::new("NODE_ID", "required", "a stable name such as ws-1"),
        REDIS_URL,
        KAFKA_BROKERS,
        Variable::new("LISTEN_ADDR", "127.0.0.1:7301", "the public listener"),
        Variable::new("ADMIN_ADDR", "127.0.0.1:7401", "health and metrics, not for the public"),
        Variable::new(
            "PUBLIC_URL",
            "LISTEN_ADDR",
            "what clients dial, such as wss://chat.example.com/socket",
        ),
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
        .map_err(|error| blamed(&settings, BindError::Store(error)))?;
    let log = KafkaLog::connect(settings.kafka.clone()).await.context("Kafka")?;
    let backends = Backends { store: Arc::new(store), log: Arc::new(log) };
    let bound = Server::bind(settings.node.clone(), backends, Ports { public, admin }).await;
    let mut server = bound.map_err(|error| blamed(&settings, error))?;
    server.registry().register(Box::new(ProcessCollector::for_self()))?;
    tracing::info!(node = %server.node(), url = server.url(), admin = %server.admin_addr(), "serving");

    let ended = tokio::select! {
        signal = signals.first() => {
            tracing::info!(signal, "leaving");
            Ok(())
        }
        ended = server.join() => match ended {
            // In order it would need the part that is gone (decision 17).
            bug @ Ended::Bug(_) => return Err(bug.into()),
            ended => Err(ended),
        },
    };
    server.shutdown(settings.common.shutdown_grace).await;
    Ok(ended?)
}

/// As an error of configuration if it is one, so that the exit code says so.
fn blamed(settings: &Settings, error: BindError) -> anyhow::Error {
    settings.blame(&error).map_or_else(|| error.into(), anyhow::Error::from)
}
