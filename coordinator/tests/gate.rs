//! Who may ask a coordinator for what, and how much, on a real listener.

#![allow(clippy::unwrap_used, reason = "what breaks here is the test")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use roost_backend::store::NodeRow;
use roost_coordinator::{Coordinator, CoordinatorConfig, RequestLimits};
use roost_proto::claims::Role;
use roost_service::TrustedProxies;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use warp::Filter;

const VNODES: u32 = 16;
const LONG_TTL: u64 = 60_000;
/// More than the server API of a coordinator does at once, and than operators may.
const MANY: usize = 140;

/// A coordinator of one ready node, whose admin port is at `admin`.
async fn cluster(admin: SocketAddr, change: impl FnOnce(&mut CoordinatorConfig)) -> Coordinator {
    let store = TestStore::new(LONG_TTL);
    roost_backend::store::Store::open_ring(&*store, VNODES).await.unwrap();
    let row = NodeRow { admin: admin.to_string(), ..node_row("ws-1") };
    own(&store, &row, &(0..VNODES as u16).collect::<Vec<_>>(), true).await;
    let mut config = config(VNODES, LONG_TTL);
    change(&mut config);
    coordinator(&store, config).await
}

/// An admin port that answers everything.
async fn willing() -> SocketAddr {
    let listener = listener().await;
    let addr = listener.local_addr().unwrap();
    let all = warp::any().map(|| warp::reply::json(&json!({"ok": {}})));
    tokio::spawn(warp::serve(all).incoming(listener).run());
    addr
}

/// One that takes connections, counts them, and never answers.
async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = listener().await;
    let (addr, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&came);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (addr, came)
}

/// Writes the head of a request and half of what it promises; the connection stays open.
async fn half_a_request(coordinator: &Coordinator, line: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(coordinator.addr()).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n");
    stream.write_all(format!("{head}content-length: 60000\r\n\r\n{{").as_bytes()).await.unwrap();
    stream
}

/// The status of the answer, which must not wait for the rest of the request.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut line = [0; 12];
    timeout(SOON / 4, stream.read_exact(&mut line)).await.expect("it is answered at once").unwrap();
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

async fn post(coordinator: &Coordinator, path: &str, token: &str) -> Reply {
    let url = format!("http://{}{path}", coordinator.addr());
    let asked = reqwest::Client::new().post(url).bearer_auth(token).body("{}");
    Reply::of(asked.send().await.unwrap()).await
}

/// All places of the server API would be taken by bodies that never end, were the token not looked at first.
#[tokio::test]
async fn unfinished_bodies_under_a_token_that_is_no_services_take_no_place() {
    let coordinator = cluster(willing().await, |_| {}).await;
    let user = token("eve", Role::User, None);
    let mut held = Vec::new();
    for (token, refused) in [("junk", 401), (user.as_str(), 403)] {
        for _ in 0..MANY {
            let mut stream = half_a_request(&coordinator, "POST /api/send", token).await;
            assert_eq!(status(&mut stream).await, refused);
            held.push(stream);
        }
    }
    let served = post(&coordinator, "/api/presence", &service()).await;
    assert_eq!((served.status, served.json()), (200, json!({"ok": {}})), "while they are held");
}

/// Of the places of operators there are four, and each may be held as long as a node takes to answer.
#[tokio::test]
async fn a_token_that_is_no_services_takes_no_place_of_operators_and_troubles_no_node() {
    let (admin, came) = silent().await;
    let coordinator = cluster(admin, |_| {}).await;
    let user = token("eve", Role::User, None);
    for line in ["GET /api/explain?user=bob", "POST /api/nodes/ws-1/drain", "DELETE /api/nodes/nobody/drain"]
    {
        for (token, refused) in [("junk", 401), (user.as_str(), 403)] {
            for _ in 0..8 {
                let mut stream = half_a_request(&coordinator, line, token).await;
                assert_eq!(status(&mut stream).await, refused, "{line}");
            }
        }
    }
    assert_eq!(came.load(Ordering::SeqCst), 0, "nobody was asked");
    let mut operators = Vec::new();
    for _ in 0..4 {
        operators.push(half_a_request(&coordinator, "GET /api/explain?user=bob", &service()).await);
    }
    until("four places are for four operators", async || came.load(Ordering::SeqCst) == 4).await;
    let mut one_more = half_a_request(&coordinator, "GET /api/explain?user=bob", &service()).await;
    assert_eq!(status(&mut one_more).await, 429);
    // Nor is a stranger told how busy it is.
    let mut stranger = half_a_request(&coordinator, "GET /api/explain?user=bob", "junk").await;
    assert_eq!(status(&mut stranger).await, 401);
}

#[tokio::test]
async fn presence_is_for_whom_the_token_may_watch_and_sessions_are_for_services() {
    let coordinator = cluster(willing().await, |_| {}).await;
    let ask = async |whom: &str, token: &str| {
        get_as(&coordinator, &format!("/presence?userIds={whom}"), token).await
    };
    let nobody = get(&coordinator, "/presence?userIds=bob").await;
    assert_eq!((nobody.status, &nobody.json()["error"]["code"]), (401, &json!("unauthorized")));
    assert_eq!(get(&coordinator, "/presence?userIds=,").await.status, 401, "not even how to ask");
    assert_eq!(nobody.header("access-control-allow-origin"), "*");
    assert_eq!(ask("bob", "junk").await.status, 401);
    let shown = ask("bob", &service()).await;
    assert_eq!((shown.status, &shown.json()["users"][0]["sessions"]), (200, &json!(0)));
    let anyone = token("alice", Role::User, None);
    let shown = ask("bob,carol", &anyone).await;
    assert_eq!((shown.status, shown.json()["users"][1].get("sessions")), (200, None), "{}", shown.text);
    let team = token("alice", Role::User, Some(&["team-*"]));
    for whom in ["team-7", "alice", "team-7,alice,team-8"] {
        assert_eq!(ask(whom, &team).await.status, 200, "{whom}");
    }
    let refused = ask("team-7,bob,carol", &team).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("forbidden")));
    assert!(refused.text.contains("'bob'"), "{}", refused.text);
}

#[tokio::test]
async fn with_watch_needs_claim_a_token_without_it_shows_oneself_alone() {
    let coordinator = cluster(willing().await, |config| config.watch_needs_claim = true).await;
    for (watch, whom, expected) in [
        (None, "bob", 403),
        (None, "alice", 200),
        (Some(&["b*"][..]), "bob", 200),
        (Some(&[][..]), "alice,bob", 403),
    ] {
        let token = token("alice", Role::User, watch);
        let shown = get_as(&coordinator, &format!("/presence?userIds={whom}"), &token).await;
        assert_eq!(shown.status, expected, "{watch:?} {whom}: {}", shown.text);
    }
}

#[tokio::test]
async fn an_open_presence_needs_no_token_and_tells_no_sessions() {
    let coordinator = cluster(willing().await, |config| config.open_presence = true).await;
    let shown = get(&coordinator, "/presence?userIds=bob").await;
    let nothing = json!({"user_id": "bob", "status": "offline", "since": null, "last_seen": null});
    assert_eq!((shown.status, shown.json()), (200, json!({"users": [nothing]})));
    let narrow = token("alice", Role::User, Some(&[]));
    assert_eq!(get_as(&coordinator, "/presence?userIds=bob", &narrow).await.status, 403, "who says less");
    assert_eq!(get_as(&coordinator, "/presence?userIds=bob", "junk").await.status, 401);
}

fn few() -> RequestLimits {
    RequestLimits { per_s: 1, burst: 12, user_per_s: 1, user_burst: 6 }
}

/// How many of these are answered before the first refusal, which is returned.
async fn before_the_first_refusal(ask: impl AsyncFn() -> Reply) -> (usize, Reply) {
    for answered in 0..100 {
        let reply = ask().await;
        if reply.status == 429 {
            return (answered, reply);
        }
    }
    panic!("nothing is refused")
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_told_429_on_every_path() {
    let coordinator = cluster(willing().await, |config| config.requests = few()).await;
    let (answered, refused) =
        before_the_first_refusal(async || get(&coordinator, "/route?userId=alice").await).await;
    assert!((12..20).contains(&answered), "{answered}");
    assert_eq!(refused.json()["error"]["code"], "rate_limited");
    assert!(refused.json()["error"]["retry_after_ms"].as_u64().unwrap() <= 1_000, "{}", refused.text);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    for path in ["/ring", "/nodes", "/presence?userIds=bob", "/api/history", "/api/explain", "/sdk.js", "/no"]
    {
        let (answered, _) = before_the_first_refusal(async || get(&coordinator, path).await).await;
        assert!(answered < 8, "{path}: {answered} more");
    }
    // A service may do everything, also when others behind its address asked too much.
    for _ in 0..30 {
        assert_eq!(post(&coordinator, "/api/presence", &service()).await.status, 200);
    }
    let metrics = get_admin(&coordinator, "/metrics").await.text;
    let counted =
        |whose: &str| metrics.contains(&format!("roost_coordinator_limited_total{{whose=\"{whose}\"}} 0"));
    assert!(!counted("address") && counted("user"), "{metrics}");
}

#[tokio::test]
async fn a_user_has_a_rate_of_its_own_and_many_users_cost_more() {
    let coordinator = cluster(willing().await, |config| {
        config.requests = RequestLimits { per_s: 0, ..few() };
    })
    .await;
    let (alice, bob) = (token("alice", Role::User, None), token("bob", Role::User, None));
    let ask = async |token: &str, users: usize| {
        let users: Vec<_> = (0..users).map(|i| format!("u{i}")).collect();
        get_as(&coordinator, &format!("/presence?userIds={}", users.join(",")), token).await
    };
    let (answered, refused) = before_the_first_refusal(async || ask(&alice, 1).await).await;
    assert!((6..10).contains(&answered), "{answered}");
    assert!(refused.text.contains("of this user"), "{}", refused.text);
    // 1 + 100 / 50 of six.
    let (answered, _) = before_the_first_refusal(async || ask(&bob, 100).await).await;
    assert!((2..4).contains(&answered), "{answered}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_rate() {
    let coordinator = cluster(willing().await, |config| {
        config.requests = few();
        config.http.trusted_proxies = TrustedProxies::parse("127.0.0.1").unwrap();
    })
    .await;
    let client = reqwest::Client::new();
    let ask = async |forwarded_for: Option<&str>| {
        let mut asked = client.get(format!("http://{}/nodes", coordinator.addr()));
        if let Some(list) = forwarded_for {
            asked = asked.header("x-forwarded-for", list);
        }
        Reply::of(asked.send().await.unwrap()).await
    };
    // What is made up to the left makes nobody another.
    let n = AtomicUsize::new(0);
    let made_up = || format!("198.51.100.{}, 203.0.113.9", n.fetch_add(1, Ordering::SeqCst));
    let (answered, _) = before_the_first_refusal(async || ask(Some(&made_up())).await).await;
    assert!((12..20).contains(&answered), "{answered}");
    assert_eq!(ask(Some("203.0.113.10")).await.status, 200, "over the same connections");
    for _ in 0..30 {
        assert_eq!(ask(None).await.status, 200, "the proxy looks whether it lives");
    }
}

/// Or whoever makes a proxy's word illegible would be as free as the proxy.
#[tokio::test]
async fn requests_for_somebody_whom_a_trusted_proxy_does_not_name_cost_the_proxys_address() {
    let behind_a_proxy = |config: &mut CoordinatorConfig| {
        config.requests = few();
        config.http.trusted_proxies = TrustedProxies::parse("127.0.0.1").unwrap();
    };
    let client = reqwest::Client::new();
    let ask = async |coordinator: &Coordinator, list: Option<&[u8]>| {
        let mut asked = client.get(format!("http://{}/nodes", coordinator.addr()));
        if let Some(list) = list {
            asked = asked.header("x-forwarded-for", list);
        }
        Reply::of(asked.send().await.unwrap()).await
    };
    let coordinator = cluster(willing().await, behind_a_proxy).await;
    // What is no text to the left makes nobody free of limits.
    let (answered, _) =
        before_the_first_refusal(async || ask(&coordinator, Some(b"\xff, 203.0.113.9")).await).await;
    assert!((12..20).contains(&answered), "{answered}");
    assert_eq!(ask(&coordinator, Some(b"\xff, 203.0.113.10")).await.status, 200);
    let (answered, _) = before_the_first_refusal(async || ask(&coordinator, Some(b"\xff")).await).await;
    assert!((12..20).contains(&answered), "{answered}");
    for _ in 0..30 {
        assert_eq!(ask(&coordinator, None).await.status, 200, "the proxy looks whether it lives");
    }
    // By the PROXY protocol: what its client writes into the request is not the proxy's word.
    let coordinator = cluster(willing().await, behind_a_proxy).await;
    let mut refused = 0;
    for i in 0..30 {
        let mut stream = TcpStream::connect(coordinator.addr()).await.unwrap();
        let head = format!("GET /nodes HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 198.51.100.{i}\r\n\r\n");
        stream.write_all(format!("PROXY UNKNOWN\r\n{head}").as_bytes()).await.unwrap();
        refused += usize::from(status(&mut stream).await == 429);
    }
    assert!((10..=18).contains(&refused), "{refused}");
}

#[tokio::test]
async fn without_trusted_proxies_the_header_is_nothing() {
    let coordinator = cluster(willing().await, |config| config.requests = few()).await;
    let client = reqwest::Client::new();
    let n = AtomicUsize::new(0);
    let ask = async || {
        let from = format!("198.51.100.{}", n.fetch_add(1, Ordering::SeqCst));
        let asked = client.get(format!("http://{}/nodes", coordinator.addr()));
        Reply::of(asked.header("x-forwarded-for", from).send().await.unwrap()).await
    };
    assert!((12..20).contains(&before_the_first_refusal(ask).await.0));
}
