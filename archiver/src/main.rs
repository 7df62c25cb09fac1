//! The program `archiver`: the environment in, one [`Archiver`] until a signal comes.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use prometheus::process_collector::ProcessCollector;
use roost_archiver::{Archiver, Settings, Starting};
use roost_backend::kafka::KafkaLog;
use roost_backend::postgres::PostgresArchive;
use roost_service::about::KAFKA_BROKERS;
use roost_service::config::environment;
use roost_service::{About, Signals, Variable, open, telemetry};
use tokio::net::TcpListener;

const ABOUT: About = About {
    name: "archiver",
    does: "An archiver of a Roost cluster: keeps what is in Kafka in PostgreSQL, and answers for the past.",
    variables: &[
        Variable::new("DATABASE_URL", "required", "postgres://user:password@host:5432/database"),
        KAFKA_BROKERS,
        Variable::new("LISTEN_ADDR", "127.0.0.1:7310", "the public listener"),
        Variable::new("ADMIN_ADDR", "127.0.0.1:7410", "health and metrics, not for the public"),
        Variable::new("ARCHIVE_RETENTION_DAYS", "0", "what is older is removed; 0 keeps everything"),
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
    let mut leaving = pin!(signals.first());
    // From the first moment: another archiver may be at the schema for minutes, and whoever asks must not take this one
    // for dead.
    let starting = Starting::serve(admin)?;
    let archiver = tokio::select! {
        started = start(&settings, starting, public) => started?,
        signal = &mut leaving => {
            tracing::info!(signal, "leaving before it began");
            return Ok(());
        }
    };
    archiver.registry().register(Box::new(ProcessCollector::for_self()))?;
    tracing::info!(addr = %archiver.addr(), admin = %archiver.admin_addr(), "serving");

    tokio::select! {
        signal = &mut leaving => tracing::info!(signal, "leaving"),
        // In order it would need the part that is gone (decision 17).
        bug = archiver.join() => return Err(bug.into()),
    }
    archiver.shutdown(settings.common.shutdown_grace).await;
    Ok(())
}

/// Reaches the database and the log.
async fn start(settings: &Settings, starting: Starting, public: TcpListener) -> anyhow::Result<Archiver> {
    let health = starting.health().clone();
    let told = move |waits: &str| health.set("database", Err(waits.to_owned()));
    let archive = PostgresArchive::connect_telling(settings.database_url.expose(), told).await;
    let archive = archive.map_err(|error| match settings.blame_database(&error) {
        Some(blamed) => blamed.into(),
        None => anyhow::Error::from(error).context("PostgreSQL"),
    })?;
    let log = KafkaLog::connect(settings.kafka.clone()).await.context("Kafka")?;
    let bound = starting.bind(settings.archiver.clone(), Arc::new(log), Arc::new(archive), public).await;
    bound.map_err(|error| settings.blame(&error).map_or_else(|| error.into(), anyhow::Error::from))
}
