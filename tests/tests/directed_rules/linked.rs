//! Links between nodes: rule 34. What goes by one is a copy, and whatever becomes of it the topic mends.

use roost_proto::records::Record;
use roost_ws_node::core::{CoreConfig, ItemLane, Rule};

use super::harness::{Harness, Road};

/// Alice at one node has what bob at another is sent; the link between them is open.
fn pair(off: Option<Rule>, set: impl Fn(&mut CoreConfig)) -> (Harness, u64, u64, String) {
    let mut harness = Harness::with(&[0, 1], off, set);
    harness.links = true;
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    // The first is by the topic: a link is opened when there is something to say.
    harness.say(sender, &bob, "m0");
    harness.run(1000);
    assert_eq!((harness.told(sender, "m0"), harness.inbox(reader)), (vec!["ok"], vec!["m0".to_owned()]));
    harness.by_link.clear();
    harness.sent.clear();
    (harness, sender, reader, bob)
}

fn no_topic() -> super::harness::Roads {
    Box::new(|_, _| Road::Held)
}

fn items<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<u64> {
    records.filter_map(|record| if let Record::Item(item) = record { Some(item.n) } else { None }).collect()
}

fn in_topic(harness: &Harness) -> Vec<u64> {
    items(harness.sent.iter().map(|(.., record)| record))
}

fn by_link(harness: &Harness) -> Vec<u64> {
    items(harness.by_link.iter().map(|(.., record)| record))
}

#[test]
fn a_message_is_delivered_and_acknowledged_by_the_link_while_the_topic_is_slow_and_is_in_the_topic_all_the_same()
 {
    let (mut harness, sender, reader, bob) = pair(None, |_| {});
    harness.road = no_topic();
    for id in ["m1", "m2"] {
        harness.say(sender, &bob, id);
    }
    harness.run(100);
    assert_eq!((harness.told(sender, "m1"), harness.told(sender, "m2")), (vec!["ok"], vec!["ok"]));
    assert_eq!(harness.inbox(reader), ["m0", "m1", "m2"]);
    assert_eq!(in_topic(&harness), [2, 3], "each is in the topic of its receiver's home");
    let confirms = harness.by_link.iter().filter(|(.., r)| matches!(r, Record::Confirm(_))).count();
    harness.clear_road();
    harness.run(1000);
    assert_eq!(harness.inbox(reader), ["m0", "m1", "m2"], "the copies of the topic are no other messages");
    let all = harness.by_link.iter().map(|(.., r)| r).chain(harness.sent.iter().map(|(.., r)| r));
    let told = all.filter(|record| matches!(record, Record::Confirm(_))).count();
    assert_eq!(told, confirms, "nor is anything confirmed once more for them");
}

/// [m1 is lost with what the link held; m2 comes by it, and before m1 of the topic.]
fn the_first_copy_is_lost(off: Option<Rule>) -> Vec<String> {
    let (mut harness, sender, reader, bob) = pair(off, |_| {});
    harness.road = no_topic();
    harness.aboard = Box::new(|_, record| !matches!(record, Record::Item(item) if item.n == 2));
    for id in ["m1", "m2"] {
        harness.say(sender, &bob, id);
    }
    harness.run(100);
    if off.is_none() {
        assert_eq!(harness.inbox(reader), ["m0"]);
        let asks = |r: &Record| matches!(r, Record::Confirm(confirm) if confirm.ask.is_some());
        assert!(!harness.by_link.iter().any(|(.., r)| asks(r)), "a copy asks for nothing");
    }
    harness.clear_road();
    harness.run(1000);
    harness.inbox(reader)
}

#[test]
fn a_copy_is_taken_only_if_it_is_the_next() {
    assert_eq!(the_first_copy_is_lost(None), ["m0", "m1", "m2"]);
    assert_ne!(the_first_copy_is_lost(Some(Rule::CopiesInOrder)), ["m0", "m1", "m2"]);
}

#[test]
fn a_confirm_that_a_link_lost_is_repeated_both_ways_when_its_sender_asks() {
    for topic in [true, false] {
        let (mut harness, sender, _, bob) = pair(None, |_| {});
        let mut lost = false;
        harness.aboard = Box::new(move |from, record| {
            let this = from == 1 && matches!(record, Record::Confirm(_)) && (topic || !lost);
            lost |= this;
            !this
        });
        if !topic {
            harness.road = Box::new(|from, _| if from == 1 { Road::Lost } else { Road::Goes });
        }
        harness.say(sender, &bob, "m1");
        harness.run(900);
        assert_eq!(harness.told(sender, "m1"), [""; 0]);
        harness.run(300);
        assert_eq!(harness.told(sender, "m1"), ["ok"], "by the topic: {topic}");
    }
}

/// How long the sender waits whose confirm was lost with the link, and who goes back because the topic did not take the
/// item: in milliseconds.
fn goes_back_after_a_lost_confirm(off: Option<Rule>) -> u64 {
    let (mut harness, sender, _, bob) = pair(off, |_| {});
    let mut lost = false;
    harness.aboard = Box::new(move |_, record| {
        let this = !lost && matches!(record, Record::Confirm(_));
        lost |= this;
        !this
    });
    harness.not_taken = 1;
    let began = harness.now;
    harness.say(sender, &bob, "m1");
    while harness.told(sender, "m1").is_empty() {
        harness.run(10);
    }
    harness.now - began
}

#[test]
fn a_repeat_in_the_topic_is_answered_at_once() {
    assert!(goes_back_after_a_lost_confirm(None) < 900);
    assert!(goes_back_after_a_lost_confirm(Some(Rule::RepeatsAnswered)) >= 1000, "the probe asks, later");
}

/// Nothing but a copy of it was on its way: it is told again when the link ends, and not when the sender asks.
#[test]
fn what_was_confirmed_by_a_link_that_ends_is_told_again() {
    let (mut harness, sender, _, bob) = pair(None, |_| {});
    harness.aboard = Box::new(|_, record| !matches!(record, Record::Confirm(_)));
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!(harness.told(sender, "m1"), [""; 0]);
    harness.cut_links();
    harness.run(50);
    assert_eq!(harness.told(sender, "m1"), ["ok"]);
}

/// [The topic takes nothing for a while; the link does.]
#[test]
fn what_the_topic_did_not_take_holds_nothing_up_that_comes_when_all_is_confirmed() {
    let (mut harness, sender, _, bob) = pair(None, |_| {});
    harness.not_taken = 1;
    harness.say(sender, &bob, "m1");
    harness.run(60);
    assert_eq!(harness.told(sender, "m1"), ["ok"]);
    harness.say(sender, &bob, "m2");
    harness.run(60);
    assert_eq!(harness.told(sender, "m2"), ["ok"]);
}

#[test]
fn when_a_link_breaks_what_it_held_comes_by_the_topic_at_once() {
    let (mut harness, sender, reader, bob) = pair(None, |_| {});
    harness.aboard = Box::new(|_, _| false);
    harness.say(sender, &bob, "m1");
    harness.cut_links();
    harness.run(20);
    assert_eq!(
        (harness.inbox(reader), harness.told(sender, "m1")),
        (vec!["m0".into(), "m1".into()], vec!["ok"])
    );
    harness.aboard = Box::new(|_, _| true);
    harness.run(2000);
    harness.by_link.clear();
    harness.say(sender, &bob, "m2");
    harness.run(100);
    assert_eq!(by_link(&harness), [3], "it was opened again");
}

#[test]
fn what_a_link_refuses_goes_by_the_topic_alone_until_the_channel_is_empty() {
    let (mut harness, sender, reader, bob) = pair(None, |cfg| cfg.link_bytes_max = 600);
    for n in 1..=5 {
        harness.say(sender, &bob, &format!("m{n}"));
    }
    let first = by_link(&harness);
    assert!(first.len() < 5 && first.first() == Some(&2), "{first:?}");
    harness.run(100);
    assert_eq!(harness.inbox(reader), ["m0", "m1", "m2", "m3", "m4", "m5"]);
    assert_eq!(in_topic(&harness), [2, 3, 4, 5, 6], "none is renumbered or repeated");
    harness.say(sender, &bob, "m6");
    harness.run(100);
    assert_eq!(by_link(&harness).last(), Some(&7), "all before it is confirmed");
    assert_eq!(harness.told(sender, "m6"), ["ok"]);
}

#[test]
fn items_may_keep_to_the_topic() {
    let (mut harness, sender, reader, bob) = pair(None, |cfg| cfg.item_lane = ItemLane::Topic);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!((by_link(&harness), in_topic(&harness)), (vec![], vec![2]));
    assert_eq!(
        (harness.inbox(reader), harness.told(sender, "m1")),
        (vec!["m0".into(), "m1".into()], vec!["ok"])
    );
}

/// What a link holds for a life of a node that is over is nobody's.
#[test]
fn a_copy_for_another_life_of_the_node_is_void() {
    let (mut harness, sender, reader, bob) = pair(None, |_| {});
    harness.road = no_topic();
    harness.misdirect = true;
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!(harness.inbox(reader), ["m0"]);
    harness.clear_road();
    harness.run(100);
    assert_eq!(harness.inbox(reader), ["m0", "m1"]);
}
