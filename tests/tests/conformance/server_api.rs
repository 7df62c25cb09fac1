//! What back ends of an application ask over HTTP, of a node or of the coordinator.

use std::time::Duration;

use roost_proto::claims::Role;
use roost_tests::cluster::{Backend, Cluster, Setup, token_of};
use roost_tests::wire::{Answer, get, request, request_with};
use serde_json::{Value, json};

use crate::held_log::HeldLog;
use crate::operations::{metrics, value_of};

/// A back end with a service token, and whom it asks.
struct Service {
    url: String,
    authorization: String,
}

impl Service {
    fn at(url: &str) -> Self {
        Self { url: url.to_owned(), authorization: format!("Bearer {}", token_of("backend", Role::Service)) }
    }

    async fn post(&self, command: &str, body: Value) -> Answer {
        let headers = [("authorization", self.authorization.as_str()), ("content-type", "application/json")];
        request_with("POST", &self.url, &format!("/api/{command}"), &headers, &body.to_string()).await
    }

    /// What a command that must work answers.
    async fn done(&self, command: &str, body: Value) -> Value {
        let answer = self.post(command, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["ok"].clone()
    }
}

/// By the coordinator, and by a node itself.
fn services(cluster: &Cluster) -> [Service; 2] {
    [Service::at(&cluster.url()), Service::at(cluster.node(0).url())]
}

fn code(answer: &Answer) -> (u16, String) {
    let error = &answer.json()["error"];
    assert!(error["message"].is_string() && error["retryable"].is_boolean(), "{answer:?}");
    (answer.status, error["code"].as_str().unwrap_or_default().to_owned())
}

/// P2, P4: the same promise as for a session's send.
/// By both ways to ask: a send, its repeat, its repeat with another body; one sender named, one not.
pub(crate) async fn a_message_sent_over_http_arrives_like_any_other_and_a_retry_is_safe(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let mut log = cluster.tail("chat_events").await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    for (i, service) in services(&cluster).into_iter().enumerate() {
        let id = format!("m-{i}");
        let send = json!({"id": id, "to": bob, "data": {"text": "größe"}});
        let at = service.done("send", send.clone()).await["at"].clone();
        assert!(at.is_string());
        let message = b.message().await;
        assert_eq!((&message["id"], &message["from"], &message["at"]), (&json!(id), &json!("backend"), &at));
        assert_eq!(message["data"], json!({"text": "größe"}));
        assert_eq!(service.done("send", send.clone()).await["at"], at, "the same answer");
        let other = json!({"id": id, "to": bob, "data": 2});
        assert_eq!(code(&service.post("send", other).await), (409, "conflict".into()));
        let named = json!({"id": id, "to": bob, "from": alice, "data": 3});
        service.done("send", named).await;
        let message = b.message().await;
        assert_eq!((&message["from"], &message["data"]), (&json!(alice), &json!(3)), "another sender's id");
    }
    let logged = log.records(&format!("user:{bob}"), 4).await;
    let ids: Vec<_> = logged.iter().map(|record| record.value["id"].clone()).collect();
    assert_eq!(ids, ["m-0", "m-0", "m-1", "m-1"]);
    let seen = metrics(&cluster, cluster.node(0).admin_addr()).await;
    let done = value_of(&seen, "roost_api_requests_total{outcome=\"ok\"}");
    assert!(done.is_some_and(|n| n >= 3.0), "those that came to this node directly: {done:?}");
}

/// P3: commands of a batch are done in order, and one that is wrong does not spoil the others.
/// A hundred, with one that cannot be read and a room in the middle.
pub(crate) async fn a_batch_is_done_in_order_and_answered_one_by_one(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let service = Service::at(&cluster.url());
    let send = |i: usize| json!({"type": "send", "id": format!("m-{i}"), "to": bob, "data": i});
    let mut commands: Vec<Value> = (0..100).map(send).collect();
    commands[40] = json!({"type": "send", "id": "no receiver", "data": 1});
    commands[41] = json!({"type": "publish", "id": "p-1", "room": cluster.user("room"), "data": 1});
    let ok = service.done("batch", json!({"commands": commands})).await;
    let results = ok["results"].as_array().expect("results");
    assert_eq!(results.len(), 100);
    for (i, result) in results.iter().enumerate() {
        match i {
            40 => assert_eq!(result["error"]["code"], "bad_request", "{result}"),
            41 => assert_eq!(result["ok"]["cursor"]["offset"], 1, "{result}"),
            _ => assert!(result["ok"]["at"].is_string(), "{i}: {result}"),
        }
    }
    for i in (0..100).filter(|i| ![40, 41].contains(i)) {
        assert_eq!(b.message().await["data"], i);
    }
    let again = service.done("batch", json!({"commands": commands})).await;
    assert_eq!(again["results"][0], results[0], "all of it may be repeated");
    commands.push(send(100));
    assert_eq!(
        code(&service.post("batch", json!({"commands": commands})).await),
        (400, "bad_request".into())
    );
}

/// Every session of the user is closed with 3503 and the reason, asked of a node that has none of them.
pub(crate) async fn a_user_is_disconnected_wherever_it_is(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    for (service, home) in services(&cluster).into_iter().zip([1, 2]) {
        let (bob, carol) = (cluster.user_at(home).await, cluster.user_at(home).await);
        let (mut phone, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
        let (mut tablet, _) = cluster.connect(&bob, json!({"device": "tablet"})).await;
        let (mut c, _) = cluster.connect(&carol, json!({})).await;
        cluster.presence_is(&bob, "online").await;
        let ok = service.done("disconnect", json!({"user": bob, "reason": "the account was closed"})).await;
        assert_eq!(ok, json!({}));
        for wire in [&mut phone, &mut tablet] {
            assert_eq!(wire.close_code().await, (3503, "the account was closed".into()));
        }
        cluster.presence_is(&bob, "offline").await;
        assert!(c.ask("m-1", &carol, json!(1)).await["ok"].is_object(), "nobody else");
        service.done("disconnect", json!({"user": "nobody-was-ever-called-so"})).await;
        let (_, welcome) = cluster.connect(&bob, json!({})).await;
        assert_eq!(welcome["type"], "welcome", "it is no ban");
    }
}

/// What a session can read, a service can, of anybody.
pub(crate) async fn presence_and_history_are_read_over_http(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    crate::pump(&mut a, &bob, 1..=5, 0).await;
    cluster.presence_is(&alice, "online").await;
    for service in services(&cluster) {
        let users = service.done("presence", json!({"users": [alice, bob]})).await["users"].clone();
        assert_eq!((&users[0]["status"], &users[0]["user_id"]), (&json!("online"), &json!(alice)));
        assert_eq!((&users[1]["status"], &users[1]["stale"]), (&json!("offline"), &Value::Null));
        let stream = format!("user:{bob}");
        let page = service.done("history", json!({"stream": stream, "limit": 3})).await;
        let numbers = |page: &Value| -> Vec<u64> {
            let messages = page["messages"].as_array().expect("messages");
            messages.iter().filter_map(|message| message["data"]["i"].as_u64()).collect()
        };
        assert_eq!(numbers(&page), [5, 4, 3]);
        let before = page["before"].as_str().expect("there is more");
        let path = format!("/api/history?stream={stream}&limit=3&before={before}");
        let rest = get(&service.url, &path, &[("authorization", &service.authorization)]).await;
        assert_eq!(rest.status, 200, "{rest:?}");
        assert_eq!((numbers(&rest.json()["ok"]), &rest.json()["ok"]["before"]), (vec![2, 1], &Value::Null));
        let empty = service.done("history", json!({"stream": "room:nobody-is-here"})).await;
        assert_eq!(empty, json!({"messages": []}));
    }
}

/// P2: what is in the log is what was said, to the byte; and so is what is read.
/// Values that a number of 64 bits cannot hold, keys out of order and twice, blanks, an escape; by every way to read.
pub(crate) async fn a_payload_is_text_wherever_it_is_read(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let long = format!("{}.5", "7".repeat(400));
    let payloads = [
        "1e400",
        "-0",
        "1.50",
        r#"{"b": 1,"a":2,"b":3}"#,
        r#""\ud83d\ude00 \/""#,
        long.as_str(),
        "[ 1 , 2 ]",
    ];
    for (i, payload) in payloads.iter().enumerate() {
        a.send_text(&format!(r#"{{"type":"send","id":"m-{i}","to":"{bob}","data":{payload}}}"#)).await;
        assert!(a.reply(&format!("m-{i}")).await["ok"].is_object(), "{payload}");
    }
    let path = format!("/api/history?stream=user:{bob}");
    for service in services(&cluster) {
        let posted = service.post("history", json!({"stream": format!("user:{bob}")})).await;
        let got = get(&service.url, &path, &[("authorization", &service.authorization)]).await;
        for answer in [posted, got] {
            assert_eq!(answer.status, 200, "{answer:?}");
            for payload in payloads {
                assert!(answer.body.contains(&format!("\"data\":{payload}")), "{payload} in {}", answer.body);
            }
        }
        let half = r#"{"id":"m-x","to":"bob","data":"cut \ud83d"}"#;
        let headers = [("authorization", service.authorization.as_str())];
        for (command, body) in [
            ("send", half.to_owned()),
            ("publish", half.replace("to", "room")),
            ("result", format!(r#"{{"type":"t","client_id":"{bob}","event_id":"e","data":"\ude00"}}"#)),
            ("presence", r#"{"users":["b\ud83d"]}"#.to_owned()),
        ] {
            let path = format!("/api/{command}");
            let refused = request_with("POST", &service.url, &path, &headers, &body).await;
            assert_eq!(code(&refused), (400, "bad_request".into()), "{command}");
        }
        let batch = format!(r#"{{"commands":[{}]}}"#, half.replacen('{', r#"{"type":"send","#, 1));
        let answer = request_with("POST", &service.url, "/api/batch", &headers, &batch).await;
        assert_eq!(answer.json()["ok"]["results"][0]["error"]["code"], "bad_request", "{answer:?}");
    }
}

/// Whoever has no service token learns nothing and does nothing; a page may ask with one.
pub(crate) async fn without_a_service_token_nothing_is_done(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let user = format!("Bearer {}", token_of("alice", Role::User));
    for Service { url, authorization } in services(&cluster) {
        for path in ["/api/send", "/api/batch", "/api/disconnect", "/api/no-such-command"] {
            let body = json!({"id": "m-1", "to": "bob", "user": "bob", "data": 1}).to_string();
            let ask = async |headers: &[(&str, &str)]| request_with("POST", &url, path, headers, &body).await;
            assert_eq!(code(&ask(&[]).await), (401, "unauthorized".into()), "{url}{path}");
            assert_eq!(code(&ask(&[("authorization", "Bearer a.b.c")]).await).0, 401, "{url}{path}");
            assert_eq!(
                code(&ask(&[("authorization", &user)]).await),
                (403, "forbidden".into()),
                "{url}{path}"
            );
        }
        let preflight = request("OPTIONS", &url, "/api/send", &[("origin", "https://admin.example")]).await;
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("*")));
        assert!(preflight.header("access-control-allow-methods").is_some_and(|m| m.contains("post")));
        let headers = [("authorization", authorization.as_str()), ("origin", "https://admin.example")];
        let refused = request_with("POST", &url, "/api/send", &headers, "nonsense").await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (400, Some("*")));
    }
}

/// Each limit is refused with its code, and the same by either way.
pub(crate) async fn wrong_requests_get_their_codes(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let large = "x".repeat(65_536);
    let users: Vec<_> = (0..501).map(|i| format!("u{i}")).collect();
    let cases = [
        ("send", json!({"to": "bob", "data": 1}), 400, "bad_request"),
        ("send", json!({"id": "m-1", "to": "#bob", "data": 1}), 400, "bad_request"),
        ("send", json!({"id": "m-1", "to": "bob", "data": "\u{0}"}), 400, "bad_request"),
        ("send", json!({"id": "m-1", "to": "roost.canary.1", "data": 1}), 403, "forbidden"),
        ("send", json!({"id": "m-1", "to": "bob", "from": "roost.canary.1", "data": 1}), 403, "forbidden"),
        ("send", json!(["m-1", "bob", 1]), 400, "bad_request"),
        ("batch", json!([[]]), 400, "bad_request"),
        ("send", json!({"id": "m-1", "to": "bob", "data": large}), 413, "too_large"),
        ("publish", json!({"id": "m-1", "room": "", "data": 1}), 400, "bad_request"),
        ("presence", json!({"users": users}), 400, "bad_request"),
        ("history", json!({"stream": "user:bob", "limit": 101}), 400, "bad_request"),
        ("history", json!({"stream": "user:bob", "before": "yesterday"}), 400, "bad_request"),
        ("disconnect", json!({"user": "bob", "reason": "x".repeat(121)}), 400, "bad_request"),
        ("batch", json!({"commands": []}), 400, "bad_request"),
        ("batch", json!({"commands": [vec!["x"; 300_000]]}), 413, "too_large"),
        ("dance", json!({}), 404, "not_found"),
    ];
    for service in services(&cluster) {
        for (command, body, status, wanted) in &cases {
            let answer = service.post(command, body.clone()).await;
            assert_eq!(code(&answer), (*status, (*wanted).to_owned()), "{} {command}", service.url);
        }
        let authorization = [("authorization", service.authorization.as_str())];
        let read = get(&service.url, "/api/send", &authorization).await;
        assert_eq!(code(&read), (405, "bad_request".into()));
        let nothing = get(&service.url, "/api/history", &authorization).await;
        assert_eq!(code(&nothing), (400, "bad_request".into()));
    }
}

/// P9, P4: what is not in the log is not acknowledged, and a repeat meanwhile waits for the same answer.
/// The log is stopped; the same send is asked for twice, by both ways; then the log goes on.
pub(crate) async fn while_the_log_is_away_nothing_is_promised_and_a_retry_is_safe(backend: Backend) {
    let gate = HeldLog::default();
    let between = gate.clone();
    let Some(cluster) = Setup::new(backend, 2).log(move |log| between.before(log)).start().await else {
        return;
    };
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    gate.close();
    let send = json!({"id": "m-1", "to": bob, "data": 1});
    let asked = services(&cluster).map(|service| {
        let send = send.clone();
        tokio::spawn(async move { service.done("send", send).await })
    });
    assert_eq!(b.message().await["id"], "m-1", "it is in the stream");
    // Longer than a confirm takes when the log takes what it is given.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(asked.iter().all(|answer| !answer.is_finished()), "and not confirmed");
    gate.open();
    let [one, other] = asked;
    let (one, other) = (one.await.expect("an answer"), other.await.expect("an answer"));
    assert!(one["at"].is_string() && one == other);
    let service = Service::at(&cluster.url());
    service.done("send", json!({"id": "m-2", "to": bob, "data": 2})).await;
    assert_eq!(b.message().await["id"], "m-2", "and not m-1 again");
}

/// The coordinator asks another node when one cannot be reached.
/// One of three is killed; every request that follows is answered.
pub(crate) async fn a_request_passes_over_a_node_that_died(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let bob = cluster.user_at(0).await;
    let service = Service::at(&cluster.url());
    cluster.kill(2);
    for i in 0..6 {
        service.done("send", json!({"id": format!("m-{i}"), "to": bob, "data": i})).await;
    }
    let page = service.done("history", json!({"stream": format!("user:{bob}")})).await;
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(6));
}
