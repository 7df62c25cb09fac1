//! What stops a client for good.

use roost_client::{ConnectError, Failure, State};
use roost_tests::cluster::{Backend, Cluster, Setup, eventually};
use roost_tests::wire::LIMIT;
use serde_json::json;

use crate::person::{Person, ask, builder};

pub(crate) async fn too_many_sessions(backend: Backend) {
    let setup = Setup::new(backend, 1).tune(|_, config| config.core.sessions_per_user_max = 2);
    let Some(cluster) = setup.start().await else { return };
    let (url, user) = (cluster.url(), cluster.user("alice"));
    let (first, second) = (Person::at(&url, &user).await, Person::at(&url, &user).await);
    let (third, _events) = builder(&url, &user).connect().await.expect("a usable client");
    let failed = third.connected(LIMIT).await;
    assert!(matches!(failed, Err(ConnectError::Failed(Failure::Closed { code: 3504, .. }))), "{failed:?}");
    first.sends(&user, 0..1).await;
    assert_eq!((first.gets(1).await.len(), second.gets(1).await.len()), (1, 1));
}

pub(crate) async fn disconnected_by_server(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let alice = Person::home(&cluster, 0).await;
    ask(&cluster, "/api/disconnect", json!({"user": alice.name, "reason": "closed account"})).await;
    let failed = eventually("it stops", async || match alice.client.state().borrow().clone() {
        State::Failed(failure) => Some(failure),
        _ => None,
    });
    assert_eq!(failed.await, Failure::Closed { code: 3503, reason: "closed account".into() });
}
