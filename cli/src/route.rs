//! `roost route`: why a user is at home where it is.

use reqwest::Method;
use roost_proto::UserId;
use serde_json::Value;

use roost_proto::history::encoded;

use crate::ask::Coordinator;
use crate::out::say;

#[derive(clap::Args)]
pub(crate) struct Args {
    user: UserId,
    #[command(flatten)]
    coordinator: Coordinator,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (ring, nodes, vnodes) = args.coordinator.tables().await?;
    let hash = xxhash_rust::xxh3::xxh3_64(args.user.as_str().as_bytes());
    let vnode = roost_ring::vnode_of_user(&args.user, vnodes);
    say!("user    {}", args.user);
    say!("hash    {hash:#018x}  (xxh3_64 of the id)");
    say!("vnode   {vnode}  (hash × {vnodes} / 2^64: one of {vnodes} equal arcs)");
    let rows = ring["rows"].as_array().cloned().unwrap_or_default();
    match rows.iter().find(|row| row[0].as_u64() == Some(u64::from(vnode.0))) {
        Some(row) => describe(row, &nodes),
        None => say!("home    none: nobody holds the lease on this vnode now"),
    }
    let path = format!("/route?userId={}", encoded(args.user.as_str()));
    let (status, route) = args.coordinator.ask(Method::GET, &path, None).await?;
    if status == 200 {
        say!("dial    {}", route["url"].as_str().unwrap_or_default());
    } else {
        say!("dial    not now: {} {}", status, route["error"]["message"].as_str().unwrap_or_default());
    }
    Ok(())
}

fn describe(row: &Value, nodes: &Value) {
    let node = row[1].as_str().unwrap_or_default();
    let ready = if row[3].as_bool() == Some(true) { "ready" } else { "not ready yet" };
    say!("home    {node}  ({ready})");
    say!("epoch   {}  (grows with every change of owner)", row[2]);
    let of = nodes["nodes"].as_array().and_then(|all| all.iter().find(|n| n["node"].as_str() == Some(node)));
    match of {
        Some(n) => say!(
            "lease   held by {} ({}, beat {}), renewed twelve times per LEASE_TTL_MS",
            n["sid"].as_str().unwrap_or_default(),
            n["state"].as_str().unwrap_or_default(),
            n["beat"]
        ),
        None => say!("lease   of a node that is not registered any more: it runs out"),
    }
}
