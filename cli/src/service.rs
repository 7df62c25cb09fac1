//! `roost disconnect` and `roost history`: the server API from the command line.

use reqwest::Method;
use roost_proto::history::encoded;
use roost_proto::{Json, StreamId, UserId};
use serde::Deserialize;
use serde_json::json;

use crate::ask::Coordinator;
use crate::out::{note, say};

#[derive(clap::Args)]
pub(crate) struct DisconnectArgs {
    user: UserId,
    /// What its clients are told
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    coordinator: Coordinator,
}

#[derive(clap::Args)]
pub(crate) struct HistoryArgs {
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

pub(crate) async fn disconnect(args: DisconnectArgs) -> anyhow::Result<()> {
    let mut body = json!({"user": args.user});
    if let Some(reason) = args.reason {
        body["reason"] = json!(reason);
    }
    args.coordinator.command("disconnect", &body).await?;
    say!("every node was told to close the sessions of {}", args.user);
    Ok(())
}

#[derive(Deserialize)]
struct Answer {
    ok: Page,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Kept>,
    before: Option<String>,
    #[serde(default)]
    older: bool,
}

/// A message, whose payload is shown as it was sent.
#[derive(Deserialize)]
struct Kept {
    at: String,
    offset: u64,
    from: String,
    data: Json,
}

/// Oldest first, as it is read.
pub(crate) async fn history(args: HistoryArgs) -> anyhow::Result<()> {
    let mut path = format!("/api/history?stream={}&limit={}", encoded(args.stream.as_str()), args.limit);
    if let Some(before) = &args.before {
        path.push_str(&format!("&before={}", encoded(before)));
    }
    let Answer { ok: page } = args.coordinator.operate(Method::GET, &path).await?;
    for Kept { at, offset, from, data } in page.messages.iter().rev() {
        say!("{at} {offset} {from}: {}", data.get());
    }
    if let Some(before) = page.before {
        note!("# there is more: --before {before}");
    } else if page.older {
        note!("# older messages have left the hot window");
    }
    Ok(())
}
