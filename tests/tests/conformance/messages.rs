//! Private messages: sent, answered, delivered, resumed.

use roost_tests::cluster::{Backend, Cluster, Setup};
use roost_tests::wire::{Dial, Incoming, Wire};
use roost_ws_node::core::ShareConfig;
use serde_json::{Value, json};

use crate::{cursor_of, pump};

/// The hot window (`STREAM_MAX_LEN`).
const WINDOW: u64 = 1_000;
/// Large enough that what the kernel holds for a reader that stopped is a small part of what is sent to it.
const LARGE: usize = 8 * 1024;

/// Without the limits of a session, which others are about.
fn unlimited(backend: Backend, nodes: usize) -> Setup {
    Setup::new(backend, nodes).tune(|_, config| {
        config.core.commands_per_s = 100_000;
        config.core.commands_burst = 100_000;
        config.core.shares = ShareConfig::unlimited();
    })
}

/// P2 and P3 at their plainest.
/// Two conversations cross between two nodes, each message awaited before the next.
pub(crate) async fn two_users_on_different_nodes_exchange_messages_both_ways_with_replies(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, welcome) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    assert_eq!((&welcome["node"], &welcome["user"]), (&json!(cluster.name(0)), &json!(alice)));
    for i in 1..=20 {
        let (there, back) = (format!("a-{i}"), format!("b-{i}"));
        let reply = a.ask(&there, &bob, json!({"text": "hi", "i": i})).await;
        assert!(reply["ok"]["at"].is_string() && reply.get("error").is_none(), "{reply}");
        assert!(reply["ok"].get("cursor").is_none(), "how much mail bob gets is none of alice's business");
        let message = b.message().await;
        let expected = json!({
            "type": "message", "stream": format!("user:{bob}"), "generation": message["generation"], "offset": i,
            "id": there, "kind": "message", "from": alice, "at": reply["ok"]["at"],
            "data": {"text": "hi", "i": i},
        });
        assert_eq!(message, expected);
        b.ask(&back, &alice, json!([i])).await;
        assert_eq!(a.message().await["data"], json!([i]));
    }
}

/// P3 within one session.
/// Many sends at once, to users of every node, without waiting for replies.
pub(crate) async fn sends_of_one_session_arrive_in_order_without_waiting_for_replies(backend: Backend) {
    let Some(cluster) = unlimited(backend, 3).start().await else { return };
    let (mut a, _) = cluster.connect(&cluster.user_at(0).await, json!({})).await;
    let mut receivers = Vec::new();
    for node in 0..3 {
        let user = cluster.user_at(node).await;
        receivers.push((user.clone(), cluster.connect(&user, json!({})).await.0));
    }
    let frames = (0..80).flat_map(|i| {
        let sends = receivers.iter().map(move |(user, _)| (format!("{i}-{user}"), user.clone(), i));
        sends.map(|(id, to, i)| json!({"type": "send", "id": id, "to": to, "data": i})).collect::<Vec<_>>()
    });
    a.send_all(frames).await;
    for (user, wire) in &mut receivers {
        for i in 0..80 {
            assert_eq!(wire.message().await["data"], i);
            assert!(a.reply(&format!("{i}-{user}")).await["ok"].is_object());
        }
    }
}

/// P5: a client that shows a cursor gets every later message exactly once.
/// Messages come before, between and after two sessions.
pub(crate) async fn a_reconnect_with_the_cursor_gets_exactly_what_was_missed_in_order(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, welcome) = cluster.connect(&bob, json!({})).await;
    assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(true), &json!(0)));
    pump(&mut a, &bob, 1..=3, 0).await;
    for _ in 1..=2 {
        b.message().await;
    }
    let cursor = cursor_of(&b.message().await);
    b.close().await;
    pump(&mut a, &bob, 4..=10, 0).await;

    let (mut b, welcome) = cluster.connect(&bob, json!({"cursor": cursor})).await;
    assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(true), &json!(7)));
    assert_eq!(welcome["cursor"], json!({"generation": cursor["generation"], "offset": 10}));
    assert!(welcome.get("through").is_none(), "{welcome}");
    pump(&mut a, &bob, 11..=12, 0).await;
    for i in 4..=12 {
        let message = b.message().await;
        assert_eq!((&message["data"]["i"], &message["offset"]), (&json!(i), &json!(i)));
    }
}

/// P5: without a cursor a session starts at what its device acknowledged last.
/// The device acknowledges, closes, and is back at once, without a cursor.
pub(crate) async fn a_known_device_without_a_cursor_resumes_from_what_it_acked(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut phone, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
    pump(&mut a, &bob, 1..=5, 0).await;
    phone.message().await;
    let second = cursor_of(&phone.message().await);
    phone.send(json!({"type": "ack", "cursor": second})).await;
    phone.close().await;
    let (mut phone, welcome) = cluster.connect(&bob, json!({"device": "phone"})).await;
    assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(true), &json!(3)));
    for i in 3..=5 {
        assert_eq!(phone.message().await["data"]["i"], i);
    }
    // A cursor that is shown counts as an ack as well.
    let fifth = json!({"generation": second["generation"], "offset": 5});
    phone.close().await;
    let (phone, welcome) = cluster.connect(&bob, json!({"device": "phone", "cursor": fifth})).await;
    assert_eq!(welcome["replayed"], 0);
    phone.close().await;
    let (_, welcome) = cluster.connect(&bob, json!({"device": "phone"})).await;
    assert_eq!(welcome["replayed"], 0);
}

/// P5: a new device starts at the tail, and is told where that is.
/// The inbox has messages already, read by another device and by none.
pub(crate) async fn a_new_device_starts_at_the_tail(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    pump(&mut a, &bob, 1..=4, 0).await;
    for fields in [json!({"device": "new"}), json!({})] {
        let (mut b, welcome) = cluster.connect(&bob, fields).await;
        assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(true), &json!(0)));
        let tail = welcome["cursor"]["offset"].as_u64().expect("an offset");
        let next = tail + 1;
        pump(&mut a, &bob, next..=next, 0).await;
        assert_eq!(b.message().await["offset"], next);
    }
}

/// P4: the same id gets the same answer and never a second message; with another body it is a conflict.
/// Repeated over the same connection and over a new one, at once and later.
pub(crate) async fn a_repeated_id_gets_the_same_answer_and_is_not_delivered_twice(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let body = json!({"text": "once"});
    // Three copies before the first answer: one reply for each command, or one for all that were attached to it.
    let copy = json!({"type": "send", "id": "m", "to": bob, "data": body});
    a.send_all([copy.clone(), copy.clone(), copy]).await;
    let first = a.reply("m").await;
    assert!(first["ok"]["at"].is_string(), "{first}");
    let again = a.ask("m", &bob, body.clone()).await;
    assert_eq!(again["ok"]["at"], first["ok"]["at"]);
    a.close().await;
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    assert_eq!(a.ask("m", &bob, body.clone()).await["ok"]["at"], first["ok"]["at"]);

    let other = a.ask("m", &bob, json!({"text": "another"})).await;
    assert_eq!(other["error"]["code"], "conflict");
    assert_eq!(other["error"]["retryable"], false);
    // Ids are the sender's own: somebody else may use the same.
    let (mut c, _) = cluster.connect(&cluster.user_at(0).await, json!({})).await;
    assert!(c.ask("m", &bob, json!("from another")).await["ok"].is_object());
    a.ask("last", &bob, json!("last")).await;
    let got = [b.message().await, b.message().await, b.message().await].map(|m| m["data"].clone());
    assert_eq!(got, [body, json!("from another"), json!("last")]);
}

/// Every session of a user gets every message (the one that sent it among them, if it writes to itself).
/// Three devices, one of them the sender.
pub(crate) async fn every_session_of_a_user_gets_the_message(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let mut sessions = Vec::new();
    for device in ["phone", "laptop", "watch"] {
        sessions.push(cluster.connect(&bob, json!({"device": device})).await.0);
    }
    a.ask("from-alice", &bob, json!(1)).await;
    sessions[0].ask("to-myself", &bob, json!(2)).await;
    for session in &mut sessions {
        let (first, second) = (session.message().await, session.message().await);
        assert_eq!((&first["id"], &second["id"]), (&json!("from-alice"), &json!("to-myself")));
        assert_eq!((&first["offset"], &second["offset"]), (&json!(1), &json!(2)));
    }
}

/// P5: what cannot be proved is said, with the point up to which the history has to be read.
/// A cursor above the tail, and one of another generation.
pub(crate) async fn a_cursor_that_cannot_be_honoured_is_answered_recovered_false(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    pump(&mut a, &bob, 1..=3, 0).await;
    let (b, welcome) = cluster.connect(&bob, json!({})).await;
    let tail = welcome["cursor"].clone();
    b.close().await;
    let generation = tail["generation"].as_u64().expect("a generation");
    let cursors = [
        json!({"generation": generation, "offset": 4}),
        json!({"generation": generation - 1, "offset": 2}),
        json!({"generation": generation + 1, "offset": 2}),
    ];
    for cursor in cursors {
        let (mut b, welcome) = cluster.connect(&bob, json!({"cursor": cursor})).await;
        assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(false), &json!(0)), "{cursor}");
        assert!(welcome["through"].as_str().is_some_and(|t| !t.is_empty()), "{welcome}");
        let next = welcome["cursor"]["offset"].as_u64().expect("an offset") + 1;
        assert_eq!(welcome["cursor"]["generation"], generation);
        pump(&mut a, &bob, next..=next, 0).await;
        assert_eq!(b.message().await["offset"], next, "what comes after the cursor of the welcome");
    }
}

async fn reader_that_reads_nothing(cluster: &Cluster, user: &str) -> Wire {
    let url = cluster.route(user).await.url;
    let dial = Dial { receive_buffer: Some(4 * 1024), ..Dial::new(&url) };
    let mut wire = Wire::dial(dial).await.expect("the upgrade is accepted");
    wire.say_connect(cluster.fields(user, json!({}))).await;
    assert_eq!(wire.frame().await["type"], "welcome");
    wire
}

/// P5: a slow reader gets everything in order as long as it is in the hot window.
/// It reads nothing while 900 large messages come, many more than its socket and its credit take.
pub(crate) async fn a_reader_that_pauses_within_the_hot_window_gets_everything_in_order(backend: Backend) {
    let Some(cluster) = unlimited(backend, 2).start().await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let mut b = reader_that_reads_nothing(&cluster, &bob).await;
    pump(&mut a, &bob, 1..=900, LARGE).await;
    for i in 1..=900 {
        let message = b.message().await;
        assert_eq!((&message["offset"], &message["data"]["i"]), (&json!(i), &json!(i)));
    }
}

/// P5: a reader too slow even for a replay is told so; nothing is skipped silently.
/// It reads nothing while twice the hot window passes, then reads on.
pub(crate) async fn a_reader_that_sleeps_through_the_hot_window_is_told(backend: Backend) {
    const SENT: u64 = 2 * WINDOW;
    let Some(cluster) = unlimited(backend, 2).start().await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let mut b = reader_that_reads_nothing(&cluster, &bob).await;
    pump(&mut a, &bob, 1..=SENT, LARGE).await;
    let (mut last, mut cursor) = (0, Value::Null);
    while last < SENT {
        match b.next().await {
            Incoming::Frame(message) => {
                assert_eq!(message["offset"], last + 1, "nothing is left out");
                (last, cursor) = (last + 1, cursor_of(&message));
            }
            Incoming::Closed(why) => {
                assert_eq!(why.expect("a close frame").0, 3004);
                break;
            }
        }
    }
    assert!(last < SENT - WINDOW, "the kernel held {last} messages: nothing was provoked");
    let (mut b, welcome) = cluster.connect(&bob, json!({"cursor": cursor})).await;
    assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(false), &json!(0)));
    assert!(welcome["through"].is_string() && welcome["cursor"]["offset"] == SENT, "{welcome}");
    pump(&mut a, &bob, SENT + 1..=SENT + 1, 0).await;
    assert_eq!(b.message().await["offset"], SENT + 1);
}

/// A command with an id gets exactly one reply, and `welcome` is the first frame after `connect`, also for who does
/// not wait for it. P3: if a send is refused, later ones to the same stream are, until it is accepted.
/// `connect` and a `send` leave in one packet; another `send` follows the welcome.
pub(crate) async fn a_send_right_behind_connect_is_answered_and_keeps_its_place(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    let mut a = Wire::open(&cluster.route(&alice).await.url).await;
    let mut connect = cluster.fields(&alice, json!({}));
    connect["type"] = json!("connect");
    let send = |id: &str| json!({"type": "send", "id": id, "to": bob, "data": id});
    a.send_all([connect, send("first")]).await;
    let mut wrong = Vec::new();
    let tag = a.peek().await["type"].clone();
    if tag != "welcome" {
        wrong.push(format!("the first frame after connect is {tag}"));
    }
    a.frame_of("welcome").await;
    a.send(send("second")).await;
    let (first, second) = (a.reply("first").await, a.reply("second").await);
    let retryable = |reply: &Value| reply["error"]["retryable"] == true;
    assert!(first["ok"].is_object() || retryable(&first), "{first}");
    if retryable(&first) && second["ok"].is_object() {
        wrong.push(format!("accepted after an earlier one was refused: {second}"));
    }
    for (id, reply) in [("first", first), ("second", second)] {
        if retryable(&reply) {
            assert!(a.ask(id, &bob, json!(id)).await["ok"].is_object());
        }
    }
    let order = [b.message().await["id"].clone(), b.message().await["id"].clone()];
    assert!(wrong.is_empty() && order == ["first", "second"], "{wrong:#?}, {order:?}");
}

/// RFC 6455 §5.5.1: who gets a close frame answers with one. Without it every browser reports 1006, an accident.
/// A client closes before and after `connect`.
pub(crate) async fn a_client_that_closes_is_answered_with_a_close_frame(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let (wire, _) = cluster.connect(&cluster.user("alice"), json!({})).await;
    assert!(wire.close().await, "after connect");
    let wire = Wire::open(cluster.node(0).url()).await;
    assert!(wire.close().await, "before connect");
}
