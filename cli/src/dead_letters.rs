//! `roost dead-letters`: records that an archiver could not keep.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::ask::Archiver;
use crate::out::{note, say};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print them, newest first: id, place, reason, and what is in them
    List {
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Where an earlier list ended
        #[arg(long)]
        before: Option<u64>,
        #[command(flatten)]
        archiver: Archiver,
    },
    /// Try again to archive them
    Replay {
        #[arg(required = true)]
        ids: Vec<u64>,
        #[command(flatten)]
        archiver: Archiver,
    },
    /// Remove them for good
    Discard {
        #[arg(required = true)]
        ids: Vec<u64>,
        #[command(flatten)]
        archiver: Archiver,
    },
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { limit, before, archiver } => list(limit, before, &archiver).await,
        Command::Replay { ids, archiver } => change("replay", &ids, &archiver).await,
        Command::Discard { ids, archiver } => change("discard", &ids, &archiver).await,
    }
}

async fn list(limit: usize, before: Option<u64>, archiver: &Archiver) -> anyhow::Result<()> {
    let before = before.map(|id| format!("&before={id}")).unwrap_or_default();
    let path = format!("/api/dead-letters?limit={limit}{before}");
    let page = archiver.operate(Method::GET, &path, None).await?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for letter in page["dead_letters"].as_array().into_iter().flatten() {
        say!(
            "{} {} {}/{}/{}: {}",
            letter["id"],
            text(&letter["at"]),
            text(&letter["topic"]),
            letter["partition"],
            letter["offset"],
            text(&letter["reason"])
        );
        say!("    {}", letter["payload"].get("text").map_or_else(|| letter["payload"].to_string(), text));
    }
    if let Some(before) = page["before"].as_str() {
        note!("# there are more: --before {before}");
    }
    Ok(())
}

async fn change(what: &str, ids: &[u64], archiver: &Archiver) -> anyhow::Result<()> {
    let path = format!("/api/dead-letters/{what}");
    let answer = archiver.operate(Method::POST, &path, Some(&json!({"ids": ids}))).await?;
    for result in answer["results"].as_array().into_iter().flatten() {
        let reason = result["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        say!("{} {}{reason}", result["id"], result["result"].as_str().unwrap_or_default());
    }
    Ok(())
}
