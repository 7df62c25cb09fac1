//! Clients' events, and what the customers' processors say to them.

use roost_proto::claims::Role;
use roost_proto::events::CLIENT_EVENTS;
use roost_proto::results::{CLIENT_RESULTS, DEAD_LETTERS};
use roost_tests::archive::{Reader, archive, write};
use roost_tests::cluster::{Backend, Cluster, eventually, now_s, token_of};
use serde_json::{Value, json};

/// An event as a home writes it.
fn event(client: &str, n: u64) -> String {
    let numbers = format!("\"vnode\":3,\"epoch\":{},\"seq\":{n}", now_s());
    let of = format!("\"client_id\":\"{client}\",\"event_id\":\"e-{n}\"");
    format!(
        "{{{numbers},\"type\":\"event\",{of},\"created_at\":\"2026-11-21T06:40:{n:02}.000Z\",\"data\":{{\"n\": {n}}}}}"
    )
}

fn result(client: &str, event: &str, data: &Value) -> String {
    json!({"type": "event_accepted", "client_id": client, "event_id": event, "data": data}).to_string()
}

/// P2, for events: what was accepted is found again, once, with what was said to it.
/// Events and results as homes and processors write them, a copy of each, and pages of two.
pub(crate) async fn a_client_sees_its_events_with_their_results(backend: Backend) {
    let Some((archive, _database)) = archive(&backend).await else { return };
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let (log, bob) = (cluster.log().await, cluster.user("bob"));
    let archiver = cluster.archiver(archive).await;
    let events = [1, 2, 3, 3].map(|n| event(&bob, n));
    write(&*log, CLIENT_EVENTS, &bob, events).await;
    let results = [result(&bob, "e-2", &json!(1)), result(&bob, "e-2", &json!("a copy"))];
    write(&*log, CLIENT_RESULTS, &bob, results.clone()).await;
    let reader = Reader::new(&archiver, cluster.token(&bob));
    let path = format!("/events?userId={bob}&limit=2");
    let page = eventually("they are archived", async || {
        let page = reader.good(&path).await;
        (page["events"][1]["results"].as_array().is_some_and(|results| !results.is_empty())).then_some(page)
    })
    .await;
    assert_eq!(page["user_id"], json!(bob));
    let ids = |page: &Value| -> Vec<Value> {
        page["events"].as_array().expect("events").iter().map(|event| event["event_id"].clone()).collect()
    };
    assert_eq!(ids(&page), ["e-3", "e-2"]);
    let text = reader.text(&path).await;
    let said = format!("\"data\":{{\"n\": 2}},\"results\":[{}]}}", results[0]);
    assert!(text.contains(&said), "as it was written, and the first: {text}");
    assert_eq!(page["events"][0]["created_at"], "2026-11-21T06:40:03.000Z");
    let older = reader.good(&format!("{path}&before={}", page["before"].as_str().expect("more"))).await;
    assert_eq!((ids(&older), &older["before"]), (vec![json!("e-1")], &Value::Null));
    let newer = reader.good(&format!("{path}&after={}", older["after"].as_str().expect("a page"))).await;
    assert_eq!(ids(&newer), ["e-3", "e-2"]);
    archiver.shutdown(std::time::Duration::from_secs(5)).await;
}

/// Promise 4 of the archive, and P9: nothing is dropped without a word.
/// A processor writes what is no result, a node says that it could not place one, and a good one comes after them.
pub(crate) async fn what_a_processor_writes_wrongly_is_a_dead_letter_and_holds_up_nothing(backend: Backend) {
    let Some((archive, _database)) = archive(&backend).await else { return };
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let (log, bob, mark) = (cluster.log().await, cluster.user("bob"), cluster.user("mark"));
    let archiver = cluster.archiver(archive).await;
    let good = result(&bob, "e-1", &json!(mark));
    let bad = [
        (format!("{{\"mark\":\"{mark}\""), "EOF"),
        (json!({"type": "t", "event_id": "e-1", "data": mark}).to_string(), "missing field `client_id`"),
        (result("#nobody", "e-1", &json!(mark)), "client_id: a user id must not start with '#'"),
        (result(&bob, "e-1", &json!(format!("{mark}\0"))), "a text contains U+0000"),
        (result(&bob, "e-1", &json!(format!("{mark}{}", "x".repeat(900_000)))), "900"),
    ];
    let payloads = bad.iter().map(|(payload, _)| payload.clone()).chain([good.clone()]);
    let end = write(&*log, CLIENT_RESULTS, &bob, payloads).await;
    // As the nodes here say it too, of the same record.
    let reason = "unknown client: ";
    let refused = json!({"topic": CLIENT_RESULTS, "partition": 0, "offset": end - 1, "key": bob, "payload": good, "reason": reason});
    let refused = refused.to_string();
    write(&*log, DEAD_LETTERS, &bob, [refused.clone(), refused]).await;
    write(&*log, CLIENT_EVENTS, &bob, [event(&bob, 1)]).await;
    let service = Reader::new(&archiver, token_of("backend", Role::Service));
    let letters = eventually("all are put aside", async || {
        let letters = service.dead_letters(&mark).await;
        (letters.len() > bad.len()).then_some(letters)
    })
    .await;
    let mut reasons: Vec<&str> = letters.iter().map(|l| l["reason"].as_str().expect("a reason")).collect();
    assert!(letters.iter().all(|letter| letter["topic"] == CLIENT_RESULTS), "{reasons:?}");
    let mut expected: Vec<&str> = bad.iter().map(|(_, why)| *why).chain([reason]).collect();
    reasons.sort_unstable();
    expected.sort_unstable();
    assert_eq!(reasons.len(), expected.len());
    assert!(reasons.iter().zip(&expected).all(|(reason, why)| reason.starts_with(why)), "{reasons:?}");
    // Storing it again changes nothing: the archive has taken it from its topic.
    let unknown = |letter: &&Value| letter["reason"].as_str().is_some_and(|why| why.starts_with(reason));
    let unknown = letters.iter().find(unknown).expect("the nodes' letter");
    let (_, answer) = service.post("/api/dead-letters/replay", json!({"ids": [unknown["id"]]})).await;
    assert_eq!(answer["results"][0]["result"], "stored", "{answer}");
    let page = service.good(&format!("/events?userId={bob}")).await;
    assert_eq!(page["events"][0]["results"].as_array().map(Vec::len), Some(1), "{page}");
    for topic in [CLIENT_RESULTS, DEAD_LETTERS, CLIENT_EVENTS] {
        eventually("nothing waits", async || {
            let (_, metrics) = cluster.admin(archiver.admin_addr(), "/metrics").await;
            metrics.contains(&format!("roost_archive_lag_records{{topic=\"{topic}\"}} 0\n")).then_some(())
        })
        .await;
    }
}
