//! `roost events`, `roost results`, `roost tickets`: the part of the application's processors, played by hand.

use anyhow::{Context, bail};
use clap::Subcommand;
use reqwest::Method;
use roost_proto::history::encoded;
use roost_proto::time::rfc3339;
use roost_proto::{MessageId, UserId};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::ask::Coordinator;
use crate::out::{self, note, say};
use crate::talk::data;

#[derive(clap::Args)]
pub(crate) struct EventsArgs {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Subcommand)]
enum EventsCommand {
    /// Print what clients give to the processors, from now on, until interrupted
    Tail {
        /// Stop after this many
        #[arg(long)]
        count: Option<usize>,
        #[command(flatten)]
        coordinator: Coordinator,
    },
}

#[derive(clap::Args)]
pub(crate) struct ResultsArgs {
    #[command(subcommand)]
    command: ResultsCommand,
}

#[derive(Subcommand)]
enum ResultsCommand {
    /// Answer an event
    Send {
        client: UserId,
        event: MessageId,
        /// JSON, or a text
        #[arg(default_value = "null")]
        data: String,
        #[arg(long = "type", default_value = "event_accepted")]
        kind: String,
        #[arg(long, default_value = "accepted")]
        status: String,
        /// The result's own id: several of one event need different ones
        #[arg(long)]
        id: Option<MessageId>,
        #[command(flatten)]
        coordinator: Coordinator,
    },
}

#[derive(clap::Args)]
pub(crate) struct TicketsArgs {
    /// Only those of one client
    user: Option<UserId>,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub(crate) async fn events(args: EventsArgs) -> anyhow::Result<()> {
    let EventsCommand::Tail { count, coordinator } = args.command;
    let nodes = coordinator.nodes().await?;
    let (_, node) = nodes.first().context("no node is up")?;
    let mut lines = node.stream("/api/events").await?;
    note!("# looking; `roost event` says something");
    let (mut left, mut rest) = (count.unwrap_or(usize::MAX), Vec::new());
    while left > 0 {
        let chunk = tokio::select! {
            chunk = lines.chunk() => chunk?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(chunk) = chunk else { bail!("the node has ended") };
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            // An empty one says that the node is there.
            if line.len() > 1 && left > 0 {
                left -= 1;
                out::bytes(&line);
            }
        }
    }
    Ok(())
}

pub(crate) async fn results(args: ResultsArgs) -> anyhow::Result<()> {
    let ResultsCommand::Send { client, event, data: text, kind, status, id, coordinator } = args.command;
    let data = (text != "null").then(|| data(&text));
    let result = Answer { kind, client_id: client, event_id: event, status, data, result_id: id };
    coordinator.command("result", &result).await?;
    say!("in client_results");
    Ok(())
}

#[derive(Serialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: String,
    client_id: UserId,
    event_id: MessageId,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_id: Option<MessageId>,
}

/// The oldest first.
pub(crate) async fn tickets(args: TicketsArgs) -> anyhow::Result<()> {
    let whose =
        args.user.as_ref().map(|user| format!("?userId={}", encoded(user.as_str()))).unwrap_or_default();
    let (mut tickets, mut count) = (Vec::new(), 0);
    for (name, node) in args.coordinator.nodes().await? {
        match node.operate(Method::GET, &format!("/api/tickets{whose}")).await {
            Ok(mut page) => {
                count += page["ok"]["count"].as_u64().unwrap_or(0);
                if let Value::Array(page) = page["ok"]["tickets"].take() {
                    tickets.extend(page);
                }
            }
            Err(error) => note!("# {name} does not say: {error:#}"),
        }
    }
    tickets.sort_by_key(|ticket| std::cmp::Reverse(ticket["age_ms"].as_u64()));
    for ticket in &tickets {
        let text = |name: &str| ticket[name].as_str().unwrap_or("-").to_owned();
        let at = rfc3339(ticket["at"].as_u64().unwrap_or(0));
        say!("{at} {} {} waits {} ms", text("client_id"), text("event_id"), ticket["age_ms"]);
    }
    if count > tickets.len() as u64 {
        note!("# {} more", count - tickets.len() as u64);
    }
    Ok(())
}
