//! Tokens that are refreshed, sessions that give way, pages that may not connect, and the inbox paged back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roost_client::{Client, ErrorCode, Event, Page, SendError, StreamId};
use roost_tests::cluster::{Backend, Cluster, Setup, eventually, now_s, token};
use roost_tests::wire::{Dial, Incoming, Wire, get};
use roost_ws_node::Origins;
use roost_ws_node::core::{SessionPolicy, ShareConfig};
use serde_json::{Value, json};

use crate::operations::{metrics, value_of};
use crate::pump;

/// A session of `user` at home with a token that lives `lives_s` seconds.
async fn short_lived(cluster: &Cluster, user: &str, lives_s: u64) -> Wire {
    let fields = json!({"token": token(user, now_s() + lives_s)});
    let mut wire = Wire::connect(&cluster.route(user).await.url, fields).await;
    assert_eq!(wire.frame().await["type"], "welcome");
    wire
}

/// Waits until node 1 has counted so many.
async fn counted(cluster: &Cluster, event: &str, wanted: f64) {
    let series = format!("roost_session_events_total{{event=\"{event}\"}}");
    eventually(&format!("{wanted} are {event}"), async || {
        let seen = metrics(cluster, cluster.node(1).admin_addr()).await;
        (value_of(&seen, &series) == Some(wanted)).then_some(())
    })
    .await;
}

async fn refresh(wire: &mut Wire, id: &str, token: &str) -> Value {
    wire.send(json!({"type": "refresh", "id": id, "token": token})).await;
    wire.reply(id).await
}

/// A session goes on with a fresh token as if nothing had been.
/// A token of four seconds; told after two; refreshed; still there, and told nothing more, after its end.
pub(crate) async fn a_token_is_refreshed_in_band_and_the_session_outlives_the_first(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let ends_s = now_s() + 4;
    let mut b = short_lived(&cluster, &bob, 4).await;
    let expiring = b.frame_of("token_expiring").await;
    let in_ms = expiring["in_ms"].as_u64().expect("a time");
    assert!((1..=2_500).contains(&in_ms), "half of its life is left: {expiring}");
    let reply = refresh(&mut b, "r-1", &cluster.token(&bob)).await;
    assert_eq!(reply["ok"], json!({}), "{reply}");
    // The end of the first token has to pass.
    while now_s() < ends_s + 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    pump(&mut a, &bob, 1..=3, 0).await;
    for i in 1..=3 {
        let Incoming::Frame(frame) = b.next().await else { panic!("closed") };
        assert_eq!(frame["data"]["i"], i, "nothing but messages: {frame}");
    }
    counted(&cluster, "refreshed", 1.0).await;
}

/// Each fault of a token is `unauthorized`, and changes nothing.
/// Nonsense, another user's, an expired one; then a good one is still taken.
pub(crate) async fn a_token_that_does_not_hold_is_refused_and_the_old_one_goes_on(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let bob = cluster.user("bob");
    let (mut wire, _) = cluster.connect(&bob, json!({})).await;
    let other = cluster.token("somebody-else");
    for (id, token) in
        [("nonsense", "a.b.c".to_owned()), ("other", other), ("expired", token(&bob, now_s() - 1))]
    {
        let error = refresh(&mut wire, id, &token).await["error"].clone();
        assert_eq!((&error["code"], &error["retryable"]), (&json!("unauthorized"), &json!(false)), "{id}");
    }
    let reply = refresh(&mut wire, "good", &cluster.token(&bob)).await;
    assert_eq!(reply["ok"], json!({}), "{reply}");
    assert_eq!(wire.ask("m-1", &bob, json!(1)).await["ok"]["at"].as_str().map(str::len), Some(24));
    // A check of a signature costs: a flood of tokens is slowed, not served.
    let flood = (0..20).map(|i| json!({"type": "refresh", "id": format!("f-{i}"), "token": "a.b.c"}));
    wire.send_all(flood).await;
    let mut codes = Vec::new();
    for i in 0..20 {
        codes.push(wire.reply(&format!("f-{i}")).await["error"]["code"].as_str().map(str::to_owned));
    }
    assert!(codes.contains(&Some("rate_limited".into())), "{codes:?}");
}

/// Who does not refresh is closed with 3501 when the token ends, and not before.
pub(crate) async fn a_token_that_is_not_refreshed_ends_the_session_with_3501(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let bob = cluster.user("bob");
    let mut wire = short_lived(&cluster, &bob, 2).await;
    let ends_s = now_s() + 1;
    assert_eq!(wire.close_code().await.0, 3501);
    assert!(now_s() >= ends_s, "not before its time");
    assert_eq!(wire.frame_of("token_expiring").await["type"], "token_expiring", "after it was told");
}

/// P8 for tokens: an application with a callback sees nothing of it.
/// Tokens of three seconds for eight; the connection is the first one all the time.
pub(crate) async fn the_sdk_refreshes_its_token_without_losing_the_connection(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let asked = Arc::new(AtomicU64::new(0));
    let (counter, user) = (Arc::clone(&asked), bob.clone());
    let builder = Client::builder(cluster.url()).token_fn(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        let token = token(&user, now_s() + 3);
        async move { Ok::<_, std::convert::Infallible>(token) }
    });
    let (client, mut events) = builder.connect().await.expect("a usable client");
    client.connected(Duration::from_secs(20)).await.expect("connected");
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut states, mut i) = (0, 0);
    let began = now_s();
    while now_s() < began + 8 {
        i += 1;
        pump(&mut a, &bob, i..=i, 0).await;
        loop {
            match events.recv().await.expect("it goes on") {
                Event::State { .. } => states += 1,
                Event::Message(message) => {
                    let data: Value = serde_json::from_str(message.data.get()).expect("JSON");
                    break assert_eq!(data["i"], i);
                }
                other => panic!("{other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(states, 2, "connecting, connected, and nothing after that");
    assert!(asked.load(Ordering::Relaxed) >= 4, "a token each one and a half seconds");
    client.close().await;
}

async fn policy(backend: Backend, policy: SessionPolicy) -> Option<Cluster> {
    let set = move |_: usize, config: &mut roost_ws_node::WsNodeConfig| {
        (config.core.session_policy, config.core.sessions_per_user_max) = (policy, 2);
    };
    Setup::new(backend, 2).tune(set).start().await
}

/// `SESSION_POLICY=drop-oldest`: the newcomer is welcome, the oldest is closed with 3504, nobody sees the user go.
pub(crate) async fn the_oldest_session_gives_way_where_the_policy_says_so(backend: Backend) {
    let Some(cluster) = policy(backend, SessionPolicy::DropOldest).await else { return };
    let bob = cluster.user_at(1).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(cluster.connect(&bob, json!({})).await.0);
    }
    assert_eq!(sessions[0].close_code().await.0, 3504);
    assert_eq!(sessions[1].close_code().await.0, 3504);
    for wire in &mut sessions[2..] {
        assert!(wire.ask("m-1", &bob, json!(1)).await["ok"].is_object());
    }
    let shown = cluster.presence_is(&bob, "online").await;
    assert_eq!(shown["sessions"], 2);
    counted(&cluster, "replaced", 2.0).await;
}

/// `SESSION_POLICY=one-per-device`: a device's newest session is its only one; others are limited by their number.
/// A phone that comes back goes on where its first session was, though that one is not known to be gone.
pub(crate) async fn a_device_has_one_session_where_the_policy_says_so(backend: Backend) {
    let Some(cluster) = policy(backend, SessionPolicy::OnePerDevice).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let phone = json!({"device": "phone"});
    let (mut first, _) = cluster.connect(&bob, phone.clone()).await;
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    pump(&mut a, &bob, 1..=1, 0).await;
    let cursor = crate::cursor_of(&first.message().await);
    first.send(json!({"type": "ack", "cursor": cursor})).await;
    pump(&mut a, &bob, 2..=2, 0).await;
    first.message().await;
    let (mut second, welcome) = cluster.connect(&bob, json!({"device": "phone", "cursor": cursor})).await;
    assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(true), &json!(1)));
    assert_eq!(second.message().await["data"]["i"], 2);
    assert_eq!(first.close_code().await.0, 3504);
    let (mut other, _) = cluster.connect(&bob, json!({})).await;
    let url = cluster.route(&bob).await.url;
    let mut third = Wire::connect(&url, cluster.fields(&bob, json!({}))).await;
    assert_eq!(third.close_code().await.0, 3504, "the number holds for those without a device");
    let (_, welcome) = cluster.connect(&bob, phone).await;
    assert_eq!(welcome["type"], "welcome", "a device that is there already needs no more room");
    assert_eq!(second.close_code().await.0, 3504);
    assert!(other.ask("m-1", &bob, json!(1)).await["ok"].is_object());
}

/// `ALLOWED_ORIGINS`: a page is told by the close code that it can see, others by the status; who is no page may come.
pub(crate) async fn pages_of_other_origins_are_turned_away(backend: Backend) {
    let set = |_: usize, config: &mut roost_ws_node::WsNodeConfig| {
        config.access.origins = Origins::parse("https://chat.example.com, https://*.example.org").ok();
    };
    let Some(cluster) = Setup::new(backend, 1).tune(set).start().await else { return };
    let url = cluster.node(0).url().to_owned();
    let bob = cluster.user("bob");
    let dial = |origin: &str| Dial { origin: Some(origin.to_owned()), ..Dial::new(&url) };
    for good in ["https://chat.example.com", "https://a.example.org"] {
        let mut wire = Wire::dial(dial(good)).await.expect("the upgrade is accepted");
        wire.say_connect(cluster.fields(&bob, json!({}))).await;
        assert_eq!(wire.frame().await["type"], "welcome", "{good}");
    }
    let (_, welcome) = cluster.connect(&bob, json!({})).await;
    assert_eq!(welcome["type"], "welcome", "no browser");
    for bad in ["https://evil.example", "null", "http://chat.example.com"] {
        let mut wire = Wire::dial(dial(bad)).await.expect("only then a page sees the code");
        wire.say_connect(cluster.fields(&bob, json!({}))).await;
        assert_eq!(wire.close_code().await.0, 3505, "{bad}");
        let upgrade = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("origin", bad),
        ];
        let answer = get(&url, "/socket", &upgrade).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &json!("forbidden")), "{bad}");
    }
    let seen = metrics(&cluster, cluster.node(0).admin_addr()).await;
    assert_eq!(value_of(&seen, "roost_origins_refused_total"), Some(6.0));
}

/// The hot window is there to be read again, newest first, and nobody else's is.
/// 130 messages, three pages; then the inbox of somebody else.
pub(crate) async fn a_reader_pages_back_through_its_inbox(backend: Backend) {
    let setup = Setup::new(backend, 2).tune(|_, config| config.core.shares = ShareConfig::unlimited());
    let Some(cluster) = setup.start().await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    pump(&mut a, &bob, 1..=130, 10).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let own = format!("user:{bob}");
    let (mut before, mut seen) = (Value::Null, Vec::new());
    for (page, wanted) in [(1, 60), (2, 60), (3, 10)] {
        let id = format!("h-{page}");
        let mut ask = json!({"type": "history", "id": id, "stream": own, "limit": 60});
        if before.is_string() {
            ask["before"] = before.clone();
        }
        b.send(ask).await;
        let reply = b.reply(&id).await;
        let messages = reply["ok"]["messages"].as_array().expect("messages").clone();
        assert_eq!(messages.len(), wanted, "{reply}");
        assert_eq!(reply["ok"]["before"].is_string(), page < 3);
        assert_eq!(reply["ok"]["older"], Value::Null, "the stream began here");
        before = reply["ok"]["before"].clone();
        seen.extend(messages.iter().map(|message| message["data"]["i"].as_u64().expect("a number")));
    }
    assert_eq!(seen, (1..=130).rev().collect::<Vec<u64>>());
    b.send(json!({"type": "history", "id": "h-x", "stream": format!("user:{alice}")})).await;
    assert_eq!(b.reply("h-x").await["error"]["code"], "forbidden");
    // Pages of large messages are as many frames as it takes.
    pump(&mut a, &bob, 131..=133, 40_000).await;
    for _ in 131..=133 {
        b.message().await;
    }
    b.send(json!({"type": "history", "id": "h-l", "stream": own})).await;
    let reply = b.reply("h-l").await;
    assert_eq!(reply["ok"]["messages"].as_array().map(Vec::len), Some(1));
    assert!(reply["ok"]["before"].is_string() && reply.to_string().len() < 66_000);
}

/// By the SDK: the inbox and a room, in which it is not.
/// Three messages in each, in pages of two.
pub(crate) async fn the_sdk_pages_back_through_its_inbox_and_a_room(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (client, _events) = cluster.client(&bob).await;
    let room = cluster.room_at(0).await;
    for n in 1..=3 {
        client.send(&bob, n).await.expect("confirmed");
        client.publish(&room, n).await.expect("confirmed");
    }
    for stream in [format!("user:{bob}"), format!("room:{room}")] {
        let stream = StreamId::new(stream).expect("a stream");
        let first = client.history(&stream, None, Some(2)).await.expect("a page");
        let second = client.history(&stream, first.before, Some(2)).await.expect("another");
        let numbers = |page: &Page| page.messages.iter().map(|m| m.data.get().to_owned()).collect::<Vec<_>>();
        assert_eq!((numbers(&first), numbers(&second)), (vec!["3".into(), "2".into()], vec!["1".into()]));
        assert_eq!((second.before, second.older), (None, false), "the stream began here");
    }
    let others = StreamId::new(format!("user:{alice}")).expect("a stream");
    let refused = client.history(&others, None, None).await.expect_err("not one's own");
    assert!(matches!(refused, SendError::Refused(e) if e.code == ErrorCode::Forbidden));
    client.close().await;
}
