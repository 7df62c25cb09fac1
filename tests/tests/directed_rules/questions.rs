//! Questions that several share: what was asked before somebody came is no answer to that one (rule 28).

use roost_proto::answers::Listed;
use roost_proto::events::Status;
use roost_proto::frames::{ChosenStatus, InfoOf, Joined};
use roost_proto::records::Record;
use roost_ws_node::core::Rule;

use super::rig::{Rig, Road};

fn rig(off: Option<Rule>) -> Rig {
    let mut rig = Rig::with(&[0, 1, 2, 0], off, |cfg| cfg.open_rooms = true);
    // Homes that have heard of every node.
    rig.run(30_000);
    rig
}

/// What node 1 answers to others stays on the road.
fn hold_answers(rig: &mut Rig) {
    rig.road = Box::new(|from, record| match record {
        Record::Confirm(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
}

fn listed(members: Option<&Vec<InfoOf>>) -> Vec<&str> {
    let mut all: Vec<_> = members.into_iter().flatten().map(|m| m.user.as_str()).collect();
    all.sort_unstable();
    all
}

/// Bob was shown a message after alice's join had the end of the room asked for, and joins anew before that is
/// answered: whether he was recovered, how much follows, and what he got.
fn a_join_while_another_waits(off: Option<Rule>) -> (bool, u64, Vec<String>) {
    let mut rig = rig(off);
    let (alice, bob, carol) = (rig.user(0, 0), rig.user(0, 1), rig.user(1, 0));
    let (a, b, c) = (rig.connect(0, &alice), rig.connect(0, &bob), rig.connect(1, &carol));
    let room = rig.room(1, 0);
    rig.join(b, &room, "j1");
    rig.run(500);
    hold_answers(&mut rig);
    rig.join(a, &room, "j2");
    rig.run(100);
    rig.publish_in(c, &room, "p1");
    rig.run(100);
    assert_eq!(rig.inbox(b), ["p1"]);
    let shown = rig.cursor(b);
    rig.join_from(b, &room, "j3", shown);
    rig.run(100);
    rig.clear_road();
    rig.run(500);
    assert_eq!(rig.told(a, "j2"), ["ok"]);
    assert_eq!(rig.inbox(a), ["p1"], "who asked before it was published is shown it");
    let ok = rig.done::<Joined>(b, "j3");
    assert!(off.is_some() || ok.cursor == shown, "{ok:?}");
    (ok.recovered, ok.replayed, rig.inbox(b))
}

#[test]
fn who_joins_while_the_end_of_a_room_is_asked_for_takes_no_older_answer() {
    assert_eq!(a_join_while_another_waits(None), (true, 0, vec!["p1".into()]));
    let again = vec!["p1".into(), "p1".into()];
    assert_eq!(a_join_while_another_waits(Some(Rule::OwnQuestion)), (false, 0, again));
}

#[test]
fn who_asks_for_members_while_they_are_asked_for_takes_no_older_list() {
    let mut rig = rig(None);
    let (alice, bob, carol) = (rig.user(0, 0), rig.user(0, 1), rig.user(1, 0));
    let (a, b, c) = (rig.connect(0, &alice), rig.connect(0, &bob), rig.connect(1, &carol));
    let room = rig.room(1, 0);
    hold_answers(&mut rig);
    rig.members(a, &room, "m1");
    rig.run(100);
    rig.join_as(c, &room, "j1", true, None);
    rig.run(100);
    rig.members(b, &room, "m2");
    rig.run(100);
    rig.clear_road();
    rig.run(500);
    assert_eq!(listed(rig.done::<Listed>(a, "m1").members.as_ref()), [""; 0]);
    assert_eq!(listed(rig.done::<Listed>(b, "m2").members.as_ref()), [carol.as_str()]);
}

/// What changed before the room was followed is heard of by nobody here.
#[test]
fn a_list_that_was_asked_for_before_the_room_was_followed_is_not_kept() {
    let mut rig = rig(None);
    let (alice, bob, carol) = (rig.user(0, 0), rig.user(0, 1), rig.user(1, 0));
    let (a, b, c) = (rig.connect(0, &alice), rig.connect(0, &bob), rig.connect(1, &carol));
    let room = rig.room(1, 0);
    hold_answers(&mut rig);
    rig.members(a, &room, "m1");
    rig.run(100);
    rig.join_as(c, &room, "j1", true, None);
    rig.run(100);
    rig.join_as(b, &room, "j2", true, None);
    rig.run(100);
    rig.clear_road();
    rig.run(500);
    assert!(listed(rig.done::<Joined>(b, "j2").members.as_ref()).contains(&carol.as_str()));
}

#[test]
fn who_watches_while_the_store_is_asked_takes_no_older_answer() {
    let mut rig = rig(None);
    let (alice, bob, carol) = (rig.user(0, 0), rig.user(0, 1), rig.user(1, 0));
    let (a, b, c) = (rig.connect(0, &alice), rig.connect(0, &bob), rig.connect(1, &carol));
    rig.run(100);
    rig.watch(a, &[&carol], "w1");
    // It is followed, and asked for.
    rig.run(1);
    rig.choose(c, ChosenStatus::Away, "s1");
    rig.watch(b, &[&carol], "w2");
    rig.run(100);
    assert_eq!(rig.seen_of(a, &carol), [Status::Online, Status::Away]);
    assert_eq!(rig.seen_of(b, &carol), [Status::Away]);
}

/// Whoever repeated the one that was overtaken would undo what was said later. A repeat of it shares its reply.
#[test]
fn a_join_that_a_later_command_overtakes_is_not_to_be_repeated() {
    let mut rig = rig(None);
    let alice = rig.user(0, 0);
    let a = rig.connect(0, &alice);
    let room = rig.room(1, 0);
    rig.join(a, &room, "j1");
    rig.leave(a, &room, "l1");
    rig.join(a, &room, "j2");
    rig.join(a, &room, "j3");
    rig.join(a, &room, "j3");
    rig.run(500);
    let told = ["j1", "l1", "j2", "j3"].map(|id| rig.told(a, id));
    assert_eq!(told, [vec!["conflict"], vec!["ok"], vec!["conflict"], vec!["ok"]]);
    rig.watch(a, &[&alice], "w1");
    rig.unwatch(a, &[&alice], "u1");
    rig.run(500);
    assert_eq!((rig.told(a, "w1"), rig.told(a, "u1")), (vec!["ok"], vec!["ok"]));
    assert_eq!(rig.seen_of(a, &alice), [], "and is not watched");
}

/// Alice asks where the room ends and leaves; it is another room for bob, whose question has its own answer.
#[test]
fn who_joins_a_room_that_was_left_takes_no_answer_to_what_was_asked_before() {
    let mut rig = rig(None);
    let (alice, bob, carol) = (rig.user(0, 0), rig.user(0, 1), rig.user(1, 0));
    let (a, b, c) = (rig.connect(0, &alice), rig.connect(0, &bob), rig.connect(1, &carol));
    let room = rig.room(1, 0);
    rig.road = Box::new(|from, record| match record {
        Record::Confirm(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
    rig.join(a, &room, "j1");
    rig.run(100);
    rig.leave(a, &room, "l1");
    let answer = std::mem::take(&mut rig.on_road);
    rig.publish_in(c, &room, "p1");
    rig.run(100);
    rig.join(b, &room, "j2");
    rig.run(1);
    for (node, event) in answer {
        rig.give(node, event);
    }
    assert!(rig.told(b, "j2").is_empty(), "it was asked before");
    rig.clear_road();
    rig.run(5000);
    assert_eq!(rig.done::<Joined>(b, "j2").cursor.offset.0, 1);
    assert_eq!(rig.inbox(b), [""; 0]);
}

/// Of what one session chose only the last is to be repeated, whatever of it was under way when the home ended.
#[test]
fn a_status_that_another_overtook_is_not_to_be_repeated() {
    let mut rig = rig(None);
    let bob = rig.user(1, 0);
    let b = rig.connect(1, &bob);
    rig.run(500);
    rig.no_log.insert(1);
    for (status, id) in
        [(ChosenStatus::Away, "s1"), (ChosenStatus::Invisible, "s2"), (ChosenStatus::Online, "s3")]
    {
        rig.choose(b, status, id);
        rig.run(100);
    }
    assert!(rig.told(b, "s1").is_empty(), "the log has not got it");
    rig.revoke(1);
    rig.run(2000);
    assert_eq!(["s1", "s2", "s3"].map(|id| rig.told(b, id)), [["conflict"], ["conflict"], ["unavailable"]]);
}
