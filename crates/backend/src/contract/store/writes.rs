//! Activation, the fence, the outbox, generations (promises 8, 9, 11; core rules 10, 17, 18).

use bytes::Bytes;
use roost_proto::events::{message_bytes, numbered_bytes};
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{Cursor, Epoch, Offset, Seq, VnodeId};

use super::*;

fn activated(answer: ActivateAnswer) -> Activated {
    match answer {
        ActivateAnswer::Activated(activated) => activated,
        other => panic!("wanted an activation, got {other:?}"),
    }
}

/// Someone in the roster of a vnode, and the event that says so.
pub(super) fn online(name: &str) -> PresenceOp {
    let roster = RosterEntry {
        chosen: ChosenStatus::Online,
        since: NOW_MS,
        last_seen: None,
        sessions: 1,
        generation: Epoch(10),
    };
    let event = Bytes::from(format!("\"user\":\"{name}\",\"status\":\"online\"}}"));
    PresenceOp { user: user(name), roster: Some(roster), seen: None, event: Some(event) }
}

/// Promise 8.
pub async fn activation_needs_a_larger_epoch_or_the_same_of_the_same_sid(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (sid("ws-1", 1), sid("ws-2", 1));
    let first = activated(a.activate(&a.activation(V, &one, Epoch(10))).await);
    let fresh = Activated {
        generation: Epoch(10),
        seq: Seq(0),
        outbox: vec![],
        roster: vec![],
        rooms: vec![],
        due: vec![],
        wanted: vec![],
        owed: vec![],
        tickets: vec![],
        previous: None,
        clock_ms: 0,
    };
    assert_eq!(first, fresh);
    for (sid, epoch) in [(&one, 9), (&two, 9), (&two, 10)] {
        let answer = a.activate(&a.activation(V, sid, Epoch(epoch))).await;
        assert_eq!(answer, ActivateAnswer::Refused(Epoch(10)));
    }
    let repeated = activated(a.activate(&a.activation(V, &one, Epoch(10))).await);
    assert_eq!(repeated, Activated { previous: Some(one.clone()), ..first.clone() });
    let taken = activated(a.activate(&a.activation(V, &two, Epoch(11))).await);
    assert_eq!(taken, Activated { previous: Some(one), ..first });
}

pub async fn activation_returns_what_the_predecessor_left(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (sid("ws-1", 1), sid("ws-2", 1));
    let mut owner = a.own(V, &one, Epoch(10)).await;
    let op = message(&inbox("bob"), "m1", 1);
    let roster = online("zoë").roster.expect("given");
    owner.write(vec![Op::Append(op.clone()), Op::Presence(online("zoë")), Op::Presence(online("bob"))]).await;
    let left = activated(a.activate(&a.activation(V, &two, Epoch(11))).await);
    let status = |name: &str, seq| OutboxEvent {
        seq: Seq(seq),
        topic: EventTopic::Status,
        key: name.into(),
        payload: numbered_bytes(V, Epoch(10), Seq(seq), &online(name).event.expect("given")),
    };
    let payload = message_bytes(&op.stream, Cursor::new(Epoch(10), Offset(1)), &op.rest);
    let chat = OutboxEvent { seq: Seq(1), topic: EventTopic::Chat, key: "user:bob".into(), payload };
    let wanted = Activated {
        generation: Epoch(10),
        seq: Seq(3),
        outbox: vec![chat, status("zoë", 2), status("bob", 3)],
        roster: vec![(user("bob"), roster.clone()), (user("zoë"), roster)],
        rooms: vec![],
        due: vec![],
        wanted: vec![],
        owed: vec![],
        tickets: vec![],
        previous: Some(one),
        clock_ms: NOW_MS,
    };
    assert_eq!(left, wanted);
}

/// Core rule 19: a claim made under another data set is dropped, even if the head of that data is still there.
pub async fn activation_under_a_data_set_nobody_named_is_refused(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let me = sid("ws-1", 1);
    let unknown = Activate { data_set: DataSet("another".into()), ..a.activation(V, &me, Epoch(10)) };
    assert_eq!(a.activate(&unknown).await, ActivateAnswer::NewData(a.data_set.clone()));
    let owner = Owner { generation: Epoch(10), now_ms: NOW_MS, store: a.store.clone(), fence: fence(10) };
    assert_eq!(owner.put(&owner.write_of(vec![])).await, WriteAnswer::Lost, "no head was made");
}

fn fence(epoch: u64) -> Fence {
    Fence { vnode: V, epoch: Epoch(epoch), sid: sid("ws-1", 1), seq: Seq(0) }
}

/// Promise P1.
pub async fn a_deposed_owner_changes_nothing(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut old = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    old.write(vec![append(&inbox("bob"), "m1")]).await;
    let mut new = a.own(V, &sid("ws-2", 1), Epoch(11)).await;
    assert_eq!(new.fence.seq, old.fence.seq);
    let late = old.write_of(vec![append(&inbox("bob"), "m2"), Op::Presence(online("bob"))]);
    assert_eq!(old.put(&late).await, WriteAnswer::Deposed);
    let opened = new.open("bob").await;
    assert_eq!((opened.tail, opened.presence), (Offset(1), PresenceRow::default()));
    assert_eq!(
        new.write(vec![append(&inbox("bob"), "m3")]).await,
        [OpResult::Appended { offset: Offset(2) }]
    );
}

pub async fn a_write_without_its_head_is_lost(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let me = sid("ws-1", 1);
    let mut owner = Owner { generation: Epoch(10), now_ms: NOW_MS, store: a.store.clone(), fence: fence(10) };
    let write = |owner: &Owner| owner.write_of(vec![append(&inbox("bob"), "m1")]);
    assert_eq!(owner.put(&write(&owner)).await, WriteAnswer::Lost, "no head at all");
    a.own(V, &me, Epoch(9)).await;
    assert_eq!(owner.put(&write(&owner)).await, WriteAnswer::Lost, "a smaller epoch is stored");
    a.own(V, &sid("ws-2", 1), Epoch(10)).await;
    assert_eq!(owner.put(&write(&owner)).await, WriteAnswer::Lost, "another sid has this epoch");
    owner = a.own(V, &me, Epoch(11)).await;
    assert_eq!(owner.open("bob").await.tail, Offset(0), "none of it applied");
}

pub async fn a_write_that_saw_more_than_the_store_is_rewound(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    owner.write(vec![]).await;
    let mut ahead = owner.write_of(vec![append(&inbox("bob"), "m1")]);
    ahead.fence.seq = Seq(2);
    assert_eq!(owner.put(&ahead).await, WriteAnswer::Rewound);
    assert_eq!(owner.open("bob").await.tail, Offset(0));
}

/// Core rule 10: of two writes with one fence the second to land, whichever it is, does not apply, and its owner
/// learns what the first left.
pub async fn a_write_that_lands_late_changes_nothing(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    owner.write(vec![append(&inbox("bob"), "m1")]).await;
    let lost = owner.write_of(vec![append(&inbox("bob"), "m2")]);
    let next = owner.write_of(vec![append(&inbox("bob"), "m3")]);
    owner.apply(&next).await;
    let WriteAnswer::Behind { seq, outbox } = owner.put(&lost).await else { panic!("it applied twice") };
    assert_eq!(seq, Seq(owner.fence.seq.0 + 1), "raised, so that the owner's own next write finds out too");
    assert_eq!(outbox.iter().map(|e| e.seq).collect::<Vec<_>>(), [Seq(1), Seq(2)]);
    assert!(matches!(owner.put(&next).await, WriteAnswer::Behind { seq: Seq(4), .. }), "a copy of the first");
    owner.fence.seq = Seq(4);
    let ids = owner.write(vec![append(&inbox("bob"), "m3"), append(&inbox("bob"), "m2")]).await;
    let again = OpResult::Duplicate { offset: Offset(2), at: NOW_MS };
    assert_eq!(ids, [again, OpResult::Appended { offset: Offset(3) }]);
}

pub async fn a_write_without_events_cannot_be_applied_twice(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let silent = Op::Presence(PresenceOp { event: None, ..online("bob") });
    let write = owner.write_of(vec![silent]);
    assert_eq!(owner.apply(&write).await, [OpResult::Presence { changed: true }]);
    assert_eq!(owner.fence.seq, Seq(1));
    assert_eq!(owner.put(&write).await, WriteAnswer::Behind { seq: Seq(2), outbox: vec![] });
}

/// Promise 11.
pub async fn events_stay_in_the_outbox_until_they_are_trimmed(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (me, bob) = (sid("ws-1", 1), inbox("bob"));
    // Each new owner sees what is there.
    let take = async |epoch: u64| {
        let activated = activated(a.activate(&a.activation(V, &me, Epoch(epoch))).await);
        let seqs: Vec<_> = activated.outbox.iter().map(|e| e.seq.0).collect();
        (a.owner(V, &me, Epoch(epoch), &activated), seqs)
    };
    let (mut owner, _) = take(10).await;
    for id in ["m1", "m2", "m3"] {
        owner.write(vec![append(&bob, id)]).await;
    }
    let (mut owner, seqs) = take(11).await;
    assert_eq!(seqs, [1, 2, 3]);
    let trim = Write { trim: Seq(2), ..owner.write_of(vec![append(&bob, "m4")]) };
    owner.apply(&trim).await;
    let (deposed, seqs) = take(12).await;
    assert_eq!(seqs, [3, 4]);
    let all = |owner: &Owner| Write { trim: Seq(4), ..owner.write_of(vec![]) };
    let (mut owner, _) = take(13).await;
    assert_eq!(deposed.put(&all(&deposed)).await, WriteAnswer::Deposed);
    assert_eq!(
        owner.put(&Write { fence: Fence { seq: Seq(9), ..owner.fence.clone() }, ..all(&owner) }).await,
        WriteAnswer::Rewound
    );
    let trim = all(&owner);
    assert_eq!(take(13).await.1, [3, 4], "a refused write trims nothing");
    owner.apply(&trim).await;
    owner.write(vec![append(&bob, "m5")]).await;
    assert_eq!(take(14).await.1, [6]);
}

/// Core rule 18: lost or rewound while the row was mine.
pub async fn a_generation_that_is_not_proved_ends(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (me, other, bob) = (sid("ws-1", 1), sid("ws-2", 1), inbox("bob"));
    let mut owner = a.own(V, &me, Epoch(10)).await;
    owner.write(vec![append(&bob, "m1"), append(&bob, "m2")]).await;
    let held = |epoch, seq| Some((Epoch(epoch), Seq(seq)));
    let mut epoch = 10;
    for (sid, held) in [(&me, None), (&me, held(11, 3)), (&me, held(10, 2)), (&other, held(13, 2))] {
        epoch += 1;
        let request = Activate { prove: true, held, ..a.activation(V, sid, Epoch(epoch)) };
        let begun = activated(a.activate(&request).await);
        assert_eq!((begun.generation, begun.seq), (Epoch(epoch), Seq(2)), "held {held:?}");
        assert_eq!(begun.outbox.len(), 2, "what the log has not got yet still goes out");
        let again = activated(a.activate(&request).await);
        assert_eq!(again.generation, Epoch(epoch), "repeated after a lost answer");
    }
    let mut owner = a.own(V, &me, Epoch(20)).await;
    assert_eq!(owner.generation, Epoch(14), "a plain change of owner goes on");
    assert_eq!(owner.read(&bob, 0, 10).await, Window::default());
    let opened = owner.open("bob").await;
    assert_eq!((opened.tail, opened.first), (Offset(0), Offset(1)));
    let results = owner.write(vec![append(&bob, "m2"), append(&bob, "m3")]).await;
    let known = OpResult::Duplicate { offset: Offset(2), at: NOW_MS };
    assert_eq!(results, [known, OpResult::Appended { offset: Offset(1) }], "surviving ids are kept");
    assert_eq!(owner.read(&bob, 0, 10).await.first, Offset(1));
}

/// Core rule 17: the data went back under the same name, and only who had the vnode before can tell.
pub async fn who_left_more_than_it_finds_begins_a_generation(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (me, bob) = (sid("ws-1", 1), inbox("bob"));
    let mut owner = a.own(V, &me, Epoch(10)).await;
    owner.write(vec![append(&bob, "m1"), append(&bob, "m2")]).await;
    let left = |generation, seq| Some((Epoch(generation), Seq(seq)));
    let mut epoch = 10;
    for found in [left(10, 2), left(10, 1), left(9, 7), None] {
        epoch += 1;
        let request = Activate { left: found, ..a.activation(V, &me, Epoch(epoch)) };
        assert_eq!(activated(a.activate(&request).await).generation, Epoch(10), "left {found:?}");
    }
    let other = sid("ws-2", 1);
    for (left, held) in [(left(10, 3), None), (left(16, 0), left(15, 2))] {
        epoch += 1;
        let request = Activate { left, held, ..a.activation(V, &other, Epoch(epoch)) };
        let begun = activated(a.activate(&request).await);
        assert_eq!((begun.generation, begun.seq), (Epoch(epoch), Seq(2)), "left {left:?}");
        let again = activated(a.activate(&request).await);
        assert_eq!(again.generation, Epoch(epoch), "repeated after a lost answer");
    }
    let request = Activate { left: left(16, 3), ..a.activation(V, &other, Epoch(16)) };
    let refused = a.activate(&request).await;
    assert_eq!(refused, ActivateAnswer::Refused(Epoch(16)), "a new generation needs a new epoch");
}

pub async fn a_generation_that_is_proved_goes_on(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (me, bob) = (sid("ws-1", 1), inbox("bob"));
    let mut owner = a.own(V, &me, Epoch(10)).await;
    owner.write(vec![append(&bob, "m1"), append(&bob, "m2")]).await;
    for (epoch, held) in [(11, (10, 2)), (12, (11, 1))] {
        let held = Some((Epoch(held.0), Seq(held.1)));
        let request = Activate { prove: true, held, ..a.activation(V, &me, Epoch(epoch)) };
        assert_eq!(activated(a.activate(&request).await).generation, Epoch(10));
        assert_eq!(activated(a.activate(&request).await).generation, Epoch(10), "repeated");
    }
    let mut owner = a.own(V, &me, Epoch(13)).await;
    assert_eq!(owner.write(vec![append(&bob, "m3")]).await, [OpResult::Appended { offset: Offset(3) }]);
}

pub async fn vnodes_do_not_touch_each_other(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (me, bob, w) = (sid("ws-1", 1), inbox("bob"), VnodeId(1));
    let mut here = a.own(V, &me, Epoch(10)).await;
    let mut there = a.own(w, &me, Epoch(5)).await;
    here.write(vec![append(&bob, "m1"), Op::Presence(online("bob"))]).await;
    let opened = there.open("bob").await;
    assert_eq!((opened.tail, opened.presence), (Offset(0), PresenceRow::default()));
    assert_eq!(there.write(vec![append(&bob, "m1")]).await, [OpResult::Appended { offset: Offset(1) }]);
}

/// A double has 53 bits and prints fourteen digits.
pub async fn numbers_keep_every_digit(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (me, bob) = (sid("ws-1", 1), inbox("bob"));
    let epoch = Epoch((1 << 53) - 3);
    let mut owner = a.own(V, &me, epoch).await;
    let op = AppendOp { hash: u64::MAX, at: (1 << 53) - 1, ..message(&bob, "m1", 1) };
    let wanted = OpResult::Appended { offset: Offset(1) };
    assert_eq!(owner.write(vec![Op::Append(op.clone())]).await, [wanted]);
    let near = AppendOp { hash: u64::MAX - 1, ..op.clone() };
    let again = owner.write(vec![Op::Append(op.clone()), Op::Append(near)]).await;
    assert_eq!(again, [OpResult::Duplicate { offset: Offset(1), at: op.at }, OpResult::Conflict]);
    let cursor = Cursor::new(epoch, Offset((1 << 53) - 5));
    let device = roost_proto::DeviceId::new("phone").expect("a valid device id");
    owner.write(vec![Op::Ack { user: user("bob"), device, cursor }, Op::Presence(online("bob"))]).await;
    assert_eq!(owner.open("bob").await.acked, Some(cursor));
    let taken = activated(a.activate(&a.activation(V, &me, Epoch(epoch.0 + 1))).await);
    assert_eq!((taken.generation, taken.seq), (epoch, Seq(4)));
    assert_eq!(taken.outbox[0].payload, message_bytes(&bob, Cursor::new(epoch, Offset(1)), &op.rest));
    let event = online("bob").event.expect("given");
    assert_eq!(taken.outbox[1].payload, numbered_bytes(V, epoch, Seq(3), &event));
    let refused = a.activate(&a.activation(V, &me, Epoch(epoch.0 - 1))).await;
    assert_eq!(refused, ActivateAnswer::Refused(Epoch(epoch.0 + 1)));
}
