//! Rooms: follows, lists of members, and what bounds them (rules 28 and 29).

use roost_backend::store::Standing;
use roost_proto::answers::Listed;
use roost_proto::frames::{Change, InfoOf, Joined};
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, StreamId, VnodeId};
use roost_proto::limits::{MEMBERS_BYTES_MAX, RESULTS_BYTES_MAX};
use roost_proto::live::Version;
use roost_proto::records::Record;
use roost_ws_node::core::{Command, Input, Rights};

use super::harness::{Harness, Road};

/// Homes that have heard of every node: before that they do not know all who are in their rooms.
fn harness(homes: &[usize]) -> Harness {
    with(homes, 256)
}

fn with(homes: &[usize], credit: usize) -> Harness {
    let mut harness = Harness::with(homes, None, |cfg| (cfg.open_rooms, cfg.credit) = (true, credit));
    harness.run(30_000);
    harness
}

fn came(user: &str) -> (String, Change) {
    (user.to_owned(), Change::Join)
}

fn left(user: &str) -> (String, Change) {
    (user.to_owned(), Change::Leave)
}

fn listed(members: Option<&Vec<InfoOf>>) -> Option<Vec<&str>> {
    members.map(|all| all.iter().map(|m| m.user.as_str()).collect())
}

/// Between two follows of a room it was left: the answer to the first says nothing of the second, and until that one
/// is answered what is published may not arrive.
#[test]
fn a_follow_of_an_earlier_life_of_a_room_does_not_count() {
    let mut harness = harness(&[0, 1]);
    let (alice, room) = (harness.user(0, 0), harness.room(1, 0));
    let session = harness.connect(0, &alice);
    harness.live.hold_follows = true;
    harness.join(session, &room, "j1");
    harness.leave(session, &room, "l1");
    assert_eq!(harness.told(session, "j1"), ["conflict"], "whoever repeats it would be in the room again");
    assert!(harness.live.followers.is_empty(), "asked for and not wanted any more: unfollowed");
    harness.join(session, &room, "j2");
    let [(node, first), (_, second)] =
        std::mem::take(&mut harness.live.unanswered).try_into().expect("two follows");
    harness.give(node, first);
    harness.run(500);
    assert!(harness.told(session, "j2").is_empty(), "it is not known to be followed");
    harness.give(node, second);
    harness.run(500);
    assert_eq!(harness.told(session, "j2"), ["ok"]);
}

/// A list that was made before a change that is known already is older than what is known.
#[test]
fn a_list_of_members_that_a_change_overtook_is_not_taken() {
    let mut harness = harness(&[0, 1, 2, 0]);
    let (alice, bob, room) = (harness.user(0, 0), harness.user(2, 0), harness.room(1, 0));
    let (a, b) = (harness.connect(0, &alice), harness.connect(2, &bob));
    harness.join_as(a, &room, "j1", true, None);
    harness.run(500);
    // What the store shows is unlike what node 0 has: it asks for the list, which is made and stays on the road.
    harness.road = Box::new(|from, record| match record {
        Record::Confirm(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
    let stream = StreamId::of_room(&room);
    let tail = Cursor::new(Epoch(0), Offset(0));
    let other = Standing { tail, version: Version { epoch: Epoch(1), n: 1 } };
    let rooms = vec![(VnodeId(1), stream)];
    harness.give(0, Input::Standings { rooms, answer: Some(vec![Some(other)]) });
    harness.run(100);
    harness.join_as(b, &room, "j2", true, None);
    harness.run(100);
    assert_eq!(harness.told_of(a), [came(&bob)]);
    harness.clear_road();
    harness.run(100);
    assert_eq!(harness.told_of(a), [came(&bob)], "nobody left");
    harness.members(a, &room, "m1");
    harness.run(100);
    let mut both = [alice.as_str(), bob.as_str()];
    both.sort_unstable();
    assert_eq!(listed(harness.done::<Listed>(a, "m1").members.as_ref()), Some(both.to_vec()));
}

/// P6: a node that was declared dead and lives says of everyone who is with it that they are there.
#[test]
fn a_node_with_a_new_life_tells_who_is_in_a_room_anew() {
    let mut harness = harness(&[0, 1, 2, 0]);
    let (alice, bob, room) = (harness.user(0, 0), harness.user(2, 0), harness.room(1, 0));
    let (a, b) = (harness.connect(0, &alice), harness.connect(2, &bob));
    harness.join_as(a, &room, "j1", true, None);
    harness.run(500);
    harness.join_as(b, &room, "j2", true, None);
    harness.run(500);
    let here = harness.told_of(b);
    harness.revoke(0);
    harness.run(40_000);
    assert!(harness.closed(a).is_empty(), "its connection never broke");
    assert_eq!(harness.told_of(b), here, "and it never left");
}

/// Users with the largest `info`, each in the rooms; what node 0 has to say of them waited and comes together.
fn crowd(harness: &mut Harness, users: usize, rooms: usize) {
    let info = format!("\"{}\"", "x".repeat(1000));
    let rooms: Vec<_> = (0..rooms).map(|k| harness.room(1, k)).collect();
    harness.road =
        Box::new(|_, record| if matches!(record, Record::Confirm(_)) { Road::Held } else { Road::Goes });
    for k in 0..users {
        let user = harness.user(0, k);
        let session = harness.connect(0, &user);
        for (r, room) in rooms.iter().enumerate() {
            harness.join_as(session, room, &format!("j{r}"), true, Some(&info));
        }
    }
    harness.clear_road();
    harness.run(5000);
}

/// P9: whatever is to be said of however many, no record is larger than Kafka takes, and no frame than clients read.
#[test]
fn lists_of_members_and_records_about_them_are_bounded() {
    let mut harness = harness(&[0, 1, 2, 0]);
    crowd(&mut harness, 300, 1);
    let (room, carol) = (harness.room(1, 0), harness.user(2, 0));
    let session = harness.connect(2, &carol);
    harness.members(session, &room, "m1");
    harness.run(500);
    let ok = harness.done::<Listed>(session, "m1");
    assert_eq!((ok.member_count, &ok.members), (Some(300), &None), "they do not fit into an answer");
    let largest = harness.sent.iter().map(|(_, _, bytes, _)| *bytes).max();
    assert!(largest.is_some_and(|bytes| bytes < MEMBERS_BYTES_MAX), "{largest:?}");
}

#[test]
fn several_long_lists_go_in_several_records() {
    let mut harness = harness(&[0, 1, 2, 0]);
    crowd(&mut harness, 200, 3);
    // A socket has credit for one of them.
    let sessions = [0, 1, 2].map(|k| {
        let user = harness.user(2, k);
        harness.connect(2, &user)
    });
    // What was answered is lost, and asked for again, all at once.
    harness.road =
        Box::new(|_, record| if matches!(record, Record::Confirm(_)) { Road::Lost } else { Road::Goes });
    for (k, session) in sessions.into_iter().enumerate() {
        let room = harness.room(1, k);
        harness.members(session, &room, &format!("m{k}"));
    }
    harness.run(100);
    harness.clear_road();
    harness.run(5000);
    for (k, session) in sessions.into_iter().enumerate() {
        assert_eq!(
            harness.done::<Listed>(session, &format!("m{k}")).members.as_ref().map(Vec::len),
            Some(200)
        );
    }
    let largest = harness.sent.iter().map(|(_, _, bytes, _)| *bytes).max();
    assert!(largest.is_some_and(|bytes| bytes < RESULTS_BYTES_MAX), "{largest:?}");
}

/// P9: a session that reads nothing is not sent list after list.
#[test]
fn a_list_of_members_takes_credit_like_a_message() {
    let mut harness = with(&[0, 1], 2);
    let (alice, room, other) = (harness.user(0, 0), harness.room(1, 0), harness.room(1, 1));
    let session = harness.connect(0, &alice);
    harness.join_as(session, &room, "j1", true, None);
    harness.run(500);
    harness.stalled.insert(session);
    for id in ["m1", "m2", "m3"] {
        harness.members(session, &room, id);
    }
    assert_eq!(["m1", "m2", "m3"].map(|id| harness.told(session, id)[0]), ["ok", "ok", "rate_limited"]);
    harness.join_as(session, &other, "j2", true, None);
    harness.run(500);
    let ok = harness.done::<Joined>(session, "j2");
    assert!(ok.members.is_none() && ok.member_count.is_some(), "the place, without the list: {ok:?}");
    harness.drain(session);
    harness.members(session, &room, "m4");
    assert_eq!(harness.told(session, "m4"), ["ok"]);
}

/// P9: a home that does not answer is no reason to keep somebody waiting for ever.
#[test]
fn who_asks_for_members_and_gets_no_list_is_told_so_in_time() {
    let mut harness = harness(&[0, 1]);
    let (alice, room) = (harness.user(0, 0), harness.room(1, 0));
    let session = harness.connect(0, &alice);
    harness.road = Box::new(|_, _| Road::Lost);
    harness.members(session, &room, "m1");
    harness.run(10_000);
    harness.members(session, &room, "m2");
    assert!(harness.told(session, "m1").is_empty());
    harness.run(10_100);
    assert_eq!(harness.told(session, "m1"), ["unavailable"]);
    harness.run(10_000);
    assert_eq!(harness.told(session, "m2"), ["unavailable"]);
    harness.clear_road();
    harness.run(10_000);
    harness.members(session, &room, "m3");
    harness.run(500);
    assert_eq!(harness.told(session, "m3"), ["ok"]);
}

/// What a token does not allow any more is over at once: nothing more is heard, and the others see it go.
#[test]
fn narrower_rights_take_rooms_away() {
    let mut harness = harness(&[0, 1]);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (kept, lost, asked) = (harness.room(1, 0), harness.room(1, 1), harness.room(1, 2));
    let (a, b) = (harness.connect(0, &alice), harness.connect(1, &bob));
    for (session, room, id) in [(a, &kept, "j1"), (a, &lost, "j2"), (b, &lost, "j3")] {
        harness.join_as(session, room, id, true, None);
        harness.run(500);
    }
    harness.live.hold_follows = true;
    harness.join(a, &asked, "j4");
    let token = Ok(Rights { rooms: Some(vec![kept.to_string()]), ..Rights::default() });
    harness.command(a, Command::Refresh(MessageId::new("f1").unwrap(), token));
    harness.run(500);
    assert_eq!((harness.told(a, "f1"), harness.told(a, "j4")), (vec!["ok"], vec!["forbidden"]));
    assert_eq!(harness.told_of(b).last(), Some(&left(&alice)), "without the linger");
    harness.publish_in(b, &lost, "p1");
    harness.publish_in(b, &kept, "p2");
    harness.run(500);
    assert_eq!(harness.inbox(a), ["p2"]);
    harness.leave(a, &lost, "l1");
    assert_eq!(harness.told(a, "l1"), ["not_found"]);
}

/// Rule 28: a loss that is told is looked for soon, and however often it is told, once.
#[test]
fn what_was_missed_is_looked_for_soon_and_once() {
    let mut harness = harness(&[0, 1]);
    let (alice, bob, room) = (harness.user(0, 0), harness.user(1, 0), harness.room(1, 0));
    let (a, b) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.join(a, &room, "j1");
    harness.run(500);
    // Just after rooms were compared, as they are every five seconds.
    let before = harness.live.compared;
    let compared = (0..200).any(|_| {
        harness.run(50);
        harness.live.compared > before
    });
    assert!(compared);
    let before = harness.live.compared;
    harness.live.deaf.insert(0);
    harness.publish_in(b, &room, "p1");
    harness.run(100);
    assert!(harness.inbox(a).is_empty());
    for _ in 0..100 {
        harness.give(0, Input::Missed);
    }
    assert_eq!(harness.live.compared, before, "there is least time when there are many such words");
    harness.run(400);
    assert_eq!(harness.inbox(a), ["p1"]);
    assert_eq!(harness.live.compared, before + 1);
}
