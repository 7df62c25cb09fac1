//! What the ports of one coordinator answer, over loopback with the embedded store.

#![allow(clippy::unwrap_used, reason = "what breaks here is the test")]

mod common;

use common::*;
use roost_backend::store::*;
use roost_coordinator::{BindError, Coordinator, CoordinatorConfig};
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{Seq, UserId, VnodeId};
use roost_proto::time::rfc3339;
use roost_service::TaskEnded;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const VNODES: u32 = 16;
/// Long enough that nobody is revoked and nothing planned while a test runs.
const LONG_TTL: u64 = 60_000;

fn config(lease_ttl_ms: u64) -> CoordinatorConfig {
    CoordinatorConfig { token: "the-leader".into(), ..common::config(VNODES, lease_ttl_ms) }
}

/// One node that has every vnode ready, and a coordinator that knows.
async fn cluster(lease_ttl_ms: u64) -> (Arc<TestStore>, Coordinator, NodeRow) {
    let store = TestStore::new(lease_ttl_ms);
    store.open_ring(VNODES).await.unwrap();
    let row = node_row("ws-1");
    own(&store, &row, &(0..VNODES as u16).collect::<Vec<_>>(), true).await;
    let coordinator = coordinator(&store, config(lease_ttl_ms)).await;
    (store, coordinator, row)
}

fn vnode_of(user: &str) -> VnodeId {
    roost_ring::vnode_of_user(&UserId::new(user).unwrap(), VNODES)
}

fn error_of(reply: &Reply) -> (u16, String, bool) {
    let error = &reply.json()["error"];
    let code = error["code"].as_str().unwrap_or_default().to_owned();
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", reply.text);
    (reply.status, code, error["retryable"] == true)
}

#[tokio::test]
async fn a_route_names_the_home_of_its_user() {
    let (store, coordinator, _) = cluster(LONG_TTL).await;
    let rows = store.table().await.unwrap().rows;
    for (query, user) in [
        ("alice", "alice"),
        ("Zo%C3%AB%20%F0%9F%A6%80", "Zoë 🦀"),
        ("a%22b%5C", "a\"b\\"),
        ("a+b", "a b"),
        ("x%26userId%3Dy", "x&userId=y"),
        ("a%23b", "a#b"),
        (&"u".repeat(128), &"u".repeat(128)),
    ] {
        let reply = get(&coordinator, &format!("/route?userId={query}&ignored=1")).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        let vnode = vnode_of(user);
        let expected = json!({
            "user_id": user, "vnode": vnode, "node": "ws-1", "url": "ws://ws-1.example:7301/socket",
            "epoch": rows[&vnode].epoch, "connect_after_ms": 0,
        });
        assert_eq!(reply.json(), expected);
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_so_in_the_one_shape_of_errors() {
    let (_store, coordinator, _) = cluster(LONG_TTL).await;
    let long = "u".repeat(129);
    for path in [
        "/route",
        "/route?",
        "/route?userId=",
        "/route?userid=alice",
        "/route?userId=%23lobby",
        "/route?userId=a%00b",
        "/route?userId=a&userId=b",
        "/route?userId=%FF",
        "/route?userId=%zz",
        "/presence?userIds=%FF",
        &format!("/route?userId={long}"),
        "/presence",
        "/presence?userIds=",
        "/presence?userIds=a,,b",
        &format!("/presence?userIds={}", vec!["a"; 501].join(",")),
    ] {
        let reply = get_as(&coordinator, path, &service()).await;
        assert_eq!(error_of(&reply), (400, "bad_request".into(), false), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{path}");
    }
    for path in ["/", "/nope", "/route/alice", "/readyz", "/metrics"] {
        assert_eq!(error_of(&get(&coordinator, path).await), (404, "not_found".into(), false), "{path}");
    }
    let client = reqwest::Client::new();
    let url = format!("http://{}/route?userId=alice", coordinator.addr());
    assert_eq!(client.post(&url).send().await.unwrap().status(), 405);
    let (head, got) = (client.head(&url).send().await.unwrap(), client.get(&url).send().await.unwrap());
    assert_eq!(
        (head.status(), head.headers().get("content-length")),
        (got.status(), got.headers().get("content-length"))
    );
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().as_str()), (200, ""));
    let preflight = client.request(reqwest::Method::OPTIONS, &url).send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-methods"], "GET, OPTIONS");
}

/// core rule 27: `/route` names only ready rows.
#[tokio::test]
async fn without_a_ready_home_a_client_is_told_when_to_come_again() {
    let store = TestStore::new(LONG_TTL);
    let coordinator = coordinator(&store, config(LONG_TTL)).await;
    let refused = async |when: &str| {
        let reply = get(&coordinator, "/route?userId=alice").await;
        assert_eq!(error_of(&reply), (503, "unavailable".into(), true), "{when}");
        assert_eq!(reply.header("retry-after"), "1", "{when}");
        assert!(reply.header("access-control-expose-headers").contains("retry-after"));
    };
    refused("an empty ring").await;
    assert_eq!(get_admin(&coordinator, "/readyz").await.json()["checks"]["ring"]["ok"], false);
    let (row, vnode) = (node_row("ws-1"), vnode_of("alice"));
    let epoch = own(&store, &row, &[vnode.0], false).await[0];
    let known = async || get(&coordinator, "/ring").await.json()["rows"].as_array().unwrap().len() == 1;
    until("the claim is known", known).await;
    refused("claimed and not ready").await;
    let data_set = store.table().await.unwrap().data_set;
    let rows = OwnRows { data_set, sid: row.sid.clone(), rows: vec![(vnode, epoch)] };
    store.set_ready(&rows).await.unwrap();
    // Sooner than the periodic read: by the hint.
    until("ready", async || get(&coordinator, "/route?userId=alice").await.status == 200).await;
    assert_eq!(get_admin(&coordinator, "/readyz").await.status, 200);
    store.release(&rows).await.unwrap();
    until("released", async || get(&coordinator, "/route?userId=alice").await.status == 503).await;
    refused("released").await;
}

/// P9: an outage of the store is survived and told, and everything resumes by itself.
#[tokio::test]
async fn while_the_store_is_away_routes_are_answered_for_ten_leases() {
    let (store, coordinator, _) = cluster(300).await;
    let route = async || get(&coordinator, "/route?userId=alice").await;
    assert_eq!(route().await.status, 200);
    store.cut(true);
    let ready = async || get_admin(&coordinator, "/readyz").await;
    until("readyz says redis", async || ready().await.status == 503).await;
    let redis = ready().await.json()["checks"]["redis"].clone();
    assert!(redis["error"].as_str().unwrap().contains("cut off by the test"), "{redis}");
    assert_eq!(route().await.status, 200, "a lease later the last home is still the best answer");
    let presence = get_as(&coordinator, "/presence?userIds=alice", &service()).await;
    assert_eq!(error_of(&presence), (503, "unavailable".into(), true));
    until("too old to say", async || route().await.status == 503).await;
    let reply = route().await;
    assert_eq!((error_of(&reply).1.as_str(), reply.header("retry-after")), ("unavailable", "3"));
    assert!(get(&coordinator, "/ring").await.header("age").parse::<u64>().unwrap() >= 3);
    store.cut(false);
    until("it resumes", async || {
        route().await.status == 200 && ready().await.json()["checks"]["redis"]["ok"] == true
    })
    .await;
}

async fn set_presence(store: &TestStore, row: &NodeRow, user: &str, chosen: ChosenStatus, gone: bool) {
    let (vnode, user) = (vnode_of(user), UserId::new(user).unwrap());
    let table = store.table().await.unwrap();
    let (epoch, sid, data_set) = (table.rows[&vnode].epoch, row.sid.clone(), table.data_set);
    let activate =
        Activate { data_set, vnode, epoch, sid: sid.clone(), prove: false, held: None, left: None };
    let ActivateAnswer::Activated(activated) = store.activate(&activate).await.unwrap() else {
        panic!("refused")
    };
    let last_seen = (chosen == ChosenStatus::Invisible).then_some(2_000);
    let entry = RosterEntry { chosen, since: 2_000, last_seen, sessions: 2, generation: epoch };
    let seen = gone.then_some(Seen { chosen, since: 3_000, last_seen: 2_500, generation: epoch });
    let op = PresenceOp { user, roster: (!gone).then_some(entry), seen, event: None };
    let (seq, ops): (Seq, _) = (activated.seq, vec![Op::Presence(op)]);
    let write = Write { fence: Fence { vnode, epoch, sid, seq }, now_ms: 5_000, trim: Seq(0), ops };
    assert!(matches!(store.write(&write).await.unwrap(), WriteAnswer::Done { .. }));
}

fn user(id: &str, status: &str, since: Value, last_seen: Value, sessions: u32) -> Value {
    json!({"user_id": id, "status": status, "since": since, "last_seen": last_seen, "sessions": sessions})
}

#[tokio::test]
async fn presence_shows_what_others_may_see_in_the_order_asked() {
    let (store, coordinator, row) = cluster(LONG_TTL).await;
    set_presence(&store, &row, "online", ChosenStatus::Online, false).await;
    set_presence(&store, &row, "away", ChosenStatus::Away, false).await;
    set_presence(&store, &row, "hidden", ChosenStatus::Invisible, false).await;
    set_presence(&store, &row, "gone", ChosenStatus::Online, true).await;
    let path = "/presence?userIds=gone,online,never,hidden,away,online";
    let reply = get_as(&coordinator, path, &service()).await;
    assert_eq!(reply.status, 200);
    let at = |ms| Value::from(rfc3339(ms));
    let expected = json!({"users": [
        user("gone", "offline", at(3_000), at(2_500), 0),
        user("online", "online", at(2_000), Value::Null, 2),
        user("never", "offline", Value::Null, Value::Null, 0),
        user("hidden", "offline", at(2_000), at(2_000), 0),
        user("away", "away", at(2_000), Value::Null, 2),
        user("online", "online", at(2_000), Value::Null, 2),
    ]});
    assert_eq!(reply.json(), expected);
    let many: Vec<String> = (0..500).map(|i| format!("u{i}")).collect();
    let reply = get_as(&coordinator, &format!("/presence?userIds={}", many.join(",")), &service()).await;
    let users = reply.json()["users"].as_array().unwrap().clone();
    assert_eq!(users.iter().map(|u| u["user_id"].as_str().unwrap()).collect::<Vec<_>>(), many);
}

/// Core rule 30.
#[tokio::test]
async fn presence_without_a_ready_home_is_marked_stale() {
    let (store, coordinator, row) = cluster(LONG_TTL).await;
    set_presence(&store, &row, "alice", ChosenStatus::Online, false).await;
    let other = (0..).map(|i| format!("u{i}")).find(|u| vnode_of(u) != vnode_of("alice")).unwrap();
    let table = store.table().await.unwrap();
    let vnode = vnode_of("alice");
    let rows = vec![(vnode, table.rows[&vnode].epoch)];
    store.release(&OwnRows { data_set: table.data_set, sid: row.sid.clone(), rows }).await.unwrap();
    until("the release is known", async || get(&coordinator, "/route?userId=alice").await.status == 503)
        .await;
    let path = format!("/presence?userIds=alice,{other}");
    let users = get_as(&coordinator, &path, &service()).await.json()["users"].clone();
    assert_eq!((&users[0]["status"], &users[0]["stale"]), (&json!("online"), &json!(true)));
    assert_eq!(users[1].get("stale"), None);
}

#[tokio::test]
async fn the_ring_and_the_nodes_are_shown_as_they_are() {
    let store = TestStore::new(LONG_TTL);
    store.open_ring(VNODES).await.unwrap();
    let (one, two) = (node_row("ws-1"), node_row("ws-2"));
    let epochs = own(&store, &one, &[0, 1], true).await;
    own(&store, &two, &[2], false).await;
    // Another leads, so that nothing is planned here but what this test wants.
    let data_set = store.table().await.unwrap().data_set;
    let lead = Lead { data_set: data_set.clone(), token: "the-leader".into(), frozen: None };
    assert_eq!(store.lead(&lead).await.unwrap(), LeadAnswer::Leading);
    let coordinator = coordinator(&store, common::config(VNODES, LONG_TTL)).await;
    // What moves: vnode 1 is on its way to ws-2.
    let targets = vec![(VnodeId(0), one.sid.node()), (VnodeId(1), two.sid.node())];
    let assign = Assign { data_set: data_set.clone(), token: "the-leader".into(), from_version: 0, targets };
    assert!(store.assign(&assign).await.unwrap());
    let version = async || get(&coordinator, "/ring").await.json()["assignment"]["version"] == 1;
    until("the assignment is known", version).await;
    let ring = get(&coordinator, "/ring").await;
    assert_eq!((ring.header("age"), ring.header("access-control-allow-origin")), ("0", "*"));
    let ring = ring.json();
    assert_eq!(
        (&ring["vnodes"], &ring["hash"], &ring["settling"]),
        (&json!(16), &json!("xxh3_64"), &json!(false))
    );
    assert_eq!(ring["data_set"], json!(data_set));
    assert_eq!(ring["assignment"], json!({"version": 1, "targets": 2}));
    assert_eq!(ring["moving"], json!([[1, "ws-2"]]));
    assert_eq!(ring["rows"].as_array().unwrap().len(), 3);
    assert_eq!(ring["rows"][0], json!([0, "ws-1", epochs[0], true]));
    assert_eq!((&ring["rows"][2][1], &ring["rows"][2][3]), (&json!("ws-2"), &json!(false)));
    let nodes = get(&coordinator, "/nodes").await;
    assert!(!nodes.text.contains("7401"), "admin addresses are nobody's business");
    let node = &nodes.json()["nodes"][0];
    assert_eq!((&node["node"], &node["state"], &node["weight"]), (&json!("ws-1"), &json!("up"), &json!(1)));
    assert_eq!(node["vnodes"], json!({"assigned": 1, "owned": 2, "ready": 2}));
    assert_eq!(
        node["load"],
        json!({"sessions": 12, "messages_per_s": 1.5, "accepts_per_s": 500, "at_home": 2, "lag": 3})
    );
    assert_eq!(nodes.json()["nodes"][1]["vnodes"], json!({"assigned": 1, "owned": 1, "ready": 0}));
}

#[tokio::test]
async fn the_admin_port_tells_health_and_metrics() {
    let (_store, coordinator, _) = cluster(LONG_TTL).await;
    get(&coordinator, "/route?userId=alice").await;
    get(&coordinator, "/route").await;
    until("it leads", async || coordinator.is_leading()).await;
    assert_eq!(get_admin(&coordinator, "/healthz").await.status, 200);
    let ready = get_admin(&coordinator, "/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)), "{}", ready.text);
    assert_eq!(get_admin(&coordinator, "/route?userId=alice").await.status, 404);
    let metrics = get_admin(&coordinator, "/metrics").await.text;
    for line in [
        "roost_coordinator_routes_total{result=\"ok\"} 1",
        "roost_coordinator_routes_total{result=\"bad_request\"} 1",
        "roost_coordinator_leader 1",
        "roost_coordinator_ready_vnodes 16",
        "roost_coordinator_nodes 1",
        "roost_http_refused_total{listener=\"public\",reason=\"rate\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_shutdown_closes_the_ports_and_a_drop_does_too() {
    for gently in [true, false] {
        let (store, coordinator, _) = cluster(LONG_TTL).await;
        let (addr, admin) = (coordinator.addr(), coordinator.admin_addr());
        if gently {
            coordinator.shutdown(Duration::from_secs(5)).await;
        } else {
            drop(coordinator);
        }
        let closed = async || {
            let refused = async |addr| tokio::net::TcpStream::connect(addr).await.is_err();
            refused(addr).await && refused(admin).await
        };
        until("both ports are closed", closed).await;
        // Nobody holds the store any more: no task goes on.
        until("every task has ended", async || Arc::strong_count(&store) == 1).await;
    }
}

/// Decision 17: a coordinator of which a part is gone says so. The task that reads the table panics.
#[tokio::test]
async fn a_coordinator_of_which_a_part_is_broken_says_which() {
    let (store, coordinator, _) = cluster(LONG_TTL).await;
    store.break_table();
    let bug = tokio::time::timeout(SOON, coordinator.join()).await.expect("it is noticed");
    assert_eq!(bug, TaskEnded::Panicked("view"));
}

#[tokio::test]
async fn a_ring_of_another_size_or_a_store_out_of_reach_is_refused_at_the_start() {
    let store = TestStore::new(LONG_TTL);
    store.open_ring(64).await.unwrap();
    let bind = async || {
        let dynamic = Arc::clone(&store) as Arc<dyn Store>;
        Coordinator::bind(config(LONG_TTL), dynamic, listener().await, listener().await).await.unwrap_err()
    };
    assert!(matches!(bind().await, BindError::Store(StoreError::Vnodes { found: 64, wanted: 16 })));
    store.cut(true);
    assert!(matches!(bind().await, BindError::Store(StoreError::Unreachable(_))));
}
