//! Offsets, ids, windows, cursors (promises 10 and 12).

use roost_proto::events::message_bytes;
use roost_proto::ids::{Cursor, DeviceId, Epoch, Offset, Seq};
use roost_proto::limits::IDS_KEPT_MS;

use super::writes::online;
use super::*;

const AT: OpResult = OpResult::Duplicate { offset: Offset(1), at: NOW_MS };

async fn owner(process: &Process) -> Owner {
    process.own(V, &sid("ws-1", 1), Epoch(10)).await
}

fn offsets(window: &Window) -> Vec<u64> {
    window.entries.iter().map(|(offset, _)| offset.0).collect()
}

pub async fn offsets_are_gapless_and_entries_are_composed_to_the_byte(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = owner(&a).await;
    let room = StreamId::new("room:\"q\" \\ größe:1").expect("a valid stream");
    let ops: Vec<_> = (1..=12).map(|i| message(&room, &format!("m{i}"), i)).collect();
    let mut appended = Vec::new();
    for batch in ops.chunks(5) {
        appended.extend(owner.write(batch.iter().cloned().map(Op::Append).collect()).await);
    }
    let wanted: Vec<_> = (1..=12).map(|i| OpResult::Appended { offset: Offset(i) }).collect();
    assert_eq!(appended, wanted);
    let wanted = ops.iter().zip(1..).map(|(op, i)| {
        let offset = Offset(i);
        (offset, message_bytes(&room, Cursor::new(Epoch(10), offset), &op.rest))
    });
    let wanted = Window { first: Offset(1), entries: wanted.collect() };
    assert_eq!(owner.read(&room, 0, 100).await, wanted);
}

pub async fn the_same_id_gets_the_same_answer_and_another_body_conflicts(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = owner(&a).await;
    let (bob, eve) = (inbox("bob"), inbox("eve"));
    owner.write(vec![append(&bob, "m1")]).await;
    let late = AppendOp { at: NOW_MS + 5000, ..message(&bob, "m1", 1) };
    let other_body = Op::Append(message(&bob, "m1", 2));
    let of_eve = Op::Append(AppendOp { from: "eve".into(), ..message(&bob, "m1", 1) });
    let answers = owner.write(vec![Op::Append(late), other_body, of_eve, append(&eve, "m1")]).await;
    let own = |offset| OpResult::Appended { offset: Offset(offset) };
    assert_eq!(answers, [AT, OpResult::Conflict, own(2), own(1)], "an id belongs to its sender and stream");
    assert_eq!(offsets(&owner.read(&bob, 0, 10).await), [1, 2]);
    let both = owner.write(vec![append(&bob, "m2"), append(&bob, "m2")]).await;
    assert_eq!(both, [own(3), OpResult::Duplicate { offset: Offset(3), at: NOW_MS }]);
}

/// Promise 10: at least as long as it must be, and not for ever.
pub async fn an_id_is_known_through_one_turn_of_the_slices(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = owner(&a).await;
    let bob = inbox("bob");
    let slice_ends = NOW_MS - NOW_MS % IDS_KEPT_MS + IDS_KEPT_MS;
    owner.now_ms = slice_ends - 1;
    owner.write(vec![append(&bob, "m1")]).await;
    owner.now_ms = slice_ends;
    let next = owner.write(vec![append(&bob, "m1"), append(&bob, "m2")]).await;
    assert_eq!(next, [AT, OpResult::Appended { offset: Offset(2) }]);
    owner.now_ms = slice_ends - 1 + IDS_KEPT_MS;
    assert_eq!(owner.write(vec![append(&bob, "m1")]).await, [AT], "within the time an id is kept");
    owner.now_ms = slice_ends + IDS_KEPT_MS;
    let after = owner.write(vec![append(&bob, "m1"), append(&bob, "m2")]).await;
    let second = OpResult::Duplicate { offset: Offset(2), at: NOW_MS };
    assert_eq!(after, [OpResult::Appended { offset: Offset(3) }, second.clone()]);
    owner.now_ms = slice_ends - IDS_KEPT_MS;
    assert_eq!(owner.write(vec![append(&bob, "m2")]).await, [second], "a clock that went back turns nothing");
    owner.now_ms = slice_ends + 10 * IDS_KEPT_MS;
    let gone = owner.write(vec![append(&bob, "m2"), append(&bob, "m1")]).await;
    let wanted = [OpResult::Appended { offset: Offset(4) }, OpResult::Appended { offset: Offset(5) }];
    assert_eq!(gone, wanted, "after a long silence both slices are old");
}

/// Promise 10, core rule 11: time goes on from where the predecessor's last write left it, whatever clock the
/// successor has.
pub async fn a_vnodes_clock_is_handed_over_and_never_goes_back(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let clock = |epoch: u64| {
        let request = a.activation(V, &sid("ws-2", epoch), Epoch(epoch));
        let a = &a;
        async move {
            match a.activate(&request).await {
                ActivateAnswer::Activated(activated) => activated.clock_ms,
                other => panic!("wanted an activation, got {other:?}"),
            }
        }
    };
    assert_eq!(clock(9).await, 0, "nothing was written yet");
    let mut first = owner(&a).await;
    first.now_ms = NOW_MS + 5;
    first.write(vec![append(&inbox("bob"), "m1")]).await;
    assert_eq!(clock(11).await, NOW_MS + 5);
    let mut behind = a.own(V, &sid("ws-3", 1), Epoch(12)).await;
    behind.now_ms = NOW_MS - 3_600_000;
    behind.write(vec![append(&inbox("bob"), "m2")]).await;
    assert_eq!(clock(13).await, NOW_MS + 5, "a smaller time changes nothing");
    let late = Write {
        fence: Fence { seq: Seq(0), ..behind.fence.clone() },
        now_ms: NOW_MS * 2,
        ..behind.write_of(vec![])
    };
    assert_eq!(behind.put(&late).await, WriteAnswer::Deposed);
    assert_eq!(clock(14).await, NOW_MS + 5, "nor does a write that is refused");
}

pub async fn the_window_keeps_the_newest_and_says_where_it_begins(fixture: &dyn Fixture) {
    let a = Process::start_with(fixture, StoreConfig { stream_max_len: 5, ..CONFIG }).await;
    let mut owner = owner(&a).await;
    let bob = inbox("bob");
    let opened = owner.open("bob").await;
    assert_eq!((opened.tail, opened.first), (Offset(0), Offset(1)));
    for i in 1..=8 {
        owner.write(vec![append(&bob, &format!("m{i}"))]).await;
    }
    let opened = owner.open("bob").await;
    assert_eq!((opened.tail, opened.first), (Offset(8), Offset(4)));
    let window = owner.read(&bob, 1, 10).await;
    assert_eq!((window.first, offsets(&window)), (Offset(4), vec![4, 5, 6, 7, 8]));
    owner.write((9..=20).map(|i| append(&bob, &format!("m{i}"))).collect()).await;
    let window = owner.read(&bob, 18, 10).await;
    assert_eq!((window.first, offsets(&window)), (Offset(16), vec![19, 20]));
}

pub async fn an_untouched_window_is_dropped_and_its_tail_stays(fixture: &dyn Fixture) {
    let a = Process::start_with(fixture, StoreConfig { stream_max_age_ms: 2000, ..CONFIG }).await;
    let mut owner = owner(&a).await;
    let bob = inbox("bob");
    owner.write(vec![append(&bob, "m1"), append(&bob, "m2")]).await;
    fixture.pass(2200).await;
    owner.now_ms += 2200;
    let opened = owner.open("bob").await;
    assert_eq!((opened.tail, opened.first), (Offset(2), Offset(3)));
    assert_eq!(owner.read(&bob, 0, 10).await, Window::default());
    let next = owner.write(vec![append(&bob, "m1"), append(&bob, "m3")]).await;
    assert_eq!(next, [AT, OpResult::Appended { offset: Offset(3) }]);
    let window = owner.read(&bob, 0, 10).await;
    assert_eq!((window.first, offsets(&window)), (Offset(3), vec![3]));
}

pub async fn reading_starts_anywhere_and_another_generation_is_empty(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = owner(&a).await;
    let bob = inbox("bob");
    assert_eq!(owner.read(&bob, 0, 10).await, Window::default(), "no such stream");
    owner.write((1..=9).map(|i| append(&bob, &format!("m{i}"))).collect()).await;
    for (after, limit, wanted) in [
        (0, 3, vec![1, 2, 3]),
        (4, 2, vec![5, 6]),
        (7, 100, vec![8, 9]),
        (9, 100, vec![]),
        (100, 100, vec![]),
        (0, 0, vec![]),
    ] {
        let window = owner.read(&bob, after, limit).await;
        assert_eq!((window.first, offsets(&window)), (Offset(1), wanted), "after {after}, limit {limit}");
    }
    for generation in [9, 11] {
        let read =
            a.store.read(V, &bob, Epoch(generation), Offset(0), Limit { entries: 10, bytes: 1 << 20 }).await;
        assert_eq!(read.expect("the store answers"), Window::default());
    }
}

pub async fn operations_of_one_write_see_each_other(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = owner(&a).await;
    let (bob, phone) = (inbox("bob"), DeviceId::new("phone").expect("a valid device id"));
    let cursor = Cursor::new(Epoch(10), Offset(1));
    let open = |device| Op::Open { user: user("bob"), device };
    let ops = vec![
        open(Some(phone.clone())),
        append(&bob, "m1"),
        Op::Presence(online("bob")),
        Op::Ack { user: user("bob"), device: phone.clone(), cursor },
        append(&inbox("eve"), "m1"),
        append(&bob, "m2"),
        open(Some(phone)),
        open(None),
    ];
    let presence = PresenceRow { roster: online("bob").roster, seen: None };
    let before = Opened {
        tail: Offset(0),
        first: Offset(1),
        acked: None,
        forgotten: false,
        read: None,
        presence: PresenceRow::default(),
    };
    let after = Opened {
        tail: Offset(2),
        first: Offset(1),
        acked: Some(cursor),
        forgotten: false,
        read: None,
        presence,
    };
    let nowhere = Opened { acked: None, ..after.clone() };
    let wanted = [
        OpResult::Opened(before),
        OpResult::Appended { offset: Offset(1) },
        OpResult::Presence { changed: true },
        OpResult::Acked,
        OpResult::Appended { offset: Offset(1) },
        OpResult::Appended { offset: Offset(2) },
        OpResult::Opened(after),
        OpResult::Opened(nowhere),
    ];
    assert_eq!(owner.write(ops).await, wanted);
    assert_eq!(owner.fence.seq.0, 4, "four events");
}

pub async fn an_acked_cursor_only_grows(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = owner(&a).await;
    let at = |generation, offset| Cursor::new(Epoch(generation), Offset(offset));
    let ack = |cursor| {
        let device = DeviceId::new("phone").expect("a valid device id");
        Op::Ack { user: user("bob"), device, cursor }
    };
    assert_eq!(owner.open("bob").await.acked, None);
    for (acked, wanted) in [
        (at(0, 0), at(0, 0)),
        (at(9, 50), at(9, 50)),
        (at(9, 49), at(9, 50)),
        (at(10, 2), at(10, 2)),
        (at(9, 99), at(10, 2)),
        (at(10, 10), at(10, 10)),
    ] {
        assert_eq!(owner.write(vec![ack(acked)]).await, [OpResult::Acked]);
        assert_eq!(owner.open("bob").await.acked, Some(wanted));
    }
    assert_eq!(owner.open("eve").await.acked, None, "cursors are a user's own");
}

pub async fn how_far_a_user_has_read_only_grows_and_is_no_devices(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = owner(&a).await;
    let at = |generation, offset| Cursor::new(Epoch(generation), Offset(offset));
    for (cursor, wanted) in [(at(9, 5), at(9, 5)), (at(9, 4), at(9, 5)), (at(10, 1), at(10, 1))] {
        assert_eq!(owner.write(vec![Op::Read { user: user("bob"), cursor }]).await, [OpResult::Acked]);
        let opened = owner.open("bob").await;
        assert_eq!((opened.read, opened.acked), (Some(wanted), None));
    }
    assert_eq!(owner.open("eve").await.read, None);
}
