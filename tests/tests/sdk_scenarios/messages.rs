//! What is sent, and what is shown of it.

use futures_util::future::{join, join3};
use roost_client::{ErrorCode, Event, MessageId, SendError, StreamId};
use roost_tests::cluster::{Backend, Cluster, Setup};
use roost_tests::wire::LIMIT;
use roost_ws_node::core::ShareConfig;
use serde_json::json;

use crate::person::{Person, builder, data_of, numbers};
use crate::way::Way;

/// Messages in the hot window.
const WINDOW: u64 = 1_000;

pub(crate) async fn send_and_receive(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, Person::home(&cluster, 1).await);
    let id = MessageId::new("the-same").expect("a message id");
    let send = |data| alice.client.send_with_id(id.clone(), &bob.name, data);
    let first = send(1).await.expect("confirmed");
    assert_eq!(send(1).await, Ok(first));
    let Err(SendError::Refused(error)) = send(2).await else { panic!("other data under the id") };
    assert_eq!(error.code, ErrorCode::Conflict);
    alice.sends(&bob.name, 3..4).await;
    assert_eq!(bob.gets(2).await, [json!(1), json!(3)]);
}

pub(crate) async fn offline_queue(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, Person::home(&cluster, 1).await);
    let way = Way::to(&cluster, &alice).await;
    way.gate.cut();
    let alice = Person::with(builder(&way.url, &alice)).await;
    join(alice.sends(&bob.name, 0..50), async {
        assert!(alice.client.connected(LIMIT / 50).await.is_err());
        way.gate.restore();
    })
    .await;
    assert_eq!(bob.gets(50).await, numbers(0..50));
}

pub(crate) async fn queue_overflow(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, Person::home(&cluster, 1).await);
    let way = Way::to(&cluster, &alice).await;
    way.gate.cut();
    let alice = Person::with(builder(&way.url, &alice).queue_max(2)).await;
    let send = |n| alice.client.send(&bob.name, n);
    let third = async {
        let refused = send(2).await;
        way.gate.restore();
        refused
    };
    let (first, second, third) = join3(send(0), send(1), third).await;
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(third, Err(SendError::QueueFull { max: 2 }));
    alice.sends(&bob.name, 3..4).await;
    assert_eq!(bob.gets(3).await, [json!(0), json!(1), json!(3)]);
}

pub(crate) async fn resume(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, Person::home(&cluster, 1).await);
    alice.sends(&bob.name, 0..3).await;
    bob.gets(3).await;
    bob.client.close().await;
    alice.sends(&bob.name, 3..8).await;
    let cursor = bob.client.cursor().expect("a place");
    let again = Person::with(builder(&cluster.url(), &bob.name).cursor(cursor)).await;
    alice.sends(&bob.name, 8..9).await;
    assert_eq!(again.gets(6).await, numbers(3..9));
}

pub(crate) async fn gap(backend: Backend) {
    let unlimited = Setup::new(backend, 2).tune(|_, config| {
        config.core.commands_per_s = 100_000;
        config.core.commands_burst = 100_000;
        config.core.shares = ShareConfig::unlimited();
    });
    let Some(cluster) = unlimited.start().await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, Person::home(&cluster, 1).await);
    alice.sends(&bob.name, 0..1).await;
    bob.gets(1).await;
    bob.client.close().await;
    let cursor = bob.client.cursor();
    for from in (1..=WINDOW + 1).step_by(100) {
        alice.sends(&bob.name, from..from + 100).await;
    }
    let again = Person::with(builder(&cluster.url(), &bob.name).cursor(cursor.expect("a place"))).await;
    let gap = again.hears("the gap", |event| match event {
        Event::Gap { stream, from, through, .. } => Some((stream.clone(), *from, through.is_some())),
        _ => None,
    });
    assert_eq!(gap.await, (StreamId::inbox(again.client.user()), cursor, true));
    alice.sends(&bob.name, 7_000..7_001).await;
    assert_eq!(again.gets(1).await, [json!(7_000)]);
}

pub(crate) async fn slow_reader(backend: Backend) {
    const SENT: u64 = 150;
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, cluster.user_at(1).await);
    let (client, mut events) =
        builder(&cluster.url(), &bob).events_max(4).connect().await.expect("a usable client");
    client.connected(LIMIT).await.expect("connected");
    let padding = "x".repeat(50_000);
    for n in 0..SENT {
        alice.client.send(&bob, json!({"n": n, "padding": padding})).await.expect("confirmed");
    }
    let acked = client.cursor().map_or(0, |cursor| cursor.offset.0);
    assert_eq!(acked, 0, "nothing is acknowledged that was not taken");
    let mut got = Vec::new();
    while got.len() < SENT as usize {
        let event = tokio::time::timeout(LIMIT, events.recv()).await.expect("in time");
        if let Event::Message(message) = event.expect("the client goes on") {
            got.push(data_of(&message)["n"].clone());
        }
    }
    assert_eq!(got, numbers(0..SENT));
}
