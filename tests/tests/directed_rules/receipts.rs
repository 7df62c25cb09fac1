//! Receipts and what was read: decision 13.

use roost_proto::events::Receipt;
use roost_proto::frames::{ChosenStatus, ServerFrame};
use roost_proto::ids::Cursor;
use roost_proto::records::Record;
use roost_ws_node::core::Rule;

use super::rig::{LEASE_TTL_MS, Rig, Road};

/// The receipts in the log for a user, in order.
fn receipts(rig: &Rig, user: &str) -> Vec<String> {
    let inbox = format!("user:{user}");
    let to = rig.chat.iter().flatten().filter(|(_, m)| m.stream.as_str() == inbox);
    let receipts = to.filter_map(|(_, m)| m.receipt());
    let told = receipts.map(|receipt| {
        let what = if matches!(receipt, Receipt::Read { .. }) { "read" } else { "delivered" };
        let ids: Vec<_> = receipt.ids().iter().map(ToString::to_string).collect();
        format!("{what} {}", ids.join(" "))
    });
    told.collect()
}

/// What a session was told of how far its user has read.
fn reads(rig: &Rig, session: u64) -> Vec<Cursor> {
    let of = rig.frames.iter().filter(|(s, _)| *s == session);
    of.filter_map(|(_, f)| if let ServerFrame::Read(read) = f { Some(read.cursor) } else { None }).collect()
}

/// `bob` at node 1 has three messages of `alice` at node 0, who wants receipts of the first and the last.
fn three_messages(off: Option<Rule>) -> (Rig, String, String, u64, u64) {
    let mut rig = Rig::new(&[0, 1], off);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let sender = rig.connect(0, &alice);
    let reader = rig.connect_at(1, &bob, Some("phone"), None);
    rig.say_with_receipt(sender, &bob, "m1");
    rig.say(sender, &bob, "m2");
    rig.say_with_receipt(sender, &bob, "m3");
    rig.run(100);
    (rig, alice, bob, sender, reader)
}

#[test]
fn a_sender_is_told_once_what_was_delivered_and_what_was_read() {
    let (mut rig, alice, bob, sender, reader) = three_messages(None);
    let all = rig.cursor(reader);
    let first = Cursor { offset: roost_proto::Offset(1), ..all };
    rig.run(5000);
    assert_eq!(receipts(&rig, &alice), [""; 0], "sent to a session is not delivered");
    rig.ack(reader, first);
    rig.run(1000);
    rig.ack(reader, all);
    rig.run(1000);
    rig.ack(reader, all);
    rig.read(reader, all);
    rig.run(1000);
    rig.read(reader, all);
    let again = rig.connect_at(1, &bob, Some("laptop"), Some(all));
    rig.run(5000);
    assert_eq!(receipts(&rig, &alice), ["delivered m1", "delivered m3", "read m1 m3"]);
    assert_eq!(rig.inbox(sender).len(), 3, "in her inbox like any message");
    assert!(rig.is_welcome(again));
}

/// The receipt is in the store, and its home dies before the sender's home has heard of it.
fn a_home_dies_with_a_receipt_on_its_way(off: Option<Rule>) -> Vec<String> {
    let (mut rig, alice, _, _, reader) = three_messages(off);
    rig.road = Box::new(|from, record| match record {
        Record::Item(_) if from == 1 => Road::Held,
        _ => Road::Goes,
    });
    rig.ack(reader, rig.cursor(reader));
    rig.run(1000);
    rig.freeze(1);
    rig.revoke(1);
    rig.assign(1, 0);
    rig.run(2 * LEASE_TTL_MS);
    rig.clear_road();
    rig.thaw(1);
    rig.run(2 * LEASE_TTL_MS);
    receipts(&rig, &alice)
}

#[test]
fn a_receipt_outlives_its_home_and_comes_once() {
    assert_eq!(a_home_dies_with_a_receipt_on_its_way(None), ["delivered m1 m3"]);
    assert_eq!(a_home_dies_with_a_receipt_on_its_way(Some(Rule::UnackedInherited)), [""; 0]);
}

/// The sender's home got the receipt, and the reader's dies before it hears so: its successor sends it again.
#[test]
fn a_receipt_that_is_sent_again_is_found_by_its_id() {
    let (mut rig, alice, _, _, reader) = three_messages(None);
    rig.road = Box::new(|from, record| match record {
        Record::Confirm(_) if from == 0 => Road::Lost,
        _ => Road::Goes,
    });
    rig.ack(reader, rig.cursor(reader));
    rig.run(1000);
    assert_eq!(receipts(&rig, &alice), ["delivered m1 m3"]);
    rig.freeze(1);
    rig.revoke(1);
    rig.assign(1, 0);
    rig.run(2 * LEASE_TTL_MS);
    assert_eq!(receipts(&rig, &alice), ["delivered m1 m3"]);
    let head = rig.data[1].head().unwrap();
    assert_eq!(head.1.node().as_str(), "n0");
    assert!(rig.data[1].all_owed().is_empty(), "and it is done with");
}

#[test]
fn of_an_invisible_user_there_are_no_receipts_until_it_is_seen_again() {
    let (mut rig, alice, bob, sender, reader) = three_messages(None);
    rig.choose(reader, ChosenStatus::Invisible, "s1");
    rig.run(500);
    rig.ack(reader, rig.cursor(reader));
    rig.read(reader, rig.cursor(reader));
    rig.run(5000);
    assert_eq!(receipts(&rig, &alice), [""; 0]);
    rig.choose(reader, ChosenStatus::Online, "s2");
    rig.say_with_receipt(sender, &bob, "m4");
    rig.run(500);
    rig.ack(reader, rig.cursor(reader));
    rig.run(1000);
    assert_eq!(receipts(&rig, &alice), ["delivered m1 m3 m4"]);
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
        let (mut rig, alice, bob, sender, reader) = three_messages(None);
        rig.choose(reader, ChosenStatus::Invisible, "s1");
        rig.run(500);
        rig.no_store.insert(1);
        if late_ms > 0 {
            rig.road = Box::new(|from, record| match record {
                Record::Item(_) if from == 1 => Road::Lost,
                _ => Road::Goes,
            });
        }
        rig.run(after_ms);
        rig.read(reader, rig.cursor(reader));
        rig.run(100);
        rig.hang_up(reader);
        rig.assign(1, next);
        rig.run(2 * LEASE_TTL_MS);
        rig.no_store.clear();
        rig.run(late_ms);
        rig.road = Box::new(|_, _| Road::Goes);
        rig.run(4 * LEASE_TTL_MS);
        assert_eq!(rig.data[1].head().unwrap().1.node().as_str(), format!("n{next}"));
        assert_eq!(receipts(&rig, &alice), [""; 0], "{after_ms} {next} {late_ms}");
        assert_eq!(
            rig.undelivered.is_empty(),
            late_ms == 0,
            "{after_ms} {next} {late_ms}: it is acknowledged"
        );
        let reader = rig.connect_at(next, &bob, Some("phone"), None);
        rig.choose(reader, ChosenStatus::Online, "s2");
        rig.say_with_receipt(sender, &bob, "m4");
        rig.run(500);
        rig.ack(reader, rig.cursor(reader));
        rig.run(1000);
        assert_eq!(receipts(&rig, &alice), ["delivered m1 m3 m4"], "{after_ms} {next} {late_ms}");
    }
}

#[test]
fn what_one_device_read_the_others_are_told_and_who_comes_later_too() {
    let (mut rig, _, bob, _, phone) = three_messages(None);
    let laptop = rig.connect_at(1, &bob, Some("laptop"), None);
    let all = rig.cursor(phone);
    let first = Cursor { offset: roost_proto::Offset(1), ..all };
    for cursor in [first, all, first] {
        rig.read(phone, cursor);
        rig.run(300);
    }
    assert_eq!((reads(&rig, phone), reads(&rig, laptop)), (vec![], vec![first, all]));
    let tablet = rig.connect_at(1, &bob, Some("tablet"), None);
    assert_eq!((rig.welcome(tablet).read, reads(&rig, tablet)), (Some(all), vec![]));
    // What is read is acknowledged, by that device.
    rig.hang_up(phone);
    let phone = rig.connect_at(1, &bob, Some("phone"), None);
    assert_eq!(rig.welcome(phone).replayed, 0);
    rig.read(laptop, Cursor { offset: roost_proto::Offset(99), ..all });
    rig.run(300);
    assert_eq!(reads(&rig, phone), [], "nobody reads what was not sent to it");
}
