//! Rooms: follows, lists of members, and what bounds them (rules 28 and 29).

use roost_backend::store::Standing;
use roost_proto::answers::Listed;
use roost_proto::frames::{Change, InfoOf, Joined};
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, StreamId, VnodeId};
use roost_proto::limits::{MEMBERS_BYTES_MAX, RESULTS_BYTES_MAX};
use roost_proto::live::Version;
use roost_proto::records::Record;
use roost_ws_node::core::Command;
use roost_ws_node::core::Input;
use roost_ws_node::core::Rights;

use super::rig::{Rig, Road};

/// Homes that have heard of every node: before that they do not know all who are in their rooms.
fn rig(homes: &[usize]) -> Rig {
    with(homes, 256)
}

fn with(homes: &[usize], credit: usize) -> Rig {
    let mut rig = Rig::with(homes, None, |cfg| (cfg.open_rooms, cfg.credit) = (true, credit));
    rig.run(30_000);
    rig
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
    let mut rig = rig(&[0, 1]);
    let (alice, room) = (rig.user(0, 0), rig.room(1, 0));
    let session = rig.connect(0, &alice);
    rig.live.hold_follows = true;
    rig.join(session, &room, "j1");
    rig.leave(session, &room, "l1");
    assert_eq!(rig.told(session, "j1"), ["conflict"], "whoever repeats it would be in the room again");
    assert!(rig.live.followers.is_empty(), "asked for and not wanted any more: unfollowed");
    rig.join(session, &room, "j2");
    let [(node, first), (_, second)] =
        std::mem::take(&mut rig.live.unanswered).try_into().expect("two follows");
    rig.give(node, first);
    rig.run(500);
    assert!(rig.told(session, "j2").is_empty(), "it is not known to be followed");
    rig.give(node, second);
    rig.run(500);
    assert_eq!(rig.told(session, "j2"), ["ok"]);
}

/// A list that was made before a change that is known already is older than what is known.
#[test]
fn a_list_of_members_that_a_change_overtook_is_not_taken() {
    let mut rig = rig(&[0, 1, 2, 0]);
    let (alice, bob, room) = (rig.user(0, 0), rig.user(2, 0), rig.room(1, 0));
    let (a, b) = (rig.connect(0, &alice), rig.connect(2, &bob));
    rig.join_as(a, &room, "j1", true, None);
    rig.run(500);
    // What the store shows is unlike what node 0 has: it asks for the list, which is made and stays on the road.
    rig.road = Box::new(|from, record| match record {
        Record::Confirm(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
    let stream = StreamId::of_room(&room);
    let tail = Cursor::new(Epoch(0), Offset(0));
    let other = Standing { tail, version: Version { epoch: Epoch(1), n: 1 } };
    let rooms = vec![(VnodeId(1), stream)];
    rig.give(0, Input::Standings { rooms, answer: Some(vec![Some(other)]) });
    rig.run(100);
    rig.join_as(b, &room, "j2", true, None);
    rig.run(100);
    assert_eq!(rig.told_of(a), [came(&bob)]);
    rig.clear_road();
    rig.run(100);
    assert_eq!(rig.told_of(a), [came(&bob)], "nobody left");
    rig.members(a, &room, "m1");
    rig.run(100);
    let mut both = [alice.as_str(), bob.as_str()];
    both.sort_unstable();
    assert_eq!(listed(rig.done::<Listed>(a, "m1").members.as_ref()), Some(both.to_vec()));
}

/// P6: a node that was declared dead and lives says of everyone who is with it that they are there.
#[test]
fn a_node_with_a_new_life_tells_who_is_in_a_room_anew() {
    let mut rig = rig(&[0, 1, 2, 0]);
    let (alice, bob, room) = (rig.user(0, 0), rig.user(2, 0), rig.room(1, 0));
    let (a, b) = (rig.connect(0, &alice), rig.connect(2, &bob));
    rig.join_as(a, &room, "j1", true, None);
    rig.run(500);
    rig.join_as(b, &room, "j2", true, None);
    rig.run(500);
    let here = rig.told_of(b);
    rig.revoke(0);
    rig.run(40_000);
    assert!(rig.closed(a).is_empty(), "its connection never broke");
    assert_eq!(rig.told_of(b), here, "and it never left");
}

/// Users with the largest `info`, each in the rooms; what node 0 has to say of them waited and comes together.
fn crowd(rig: &mut Rig, users: usize, rooms: usize) {
    let info = format!("\"{}\"", "x".repeat(1000));
    let rooms: Vec<_> = (0..rooms).map(|k| rig.room(1, k)).collect();
    rig.road =
        Box::new(|_, record| if matches!(record, Record::Confirm(_)) { Road::Held } else { Road::Goes });
    for k in 0..users {
        let user = rig.user(0, k);
        let session = rig.connect(0, &user);
        for (r, room) in rooms.iter().enumerate() {
            rig.join_as(session, room, &format!("j{r}"), true, Some(&info));
        }
    }
    rig.clear_road();
    rig.run(5000);
}

/// P9: whatever is to be said of however many, no record is larger than Kafka takes, and no frame than clients read.
#[test]
fn lists_of_members_and_records_about_them_are_bounded() {
    let mut rig = rig(&[0, 1, 2, 0]);
    crowd(&mut rig, 300, 1);
    let (room, carol) = (rig.room(1, 0), rig.user(2, 0));
    let session = rig.connect(2, &carol);
    rig.members(session, &room, "m1");
    rig.run(500);
    let ok = rig.done::<Listed>(session, "m1");
    assert_eq!((ok.member_count, &ok.members), (Some(300), &None), "they do not fit into an answer");
    let largest = rig.sent.iter().map(|(_, _, bytes, _)| *bytes).max();
    assert!(largest.is_some_and(|bytes| bytes < MEMBERS_BYTES_MAX), "{largest:?}");
}

#[test]
fn several_long_lists_go_in_several_records() {
    let mut rig = rig(&[0, 1, 2, 0]);
    crowd(&mut rig, 200, 3);
    // A socket has credit for one of them.
    let sessions = [0, 1, 2].map(|k| {
        let user = rig.user(2, k);
        rig.connect(2, &user)
    });
    // What was answered is lost, and asked for again, all at once.
    rig.road =
        Box::new(|_, record| if matches!(record, Record::Confirm(_)) { Road::Lost } else { Road::Goes });
    for (k, session) in sessions.into_iter().enumerate() {
        let room = rig.room(1, k);
        rig.members(session, &room, &format!("m{k}"));
    }
    rig.run(100);
    rig.clear_road();
    rig.run(5000);
    for (k, session) in sessions.into_iter().enumerate() {
        assert_eq!(rig.done::<Listed>(session, &format!("m{k}")).members.as_ref().map(Vec::len), Some(200));
    }
    let largest = rig.sent.iter().map(|(_, _, bytes, _)| *bytes).max();
    assert!(largest.is_some_and(|bytes| bytes < RESULTS_BYTES_MAX), "{largest:?}");
}

/// P9: a session that reads nothing is not sent list after list.
#[test]
fn a_list_of_members_takes_credit_like_a_message() {
    let mut rig = with(&[0, 1], 2);
    let (alice, room, other) = (rig.user(0, 0), rig.room(1, 0), rig.room(1, 1));
    let session = rig.connect(0, &alice);
    rig.join_as(session, &room, "j1", true, None);
    rig.run(500);
    rig.stalled.insert(session);
    for id in ["m1", "m2", "m3"] {
        rig.members(session, &room, id);
    }
    assert_eq!(["m1", "m2", "m3"].map(|id| rig.told(session, id)[0]), ["ok", "ok", "rate_limited"]);
    rig.join_as(session, &other, "j2", true, None);
    rig.run(500);
    let ok = rig.done::<Joined>(session, "j2");
    assert!(ok.members.is_none() && ok.member_count.is_some(), "the place, without the list: {ok:?}");
    rig.drain(session);
    rig.members(session, &room, "m4");
    assert_eq!(rig.told(session, "m4"), ["ok"]);
}

/// P9: a home that does not answer is no reason to keep somebody waiting for ever.
#[test]
fn who_asks_for_members_and_gets_no_list_is_told_so_in_time() {
    let mut rig = rig(&[0, 1]);
    let (alice, room) = (rig.user(0, 0), rig.room(1, 0));
    let session = rig.connect(0, &alice);
    rig.road = Box::new(|_, _| Road::Lost);
    rig.members(session, &room, "m1");
    rig.run(10_000);
    rig.members(session, &room, "m2");
    assert!(rig.told(session, "m1").is_empty());
    rig.run(10_100);
    assert_eq!(rig.told(session, "m1"), ["unavailable"]);
    rig.run(10_000);
    assert_eq!(rig.told(session, "m2"), ["unavailable"]);
    rig.clear_road();
    rig.run(10_000);
    rig.members(session, &room, "m3");
    rig.run(500);
    assert_eq!(rig.told(session, "m3"), ["ok"]);
}

/// What a token does not allow any more is over at once: nothing more is heard, and the others see it go.
#[test]
fn narrower_rights_take_rooms_away() {
    let mut rig = rig(&[0, 1]);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (kept, lost, asked) = (rig.room(1, 0), rig.room(1, 1), rig.room(1, 2));
    let (a, b) = (rig.connect(0, &alice), rig.connect(1, &bob));
    for (session, room, id) in [(a, &kept, "j1"), (a, &lost, "j2"), (b, &lost, "j3")] {
        rig.join_as(session, room, id, true, None);
        rig.run(500);
    }
    rig.live.hold_follows = true;
    rig.join(a, &asked, "j4");
    let token = Ok(Rights { rooms: Some(vec![kept.to_string()]), ..Rights::default() });
    rig.command(a, Command::Refresh(MessageId::new("f1").unwrap(), token));
    rig.run(500);
    assert_eq!((rig.told(a, "f1"), rig.told(a, "j4")), (vec!["ok"], vec!["forbidden"]));
    assert_eq!(rig.told_of(b).last(), Some(&left(&alice)), "without the linger");
    rig.publish_in(b, &lost, "p1");
    rig.publish_in(b, &kept, "p2");
    rig.run(500);
    assert_eq!(rig.inbox(a), ["p2"]);
    rig.leave(a, &lost, "l1");
    assert_eq!(rig.told(a, "l1"), ["not_found"]);
}

/// Rule 28: a loss that is told is looked for soon, and however often it is told, once.
#[test]
fn what_was_missed_is_looked_for_soon_and_once() {
    let mut rig = rig(&[0, 1]);
    let (alice, bob, room) = (rig.user(0, 0), rig.user(1, 0), rig.room(1, 0));
    let (a, b) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.join(a, &room, "j1");
    rig.run(500);
    // Just after rooms were compared, as they are every five seconds.
    let before = rig.live.compared;
    let compared = (0..200).any(|_| {
        rig.run(50);
        rig.live.compared > before
    });
    assert!(compared);
    let before = rig.live.compared;
    rig.live.deaf.insert(0);
    rig.publish_in(b, &room, "p1");
    rig.run(100);
    assert!(rig.inbox(a).is_empty());
    for _ in 0..100 {
        rig.give(0, Input::Missed);
    }
    assert_eq!(rig.live.compared, before, "there is least time when there are many such words");
    rig.run(400);
    assert_eq!(rig.inbox(a), ["p1"]);
    assert_eq!(rig.live.compared, before + 1);
}
