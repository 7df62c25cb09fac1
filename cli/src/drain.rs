//! `roost drain`: empties a node while it runs. Its process is ended as always, by a signal, when it is empty.

use std::time::Duration;

use anyhow::bail;
use reqwest::Method;
use roost_proto::NodeId;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::ask::Coordinator;
use crate::out::say;

#[derive(clap::Args)]
pub(crate) struct Args {
    node: NodeId,
    /// Let it take vnodes again
    #[arg(long)]
    undo: bool,
    /// How long to wait until it is empty, in seconds; 0: not at all
    #[arg(long, default_value_t = 120)]
    wait: u64,
    #[command(flatten)]
    coordinator: Coordinator,
}

const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let method = if args.undo { Method::DELETE } else { Method::POST };
    args.coordinator.operate::<Value>(method, &format!("/api/nodes/{}/drain", args.node)).await?;
    if args.undo {
        say!("{} takes vnodes again", args.node);
        return Ok(());
    }
    if args.wait == 0 {
        say!("{} is being emptied", args.node);
        return Ok(());
    }
    let (began, mut told) = (Instant::now(), u64::MAX);
    loop {
        let (vnodes, sessions) = left(&args.coordinator.get("/nodes").await?, &args.node);
        if vnodes == 0 && sessions == 0 {
            say!("{} is empty after {:.1?}: end its process when you like", args.node, began.elapsed());
            return Ok(());
        }
        if vnodes != told {
            say!("{} has {vnodes} vnodes and {sessions} sessions left", args.node);
            told = vnodes;
        }
        if began.elapsed().as_secs() >= args.wait {
            bail!("{} is not empty after {} s; it goes on", args.node, args.wait);
        }
        sleep(LOOK_EVERY).await;
    }
}

fn left(nodes: &Value, node: &NodeId) -> (u64, u64) {
    let row = nodes["nodes"].as_array().and_then(|all| all.iter().find(|n| n["node"] == node.as_str()));
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    row.map_or((0, 0), |row| (number(&row["vnodes"]["owned"]), number(&row["load"]["sessions"])))
}
