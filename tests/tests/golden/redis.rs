//! Redis: nodes of today go on with what nodes of that release kept.

use std::collections::BTreeMap;

use ::redis::{Client, aio::MultiplexedConnection, cmd};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use roost_tests::cluster::services::Services;
use roost_tests::cluster::{now_s, token};
use roost_tests::processes::{Cluster, ClusterSetup, NodeSetup, VNODES};
use roost_tests::wire::{Wire, get};
use serde_json::{Value, json};

use crate::set::{Messages, Set, all, streams, text};

/// Keys that are gone before a node of today comes: the leases, and what settles.
const GONE: [&str; 2] = ["{roost}:vnode:", "{roost}:settling"];

/// Puts the set's keys into a Redis, as if it had been running since: its life is the one that the ring names.
async fn restore(set: &Set, redis: &mut MultiplexedConnection) {
    let keys = set.lines("redis/keys.jsonl");
    for line in keys.iter().filter(|line| !GONE.iter().any(|gone| text(line, "key").starts_with(gone))) {
        let dump = STANDARD.decode(text(line, "dump")).expect("base64");
        let ttl_ms = line["ttl_ms"].as_u64().unwrap_or(0);
        let mut command = cmd("RESTORE");
        command.arg(text(line, "key")).arg(ttl_ms).arg(dump);
        let () = command.query_async(redis).await.unwrap_or_else(|e| panic!("{}: {e}", text(line, "key")));
    }
    let info: String = cmd("INFO").arg("server").query_async(redis).await.expect("INFO");
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).expect("a run_id");
    let mut command = cmd("HSET");
    command.arg("{roost}:ring").arg("run_id").arg(run_id);
    let _: i64 = command.query_async(redis).await.expect("HSET");
}

/// The window of each stream as Redis has it.
fn windows(set: &Set) -> BTreeMap<String, Messages> {
    let keys = set.lines("redis/keys.jsonl");
    let windows = keys.iter().filter(|line| text(line, "key").contains(":stream:"));
    let entries = windows.flat_map(|line| line["content"].as_array().expect("entries").clone());
    let messages: Vec<Value> =
        entries.map(|entry| serde_json::from_str(text(&entry[1], "m")).expect("a message is JSON")).collect();
    streams(messages.iter())
}

async fn home(cluster: &Cluster, user: &str) -> String {
    let answer = get(&cluster.front().url, &format!("/route?userId={user}"), &[]).await.json();
    text(&answer, "url").to_owned()
}

async fn connect(cluster: &Cluster, user: &str, mut fields: Value) -> (Wire, Value) {
    fields["token"] = json!(token(user, now_s() + 3_600));
    let mut wire = Wire::connect(&home(cluster, user).await, fields).await;
    let welcome = wire.frame_of("welcome").await;
    (wire, welcome)
}

/// A user who shows a cursor from that time gets what came after it.
async fn resumes(cluster: &Cluster, user: &str, window: &Messages) {
    let (first, message) = window.first_key_value().expect("a window is not empty");
    let cursor = json!({"generation": message["generation"], "offset": first - 1});
    let (mut wire, welcome) = connect(cluster, user, json!({"cursor": cursor})).await;
    assert_eq!(welcome["recovered"], true, "{user}: {welcome}");
    for message in window.values() {
        assert_eq!(wire.message().await, *message);
    }
    wire.close().await;
}

/// The newest page of a room is what was kept.
async fn is_shown(wire: &mut Wire, room: &str, window: &Messages) {
    wire.send(json!({"type": "history", "id": room, "stream": format!("room:{room}"), "limit": 100})).await;
    let page = wire.reply(room).await;
    let shown = page["ok"]["messages"].as_array().unwrap_or_else(|| panic!("{page}"));
    let newest: Vec<&Value> = window.values().rev().take(shown.len()).collect();
    assert!(!shown.is_empty() && shown.iter().eq(newest), "{room}: {page}");
}

/// P3, P5: the keys of that release in a Redis that is the same life of its data, and two nodes of today: who was away
/// resumes, rooms have their history, and messages get through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_go_on_with_what_is_in_redis() {
    for set in all() {
        assert_eq!(set.number("vnodes"), u64::from(VNODES), "the ring of a set is that of the tests");
        let Some(services) = Services::find().await else { return };
        let client = Client::open(services.redis_url()).expect("a valid address");
        let mut redis = client.get_multiplexed_async_connection().await.expect("Redis is reached");
        restore(&set, &mut redis).await;
        let setup = ClusterSetup { vars: vec![("OPEN_ROOMS", "true".to_owned())], ..ClusterSetup::default() };
        let mut cluster = Cluster::launch(services, setup);
        for name in ["first", "second"] {
            cluster.start_node(name, NodeSetup::default());
        }
        cluster.settled().await;

        let windows = windows(&set);
        let (mut wire, _) = connect(&cluster, "reader", json!({})).await;
        let (mut users, mut rooms) = (0, 0);
        for (stream, window) in &windows {
            if let Some(room) = stream.strip_prefix("room:") {
                is_shown(&mut wire, room, window).await;
                rooms += 1;
            } else if let Some(user) = stream.strip_prefix("user:").filter(|user| !user.starts_with("roost."))
            {
                resumes(&cluster, user, window).await;
                users += 1;
            }
        }
        assert!(users > 1 && rooms > 1, "{users} users and {rooms} rooms had messages");
        let reply = wire.ask("now", "alice", json!("from today")).await;
        assert!(reply["ok"].is_object(), "{reply}");
    }
}
