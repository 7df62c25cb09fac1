//! What nobody acknowledges: decision 13.

use std::cell::Cell;
use std::rc::Rc;

use roost_backend::store::{Op, Write};
use roost_ws_node::core::{Input, Rule};

use super::harness::{Harness, LEASE_TTL_MS, Reach};

/// As by default.
const AFTER_MS: u64 = 30_000;
const GRACE_MS: u64 = 20_000;

fn reported(harness: &Harness) -> Vec<String> {
    harness.undelivered.iter().map(|(_, message)| message.id.to_string()).collect()
}

/// The first write with such an operation takes effect, and its writer is not told.
fn untold(which: fn(&Op) -> bool) -> Box<dyn FnMut(&Write) -> Reach> {
    let mut done = false;
    Box::new(move |write| {
        let first = !done && write.ops.iter().any(which);
        done |= first;
        if first { Reach::Untold } else { Reach::Answered }
    })
}

/// Alice says `m1` to bob, whose phone at node 1 has it then: the phone's session.
fn m1_reaches_a_phone(harness: &mut Harness, say: fn(&mut Harness, u64, &str, &str)) -> u64 {
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    let session = harness.connect_at(1, &bob, Some("phone"), None);
    say(harness, sender, &bob, "m1");
    harness.run(500);
    session
}

/// The home of `bob`, who is not there, dies between an append and its time.
fn a_home_dies_with_something_due(off: Option<Rule>) -> Vec<String> {
    let mut harness = Harness::new(&[0, 1], off);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    harness.say(sender, &bob, "m1");
    harness.run(AFTER_MS / 2);
    harness.freeze(1);
    harness.revoke(1);
    harness.assign(1, 0);
    harness.run(LEASE_TTL_MS + AFTER_MS + GRACE_MS + 1000);
    harness.thaw(1);
    harness.run(AFTER_MS);
    reported(&harness)
}

#[test]
fn what_is_due_outlives_its_home_and_is_reported_once() {
    assert_eq!(a_home_dies_with_something_due(None), ["m1"]);
    assert_eq!(a_home_dies_with_something_due(Some(Rule::UnackedInherited)), [""; 0]);
}

#[test]
fn what_one_device_acknowledged_is_not_reported_and_another_device_still_gets_it() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    let phone = harness.connect_at(1, &bob, Some("phone"), None);
    let laptop = harness.connect_at(1, &bob, Some("laptop"), None);
    for id in ["m1", "m2", "m3"] {
        harness.say(sender, &bob, id);
        harness.run(100);
    }
    let mut second = harness.cursor(phone);
    second.offset.0 -= 1;
    harness.ack(phone, second);
    harness.run(AFTER_MS + 1000);
    assert_eq!(reported(&harness), ["m3"]);
    harness.hang_up(laptop);
    harness.hang_up(phone);
    let laptop = harness.connect_at(1, &bob, Some("laptop"), None);
    let phone = harness.connect_at(1, &bob, Some("phone"), None);
    harness.run(100);
    assert_eq!(harness.inbox(phone), ["m3"], "each resumes at its own");
    assert_eq!(harness.inbox(laptop), [""; 0], "without an ack there is nothing to resume from");
}

#[test]
fn a_session_without_a_device_and_a_shown_cursor_acknowledge_too() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    let session = harness.connect(1, &bob);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.ack(session, harness.cursor(session));
    harness.say(sender, &bob, "m2");
    harness.run(100);
    let cursor = harness.cursor(session);
    harness.hang_up(session);
    harness.run(AFTER_MS / 2);
    harness.connect_at(1, &bob, None, Some(cursor));
    harness.run(2 * AFTER_MS);
    assert_eq!(reported(&harness), [""; 0]);
}

/// A planned handover takes what was acknowledged just before with it.
#[test]
fn what_was_acknowledged_before_a_handover_stays_so() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    let session = harness.connect_at(1, &bob, Some("phone"), None);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.ack(session, harness.cursor(session));
    harness.assign(1, 0);
    harness.look(1);
    harness.run(AFTER_MS + GRACE_MS + 5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    assert_eq!(reported(&harness), [""; 0]);
}

/// The report is written, and nobody is told: written again it finds nothing.
#[test]
fn a_report_of_unknown_outcome_is_made_once() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    harness.say(sender, &bob, "m1");
    harness.run(1000);
    harness.writes = untold(|op| matches!(op, Op::Undelivered { .. }));
    harness.run(AFTER_MS + 5000);
    assert_eq!(reported(&harness), ["m1"]);
}

/// An append lands without its writer being told, and is found by its id: it is due like any other.
#[test]
fn what_landed_untold_is_due_too() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    harness.writes = untold(|op| matches!(op, Op::Append(_)));
    harness.say(sender, &bob, "m1");
    harness.run(AFTER_MS + 5000);
    assert_eq!(reported(&harness), ["m1"]);
}

#[test]
fn switched_off_nothing_is_reported() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| cfg.undelivered_after_ms = 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    harness.say(sender, &harness.user(1, 0), "m1");
    harness.run(AFTER_MS);
    assert_eq!(reported(&harness), [""; 0]);
    assert!(harness.data[1].all_due().is_empty());
}

/// The store stands still for longer than the lease; bob acknowledges so long after, and leaves: what is reported, and
/// whether the sender got the receipt it asked for.
fn acknowledged_without_a_home(off: Option<Rule>, after_ms: u64) -> (Vec<String>, bool) {
    let mut harness = Harness::new(&[0, 1], off);
    let alice = harness.user(0, 0);
    let session = m1_reaches_a_phone(&mut harness, Harness::say_with_receipt);
    harness.no_store = [0, 1].into();
    harness.run(after_ms);
    harness.ack(session, harness.cursor(session));
    harness.run(300);
    harness.hang_up(session);
    harness.run(2 * LEASE_TTL_MS - after_ms);
    harness.no_store.clear();
    harness.run(AFTER_MS + GRACE_MS + 5000);
    let receipt = harness.logged(&alice).iter().any(|id| id.starts_with("delivered-"));
    (reported(&harness), receipt)
}

#[test]
fn who_acknowledges_and_leaves_while_there_is_no_home_has_acknowledged() {
    for after_ms in [100, LEASE_TTL_MS / 2, LEASE_TTL_MS - 100, LEASE_TTL_MS + 2000] {
        assert_eq!(acknowledged_without_a_home(None, after_ms), (vec![], true), "{after_ms}");
        let off = acknowledged_without_a_home(Some(Rule::AcksKept), after_ms);
        assert_eq!(off, (vec!["m1".into()], false), "{after_ms}");
    }
}

/// A cursor that was shown just before counts, too.
#[test]
fn a_cursor_shown_just_before_the_store_stood_still_has_acknowledged() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let session = m1_reaches_a_phone(&mut harness, Harness::say);
    let cursor = harness.cursor(session);
    harness.hang_up(session);
    harness.run(500);
    let session = harness.connect_at(1, &bob, Some("phone"), Some(cursor));
    assert!(harness.is_welcome(session));
    harness.no_store = [0, 1].into();
    harness.run(LEASE_TTL_MS + 1000);
    harness.hang_up(session);
    harness.no_store.clear();
    harness.run(AFTER_MS + GRACE_MS + 5000);
    assert_eq!(reported(&harness), [""; 0]);
}

/// The next home is another node's: it is told, and so is its successor, if it ends before it has written that.
#[test]
fn a_home_elsewhere_hears_what_was_acknowledged_and_its_successor_too() {
    for first_dies in [false, true] {
        let mut harness = Harness::new(&[0, 1, 2, 0], None);
        let session = m1_reaches_a_phone(&mut harness, Harness::say);
        harness.no_store.insert(1);
        harness.run(LEASE_TTL_MS / 2);
        harness.ack(session, harness.cursor(session));
        harness.run(100);
        harness.hang_up(session);
        harness.assign(1, 0);
        if first_dies {
            harness.writes = Box::new(|write| {
                if write.ops.iter().any(|op| matches!(op, Op::Ack { .. })) {
                    Reach::Late
                } else {
                    Reach::Answered
                }
            });
        }
        harness.run(LEASE_TTL_MS + 4000);
        assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
        if first_dies {
            harness.freeze(0);
            harness.revoke(0);
            harness.assign(1, 2);
            harness.writes = Box::new(|_| Reach::Answered);
        }
        harness.no_store.clear();
        harness.run(LEASE_TTL_MS + AFTER_MS + 2 * GRACE_MS);
        assert_eq!(reported(&harness), [""; 0], "{first_dies}");
    }
}

/// After a loss of the data the places count anew.
#[test]
fn an_acknowledgement_of_a_generation_that_is_over_settles_nothing_in_the_next() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    let session = harness.connect_at(1, &bob, Some("phone"), None);
    for id in ["m1", "m2", "m3"] {
        harness.say(sender, &bob, id);
        harness.run(100);
    }
    harness.no_store = [0, 1].into();
    harness.run(LEASE_TTL_MS + 2000);
    harness.ack(session, harness.cursor(session));
    harness.run(100);
    harness.hang_up(session);
    harness.wipe();
    harness.assign(0, 0);
    harness.assign(1, 1);
    harness.no_store.clear();
    harness.run(5 * LEASE_TTL_MS);
    harness.say(sender, &bob, "m4");
    harness.run(AFTER_MS + GRACE_MS + 5000);
    assert_eq!(reported(&harness), ["m4"]);
    let user = roost_proto::UserId::new(&bob).unwrap();
    assert_eq!(harness.data[1].acked_by_any(&user), None, "nor does the device's cursor say so");
}

/// What a client says of an outage of the store that began when it had `m1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Acked,
    Read,
    /// Nothing; it comes back afterwards and shows where it is.
    Shows,
}

/// The store restarts with its data, longer than a lease after it was last heard: streams begin anew, and what was due
/// and wanted then is so still.
#[test]
fn what_was_due_before_the_store_restarted_is_settled_by_what_was_said_meanwhile() {
    for says in [Says::Acked, Says::Read, Says::Shows] {
        let mut harness = Harness::new(&[0, 1], None);
        let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
        let session = m1_reaches_a_phone(&mut harness, Harness::say_with_receipt);
        harness.no_store = [0, 1].into();
        harness.run(LEASE_TTL_MS + 2000);
        let cursor = harness.cursor(session);
        match says {
            Says::Acked => harness.ack(session, cursor),
            Says::Read => harness.read(session, cursor),
            Says::Shows => {}
        }
        harness.run(100);
        harness.hang_up(session);
        harness.another_data_set();
        harness.no_store.clear();
        harness.run(3 * LEASE_TTL_MS);
        assert!(harness.data[1].head().unwrap().2 > cursor.generation, "streams began anew");
        if says == Says::Shows {
            let session = harness.connect_at(1, &bob, Some("phone"), Some(cursor));
            assert!(!harness.welcome(session).recovered);
        }
        harness.run(AFTER_MS + GRACE_MS + 5000);
        assert_eq!(reported(&harness), [""; 0], "{says:?}");
        let told = |what| harness.logged(&alice).iter().any(|id| id.starts_with(what));
        assert_eq!((told("delivered-"), told("read-")), (true, says == Says::Read), "{says:?}");
        let user = roost_proto::UserId::new(&bob).unwrap();
        assert_eq!(harness.data[1].acked_by_any(&user), None, "it is no place of a device");
        let later = harness.connect(1, &bob);
        assert_eq!(harness.welcome(later).read, None, "nor one that was read up to");
    }
}

/// P8: a node that stops has handed its vnode over, and the next home is not ready when something is acknowledged: it
/// waits for that home to hear it.
#[test]
fn a_node_that_stops_says_first_what_was_acknowledged() {
    let mut harness = Harness::new(&[0, 1], None);
    let session = m1_reaches_a_phone(&mut harness, Harness::say);
    harness.no_store.insert(0);
    harness.give(1, Input::Drain);
    harness.assign(1, 0);
    harness.run(2000);
    assert!(harness.nodes[1].is_empty_handed());
    harness.ack(session, harness.cursor(session));
    harness.hang_up(session);
    let until = harness.now + LEASE_TTL_MS;
    harness.no_store.clear();
    while harness.nodes[1].has_unconfirmed() && harness.now < until {
        harness.run(50);
    }
    assert!(harness.now < until, "and not for longer");
    harness.freeze(1);
    harness.run(AFTER_MS + GRACE_MS + 5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    assert_eq!(reported(&harness), [""; 0]);
}

/// The next home hears it and dies before it has written that; the node that keeps it cannot read the table for longer
/// than the grace, and still believes that home to be ready.
#[test]
fn what_is_kept_is_not_forgotten_while_the_table_is_old() {
    let mut harness = Harness::new(&[0, 1, 2, 0], None);
    let session = m1_reaches_a_phone(&mut harness, Harness::say);
    harness.no_store.insert(1);
    harness.run(LEASE_TTL_MS + 500);
    harness.ack(session, harness.cursor(session));
    harness.hang_up(session);
    let acks = |write: &Write| write.ops.iter().any(|op| matches!(op, Op::Ack { .. }));
    harness.writes = Box::new(move |write| if acks(write) { Reach::Late } else { Reach::Answered });
    harness.assign(1, 0);
    harness.no_store.clear();
    harness.run(4000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    assert!(!harness.nodes[1].has_unconfirmed(), "it has heard it");
    harness.no_store.insert(1);
    harness.freeze(0);
    harness.revoke(0);
    harness.writes = Box::new(|_| Reach::Answered);
    harness.run(GRACE_MS + 2000);
    harness.assign(1, 2);
    harness.run(2000);
    harness.no_store.clear();
    harness.run(AFTER_MS + GRACE_MS + 5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n2");
    assert_eq!(reported(&harness), [""; 0]);
}

/// All of a message is in the answer to a report, so reports weigh as much.
#[test]
fn what_is_reported_in_one_write_is_as_large_as_a_write() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let sender = harness.connect(0, &harness.user(0, 0));
    let large = format!("\"{}\"", "x".repeat(60_000));
    for n in 0..12 {
        harness.say_this(sender, &bob, &format!("m{n}"), &large);
        harness.run(20);
    }
    let most = Rc::new(Cell::new(0));
    let seen = Rc::clone(&most);
    harness.writes = Box::new(move |write| {
        let reports = write.ops.iter().filter(|op| matches!(op, Op::Undelivered { .. }));
        seen.set(seen.get().max(reports.count()));
        Reach::Answered
    });
    harness.run(AFTER_MS + 2000);
    assert_eq!(reported(&harness).len(), 12);
    assert_eq!(most.get(), 5, "a quarter of a megabyte, and what goes beyond it");
}
