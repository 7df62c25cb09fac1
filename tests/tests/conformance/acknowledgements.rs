//! What devices acknowledge and users read, and what nobody does: `undelivered_events`, receipts, `read`.

use roost_proto::claims::Role;
use roost_tests::cluster::{Backend, Cluster, Record, Setup, Tail, token_of};
use roost_tests::wire::{Wire, request_with};
use serde_json::{Value, json};

use crate::cursor_of;

/// Long enough for an acknowledgement on the slowest machine, short enough to wait for.
const AFTER_MS: u64 = 2_000;

fn setup(backend: Backend) -> Setup {
    Setup::new(backend, 3).tune(|_, config| config.core.undelivered_after_ms = AFTER_MS)
}

/// The next messages of a user that were reported.
async fn reported(events: &mut Tail, user: &str, count: usize) -> Vec<Value> {
    events.records(user, count).await.into_iter().map(|Record { value, .. }| value["data"].clone()).collect()
}

/// Exactly one record in `undelivered_events` for each message that no device acknowledged, equal to that in
/// `chat_events`.
/// One device acknowledges some of what comes; then nobody is there.
pub(crate) async fn what_no_device_acknowledges_in_time_is_reported_once(backend: Backend) {
    let Some(cluster) = setup(backend).start().await else { return };
    let (mut chat, mut events) =
        (cluster.tail("chat_events").await, cluster.tail("undelivered_events").await);
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut phone, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
    let (mut laptop, _) = cluster.connect(&bob, json!({"device": "laptop"})).await;
    for i in 1..=3 {
        a.ask(&format!("m-{i}"), &bob, json!(i)).await;
        laptop.message().await;
        let cursor = cursor_of(&phone.message().await);
        if i == 2 {
            phone.send(json!({"type": "ack", "cursor": cursor})).await;
        }
    }
    let kept = chat.records(&format!("user:{bob}"), 3).await;
    let told = events.records(&bob, 1).await;
    assert_eq!((&told[0].value, told[0].partition), (&kept[2].value, kept[2].partition));
    // A cursor that is shown acknowledges too, also without a device's name.
    a.ask("m-4", &bob, json!(4)).await;
    let cursor = cursor_of(&phone.message().await);
    phone.close().await;
    laptop.close().await;
    let (last, _) = cluster.connect(&bob, json!({"cursor": cursor})).await;
    a.ask("m-5", &bob, json!(5)).await;
    last.close().await;
    assert_eq!(reported(&mut events, &bob, 1).await, [5]);
}

/// The same across a failover.
/// The reader's home dies between an append and its time; another comes later, which shows that there was only one.
pub(crate) async fn what_was_due_when_its_home_died_is_reported_once(backend: Backend) {
    let Some(mut cluster) = setup(backend).start().await else { return };
    let mut events = cluster.tail("undelivered_events").await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    a.ask("m-1", &bob, json!(1)).await;
    cluster.kill(1);
    assert_eq!(reported(&mut events, &bob, 1).await, [1]);
    a.ask("m-2", &bob, json!(2)).await;
    assert_eq!(reported(&mut events, &bob, 1).await, [2]);
}

/// The same across a planned handover, and what was acknowledged before it stays so.
/// The reader's home stops with one message acknowledged and one not.
pub(crate) async fn what_was_due_when_its_home_stopped_is_reported_once(backend: Backend) {
    let Some(mut cluster) = setup(backend).start().await else { return };
    let mut events = cluster.tail("undelivered_events").await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    a.ask("m-1", &bob, json!(1)).await;
    let cursor = cursor_of(&b.message().await);
    b.send(json!({"type": "ack", "cursor": cursor})).await;
    // Answered in order: the node has the acknowledgement.
    b.choose("s-1", "away").await;
    a.ask("m-2", &bob, json!(2)).await;
    b.message().await;
    cluster.shutdown(1).await;
    assert_eq!(reported(&mut events, &bob, 1).await, [2]);
    a.ask("m-3", &bob, json!(3)).await;
    assert_eq!(reported(&mut events, &bob, 1).await, [3]);
}

/// What is acknowledged while the home is on its way counts, and who said it need not come to the new one.
/// The reader is told to move, acknowledges over the old connection and leaves for good.
pub(crate) async fn what_is_acknowledged_between_two_homes_counts(backend: Backend) {
    let Some(cluster) = setup(backend).start().await else { return };
    let mut events = cluster.tail("undelivered_events").await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    a.send(asking("m-1", &bob)).await;
    let cursor = cursor_of(&b.message().await);
    let auth = format!("Bearer {}", token_of("ops", Role::Service));
    let path = format!("/api/nodes/{}/drain", cluster.name(1));
    let drained = request_with("POST", &cluster.url(), &path, &[("authorization", &auth)], "").await;
    assert_eq!(drained.status, 202);
    b.frame_of("moved").await;
    b.send(json!({"type": "ack", "cursor": cursor})).await;
    // Taken before the end of the connection is.
    b.send(json!({"type": "ping"})).await;
    b.frame_of("pong").await;
    b.close().await;
    assert_eq!(receipt(&mut a).await, (bob.clone(), "delivered".to_owned(), json!(["m-1"])));
    a.ask("m-2", &bob, json!(2)).await;
    assert_eq!(reported(&mut events, &bob, 1).await, [2]);
}

/// The next receipt in somebody's inbox: of whom, what, and which messages.
async fn receipt(wire: &mut Wire) -> (String, String, Value) {
    let message = wire.message().await;
    assert_eq!(message["kind"], "receipt", "{message}");
    let data = &message["data"];
    assert!(data["at"].is_string(), "{message}");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&message["from"]), text(&data["type"]), data["ids"].clone())
}

fn asking(id: &str, to: &str) -> Value {
    json!({"type": "send", "id": id, "to": to, "data": {"text": "hi"}, "receipt": true})
}

/// A sender who asks is told of delivery by the first device, and of reading; who does not ask is told nothing.
/// Two devices of one reader; one of three messages asks for nothing, one comes over HTTP.
pub(crate) async fn a_sender_who_asks_is_told_what_becomes_of_the_message(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut phone, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
    let (mut laptop, _) = cluster.connect(&bob, json!({"device": "laptop"})).await;
    a.send(asking("m-1", &bob)).await;
    assert!(a.reply("m-1").await["ok"].is_object());
    a.ask("m-2", &bob, json!(2)).await;
    let body = json!({"id": "m-3", "to": bob, "from": alice, "data": 3, "receipt": true});
    let authorization = format!("Bearer {}", token_of("backend", Role::Service));
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let sent = request_with("POST", &cluster.url(), "/api/send", &headers, &body.to_string()).await;
    assert_eq!(sent.status, 200, "{}", sent.body);
    let mut last = Value::Null;
    for _ in 1..=3 {
        laptop.message().await;
        last = cursor_of(&phone.message().await);
    }
    phone.send(json!({"type": "ack", "cursor": last})).await;
    assert_eq!(receipt(&mut a).await, (bob.clone(), "delivered".into(), json!(["m-1", "m-3"])));
    laptop.send(json!({"type": "read", "cursor": last})).await;
    assert_eq!(receipt(&mut a).await, (bob.clone(), "read".into(), json!(["m-1", "m-3"])));
    assert_eq!(phone.frame_of("read").await["cursor"], last);
    let (_tablet, welcome) = cluster.connect(&bob, json!({"device": "tablet"})).await;
    assert_eq!(welcome["read"], last, "who connects later knows, too");
}

/// What is owed is told whatever happens to either home.
/// The sender's home dies, then the reader acknowledges, then the reader's home dies, too, before there is another one
/// for the sender.
pub(crate) async fn a_receipt_outlives_both_homes(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, welcome) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
    a.send(asking("m-1", &bob)).await;
    assert!(a.reply("m-1").await["ok"].is_object());
    let cursor = cursor_of(&b.message().await);
    cluster.kill(0);
    b.send(json!({"type": "read", "cursor": cursor})).await;
    // Written after it, or with it.
    b.choose("s-1", "away").await;
    cluster.kill(1);
    let (mut a, _) = cluster.connect(&alice, json!({"cursor": welcome["cursor"]})).await;
    assert_eq!(receipt(&mut a).await, (bob.clone(), "delivered".into(), json!(["m-1"])));
    assert_eq!(receipt(&mut a).await, (bob.clone(), "read".into(), json!(["m-1"])));
    a.ask("a-1", &alice, json!("next")).await;
    assert_eq!(a.message().await["data"], "next", "and there are no others");
}
