//! Rooms: publications, members, signals, over real sockets.

use std::collections::BTreeSet;

use roost_proto::RoomId;
use roost_tests::cluster::{Backend, Cluster, Setup, eventually, token_for};
use roost_tests::wire::Wire;
use serde_json::{Value, json};

use crate::cursor_of;

async fn join(wire: &mut Wire, room: &str, fields: Value) -> Value {
    let id = format!("join-{:x}", rand::random::<u32>());
    let mut frame = json!({"type": "join", "id": id, "room": room});
    for (name, value) in fields.as_object().into_iter().flatten() {
        frame[name] = value.clone();
    }
    wire.send(frame).await;
    let reply = wire.reply(&id).await;
    assert!(reply["ok"]["cursor"].is_object(), "{reply}");
    reply["ok"].clone()
}

fn publish(room: &str, id: &str, data: Value) -> Value {
    json!({"type": "publish", "id": id, "room": room, "data": data})
}

async fn published(wire: &mut Wire, room: &str, id: &str, data: Value) -> Value {
    wire.send(publish(room, id, data)).await;
    let reply = wire.reply(id).await;
    assert!(reply["ok"]["at"].is_string(), "{reply}");
    reply
}

async fn ids(wire: &mut Wire, count: usize) -> Vec<(u64, String)> {
    let mut got = Vec::new();
    while got.len() < count {
        let m = wire.message().await;
        got.push((m["offset"].as_u64().expect("a number"), m["id"].as_str().expect("a text").to_owned()));
    }
    got
}

/// P3: one gapless order for every reader, and what one session publishes keeps its order.
/// Three users, each at home on another node, publish at once without waiting.
pub(crate) async fn what_is_published_reaches_everyone_on_every_node_in_one_order(backend: Backend) {
    const EACH: usize = 40;
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let room = cluster.room_at(1).await;
    let mut wires = Vec::new();
    for i in 0..3 {
        let (mut wire, _) = cluster.connect(&cluster.user_at(i).await, json!({})).await;
        let ok = join(&mut wire, &room, json!({})).await;
        assert_eq!((&ok["recovered"], &ok["replayed"]), (&json!(true), &json!(0)), "{ok}");
        assert_eq!(ok["members"], Value::Null, "who takes no part in presence is not told of it");
        wires.push(wire);
    }
    for (w, wire) in wires.iter_mut().enumerate() {
        let frames = (0..EACH).map(|i| publish(&room, &format!("w{w}-{i}"), json!({"i": i})));
        wire.send_all(frames).await;
    }
    let mut seen = Vec::new();
    for wire in &mut wires {
        seen.push(ids(wire, 3 * EACH).await);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert!(seen[0].iter().map(|(offset, _)| *offset).eq(1..=3 * EACH as u64), "{:?}", seen[0]);
    for w in 0..3 {
        let own: Vec<_> = seen[0].iter().filter(|(_, id)| id.starts_with(&format!("w{w}-"))).collect();
        assert!(own.iter().enumerate().all(|(i, (_, id))| *id == format!("w{w}-{i}")), "{own:?}");
    }
    for (w, wire) in wires.iter_mut().enumerate() {
        let reply = wire.reply(&format!("w{w}-0")).await;
        let at = seen[0].iter().find(|(_, id)| *id == format!("w{w}-0")).expect("it was shown").0;
        assert_eq!(reply["ok"]["cursor"]["offset"], json!(at), "{reply}");
    }
}

/// P5: who shows a cursor gets every later publication once, by `connect` and by `join`.
/// A reader goes, three are published, it comes back; then another joins with the same cursor.
pub(crate) async fn who_comes_back_gets_what_was_published_meanwhile(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let room = cluster.room_at(0).await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    join(&mut b, &room, json!({})).await;
    published(&mut a, &room, "p-1", json!(1)).await;
    let cursor = cursor_of(&b.message().await);
    b.close().await;
    for i in 2..=4 {
        published(&mut a, &room, &format!("p-{i}"), json!(i)).await;
    }
    let rooms = json!([{"room": room, "cursor": cursor}]);
    let (mut b, welcome) = cluster.connect(&bob, json!({"rooms": rooms})).await;
    let told = &welcome["rooms"][0];
    assert_eq!(
        (&told["room"], &told["recovered"], &told["replayed"]),
        (&json!(room), &json!(true), &json!(3))
    );
    assert_eq!(ids(&mut b, 3).await.into_iter().map(|(_, id)| id).collect::<Vec<_>>(), ["p-2", "p-3", "p-4"]);
    let (mut c, _) = cluster.connect(&alice, json!({})).await;
    let ok = join(&mut c, &room, json!({"cursor": cursor})).await;
    assert_eq!((&ok["recovered"], &ok["replayed"]), (&json!(true), &json!(3)));
    published(&mut a, &room, "p-5", json!(5)).await;
    let all: Vec<_> = ids(&mut c, 4).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(all, ["p-2", "p-3", "p-4", "p-5"], "replayed, then live");
}

/// `welcome` is the first frame, and the replay of each room comes after it, once.
/// Of two rooms one is at home where the reader is, and has its place long before the other.
pub(crate) async fn welcome_comes_before_the_replay_of_the_room_that_was_ready_first(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let (near, far) = (cluster.room_at(0).await, cluster.room_at(1).await);
    let bob = cluster.user_at(0).await;
    let (mut a, _) = cluster.connect(&cluster.user_at(1).await, json!({})).await;
    let mut rooms = Vec::new();
    for room in [&near, &far] {
        let cursor = join(&mut a, room, json!({})).await["cursor"].clone();
        rooms.push(json!({"room": room, "cursor": cursor}));
        for i in 0..3 {
            published(&mut a, room, &format!("p-{i}"), json!(i)).await;
        }
    }
    for _ in 0..20 {
        let fields = cluster.fields(&bob, json!({"rooms": rooms}));
        let mut b = Wire::connect(&cluster.route(&bob).await.url, fields).await;
        let first = b.frame().await;
        assert_eq!(first["type"], json!("welcome"), "{first}");
        let mut got: Vec<_> = ids(&mut b, 6).await.into_iter().map(|(_, id)| id).collect();
        got.sort();
        assert_eq!(got, ["p-0", "p-0", "p-1", "p-1", "p-2", "p-2"]);
        b.close().await;
    }
}

/// P5: what cannot be proved is said. The cursor is of another generation, beyond the end, or behind the hot window.
pub(crate) async fn what_cannot_be_replayed_is_told_with_where_the_history_ends(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let room = cluster.room_at(0).await;
    let (mut a, _) = cluster.connect(&cluster.user_at(1).await, json!({})).await;
    let ok = join(&mut a, &room, json!({})).await;
    published(&mut a, &room, "p-1", json!(1)).await;
    let generation = ok["cursor"]["generation"].as_u64().expect("a number");
    for cursor in
        [json!({"generation": generation - 1, "offset": 0}), json!({"generation": generation, "offset": 9})]
    {
        let (mut b, _) = cluster.connect(&cluster.user_at(0).await, json!({})).await;
        let ok = join(&mut b, &room, json!({"cursor": cursor})).await;
        assert_eq!((&ok["recovered"], &ok["cursor"]["offset"]), (&json!(false), &json!(1)), "{ok}");
        assert!(ok["through"].is_string(), "{ok}");
    }
}

/// P2, P4, P5 for rooms: after kill -9 of the room's home what was acknowledged is there, in order, once.
/// Publications go on without a pause; the node that is killed has neither the publisher nor the reader.
pub(crate) async fn after_a_crash_of_its_home_a_room_goes_on_without_loss(backend: Backend) {
    const ALL: usize = 60;
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let room = cluster.room_at(2).await;
    let (mut a, _) = cluster.connect(&cluster.user_at(0).await, json!({})).await;
    let (mut b, _) = cluster.connect(&cluster.user_at(1).await, json!({})).await;
    join(&mut b, &room, json!({})).await;
    for i in 0..ALL {
        if i == ALL / 3 {
            cluster.kill(2);
        }
        a.send(publish(&room, &format!("p-{i}"), json!(i))).await;
    }
    for i in 0..ALL {
        let reply = a.reply(&format!("p-{i}")).await;
        assert!(reply["ok"]["at"].is_string(), "{reply}");
    }
    let got = ids(&mut b, ALL).await;
    assert!(
        got.iter().enumerate().all(|(i, (offset, id))| *offset == i as u64 + 1 && *id == format!("p-{i}")),
        "{got:?}"
    );
}

/// Who is in the room now, as `members` answers.
async fn members(wire: &mut Wire, room: &str) -> BTreeSet<String> {
    let id = format!("members-{:x}", rand::random::<u32>());
    wire.send(json!({"type": "members", "id": id, "room": room})).await;
    let reply = wire.reply(&id).await;
    let all = reply["ok"]["members"].as_array().unwrap_or_else(|| panic!("{reply}"));
    all.iter().map(|m| m["user"].as_str().expect("a text").to_owned()).collect()
}

async fn member(wire: &mut Wire, user: &str, change: &str) -> Value {
    loop {
        let frame = wire.frame_of("member").await;
        if frame["user"] == user && frame["change"] == change {
            return frame;
        }
    }
}

/// P6 for rooms: who is there is told, a quick reconnect is not seen, and members of a dead node disappear.
/// One leaves, one comes back quickly, one's node is killed.
pub(crate) async fn members_come_and_go_and_those_of_a_dead_node_disappear(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let room = cluster.room_at(0).await;
    let users = [cluster.user_at(0).await, cluster.user_at(1).await, cluster.user_at(2).await];
    let presence = |name: &str| json!({"presence": true, "info": {"name": name}});
    let (mut a, _) = cluster.connect(&users[0], json!({})).await;
    join(&mut a, &room, presence("A")).await;
    let mut rooms = presence("B");
    rooms["room"] = json!(room);
    let (mut b, welcome) = cluster.connect(&users[1], json!({"rooms": [rooms]})).await;
    assert_eq!(welcome["rooms"][0]["recovered"], json!(true), "{welcome}");
    let told = member(&mut a, &users[1], "join").await;
    assert_eq!(told["info"], json!({"name": "B"}), "{told}");
    let (mut c, _) = cluster.connect(&users[2], json!({})).await;
    join(&mut c, &room, presence("C")).await;
    member(&mut a, &users[2], "join").await;
    member(&mut b, &users[2], "join").await;
    let all: BTreeSet<_> = users.iter().cloned().collect();
    eventually("everyone lists everyone", async || {
        let mut same = true;
        for wire in [&mut a, &mut b, &mut c] {
            same &= members(wire, &room).await == all;
        }
        same.then_some(())
    })
    .await;

    // A quick reconnect, then a farewell: others see the farewell alone.
    c.close().await;
    let (mut c, _) = cluster.connect(&users[2], json!({})).await;
    join(&mut c, &room, presence("C")).await;
    c.send(json!({"type": "leave", "id": "bye", "room": room})).await;
    assert!(c.reply("bye").await["ok"].is_object());
    let next = a.frame_of("member").await;
    assert_eq!((&next["user"], &next["change"]), (&json!(users[2]), &json!("leave")), "{next}");

    cluster.kill(1);
    let next = a.frame_of("member").await;
    assert_eq!((&next["user"], &next["change"]), (&json!(users[1]), &json!("leave")), "{next}");
    assert_eq!(members(&mut a, &room).await, BTreeSet::from([users[0].clone()]));
}

/// P4 for rooms: a repeat gets the same answer, another body `conflict`, and readers see it once.
pub(crate) async fn a_repeated_publish_gets_the_same_answer_and_is_shown_once(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let room = cluster.room_at(1).await;
    let (mut a, _) = cluster.connect(&cluster.user_at(0).await, json!({})).await;
    join(&mut a, &room, json!({})).await;
    let first = published(&mut a, &room, "p-1", json!({"x": 1})).await;
    let again = published(&mut a, &room, "p-1", json!({"x": 1})).await;
    assert_eq!(first["ok"]["at"], again["ok"]["at"]);
    a.send(publish(&room, "p-1", json!({"x": 2}))).await;
    assert_eq!(a.reply("p-1").await["error"]["code"], json!("conflict"));
    published(&mut a, &room, "p-2", json!(2)).await;
    assert_eq!(ids(&mut a, 2).await, [(1, "p-1".to_owned()), (2, "p-2".to_owned())]);
}

/// A signal goes to all others in the room, to every session of a user, and to nobody else; never to its sender.
pub(crate) async fn signals_reach_the_others_and_only_the_latest_waits_for_who_does_not_read(
    backend: Backend,
) {
    let setup = Setup::new(backend, 2).tune(|_, config| config.core.signal_credit = 2);
    let Some(cluster) = setup.start().await else { return };
    let room = cluster.room_at(0).await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    for wire in [&mut a, &mut b] {
        join(wire, &room, json!({})).await;
    }
    a.send(json!({"type": "signal", "room": room, "kind": "cursor", "data": {"x": 1}})).await;
    let got = b.frame_of("signal").await;
    let expected = json!({"type": "signal", "room": room, "from": alice, "kind": "cursor", "data": {"x": 1}});
    assert_eq!(got, expected);
    b.send(json!({"type": "signal", "to": alice, "kind": "typing", "data": true})).await;
    let got = a.frame().await;
    assert_eq!(
        got,
        json!({"type": "signal", "from": bob, "kind": "typing", "data": true}),
        "its own came back"
    );
    // Fifty at once: the last one arrives, whatever is left out.
    let many = (0..50).map(|x| json!({"type": "signal", "room": room, "kind": "cursor", "data": {"x": x}}));
    a.send_all(many).await;
    let mut last = -1;
    while last < 49 {
        let x = b.frame_of("signal").await["data"]["x"].as_i64().expect("a number");
        assert!(x > last, "signals of one sender and kind keep their order");
        last = x;
    }
}

/// `AUTO_JOIN_ROOMS`: everyone is in them from the beginning, and `welcome` says where.
pub(crate) async fn everyone_is_in_the_rooms_that_are_joined_by_all(backend: Backend) {
    let setup = Setup::new(backend, 2).tune(|_, config| {
        config.core.open_rooms = false;
        config.core.auto_join = vec![RoomId::new("public").expect("a room's id")];
    });
    let Some(cluster) = setup.start().await else { return };
    let (mut a, welcome) = cluster.connect(&cluster.user_at(0).await, json!({})).await;
    assert_eq!(welcome["rooms"][0]["room"], json!("public"), "{welcome}");
    let (mut b, _) = cluster.connect(&cluster.user_at(1).await, json!({})).await;
    let id = format!("p-{:016x}", rand::random::<u64>());
    published(&mut a, "public", &id, json!("hi all")).await;
    let got = b.message().await;
    assert_eq!((&got["stream"], &got["id"]), (&json!("room:public"), &json!(id)));
}

/// Each with its code: a room without the capability, leaving a room one is not in, too large an info, too many rooms.
pub(crate) async fn what_is_not_allowed_in_a_room_gets_its_code(backend: Backend) {
    let setup = Setup::new(backend, 2).tune(|_, config| config.core.open_rooms = false);
    let Some(cluster) = setup.start().await else { return };
    let alice = cluster.user_at(0).await;
    let fields =
        json!({"token": token_for(&alice, &["team-*"]), "rooms": [{"room": "other"}, {"room": "team-1"}]});
    let mut a = Wire::connect(&cluster.route(&alice).await.url, fields).await;
    let welcome = a.frame().await;
    let told = welcome["rooms"].as_array().expect("rooms");
    let code = |room: &str| told.iter().find(|r| r["room"] == room).map(|r| r["error"]["code"].clone());
    assert_eq!((code("other"), code("team-1")), (Some(json!("forbidden")), Some(Value::Null)), "{welcome}");
    let big = "x".repeat(1100);
    let too_many =
        (0..200).map(|i| json!({"type": "join", "id": format!("j-{i}"), "room": format!("team-{i}")}));
    for (frame, code) in [
        (json!({"type": "join", "id": "1", "room": "lobby"}), "forbidden"),
        (json!({"type": "publish", "id": "2", "room": "lobby", "data": 1}), "forbidden"),
        (json!({"type": "members", "id": "3", "room": "lobby"}), "forbidden"),
        (json!({"type": "leave", "id": "4", "room": "team-9"}), "not_found"),
        (json!({"type": "join", "id": "5", "room": "team-2", "info": big}), "too_large"),
        (json!({"type": "join", "id": "6", "room": "a\u{0}b"}), "bad_request"),
        (json!({"type": "join", "id": "7", "room": ""}), "bad_request"),
    ] {
        let id = frame["id"].as_str().expect("a text").to_owned();
        a.send_text(&frame.to_string()).await;
        let reply = a.reply(&id).await;
        assert_eq!(reply["error"]["code"], json!(code), "{reply}");
    }
    // Bursts are limited as well: the next wave waits for the answers of this one.
    let mut frames = too_many.collect::<Vec<_>>();
    frames.push(json!({"type": "join", "id": "j-200", "room": "team-200"}));
    let mut last = Value::Null;
    for (i, frame) in frames.into_iter().enumerate() {
        loop {
            a.send(frame.clone()).await;
            last = a.reply(&format!("j-{i}")).await;
            let wait = last["error"]["retry_after_ms"].as_u64();
            let Some(wait) = wait else { break };
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        }
    }
    let error = &last["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("too_large"), &json!(false)), "{last}");
    assert!(last["error"]["message"].as_str().is_some_and(|m| m.contains("rooms")), "{last}");
}

/// What was said last holds: a join that was left before it was done is answered so that nobody repeats it.
/// The room is at home elsewhere, so that no join is done before the `leave` right behind it is read.
pub(crate) async fn a_join_that_was_left_before_it_was_done_is_not_to_be_repeated(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let room = cluster.room_at(1).await;
    let (mut a, _) = cluster.connect(&cluster.user_at(0).await, json!({})).await;
    for i in 0..10 {
        let (join, leave) = (format!("j-{i}"), format!("l-{i}"));
        let frames = [
            json!({"type": "join", "id": join, "room": room, "presence": true}),
            json!({"type": "leave", "id": leave, "room": room}),
        ];
        a.send_all(frames).await;
        let reply = a.reply(&join).await;
        let told = (&reply["error"]["code"], &reply["error"]["retryable"]);
        assert_eq!(told, (&json!("conflict"), &json!(false)), "{reply}");
        assert!(a.reply(&leave).await["ok"].is_object());
    }
    eventually("nobody is in the room", async || members(&mut a, &room).await.is_empty().then_some(())).await;
}

/// P6: an invisible user is in the room and not shown; a change of status shows and hides.
/// One listens; the other hides, comes, shows, hides and goes.
pub(crate) async fn an_invisible_user_is_in_a_room_and_not_shown(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let room = cluster.room_at(2).await;
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    join(&mut a, &room, json!({"presence": true})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    b.choose("s-1", "invisible").await;
    join(&mut b, &room, json!({"presence": true})).await;
    published(&mut a, &room, "p-1", json!(1)).await;
    assert_eq!(b.message().await["id"], json!("p-1"), "it is in the room");
    assert!(!members(&mut a, &room).await.contains(&bob));
    b.choose("s-2", "online").await;
    member(&mut a, &bob, "join").await;
    b.choose("s-3", "invisible").await;
    member(&mut a, &bob, "leave").await;
    b.send(json!({"type": "leave", "id": "l-1", "room": room})).await;
    assert!(b.reply("l-1").await["ok"].is_object());
    // The next word of somebody shows that nothing was said of this.
    let (mut c, _) = cluster.connect(&cluster.user_at(2).await, json!({})).await;
    join(&mut c, &room, json!({"presence": true})).await;
    loop {
        let frame = a.frame_of("member").await;
        assert_ne!(frame["user"], json!(bob), "{frame}");
        if frame["user"] != json!(alice) {
            break;
        }
    }
}
