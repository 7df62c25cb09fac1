//! Events and their results.

use futures_util::future::join;
use roost_client::{EventResult, MessageId, SendError};
use roost_tests::cluster::{Backend, Cluster, Setup, eventually};
use serde_json::{Value, json};

use crate::person::{Person, ask};
use crate::way::Way;

/// How long a cluster waits for a result.
const EVENT_TIMEOUT_MS: u64 = 2_000;

async fn cluster(backend: Backend) -> Option<Cluster> {
    Setup::new(backend, 2).tune(|_, config| config.core.event_timeout_ms = EVENT_TIMEOUT_MS).start().await
}

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

pub async fn event_result(backend: Backend) {
    let Some(cluster) = cluster(backend).await else { return };
    let mut events = cluster.tail("client_events").await;
    let user = cluster.user_at(0).await;
    let way = Way::to(&cluster, &user).await;
    let alice = Person::at(&way.url, &user).await;
    let ids = ["e-1", "e-2"].map(|id| MessageId::new(id).expect("a message id"));
    for id in &ids {
        let (result, ()) = join(alice.client.event_with_id(id.clone(), json!({"order": 17})), async {
            assert_eq!(events.records(&user, 1).await[0].value["event_id"], id.as_str());
            way.sever(&alice.client).await;
            answer(&cluster, &user, id).await;
            way.gate.restore();
        })
        .await;
        let EventResult { kind, event_id, status, data, .. } = result.expect("a result");
        assert_eq!((kind.as_str(), status.as_deref(), &event_id), ("event_accepted", Some("ok"), id));
        assert_eq!(data.map(|data| data.get().to_owned()), Some(Value::from(7).to_string()));
    }
    let told: Vec<_> = results(&alice, 2).await.into_iter().map(|result| result.event_id).collect();
    assert_eq!(told, ids);
}

pub async fn event_timeout(backend: Backend) {
    let Some(cluster) = cluster(backend).await else { return };
    let alice = Person::home(&cluster, 0).await;
    let Err(SendError::TimedOut { id }) = alice.client.event(1).await else { panic!("nobody answered") };
    answer(&cluster, &alice.name, &id).await;
    let results = results(&alice, 2).await;
    let kinds: Vec<_> = results.iter().map(|result| (result.kind.as_str(), &result.event_id)).collect();
    assert_eq!(kinds, [("event_timeout", &id), ("event_accepted", &id)]);
}
