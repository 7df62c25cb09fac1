//! What operators do to a running cluster, and how it protects itself while nodes come and go.

use roost_proto::claims::Role;
use roost_service::TaskEnded;
use roost_tests::broken::Broken;
use roost_tests::cluster::{Backend, Cluster, Setup, eventually, token_of};
use roost_tests::wire::{Answer, LIMIT, request};
use roost_ws_node::Ended;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::held_log::HeldLog;
use crate::operations::{metrics, value_of};
use crate::{cursor_of, pump};

/// A request to the coordinator with a token of this role.
async fn operate(cluster: &Cluster, role: Role, method: &str, path: &str) -> Answer {
    let token = format!("Bearer {}", token_of("ops", role));
    request(method, &cluster.url(), path, &[("authorization", &token)]).await
}

/// What `/nodes` says of one node.
async fn row(cluster: &Cluster, i: usize) -> Value {
    let nodes = request("GET", &cluster.url(), "/nodes", &[]).await.json();
    let of = |node: &&Value| node["node"] == cluster.name(i);
    nodes["nodes"].as_array().and_then(|nodes| nodes.iter().find(of)).cloned().expect("the node is listed")
}

/// What `/nodes` says of one node, if it is listed.
async fn listed(cluster: &Cluster, i: usize) -> Option<Value> {
    let nodes = request("GET", &cluster.url(), "/nodes", &[]).await.json();
    nodes["nodes"].as_array()?.iter().find(|node| node["node"] == cluster.name(i)).cloned()
}

/// A name that will not come back leaves nothing behind; the others keep what they have.
/// One of three is stopped, another is killed.
pub(crate) async fn what_a_node_leaves_behind_that_is_gone_is_removed(backend: Backend) {
    let Some(mut cluster) = Setup::new(backend, 3).forget_after_s(3).start().await else { return };
    let log = cluster.log().await;
    let topics: Vec<_> = (0..3).map(|i| format!("messages-{}", cluster.name(i))).collect();
    cluster.shutdown(2).await;
    eventually("it is listed as one that left", async || {
        let left = row(&cluster, 2).await;
        (left["state"] == "revoked" && left["gone"]["left"] == true).then_some(())
    })
    .await;
    cluster.kill(1);
    for i in [2, 1] {
        eventually("its row goes", async || listed(&cluster, i).await.is_none().then_some(())).await;
        eventually("its topic goes", async || log.end(&topics[i], 0).await.is_err().then_some(())).await;
    }
    assert!(log.end(&topics[0], 0).await.is_ok() && listed(&cluster, 0).await.is_some());
    eventually("both are counted", async || {
        let text = metrics(&cluster, cluster.node(0).admin_addr()).await;
        (value_of(&text, "roost_topics_removed_total") == Some(2.0)).then_some(())
    })
    .await;
    cluster.settled().await;
}

/// Decision 17: a node of which a part is gone does not stay, ready and deaf; it ends as if it had been killed.
/// The reader of its own topic panics.
pub(crate) async fn a_node_of_which_a_part_is_broken_says_which_and_the_others_take_over(backend: Backend) {
    let broken = Broken::new("ws-1");
    let log = broken.clone();
    let Some(mut cluster) = Setup::new(backend, 2).log(move |under| log.before(under)).start().await else {
        return;
    };
    let mut server = cluster.take(0);
    assert_eq!(server.failed(), None);
    broken.now();
    let ended = timeout(LIMIT, server.join()).await.expect("it is noticed");
    assert_eq!(ended, Ended::Bug(TaskEnded::Panicked("inbox")));
    // As the program does.
    drop(server);
    cluster.settled().await;
}

/// P7, P8: a node is emptied while it runs, its users are told where to go, and it can be taken back.
/// One of three, with a session that gets messages meanwhile.
pub(crate) async fn a_drained_node_gives_everything_away_stays_and_can_be_taken_back(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let mut events = cluster.tail("user_status_events").await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    pump(&mut a, &bob, 1..=1, 0).await;
    let cursor = cursor_of(&b.message().await);
    let path = format!("/api/nodes/{}/drain", cluster.name(1));
    for (role, status, code) in [(Role::User, 403, "forbidden"), (Role::Service, 202, "")] {
        let answer = operate(&cluster, role, "POST", &path).await;
        let said = answer.json();
        let shown = said["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((answer.status, shown), (status, code), "{said}");
    }
    assert_eq!(request("POST", &cluster.url(), &path, &[]).await.status, 401);
    let unknown = operate(&cluster, Role::Service, "POST", "/api/nodes/nobody/drain").await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("not_found")));

    let moved = b.frame_of("moved").await;
    pump(&mut a, &bob, 2..=5, 0).await;
    let url = moved["url"].as_str().expect("a URL");
    let fields = cluster.fields(&bob, json!({"cursor": cursor, "epoch": moved["epoch"]}));
    let mut there = roost_tests::wire::Wire::connect(url, fields).await;
    assert_eq!(there.frame().await["recovered"], true);
    for i in 2..=5 {
        assert_eq!(there.message().await["data"]["i"], i);
    }
    b.close().await;
    eventually("the node is empty, and everything is at home elsewhere", async || {
        let row = row(&cluster, 1).await;
        (row["state"] == "draining" && row["vnodes"]["owned"] == 0 && row["load"]["sessions"] == 0)
            .then_some(())
    })
    .await;
    let (status, body) = cluster.admin(cluster.node(1).admin_addr(), "/readyz").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(cluster.presence(&bob).await["status"], "online");

    let before = cluster.ring_moves().await;
    assert_eq!(operate(&cluster, Role::Service, "DELETE", &path).await.status, 202);
    eventually("it has its share again", async || {
        let row = row(&cluster, 1).await;
        (row["state"] == "up" && row["vnodes"]["ready"] == 21).then_some(())
    })
    .await;
    let moves = cluster.ring_moves().await - before;
    assert_eq!(moves, 21.0, "P7: a third of 64, and nothing else moved");
    eventually("it says that it is ready", async || {
        (cluster.admin(cluster.node(1).admin_addr(), "/readyz").await.0 == 200).then_some(())
    })
    .await;
    let told = events.records(&bob, 1).await;
    assert_eq!(told[0].value["status"], "online");
    assert_eq!(cluster.presence(&bob).await["since"], told[0].value["since"], "P8: it never flapped");
}

/// Where a message is and why, from the sender to the reader.
/// The log is stopped, so that it waits; then it goes on.
pub(crate) async fn explain_says_where_a_message_and_a_user_are_and_why(backend: Backend) {
    let gate = HeldLog::default();
    let between = gate.clone();
    let Some(cluster) = Setup::new(backend, 2).log(move |log| between.before(log)).start().await else {
        return;
    };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (_b, welcome) = cluster.connect(&bob, json!({"device": "phone"})).await;
    let explain = async |query: String| {
        let answer = operate(&cluster, Role::Service, "GET", &format!("/api/explain?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["nodes"].clone()
    };
    gate.close();
    a.say("x-1", &bob, json!("hi")).await;
    let (sender, home) = (cluster.name(0).to_owned(), cluster.name(1).to_owned());
    let nodes = eventually("it waits for the log", async || {
        let nodes = explain("id=x-1".into()).await;
        (nodes[&home]["found"][0]["place"] == "appended, in the outbox").then_some(nodes)
    })
    .await;
    let waits = &nodes[&sender]["found"][0];
    assert_eq!((&waits["place"], &waits["from"]), (&json!("in the sender's channel"), &json!(alice)));
    assert!(waits["why"].as_str().is_some_and(|why| why.contains(&home)), "{waits}");
    let why = nodes[&home]["found"][0]["why"].as_str().expect("a reason");
    assert!(why.contains("log"), "{why}");
    gate.open();
    assert!(a.reply("x-1").await["ok"].is_object());

    let nodes = explain(format!("id=x-1&to={bob}")).await;
    assert_eq!((&nodes[&sender]["found"], &nodes[&home]["found"]), (&json!([]), &json!([])));
    let kept = &nodes[&home]["kept"];
    assert_eq!((&kept["entries"][0]["offset"], &kept["entries"][0]["from"]), (&json!(1), &json!(alice)));
    assert_eq!(kept["sessions"][0]["sent"], 1, "and handed to the session: {kept}");
    let nodes = explain(format!("user={bob}")).await;
    let (shown, session) = (&nodes[&home]["home"], &nodes[&home]["sessions"][0]);
    assert_eq!((&shown["phase"], &shown["status"]), (&json!("ready"), &json!("online")), "{shown}");
    assert_eq!((&session["session"], &session["device"]), (&welcome["session"], &json!("phone")));
    assert!(nodes[&sender]["home"].is_null());
    for query in ["", "user=a&id=b", "user=%01"] {
        let answer = operate(&cluster, Role::Service, "GET", &format!("/api/explain?{query}")).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("bad_request")), "{query}");
    }
    assert_eq!(operate(&cluster, Role::User, "GET", "/api/explain?user=a").await.status, 403);
}

/// P9: a message of each node's own goes through the whole path; its age says whether messages get through.
/// The log is stopped for a while.
pub(crate) async fn the_age_of_the_canary_tells_whether_messages_get_through(backend: Backend) {
    let gate = HeldLog::default();
    let between = gate.clone();
    let setup = Setup::new(backend, 2).tune(|_, config| config.core.canary_every_ms = 100);
    let Some(cluster) = setup.log(move |log| between.before(log)).start().await else { return };
    let age = async |i: usize| {
        let text = metrics(&cluster, cluster.node(i).admin_addr()).await;
        value_of(&text, "roost_canary_age_seconds").expect("the metric is there")
    };
    let fresh = async |what: &str| {
        for i in 0..2 {
            eventually(what, async || (age(i).await < 0.5).then_some(())).await;
        }
    };
    fresh("the canaries of both nodes come back").await;
    gate.close();
    eventually("the age grows while the log is away", async || (age(0).await > 1.5).then_some(())).await;
    gate.open();
    fresh("they come back again").await;
}

/// A node dies; its users are asked to come one after the other, as fast as their new homes take them.
/// The homes take 10 a second, so that a storm needs few users.
pub(crate) async fn the_users_of_a_dead_node_are_asked_to_come_one_after_the_other(backend: Backend) {
    let setup = Setup::new(backend, 2).tune(|_, config| config.core.accepts_per_s = 10);
    let Some(mut cluster) = setup.start().await else { return };
    let mut users = Vec::new();
    let mut sessions = Vec::new();
    for i in 0..200 {
        let user = cluster.user(&format!("u{i}"));
        if users.len() < 40 && cluster.route(&user).await.node == cluster.name(1) {
            sessions.push(cluster.connect(&user, json!({})).await);
            users.push(user);
        }
    }
    eventually("the coordinator knows of them", async || {
        (row(&cluster, 1).await["load"]["sessions"] == users.len()).then_some(())
    })
    .await;
    cluster.kill(1);
    let delays = eventually("their new home is ready", async || {
        let mut delays = Vec::new();
        for user in &users {
            let route = request("GET", &cluster.url(), &format!("/route?userId={user}"), &[]).await;
            let body = route.json();
            let there = route.status == 200 && body["node"] == cluster.name(0);
            delays.push(there.then(|| body["connect_after_ms"].as_u64())??);
        }
        Some(delays)
    })
    .await;
    let longest = delays.iter().max().copied().unwrap_or(0);
    let seconds: std::collections::BTreeSet<u64> = delays.iter().map(|ms| ms / 1000).collect();
    assert!((1_500..=4_100).contains(&longest) && seconds.len() >= 2, "40 at 10 a second: {delays:?}");
    let admin = cluster.coordinator().admin_addr();
    let shown = value_of(&metrics(&cluster, admin).await, "roost_coordinator_connect_delay_seconds");
    assert!(shown.is_some_and(|s| s > 0.0), "{shown:?}");
}
