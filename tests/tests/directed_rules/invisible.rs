//! P6 in rooms: who is invisible is in the room and not shown, neither coming nor going.

use roost_proto::answers::Listed;
use roost_proto::frames::{Change, ChosenStatus, InfoOf, Joined};
use roost_proto::ids::RoomId;

use super::rig::{LEASE_TTL_MS, Rig};

const LINGER_MS: u64 = 10_000;

/// Alice at node 0 is in a room of node 1; bob is at node 2.
fn rig() -> (Rig, u64, String, RoomId) {
    let mut rig = Rig::with(&[0, 1, 2, 0], None, |cfg| cfg.open_rooms = true);
    rig.run(30_000);
    let (alice, bob, room) = (rig.user(0, 0), rig.user(2, 0), rig.room(1, 0));
    let a = rig.connect(0, &alice);
    rig.join_as(a, &room, "j0", true, None);
    rig.run(500);
    (rig, a, bob, room)
}

fn lists(rig: &mut Rig, session: u64, room: &RoomId, id: &str, user: &str) -> bool {
    rig.members(session, room, id);
    rig.run(100);
    let names = |all: &Vec<InfoOf>| all.iter().any(|m| m.user.as_str() == user);
    rig.done::<Listed>(session, id).members.as_ref().is_some_and(names)
}

/// What alice was told of bob.
fn told(rig: &Rig, a: u64, bob: &str) -> Vec<Change> {
    rig.told_of(a).into_iter().filter(|(user, _)| user == bob).map(|(_, change)| change).collect()
}

#[test]
fn who_is_invisible_is_in_a_room_and_not_shown() {
    let (mut rig, a, bob, room) = rig();
    let b = rig.connect(2, &bob);
    rig.choose(b, ChosenStatus::Invisible, "s1");
    rig.run(500);
    rig.join_as(b, &room, "j1", true, None);
    rig.run(500);
    assert!(
        rig.done::<Joined>(b, "j1").members.as_ref().is_some_and(|all| all.len() == 1),
        "it sees the others"
    );
    assert!(!lists(&mut rig, a, &room, "m1", &bob) && !lists(&mut rig, b, &room, "m2", &bob));
    rig.publish_in(a, &room, "p1");
    rig.run(100);
    assert_eq!(rig.inbox(b), ["p1"], "it is in the room");
    rig.leave(b, &room, "l1");
    rig.run(500);
    rig.join_as(b, &room, "j2", true, Some("\"hello\""));
    rig.run(500);
    rig.hang_up(b);
    rig.run(LINGER_MS + 5000);
    assert_eq!(told(&rig, a, &bob), [], "neither coming nor going");
}

#[test]
fn a_change_of_status_shows_and_hides() {
    let (mut rig, a, bob, room) = rig();
    let b = rig.connect(2, &bob);
    rig.join_as(b, &room, "j1", true, None);
    rig.run(500);
    assert_eq!(told(&rig, a, &bob), [Change::Join]);
    rig.choose(b, ChosenStatus::Invisible, "s1");
    rig.run(500);
    assert_eq!(told(&rig, a, &bob), [Change::Join, Change::Leave], "at once, as who leaves");
    assert!(!lists(&mut rig, a, &room, "m1", &bob));
    rig.choose(b, ChosenStatus::Away, "s2");
    rig.run(500);
    assert_eq!(told(&rig, a, &bob), [Change::Join, Change::Leave, Change::Join]);
    assert!(lists(&mut rig, a, &room, "m2", &bob));
    rig.choose(b, ChosenStatus::Invisible, "s3");
    rig.run(500);
    rig.hang_up(b);
    rig.run(LINGER_MS + 5000);
    assert_eq!(told(&rig, a, &bob).len(), 4, "the real leaving is not seen");
}

/// The rooms of `connect` are joined before it is known what the user chose.
#[test]
fn who_comes_back_invisible_is_not_shown_for_a_moment_either() {
    let (mut rig, a, bob, room) = rig();
    let b = rig.connect(2, &bob);
    rig.choose(b, ChosenStatus::Invisible, "s1");
    rig.run(500);
    rig.hang_up(b);
    rig.run(2 * LINGER_MS);
    let b = rig.connect_in(2, &bob, &[&room]);
    rig.run(500);
    assert!(rig.is_welcome(b));
    assert_eq!(told(&rig, a, &bob), []);
    // The home of the room is another one, to which everyone is told anew.
    rig.assign(1, 0);
    rig.run(40_000);
    assert!(!lists(&mut rig, a, &room, "m1", &bob));
    assert_eq!(told(&rig, a, &bob), []);
    rig.choose(b, ChosenStatus::Online, "s2");
    rig.run(500);
    assert_eq!(told(&rig, a, &bob), [Change::Join]);
}

/// Who is visible is told as before, also by `connect`.
#[test]
fn who_connects_into_a_room_is_shown_when_its_choice_is_known() {
    let (mut rig, a, bob, room) = rig();
    rig.connect_in(2, &bob, &[&room]);
    rig.run(500);
    assert_eq!(told(&rig, a, &bob), [Change::Join]);
}

/// Bob's home dies while he is shown, and nobody has said so yet; he comes back elsewhere and hides.
#[test]
fn who_hides_is_hidden_from_where_its_last_home_was_too() {
    let (mut rig, a, bob, room) = rig();
    let b = rig.connect(2, &bob);
    rig.join_as(b, &room, "j1", true, None);
    rig.run(500);
    assert_eq!(told(&rig, a, &bob), [Change::Join]);
    rig.freeze(2);
    rig.assign(2, 0);
    rig.run(LEASE_TTL_MS + 2000);
    let b = rig.connect_in(0, &bob, &[&room]);
    rig.run(500);
    assert!(rig.is_welcome(b));
    assert_eq!(told(&rig, a, &bob), [Change::Join]);
    rig.choose(b, ChosenStatus::Invisible, "s1");
    rig.run(500);
    assert!(!lists(&mut rig, a, &room, "m1", &bob));
    assert_eq!(told(&rig, a, &bob), [Change::Join, Change::Leave]);
    rig.run(60_000);
    assert_eq!(told(&rig, a, &bob).len(), 2);
}
