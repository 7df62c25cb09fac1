//! What consumers of the log read: keys, values and partitions of every topic.

use roost_tests::cluster::{Backend, Cluster, Tail};
use serde_json::{Value, json};

use crate::operations::{metrics, value_of};

/// Partitions of every topic.
const PARTITIONS: u64 = 8;

/// P2: an acknowledged message is in `chat_events`, under its stream's key, equal to what its reader got.
/// Three messages from another node; the topic is read as any consumer would.
pub(crate) async fn chat_events_has_every_acknowledged_message_as_its_reader_got_it(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let mut events = cluster.tail("chat_events").await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let datas = [json!({"text": "héllo \u{1f980}"}), json!(null), json!([1, 2.5, {"deep": ["er"]}])];
    for (i, data) in datas.iter().enumerate() {
        let reply = a.ask(&format!("m-{i}"), &bob, data.clone()).await;
        assert!(reply["ok"].is_object(), "{reply}");
    }
    let stream = format!("user:{bob}");
    let records = events.records(&stream, datas.len()).await;
    let vnode = cluster.route(&bob).await.vnode;
    for (i, (record, data)) in records.iter().zip(&datas).enumerate() {
        assert_eq!(record.value, b.message().await);
        assert_eq!(u64::from(record.partition), vnode % PARTITIONS);
        let value = &record.value;
        assert_eq!((&value["stream"], &value["offset"]), (&json!(stream), &json!(i + 1)));
        assert_eq!(
            (&value["from"], &value["data"], &value["kind"]),
            (&json!(alice), data, &json!("message"))
        );
        assert!(value["generation"].is_u64() && value["at"].as_str().is_some_and(|at| at.ends_with('Z')));
    }
}

/// P6: every change of a status is in `user_status_events`, under the user's key, unique by vnode, epoch and seq.
/// A user comes, chooses, and goes.
pub(crate) async fn user_status_events_has_every_change_with_its_cause(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let mut events = cluster.tail("user_status_events").await;
    let bob = cluster.user_at(1).await;
    let (mut b, welcome) = cluster.connect(&bob, json!({})).await;
    b.choose("s-1", "away").await;
    b.close().await;
    let home = cluster.route(&bob).await;
    let records = events.records(&bob, 3).await;
    let mut last_seq = 0;
    let expected = [("online", "connected"), ("away", "chosen"), ("offline", "disconnected")];
    for (record, (status, cause)) in records.iter().zip(expected) {
        let value = &record.value;
        let seq = value["seq"].as_u64().expect("a number");
        assert!(seq > last_seq, "{value}");
        last_seq = seq;
        let at = value["at"].clone();
        let last_seen = if status == "offline" { at.clone() } else { json!(null) };
        let whole = json!({
            "vnode": home.vnode, "epoch": welcome["epoch"], "seq": seq, "user": bob, "status": status,
            "cause": cause, "at": at, "since": at, "last_seen": last_seen,
        });
        assert_eq!(*value, whole);
        assert_eq!(u64::from(record.partition), home.vnode % PARTITIONS);
    }
}

/// The records in the next bundles with this key, and the partitions of the bundles.
async fn bundled(tail: &mut Tail, key: &str) -> Vec<(Value, u32)> {
    let records = tail.some(key, 1).await.into_iter();
    let all = records.flat_map(|record| {
        let bundle = record.value["bundle"].as_array().cloned().expect("a bundle");
        bundle.into_iter().map(move |one| (one, record.partition))
    });
    all.collect()
}

/// Between nodes: every item is in the topic of its home, in a bundle of its sender, and goes by the link as well once there
/// is one.
pub(crate) async fn the_topic_of_each_node_has_every_item_and_links_have_copies(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let mut to_home = cluster.tail(&format!("messages-{}", cluster.name(1))).await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let home = cluster.route(&bob).await;
    let copies = async || {
        let text = metrics(&cluster, cluster.node(1).admin_addr()).await;
        value_of(&text, "roost_channel_events_total{event=\"copy\"}").unwrap_or(0.0)
    };
    let mut sent = 0_u64;
    let began = copies().await;
    while copies().await <= began {
        sent += 1;
        assert!(sent < 300, "no link is opened");
        let reply = a.ask(&format!("m-{sent}"), &bob, json!({"n": sent})).await;
        assert!(reply["ok"].is_object(), "{reply}");
        assert_eq!(b.message().await["data"]["n"], sent, "once, in order, whichever way");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut next = 1_u64;
    while next <= sent {
        for (record, partition) in bundled(&mut to_home, cluster.name(0)).await {
            let item = &record["item"];
            let append = &item["body"]["append"];
            // Results of other tests on this broker may come this way, too; and an item may be repeated.
            if append["from"] != alice.as_str() || append["data"]["n"].as_u64().is_some_and(|n| n < next) {
                continue;
            }
            assert_eq!(partition, 0);
            let body = json!({"append": {
                "stream": format!("user:{bob}"), "from": alice, "id": format!("m-{next}"), "kind": "message",
                "data": {"n": next},
            }});
            assert_eq!((&item["vnode"], &item["epoch"]), (&json!(home.vnode), &json!(home.epoch)));
            assert_eq!(item["body"], body, "in order");
            let sid = item["sid"].as_str().expect("a text");
            assert!(sid.starts_with(&format!("{}/", cluster.name(0))) && item["n"].is_u64(), "{item}");
            next += 1;
        }
    }
}
