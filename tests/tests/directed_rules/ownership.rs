//! Who has a vnode: rules 19 to 22.

use roost_backend::store::DataSet;
use roost_backend::store::model::VnodeData;
use roost_proto::ids::Epoch;
use roost_proto::limits::{BEATS_PER_LEASE, VOID_AFTER_MS};
use roost_proto::records::{OwnerChanged, Record};
use roost_ws_node::core::{Action, Ask, Input, Now, Rule};

use super::harness::{Harness, LEASE_TTL_MS, Reach, Road};

const BEAT_MS: u64 = LEASE_TTL_MS / BEATS_PER_LEASE;

/// Rule 19: node 1 has the vnode of `bob`; the store goes back to when node 0 had it. Node 0 hears of that first,
/// while node 1, within its lease, confirms what the log has only now.
///
/// Returns what the sender was told, and what `bob` knows who had been away.
fn the_store_goes_back_to_an_earlier_owner(off: Option<Rule>) -> (Vec<&'static str>, Vec<String>) {
    let mut harness = Harness::new(&[0, 0, 1, 1], off);
    let (alice, bob) = (harness.user(2, 0), harness.user(1, 0));
    let snapshot = (harness.control.clone(), harness.data.clone());
    harness.assign(1, 1);
    harness.run(2000);
    let (sender, reader) = (harness.connect(1, &alice), harness.connect(1, &bob));
    harness.say(sender, &bob, "m1");
    harness.run(100);
    let shown = Some(harness.cursor(reader));
    harness.hang_up(reader);
    harness.no_log.insert(1);
    harness.say(sender, &bob, "m2");
    harness.run(100);
    assert_eq!(harness.told(sender, "m1"), ["ok"]);
    assert!(
        (50..350).contains(&(harness.now % BEAT_MS)),
        "node 1 neither renews nor reads the table in what follows"
    );
    (harness.control, harness.data) = snapshot;
    harness.another_data_set();
    harness.look(0);
    harness.run(50);
    let mut reader = harness.connect_at(0, &bob, Some("phone"), shown);
    harness.log_again();
    harness.run(50);
    assert_eq!(harness.told(sender, "m2"), ["ok"], "node 1 knows nothing yet, and the log has it");
    for _ in 0..10 {
        harness.run(1000);
        if let Some(moved) = harness.moved(reader).cloned() {
            let node = usize::from(moved.node.as_str() == "n1");
            reader = harness.connect_at(node, &bob, Some("phone"), shown);
        }
    }
    harness.say(sender, &bob, "m3");
    harness.run(30_000);
    (harness.told(sender, "m2"), harness.history_and_inbox(reader, &bob))
}

#[test]
fn while_settling_nobody_gets_a_vnode_that_another_holds_now() {
    let all = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(the_store_goes_back_to_an_earlier_owner(None), (vec!["ok"], all(&["m1", "m2", "m3"])));
    let off = the_store_goes_back_to_an_earlier_owner(Some(Rule::HeldWhileSettling));
    assert_eq!(off, (vec!["ok"], all(&["m1", "m3"])), "m2 was acknowledged, and is skipped in silence");
}

/// Rules 18 and 19: the store was away for less than a lease and lost nothing.
#[test]
fn a_restart_of_the_store_without_loss_resets_nobody() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.say(sender, &bob, "m1");
    harness.run(100);
    let generation = harness.data[1].head().unwrap().2;
    harness.control.expire_all_rows();
    harness.another_data_set();
    harness.run(3000);
    harness.say(sender, &bob, "m2");
    harness.run(1000);
    assert_eq!(harness.inbox(reader), ["m1", "m2"]);
    assert_eq!((harness.resets(reader).len(), harness.closed(reader)), (0, vec![]));
    assert_eq!(harness.data[1].head().unwrap().2, generation);
}

/// Rules 18 and 19, with a write whose answer was lost with the store: it is made again before anything is proved.
#[test]
fn a_restart_without_loss_resets_nobody_whose_write_has_no_answer() {
    for lands in [true, false] {
        let mut harness = Harness::new(&[0, 1], None);
        let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
        let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
        harness.say(sender, &bob, "m1");
        harness.run(1500);
        let generation = harness.data[1].head().unwrap().2;
        harness.writes = Box::new(move |_| if lands { Reach::Untold } else { Reach::Late });
        harness.say(sender, &bob, "m2");
        harness.run(20);
        harness.late_writes.clear();
        harness.writes = Box::new(|_| Reach::Answered);
        harness.control.expire_all_rows();
        harness.another_data_set();
        harness.look(1);
        harness.run(3000);
        assert_eq!(harness.told(sender, "m2"), ["ok"]);
        harness.say(sender, &bob, "m3");
        harness.run(1000);
        assert_eq!(harness.inbox(reader), ["m1", "m2", "m3"], "it landed: {lands}");
        assert_eq!((harness.resets(reader).len(), harness.closed(reader)), (0, vec![]));
        assert_eq!(harness.data[1].head().unwrap().2, generation);
    }
}

/// Rule 17: the data go back, under the same name, to before `m2` and `m3`, and the leases in them are over. Returns
/// how often the reader was reset, and whether the generation goes on.
fn the_store_goes_back_under_the_same_name(off: Option<Rule>) -> (usize, bool) {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.say(sender, &bob, "m1");
    harness.run(1500);
    let (mut control, data) = (harness.control.clone(), harness.data.clone());
    for id in ["m2", "m3"] {
        harness.say(sender, &bob, id);
        harness.run(100);
    }
    let generation = harness.data[1].head().unwrap().2;
    control.expire_all_rows();
    (harness.control, harness.data) = (control, data);
    harness.run(3000);
    for id in ["m4", "m5"] {
        harness.say(sender, &bob, id);
        harness.run(1000);
        assert_eq!(harness.told(sender, id), ["ok"]);
    }
    (harness.resets(reader).len(), harness.data[1].head().unwrap().2 == generation)
}

#[test]
fn who_had_a_vnode_before_notices_that_its_data_went_back_under_the_same_name() {
    assert_eq!(the_store_goes_back_under_the_same_name(None), (1, false));
    assert_eq!(the_store_goes_back_under_the_same_name(Some(Rule::LeftSeq)), (0, true), "the rule is needed");
}

/// Rule 17: the data go back under the same name, to before `m2`, while node 1 gives the vnode up as planned: before it
/// did, or after. Node 0, which was to have it, stands still, and node 1 is given it back. Returns whether the generation
/// goes on.
fn the_store_goes_back_at_a_planned_move(before: bool, off: Option<Rule>) -> bool {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(1, 0), harness.user(1, 1));
    let sender = harness.connect(1, &alice);
    harness.say(sender, &bob, "m1");
    harness.run(1500);
    let snapshot = harness.data[1].clone();
    harness.say(sender, &bob, "m2");
    harness.run(2000);
    assert_eq!(harness.told(sender, "m2"), ["ok"]);
    let generation = harness.data[1].head().unwrap().2;
    harness.freeze(0);
    if before {
        harness.data[1] = snapshot.clone();
    }
    harness.assign(1, 0);
    harness.run(1000);
    if !before {
        harness.data[1] = snapshot;
    }
    harness.assign(1, 1);
    harness.run(3000);
    harness.data[1].head().unwrap().2 == generation
}

#[test]
fn who_gave_a_vnode_up_notices_that_its_data_went_back_since_and_looks_before_it_does() {
    for before in [true, false] {
        assert!(!the_store_goes_back_at_a_planned_move(before, None), "before: {before}");
    }
    assert!(the_store_goes_back_at_a_planned_move(false, Some(Rule::LeftSeq)), "the rule is needed");
}

/// Rule 18: the data is gone under a home that holds its lease.
#[test]
fn a_home_whose_data_is_gone_begins_a_new_generation_and_says_reset() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.say(sender, &bob, "m1");
    harness.run(2000);
    harness.data[1] = VnodeData::default();
    harness.say(sender, &bob, "m2");
    harness.run(3000);
    assert_eq!(harness.nodes[1].counters().writes_fenced, 1);
    assert_eq!(harness.told(sender, "m2"), ["ok"]);
    assert_eq!(harness.inbox(reader), ["m1", "m2"]);
    let [reset] = harness.resets(reader)[..] else { panic!("one reset") };
    let head = harness.data[1].head().unwrap();
    assert_eq!((reset.cursor.generation, head.2), (head.0, head.0));
    assert_eq!(harness.cursor(reader).generation, head.0);
    assert!(reset.through.is_some(), "the history has what came before");
    assert_eq!(harness.logged(&bob), ["m1", "m2"]);
}

/// Rule 22: the home is cut off from the store alone, and another node takes its vnode.
#[test]
fn took_ends_a_home_without_the_store_and_its_sessions_are_told_to_move() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.no_store.insert(1);
    harness.revoke(1);
    harness.assign(1, 0);
    harness.run(2000);
    assert_eq!(harness.nodes[1].gauges(harness.clock()).owned, 0);
    assert!(harness.nodes[1].counters().suspensions == 0, "before its lease was over");
    let moved = harness.moved(reader).expect("it knows where to");
    let head = harness.data[1].head().unwrap();
    assert_eq!((moved.node.as_str(), &*moved.url, moved.epoch), ("n0", "ws://n0", head.0));
    assert_eq!(harness.closed(reader), [0; 0]);

    // The other way round it says nothing: what is older ends nobody.
    let vnode = roost_ring::vnode(&bob, 2);
    let sid = harness.nodes[1].sid().clone();
    let (node, url) = (sid.node(), "ws://n1".to_owned());
    let old = OwnerChanged { vnode, epoch: Epoch(head.0.0 - 1), node, sid, url };
    let epoch = head.0;
    harness.give(0, Input::Record(Record::OwnerChanged(old)));
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!(harness.told(sender, "m1"), ["ok"]);
    assert_eq!(harness.data[1].head().unwrap().0, epoch);
}

/// Rule 22, with the answer to the activation lost: its repeat finds the new owner in the head.
#[test]
fn took_is_sent_even_if_the_answer_to_the_activation_was_lost() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let reader = harness.connect(1, &bob);
    harness.no_store.insert(1);
    harness.revoke(1);
    harness.assign(1, 0);
    harness.activations_untold = 1;
    harness.run(5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    assert_eq!(harness.moved(reader).map(|m| m.node.as_str()), Some("n0"));
}

/// Rule 20.
#[test]
fn an_epoch_only_grows_in_a_view_except_after_a_new_data_set() {
    let mut harness = Harness::new(&[0, 1, 2, 2], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    let mut stale = harness.control.table(harness.store_now());
    harness.assign(1, 2);
    harness.run(3000);
    let epoch_of_next_item = |harness: &mut Harness, id: &str| {
        harness.say(sender, &bob, id);
        let Some((.., Record::Item(item))) = harness.sent.last() else { panic!("an item is the last") };
        item.channel.epoch
    };
    let current = harness.data[1].head().unwrap().0;
    harness.give(0, Input::View(Box::new(stale.clone())));
    assert_eq!(epoch_of_next_item(&mut harness, "m1"), current);
    let old = stale.rows.values().find(|r| r.node().as_str() == "n1").unwrap().epoch;
    assert!(old < current);
    stale.data_set = DataSet("d1".into());
    harness.road = Box::new(|_, _| Road::Lost);
    harness.give(0, Input::View(Box::new(stale)));
    assert_eq!(epoch_of_next_item(&mut harness, "m2"), old);
}

/// Rule 21: the leader declares a living node dead.
#[test]
fn a_revoked_node_goes_on_as_another_sid_and_keeps_its_sockets() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (reader, both) = (harness.connect(0, &alice), harness.connect(1, &bob));
    let old = harness.nodes[1].sid().clone();
    harness.road = Box::new(|from, record| match record {
        Record::Item(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
    for id in ["x1", "x2"] {
        harness.say(both, &alice, id);
    }
    harness.revoke(1);
    harness.run(2000);
    assert_eq!((harness.told(both, "x1"), harness.told(both, "x2")), (vec!["unknown"], vec!["unknown"]));
    let new = harness.nodes[1].sid().clone();
    assert!(new != old && new.born() > old.born());
    assert_eq!(harness.control.sid_of(&new.node()), Some(&new), "it registered again");
    assert_eq!((harness.replaced.len(), harness.closed(both), harness.moved(both)), (0, vec![], None));

    // What the ended sid sent is void, wherever it was.
    let void = harness.nodes[0].counters().void_records;
    harness.clear_road();
    harness.run(100);
    assert_eq!(harness.nodes[0].counters().void_records, void + 2);
    assert_eq!(harness.logged(&alice), [""; 0]);

    // The same socket goes on, both ways, and rule 1 holds across the two lives.
    harness.say(both, &alice, "x2");
    assert_eq!(harness.told(both, "x2"), ["unknown", "rate_limited"], "x1 comes first");
    for id in ["x1", "x2"] {
        harness.say(both, &alice, id);
        harness.run(100);
        assert_eq!(harness.told(both, id).last(), Some(&"ok"));
    }
    harness.say(reader, &bob, "y1");
    harness.run(100);
    assert_eq!(
        (harness.inbox(reader), harness.inbox(both)),
        (vec!["x1".into(), "x2".into()], vec!["y1".to_owned()])
    );
    assert_eq!((harness.resets(both).len(), harness.closed(both)), (0, vec![]));
}

/// Rule 21: the store's data is gone under a node that was revoked, so it claims at once, and is told that its sid is
/// not registered. That is also what a forgotten node would be told.
#[test]
fn a_revoked_node_whose_claim_is_answered_first_begins_another_life() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    let (old, claims) = (harness.nodes[1].sid().clone(), harness.nodes[1].counters().claims);
    assert!((50..350).contains(&(harness.now % BEAT_MS)), "no renewal is due in what follows");
    harness.revoke(1);
    harness.data[1] = VnodeData::default();
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!(harness.nodes[1].counters().writes_fenced, 1);
    assert!(harness.nodes[1].counters().claims > claims);
    assert_eq!((harness.forgotten.len(), harness.replaced.len()), (0, 0));
    let new = harness.nodes[1].sid().clone();
    assert!(new.born() > old.born());
    assert_eq!(harness.control.sid_of(&new.node()), Some(&new), "it asked at once, and registered again");
    harness.run(5000);
    assert_eq!((harness.told(sender, "m1"), harness.closed(reader)), (vec!["ok"], vec![]));
    harness.say(sender, &bob, "m2");
    harness.run(100);
    assert_eq!(harness.inbox(reader).last().map(String::as_str), Some("m2"), "the same socket goes on");
}

/// Rules 19 and 21: the machine of node 0 slept, and wakes under other data. Returns by how much its sid is later,
/// and whether it still has what nobody confirmed.
fn a_node_that_slept_finds_other_data(slept_ms: u64) -> (u64, bool) {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    harness.road = Box::new(|_, record| match record {
        Record::Confirm(_) => Road::Lost,
        _ => Road::Goes,
    });
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert!(harness.nodes[0].has_unconfirmed());
    let old = harness.nodes[0].sid().born();
    harness.another_data_set();
    let (table, now) = (harness.control.table(harness.store_now()), harness.clock());
    let woken = Now { wall: now.wall + slept_ms, ..now };
    let actions = harness.nodes[0].step(Input::View(Box::new(table)), woken);
    let sid = harness.nodes[0].sid();
    let registers = |action: &Action| matches!(action, Action::Ask(Ask::Register(r)) if r.row.sid == *sid);
    assert!(actions.iter().any(registers));
    (sid.born() - old, harness.nodes[0].has_unconfirmed())
}

#[test]
fn a_node_that_slept_for_long_gives_up_its_channels_under_other_data() {
    assert_eq!(a_node_that_slept_finds_other_data(0), (0, true));
    assert_eq!(a_node_that_slept_finds_other_data(VOID_AFTER_MS), (0, true));
    assert_eq!(a_node_that_slept_finds_other_data(VOID_AFTER_MS + 10_000), (1, false));
}

#[test]
fn a_revoked_node_tells_its_sessions_to_move_when_another_has_the_vnode() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let reader = harness.connect(1, &bob);
    harness.revoke(1);
    harness.assign(1, 0);
    harness.run(3000);
    assert_eq!(harness.moved(reader).map(|m| m.node.as_str()), Some("n0"));
    assert_eq!(harness.closed(reader), [0; 0], "the client goes by itself");
    harness.run(10_000);
    assert_eq!(harness.closed(reader), [3000], "or is closed later");
}

/// Rule 21: a node sleeps for longer than its tombstone stays, and so does a copy of its item that was on its way.
fn a_forgotten_node_wakes(off: Option<Rule>) -> (Harness, String) {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    harness.road = Box::new(|_, record| match record {
        Record::Confirm(_) => Road::Lost,
        _ => Road::Goes,
    });
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!((harness.logged(&bob), harness.told(sender, "m1")), (vec!["m1".to_owned()], vec![""; 0]));
    harness.freeze(0);
    harness.revoke(0);
    harness.assign(0, 1);
    harness.road = Box::new(|_, _| Road::Goes);
    harness.tick_ms = 1000;
    harness.run(HALF_A_DAY_MS + 3_600_000);
    harness.tick_ms = 50;
    harness.forget(0);
    harness.run(2000);
    let item = |(_, from, _, record): &(u64, usize, usize, Record)| {
        (*from == 0 && matches!(record, Record::Item(_))).then(|| record.clone())
    };
    let copies: Vec<_> = harness.sent.iter().filter_map(item).collect();
    assert!(!copies.is_empty());
    for record in copies {
        harness.give(1, Input::Record(record));
    }
    harness.run(1000);
    harness.thaw(0);
    harness.run(3000);
    (harness, bob)
}

const HALF_A_DAY_MS: u64 = 43_200_000;

#[test]
fn a_forgotten_node_ends_and_nothing_of_it_becomes_a_second_message() {
    let (harness, bob) = a_forgotten_node_wakes(None);
    assert_eq!(harness.forgotten, [0]);
    assert!(
        harness.control.sid_of(&harness.nodes[0].sid().node()).is_none(),
        "it does not begin another life"
    );
    let owned = harness.nodes[0].gauges(harness.clock()).owned;
    assert_eq!((owned, harness.nodes[0].has_unconfirmed()), (0, false));
    assert_eq!(harness.logged(&bob), ["m1"]);

    let (harness, bob) = a_forgotten_node_wakes(Some(Rule::Forgotten));
    assert_eq!((harness.forgotten.len(), harness.logged(&bob).len()), (0, 2), "the rule is needed");
}

/// A node that is just starting is in nobody's view yet: what it sends at once is taken.
#[test]
fn the_first_items_of_a_new_node_are_taken_before_it_is_seen() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let new = harness.start(2, 0, &|_| {});
    harness.look(new);
    harness.run(20);
    let born = harness.nodes[new].sid().clone();
    assert!(harness.control.sid_of(&born.node()).is_some(), "registered");
    let sent = harness.sent.len();
    let alice = harness.user(0, 1);
    let sender = harness.connect(0, &alice);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    let first = harness.sent[sent..].iter().find_map(|(_, from, _, record)| match record {
        Record::Item(item) if *from == 0 => Some(item.clone()),
        _ => None,
    });
    let mut item = first.expect("one was sent");
    item.channel.sid = born;
    item.n = 1;
    item.acked = 0;
    let void = harness.nodes[1].counters().void_records;
    harness.give(1, Input::Record(Record::Item(item)));
    assert_eq!(harness.nodes[1].counters().void_records, void);
}

/// An answer to what was asked before it registered under the present data set says nothing.
#[test]
fn a_node_that_registers_again_under_other_data_is_not_forgotten() {
    let mut harness = Harness::new(&[0, 1], None);
    let settling = harness.store_now() + LEASE_TTL_MS;
    harness.control = Default::default();
    harness.control.new_data_set(2, DataSet("d1".into()), settling);
    harness.run(3000);
    assert_eq!((harness.forgotten.len(), harness.replaced.len()), (0, 0));
    assert_eq!(harness.control.table(harness.store_now()).nodes.len(), 2);
}

/// Rule 21, with a successor whose clock is behind by `behind_ms`.
fn a_later_process_of_the_node_starts(behind_ms: u64) {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let reader = harness.connect(1, &bob);
    let later = harness.start(1, behind_ms, &|_| {});
    harness.run(1500);
    assert_eq!(harness.replaced, [1], "only a later one replaces, and the earlier one ends once");
    let owned = harness.nodes[1].gauges(harness.clock()).owned;
    assert_eq!(
        (owned, harness.nodes[1].has_unconfirmed()),
        (0, false),
        "it waits for nothing that is the other's"
    );
    harness.freeze(1);
    harness.run(8000);
    let row =
        harness.control.table(harness.store_now()).rows.values().find(|r| r.node().as_str() == "n1").cloned();
    assert_eq!(&row.unwrap().sid, harness.nodes[later].sid());
    let again = harness.connect(later, &bob);
    assert!(harness.is_welcome(again));
    assert_eq!(harness.inbox(reader), [""; 0]);
}

#[test]
fn a_later_process_of_a_node_replaces_the_earlier_one_even_if_its_clock_is_behind() {
    a_later_process_of_the_node_starts(0);
    a_later_process_of_the_node_starts(3_600_000);
}

/// Rule 27, with the home dead and nobody else in its place yet.
#[test]
fn nobody_is_sent_to_a_life_that_is_over() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    harness.freeze(1);
    harness.revoke(1);
    harness.run(1000);
    let reader = harness.connect(0, &bob);
    harness.run(1000);
    assert_eq!(harness.moved(reader), None, "n1 is dead, and n0 knows it");
    harness.assign(1, 0);
    harness.run(2000);
    assert!(harness.is_welcome(reader));
    harness.say(sender, &bob, "m1");
    harness.run(100);
    assert_eq!(harness.inbox(reader), ["m1"]);
}
