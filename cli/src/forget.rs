//! `roost forget`: removes what a node that left for good has left behind: its row and its topic.
//!
//! Works on Redis and Kafka directly, with the variables of a ws-node, and only when the node is plainly gone.

use std::time::Duration;

use anyhow::{Context, bail};
use roost_backend::kafka::KafkaLog;
use roost_backend::log::Log;
use roost_backend::redis::RedisStore;
use roost_backend::store::{Deregister, Store};
use roost_proto::events::messages_topic;
use roost_proto::{NodeId, Sid};
use roost_service::admin::is_unspecified;
use roost_service::config::environment;
use roost_ws_node::config::Settings;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::out::say;

#[derive(clap::Args)]
pub(crate) struct Args {
    node: NodeId,
}

/// Time for a living node to show itself at its admin port.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The life and the beat of the node; an error if it has something, or somebody answers for it.
async fn seen(store: &RedisStore, node: &NodeId) -> anyhow::Result<Option<(Sid, u64)>> {
    let table = store.table().await?;
    let held = table.rows.values().filter(|row| row.node() == *node && !table.ended(&row.sid)).count();
    if held > 0 {
        bail!("{node} still has {held} vnodes: drain it and end its process first");
    }
    let Some(row) = table.nodes.get(node) else { return Ok(None) };
    if !is_unspecified(&row.admin) {
        let reached = timeout(PROBE_TIMEOUT, TcpStream::connect(&row.admin)).await;
        if reached.is_ok_and(|connected| connected.is_ok()) {
            bail!("somebody listens at the admin address of {node}, {}: end its process first", row.admin);
        }
    }
    Ok(Some((row.sid.clone(), row.beat)))
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut vars = environment();
    vars.retain(|(name, _)| name != "NODE_ID");
    vars.push(("NODE_ID".into(), args.node.to_string()));
    // No token is checked here.
    if !vars.iter().any(|(name, _)| name.starts_with("JWT_")) {
        vars.push(("JWT_SECRET".into(), "unused".repeat(6)));
    }
    let settings = Settings::from_vars(vars)?;
    let store =
        RedisStore::connect(settings.redis_url.expose(), settings.store()).await.context("REDIS_URL")?;
    let before = seen(&store, &args.node).await?;
    let log = KafkaLog::connect(settings.kafka).await.context("KAFKA_BROKERS")?;
    // A living node beats many times in a lease; one that is just starting registers.
    let wait = Duration::from_millis(settings.common.tuning.lease_ttl_ms);
    say!("waiting a lease, {wait:.1?}, to see whether {} lives", args.node);
    tokio::time::sleep(wait).await;
    let after = seen(&store, &args.node).await?;
    if after != before {
        bail!("{} is alive: end its process first", args.node);
    }
    match after {
        Some((sid, _)) => {
            let data_set = store.table().await?.data_set;
            store.deregister(&Deregister { data_set, sid, tombstone: false }).await?;
            say!("its row is removed");
        }
        None => say!("it has no row"),
    }
    let topic = messages_topic(&args.node);
    match log.remove_topic(&topic).await? {
        true => say!("the topic {topic} is removed"),
        false => say!("there is no topic {topic}"),
    }
    Ok(())
}
