//! `roost forget`: removes what a node that left for good has left behind: its row and its topic.
//!
//! Works on Redis and Kafka directly, with the variables of a ws-node, and only when the node is plainly gone.

use std::time::Duration;

use anyhow::{Context, bail};
use roost_backend::kafka::KafkaLog;
use roost_backend::redis::RedisStore;
use roost_backend::store::{Deregister, NodeState, Store, Table};
use roost_proto::NodeId;
use roost_proto::events::messages_topic;
use roost_proto::limits::BEATS_PER_LEASE;
use roost_service::config::environment;
use roost_ws_node::config::Settings;

#[derive(clap::Args)]
pub struct Args {
    node: NodeId,
}

/// What the table says of the node: whether it lives is seen by its beat.
fn beat(table: &Table, node: &NodeId) -> Option<u64> {
    table.nodes.get(node).filter(|row| row.state != NodeState::Revoked).map(|row| row.beat)
}

fn check(table: &Table, node: &NodeId) -> anyhow::Result<()> {
    let held = table.rows.values().filter(|row| row.node() == *node && !table.ended(&row.sid)).count();
    if held > 0 {
        bail!("{node} still has {held} vnodes: drain it and end its process first");
    }
    Ok(())
}

pub async fn run(args: &Args) -> anyhow::Result<()> {
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
    let table = store.table().await?;
    check(&table, &args.node)?;
    if let Some(seen) = beat(&table, &args.node) {
        let wait = Duration::from_millis(4 * settings.common.tuning.lease_ttl_ms / BEATS_PER_LEASE);
        println!("{} is registered: waiting {wait:.1?} to see whether it lives", args.node);
        tokio::time::sleep(wait).await;
        let table = store.table().await?;
        check(&table, &args.node)?;
        if beat(&table, &args.node).is_some_and(|now| now != seen) {
            bail!("{} is alive: end its process first", args.node);
        }
    }
    let log = KafkaLog::connect(settings.kafka).await.context("KAFKA_BROKERS")?;
    match table.nodes.get(&args.node) {
        Some(row) => {
            let sid = row.sid.clone();
            store.deregister(&Deregister { data_set: table.data_set, sid }).await?;
            println!("its row is removed");
        }
        None => println!("it has no row"),
    }
    let topic = messages_topic(&args.node);
    match log.remove_topic(&topic).await? {
        true => println!("the topic {topic} is removed"),
        false => println!("there is no topic {topic}"),
    }
    Ok(())
}
