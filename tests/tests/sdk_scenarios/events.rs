//! Events and their results.

use std::time::Duration;

use roost_client::{EventResult, MessageId, SendError};
use roost_tests::cluster::{Backend, Cluster, Setup, eventually};
use serde_json::json;
use tokio::time::sleep;

use crate::person::{Person, ask};
use crate::way::Way;

/// After this a processor that sees no effect answers again.
const REPEAT: Duration = Duration::from_secs(1);

/// Answers an event as a processor does.
async fn answer(cluster: &Cluster, user: &str, event: &MessageId) {
    let result =
        json!({"type": "event_accepted", "client_id": user, "event_id": event, "status": "ok", "data": 7});
    ask(cluster, "/api/result", result).await;
}

/// The results among the messages of the inbox, once there are so many.
async fn results(person: &Person, n: usize) -> Vec<EventResult> {
    eventually("the results are in the inbox", async || {
        let results: Vec<_> = person.messages(false).iter().filter_map(EventResult::of).collect();
        Some(results).filter(|results| results.len() >= n)
    })
    .await
}

pub(crate) async fn event_result(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 2).await else { return };
    let mut events = cluster.tail("client_events").await;
    let user = cluster.user_at(0).await;
    let way = Way::to(&cluster, &user).await;
    let cut = Person::at(&way.url, &user).await;
    let bereft = Person::home(&cluster, 0).await;
    for person in [&cut, &bereft] {
        let processor = async {
            let record = events.records(&person.name, 1).await.remove(0).value;
            let id = MessageId::new(record["event_id"].as_str().expect("a text")).expect("a message id");
            if person.name == user {
                way.sever(&person.client).await;
            } else {
                cluster.kill(0);
            }
            loop {
                answer(&cluster, &person.name, &id).await;
                way.gate.restore();
                // Nodes of other tests on this broker may take it for one of theirs; a copy is not shown.
                sleep(REPEAT).await;
            }
        };
        let result = tokio::select! {
            result = person.client.event(json!({"order": 17})) => result,
            () = processor => unreachable!("it goes on"),
        };
        let result = result.expect("a result");
        assert_eq!((result.kind.as_str(), result.status.as_deref()), ("event_accepted", Some("ok")));
        assert_eq!(result.data.as_ref().map(|data| data.get()), Some("7"));
        assert_eq!(results(person, 1).await, [result]);
    }
}

pub(crate) async fn event_timeout(backend: Backend) {
    let setup = Setup::new(backend, 2).tune(|_, config| config.core.event_timeout_ms = 1_000);
    let Some(cluster) = setup.start().await else { return };
    let alice = Person::home(&cluster, 0).await;
    let Err(SendError::TimedOut { id }) = alice.client.event(1).await else { panic!("nobody answered") };
    answer(&cluster, &alice.name, &id).await;
    let results = results(&alice, 2).await;
    let kinds: Vec<_> = results.iter().map(|result| (result.kind.as_str(), &result.event_id)).collect();
    assert_eq!(kinds, [("event_timeout", &id), ("event_accepted", &id)]);
}
