//! Receipts and what was read: decision 13.

use roost_proto::events::Receipt;
use roost_proto::frames::{ChosenStatus, ServerFrame};
use roost_proto::ids::Cursor;
use roost_proto::records::Record;
use roost_ws_node::core::Rule;

use super::harness::{Harness, LEASE_TTL_MS, Road};

/// The receipts in the log for a user, in order.
fn receipts(harness: &Harness, user: &str) -> Vec<String> {
    let inbox = format!("user:{user}");
    let to = harness.chat.iter().flatten().filter(|(_, m)| m.stream.as_str() == inbox);
    let receipts = to.filter_map(|(_, m)| m.receipt());
    let told = receipts.map(|receipt| {
        let what = if matches!(receipt, Receipt::Read { .. }) { "read" } else { "delivered" };
        let ids: Vec<_> = receipt.ids().iter().map(ToString::to_string).collect();
        format!("{what} {}", ids.join(" "))
    });
    told.collect()
}

/// What a session was told of how far its user has read.
fn reads(harness: &Harness, session: u64) -> Vec<Cursor> {
    let of = harness.frames.iter().filter(|(s, _)| *s == session);
    of.filter_map(|(_, f)| if let ServerFrame::Read(read) = f { Some(read.cursor) } else { None }).collect()
}

/// `bob` at node 1 has three messages of `alice` at node 0, who wants receipts of the first and the last.
fn three_messages(off: Option<Rule>) -> (Harness, String, String, u64, u64) {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    let reader = harness.connect_at(1, &bob, Some("phone"), None);
    harness.say_with_receipt(sender, &bob, "m1");
    harness.say(sender, &bob, "m2");
    harness.say_with_receipt(sender, &bob, "m3");
    harness.run(100);
    (harness, alice, bob, sender, reader)
}

#[test]
fn a_sender_is_told_once_what_was_delivered_and_what_was_read() {
    let (mut harness, alice, bob, sender, reader) = three_messages(None);
    let all = harness.cursor(reader);
    let first = Cursor { offset: roost_proto::Offset(1), ..all };
    harness.run(5000);
    assert_eq!(receipts(&harness, &alice), [""; 0], "sent to a session is not delivered");
    harness.ack(reader, first);
    harness.run(1000);
    harness.ack(reader, all);
    harness.run(1000);
    harness.ack(reader, all);
    harness.read(reader, all);
    harness.run(1000);
    harness.read(reader, all);
    let again = harness.connect_at(1, &bob, Some("laptop"), Some(all));
    harness.run(5000);
    assert_eq!(receipts(&harness, &alice), ["delivered m1", "delivered m3", "read m1 m3"]);
    assert_eq!(harness.inbox(sender).len(), 3, "in her inbox like any message");
    assert!(harness.is_welcome(again));
}

/// Rule 13: the log takes nothing of the reader's home for a while. Should that home lose its data now, nobody would ever
/// find what the reader has.
fn what_is_not_in_the_log_is_acknowledged(off: Option<Rule>) -> (Harness, String, u64) {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    let reader = harness.connect_at(1, &bob, Some("phone"), None);
    harness.no_log.insert(1);
    harness.say_with_receipt(sender, &bob, "m1");
    harness.run(100);
    harness.ack(reader, harness.cursor(reader));
    harness.run(2000);
    assert_eq!((harness.inbox(reader), harness.logged(&bob)), (vec!["m1".to_owned()], vec![]));
    (harness, alice, sender)
}

#[test]
fn what_is_not_in_the_log_was_not_delivered_yet() {
    let (mut harness, alice, sender) = what_is_not_in_the_log_is_acknowledged(None);
    assert_eq!((receipts(&harness, &alice), harness.told(sender, "m1")), (vec![], vec![]));
    harness.log_again();
    harness.run(100);
    assert_eq!(
        (receipts(&harness, &alice), harness.told(sender, "m1")),
        (vec!["delivered m1".into()], vec!["ok"])
    );
    let (harness, alice, _) = what_is_not_in_the_log_is_acknowledged(Some(Rule::ConfirmAfterLog));
    assert_eq!(receipts(&harness, &alice), ["delivered m1"]);
}

/// The receipt is in the store, and its home dies before the sender's home has heard of it.
fn a_home_dies_with_a_receipt_on_its_way(off: Option<Rule>) -> Vec<String> {
    let (mut harness, alice, _, _, reader) = three_messages(off);
    harness.road = Box::new(|from, record| match record {
        Record::Item(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
    harness.ack(reader, harness.cursor(reader));
    harness.run(1000);
    harness.freeze(1);
    harness.revoke(1);
    harness.assign(1, 0);
    harness.run(2 * LEASE_TTL_MS);
    harness.clear_road();
    harness.thaw(1);
    harness.run(2 * LEASE_TTL_MS);
    receipts(&harness, &alice)
}

#[test]
fn a_receipt_outlives_its_home_and_comes_once() {
    assert_eq!(a_home_dies_with_a_receipt_on_its_way(None), ["delivered m1 m3"]);
    assert_eq!(a_home_dies_with_a_receipt_on_its_way(Some(Rule::UnackedInherited)), [""; 0]);
}

/// The sender's home got the receipt, and the reader's dies before it hears so: its successor sends it again.
#[test]
fn a_receipt_that_is_sent_again_is_found_by_its_id() {
    let (mut harness, alice, _, _, reader) = three_messages(None);
    harness.road = Box::new(|from, record| match record {
        Record::Confirm(_) if from == 0 => Road::Lost,
        _ => Road::Goes,
    });
    harness.ack(reader, harness.cursor(reader));
    harness.run(1000);
    assert_eq!(receipts(&harness, &alice), ["delivered m1 m3"]);
    harness.freeze(1);
    harness.revoke(1);
    harness.assign(1, 0);
    harness.run(2 * LEASE_TTL_MS);
    assert_eq!(receipts(&harness, &alice), ["delivered m1 m3"]);
    let head = harness.data[1].head().unwrap();
    assert_eq!(head.1.node().as_str(), "n0");
    assert!(harness.data[1].all_owed().is_empty(), "and it is done with");
}

#[test]
fn of_an_invisible_user_there_are_no_receipts_until_it_is_seen_again() {
    let (mut harness, alice, bob, sender, reader) = three_messages(None);
    harness.choose(reader, ChosenStatus::Invisible, "s1");
    harness.run(500);
    harness.ack(reader, harness.cursor(reader));
    harness.read(reader, harness.cursor(reader));
    harness.run(5000);
    assert_eq!(receipts(&harness, &alice), [""; 0]);
    harness.choose(reader, ChosenStatus::Online, "s2");
    harness.say_with_receipt(sender, &bob, "m4");
    harness.run(500);
    harness.ack(reader, harness.cursor(reader));
    harness.run(1000);
    assert_eq!(receipts(&harness, &alice), ["delivered m1 m3 m4"]);
}

/// The store stands still for longer than the lease; so long after that bob, who is invisible, acknowledges and reads, and
/// leaves. The next home, here or elsewhere, may hear of that when it does not know him any more.
#[test]
fn what_an_invisible_user_said_without_a_home_yields_no_receipt_either() {
    for (after_ms, next, late_ms) in [
        (100, 1, 0),
        (LEASE_TTL_MS + 2000, 1, 0),
        (100, 0, 0),
        (LEASE_TTL_MS / 2, 0, 0),
        (100, 0, 60_000),
        (LEASE_TTL_MS / 2, 0, 60_000),
    ] {
        let (mut harness, alice, bob, sender, reader) = three_messages(None);
        harness.choose(reader, ChosenStatus::Invisible, "s1");
        harness.run(500);
        harness.no_store.insert(1);
        if late_ms > 0 {
            harness.road = Box::new(|from, record| match record {
                Record::Item(_) if from == 1 => Road::Lost,
                _ => Road::Goes,
            });
        }
        harness.run(after_ms);
        harness.read(reader, harness.cursor(reader));
        harness.run(100);
        harness.hang_up(reader);
        harness.assign(1, next);
        harness.run(2 * LEASE_TTL_MS);
        harness.no_store.clear();
        harness.run(late_ms);
        harness.road = Box::new(|_, _| Road::Goes);
        harness.run(4 * LEASE_TTL_MS);
        assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), format!("n{next}"));
        assert_eq!(receipts(&harness, &alice), [""; 0], "{after_ms} {next} {late_ms}");
        assert_eq!(
            harness.undelivered.is_empty(),
            late_ms == 0,
            "{after_ms} {next} {late_ms}: it is acknowledged"
        );
        let reader = harness.connect_at(next, &bob, Some("phone"), None);
        harness.choose(reader, ChosenStatus::Online, "s2");
        harness.say_with_receipt(sender, &bob, "m4");
        harness.run(500);
        harness.ack(reader, harness.cursor(reader));
        harness.run(1000);
        assert_eq!(receipts(&harness, &alice), ["delivered m1 m3 m4"], "{after_ms} {next} {late_ms}");
    }
}

#[test]
fn what_one_device_read_the_others_are_told_and_who_comes_later_too() {
    let (mut harness, _, bob, _, phone) = three_messages(None);
    let laptop = harness.connect_at(1, &bob, Some("laptop"), None);
    let all = harness.cursor(phone);
    let first = Cursor { offset: roost_proto::Offset(1), ..all };
    for cursor in [first, all, first] {
        harness.read(phone, cursor);
        harness.run(300);
    }
    assert_eq!((reads(&harness, phone), reads(&harness, laptop)), (vec![], vec![first, all]));
    let tablet = harness.connect_at(1, &bob, Some("tablet"), None);
    assert_eq!((harness.welcome(tablet).read, reads(&harness, tablet)), (Some(all), vec![]));
    // What is read is acknowledged, by that device.
    harness.hang_up(phone);
    let phone = harness.connect_at(1, &bob, Some("phone"), None);
    assert_eq!(harness.welcome(phone).replayed, 0);
    harness.read(laptop, Cursor { offset: roost_proto::Offset(99), ..all });
    harness.run(300);
    assert_eq!(reads(&harness, phone), [], "nobody reads what was not sent to it");
}
