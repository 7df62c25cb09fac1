//! What an operator finds in Redis and Kafka.

use std::time::Duration;

use redis::cmd;
use roost_proto::events::PARTITIONS;
use roost_proto::events::{CHAT_EVENTS, USER_STATUS_EVENTS};
use roost_tests::processes::{Cluster, LEASE_TTL_MS, LIMIT, VNODES, until, vnode_of};
use serde_json::Value;
use tokio::time::Instant;

use super::TURN;
use roost_tests::conversation::Talk;
use roost_tests::topic_reader::TopicReader;

/// Keys, leases and records as `docs/ARCHITECTURE.md` has them, and a pinned node owns what it pins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_kafka_hold_what_is_documented() {
    let _turn = TURN.lock().await;
    let nodes = [("pinned", "0-9,40,50-59"), ("second", ""), ("third", "")];
    let Some(mut cluster) = Cluster::with_nodes(&nodes).await else { return };
    let ring = cluster.settled().await;
    let pinned = cluster.node_id("pinned");
    let wanted: Vec<u16> = (0..=9).chain([40]).chain(50..=59).collect();
    assert_eq!(ring.of(&pinned), wanted, "a pinned node has what it pins, and the others the rest");
    leases_are_held(&cluster).await;

    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let status = TopicReader::start(&cluster, USER_STATUS_EVENTS).await;
    let to_pinned = TopicReader::start(&cluster, &format!("messages-{pinned}")).await;
    let names = cluster.users_at(&ring, &[("second", 1), ("pinned", 1)]);
    let talk = Talk::open(&cluster, names.clone()).await;
    let began = Instant::now();
    let speech = talk.speak(&[0], &[1], Duration::from_millis(100));
    talk.goes_on(1).await;
    speech.end().await;
    talk.all_arrived(began).await;

    let (from, to) = (names[0].as_str(), names[1].as_str());
    let vnode = vnode_of(to);
    let epoch = ring.rows[&vnode].1;
    let event = first(&chat, &format!("user:{to}"), |_| true).await;
    assert_eq!((&event["type"], &event["kind"]), (&"message".into(), &"message".into()), "{event}");
    assert_eq!((&event["stream"], &event["from"]), (&format!("user:{to}").into(), &from.into()), "{event}");
    assert_eq!((&event["offset"], &event["data"]["n"]), (&1.into(), &1.into()), "{event}");
    assert!(event["generation"].as_u64().is_some_and(|generation| generation <= epoch), "{event}");
    assert!(event["id"].is_string() && event["at"].is_string(), "{event}");
    for user in [from, to] {
        let event = first(&status, user, |_| true).await;
        assert_eq!((&event["user"], &event["status"]), (&user.into(), &"online".into()), "{event}");
        assert_eq!(
            (&event["cause"], &event["vnode"]),
            (&"connected".into(), &vnode_of(user).into()),
            "{event}"
        );
        assert!(event["epoch"].is_u64() && event["seq"].is_u64() && event["since"].is_string(), "{event}");
    }
    // In a bundle of its sender's node. Confirms go by the link, as soon as there is one.
    let of_talk = |record: &Value| {
        let bundle = record["bundle"].as_array()?;
        bundle.iter().find(|record| record["item"]["body"]["append"]["from"] == from).cloned()
    };
    let bundle = first(&to_pinned, &cluster.node_id("second"), |record| of_talk(record).is_some()).await;
    let item = of_talk(&bundle).expect("found by it");
    assert_eq!((&item["item"]["vnode"], &item["item"]["epoch"]), (&vnode.into(), &epoch.into()), "{item}");
    assert!(item["item"]["n"].is_u64(), "items are numbered");

    talk.leave(&[0, 1]).await;
    for user in [from, to] {
        let event = first(&status, user, |event| event["status"] == "offline").await;
        assert_eq!(event["cause"], "disconnected", "{event}");
        assert!(event["last_seen"].is_string(), "{event}");
    }
    talk.close().await;
    cluster.kill_all();
}

/// Every vnode has a row with a time to live of at most the lease, renewed while it is looked at.
async fn leases_are_held(cluster: &Cluster) {
    let ring = cluster.ring().await.expect("the coordinator answers");
    for vnode in 0..VNODES {
        let key = format!("{{roost}}:vnode:{vnode}");
        let pttl: i64 = cluster.redis(cmd("PTTL").arg(&key)).await;
        assert!((1..=LEASE_TTL_MS as i64).contains(&pttl), "PTTL {key} is {pttl}");
        let row: String = cluster.redis(cmd("GET").arg(&key)).await;
        let row: Value = serde_json::from_str(&row).expect("a row is JSON");
        let (node, epoch, ready) = &ring.rows[&vnode];
        assert!(row["sid"].as_str().is_some_and(|sid| sid.starts_with(&format!("{node}/"))), "{key}: {row}");
        assert_eq!((&row["epoch"], &row["ready"]), (&(*epoch).into(), &(*ready).into()), "{key}: {row}");
    }
}

/// The first record with this key that is as asked for.
async fn first(topic: &TopicReader, key: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(&format!("a record of {key}"), LIMIT, async || {
        topic.records().into_iter().filter(|record| record.key == key.as_bytes()).find_map(|record| {
            let value: Value = serde_json::from_slice(&record.payload).expect("values are JSON");
            if let Ok(vnode) = key.parse::<u32>() {
                assert_eq!(record.position.partition, vnode % PARTITIONS, "the partition of a vnode");
            }
            wanted(&value).then_some(value)
        })
    })
    .await
}
