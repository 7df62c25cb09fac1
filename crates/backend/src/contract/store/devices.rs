//! What is kept of a user's devices (promise 17).

use roost_proto::ids::{Cursor, DeviceId, Epoch, Offset};

use super::*;

fn device(n: usize) -> DeviceId {
    DeviceId::new(format!("d{n}")).expect("a valid device id")
}

fn at(offset: usize) -> Cursor {
    Cursor::new(Epoch(10), Offset(offset as u64))
}

fn ack(n: usize) -> Op {
    Op::Ack { user: user("bob"), device: device(n), cursor: at(n) }
}

fn read(offset: usize) -> Op {
    Op::Read { user: user("bob"), cursor: at(offset) }
}

/// What device `n` of a user has acknowledged, and whether it may have been forgotten.
async fn opened(owner: &mut Owner, of: &str, n: usize) -> (Option<Cursor>, bool) {
    let opened = owner.open_as(of, Some(device(n))).await;
    (opened.acked, opened.forgotten)
}

pub async fn the_devices_used_last_are_kept(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    owner.write((1..=DEVICES_KEPT).map(ack).chain([read(7)]).collect()).await;
    assert_eq!(opened(&mut owner, "bob", 0).await, (None, false), "a new one, while nothing was forgotten");
    assert_eq!(opened(&mut owner, "bob", 1).await, (Some(at(1)), false), "all of them are there");
    owner.write(vec![ack(2), ack(DEVICES_KEPT + 1), read(8)]).await;
    assert_eq!(opened(&mut owner, "bob", 1).await, (Some(at(1)), false), "to be opened is a use");
    assert_eq!(opened(&mut owner, "bob", 2).await, (Some(at(2)), false), "so is an acknowledgement");
    assert_eq!(opened(&mut owner, "bob", 3).await, (None, true), "the one used before the others");
    assert_eq!(opened(&mut owner, "bob", 4).await, (Some(at(4)), false));
    assert_eq!(opened(&mut owner, "bob", DEVICES_KEPT + 1).await, (Some(at(DEVICES_KEPT + 1)), false));
    let none = owner.open_as("bob", None).await;
    assert_eq!((none.acked, none.read), (None, Some(at(8))), "what was read is no device's and stays");
    assert_eq!(opened(&mut owner, "eve", 3).await, (None, false), "devices are a user's own");
}

pub async fn a_device_that_may_be_a_forgotten_one_is_told_apart_from_a_new_one(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    // A client that makes a name up for each connection.
    for first in (1..=4 * DEVICES_KEPT).step_by(50) {
        owner.write((first..first + 50).map(ack).collect()).await;
    }
    assert_eq!(opened(&mut owner, "bob", 0).await, (None, true), "nobody can say whether it was there");
    assert!(!owner.open_as("bob", None).await.forgotten, "without a device nothing was to be kept");
    owner.write(vec![Op::Ack { user: user("bob"), device: device(0), cursor: at(900) }]).await;
    let Owner { store, fence, generation, now_ms } = owner;
    drop(store);
    let store = fixture.reopen(a.store).await;
    store.open_ring(VNODES).await.expect("the ring opens");
    let mut owner = Owner { store, fence, generation, now_ms };
    assert_eq!(opened(&mut owner, "bob", 0).await, (Some(at(900)), false), "from now on it is known");
    assert_eq!(opened(&mut owner, "bob", 1).await, (None, true));
}
