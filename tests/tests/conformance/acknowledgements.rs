//! What devices acknowledge, and what nobody does: `undelivered_events`.

use roost_tests::cluster::{Backend, Record, Setup, Tail};
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
pub async fn what_no_device_acknowledges_in_time_is_reported_once(backend: Backend) {
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
pub async fn what_was_due_when_its_home_died_is_reported_once(backend: Backend) {
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
pub async fn what_was_due_when_its_home_stopped_is_reported_once(backend: Backend) {
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
