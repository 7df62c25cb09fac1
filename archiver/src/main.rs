//! The program `archiver`: the environment in, one [`Archiver`] until a signal comes.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use prometheus::process_collector::ProcessCollector;
use roost_archiver::{Archiver, Settings};
use roost_backend::kafka::KafkaLog;
use roost_backend::postgres::PostgresArchive;
use roost_service::config::environment;
use roost_service::{Signals, open, run_main, telemetry};

fn main() -> ExitCode {
    run_main("archiver", run)
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_vars(environment())?;
    telemetry::init(settings.common.log_format, &settings.common.log_filter)?;
    settings.common.warn();
    let signals = Signals::install()?;
    let public = open("LISTEN_ADDR", settings.common.listen_addr)?;
    let admin = open("ADMIN_ADDR", settings.common.admin_addr)?;
    let archive = PostgresArchive::connect(settings.database_url.expose()).await;
    let archive = archive.map_err(|error| match settings.blame_database(&error) {
        Some(blamed) => blamed.into(),
        None => anyhow::Error::from(error).context("PostgreSQL"),
    })?;
    let log = KafkaLog::connect(settings.kafka.clone()).await.context("Kafka")?;
    let bound =
        Archiver::bind(settings.archiver.clone(), Arc::new(log), Arc::new(archive), public, admin).await;
    let mut archiver =
        bound.map_err(|error| settings.blame(&error).map_or_else(|| error.into(), anyhow::Error::from))?;
    archiver.registry().register(Box::new(ProcessCollector::for_self()))?;
    tracing::info!(addr = %archiver.addr(), admin = %archiver.admin_addr(), "serving");

    let ended = tokio::select! {
        signal = signals.first() => {
            tracing::info!(signal, "leaving");
            Ok(())
        }
        ended = archiver.join() => Err(ended),
    };
    archiver.shutdown(settings.common.shutdown_grace).await;
    Ok(ended?)
}
