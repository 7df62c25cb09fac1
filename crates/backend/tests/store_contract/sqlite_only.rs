//! What only a file can promise: everything is still there after the process ended.

use std::sync::Arc;

use roost_backend::contract::store::{CONFIG, NOW_MS};
use roost_backend::contract::store::{Fixture, Owner, Process, V, VNODES, append, inbox, message, sid, user};
use roost_backend::embedded::EmbeddedStore;
use roost_backend::store::*;
use roost_proto::ids::{Cursor, DeviceId, Epoch, Offset, Seq};

use super::Embedded;

fn roster() -> RosterEntry {
    RosterEntry {
        chosen: Default::default(),
        since: NOW_MS,
        last_seen: None,
        sessions: 2,
        generation: Epoch(1),
    }
}

fn phone() -> DeviceId {
    DeviceId::new("phone").expect("a valid device id")
}

const SEEN: Seen = Seen {
    chosen: roost_proto::frames::ChosenStatus::Away,
    since: NOW_MS - 5,
    last_seen: NOW_MS - 9,
    generation: Epoch(1),
};

async fn before(a: &Process) -> Owner {
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let presence =
        |name, roster, seen| Op::Presence(PresenceOp { user: user(name), roster, seen, event: None });
    let cursor = Cursor::new(Epoch(10), Offset(2));
    owner.write((1..=12).map(|i| append(&inbox("bob"), &format!("m{i}"))).collect()).await;
    let trim = Write { trim: Seq(11), ..owner.write_of(vec![]) };
    owner.apply(&trim).await;
    owner
        .write(vec![
            presence("bob", Some(roster()), None),
            presence("eve", Some(roster()), Some(SEEN)),
            presence("bob", None, None),
            Op::Ack { user: user("bob"), device: phone(), cursor },
        ])
        .await;
    owner
}

/// A restart of `roost dev`: same data set, same generation, nothing acknowledged is missing.
#[tokio::test]
async fn after_reopening_everything_is_there_and_the_generation_goes_on() {
    let fixture = Embedded::file().await.unwrap();
    let a = Process::start(&fixture).await;
    let data_set = a.data_set.clone();
    let member = a.join("ws-1", 1).await;
    a.granted(V, &member).await;
    let (seq, generation) = {
        let owner = before(&a).await;
        (owner.fence.seq, owner.generation)
    };
    let store = fixture.reopen(a.store).await;
    let a = Process { data_set: store.open_ring(VNODES).await.unwrap(), store };
    assert_eq!(a.data_set, data_set);
    let table = a.table().await;
    assert!(
        table.nodes.is_empty() && table.rows.is_empty() && !table.settling,
        "leases end with the process"
    );

    let again = a.join("ws-1", 2).await;
    let epoch = a.granted(V, &again).await;
    assert!(epoch > generation, "the clock went on");
    let answer = a.activate(&a.activation(V, &again, epoch)).await;
    let ActivateAnswer::Activated(found) = answer else { panic!("a larger epoch, got {answer:?}") };
    assert_eq!((found.generation, found.seq, &found.previous), (generation, seq, &Some(member)));
    assert_eq!(found.outbox.iter().map(|e| e.seq).collect::<Vec<_>>(), [Seq(12)]);
    assert_eq!(found.roster, [(user("eve"), roster())]);

    let mut owner = a.owner(V, &again, epoch, &found);
    let window = owner.read(&inbox("bob"), 0, 100).await;
    assert_eq!((window.first, window.entries.len()), (Offset(1), 12));
    let opened = owner.open("bob").await;
    assert_eq!((opened.tail, opened.acked), (Offset(12), Some(Cursor::new(Epoch(10), Offset(2)))));
    assert_eq!(owner.open("eve").await.presence, PresenceRow { roster: Some(roster()), seen: Some(SEEN) });
    let other = Op::Append(message(&inbox("bob"), "m2", 9));
    let answers = owner.write(vec![append(&inbox("bob"), "m1"), other, append(&inbox("bob"), "m13")]).await;
    let known = OpResult::Duplicate { offset: Offset(1), at: NOW_MS };
    assert_eq!(answers, [known, OpResult::Conflict, OpResult::Appended { offset: Offset(13) }]);
}

#[tokio::test]
async fn a_file_with_another_number_of_vnodes_is_refused() {
    let fixture = Embedded::file().await.unwrap();
    let a = Process::start(&fixture).await;
    let store = fixture.reopen(a.store).await;
    let answer = store.open_ring(2 * VNODES).await;
    assert!(matches!(answer, Err(StoreError::Vnodes { found: VNODES, wanted }) if wanted == 2 * VNODES));
}

/// Leases are in memory: a second process would own every vnode too.
#[tokio::test]
async fn a_file_that_is_open_cannot_be_opened_again() {
    let fixture = Embedded::file().await.unwrap();
    let open = || EmbeddedStore::open(&fixture.path(), CONFIG, Arc::new(|| NOW_MS));
    let first = open().unwrap();
    let second = open();
    assert!(
        matches!(&second, Err(StoreError::Refused(text)) if text.contains("in use")),
        "{:?}",
        second.err()
    );
    drop(first);
    open().unwrap();
}

/// A full disk: what was not committed is not acknowledged, and memory does not remember it either.
#[tokio::test]
async fn a_write_that_cannot_be_kept_is_not_done() {
    let fixture = Embedded::file().await.unwrap();
    let a = Process::start(&fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    owner.write(vec![append(&inbox("bob"), "m1")]).await;
    let other = rusqlite::Connection::open(fixture.path()).unwrap();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON kv WHEN NEW.t = 'outbox'
        BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    other.execute_batch(refuse).unwrap();
    let write = owner.write_of(vec![append(&inbox("bob"), "m2"), append(&inbox("eve"), "m1")]);
    let answer = a.store.write(&write).await;
    assert!(matches!(&answer, Err(StoreError::Refused(text)) if text.contains("full")), "{answer:?}");
    assert_eq!(owner.read(&inbox("bob"), 0, 10).await.entries.len(), 1);
    other.execute_batch("DROP TRIGGER full").unwrap();
    let answers = owner.apply(&write).await;
    assert_eq!(answers, [OpResult::Appended { offset: Offset(2) }, OpResult::Appended { offset: Offset(1) }]);
}
