//! The chaos run and its checker; `scripts/chaos` starts it with services of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use roost_tests::chaos::options::{Options, USAGE};
use roost_tests::chaos::{archive, bystanders, check, leaderless, load, measure, runner, storm};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // Whoever stops a run does not want to look for its processes: they end with what is dropped here.
    tokio::select! {
        done = command() => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn command() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    match command.as_str() {
        "run" => {
            let options = Options::parse(args)?;
            runner::run(&options).await?;
            judge(&options.out)
        }
        "failover" => measure::failover(&Options::parse(args)?).await,
        "drain" => measure::drain(&Options::parse(args)?).await,
        // A part of the storm.
        "crowd" => load::crowd(args.next().context(USAGE)?).await,
        "storm" => storm::storm(&Options::parse(args)?).await,
        "leaderless" => leaderless::leaderless(&Options::parse(args)?).await,
        "archive" => archive::archive(&Options::parse(args)?).await,
        "bystanders" => bystanders::bystanders(&Options::parse(args)?).await,
        "check" => judge(&args.next().map(PathBuf::from).context(USAGE)?),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(64);
        }
    }
}

/// Prints the verdict, and leaves it in the directory.
fn judge(dir: &Path) -> anyhow::Result<()> {
    let verdict = check::check(dir)?;
    std::fs::write(dir.join("table.md"), verdict.markdown())?;
    std::fs::write(dir.join("flaws.txt"), verdict.flaws.join("\n"))?;
    println!("{}", verdict.text());
    ensure!(verdict.flaws.is_empty(), "promises were broken: {}", dir.join("flaws.txt").display());
    Ok(())
}
