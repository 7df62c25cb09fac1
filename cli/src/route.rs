//! `roost route`: why a user is at home where it is.

use std::time::Duration;

use anyhow::{Context, bail};
use roost_proto::UserId;
use serde_json::Value;

#[derive(clap::Args)]
pub struct Args {
    user: UserId,
    /// A coordinator
    #[arg(long, env = "ROOST_URL", default_value = "http://127.0.0.1:7000")]
    url: String,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let get = |path: String| {
        let (client, url) = (client.clone(), format!("{}{path}", args.url.trim_end_matches('/')));
        async move {
            let response = client.get(&url).send().await.with_context(|| format!("asking {url}"))?;
            let status = response.status();
            let body: Value = response.json().await.with_context(|| format!("the answer of {url}"))?;
            anyhow::Ok((status, body))
        }
    };
    let (_, ring) = get("/ring".into()).await?;
    let (_, nodes) = get("/nodes".into()).await?;
    let vnodes = u32::try_from(ring["vnodes"].as_u64().unwrap_or(0))?;
    if vnodes == 0 {
        bail!("{} is not a coordinator, or has not read the ring yet", args.url);
    }
    let hash = xxhash_rust::xxh3::xxh3_64(args.user.as_str().as_bytes());
    let vnode = roost_ring::vnode_of_user(&args.user, vnodes);
    println!("user    {}", args.user);
    println!("hash    {hash:#018x}  (xxh3_64 of the id)");
    println!("vnode   {vnode}  (hash × {vnodes} / 2^64: one of {vnodes} equal arcs)");
    let rows = ring["rows"].as_array().cloned().unwrap_or_default();
    match rows.iter().find(|row| row[0].as_u64() == Some(u64::from(vnode.0))) {
        Some(row) => describe(row, &nodes),
        None => println!("home    none: nobody holds the lease on this vnode now"),
    }
    let (status, route) = get(format!("/route?userId={}", encoded(args.user.as_str()))).await?;
    if status.is_success() {
        println!("dial    {}", route["url"].as_str().unwrap_or_default());
    } else {
        println!(
            "dial    not now: {} {}",
            status.as_u16(),
            route["error"]["message"].as_str().unwrap_or_default()
        );
    }
    Ok(())
}

fn describe(row: &Value, nodes: &Value) {
    let node = row[1].as_str().unwrap_or_default();
    let ready = if row[3].as_bool() == Some(true) { "ready" } else { "not ready yet" };
    println!("home    {node}  ({ready})");
    println!("epoch   {}  (grows with every change of owner)", row[2]);
    let of = nodes["nodes"].as_array().and_then(|all| all.iter().find(|n| n["node"].as_str() == Some(node)));
    match of {
        Some(n) => println!(
            "lease   held by {} ({}, beat {}), renewed twelve times per LEASE_TTL_MS",
            n["sid"].as_str().unwrap_or_default(),
            n["state"].as_str().unwrap_or_default(),
            n["beat"]
        ),
        None => println!("lease   of a node that is not registered any more: it runs out"),
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
