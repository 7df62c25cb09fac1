//! Events of clients, and the results of processors: out once, back once, whatever happens to homes.

use std::time::Duration;

use roost_proto::claims::Role;
use roost_tests::archive::write;
use roost_tests::cluster::{Backend, Cluster, Record, Setup, eventually, token_of};
use roost_tests::wire::{Wire, request, request_with};
use serde_json::{Value, json};

use crate::cursor_of;
use crate::operations::{metrics, value_of};

async fn give(wire: &mut Wire, id: &str, data: Value) -> Value {
    wire.send(json!({"type": "event", "id": id, "data": data})).await;
    wire.reply(id).await
}

/// What the processor of these tests answers.
fn result(client: &str, event: &str) -> Value {
    json!({"type": "event_accepted", "client_id": client, "event_id": event, "status": "accepted", "data": [1, null]})
}

async fn answer(cluster: &Cluster, client: &str, records: impl IntoIterator<Item = String>) {
    write(&*cluster.log().await, "client_results", client, records).await;
}

/// P2, P4: an event is in the log once, and so is its result in the inbox, to the byte.
/// An event, its repeat, its repeat with another body, and a result that is produced twice, once in other words.
pub(crate) async fn an_event_goes_out_once_and_its_result_comes_once(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let mut events = cluster.tail("client_events").await;
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
    let reply = give(&mut b, "e-1", json!({"buy": 7})).await;
    let at = reply["ok"]["at"].clone();
    assert!(at.is_string(), "{reply}");
    assert_eq!(give(&mut b, "e-1", json!({"buy": 7})).await["ok"]["at"], at);
    assert_eq!(give(&mut b, "e-1", json!({"buy": 8})).await["error"]["code"], "conflict");
    give(&mut b, "e-2", json!("next")).await;
    let records: Vec<Record> = events.records(&bob, 2).await;
    let first = &records[0].value;
    assert_eq!(
        (&first["type"], &first["client_id"], &first["event_id"]),
        (&json!("event"), &json!(bob), &json!("e-1"))
    );
    assert_eq!((&first["data"], &first["created_at"]), (&json!({"buy": 7}), &at));
    assert_eq!(records[1].value["event_id"], "e-2");

    let again =
        json!({"type": "event_accepted", "client_id": bob, "event_id": "e-1", "status": "in other words"});
    let more = json!({"type": "shipped", "client_id": bob, "event_id": "e-1", "result_id": "r-2"});
    let results = [result(&bob, "e-1"), result(&bob, "e-1"), again, more.clone(), result(&bob, "e-2")];
    answer(&cluster, &bob, results.map(|result| result.to_string())).await;
    let message = b.message().await;
    assert_eq!(
        (&message["kind"], &message["from"], &message["id"]),
        (&json!("result"), &json!("#processor"), &json!("e-1"))
    );
    assert_eq!(message["data"], result(&bob, "e-1"));
    let message = b.message().await;
    assert_eq!((&message["id"], &message["data"]), (&json!("r-2"), &more));
    assert_eq!(b.message().await["id"], "e-2", "and nothing in between");
}

/// A result survives the death of its client's home, and a change of device.
/// The home dies between the event and the result; the client is back with another device.
pub(crate) async fn a_result_outlives_the_home_and_finds_another_device(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let bob = cluster.user_at(1).await;
    let (mut phone, welcome) = cluster.connect(&bob, json!({"device": "phone"})).await;
    assert!(give(&mut phone, "e-1", json!(1)).await["ok"].is_object());
    cluster.kill(1);
    answer(&cluster, &bob, [result(&bob, "e-1").to_string()]).await;
    let (mut laptop, _) =
        cluster.connect(&bob, json!({"device": "laptop", "cursor": welcome["cursor"]})).await;
    let message = laptop.message().await;
    assert_eq!((&message["id"], &message["data"]), (&json!("e-1"), &result(&bob, "e-1")));
    laptop.ask("m-1", &bob, json!("last")).await;
    let last = laptop.message().await;
    assert_eq!(last["id"], "m-1", "the result came once");
    let (mut tablet, _) = cluster.connect(&bob, json!({"cursor": welcome["cursor"]})).await;
    assert_eq!(tablet.message().await["id"], "e-1");
    assert_eq!(cursor_of(&tablet.message().await), cursor_of(&last));
}

/// Nobody answers: the client is told, once, also by the next home. A result that comes later is delivered.
pub(crate) async fn an_event_without_a_result_in_time_says_so(backend: Backend) {
    let setup = Setup::new(backend, 3).tune(|_, config| config.core.event_timeout_ms = 1_500);
    let Some(mut cluster) = setup.start().await else { return };
    let bob = cluster.user_at(1).await;
    let (mut b, welcome) = cluster.connect(&bob, json!({})).await;
    assert!(give(&mut b, "e-1", json!(1)).await["ok"].is_object());
    let told = b.message().await;
    assert_eq!(
        (&told["kind"], &told["from"], &told["id"]),
        (&json!("result"), &json!("#timer"), &json!("e-1"))
    );
    assert_eq!((&told["data"]["type"], &told["data"]["event_id"]), (&json!("event_timeout"), &json!("e-1")));
    answer(&cluster, &bob, [result(&bob, "e-1").to_string()]).await;
    assert_eq!(b.message().await["from"], "#processor");
    assert!(give(&mut b, "e-2", json!(2)).await["ok"].is_object());
    cluster.kill(1);
    let (mut b, _) = cluster.connect(&bob, json!({"cursor": welcome["cursor"]})).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let message = b.message().await;
        ids.push((message["from"].clone(), message["id"].clone()));
    }
    let all = [("#timer", "e-1"), ("#processor", "e-1"), ("#timer", "e-2")];
    assert_eq!(ids, all.map(|(from, id)| (json!(from), json!(id))));
}

/// What cannot be delivered holds up nothing: it is skipped, or a dead letter with its reason.
/// Something malformed, with a NUL, too large, for nobody; then a good one.
pub(crate) async fn a_result_nobody_can_take_holds_up_none(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let mut dead = cluster.tail("dead_letters").await;
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let nobody = cluster.user("nobody");
    let large = json!({"type": "t", "client_id": bob, "event_id": "e", "data": "x".repeat(900_000)});
    let records = [
        "{".to_owned(),
        json!({"type": "t", "client_id": "", "event_id": "e"}).to_string(),
        json!({"type": "t", "client_id": bob, "event_id": "e", "data": "\u{0}"}).to_string(),
        large.to_string(),
        result(&nobody, "e-9").to_string(),
        result(&bob, "e-1").to_string(),
    ];
    answer(&cluster, &nobody, records).await;
    assert_eq!(b.message().await["id"], "e-1");
    // Every cluster on this broker has its own readers, and knows as little of nobody.
    let letter = dead.some(&nobody, 1).await.remove(0).value;
    assert_eq!(
        (&letter["topic"], &letter["payload"]),
        (&json!("client_results"), &json!(result(&nobody, "e-9").to_string()))
    );
    assert!(letter["reason"].as_str().is_some_and(|reason| reason.starts_with("unknown client")), "{letter}");
    eventually("all of it is dealt with", async || {
        let mut lags = Vec::new();
        for i in 0..2 {
            let shown = metrics(&cluster, cluster.node(i).admin_addr()).await;
            lags.extend(value_of(&shown, "roost_results_lag{partition=\"0\"}"));
        }
        (lags == [0.0]).then_some(())
    })
    .await;
}

/// The processor played by hand, over HTTP.
pub(crate) async fn tickets_are_listed_and_a_result_can_be_given_over_http(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    assert!(give(&mut b, "e-1", json!(1)).await["ok"].is_object());
    let authorization = format!("Bearer {}", token_of("backend", Role::Service));
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let path = format!("/api/tickets?userId={bob}");
    let open = async || request("GET", cluster.node(1).url(), &path, &headers).await.json()["ok"].clone();
    let waiting = open().await;
    assert_eq!((&waiting["count"], &waiting["tickets"][0]["event_id"]), (&json!(1), &json!("e-1")));
    let elsewhere = request("GET", &cluster.url(), &path, &headers).await;
    assert_eq!(elsewhere.status, 404, "{elsewhere:?}");
    let body = result(&bob, "e-1").to_string();
    let given = request_with("POST", &cluster.url(), "/api/result", &headers, &body).await;
    assert_eq!(given.status, 200, "{}", given.body);
    assert_eq!(b.message().await["data"], result(&bob, "e-1"));
    eventually("nothing waits", async || (open().await["count"] == 0).then_some(())).await;
    let bad = request_with("POST", &cluster.url(), "/api/result", &headers, "{}").await;
    assert_eq!(bad.status, 400, "{}", bad.body);
    tokio::time::timeout(Duration::from_secs(20), b.close()).await.expect("it closes");
}
