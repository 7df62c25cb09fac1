//! `roost disconnect` and `roost history`: the server API from the command line.

use reqwest::Method;
use roost_proto::history::encoded;
use roost_proto::{StreamId, UserId};
use serde_json::json;

use crate::ask::Coordinator;

#[derive(clap::Args)]
pub struct DisconnectArgs {
    user: UserId,
    /// What its clients are told
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    coordinator: Coordinator,
}

#[derive(clap::Args)]
pub struct HistoryArgs {
    /// Such as user:bob or room:lobby
    stream: StreamId,
    /// Messages at most
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Where an earlier page ended
    #[arg(long)]
    before: Option<String>,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub async fn disconnect(args: DisconnectArgs) -> anyhow::Result<()> {
    let mut body = json!({"user": args.user});
    if let Some(reason) = args.reason {
        body["reason"] = json!(reason);
    }
    args.coordinator.command("disconnect", &body).await?;
    println!("every node was told to close the sessions of {}", args.user);
    Ok(())
}

/// Oldest first, as it is read.
pub async fn history(args: HistoryArgs) -> anyhow::Result<()> {
    let mut path = format!("/api/history?stream={}&limit={}", encoded(args.stream.as_str()), args.limit);
    if let Some(before) = &args.before {
        path.push_str(&format!("&before={}", encoded(before)));
    }
    let page = args.coordinator.operate(Method::GET, &path).await?["ok"].take();
    for message in page["messages"].as_array().into_iter().flatten().rev() {
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        println!("{} {} {}: {}", text("at"), message["offset"], text("from"), message["data"]);
    }
    if let Some(before) = page["before"].as_str() {
        eprintln!("# there is more: --before {before}");
    } else if page["older"] == true {
        eprintln!("# older messages have left the hot window");
    }
    Ok(())
}
