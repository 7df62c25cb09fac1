//! P6 in rooms: who is invisible is in the room and not shown, neither coming nor going.

use roost_proto::answers::Listed;
use roost_proto::frames::{Change, ChosenStatus, InfoOf, Joined};
use roost_proto::ids::RoomId;
use roost_proto::records::Record;

use super::harness::{Harness, LEASE_TTL_MS, Road};

const LINGER_MS: u64 = 10_000;

/// Alice at node 0 is in a room of node 1; bob is at node 2.
fn harness() -> (Harness, u64, String, RoomId) {
    let mut harness = Harness::with(&[0, 1, 2, 0], None, |cfg| cfg.open_rooms = true);
    harness.run(30_000);
    let (alice, bob, room) = (harness.user(0, 0), harness.user(2, 0), harness.room(1, 0));
    let a = harness.connect(0, &alice);
    harness.join_as(a, &room, "j0", true, None);
    harness.run(500);
    (harness, a, bob, room)
}

fn lists(harness: &mut Harness, session: u64, room: &RoomId, id: &str, user: &str) -> bool {
    harness.members(session, room, id);
    harness.run(100);
    let names = |all: &Vec<InfoOf>| all.iter().any(|m| m.user.as_str() == user);
    harness.done::<Listed>(session, id).members.as_ref().is_some_and(names)
}

/// What alice was told of bob.
fn told(harness: &Harness, a: u64, bob: &str) -> Vec<Change> {
    harness.told_of(a).into_iter().filter(|(user, _)| user == bob).map(|(_, change)| change).collect()
}

#[test]
fn who_is_invisible_is_in_a_room_and_not_shown() {
    let (mut harness, a, bob, room) = harness();
    let b = harness.connect(2, &bob);
    harness.choose(b, ChosenStatus::Invisible, "s1");
    harness.run(500);
    harness.join_as(b, &room, "j1", true, None);
    harness.run(500);
    assert!(
        harness.done::<Joined>(b, "j1").members.as_ref().is_some_and(|all| all.len() == 1),
        "it sees the others"
    );
    assert!(!lists(&mut harness, a, &room, "m1", &bob) && !lists(&mut harness, b, &room, "m2", &bob));
    harness.publish_in(a, &room, "p1");
    harness.run(100);
    assert_eq!(harness.inbox(b), ["p1"], "it is in the room");
    harness.leave(b, &room, "l1");
    harness.run(500);
    harness.join_as(b, &room, "j2", true, Some("\"hello\""));
    harness.run(500);
    harness.hang_up(b);
    harness.run(LINGER_MS + 5000);
    assert_eq!(told(&harness, a, &bob), [], "neither coming nor going");
}

#[test]
fn a_change_of_status_shows_and_hides() {
    let (mut harness, a, bob, room) = harness();
    let b = harness.connect(2, &bob);
    harness.join_as(b, &room, "j1", true, None);
    harness.run(500);
    assert_eq!(told(&harness, a, &bob), [Change::Join]);
    harness.choose(b, ChosenStatus::Invisible, "s1");
    harness.run(500);
    assert_eq!(told(&harness, a, &bob), [Change::Join, Change::Leave], "at once, as who leaves");
    assert!(!lists(&mut harness, a, &room, "m1", &bob));
    harness.choose(b, ChosenStatus::Away, "s2");
    harness.run(500);
    assert_eq!(told(&harness, a, &bob), [Change::Join, Change::Leave, Change::Join]);
    assert!(lists(&mut harness, a, &room, "m2", &bob));
    harness.choose(b, ChosenStatus::Invisible, "s3");
    harness.run(500);
    harness.hang_up(b);
    harness.run(LINGER_MS + 5000);
    assert_eq!(told(&harness, a, &bob).len(), 4, "the real leaving is not seen");
}

/// The rooms of `connect` are joined before it is known what the user chose.
#[test]
fn who_comes_back_invisible_is_not_shown_for_a_moment_either() {
    let (mut harness, a, bob, room) = harness();
    let b = harness.connect(2, &bob);
    harness.choose(b, ChosenStatus::Invisible, "s1");
    harness.run(500);
    harness.hang_up(b);
    harness.run(2 * LINGER_MS);
    let b = harness.connect_in(2, &bob, &[&room]);
    harness.run(500);
    assert!(harness.is_welcome(b));
    assert_eq!(told(&harness, a, &bob), []);
    // The home of the room is another one, to which everyone is told anew.
    harness.assign(1, 0);
    harness.run(40_000);
    assert!(!lists(&mut harness, a, &room, "m1", &bob));
    assert_eq!(told(&harness, a, &bob), []);
    harness.choose(b, ChosenStatus::Online, "s2");
    harness.run(500);
    assert_eq!(told(&harness, a, &bob), [Change::Join]);
}

/// Who is visible is told as before, also by `connect`.
#[test]
fn who_connects_into_a_room_is_shown_when_its_choice_is_known() {
    let (mut harness, a, bob, room) = harness();
    harness.connect_in(2, &bob, &[&room]);
    harness.run(500);
    assert_eq!(told(&harness, a, &bob), [Change::Join]);
}

/// Bob's home dies while he is shown, and nobody has said so yet; he comes back elsewhere and hides.
#[test]
fn who_hides_is_hidden_from_where_its_last_home_was_too() {
    let (mut harness, a, bob, room) = harness();
    let b = harness.connect(2, &bob);
    harness.join_as(b, &room, "j1", true, None);
    harness.run(500);
    assert_eq!(told(&harness, a, &bob), [Change::Join]);
    harness.freeze(2);
    harness.assign(2, 0);
    harness.run(LEASE_TTL_MS + 2000);
    let b = harness.connect_in(0, &bob, &[&room]);
    harness.run(500);
    assert!(harness.is_welcome(b));
    assert_eq!(told(&harness, a, &bob), [Change::Join]);
    harness.choose(b, ChosenStatus::Invisible, "s1");
    harness.run(500);
    assert!(!lists(&mut harness, a, &room, "m1", &bob));
    assert_eq!(told(&harness, a, &bob), [Change::Join, Change::Leave]);
    harness.run(60_000);
    assert_eq!(told(&harness, a, &bob).len(), 2);
}

/// Bob hides, which is long on its way to the room's home; until it comes he has another home, and shows there.
#[test]
fn who_hid_under_an_earlier_home_is_not_hidden_from_where_it_shows_since() {
    let (mut harness, a, bob, room) = harness();
    let b = harness.connect(2, &bob);
    harness.join_as(b, &room, "j1", true, None);
    harness.run(500);
    assert_eq!(told(&harness, a, &bob), [Change::Join]);
    harness.road = Box::new(|from, record| match record {
        Record::Item(_) if from == 2 => Road::Held,
        _ => Road::Goes,
    });
    harness.choose(b, ChosenStatus::Invisible, "s1");
    harness.run(500);
    harness.assign(2, 0);
    harness.run(5000);
    let b = harness.connect_in(0, &bob, &[&room]);
    harness.run(500);
    assert!(harness.is_welcome(b));
    harness.choose(b, ChosenStatus::Online, "s2");
    harness.run(500);
    assert_eq!(harness.told(b, "s2"), ["ok"]);
    assert_eq!(told(&harness, a, &bob), [Change::Join], "that he hid is on its way");
    harness.clear_road();
    harness.run(60_000);
    assert_eq!(told(&harness, a, &bob), [Change::Join]);
    assert!(lists(&mut harness, a, &room, "m1", &bob));
}
