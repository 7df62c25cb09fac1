//! What clients are answered.

use std::sync::Arc;

use reqwest::StatusCode;
use roost_backend::log::Log;
use roost_proto::claims::Role;
use roost_proto::events::CHAT_EVENTS;
use roost_tests::archive::{Reader, archive, write};
use roost_tests::cluster::{Backend, Cluster, Setup, eventually, token_for, token_of};
use roost_tests::wire::{begin, request_with};
use serde_json::{Value, json};

/// P5: who is told `recovered:false` reads the history through the point it was given, and has missed nothing.
/// A hot window of a few messages, and a reader with a cursor from another life.
pub(crate) async fn what_left_the_hot_window_is_in_the_history_through_the_point_that_was_named(
    backend: Backend,
) {
    let Some((archive, _database)) = archive(&backend).await else { return };
    let named = |_: usize, config: &mut roost_ws_node::WsNodeConfig| {
        config.core.archive_url = Some("http://history.example".into());
    };
    let Some(cluster) = Setup::new(backend, 2).tune(named).start().await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let mut shown = Vec::new();
    for i in 0..30 {
        // Blanks and escapes stay as they are.
        a.ask(&format!("m-{i}"), &bob, json!({"i": i, "t": "ä\u{1F980}\n"})).await;
        shown.push(b.message().await);
    }
    let cursor = json!({"generation": 1, "offset": 7});
    let (_b, welcome) = cluster.connect(&bob, json!({"cursor": cursor})).await;
    assert_eq!(welcome["recovered"], false, "{welcome}");
    let through = welcome["through"].as_str().expect("where the history ends");
    // Only now is there an archiver: until it has caught up it says so.
    let archiver = cluster.archiver(archive).await;
    let reader = Reader::new(&archiver, cluster.token(&bob));
    assert_eq!(reader.history(&format!("user:{bob}"), through).await, shown);

    let text = reader.text(&format!("/history?stream=user:{bob}&limit=1")).await;
    assert!(text.starts_with("{\"messages\":[{\"type\":\"message\",\"stream\":"), "as it was sent: {text}");

    // In both directions, and to what comes later.
    let page = reader.good(&format!("/history?stream=user:{bob}&limit=30")).await;
    assert_eq!(page["before"], Value::Null, "{page}");
    let after = page["after"].as_str().expect("a page that has something");
    a.ask("later", &bob, json!("later")).await;
    let later = eventually("it is archived", async || {
        let page = reader.good(&format!("/history?stream=user:{bob}&after={after}")).await;
        page["messages"].as_array().filter(|messages| !messages.is_empty()).cloned()
    })
    .await;
    assert_eq!((later.len(), &later[0]["id"]), (1, &json!("later")));
    archiver.shutdown(std::time::Duration::from_secs(5)).await;
}

/// Rights: the own inbox, the rooms of the token, everything for a service; and what is wrong is named.
pub(crate) async fn the_history_is_for_those_who_may_read_the_stream(backend: Backend) {
    let Some((archive, _database)) = archive(&backend).await else { return };
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let archiver = cluster.archiver(archive).await;
    let (bob, service) = (cluster.user("bob"), token_of("backend", Role::Service));
    let own = Reader::new(&archiver, cluster.token(&bob));
    let member = Reader::new(&archiver, token_for(&bob, &["team-*"]));
    let service = Reader::new(&archiver, service);
    let stranger = Reader::new(&archiver, "no token".into());
    let inbox = format!("/history?stream=user:{bob}");
    let at = format!("/presence/at?userId={bob}&at=2026-11-21T06:40:00Z");
    let presence = format!("/presence/history?userId={bob}");
    let events = format!("/events?userId={bob}");
    for (reader, path, status) in [
        (&own, inbox.as_str(), 200),
        (&own, "/history?stream=user:somebody", 403),
        (&own, "/history?stream=room:team-1", 403),
        (&member, "/history?stream=room:team-1", 200),
        (&member, "/history?stream=room:other", 403),
        (&service, &inbox, 200),
        (&service, "/history?stream=room:other", 200),
        (&stranger, &inbox, 401),
        (&own, &at, 200),
        (&own, &presence, 200),
        (&own, "/presence/history?userId=somebody", 403),
        (&service, &presence, 200),
        (&own, &events, 200),
        (&own, "/events?userId=somebody", 403),
        (&service, "/events?userId=somebody", 200),
        (&stranger, &events, 401),
        (&own, "/api/dead-letters", 403),
        (&service, "/api/dead-letters", 200),
        (&own, "/nowhere", 404),
        (&own, "/api/dead-letters/replay", 405),
        (&service, &format!("{inbox}&through=7:1000000000"), 503),
    ] {
        let (answered, body) = reader.ask(path).await;
        assert_eq!(answered.as_u16(), status, "{path}: {body}");
    }
    for (path, name) in [
        ("/history".to_owned(), "stream"),
        ("/history?stream=nowhere".to_owned(), "stream"),
        (format!("{inbox}&limit=0"), "limit"),
        (format!("{inbox}&limit=501"), "limit"),
        (format!("{inbox}&before=yesterday"), "before"),
        (format!("{inbox}&before=1:1&after=1:1"), "after"),
        (format!("{inbox}&through=soon"), "through"),
        (format!("/presence/at?userId={bob}"), "at"),
        (format!("/presence/at?userId={bob}&at=noon"), "at"),
        ("/events".to_owned(), "userId"),
        (format!("{events}&before=yesterday"), "before"),
        (format!("{presence}&from=2026-11-21T06:40:00Z&to=2026-11-20T06:40:00Z"), "to"),
    ] {
        let (status, body) = own.ask(&path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(message.starts_with(name), "{path}: {message}");
    }
}

/// P6, afterwards: a user comes, is away, and goes.
pub(crate) async fn who_was_there_when_is_known_afterwards(backend: Backend) {
    let Some((archive, _database)) = archive(&backend).await else { return };
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let archiver = cluster.archiver(archive).await;
    let bob = cluster.user("bob");
    let reader = Reader::new(&archiver, cluster.token(&bob));
    let (wire, _) = cluster.connect(&bob, json!({})).await;
    let online = cluster.presence_is(&bob, "online").await;
    drop(wire);
    let offline = cluster.presence_is(&bob, "offline").await;
    let path = format!("/presence/history?userId={bob}");
    let changes = eventually("both changes are archived", async || {
        let page = reader.good(&path).await;
        page["changes"].as_array().filter(|changes| changes.len() == 2).cloned()
    })
    .await;
    assert_eq!((&changes[0]["status"], &changes[1]["status"]), (&json!("offline"), &json!("online")));
    assert_eq!((&changes[0]["since"], &changes[1]["since"]), (&offline["since"], &online["since"]));
    let at = async |time: &Value| {
        let time = time.as_str().expect("a time");
        reader.good(&format!("/presence/at?userId={bob}&at={time}")).await
    };
    assert_eq!(at(&changes[1]["at"]).await["status"], "online");
    assert_eq!(at(&changes[0]["at"]).await["status"], "offline");
    let before = at(&json!("2026-01-01T00:00:00Z")).await;
    assert_eq!((&before["status"], &before["since"]), (&json!("offline"), &Value::Null));
    let page = reader.good(&format!("{path}&limit=1")).await;
    let older = reader.good(&format!("{path}&before={}", page["before"].as_str().expect("more"))).await;
    assert_eq!(older["changes"], json!([changes[1]]));
}

/// A record that nobody can read, and one with a NUL, hold up nothing and are not lost.
pub(crate) async fn what_cannot_be_kept_is_a_dead_letter_that_operators_see(backend: Backend) {
    let Some((archive, _database)) = archive(&backend).await else { return };
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let log: Arc<dyn Log> = cluster.log().await;
    let mark = cluster.user("mark");
    let nul = format!(
        "{{\"stream\":\"user:{mark}\",\"generation\":1,\"offset\":1,\"id\":\"m\",\"kind\":\"message\",\
         \"from\":\"a\\u0000b\",\"at\":\"2026-11-21T06:40:00Z\",\"data\":1}}"
    );
    let end = write(&*log, CHAT_EVENTS, "key", [format!("{mark} \u{0}"), nul]).await;
    let archiver = cluster.archiver(archive).await;
    let service = Reader::new(&archiver, token_of("backend", Role::Service));
    service.good(&format!("/history?stream=user:{mark}&through=0:{end}")).await;
    let ours = service.dead_letters(&mark).await;
    let reasons: Vec<_> = ours.iter().map(|l| l["reason"].as_str().expect("a reason")).collect();
    assert!(
        reasons.len() == 2 && reasons[0].contains("not a record") && reasons[1].contains("NUL"),
        "{reasons:?}"
    );
    let ids = json!({"ids": [ours[0]["id"], ours[1]["id"]]});
    let (_, answer) = service.post("/api/dead-letters/replay", ids.clone()).await;
    assert_eq!(
        (&answer["results"][0]["result"], &answer["results"][1]["result"]),
        (&json!("refused"), &json!("refused"))
    );
    let (_, answer) = service.post("/api/dead-letters/discard", ids).await;
    assert_eq!(answer["results"][1]["result"], "discarded", "{answer}");
    let (_, metrics) = cluster.admin(archiver.admin_addr(), "/metrics").await;
    let dead = "roost_archive_records_total{as=\"dead\",topic=\"chat_events\"}";
    assert!(metrics.lines().any(|line| line.starts_with(dead) && !line.ends_with(" 0")), "{metrics}");
    eventually("nothing waits", async || {
        let (_, metrics) = cluster.admin(archiver.admin_addr(), "/metrics").await;
        metrics.contains("roost_archive_lag_records{topic=\"chat_events\"} 0\n").then_some(())
    })
    .await;
    let ready = cluster.admin(archiver.admin_addr(), "/readyz").await;
    assert_eq!(ready.0, 200, "{}", ready.1);
}

/// A token is looked at before a place is taken and before a body is read, in every program.
/// More bodies that never end than there are places, under tokens that allow nothing; then somebody who may.
pub(crate) async fn who_may_not_ask_takes_no_place_of_those_who_may(backend: Backend) {
    let Some((archive, _database)) = archive(&backend).await else { return };
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let archiver = cluster.archiver(archive).await;
    let (user, service) = (cluster.token("eve"), token_of("backend", Role::Service));
    let at_archiver = format!("http://{}", archiver.addr());
    let mut held = Vec::new();
    for (url, line) in [
        (at_archiver.as_str(), "POST /api/dead-letters/replay"),
        (&at_archiver, "POST /api/dead-letters/discard"),
        (cluster.node(0).url(), "POST /api/send"),
        (&cluster.url(), "POST /api/send"),
    ] {
        for (token, refused) in [("junk", 401), (user.as_str(), 403)] {
            for _ in 0..140 {
                let (answer, stream) = begin(line, url, token).await;
                assert_eq!(answer.status, refused, "{line} at {url}: {answer:?}");
                held.push(stream);
            }
        }
    }
    let reader = Reader::new(&archiver, service.clone());
    reader.good("/api/dead-letters").await;
    let headers = [("authorization", &*format!("Bearer {service}"))];
    for url in [cluster.node(0).url(), &cluster.url()] {
        let answer = request_with("POST", url, "/api/presence", &headers, "{\"users\":[\"bob\"]}").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    drop(held);
    archiver.shutdown(std::time::Duration::from_secs(5)).await;
}
