//! How connections come and go.

use std::time::Duration;

use futures_util::future::join;
use roost_client::{JoinOptions, State};
use roost_tests::cluster::{Backend, Cluster, eventually};
use serde_json::json;
use tokio::time::sleep;

use crate::person::{Person, ask, data_of, numbers};
use crate::way::Way;

/// Between two messages of a stream that something happens to.
const PACE: Duration = Duration::from_millis(15);

pub(crate) async fn connect(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let alice = Person::home(&cluster, 0).await;
    let State::Connected { node, .. } = alice.client.state().borrow().clone() else {
        panic!("not connected");
    };
    assert_eq!(node.as_str(), cluster.name(0));
    assert_eq!(alice.client.user().as_str(), alice.name);
    let both = async || Some(alice.states()).filter(|states| states.len() > 1);
    assert_eq!(eventually("both states were told", both).await, ["connecting", "connected"]);
}

pub(crate) async fn cut_sockets(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (way, other) = (Way::to(&cluster, &alice).await, Way::to(&cluster, &bob).await);
    let (alice, bob) = (Person::at(&way.url, &alice).await, Person::at(&other.url, &bob).await);
    for from in [0, 40, 80] {
        join(alice.sends(&bob.name, from..from + 40), async {
            way.cut(&alice.client).await;
            other.cut(&bob.client).await;
        })
        .await;
    }
    assert_eq!(bob.gets(120).await, numbers(0..120));
}

pub(crate) async fn retry_after_lost_reply(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, Person::home(&cluster, 1).await);
    let way = Way::to(&cluster, &alice).await;
    let alice = Person::at(&way.url, &alice).await;
    way.gate.mute();
    let (sent, ()) = join(alice.client.send(&bob.name, 1), async {
        let replied = async || (way.gate.answered(r#""type":"reply""#) > 0).then_some(());
        eventually("it is answered", replied).await;
        way.cut(&alice.client).await;
    })
    .await;
    let sent = sent.expect("confirmed");
    alice.sends(&bob.name, 2..3).await;
    assert_eq!(bob.gets(2).await, numbers(1..3));
    let first = &bob.messages(false)[0];
    assert_eq!((&first.id, &first.at), (&sent.id, &sent.at), "the answer to the first copy");
}

pub(crate) async fn moved(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, Person::home(&cluster, 1).await);
    let room = cluster.room_at(1).await;
    bob.client.join(&room, JoinOptions::default()).await.expect("joined");
    ask(&cluster, &format!("/api/nodes/{}/drain", cluster.name(1)), json!({})).await;
    let there =
        |state: &State| matches!(state, State::Connected { node, .. } if node.as_str() == cluster.name(0));
    let mut sent = 0;
    while sent < 30 || !there(&bob.client.state().borrow()) {
        assert!(sent < 2_000, "home does not move");
        alice.sends(&bob.name, sent..sent + 1).await;
        alice.client.publish(&room, sent).await.expect("confirmed");
        sent += 1;
        sleep(PACE).await;
    }
    assert_eq!(bob.gets(sent as usize).await, numbers(0..sent));
    let all = async || Some(bob.messages(true)).filter(|all| all.len() >= sent as usize);
    let published = eventually("all that was published", all).await;
    assert_eq!(published.iter().map(data_of).collect::<Vec<_>>(), numbers(0..sent));
    assert_eq!(bob.states(), ["connecting", "connected", "connected"]);
}

pub(crate) async fn failover(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let (alice, bob) = (Person::home(&cluster, 0).await, Person::home(&cluster, 1).await);
    join(
        async {
            // So many at a time that there are some on the way.
            for from in (0..100).step_by(10) {
                alice.sends(&bob.name, from..from + 10).await;
                sleep(PACE).await;
            }
        },
        async {
            bob.gets(50).await;
            cluster.kill(0);
            cluster.kill(1);
        },
    )
    .await;
    assert_eq!(bob.gets(100).await, numbers(0..100));
    for person in [&alice, &bob] {
        assert_eq!(person.states(), ["connecting", "connected", "reconnecting", "connected"]);
    }
}
