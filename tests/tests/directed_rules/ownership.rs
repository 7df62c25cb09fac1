//! Who has a vnode: rules 19 to 22.

use roost_backend::store::DataSet;
use roost_backend::store::model::VnodeData;
use roost_proto::ids::Epoch;
use roost_proto::limits::{BEATS_PER_LEASE, VOID_AFTER_MS};
use roost_proto::records::{OwnerChanged, Record};
use roost_ws_node::core::{Action, Ask, Rule};
use roost_ws_node::core::{Input, Now};

use super::rig::{LEASE_TTL_MS, Reach, Rig, Road};

const BEAT_MS: u64 = LEASE_TTL_MS / BEATS_PER_LEASE;

/// Rule 19: node 1 has the vnode of `bob`; the store goes back to when node 0 had it. Node 0 hears of that first,
/// while node 1, within its lease, confirms what the log has only now.
///
/// Returns what the sender was told, and what `bob` knows who had been away.
fn the_store_goes_back_to_an_earlier_owner(off: Option<Rule>) -> (Vec<&'static str>, Vec<String>) {
    let mut rig = Rig::new(&[0, 0, 1, 1], off);
    let (alice, bob) = (rig.user(2, 0), rig.user(1, 0));
    let snapshot = (rig.control.clone(), rig.data.clone());
    rig.assign(1, 1);
    rig.run(2000);
    let (sender, reader) = (rig.connect(1, &alice), rig.connect(1, &bob));
    rig.say(sender, &bob, "m1");
    rig.run(100);
    let shown = Some(rig.cursor(reader));
    rig.hang_up(reader);
    rig.no_log.insert(1);
    rig.say(sender, &bob, "m2");
    rig.run(100);
    assert_eq!(rig.told(sender, "m1"), ["ok"]);
    assert!(
        (50..350).contains(&(rig.now % BEAT_MS)),
        "node 1 neither renews nor reads the table in what follows"
    );
    (rig.control, rig.data) = snapshot;
    rig.another_data_set();
    rig.look(0);
    rig.run(50);
    let mut reader = rig.connect_at(0, &bob, Some("phone"), shown);
    rig.log_again();
    rig.run(50);
    assert_eq!(rig.told(sender, "m2"), ["ok"], "node 1 knows nothing yet, and the log has it");
    for _ in 0..10 {
        rig.run(1000);
        if let Some(moved) = rig.moved(reader).cloned() {
            let node = usize::from(moved.node.as_str() == "n1");
            reader = rig.connect_at(node, &bob, Some("phone"), shown);
        }
    }
    rig.say(sender, &bob, "m3");
    rig.run(30_000);
    (rig.told(sender, "m2"), rig.history_and_inbox(reader, &bob))
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
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (sender, reader) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.say(sender, &bob, "m1");
    rig.run(100);
    let generation = rig.data[1].head().unwrap().2;
    rig.control.expire_all_rows();
    rig.another_data_set();
    rig.run(3000);
    rig.say(sender, &bob, "m2");
    rig.run(1000);
    assert_eq!(rig.inbox(reader), ["m1", "m2"]);
    assert_eq!((rig.resets(reader).len(), rig.closed(reader)), (0, vec![]));
    assert_eq!(rig.data[1].head().unwrap().2, generation);
}

/// Rules 18 and 19, with a write whose answer was lost with the store: it is made again before anything is proved.
#[test]
fn a_restart_without_loss_resets_nobody_whose_write_has_no_answer() {
    for lands in [true, false] {
        let mut rig = Rig::new(&[0, 1], None);
        let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
        let (sender, reader) = (rig.connect(0, &alice), rig.connect(1, &bob));
        rig.say(sender, &bob, "m1");
        rig.run(1500);
        let generation = rig.data[1].head().unwrap().2;
        rig.writes = Box::new(move |_| if lands { Reach::Untold } else { Reach::Late });
        rig.say(sender, &bob, "m2");
        rig.run(20);
        rig.late_writes.clear();
        rig.writes = Box::new(|_| Reach::Answered);
        rig.control.expire_all_rows();
        rig.another_data_set();
        rig.look(1);
        rig.run(3000);
        assert_eq!(rig.told(sender, "m2"), ["ok"]);
        rig.say(sender, &bob, "m3");
        rig.run(1000);
        assert_eq!(rig.inbox(reader), ["m1", "m2", "m3"], "it landed: {lands}");
        assert_eq!((rig.resets(reader).len(), rig.closed(reader)), (0, vec![]));
        assert_eq!(rig.data[1].head().unwrap().2, generation);
    }
}

/// Rule 17: the data go back, under the same name, to before `m2` and `m3`, and the leases in them are over. Returns
/// how often the reader was reset, and whether the generation goes on.
fn the_store_goes_back_under_the_same_name(off: Option<Rule>) -> (usize, bool) {
    let mut rig = Rig::new(&[0, 1], off);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (sender, reader) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.say(sender, &bob, "m1");
    rig.run(1500);
    let (mut control, data) = (rig.control.clone(), rig.data.clone());
    for id in ["m2", "m3"] {
        rig.say(sender, &bob, id);
        rig.run(100);
    }
    let generation = rig.data[1].head().unwrap().2;
    control.expire_all_rows();
    (rig.control, rig.data) = (control, data);
    rig.run(3000);
    for id in ["m4", "m5"] {
        rig.say(sender, &bob, id);
        rig.run(1000);
        assert_eq!(rig.told(sender, id), ["ok"]);
    }
    (rig.resets(reader).len(), rig.data[1].head().unwrap().2 == generation)
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
    let mut rig = Rig::new(&[0, 1], off);
    let (alice, bob) = (rig.user(1, 0), rig.user(1, 1));
    let sender = rig.connect(1, &alice);
    rig.say(sender, &bob, "m1");
    rig.run(1500);
    let snapshot = rig.data[1].clone();
    rig.say(sender, &bob, "m2");
    rig.run(2000);
    assert_eq!(rig.told(sender, "m2"), ["ok"]);
    let generation = rig.data[1].head().unwrap().2;
    rig.freeze(0);
    if before {
        rig.data[1] = snapshot.clone();
    }
    rig.assign(1, 0);
    rig.run(1000);
    if !before {
        rig.data[1] = snapshot;
    }
    rig.assign(1, 1);
    rig.run(3000);
    rig.data[1].head().unwrap().2 == generation
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
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (sender, reader) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.say(sender, &bob, "m1");
    rig.run(2000);
    rig.data[1] = VnodeData::default();
    rig.say(sender, &bob, "m2");
    rig.run(3000);
    assert_eq!(rig.nodes[1].counters().writes_fenced, 1);
    assert_eq!(rig.told(sender, "m2"), ["ok"]);
    assert_eq!(rig.inbox(reader), ["m1", "m2"]);
    let [reset] = rig.resets(reader)[..] else { panic!("one reset") };
    let head = rig.data[1].head().unwrap();
    assert_eq!((reset.cursor.generation, head.2), (head.0, head.0));
    assert_eq!(rig.cursor(reader).generation, head.0);
    assert!(reset.through.is_some(), "the history has what came before");
    assert_eq!(rig.logged(&bob), ["m1", "m2"]);
}

/// Rule 22: the home is cut off from the store alone, and another node takes its vnode.
#[test]
fn took_ends_a_home_without_the_store_and_its_sessions_are_told_to_move() {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (sender, reader) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.no_store.insert(1);
    rig.revoke(1);
    rig.assign(1, 0);
    rig.run(2000);
    assert_eq!(rig.nodes[1].gauges(rig.clock()).owned, 0);
    assert!(rig.nodes[1].counters().suspensions == 0, "before its lease was over");
    let moved = rig.moved(reader).expect("it knows where to");
    let head = rig.data[1].head().unwrap();
    assert_eq!((moved.node.as_str(), &*moved.url, moved.epoch), ("n0", "ws://n0", head.0));
    assert_eq!(rig.closed(reader), [0; 0]);

    // The other way round it says nothing: what is older ends nobody.
    let vnode = roost_ring::vnode(&bob, 2);
    let sid = rig.nodes[1].sid().clone();
    let (node, url) = (sid.node(), "ws://n1".to_owned());
    let old = OwnerChanged { vnode, epoch: Epoch(head.0.0 - 1), node, sid, url };
    let epoch = head.0;
    rig.give(0, Input::Record(Record::OwnerChanged(old)));
    rig.say(sender, &bob, "m1");
    rig.run(100);
    assert_eq!(rig.told(sender, "m1"), ["ok"]);
    assert_eq!(rig.data[1].head().unwrap().0, epoch);
}

/// Rule 22, with the answer to the activation lost: its repeat finds the new owner in the head.
#[test]
fn took_is_sent_even_if_the_answer_to_the_activation_was_lost() {
    let mut rig = Rig::new(&[0, 1], None);
    let bob = rig.user(1, 0);
    let reader = rig.connect(1, &bob);
    rig.no_store.insert(1);
    rig.revoke(1);
    rig.assign(1, 0);
    rig.activations_untold = 1;
    rig.run(5000);
    assert_eq!(rig.data[1].head().unwrap().1.node().as_str(), "n0");
    assert_eq!(rig.moved(reader).map(|m| m.node.as_str()), Some("n0"));
}

/// Rule 20.
#[test]
fn an_epoch_only_grows_in_a_view_except_after_a_new_data_set() {
    let mut rig = Rig::new(&[0, 1, 2, 2], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let sender = rig.connect(0, &alice);
    let mut stale = rig.control.table(rig.store_now());
    rig.assign(1, 2);
    rig.run(3000);
    let epoch_of_next_item = |rig: &mut Rig, id: &str| {
        rig.say(sender, &bob, id);
        let Some((.., Record::Item(item))) = rig.sent.last() else { panic!("an item is the last") };
        item.channel.epoch
    };
    let current = rig.data[1].head().unwrap().0;
    rig.give(0, Input::View(Box::new(stale.clone())));
    assert_eq!(epoch_of_next_item(&mut rig, "m1"), current);
    let old = stale.rows.values().find(|r| r.node().as_str() == "n1").unwrap().epoch;
    assert!(old < current);
    stale.data_set = DataSet("d1".into());
    rig.road = Box::new(|_, _| Road::Lost);
    rig.give(0, Input::View(Box::new(stale)));
    assert_eq!(epoch_of_next_item(&mut rig, "m2"), old);
}

/// Rule 21: the leader declares a living node dead.
#[test]
fn a_revoked_node_goes_on_as_another_sid_and_keeps_its_sockets() {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (reader, both) = (rig.connect(0, &alice), rig.connect(1, &bob));
    let old = rig.nodes[1].sid().clone();
    rig.road = Box::new(|from, record| match record {
        Record::Item(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
    for id in ["x1", "x2"] {
        rig.say(both, &alice, id);
    }
    rig.revoke(1);
    rig.run(2000);
    assert_eq!((rig.told(both, "x1"), rig.told(both, "x2")), (vec!["unknown"], vec!["unknown"]));
    let new = rig.nodes[1].sid().clone();
    assert!(new != old && new.born() > old.born());
    assert_eq!(rig.control.sid_of(&new.node()), Some(&new), "it registered again");
    assert_eq!((rig.replaced.len(), rig.closed(both), rig.moved(both)), (0, vec![], None));

    // What the ended sid sent is void, wherever it was.
    let void = rig.nodes[0].counters().void_records;
    rig.clear_road();
    rig.run(100);
    assert_eq!(rig.nodes[0].counters().void_records, void + 2);
    assert_eq!(rig.logged(&alice), [""; 0]);

    // The same socket goes on, both ways, and rule 1 holds across the two lives.
    rig.say(both, &alice, "x2");
    assert_eq!(rig.told(both, "x2"), ["unknown", "rate_limited"], "x1 comes first");
    for id in ["x1", "x2"] {
        rig.say(both, &alice, id);
        rig.run(100);
        assert_eq!(rig.told(both, id).last(), Some(&"ok"));
    }
    rig.say(reader, &bob, "y1");
    rig.run(100);
    assert_eq!((rig.inbox(reader), rig.inbox(both)), (vec!["x1".into(), "x2".into()], vec!["y1".to_owned()]));
    assert_eq!((rig.resets(both).len(), rig.closed(both)), (0, vec![]));
}

/// Rule 21: the store's data is gone under a node that was revoked, so it claims at once, and is told that its sid is
/// not registered. That is also what a forgotten node would be told.
#[test]
fn a_revoked_node_whose_claim_is_answered_first_begins_another_life() {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (sender, reader) = (rig.connect(0, &alice), rig.connect(1, &bob));
    let (old, claims) = (rig.nodes[1].sid().clone(), rig.nodes[1].counters().claims);
    assert!((50..350).contains(&(rig.now % BEAT_MS)), "no renewal is due in what follows");
    rig.revoke(1);
    rig.data[1] = VnodeData::default();
    rig.say(sender, &bob, "m1");
    rig.run(100);
    assert_eq!(rig.nodes[1].counters().writes_fenced, 1);
    assert!(rig.nodes[1].counters().claims > claims);
    assert_eq!((rig.forgotten.len(), rig.replaced.len()), (0, 0));
    let new = rig.nodes[1].sid().clone();
    assert!(new.born() > old.born());
    assert_eq!(rig.control.sid_of(&new.node()), Some(&new), "it asked at once, and registered again");
    rig.run(5000);
    assert_eq!((rig.told(sender, "m1"), rig.closed(reader)), (vec!["ok"], vec![]));
    rig.say(sender, &bob, "m2");
    rig.run(100);
    assert_eq!(rig.inbox(reader).last().map(String::as_str), Some("m2"), "the same socket goes on");
}

/// Rules 19 and 21: the machine of node 0 slept, and wakes under other data. Returns by how much its sid is later,
/// and whether it still has what nobody confirmed.
fn a_node_that_slept_finds_other_data(slept_ms: u64) -> (u64, bool) {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let sender = rig.connect(0, &alice);
    rig.road = Box::new(|_, record| match record {
        Record::Confirm(_) => Road::Lost,
        _ => Road::Goes,
    });
    rig.say(sender, &bob, "m1");
    rig.run(100);
    assert!(rig.nodes[0].has_unconfirmed());
    let old = rig.nodes[0].sid().born();
    rig.another_data_set();
    let (table, now) = (rig.control.table(rig.store_now()), rig.clock());
    let woken = Now { wall: now.wall + slept_ms, ..now };
    let actions = rig.nodes[0].step(Input::View(Box::new(table)), woken);
    let sid = rig.nodes[0].sid();
    let registers = |action: &Action| matches!(action, Action::Ask(Ask::Register(r)) if r.row.sid == *sid);
    assert!(actions.iter().any(registers));
    (sid.born() - old, rig.nodes[0].has_unconfirmed())
}

#[test]
fn a_node_that_slept_for_long_gives_up_its_channels_under_other_data() {
    assert_eq!(a_node_that_slept_finds_other_data(0), (0, true));
    assert_eq!(a_node_that_slept_finds_other_data(VOID_AFTER_MS), (0, true));
    assert_eq!(a_node_that_slept_finds_other_data(VOID_AFTER_MS + 10_000), (1, false));
}

#[test]
fn a_revoked_node_tells_its_sessions_to_move_when_another_has_the_vnode() {
    let mut rig = Rig::new(&[0, 1], None);
    let bob = rig.user(1, 0);
    let reader = rig.connect(1, &bob);
    rig.revoke(1);
    rig.assign(1, 0);
    rig.run(3000);
    assert_eq!(rig.moved(reader).map(|m| m.node.as_str()), Some("n0"));
    assert_eq!(rig.closed(reader), [0; 0], "the client goes by itself");
    rig.run(10_000);
    assert_eq!(rig.closed(reader), [3000], "or is closed later");
}

/// Rule 21: a node sleeps for longer than its tombstone stays, and so does a copy of its item that was on its way.
fn a_forgotten_node_wakes(off: Option<Rule>) -> (Rig, String) {
    let mut rig = Rig::new(&[0, 1], off);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let sender = rig.connect(0, &alice);
    rig.road = Box::new(|_, record| match record {
        Record::Confirm(_) => Road::Lost,
        _ => Road::Goes,
    });
    rig.say(sender, &bob, "m1");
    rig.run(100);
    assert_eq!((rig.logged(&bob), rig.told(sender, "m1")), (vec!["m1".to_owned()], vec![""; 0]));
    rig.freeze(0);
    rig.revoke(0);
    rig.assign(0, 1);
    rig.road = Box::new(|_, _| Road::Goes);
    rig.tick_ms = 1000;
    rig.run(HALF_A_DAY_MS + 3_600_000);
    rig.tick_ms = 50;
    rig.forget(0);
    rig.run(2000);
    let item = |(_, from, _, record): &(u64, usize, usize, Record)| {
        (*from == 0 && matches!(record, Record::Item(_))).then(|| record.clone())
    };
    let copies: Vec<_> = rig.sent.iter().filter_map(item).collect();
    assert!(!copies.is_empty());
    for record in copies {
        rig.give(1, Input::Record(record));
    }
    rig.run(1000);
    rig.thaw(0);
    rig.run(3000);
    (rig, bob)
}

const HALF_A_DAY_MS: u64 = 43_200_000;

#[test]
fn a_forgotten_node_ends_and_nothing_of_it_becomes_a_second_message() {
    let (rig, bob) = a_forgotten_node_wakes(None);
    assert_eq!(rig.forgotten, [0]);
    assert!(rig.control.sid_of(&rig.nodes[0].sid().node()).is_none(), "it does not begin another life");
    let owned = rig.nodes[0].gauges(rig.clock()).owned;
    assert_eq!((owned, rig.nodes[0].has_unconfirmed()), (0, false));
    assert_eq!(rig.logged(&bob), ["m1"]);

    let (rig, bob) = a_forgotten_node_wakes(Some(Rule::Forgotten));
    assert_eq!((rig.forgotten.len(), rig.logged(&bob).len()), (0, 2), "the rule is needed");
}

/// A node that is just starting is in nobody's view yet: what it sends at once is taken.
#[test]
fn the_first_items_of_a_new_node_are_taken_before_it_is_seen() {
    let mut rig = Rig::new(&[0, 1], None);
    let bob = rig.user(1, 0);
    let new = rig.start(2, 0, &|_| {});
    rig.look(new);
    rig.run(20);
    let born = rig.nodes[new].sid().clone();
    assert!(rig.control.sid_of(&born.node()).is_some(), "registered");
    let sent = rig.sent.len();
    let alice = rig.user(0, 1);
    let sender = rig.connect(0, &alice);
    rig.say(sender, &bob, "m1");
    rig.run(100);
    let first = rig.sent[sent..].iter().find_map(|(_, from, _, record)| match record {
        Record::Item(item) if *from == 0 => Some(item.clone()),
        _ => None,
    });
    let mut item = first.expect("one was sent");
    item.channel.sid = born;
    item.n = 1;
    item.acked = 0;
    let void = rig.nodes[1].counters().void_records;
    rig.give(1, Input::Record(Record::Item(item)));
    assert_eq!(rig.nodes[1].counters().void_records, void);
}

/// An answer to what was asked before it registered under the present data set says nothing.
#[test]
fn a_node_that_registers_again_under_other_data_is_not_forgotten() {
    let mut rig = Rig::new(&[0, 1], None);
    let settling = rig.store_now() + LEASE_TTL_MS;
    rig.control = Default::default();
    rig.control.new_data_set(2, DataSet("d1".into()), settling);
    rig.run(3000);
    assert_eq!((rig.forgotten.len(), rig.replaced.len()), (0, 0));
    assert_eq!(rig.control.table(rig.store_now()).nodes.len(), 2);
}

/// Rule 21, with a successor whose clock is behind by `behind_ms`.
fn a_later_process_of_the_node_starts(behind_ms: u64) {
    let mut rig = Rig::new(&[0, 1], None);
    let bob = rig.user(1, 0);
    let reader = rig.connect(1, &bob);
    let later = rig.start(1, behind_ms, &|_| {});
    rig.run(1500);
    assert_eq!(rig.replaced, [1], "only a later one replaces, and the earlier one ends once");
    let owned = rig.nodes[1].gauges(rig.clock()).owned;
    assert_eq!(
        (owned, rig.nodes[1].has_unconfirmed()),
        (0, false),
        "it waits for nothing that is the other's"
    );
    rig.freeze(1);
    rig.run(8000);
    let row = rig.control.table(rig.store_now()).rows.values().find(|r| r.node().as_str() == "n1").cloned();
    assert_eq!(&row.unwrap().sid, rig.nodes[later].sid());
    let again = rig.connect(later, &bob);
    assert!(rig.is_welcome(again));
    assert_eq!(rig.inbox(reader), [""; 0]);
}

#[test]
fn a_later_process_of_a_node_replaces_the_earlier_one_even_if_its_clock_is_behind() {
    a_later_process_of_the_node_starts(0);
    a_later_process_of_the_node_starts(3_600_000);
}

/// Rule 27, with the home dead and nobody else in its place yet.
#[test]
fn nobody_is_sent_to_a_life_that_is_over() {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let sender = rig.connect(0, &alice);
    rig.freeze(1);
    rig.revoke(1);
    rig.run(1000);
    let reader = rig.connect(0, &bob);
    rig.run(1000);
    assert_eq!(rig.moved(reader), None, "n1 is dead, and n0 knows it");
    rig.assign(1, 0);
    rig.run(2000);
    assert!(rig.is_welcome(reader));
    rig.say(sender, &bob, "m1");
    rig.run(100);
    assert_eq!(rig.inbox(reader), ["m1"]);
}
