//! What operators look at: health, readiness, metrics.

use roost_tests::cluster::{Backend, Cluster, eventually};
use roost_tests::wire::get;
use serde_json::{Value, json};

use crate::pump;

/// The value of a series, by its name and labels as they are written.
pub(crate) fn value_of(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

pub(crate) async fn metrics(cluster: &Cluster, addr: std::net::SocketAddr) -> String {
    let (status, body) = cluster.admin(addr, "/metrics").await;
    assert_eq!(status, 200);
    body
}

/// What must be true of a metric's value.
type Holds = fn(f64) -> bool;

/// Every metric that the main job promises is there and moves.
/// Two users on different nodes, 20 messages, a repeat and a conflict, and a request without a token.
pub(crate) async fn every_promised_metric_is_there_and_counts(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (_b, _) = cluster.connect(&bob, json!({})).await;
    pump(&mut a, &bob, 1..=20, 0).await;
    a.ask("m-1", &bob, json!({"i": 1, "pad": ""})).await;
    a.ask("m-1", &bob, json!("another")).await;
    assert_eq!(get(&cluster.url(), "/api/history", &[]).await.status, 401);

    let (sender, home) = (cluster.node(0).admin_addr(), cluster.node(1).admin_addr());
    // Counters are told once a tick; so it is enough to see each of them get there.
    let promised: [(_, &str, Holds); 22] = [
        (home, "roost_kafka_consumer_lag", |v| v >= 0.0),
        (home, "roost_ws_connections", |v| v == 1.0),
        (home, "roost_redis_commands_total", |v| v > 20.0),
        (sender, "roost_messages_total{kind=\"sent\"}", |v| v == 22.0),
        (home, "roost_messages_total{kind=\"appended\"}", |v| v == 20.0),
        (home, "roost_messages_total{kind=\"duplicate\"}", |v| v == 1.0),
        (home, "roost_messages_total{kind=\"conflict\"}", |v| v == 1.0),
        (home, "roost_messages_total{kind=\"delivered\"}", |v| v == 20.0),
        (home, "roost_messages_total{kind=\"status_event\"}", |v| v >= 1.0),
        (home, "roost_append_seconds_count", |v| v >= 1.0),
        (home, "roost_append_seconds_bucket{le=\"+Inf\"}", |v| v >= 1.0),
        (home, "roost_delivery_seconds_count", |v| v == 20.0),
        (sender, "roost_reply_seconds_count", |v| v >= 20.0),
        (home, "roost_vnodes_owned", |v| v == 32.0),
        (home, "roost_vnodes_ready", |v| v == 32.0),
        (home, "roost_lease_age_seconds", |v| v >= 0.0),
        (home, "roost_outbox_depth", |v| v == 0.0),
        (sender, "roost_channel_depth", |v| v == 0.0),
        (home, "roost_view_age_seconds", |v| v >= 0.0),
        (cluster.coordinator().admin_addr(), "roost_coordinator_routes_total{result=\"ok\"}", |v| v >= 4.0),
        (
            cluster.coordinator().admin_addr(),
            "roost_coordinator_api_requests_total{result=\"refused\"}",
            |v| v == 1.0,
        ),
        (cluster.coordinator().admin_addr(), "roost_coordinator_ready_vnodes", |v| v == 64.0),
    ];
    for (addr, series, wanted) in promised {
        eventually(&format!("{series} is right"), async || {
            value_of(&metrics(&cluster, addr).await, series).filter(|value| wanted(*value))
        })
        .await;
    }
    // Each with its help and type, and none twice.
    for addr in [home, cluster.coordinator().admin_addr()] {
        let text = metrics(&cluster, addr).await;
        let named = |word: &str| {
            let mut names: Vec<_> = text
                .lines()
                .filter_map(|l| l.strip_prefix(word)?.split(' ').next())
                .map(str::to_owned)
                .collect();
            names.sort_unstable();
            names
        };
        let (helped, typed) = (named("# HELP "), named("# TYPE "));
        assert_eq!(helped, typed);
        assert!(helped.iter().all(|name| name.starts_with("roost_")), "{helped:?}");
        assert!(helped.windows(2).all(|pair| pair[0] != pair[1]), "{helped:?}");
    }
}

/// P9: `/healthz` says that a process lives, `/readyz` what it depends on.
/// Looked at on a running cluster, and on a node that is told to leave.
pub(crate) async fn every_process_says_whether_it_lives_and_is_ready(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let node = cluster.node(0);
    let processes =
        [(node.admin_addr(), vec!["kafka", "node", "redis"]), (cluster.coordinator().admin_addr(), vec![])];
    for (addr, checks) in processes {
        assert_eq!(cluster.admin(addr, "/healthz").await.0, 200);
        let body = eventually("it is ready", async || {
            let (status, body) = cluster.admin(addr, "/readyz").await;
            (status == 200).then_some(body)
        });
        let body: Value = serde_json::from_str(&body.await).expect("JSON");
        assert_eq!((&body["ready"], &body["draining"]), (&json!(true), &json!(false)));
        for check in checks {
            assert_eq!(body["checks"][check]["ok"], true, "{body}");
        }
        assert_eq!(cluster.admin(addr, "/nothing").await.0, 404);
    }
    // Never on the public port.
    for path in ["/metrics", "/readyz", "/healthz"] {
        assert_eq!(get(node.url(), path, &[]).await.status, 404);
        assert_eq!(get(&cluster.url(), path, &[]).await.status, 404);
    }

    node.health().drain();
    let (status, body) = cluster.admin(node.admin_addr(), "/readyz").await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["draining"]), (503, &json!(true)));
    assert_eq!(cluster.admin(node.admin_addr(), "/healthz").await.0, 200, "it lives until it has left");
}

/// `/ring` and `/nodes` say the same as `/route`.
/// Every row is ready, at a node that is up.
pub(crate) async fn ring_and_nodes_say_who_has_what(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let ring = get(&cluster.url(), "/ring", &[]).await.json();
    let nodes = get(&cluster.url(), "/nodes", &[]).await.json();
    assert_eq!((&ring["vnodes"], &ring["hash"]), (&json!(64), &json!("xxh3_64")));
    let rows = ring["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 64);
    assert!(rows.iter().all(|row| row[3] == true), "{ring}");
    let alice = cluster.user("alice");
    let home = cluster.route(&alice).await;
    assert!(rows.contains(&json!([home.vnode, home.node, home.epoch, true])), "{ring}");
    let nodes = nodes["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        let i = cluster.index(node["node"].as_str().expect("a name"));
        assert_eq!((&node["url"], &node["state"]), (&json!(cluster.node(i).url()), &json!("up")));
        assert_eq!(node["vnodes"]["owned"], node["vnodes"]["ready"]);
    }
}
