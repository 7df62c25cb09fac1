//! Tokens that end, allow less, or are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roost_client::{Builder, Client, ConnectError, ErrorCode, Event, Failure, JoinOptions, UserId};
use roost_proto::Claims;
use roost_proto::claims::Role;
use roost_tests::cluster::{Backend, Cluster, eventually, now_s, sign, token};
use roost_tests::wire::LIMIT;
use serde_json::json;

use crate::person::Person;

/// Longer than what a client takes for expired, and soon over: it is told after half of it.
const SHORT_S: u64 = 7;

/// A client whose callback gives these tokens, the last one again and again; and how often it was asked.
fn with_tokens(
    cluster: &Cluster,
    make: impl Fn(usize) -> String + Send + Sync + 'static,
) -> (Builder, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let ask =
        move || std::future::ready(Ok::<_, std::io::Error>(make(count.fetch_add(1, Ordering::Relaxed))));
    (Client::builder(cluster.url()).token_fn(ask), asked)
}

pub(crate) async fn token_expiry(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let user = cluster.user("alice");
    let lives = |asked| if asked == 0 { SHORT_S } else { 600 };
    let (builder, asked) = with_tokens(&cluster, {
        let user = user.clone();
        move |n| token(&user, now_s() + lives(n))
    });
    let alice = Person::with(builder).await;
    alice.client.connected(LIMIT).await.expect("connected");
    tokio::time::sleep(Duration::from_secs(SHORT_S + 1)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    alice.sends(&user, 0..1).await;
    assert_eq!(alice.states(), ["connecting", "connected"]);
}

pub(crate) async fn narrower_token(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (bob, room) = (Person::home(&cluster, 1).await, cluster.user("room"));
    let sub = UserId::new(cluster.user("alice")).expect("a user's id");
    let (builder, asked) = with_tokens(&cluster, move |asked| {
        let all = Some(if asked == 1 { vec![] } else { vec!["*".to_owned()] });
        let exp = now_s() + if asked < 2 { SHORT_S } else { 600 };
        sign(&Claims { sub: sub.clone(), exp, role: Role::User, rooms: all.clone(), watch: all })
    });
    let alice = Person::with(builder).await;
    alice.client.join(&room, JoinOptions::default()).await.expect("joined");
    alice.client.watch([&bob.name]).await.expect("watched");
    let room_lost = |event: &Event| match event {
        Event::RoomLost { room, error } => Some((room.to_string(), error.code)),
        _ => None,
    };
    assert_eq!(alice.hears("the room is lost", room_lost).await, (room.clone(), ErrorCode::Forbidden));
    let watch_lost = |event: &Event| match event {
        Event::WatchLost { user, error } => Some((user.to_string(), error.code)),
        _ => None,
    };
    let lost = alice.hears("bob is not watched any more", watch_lost).await;
    assert_eq!(lost, (bob.name.clone(), ErrorCode::Forbidden));
    eventually("it may join again", async || alice.client.join(&room, JoinOptions::default()).await.ok())
        .await;
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    alice.client.watch([&bob.name]).await.expect("watched again");
    bob.client.publish(&room, json!("again")).await.expect("confirmed");
    eventually("it is shown", async || (alice.messages(true).len() == 1).then_some(())).await;
    assert_eq!(alice.states(), ["connecting", "connected"]);
}

pub(crate) async fn bad_token(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let good = token(&cluster.user("alice"), now_s() + 600);
    let (builder, asked) = with_tokens(&cluster, move |_| format!("{}AAAAA", &good[..good.len() - 5]));
    let (client, _events) = builder.connect().await.expect("a usable client");
    let failed = client.connected(LIMIT).await;
    assert!(matches!(failed, Err(ConnectError::Failed(Failure::BadToken(_)))), "{failed:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
