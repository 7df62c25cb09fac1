//! Roster and last seen.

use bytes::Bytes;
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::Epoch;

use super::writes::online;
use super::*;

const CHANGED: [OpResult; 1] = [OpResult::Presence { changed: true }];
const UNCHANGED: [OpResult; 1] = [OpResult::Presence { changed: false }];

fn offline(name: &str) -> PresenceOp {
    let seen = Some(Seen {
        chosen: ChosenStatus::Away,
        since: NOW_MS + 1,
        last_seen: NOW_MS,
        generation: Epoch(10),
    });
    let event = Some(Bytes::from_static(b"\"user\":\"x\",\"status\":\"offline\"}"));
    PresenceOp { user: user(name), roster: None, seen, event }
}

/// A repeat after a lost answer must not be seen by others.
pub async fn setting_the_same_presence_again_yields_no_event(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let me = sid("ws-1", 1);
    let mut owner = a.own(V, &me, Epoch(10)).await;
    assert_eq!(owner.write(vec![Op::Presence(online("bob"))]).await, CHANGED);
    assert_eq!(owner.write(vec![Op::Presence(online("bob"))]).await, UNCHANGED);
    let mut away = online("bob");
    away.roster.as_mut().expect("given").chosen = ChosenStatus::Away;
    assert_eq!(owner.write(vec![Op::Presence(away)]).await, CHANGED);
    assert_eq!(owner.write(vec![Op::Presence(offline("bob"))]).await, CHANGED);
    assert_eq!(owner.write(vec![Op::Presence(offline("bob"))]).await, UNCHANGED);
    assert_eq!(owner.write(vec![Op::Presence(offline("eve"))]).await, UNCHANGED, "who was never there");
    let silent = PresenceOp { event: None, ..online("eve") };
    assert_eq!(owner.write(vec![Op::Presence(silent)]).await, CHANGED);
    let ActivateAnswer::Activated(left) = a.activate(&a.activation(V, &me, Epoch(11))).await else {
        panic!("a larger epoch activates")
    };
    let seqs: Vec<_> = left.outbox.iter().map(|e| e.seq.0).collect();
    assert_eq!(seqs, [1, 3, 4], "a write without an event takes a seq too");
    assert_eq!(left.roster.iter().map(|(u, _)| u.as_str()).collect::<Vec<_>>(), ["eve"]);
}

pub async fn who_leaves_keeps_a_last_seen(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    owner.write(vec![Op::Presence(online("bob"))]).await;
    assert_eq!(owner.open("bob").await.presence, PresenceRow { roster: online("bob").roster, seen: None });
    owner.write(vec![Op::Presence(offline("bob"))]).await;
    let left = PresenceRow { roster: None, seen: offline("bob").seen };
    assert_eq!(owner.open("bob").await.presence, left);
    owner.write(vec![Op::Presence(online("bob"))]).await;
    let back = PresenceRow { roster: online("bob").roster, seen: offline("bob").seen };
    assert_eq!(owner.open("bob").await.presence, back, "not given, so kept");
    let again = Seen { last_seen: NOW_MS + 9, ..offline("bob").seen.expect("given") };
    let same = PresenceOp { seen: Some(again), ..online("bob") };
    assert_eq!(owner.write(vec![Op::Presence(same)]).await, UNCHANGED);
    assert_eq!(owner.open("bob").await.presence.seen, Some(again), "replaced all the same");
}

pub async fn presence_is_read_in_the_order_asked(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    owner.write(vec![Op::Presence(online("zoë")), Op::Presence(offline("bob"))]).await;
    let users = [user("nobody"), user("zoë"), user("bob"), user("zoë")];
    let rows = a.store.presence(V, &users).await.expect("the store answers").rows;
    let here = PresenceRow { roster: online("zoë").roster, seen: None };
    let gone = PresenceRow { roster: None, seen: offline("bob").seen };
    assert_eq!(rows, [PresenceRow::default(), here.clone(), gone, here]);
    assert_eq!(a.store.presence(V, &[]).await.expect("the store answers").rows, []);
}

pub async fn presence_of_many_vnodes_is_read_as_that_of_each(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (me, other) = (sid("ws-1", 1), VnodeId(V.0 + 1));
    a.own(V, &me, Epoch(10)).await.write(vec![Op::Presence(online("zoë"))]).await;
    a.own(other, &me, Epoch(11)).await.write(vec![Op::Presence(offline("bob"))]).await;
    let asked = [
        (other, vec![user("zoë"), user("bob")]),
        (V, vec![]),
        (V, vec![user("zoë"), user("bob"), user("zoë")]),
    ];
    let before = a.store.commands();
    let rows = a.store.presence_rows(&asked).await.expect("the store answers");
    let commands = a.store.commands() - before;
    assert!(commands <= 4, "{commands} commands: two for each vnode are enough");
    let here = PresenceRow { roster: online("zoë").roster, seen: None };
    let gone = PresenceRow { roster: None, seen: offline("bob").seen };
    let nothing = PresenceRow::default();
    assert_eq!(rows, [vec![nothing.clone(), gone], vec![], vec![here.clone(), nothing, here]]);
    assert_eq!(a.store.presence_rows(&[]).await.expect("the store answers"), Vec::<Vec<_>>::new());
}
