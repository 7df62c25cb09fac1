//! Rooms, presence and signals.

use futures_util::future::join;
use roost_client::{ChosenStatus, Event, JoinOptions, Status};
use roost_tests::cluster::{Backend, Cluster, eventually};
use serde_json::json;

use crate::person::{Person, data_of, numbers};
use crate::way::Way;

pub(crate) async fn room_resume(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, cluster.user_at(1).await);
    let (way, room) = (Way::to(&cluster, &bob).await, cluster.room_at(0).await);
    let bob = Person::at(&way.url, &bob).await;
    bob.client.join(&room, JoinOptions::default()).await.expect("joined");
    join(
        async {
            for n in 0..30 {
                alice.client.publish(&room, n).await.expect("confirmed");
            }
        },
        way.cut(&bob.client),
    )
    .await;
    let all = async || Some(bob.messages(true)).filter(|all| all.len() >= 30);
    let got = eventually("all that was published", all).await;
    assert_eq!(got.iter().map(data_of).collect::<Vec<_>>(), numbers(0..30));
    assert_eq!(bob.states(), ["connecting", "connected", "reconnecting", "connected"]);
}

pub(crate) async fn presence_watch(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, Person::home(&cluster, 1).await);
    cluster.presence_is(&bob.name, "online").await;
    let way = Way::to(&cluster, &alice).await;
    let alice = Person::at(&way.url, &alice).await;
    let shown = alice.client.watch([&bob.name]).await.expect("watched");
    assert_eq!(shown.iter().map(|shown| shown.status).collect::<Vec<_>>(), [Status::Online]);
    way.sever(&alice.client).await;
    bob.client.status(ChosenStatus::Away).await.expect("confirmed");
    way.gate.restore();
    let away = |event: &Event| match event {
        Event::Presence(told) => told.iter().any(|shown| shown.status == Status::Away).then_some(()),
        _ => None,
    };
    alice.hears("bob is away", away).await;
}

pub(crate) async fn signals_latest_wins(backend: Backend) {
    const LAST: u64 = 199;
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, Person::home(&cluster, 1).await);
    let signals = || {
        bob.told_of(|event| match event {
            Event::Signal(signal) => Some((signal.from.to_string(), signal.data.get().to_owned())),
            _ => None,
        })
    };
    let last = (alice.name.clone(), LAST.to_string());
    let said = std::cell::Cell::new(0);
    eventually("the last arrives", async || {
        // A signal may be lost, so they are given again.
        if signals().last() != Some(&last) {
            for n in 0..=LAST {
                alice.client.signal_user(&bob.name, "cursor", json!(n)).expect("a signal");
            }
            said.set(said.get() + LAST as usize + 1);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        (signals().last() == Some(&last)).then_some(())
    })
    .await;
    // Which of them were, is a matter of when each was written.
    let heard = signals().len();
    assert!(heard < said.get() / 2, "{heard} of {}: what was overtaken while it waited", said.get());
}
