//! `roost explain`: where a user or a message is, who owns it, and what it waits for.

use anyhow::bail;
use reqwest::Method;
use roost_proto::{MessageId, UserId};
use serde_json::Value;

use roost_proto::history::encoded;

use crate::ask::Coordinator;
use crate::out::say;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A message id, or a user; what is no message that anybody knows is taken for a user
    what: String,
    /// The receiver of the message: it is looked for in the inbox too
    #[arg(long)]
    to: Option<UserId>,
    /// Print what the nodes answered, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let message = match MessageId::new(&args.what) {
        Ok(id) => Some(explained(&args, "id", id.as_str()).await?),
        Err(error) if args.to.is_some() => bail!("{}: {error}", args.what),
        // Users have longer names.
        Err(_) => None,
    };
    let knows = |(_, told): (&String, &Value)| !list(&told["found"]).is_empty() || told["kept"].is_object();
    match message.filter(|nodes| args.to.is_some() || nodes.iter().any(knows)) {
        Some(nodes) => show(&nodes, &args, message_lines(&nodes, args.to.is_some())),
        None => {
            let nodes = explained(&args, "user", UserId::new(&args.what)?.as_str()).await?;
            show(&nodes, &args, user_lines(&nodes, &args.what))
        }
    }
}

async fn explained(args: &Args, kind: &str, what: &str) -> anyhow::Result<Nodes> {
    let to = args.to.as_ref().map(|to| format!("&to={}", encoded(to.as_str()))).unwrap_or_default();
    let path = format!("/api/explain?{kind}={}{to}", encoded(what));
    let mut answer: Value = args.coordinator.operate(Method::GET, &path).await?;
    match answer["nodes"].take() {
        Value::Object(nodes) => Ok(nodes),
        other => bail!("the coordinator answered {other}"),
    }
}

fn show(nodes: &Nodes, args: &Args, lines: Vec<String>) -> anyhow::Result<()> {
    if args.json {
        say!("{}", serde_json::to_string_pretty(nodes)?);
        return Ok(());
    }
    for (node, told) in nodes {
        if let Some(error) = told["error"]["message"].as_str() {
            say!("{node}: does not say: {error}");
        }
    }
    lines.iter().for_each(|line| say!("{line}"));
    Ok(())
}

type Nodes = serde_json::Map<String, Value>;

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn user_lines(nodes: &Nodes, user: &str) -> Vec<String> {
    let mut lines = vec![format!("user      {user}")];
    let homes: Vec<_> = nodes.iter().filter(|(_, told)| told["home"].is_object()).collect();
    for (node, told) in &homes {
        let h = &told["home"];
        let phase = text(&h["phase"]);
        lines.push(format!("home      {node}: vnode {} under epoch {}, {phase}", h["vnode"], h["epoch"]));
        lines.push(match h["lease_left_ms"].as_u64() {
            Some(left) if left > 0 => format!("lease     {left} ms left"),
            _ => "lease     has run out: the home is suspended".into(),
        });
        lines.push(format!("status    {}", h["status"].as_str().unwrap_or("offline")));
        lines.push(format!(
            "work      {} queued, {} in the write under way (tried {} times again)",
            h["queued"], h["writing"], h["write_retries"]
        ));
        lines.push(format!(
            "log       {} events not in it yet, {} answers held for them",
            h["outbox"], h["held"]
        ));
    }
    if homes.is_empty() {
        lines.push("home      none: no node has this user's vnode at the moment".into());
    }
    for (node, told) in nodes {
        lines.extend(session_lines(node, list(&told["sessions"])));
        let c = &told["channel"];
        if c.is_object() {
            let to = text(&c["to"]);
            lines.push(format!(
                "channel   {node} has {} messages for the home {to}, {} sent",
                c["items"], c["sent"]
            ));
            lines.push(format!(
                "          under epoch {}; last heard of it {} ms ago",
                c["epoch"], c["silent_ms"]
            ));
        }
    }
    lines
}

fn session_lines(node: &str, sessions: &[Value]) -> Vec<String> {
    let line = |s: &Value| {
        let behind = s["tail"].as_u64().unwrap_or(0).saturating_sub(s["sent"].as_u64().unwrap_or(0));
        let place = match (behind, s["credit"].as_u64()) {
            (0, _) => format!("was sent everything up to {}", s["sent"]),
            (n, Some(0)) => format!("{n} messages behind: its socket does not read"),
            (n, _) => format!("{n} messages behind"),
        };
        let device = s["device"].as_str().map(|device| format!(" on {device}")).unwrap_or_default();
        format!("session   {} at {node}{device}: {}; {place}", text(&s["session"]), text(&s["state"]))
    };
    sessions.iter().map(line).collect()
}

fn message_lines(nodes: &Nodes, to: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (node, told) in nodes {
        for found in list(&told["found"]) {
            let age = found["age_ms"].as_u64().map(|ms| format!(", for {ms} ms")).unwrap_or_default();
            let (place, stream) = (text(&found["place"]), text(&found["stream"]));
            lines.push(format!("waits     at {node}, {place} of {stream} (number {}){age}", found["number"]));
            lines.push(format!("because   {}", text(&found["why"])));
        }
        let kept = &told["kept"];
        for entry in list(&kept["entries"]) {
            let (stream, from, at) = (text(&kept["stream"]), text(&entry["from"]), text(&entry["at"]));
            let place = format!("offset {} of generation {}", entry["offset"], kept["generation"]);
            lines.push(format!("kept      in {stream} at {place}, from {from}, at {at}"));
            lines.extend(session_lines(node, list(&kept["sessions"])));
        }
    }
    if lines.is_empty() && to {
        lines.push("nobody waits with it, and it is not in the hot window of that inbox".into());
    }
    lines
}
