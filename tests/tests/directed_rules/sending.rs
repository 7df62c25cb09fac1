//! The sender's side: rules 1, 3, 6 and 9.

use roost_proto::ids::{Epoch, Sid, VnodeId};
use roost_proto::records::{ChannelId, Confirm, Item, ItemResult, Probe, Record};
use roost_ws_node::core::{Input, Rule};

use super::harness::{Harness, Road, Roads};

fn is_item(record: &Record) -> bool {
    matches!(record, Record::Item(_))
}

fn is_confirm(record: &Record) -> bool {
    matches!(record, Record::Confirm(_))
}

/// Takes the first record away that `what` is true of.
fn lose_one(what: fn(&Record) -> bool) -> Roads {
    let mut lost = false;
    Box::new(move |_, record| {
        if !lost && what(record) {
            lost = true;
            return Road::Lost;
        }
        Road::Goes
    })
}

fn items_from(harness: &Harness, node: usize) -> Vec<u64> {
    let items = harness.sent.iter().filter(|(_, from, ..)| *from == node);
    items.filter_map(|(.., r)| if let Record::Item(i) = r { Some(i.n) } else { None }).collect()
}

/// Rule 1. [m2 refused, m3 accepted, m2 repeated: order broken]
#[test]
fn after_a_refusal_the_stream_waits_until_the_refused_message_is_accepted() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| cfg.channel_items_max = 1);
    let (bob, carol) = (harness.user(1, 0), harness.user(1, 1));
    let (alice, tablet) = (harness.user(0, 0), harness.user(0, 0));
    let (alice, tablet) = (harness.connect(0, &alice), harness.connect(0, &tablet));
    harness.road = Box::new(|_, record| if is_item(record) { Road::Held } else { Road::Goes });
    for id in ["m1", "m2", "m3", "m2"] {
        harness.say(alice, &bob, id);
    }
    assert_eq!(harness.told(alice, "m2"), ["rate_limited"; 2]);
    assert_eq!(harness.told(alice, "m3"), ["rate_limited"]);
    harness.clear_road();
    harness.run(100);
    assert_eq!(harness.told(alice, "m1"), ["ok"]);
    harness.say(alice, &bob, "m3");
    harness.run(100);
    assert_eq!(harness.told(alice, "m3"), ["rate_limited"; 2], "there is room, but it would overtake m2");
    for (session, to, id) in
        [(alice, &carol, "c1"), (tablet, &bob, "t1"), (alice, &bob, "m2"), (alice, &bob, "m3")]
    {
        harness.say(session, to, id);
        harness.run(100);
        assert_eq!(harness.told(session, id).last(), Some(&"ok"), "{id}");
    }
    assert_eq!(harness.logged(&bob), ["m1", "t1", "m2", "m3"]);
}

/// Rule 3: one record is lost and nothing follows it. Returns what the sender heard and what the reader got.
fn the_last_one_is_lost(what: fn(&Record) -> bool, off: Option<Rule>) -> (Vec<&'static str>, Vec<String>) {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.road = lose_one(what);
    harness.say(sender, &bob, "m1");
    harness.run(1200);
    if off.is_some() {
        harness.run(120_000);
        assert!(harness.nodes[0].has_unconfirmed(), "it will wait for ever, although everyone is well");
    }
    (harness.told(sender, "m1"), harness.inbox(reader))
}

#[test]
fn a_lost_last_record_or_confirm_is_noticed_within_a_second() {
    for what in [is_item, is_confirm] {
        assert_eq!(the_last_one_is_lost(what, None), (vec!["ok"], vec!["m1".to_owned()]));
    }
    assert_eq!(the_last_one_is_lost(is_item, Some(Rule::Probe)), (vec!["unknown"], vec![]));
    assert_eq!(the_last_one_is_lost(is_confirm, Some(Rule::Probe)), (vec!["unknown"], vec!["m1".to_owned()]));
}

#[test]
fn a_silent_home_is_probed_after_1_2_4_and_8_seconds_and_gets_no_item_twice() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.road = Box::new(|_, _| Road::Lost);
    let start = harness.now;
    for id in ["m1", "m2", "m3"] {
        harness.say(sender, &bob, id);
    }
    harness.run(32_000);
    let probes: Vec<_> = harness.sent.iter().filter(|(.., r)| matches!(r, Record::Probe(_))).collect();
    let at: Vec<_> = probes.iter().map(|(at, ..)| at - start).collect();
    assert_eq!(at, [1000, 3000, 7000, 15_000, 23_000, 31_000]);
    assert!(probes.iter().all(|p| p.2 == probes[0].2 && p.2 < 200), "of constant size");
    assert_eq!(items_from(&harness, 0), [1, 2, 3], "nothing is repeated on a timer");
    harness.clear_road();
    harness.run(9000);
    assert_eq!(harness.inbox(reader), ["m1", "m2", "m3"]);
    assert!(!harness.nodes[0].has_unconfirmed());
}

/// Rule 6: the home appends, its confirms do not arrive, the sender's client has gone away; much later, when the
/// store has forgotten the id, the vnode gets another home. Returns what the log has.
fn a_late_copy_after_the_dedup_window(off: Option<Rule>) -> Vec<String> {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    harness.road = Box::new(|from, _| if from == 1 { Road::Lost } else { Road::Goes });
    harness.say(sender, &bob, "m1");
    harness.run(1000);
    assert_eq!(harness.logged(&bob), ["m1"]);
    harness.hang_up(sender);
    harness.tick_ms = 500;
    harness.run(44 * 60_000);
    assert!(harness.nodes[0].has_unconfirmed(), "a number is never left out");
    // A write, with which the vnode's clock is kept: for a successor it would have stood still.
    harness.connect(1, &bob);
    harness.assign(1, 0);
    harness.run(5000);
    assert!(!harness.nodes[0].has_unconfirmed());
    let sender = harness.connect(0, &alice);
    harness.say(sender, &bob, "m2");
    harness.run(1000);
    assert_eq!(harness.told(sender, "m2"), ["ok"], "the channel goes on after the void");
    harness.logged(&bob)
}

#[test]
fn an_item_that_nobody_renews_for_5_minutes_becomes_a_void_and_never_a_second_message() {
    assert_eq!(a_late_copy_after_the_dedup_window(None), ["m1", "m2"]);
    assert_eq!(a_late_copy_after_the_dedup_window(Some(Rule::VoidAge)), ["m1", "m1", "m2"]);
}

/// Rule 6: a home is away for `away` ms; its sender repeats at the times given. Returns what the reader got, and
/// what the sender heard.
fn the_home_is_away(away: u64, repeats: &[u64]) -> (Vec<String>, Vec<&'static str>) {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.road = Box::new(|_, _| Road::Lost);
    harness.say(sender, &bob, "m1");
    let start = harness.now;
    for at in repeats {
        harness.run(start + at - harness.now);
        harness.say(sender, &bob, "m1");
        assert_eq!(harness.nodes[0].gauges(harness.clock()).channel_items, 1, "a repeat is no second item");
    }
    harness.run(start + away - harness.now);
    harness.clear_road();
    harness.run(20_000);
    assert!(!harness.nodes[0].has_unconfirmed());
    (harness.inbox(reader), harness.told(sender, "m1"))
}

#[test]
fn unknown_alone_removes_nothing_and_a_repeat_renews() {
    let m1 = || vec!["m1".to_owned()];
    assert_eq!(the_home_is_away(60_000, &[]), (m1(), vec!["unknown"]));
    assert_eq!(the_home_is_away(60_000, &[50_000]), (m1(), vec!["unknown", "ok"]));
    assert_eq!(the_home_is_away(290_000, &[]), (m1(), vec!["unknown"]));
    assert_eq!(the_home_is_away(301_000, &[]), (vec![], vec!["unknown"]), "5 minutes are over: a void");
    assert_eq!(the_home_is_away(530_000, &[240_000]), (m1(), vec!["unknown"; 2]), "240 s + 5 min are not");
    assert_eq!(the_home_is_away(541_000, &[240_000]), (vec![], vec!["unknown"; 2]));
}

/// Rule 1: the home is away, m1 is `unknown` and repeated, and m2, sent after it, is `unknown`; then m1 is again, and is
/// confirmed before its client repeats it. For its node that repeat is a new message, and m2 waits for it, not it for m2:
/// clients repeat in order.
#[test]
fn what_is_unknown_twice_is_still_before_what_was_sent_after_it() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.road = Box::new(|_, _| Road::Lost);
    harness.say(sender, &bob, "m1");
    harness.run(3_000);
    harness.say(sender, &bob, "m2");
    harness.run(17_500);
    harness.say(sender, &bob, "m1");
    harness.run(20_500);
    assert_eq!(
        (harness.told(sender, "m1"), harness.told(sender, "m2")),
        (vec!["unknown"; 2], vec!["unknown"])
    );
    harness.clear_road();
    harness.run(20_000);
    assert!(!harness.nodes[0].has_unconfirmed());
    for id in ["m1", "m2"] {
        harness.say(sender, &bob, id);
        harness.run(1_000);
        assert_eq!(harness.told(sender, id).last(), Some(&"ok"), "{id}");
    }
    assert_eq!(harness.inbox(reader), ["m1", "m2"]);
}

#[test]
fn a_repeat_of_a_queued_message_is_never_refused() {
    let mut harness =
        Harness::with(&[0, 1], None, |cfg| (cfg.channel_items_max, cfg.unanswered_max) = (1, 2));
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let alice = harness.connect(0, &alice);
    harness.road = Box::new(|_, record| if is_item(record) { Road::Held } else { Road::Goes });
    for id in ["m1", "m2", "m1", "m1"] {
        harness.say(alice, &bob, id);
    }
    harness.say_this(alice, &bob, "m1", "{\"another\":1}");
    assert_eq!(harness.told(alice, "m2"), ["rate_limited"]);
    assert_eq!(harness.told(alice, "m1"), ["conflict"], "only of the one with another body");
    harness.clear_road();
    harness.run(100);
    assert_eq!(harness.told(alice, "m1"), ["conflict", "ok"]);
}

/// Rule 9: a confirm of the old epoch comes when its number means another message under the new one. Returns what
/// the sender heard about that message, and what the log has.
fn a_confirm_of_the_old_epoch_comes_late(off: Option<Rule>) -> (Vec<&'static str>, Vec<String>) {
    let mut harness = Harness::new(&[0, 1, 2, 2], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.road = Box::new(|from, r| if from == 1 && is_confirm(r) { Road::Held } else { Road::Goes });
    harness.say(sender, &bob, "m2");
    harness.run(100);
    harness.assign(1, 2);
    harness.run(3000);
    assert_eq!((harness.told(sender, "m1"), harness.told(sender, "m2")), (vec!["ok"], vec!["ok"]));
    // m2 was number 2 for the old home and number 1 for the new one; m3 is number 2 now, and is lost.
    let held = std::mem::take(&mut harness.on_road);
    harness.road = lose_one(is_item);
    harness.say(sender, &bob, "m3");
    harness.on_road = held
        .into_iter()
        .filter(|(_, e)| matches!(e, Input::Record(Record::Confirm(c)) if c.from == 2))
        .collect();
    assert!(!harness.on_road.is_empty());
    for (node, event) in std::mem::take(&mut harness.on_road) {
        harness.give(node, event);
    }
    harness.run(60_000);
    (harness.told(sender, "m3"), harness.logged(&bob))
}

#[test]
fn a_late_confirm_of_another_epoch_confirms_nothing() {
    let all = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(a_confirm_of_the_old_epoch_comes_late(None), (vec!["ok"], all(&["m1", "m2", "m3"])));
    let off = a_confirm_of_the_old_epoch_comes_late(Some(Rule::ConfirmIdentity));
    assert_eq!(off, (vec!["ok"], all(&["m1", "m2"])), "acknowledged, and nowhere");
}

/// Rule 9, each part by itself. Returns what the sender heard.
fn a_foreign_confirm_comes(change: fn(&mut Confirm), off: Option<Rule>) -> Vec<&'static str> {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    harness.road = Box::new(|_, _| Road::Lost);
    harness.say(sender, &bob, "m1");
    let Some((.., Record::Item(item))) = harness.sent.last() else { panic!("an item is the last") };
    let results = vec![ItemResult::Ok { at: 1, cursor: None }];
    let channel = item.channel.clone();
    let mut confirm = Confirm { channel, from: 1, results, ask: None, unreadable: false };
    change(&mut confirm);
    harness.give(0, Input::Record(Record::Confirm(confirm)));
    assert_eq!(harness.logged(&bob), [""; 0]);
    harness.told(sender, "m1")
}

#[test]
fn a_confirm_counts_only_for_its_own_sid_epoch_and_channel() {
    let foreign: [fn(&mut Confirm); 3] = [
        |c| c.channel.sid = Sid::new(&c.channel.sid.node(), c.channel.sid.born() - 1, 7),
        |c| c.channel.epoch = Epoch(c.channel.epoch.0 - 1),
        |c| c.channel.chan -= 1,
    ];
    for change in foreign {
        assert_eq!(a_foreign_confirm_comes(change, None), [""; 0]);
        assert_eq!(a_foreign_confirm_comes(change, Some(Rule::ConfirmIdentity)), ["ok"]);
    }
    assert_eq!(a_foreign_confirm_comes(|_| {}, None), ["ok"], "its own does count");
}

/// Rule 9: the home took the sender's life for ended and forgot its channel; then the store went back to before that.
#[test]
fn a_channel_that_its_home_has_forgotten_begins_again() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!(harness.told(sender, "m1"), ["ok"]);
    // Right after a renewal, so that the sender hears nothing of its end.
    while harness.now % 500 != 50 {
        harness.run(10);
    }
    let before = harness.control.clone();
    harness.revoke(0);
    harness.look(1);
    harness.run(300);
    harness.control = before;
    harness.look(1);
    harness.run(50);
    harness.say(sender, &bob, "m2");
    harness.say(sender, &bob, "m3");
    harness.run(4000);
    assert_eq!((harness.told(sender, "m2"), harness.told(sender, "m3")), (vec!["ok"], vec!["ok"]));
    assert_eq!(harness.inbox(reader), ["m1", "m2", "m3"]);
}

/// Rule 4: what a late record of an earlier channel says was confirmed is not what a later one confirmed.
#[test]
fn a_late_record_of_an_earlier_channel_prunes_nothing_of_the_later_one() {
    let mut harness = Harness::new(&[0, 1], None);
    harness.run(1000);
    let channel = |chan| ChannelId {
        vnode: VnodeId(1),
        epoch: harness.data[1].head().unwrap().0,
        sid: harness.nodes[0].sid().clone(),
        chan,
        round: 0,
    };
    let void = |chan, n, acked| Record::Item(Item { channel: channel(chan), n, acked, body: None });
    let probe = Record::Probe(Probe { channel: channel(9), first: 1, last: 2 });
    for record in [void(8, 1, 0), void(9, 1, 0), void(9, 2, 0), void(8, 3, 2), probe] {
        harness.give(1, Input::Record(record));
    }
    harness.run(20);
    let Some((.., Record::Confirm(confirm))) = harness.sent.last() else { panic!("a probe is answered") };
    assert_eq!((confirm.channel.chan, confirm.from), (9, 1));
    assert_eq!(confirm.results, [ItemResult::Void, ItemResult::Void]);
}
