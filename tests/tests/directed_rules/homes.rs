//! The home's side: rules 13, 14, 15 and 18.

use roost_proto::records::{Item, ItemBody, Record};
use roost_ws_node::core::Input;
use serde_json::value::RawValue;

use super::harness::{Harness, Reach, Road};

/// The id in an item's body.
fn id_of(item: &Item) -> Option<String> {
    let ItemBody::Append(append) = serde_json::from_str(item.body.as_ref()?.get()).ok()? else { return None };
    Some(append.id.to_string())
}

fn confirms_from(harness: &Harness, node: usize) -> Vec<u64> {
    let confirms =
        harness.sent.iter().filter(|(_, from, _, r)| *from == node && matches!(r, Record::Confirm(_)));
    confirms.map(|(at, ..)| *at).collect()
}

fn items_sent(harness: &Harness) -> usize {
    harness.sent.iter().filter(|(.., r)| matches!(r, Record::Item(_))).count()
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// Rule 13: the home is cut off from the store; the log reports `early` ms before the lease's deadline, or at it.
/// Returns whether it was confirmed before the home could reach the store again.
fn the_log_reports_before_the_deadline(early: u64) -> bool {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.no_log.insert(1);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!(harness.inbox(reader), ["m1"]);
    assert_eq!(harness.told(sender, "m1"), [""; 0], "the log does not have it yet");
    harness.no_store.insert(1);
    harness.run(500);
    let left = harness.nodes[1].gauges(harness.clock()).lease_left_ms.unwrap();
    let deadline = harness.now + left;
    // The report takes 2 ms.
    harness.run(left - early - 2);
    harness.log_again();
    harness.run(10_000);
    let confirmed = harness.told(sender, "m1") == ["ok"];
    assert!(confirms_from(&harness, 1).iter().all(|at| *at < deadline), "not even an answer to a probe");
    harness.no_store.clear();
    harness.run(20_000);
    assert_eq!(harness.told(sender, "m1"), ["ok"]);
    assert_eq!((harness.logged(&bob), harness.inbox(reader)), (ids(&["m1"]), ids(&["m1"])));
    confirmed
}

#[test]
fn nothing_is_confirmed_at_or_after_the_lease_deadline() {
    assert!(the_log_reports_before_the_deadline(1));
    assert!(!the_log_reports_before_the_deadline(0));
}

/// The architecture's §5: past the deadline a home suspends append, deliver and presence.
#[test]
fn nothing_is_delivered_at_or_after_the_lease_deadline() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    let mut first = true;
    harness.writes =
        Box::new(move |_| if std::mem::take(&mut first) { Reach::Underway } else { Reach::Answered });
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.no_store.insert(1);
    harness.run(7000);
    harness.land();
    harness.run(1000);
    assert_eq!(harness.inbox(reader), [""; 0], "it took effect, but another may be home now");
    harness.no_store.clear();
    harness.run(5000);
    assert_eq!((harness.inbox(reader), harness.told(sender, "m1")), (ids(&["m1"]), vec!["ok"]));
}

/// Rule 13: a process stops after it handed a write to the network; its lease ends, another node takes the vnode,
/// then the write arrives and the process goes on. Returns how many of its writes it knows to be refused.
fn a_home_is_paused_past_its_lease(hears_took_first: bool) -> u64 {
    let mut harness = Harness::new(&[0, 1, 2, 2], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.road = Box::new(move |_, record| match record {
        Record::OwnerChanged(_) if !hears_took_first => Road::Held,
        _ => Road::Goes,
    });
    let mut first = true;
    harness.writes =
        Box::new(move |_| if std::mem::take(&mut first) { Reach::Underway } else { Reach::Answered });
    harness.say(sender, &bob, "m1");
    harness.run(20);
    harness.say(sender, &bob, "m2");
    harness.run(20);
    harness.freeze(1);
    harness.run(7000);
    harness.revoke(1);
    harness.assign(1, 2);
    harness.run(3000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n2");
    assert_eq!((harness.told(sender, "m1"), harness.told(sender, "m2")), (vec!["ok"], vec!["ok"]));
    harness.land();
    harness.run(10);
    harness.thaw(1);
    harness.run(5000);
    harness.clear_road();
    harness.run(100);
    assert_eq!(harness.nodes[1].counters().delivered, 0);
    assert_eq!(harness.inbox(reader), [""; 0], "the reader is still at the old home");
    assert_eq!(harness.moved(reader).map(|m| m.node.as_str()), Some("n2"));
    assert_eq!(confirms_from(&harness, 1), [0; 0]);
    assert_eq!((harness.told(sender, "m1"), harness.told(sender, "m2")), (vec!["ok"], vec!["ok"]));
    assert_eq!(harness.logged(&bob), ["m1", "m2"]);
    harness.nodes[1].counters().writes_fenced
}

#[test]
fn a_write_of_a_home_paused_past_its_lease_is_refused_and_nothing_comes_of_it() {
    assert_eq!(a_home_is_paused_past_its_lease(false), 1);
    // It knows by then that it has no home; what becomes of the write is nobody's concern.
    assert_eq!(a_home_is_paused_past_its_lease(true), 0);
}

/// Rule 14, with another vnode at the same home. `stick` stops the vnode of `bob`, `go` lets it go on.
fn a_vnode_is_stuck(stick: fn(&mut Harness), go: fn(&mut Harness), stuck_ms: u64) -> Harness {
    let mut harness = Harness::with(&[0, 1, 1, 0], None, |cfg| {
        (cfg.queue_max, cfg.outbox_max, cfg.batch_max) = (4, 4, 2);
    });
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(1, 0), harness.user(2, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.run(2000);
    stick(&mut harness);
    let all: Vec<_> = (1..=20).map(|i| format!("m{i}")).collect();
    for id in &all {
        harness.say(sender, &bob, id);
    }
    harness.run(stuck_ms / 2);
    harness.say(sender, &carol, "c1");
    harness.run(stuck_ms / 2);
    assert!(harness.told(sender, "m1").is_empty() && harness.logged(&bob).is_empty());
    assert!(harness.inbox(reader).len() <= 4, "a full outbox stops appends");
    go(&mut harness);
    harness.run(500);
    assert_eq!((harness.inbox(reader), harness.logged(&bob)), (all.clone(), all.clone()));
    for id in &all {
        assert_eq!(harness.told(sender, id), ["ok"]);
    }
    harness
}

#[test]
fn a_full_home_drops_what_comes_and_asks_for_it_when_there_is_room() {
    let stick = |harness: &mut Harness| {
        harness.writes = Box::new(|w| if w.fence.vnode.0 == 1 { Reach::Underway } else { Reach::Answered });
    };
    let go = |harness: &mut Harness| {
        harness.writes = Box::new(|_| Reach::Answered);
        harness.land();
    };
    let harness = a_vnode_is_stuck(stick, go, 600);
    let carol = harness.user(2, 0);
    assert_eq!(harness.logged(&carol), ["c1"]);
    let said = harness.chat[2][0].0;
    assert!(said < harness.chat[1][0].0, "one stuck vnode does not hold up another of the same home");
    assert_eq!(harness.nodes[0].counters().probes, 0, "the home asked by itself");
    assert!(harness.nodes[1].counters().asks >= 1);
}

fn fill_the_outbox(harness: &mut Harness) {
    harness.no_log.insert(1);
}

#[test]
fn a_full_outbox_stops_appends_and_nothing_is_lost() {
    let harness = a_vnode_is_stuck(fill_the_outbox, Harness::log_again, 600);
    assert_eq!(harness.nodes[0].counters().probes, 0, "the home asked by itself");
}

/// Rules 3 and 14: while there is no room the home asks for nothing, and its sender repeats nothing by a timer.
#[test]
fn a_home_that_is_full_for_long_is_not_sent_the_same_again_and_again() {
    let short = items_sent(&a_vnode_is_stuck(fill_the_outbox, Harness::log_again, 600));
    let long = items_sent(&a_vnode_is_stuck(fill_the_outbox, Harness::log_again, 10_000));
    assert!(long <= short + 21, "21 messages: {short} records if stuck for 0.6 s, {long} if for 10 s");
}

/// Rule 15.
#[test]
fn an_item_with_a_body_nobody_understands_is_bad_and_the_channel_goes_on() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.road = Box::new(|_, record| match record {
        Record::Item(item) if id_of(item).as_deref() == Some("m2") => {
            let body = Some(RawValue::from_string("{\"dance\":{}}".into()).unwrap());
            Road::As(Box::new(Record::Item(Item { body, ..item.clone() })))
        }
        _ => Road::Goes,
    });
    for id in ["m1", "m2", "m3"] {
        harness.say(sender, &bob, id);
    }
    harness.run(100);
    assert_eq!(harness.told(sender, "m2"), ["bad_request"]);
    assert_eq!((harness.told(sender, "m1"), harness.told(sender, "m3")), (vec!["ok"], vec!["ok"]));
    assert_eq!(harness.inbox(reader), ["m1", "m3"]);
    assert_eq!(harness.nodes[1].counters().undecodable, 1);
}

/// Rule 15: the copies of `alice`'s items with these ids arrive as something nobody can read.
fn garble(harness: &mut Harness, ids: &'static [&'static str]) {
    harness.road = Box::new(move |_, record| match record {
        Record::Item(item) if id_of(item).is_some_and(|id| ids.contains(&&*id)) => Road::Garbled,
        _ => Road::Goes,
    });
}

#[test]
fn an_unreadable_record_is_asked_for_again_and_the_second_copy_counts() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    garble(&mut harness, &["m1"]);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.clear_road();
    harness.run(2000);
    harness.say(sender, &bob, "m2");
    harness.run(100);
    assert_eq!((harness.told(sender, "m1"), harness.told(sender, "m2")), (vec!["ok"], vec!["ok"]));
    assert_eq!(harness.inbox(reader), ["m1", "m2"]);
}

#[test]
fn records_that_stay_unreadable_are_given_up_in_order() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    garble(&mut harness, &["m1", "m2"]);
    harness.say(sender, &bob, "m1");
    harness.say(sender, &bob, "m2");
    harness.run(10_000);
    assert_eq!(
        (harness.told(sender, "m1"), harness.told(sender, "m2")),
        (vec!["unavailable"], vec!["unavailable"])
    );
    assert!(!harness.nodes[0].has_unconfirmed());
    harness.clear_road();
    for (id, last) in [("m2", "rate_limited"), ("m1", "ok"), ("m2", "ok")] {
        harness.say(sender, &bob, id);
        harness.run(100);
        assert_eq!(harness.told(sender, id).last(), Some(&last), "{id}");
    }
    assert_eq!(harness.inbox(reader), ["m1", "m2"]);
}

#[test]
fn an_unreadable_record_is_given_up_with_what_its_sender_has_behind_it_for_that_stream() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, dave) = (harness.user(0, 0), harness.user(0, 1));
    let (bob, carol) = (harness.user(1, 0), harness.user(1, 1));
    let (sender, other) = (harness.connect(0, &alice), harness.connect(0, &dave));
    let reader = harness.connect(1, &bob);
    garble(&mut harness, &["m1"]);
    for (session, to, id) in [
        (sender, &bob, "m0"),
        (sender, &bob, "m1"),
        (other, &bob, "d1"),
        (sender, &bob, "m2"),
        (sender, &carol, "c1"),
        (sender, &bob, "m3"),
    ] {
        harness.say(session, to, id);
    }
    harness.run(10_000);
    let sent = items_sent(&harness);
    assert!(sent <= 100, "{sent} records for 6 messages: the home asks as fast as the sender goes back");
    let unavailable: Vec<_> = ["m1", "m2", "m3"].iter().map(|id| harness.told(sender, id)).collect();
    assert_eq!(unavailable, [["unavailable"]; 3]);
    assert_eq!((harness.told(sender, "m0"), harness.told(other, "d1")), (vec!["ok"], vec!["ok"]));
    assert_eq!((harness.told(sender, "c1"), harness.inbox(reader)), (vec!["ok"], ids(&["m0", "d1"])));
    harness.clear_road();
    for (id, last) in [("m2", "rate_limited"), ("m1", "ok"), ("m2", "ok"), ("m3", "ok")] {
        harness.say(sender, &bob, id);
        harness.run(100);
        assert_eq!(harness.told(sender, id).last(), Some(&last), "{id}");
    }
    assert_eq!(harness.inbox(reader), ["m0", "d1", "m1", "m2", "m3"]);
}

/// Rules 14 and 15: a home that is full for long, while others send it what nobody can read.
#[test]
fn a_full_home_is_not_taken_for_one_that_cannot_read() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| cfg.queue_max = 4);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    harness.writes = Box::new(|_| Reach::Underway);
    let all: Vec<_> = (1..=20).map(|i| format!("m{i}")).collect();
    for id in &all {
        harness.say(sender, &bob, id);
    }
    for _ in 0..20 {
        harness.run(250);
        harness.give(1, Input::Undecodable);
    }
    harness.writes = Box::new(|_| Reach::Answered);
    harness.land();
    harness.run(2000);
    for id in &all {
        assert_eq!(harness.told(sender, id), ["ok"], "{id}: every record of this channel can be read");
    }
    assert_eq!(harness.logged(&bob), all);
}

/// Rule 18: the answer to a write is lost, and the write itself arrives before or after its repeat.
fn a_write_lands_late(before_its_repeat: bool) {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    let mut first = true;
    harness.writes = Box::new(move |w| {
        if std::mem::take(&mut first) {
            assert_eq!(w.ops.len(), 1);
            return if before_its_repeat { Reach::Untold } else { Reach::Late };
        }
        Reach::Answered
    });
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.say(sender, &bob, "m2");
    harness.run(1000);
    harness.land();
    harness.say(sender, &bob, "m3");
    harness.run(1000);
    harness.say(sender, &bob, "m4");
    harness.run(1000);
    let all = ids(&["m1", "m2", "m3", "m4"]);
    assert_eq!((harness.inbox(reader), harness.logged(&bob)), (all.clone(), all.clone()));
    for id in &all {
        assert_eq!(harness.told(sender, id), ["ok"]);
    }
    assert_eq!(harness.nodes[1].counters().writes_unknown, 1);
    assert_eq!(harness.nodes[1].counters().writes_fenced, 0, "an owner that is behind is still the owner");
    let repeats = u64::from(before_its_repeat);
    assert_eq!(harness.nodes[1].counters().duplicates, repeats, "the store was really behind or ahead");
}

#[test]
fn a_write_whose_answer_is_lost_and_that_lands_late_is_delivered_and_confirmed_once() {
    a_write_lands_late(true);
    a_write_lands_late(false);
}
