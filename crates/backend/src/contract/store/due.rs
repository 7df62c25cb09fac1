//! Messages that nobody has acknowledged, and receipts (promise 15).

use roost_proto::events::message_bytes;
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, Seq};

use super::*;

fn due(name: &str, generation: u64, offset: u64) -> Due {
    let cursor = Cursor::new(Epoch(generation), Offset(offset));
    Due { user: user(name), cursor, from: "alice".into(), since_ms: NOW_MS }
}

fn report(due: &Due) -> Op {
    Op::Undelivered { user: due.user.clone(), cursor: due.cursor, bytes: 0 }
}

fn waiting(name: &str, id: &str) -> AppendOp {
    AppendOp { due: true, ..message(&inbox(name), id, 1) }
}

async fn take(a: &Process, request: &Activate) -> (Owner, Activated) {
    match a.activate(request).await {
        ActivateAnswer::Activated(activated) => {
            (a.owner(request.vnode, &request.sid, request.epoch, &activated), activated)
        }
        other => panic!("wanted an activation, got {other:?}"),
    }
}

pub async fn what_is_due_is_settled_or_reported_once(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let me = sid("ws-1", 1);
    let mut owner = a.own(V, &me, Epoch(10)).await;
    let room = StreamId::new("room:lobby").expect("a valid stream");
    let ops = [
        waiting("zoë \"z\"", "m1"),
        waiting("bob", "m1"),
        message(&inbox("bob"), "m2", 1),
        waiting("bob", "m3"),
    ];
    owner.write(ops.into_iter().map(Op::Append).collect()).await;
    owner.write(vec![Op::Append(AppendOp { due: true, ..message(&room, "m1", 1) })]).await;
    owner.write(vec![Op::Append(waiting("bob", "m3"))]).await;
    let (mut owner, left) = take(&a, &a.activation(V, &me, Epoch(11))).await;
    let (first, third, zoe) = (due("bob", 10, 1), due("bob", 10, 3), due("zoë \"z\"", 10, 1));
    assert_eq!(left.due, [first.clone(), third.clone(), zoe.clone()], "neither rooms nor repeats");

    let settle = Op::Settle { places: vec![(first.user.clone(), first.cursor), (user("eve"), first.cursor)] };
    let results = owner.write(vec![settle.clone(), report(&first), report(&zoe), report(&zoe), settle]).await;
    let payload = message_bytes(&inbox("zoë \"z\""), zoe.cursor, &waiting("zoë \"z\"", "m1").rest);
    let none = OpResult::Undelivered { message: None };
    let reported = OpResult::Undelivered { message: Some(payload.clone()) };
    assert_eq!(results, [OpResult::Settled, none.clone(), reported, none, OpResult::Settled]);
    let (_, left) = take(&a, &a.activation(V, &me, Epoch(12))).await;
    let topic = EventTopic::Undelivered;
    let event = OutboxEvent { seq: Seq(7), topic, key: "zoë \"z\"".into(), payload };
    assert_eq!((left.due, left.outbox.last()), (vec![third], Some(&event)));
}

/// A message can have left the hot window, and the stream begun a new life, before anybody missed it.
pub async fn what_is_due_outlives_its_window_and_its_generation(fixture: &dyn Fixture) {
    let a = Process::start_with(fixture, StoreConfig { stream_max_len: 1, ..CONFIG }).await;
    let me = sid("ws-1", 1);
    let mut owner = a.own(V, &me, Epoch(10)).await;
    owner.write(vec![Op::Append(waiting("bob", "m1")), Op::Append(waiting("bob", "m2"))]).await;
    let begun = Activate { prove: true, ..a.activation(V, &me, Epoch(11)) };
    let (mut owner, left) = take(&a, &begun).await;
    assert_eq!((left.generation, left.due.len()), (Epoch(11), 2));
    owner.write(vec![Op::Append(waiting("bob", "m3"))]).await;
    let results = owner.write(left.due.iter().map(report).collect()).await;
    let reported = |due: &Due, id| {
        let message = message_bytes(&inbox("bob"), due.cursor, &waiting("bob", id).rest);
        OpResult::Undelivered { message: Some(message) }
    };
    assert_eq!(results, [reported(&left.due[0], "m1"), reported(&left.due[1], "m2")]);
    let (_, left) = take(&a, &a.activation(V, &me, Epoch(12))).await;
    assert_eq!(left.due, [due("bob", 11, 1)]);
}

pub async fn what_is_known_of_receipts_stays_until_it_is_removed(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let me = sid("ws-1", 1);
    let mut owner = a.own(V, &me, Epoch(10)).await;
    let id = |id: &str| MessageId::new(id).expect("a valid message id");
    let wanted = |name: &str| ReceiptRequest {
        from: user("zoë \"z\""),
        id: id(name),
        since_ms: NOW_MS,
        delivered: false,
    };
    let asking = |name: &str| AppendOp { wanted: Some(wanted(name)), ..message(&inbox("bob"), name, 1) };
    let room = StreamId::new("room:lobby").expect("a valid stream");
    let in_room = AppendOp { wanted: Some(wanted("m4")), ..message(&room, "m4", 1) };
    let appends = [asking("m1"), asking("m2"), asking("m3"), asking("m1"), in_room];
    owner.write(appends.into_iter().map(Op::Append).collect()).await;
    let place = |offset| (user("bob"), Cursor::new(Epoch(10), Offset(offset)));
    let (mut owner, left) = take(&a, &a.activation(V, &me, Epoch(11))).await;
    let all = [(place(1), wanted("m1")), (place(2), wanted("m2")), (place(3), wanted("m3"))];
    assert_eq!((&left.wanted[..], &left.due[..]), (&all[..], &[][..]));

    let told = ReceiptRequest { delivered: true, ..wanted("m2") };
    let data = serde_json::value::RawValue::from_string("{\"type\": \"größe\"}".into()).expect("JSON").into();
    let owed = PendingReceipt { from: user("bob"), to: user("zoë \"z\""), data };
    let op = |told: &[(u64, Option<ReceiptRequest>)], owed: &[(&str, Option<PendingReceipt>)]| Op::Receipts {
        wanted: told.iter().map(|(offset, wanted)| (place(*offset), wanted.clone())).collect(),
        owed: owed.iter().map(|(name, owed)| (id(name), owed.clone())).collect(),
    };
    let some = Some(owed.clone());
    let change =
        op(&[(1, None), (2, Some(told.clone())), (9, None)], &[("r-1", some.clone()), ("r-2", some)]);
    assert_eq!(owner.write(vec![change]).await, [OpResult::Receipts]);
    let (mut owner, left) = take(&a, &a.activation(V, &me, Epoch(12))).await;
    assert_eq!(left.wanted, [(place(2), told), (place(3), wanted("m3"))]);
    assert_eq!(left.owed, [(id("r-1"), owed.clone()), (id("r-2"), owed.clone())]);
    owner.write(vec![op(&[(2, None), (3, None)], &[("r-2", None), ("r-9", None)])]).await;
    let (_, left) = take(&a, &a.activation(V, &me, Epoch(13))).await;
    assert_eq!((left.wanted, left.owed), (vec![], vec![(id("r-1"), owed)]));
}
