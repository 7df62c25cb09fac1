//! The whole client against a fake coordinator and fake nodes over loopback.
#![allow(clippy::unwrap_used)]

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use fake::{
    Coordinator, LIMIT, Node, at, connected, large_message, message, next, next_offset, state, until, welcome,
};
use roost_client::{
    Before, BuildError, ChosenStatus, Client, ConnectError, Event, EventResult, Failure, JoinOptions,
    MessageId, Page, SendError, State, StreamId,
};
use serde_json::json;

/// A JWT nobody signed: the client does not check.
fn jwt(sub: &str) -> String {
    use base64::Engine;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!({"sub": sub}).to_string());
    format!("e30.{claims}.c2ln")
}

#[tokio::test]
async fn a_client_is_routed_welcomed_and_shown_its_messages() {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    let builder = Client::builder(&coordinator.url).token(jwt("alice")).device("phone").cursor(at(41));
    let (client, mut events) = builder.connect().await.unwrap();
    assert_eq!(client.user().as_str(), "alice");
    let (mut socket, connect) = node.connect().await;
    assert_eq!(connect["token"], jwt("alice"));
    assert_eq!(connect["device"], "phone");
    assert_eq!(connect["epoch"], 3);
    assert_eq!(connect["cursor"], json!({"generation": 1, "offset": 41}));
    assert!(coordinator.asked.lock().unwrap()[0].starts_with("GET /route?userId=alice "));

    socket.write(welcome(42, true, 1)).await;
    socket.write(message(42)).await;
    client.connected(LIMIT).await.unwrap();
    assert_eq!(next_offset(&mut events).await, 42);
    assert_eq!(client.cursor(), Some(at(42)), "taken is acknowledged");
    assert_eq!(socket.read_any().await, json!({"type": "ack", "cursor": {"generation": 1, "offset": 42}}));
    socket.write(json!({"type": "presence", "user": "bob", "status": "online"})).await;
    socket.write(message(43)).await;
    assert_eq!(next_offset(&mut events).await, 43, "frames of a newer server are passed over");
    client.close().await;
    assert_eq!(socket.closed().await, 1000);
}

#[tokio::test]
async fn a_send_returns_when_the_reply_is_there() {
    let mut c = connected(|b| b).await;
    let id = MessageId::new("m-1").unwrap();
    let sending = c.client.send_with_id(id.clone(), "bob", json!({"text": "hi"}));
    let (sent, frame) = tokio::join!(sending, c.socket.confirm());
    assert_eq!(frame, json!({"type": "send", "id": "m-1", "to": "bob", "data": {"text": "hi"}}));
    let sent = sent.unwrap();
    assert_eq!((sent.id, sent.at.as_str()), (id, "then"));

    let (status, frame) = tokio::join!(c.client.status(ChosenStatus::Away), c.socket.confirm());
    status.unwrap();
    assert_eq!((&frame["type"], &frame["status"]), (&json!("status"), &json!("away")));

    let refusing = async {
        let send = c.socket.read().await;
        let error = json!({"code": "conflict", "message": "used before", "retryable": false});
        c.socket.write(json!({"type": "reply", "id": send["id"], "error": error})).await;
    };
    let (refused, ()) = tokio::join!(c.client.send("bob", 1), refusing);
    assert!(matches!(refused, Err(SendError::Refused(e)) if e.message == "used before"));
}

#[tokio::test]
async fn history_is_read_page_by_page_one_at_a_time() {
    let mut c = connected(|b| b).await;
    let lobby = StreamId::new("room:lobby").unwrap();
    let before: Before = "1:9".parse().unwrap();
    let pages = futures_util::future::join(
        c.client.history(&lobby, None, Some(2)),
        c.client.history(&lobby, Some(before), None),
    );
    let answering = async {
        let first = c.socket.read().await;
        assert_eq!((&first["stream"], &first["limit"]), (&json!("room:lobby"), &json!(2)));
        let busy = json!({"code": "rate_limited", "message": "", "retryable": true, "retry_after_ms": 10});
        c.socket.write(json!({"type": "reply", "id": first["id"], "error": busy})).await;
        assert_eq!(c.socket.read().await, first, "asked again before anything later");
        let ok = json!({"messages": [message(10), message(9)], "before": "1:9"});
        c.socket.write(json!({"type": "reply", "id": first["id"], "ok": ok})).await;
        let second = c.socket.read().await;
        assert_eq!((&second["before"], second.get("limit")), (&json!("1:9"), None));
        let ok = json!({"messages": [message(8)], "older": true});
        c.socket.write(json!({"type": "reply", "id": second["id"], "ok": ok})).await;
    };
    let ((first, second), ()) = tokio::join!(pages, answering);
    let (first, second) = (first.unwrap(), second.unwrap());
    let offsets = |page: &Page| page.messages.iter().map(|m| m.offset.0).collect::<Vec<_>>();
    assert_eq!((offsets(&first), first.before, first.older), (vec![10, 9], Some(before), false));
    assert_eq!((offsets(&second), second.before, second.older), (vec![8], None, true));

    let answering = async {
        let asked = c.socket.read().await;
        c.socket.write(json!({"type": "reply", "id": asked["id"], "ok": {"messages": ["no message"]}})).await;
    };
    let (wrong, ()) = tokio::join!(c.client.history(&lobby, None, None), answering);
    assert!(matches!(wrong, Err(SendError::Refused(_))), "{wrong:?}");
}

#[tokio::test]
async fn what_the_server_would_not_take_is_refused_here() {
    let c = connected(|b| b).await;
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    assert!(matches!(c.client.send("#bob", 1).await, Err(SendError::Invalid(_))));
    assert!(matches!(c.client.send("bob", deep).await, Err(SendError::Invalid(_))));
    assert!(matches!(c.client.send("bob", "a\0b").await, Err(SendError::Invalid(_))));
    let large = "x".repeat(70_000);
    assert!(matches!(c.client.send("bob", large).await, Err(SendError::TooLarge { max: 65_536, .. })));
}

#[tokio::test]
async fn after_a_lost_socket_the_unanswered_is_repeated_in_order() {
    let mut c = connected(|b| b).await;
    let sends: Vec<_> = (0..3)
        .map(|n| {
            let client = c.client.clone();
            async move { client.send_with_id(MessageId::new(format!("m-{n}")).unwrap(), "bob", n).await }
        })
        .collect();
    let cluster = async {
        let first: Vec<_> = [c.socket.read().await, c.socket.read().await, c.socket.read().await].into();
        drop(c.socket);
        let (mut socket, _) = c.node.welcome(5).await;
        for send in first {
            assert_eq!(socket.confirm().await, send, "equal to the byte, and in order");
        }
        socket
    };
    let (sent, _socket) = tokio::join!(futures_util::future::join_all(sends), cluster);
    assert!(sent.into_iter().all(|s| s.is_ok()));
}

#[tokio::test]
async fn sends_made_offline_go_out_with_the_connection() {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    coordinator.answers("503 Service Unavailable", "retry-after: 0\r\n", "{}");
    let (client, _events) = coordinator.client().queue_max(2).connect().await.unwrap();
    let (one, two) = (client.clone(), client.clone());
    let one = tokio::spawn(async move { one.send("bob", 1).await });
    let two = tokio::spawn(async move { two.send("bob", 2).await });
    // The second question is asked after the first answer was dealt with.
    until(|| coordinator.asked.lock().unwrap().len() >= 2).await;
    let waits = client.connected(Duration::from_millis(1)).await;
    assert!(matches!(waits, Err(ConnectError::TimedOut { trouble: Some(t) }) if t.contains("503")));
    assert_eq!(client.send("bob", 3).await, Err(SendError::QueueFull { max: 2 }));
    coordinator.names(&node);
    let (mut socket, _) = node.welcome(0).await;
    assert_eq!(socket.confirm().await["data"], 1);
    assert_eq!(socket.confirm().await["data"], 2);
    assert!(one.await.unwrap().is_ok() && two.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_send_that_cannot_leave_in_time_is_withdrawn() {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    coordinator.answers("503 Service Unavailable", "", "{}");
    let limit = Duration::from_millis(400);
    let (client, _events) = coordinator.client().send_timeout(limit).connect().await.unwrap();
    assert_eq!(client.send("bob", "late").await, Err(SendError::NotSent));
    coordinator.names(&node);
    let (mut socket, _) = node.welcome(0).await;
    client.connected(LIMIT).await.unwrap();
    let sending = client.send("bob", "now");
    let (unknown, frame) = tokio::join!(sending, socket.read());
    assert_eq!(frame["data"], "now");
    let Err(SendError::Unknown { id }) = unknown else { panic!("{unknown:?}") };
    let (again, ()) = tokio::join!(client.send_with_id(id.clone(), "bob", "now"), async {
        socket.write(json!({"type": "reply", "id": id, "ok": {"at": "then"}})).await;
    });
    assert_eq!(again.unwrap().at, "then", "the same send, not a second one");
}

#[tokio::test]
async fn a_move_is_invisible() {
    let mut c = connected(|b| b).await;
    let mut other = Node::bind().await;
    let moved = json!({"type": "moved", "node": "ws-2", "url": other.url, "epoch": 9, "after_ms": 20});
    c.socket.write(moved).await;
    let (mut socket, connect) = other.connect().await;
    assert_eq!(connect["epoch"], 9);
    c.socket.write(message(6)).await;
    assert_eq!(next_offset(&mut c.events).await, 6, "the old connection still delivers");
    let sending = tokio::spawn({
        let client = c.client.clone();
        async move { client.send("bob", 1).await }
    });
    let mut welcomed = welcome(7, true, 2);
    welcomed["node"] = json!("ws-2");
    socket.write(welcomed).await;
    socket.write(message(6)).await;
    socket.write(message(7)).await;
    assert_eq!(socket.confirm().await["data"], 1);
    sending.await.unwrap().unwrap();
    assert_eq!(c.socket.closed().await, 1000);
    assert_eq!(next_offset(&mut c.events).await, 7);
    let here = state(&c.client, State::is_connected).await;
    assert!(matches!(here, State::Connected { node, .. } if node.as_str() == "ws-2"));
    assert_eq!(c.coordinator.asked.lock().unwrap().len(), 1, "the coordinator was not asked");
}

#[tokio::test]
async fn a_move_to_nowhere_goes_through_the_coordinator() {
    let mut c = connected(|b| b).await;
    let moved =
        json!({"type": "moved", "node": "ws-2", "url": "ws://127.0.0.1:1/socket", "epoch": 9, "after_ms": 0});
    c.socket.write(moved).await;
    let (_socket, _) = c.node.welcome(5).await;
    assert_eq!(c.socket.closed().await, 1000);
    assert_eq!(c.coordinator.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_bad_token_ends_in_failed() {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    let (client, mut events) = coordinator.client().connect().await.unwrap();
    let (socket, _) = node.connect().await;
    socket.close(3500).await;
    let failed = client.connected(LIMIT).await;
    assert!(matches!(failed, Err(ConnectError::Failed(Failure::BadToken(_)))), "{failed:?}");
    assert_eq!(client.send("bob", 1).await, Err(SendError::Closed { sent: false }));
    let mut last = None;
    while let Some(event) = tokio::time::timeout(LIMIT, events.recv()).await.unwrap() {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::State { current: State::Failed(_), .. })), "{last:?}");
}

#[tokio::test]
async fn an_expired_token_is_replaced_through_the_callback() {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    let asked = Arc::new(AtomicU32::new(0));
    let token = move || {
        let n = asked.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, std::io::Error>(if n == 0 { jwt("alice") } else { jwt(&format!("token-{n}")) }) }
    };
    let backoff = Duration::from_millis(5);
    let builder = Client::builder(&coordinator.url).token_fn(token).backoff(backoff, backoff);
    let (client, _events) = builder.connect().await.unwrap();
    let (socket, connect) = node.welcome(0).await;
    assert_eq!(connect["token"], jwt("alice"));
    socket.close(3501).await;
    let (socket, connect) = node.welcome(0).await;
    assert_eq!(connect["token"], jwt("token-1"));
    drop(socket);
    let (socket, connect) = node.connect().await;
    assert_eq!(connect["token"], jwt("token-1"), "a lost socket needs no fresh token");
    socket.close(3500).await;
    let (socket, connect) = node.connect().await;
    assert_eq!(connect["token"], jwt("token-2"));
    socket.close(3500).await;
    state(&client, |s| matches!(s, State::Failed(Failure::BadToken(_)))).await;
}

#[tokio::test]
async fn an_event_gives_its_result_which_outlives_the_connection() {
    let mut c = connected(|b| b).await;
    let client = c.client.clone();
    let asked = tokio::spawn(async move { client.event(json!({"order": 17})).await });
    let event = c.socket.confirm().await;
    assert_eq!((&event["type"], &event["data"]), (&json!("event"), &json!({"order": 17})));
    drop(c.socket);
    let (mut socket, connect) = c.node.welcome(6).await;
    assert_eq!(connect["cursor"]["offset"], 5);
    let mut result = message(6);
    result["kind"] = json!("result");
    result["data"] = json!({"type": "event_accepted", "event_id": event["id"], "data": [1.50]});
    socket.write(result).await;
    let result = asked.await.unwrap().unwrap();
    assert_eq!((result.kind.as_str(), result.data.unwrap().get()), ("event_accepted", "[1.5]"));
    let Event::Message(message) = next(&mut c.events).await else { panic!("not a message") };
    assert_eq!(EventResult::of(&message).unwrap().record, result.record);
}

#[tokio::test]
async fn of_signals_given_at_once_the_latest_goes_out() {
    let mut c = connected(|b| b).await;
    for n in 0..200 {
        c.client.signal_user("bob", "cursor", n).unwrap();
    }
    assert_eq!(c.socket.read().await["data"], 199);
}

#[tokio::test]
async fn an_event_has_a_limit_of_its_own() {
    let mut c = connected(|b| b.event_timeout(Duration::from_millis(50))).await;
    let asking = c.client.event(1);
    let asked = asking.id().clone();
    let (result, event) = tokio::join!(asking, c.socket.confirm());
    let Err(SendError::NoResult { id }) = result else { panic!("{result:?}") };
    assert_eq!((event["id"].as_str(), &asked), (Some(id.as_str()), &id), "the id was known before");
}

#[tokio::test]
async fn a_ping_is_answered() {
    let mut c = connected(|b| b).await;
    c.socket.write(json!({"type": "ping"})).await;
    assert_eq!(c.socket.read().await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_slow_application_loses_nothing() {
    let mut c = connected(|b| b.events_max(4)).await;
    let (client, last) = (c.client.clone(), 3_000);
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    // 24 MB are more than the buffers of both sockets hold: the server is stopped until the application takes.
    let writer = tokio::spawn(async move {
        for offset in 6..=last {
            c.socket.write(large_message(offset, 8_000)).await;
            counter.store(offset, Ordering::Relaxed);
        }
        c.socket
    });
    let mut before = 0;
    while before == 0 || before != written.load(Ordering::Relaxed) {
        before = written.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before < last, "the socket is read although nobody takes");
    assert_eq!(client.cursor(), Some(at(5)), "nothing is acknowledged that was not taken");
    for offset in 6..=last {
        assert_eq!(next_offset(&mut c.events).await, offset);
    }
    let mut socket = writer.await.unwrap();
    assert!(client.state().borrow().is_connected());
    let (sent, _) = tokio::join!(client.send("bob", 1), socket.confirm());
    sent.unwrap();
}

#[tokio::test]
async fn a_gap_is_told_and_a_reconnect_shows_what_was_taken() {
    let mut c = connected(|b| b.manual_ack()).await;
    for offset in 6..=8 {
        c.socket.write(message(offset)).await;
        assert_eq!(next_offset(&mut c.events).await, offset);
    }
    c.client.ack(at(7));
    assert_eq!(c.socket.read_any().await["cursor"]["offset"], 7);
    drop(c.socket);
    let (mut socket, connect) = c.node.connect().await;
    assert_eq!(connect["cursor"]["offset"], 7, "8 was not acknowledged");
    socket.write(welcome(900, false, 0)).await;
    let Event::Gap { from, cursor, through, .. } = next(&mut c.events).await else { panic!("not a gap") };
    assert_eq!((from, cursor, through.as_deref()), (Some(at(8)), at(900), Some("p0")));
    socket.write(message(901)).await;
    assert_eq!(next_offset(&mut c.events).await, 901);
}

#[tokio::test]
async fn a_close_ends_everything() {
    let mut c = connected(|b| b).await;
    let sending = tokio::spawn({
        let client = c.client.clone();
        async move { client.send("bob", 1).await }
    });
    c.socket.read().await;
    c.client.close().await;
    assert_eq!(sending.await.unwrap(), Err(SendError::Closed { sent: true }));
    assert_eq!(c.client.send("bob", 2).await, Err(SendError::Closed { sent: false }));
    assert_eq!(*c.client.state().borrow(), State::Disconnected);
    assert!(matches!(c.client.connected(LIMIT).await, Err(ConnectError::Closed)));
    while let Some(event) = tokio::time::timeout(LIMIT, c.events.recv()).await.unwrap() {
        assert!(matches!(event, Event::State { .. }));
    }
    assert_eq!(c.socket.closed().await, 1000);
}

#[tokio::test]
async fn a_client_that_nobody_holds_ends() {
    let mut c = connected(|b| b).await;
    drop(c.events);
    c.socket.write(message(6)).await;
    let (sent, _) = tokio::join!(c.client.send("bob", 1), c.socket.confirm());
    sent.unwrap();
    assert_eq!(c.client.cursor(), Some(at(5)), "what nobody takes is not acknowledged");
    drop(c.client);
    assert_eq!(c.socket.closed().await, 1000);
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let build = |b: roost_client::Builder| async { b.connect().await.map(|_| ()).unwrap_err() };
    let client = || Client::builder("http://127.0.0.1:1");
    assert!(matches!(build(client()).await, BuildError::NoToken));
    assert!(matches!(build(client().token("e30.e30.c2ln")).await, BuildError::NoUser));
    assert!(matches!(build(client().token(jwt("a")).user("#a")).await, BuildError::Id(_)));
    for none in ["x", "", "undefined", "Bearer e30.e30.c2ln"] {
        assert!(matches!(build(client().token(none)).await, BuildError::NotAToken(_)));
        assert!(matches!(build(client().token(none).user("a")).await, BuildError::NotAToken(_)));
        let asked = client().token_fn(move || async move { Ok::<_, std::io::Error>(none.to_owned()) });
        assert!(matches!(build(asked).await, BuildError::NotAToken(_)));
    }
    let tls = Client::builder("https://h").token(jwt("a")).user("a");
    assert!(matches!(build(tls).await, BuildError::Url { .. }));
    let failing = client().token_fn(|| async { Err::<String, _>("no network") });
    assert!(matches!(build(failing).await, BuildError::Token(e) if e.to_string() == "no network"));
}

/// What the server would refuse is refused before it is sent, by the same check, whatever carries it.
#[tokio::test]
async fn text_that_the_server_refuses_is_not_sent() {
    let c = connected(|b| b).await;
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
    let deep = "[".repeat(200) + &"]".repeat(200);
    for text in [r#""a\u0000b""#, r#"{"a\u0000":1}"#, r#"["x",{"y":"\u0000"}]"#, &deep] {
        let refused = |outcome: Result<(), SendError>| match outcome {
            Err(SendError::Invalid(_)) => {}
            other => panic!("{text}: {other:?}"),
        };
        let (client, data) = (&c.client, raw(text));
        refused(client.send("bob", &data).await.map(drop));
        refused(client.publish("lobby", &data).await.map(drop));
        refused(client.event(&data).await.map(drop));
        refused(client.signal_user("bob", "k", &data));
        refused(client.signal_room("lobby", "k", &data));
    }
    let info = json!({"name": "a\u{0}"});
    let joined = c.client.join("lobby", JoinOptions { info: Some(info), ..JoinOptions::default() }).await;
    assert!(matches!(joined, Err(SendError::Invalid(_))), "{joined:?}");
}
