//! Questions that several share: what was asked before somebody came is no answer to that one (rule 28).

use roost_proto::answers::Listed;
use roost_proto::events::Status;
use roost_proto::frames::{ChosenStatus, InfoOf, Joined};
use roost_proto::ids::RoomId;
use roost_proto::records::Record;
use roost_ws_node::core::Rule;

use super::harness::{Harness, Road};

fn harness(off: Option<Rule>) -> Harness {
    let mut harness = Harness::with(&[0, 1, 2, 0], off, |cfg| cfg.open_rooms = true);
    // Homes that have heard of every node.
    harness.run(30_000);
    harness
}

/// What node 1 answers to others stays on the road.
fn hold_answers(harness: &mut Harness) {
    harness.road = Box::new(|from, record| match record {
        Record::Confirm(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
}

/// Alice asks who is a member, and the answer stays on the road; then carol joins as one, at home where the room is.
/// The sessions of alice and of bob, the room, and carol.
fn carol_joins_while_members_are_asked_for(harness: &mut Harness) -> (u64, u64, RoomId, String) {
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(0, 1), harness.user(1, 0));
    let (a, b, c) = (harness.connect(0, &alice), harness.connect(0, &bob), harness.connect(1, &carol));
    let room = harness.room(1, 0);
    hold_answers(harness);
    harness.members(a, &room, "m1");
    harness.run(100);
    harness.join_as(c, &room, "j1", true, None);
    harness.run(100);
    (a, b, room, carol)
}

fn listed(members: Option<&Vec<InfoOf>>) -> Vec<&str> {
    let mut all: Vec<_> = members.into_iter().flatten().map(|m| m.user.as_str()).collect();
    all.sort_unstable();
    all
}

/// Bob was shown a message after alice's join had the end of the room asked for, and joins anew before that is
/// answered: whether he was recovered, how much follows, and what he got.
fn a_join_while_another_waits(off: Option<Rule>) -> (bool, u64, Vec<String>) {
    let mut harness = harness(off);
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(0, 1), harness.user(1, 0));
    let (a, b, c) = (harness.connect(0, &alice), harness.connect(0, &bob), harness.connect(1, &carol));
    let room = harness.room(1, 0);
    harness.join(b, &room, "j1");
    harness.run(500);
    hold_answers(&mut harness);
    harness.join(a, &room, "j2");
    harness.run(100);
    harness.publish_in(c, &room, "p1");
    harness.run(100);
    assert_eq!(harness.inbox(b), ["p1"]);
    let shown = harness.cursor(b);
    harness.join_from(b, &room, "j3", shown);
    harness.run(100);
    harness.clear_road();
    harness.run(500);
    assert_eq!(harness.told(a, "j2"), ["ok"]);
    assert_eq!(harness.inbox(a), ["p1"], "who asked before it was published is shown it");
    let ok = harness.done::<Joined>(b, "j3");
    assert!(off.is_some() || ok.cursor == shown, "{ok:?}");
    (ok.recovered, ok.replayed, harness.inbox(b))
}

#[test]
fn who_joins_while_the_end_of_a_room_is_asked_for_takes_no_older_answer() {
    assert_eq!(a_join_while_another_waits(None), (true, 0, vec!["p1".into()]));
    let again = vec!["p1".into(), "p1".into()];
    assert_eq!(a_join_while_another_waits(Some(Rule::OwnQuestion)), (false, 0, again));
}

#[test]
fn who_asks_for_members_while_they_are_asked_for_takes_no_older_list() {
    let mut harness = harness(None);
    let (a, b, room, carol) = carol_joins_while_members_are_asked_for(&mut harness);
    harness.members(b, &room, "m2");
    harness.run(100);
    harness.clear_road();
    harness.run(500);
    assert_eq!(listed(harness.done::<Listed>(a, "m1").members.as_ref()), [""; 0]);
    assert_eq!(listed(harness.done::<Listed>(b, "m2").members.as_ref()), [carol.as_str()]);
}

/// What changed before the room was followed is heard of by nobody here.
#[test]
fn a_list_that_was_asked_for_before_the_room_was_followed_is_not_kept() {
    let mut harness = harness(None);
    let (_, b, room, carol) = carol_joins_while_members_are_asked_for(&mut harness);
    harness.join_as(b, &room, "j2", true, None);
    harness.run(100);
    harness.clear_road();
    harness.run(500);
    assert!(listed(harness.done::<Joined>(b, "j2").members.as_ref()).contains(&carol.as_str()));
}

#[test]
fn who_watches_while_the_store_is_asked_takes_no_older_answer() {
    let mut harness = harness(None);
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(0, 1), harness.user(1, 0));
    let (a, b, c) = (harness.connect(0, &alice), harness.connect(0, &bob), harness.connect(1, &carol));
    harness.run(100);
    harness.watch(a, &[&carol], "w1");
    // It is followed, and asked for.
    harness.run(1);
    harness.choose(c, ChosenStatus::Away, "s1");
    harness.watch(b, &[&carol], "w2");
    harness.run(100);
    assert_eq!(harness.seen_of(a, &carol), [Status::Online, Status::Away]);
    assert_eq!(harness.seen_of(b, &carol), [Status::Away]);
}

/// Whoever repeated the one that was overtaken would undo what was said later. A repeat of it shares its reply.
#[test]
fn a_join_that_a_later_command_overtakes_is_not_to_be_repeated() {
    let mut harness = harness(None);
    let alice = harness.user(0, 0);
    let a = harness.connect(0, &alice);
    let room = harness.room(1, 0);
    harness.join(a, &room, "j1");
    harness.leave(a, &room, "l1");
    harness.join(a, &room, "j2");
    harness.join(a, &room, "j3");
    harness.join(a, &room, "j3");
    harness.run(500);
    let told = ["j1", "l1", "j2", "j3"].map(|id| harness.told(a, id));
    assert_eq!(told, [vec!["conflict"], vec!["ok"], vec!["conflict"], vec!["ok"]]);
    harness.watch(a, &[&alice], "w1");
    harness.unwatch(a, &[&alice], "u1");
    harness.run(500);
    assert_eq!((harness.told(a, "w1"), harness.told(a, "u1")), (vec!["ok"], vec!["ok"]));
    assert_eq!(harness.seen_of(a, &alice), [], "and is not watched");
}

/// Alice asks where the room ends and leaves; it is another room for bob, whose question has its own answer.
#[test]
fn who_joins_a_room_that_was_left_takes_no_answer_to_what_was_asked_before() {
    let mut harness = harness(None);
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(0, 1), harness.user(1, 0));
    let (a, b, c) = (harness.connect(0, &alice), harness.connect(0, &bob), harness.connect(1, &carol));
    let room = harness.room(1, 0);
    hold_answers(&mut harness);
    harness.join(a, &room, "j1");
    harness.run(100);
    harness.leave(a, &room, "l1");
    let answer = std::mem::take(&mut harness.on_road);
    harness.publish_in(c, &room, "p1");
    harness.run(100);
    harness.join(b, &room, "j2");
    harness.run(1);
    for (node, event) in answer {
        harness.give(node, event);
    }
    assert!(harness.told(b, "j2").is_empty(), "it was asked before");
    harness.clear_road();
    harness.run(5000);
    assert_eq!(harness.done::<Joined>(b, "j2").cursor.offset.0, 1);
    assert_eq!(harness.inbox(b), [""; 0]);
}

/// Of what one session chose only the last is to be repeated, whatever of it was under way when the home ended.
#[test]
fn a_status_that_another_overtook_is_not_to_be_repeated() {
    let mut harness = harness(None);
    let bob = harness.user(1, 0);
    let b = harness.connect(1, &bob);
    harness.run(500);
    harness.no_log.insert(1);
    for (status, id) in
        [(ChosenStatus::Away, "s1"), (ChosenStatus::Invisible, "s2"), (ChosenStatus::Online, "s3")]
    {
        harness.choose(b, status, id);
        harness.run(100);
    }
    assert!(harness.told(b, "s1").is_empty(), "the log has not got it");
    harness.revoke(1);
    harness.run(2000);
    assert_eq!(
        ["s1", "s2", "s3"].map(|id| harness.told(b, id)),
        [["conflict"], ["conflict"], ["unavailable"]]
    );
}
