//! What a session is told about its place: rules 25 and 26.

use roost_backend::store::DEVICES_KEPT;
use roost_backend::store::model::VnodeData;
use roost_proto::ids::{Cursor, Epoch, Offset};

use super::harness::Harness;

/// Ten sessions at home in each of the first three vnodes, which are node 0's; node 1 takes a hundred a second.
fn thirty_sessions(homes: &[usize]) -> (Harness, Vec<u64>) {
    let mut harness = Harness::with(homes, None, |cfg| cfg.accepts_per_s = 100);
    let users: Vec<String> = (0..30).map(|i| harness.user(i / 10, i % 10)).collect();
    let sessions = users.iter().map(|user| harness.connect(0, user)).collect();
    (harness, sessions)
}

/// The inbox of `bob`, at home on node 1, holds m1 to m5, of which m3 to m5 are in the hot window.
struct Inbox {
    harness: Harness,
    sender: u64,
    bob: String,
    generation: Epoch,
}

fn inbox_of_five() -> Inbox {
    let mut harness = Harness::with(&[0, 1], None, |cfg| cfg.credit = 2);
    harness.store.stream_max_len = 3;
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    for id in ["m1", "m2", "m3", "m4", "m5"] {
        harness.say(sender, &bob, id);
    }
    harness.run(1000);
    let generation = harness.data[1].head().unwrap().2;
    Inbox { harness, sender, bob, generation }
}

/// Whether it was recovered, how much was said to be replayed, and what came, up to the live m6.
fn connected_with(cursor: Option<(i64, u64)>, device: Option<&str>) -> (bool, u64, Vec<String>) {
    let Inbox { mut harness, sender, bob, generation } = inbox_of_five();
    let known = harness.connect_at(1, &bob, Some("known"), None);
    let acked = Cursor::new(generation, Offset(4));
    harness.ack(known, acked);
    harness.run(1000);
    harness.hang_up(known);
    let cursor = cursor.map(|(g, o)| Cursor::new(Epoch(generation.0.saturating_add_signed(g)), Offset(o)));
    let reader = harness.connect_at(1, &bob, device, cursor);
    harness.say(sender, &bob, "m6");
    harness.run(1000);
    let welcome = harness.welcome(reader);
    assert_eq!(welcome.cursor, Cursor::new(generation, Offset(5)));
    assert_eq!(welcome.through.as_deref(), (!welcome.recovered).then_some("1:5"));
    assert_eq!(harness.closed(reader), [0; 0]);
    (welcome.recovered, welcome.replayed, harness.inbox(reader))
}

#[test]
fn a_cursor_is_resumed_from_only_if_everything_after_it_is_there() {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let resumed = |all: &[&str]| (true, all.len() as u64 - 1, ids(all));
    let not_recovered = (false, 0, ids(&["m6"]));
    assert_eq!(connected_with(Some((0, 5)), Some("new")), resumed(&["m6"]));
    assert_eq!(connected_with(Some((0, 3)), Some("new")), resumed(&["m4", "m5", "m6"]));
    assert_eq!(connected_with(Some((0, 2)), None), resumed(&["m3", "m4", "m5", "m6"]));
    assert_eq!(connected_with(Some((0, 1)), None), not_recovered, "m2 has left the window");
    assert_eq!(connected_with(Some((0, 6)), None), not_recovered, "above the tail");
    assert_eq!(connected_with(Some((-1, 3)), None), not_recovered, "of another generation");
    assert_eq!(connected_with(Some((1, 3)), None), not_recovered, "of a later generation");
    assert_eq!(connected_with(None, Some("new")), resumed(&["m6"]), "a new device starts at the tail");
    assert_eq!(connected_with(None, None), resumed(&["m6"]));
    assert_eq!(connected_with(None, Some("known")), resumed(&["m5", "m6"]), "where it acked");
    assert_eq!(
        connected_with(Some((0, 3)), Some("known")),
        resumed(&["m4", "m5", "m6"]),
        "what it shows counts"
    );
}

/// Rule 25: it may have acknowledged m4, or nothing; that it starts at the end would be a silent gap.
#[test]
fn a_device_that_may_have_been_forgotten_is_not_recovered() {
    let Inbox { mut harness, bob, generation, .. } = inbox_of_five();
    let acked = Cursor::new(generation, Offset(4));
    for device in 0..=DEVICES_KEPT {
        let session = harness.connect_at(1, &bob, Some(&format!("d{device}")), None);
        harness.ack(session, acked);
        harness.run(1000);
        assert!(harness.welcome(session).recovered, "nothing was forgotten before");
        harness.hang_up(session);
    }
    let mut told = |device, cursor| {
        let session = harness.connect_at(1, &bob, device, cursor);
        harness.run(1000);
        let welcome = harness.welcome(session);
        let told = (welcome.recovered, welcome.replayed);
        assert_eq!(welcome.through.is_some(), !told.0);
        harness.hang_up(session);
        told
    };
    assert_eq!(told(Some("d0"), None), (false, 0), "used before the others");
    assert_eq!(told(Some("never-seen"), None), (false, 0), "nobody can tell the two apart");
    assert_eq!(told(Some("d0"), Some(acked)), (true, 1), "it knows itself where it is");
    assert_eq!(told(Some("d2"), None), (true, 1), "used later");
    assert_eq!(told(None, None), (true, 0), "without a device nothing was to be kept");
}

/// A live session takes two messages and no more, until `n` were sent.
fn a_live_session_is_slow(n: u64) -> (Vec<u16>, Vec<String>) {
    let Inbox { mut harness, sender, bob, .. } = inbox_of_five();
    let reader = harness.connect(1, &bob);
    harness.stalled.insert(reader);
    for i in 1..=n {
        harness.say(sender, &bob, &format!("n{i}"));
    }
    harness.run(1000);
    assert_eq!(harness.inbox(reader), ["n1", "n2"], "two are in flight to its socket");
    harness.drain(reader);
    harness.run(1000);
    (harness.closed(reader), harness.inbox(reader))
}

#[test]
fn a_live_session_that_fell_out_of_the_window_is_closed_and_nothing_is_skipped() {
    let sent = |n: u64| (1..=n).map(|i| format!("n{i}")).collect::<Vec<_>>();
    assert_eq!(a_live_session_is_slow(5), (vec![], sent(5)));
    assert_eq!(a_live_session_is_slow(6), (vec![3004], sent(2)));
}

#[test]
fn a_live_session_out_of_the_window_is_closed_when_its_home_comes_back() {
    let Inbox { mut harness, sender, bob, .. } = inbox_of_five();
    let (slow, quick) = (harness.connect(1, &bob), harness.connect(1, &bob));
    harness.stalled.insert(slow);
    for i in 1..=6 {
        harness.say(sender, &bob, &format!("n{i}"));
    }
    harness.run(1000);
    harness.control.expire_all_rows();
    harness.run(3000);
    assert_eq!(harness.closed(slow), [3004]);
    assert_eq!(
        (harness.closed(quick), harness.resets(quick).len(), harness.inbox(quick).len()),
        (vec![], 0, 6)
    );
}

/// Rule 26: the log does not have all of the stream yet when somebody comes who must read the history.
#[test]
fn through_is_told_only_when_the_log_has_everything_before_it() {
    let Inbox { mut harness, sender, bob, generation } = inbox_of_five();
    harness.no_log.insert(1);
    harness.say(sender, &bob, "m6");
    harness.run(100);
    let reader = harness.connect_at(1, &bob, None, Some(Cursor::new(generation, Offset(1))));
    harness.run(1000);
    assert!(!harness.is_welcome(reader), "m6 would be in neither");
    harness.say(sender, &bob, "m7");
    harness.run(100);
    harness.log_again();
    harness.run(100);
    let welcome = harness.welcome(reader);
    assert_eq!((welcome.recovered, welcome.cursor.offset), (false, Offset(6)));
    let known = harness.history_and_inbox(reader, &bob);
    assert_eq!(
        known.iter().filter(|id| *id == "m7").count(),
        2,
        "in the log by then, and live after the cursor"
    );
    assert_eq!(known[..6], ["m1", "m2", "m3", "m4", "m5", "m6"]);
}

#[test]
fn nobody_is_welcomed_with_a_gap_while_the_log_cannot_be_asked() {
    let Inbox { mut harness, bob, generation, .. } = inbox_of_five();
    harness.log_end_known = false;
    let reader = harness.connect_at(1, &bob, None, Some(Cursor::new(generation, Offset(1))));
    assert_eq!((harness.is_welcome(reader), harness.closed(reader)), (false, vec![1013]));
    let reader = harness.connect_at(1, &bob, None, Some(Cursor::new(generation, Offset(2))));
    assert!(harness.welcome(reader).recovered, "who needs no history needs no log");
}

#[test]
fn a_live_session_waits_for_its_reset_while_the_log_cannot_be_asked_without_hurry() {
    let Inbox { mut harness, sender, bob, .. } = inbox_of_five();
    let reader = harness.connect(1, &bob);
    harness.log_end_known = false;
    harness.data[1] = VnodeData::default();
    harness.say(sender, &bob, "m6");
    harness.run(3000);
    assert_eq!((harness.resets(reader).len(), harness.closed(reader)), (0, vec![]), "its socket stays");
    assert!(harness.log_end_asked <= 100, "asked {} times in 3 s", harness.log_end_asked);
    harness.log_end_known = true;
    harness.run(3000);
    assert_eq!((harness.resets(reader).len(), harness.closed(reader)), (1, vec![]));
}

/// P8: a session waits from when its home stops, so the next home stops when the sessions of the last one can go.
#[test]
fn no_home_stops_while_the_sessions_of_another_wait_for_their_new_one() {
    let (mut harness, sessions) = thirty_sessions(&[0, 0, 0, 1]);
    harness.freeze(1);
    (0..3).for_each(|v| harness.assign(v, 1));
    harness.run(3000);
    let held = |harness: &Harness| {
        let rows = harness.control.table(harness.store_now()).rows;
        rows.values().filter(|row| row.sid == *harness.nodes[0].sid()).count()
    };
    assert_eq!(held(&harness), 2, "one is given up, and nobody has taken it yet");
    harness.thaw(1);
    harness.run(3000);
    assert_eq!(held(&harness), 0);
    let waits: Vec<u64> = sessions.iter().map(|s| harness.moved(*s).unwrap().after_ms).collect();
    assert!(waits.iter().all(|ms| *ms <= 50 + 100), "those of one vnode, and a little: {waits:?}");
}

/// What a node takes is for all who hand over to it, and not for those who do not.
#[test]
fn who_hands_over_alone_sends_as_many_sessions_as_the_other_takes() {
    let spread_over = |homes: &[usize], moving: &[usize]| {
        let (mut harness, sessions) = thirty_sessions(homes);
        moving.iter().for_each(|v| harness.assign(*v, 1));
        // The others cannot give up what they should: they are still at it.
        (2..harness.nodes.len()).for_each(|node| harness.freeze(node));
        harness.run(3000);
        sessions[..10].iter().map(|s| harness.moved(*s).unwrap().after_ms).max().unwrap()
    };
    assert_eq!(spread_over(&[0, 0, 0, 1, 2, 3, 2, 3], &[0]), 100);
    assert_eq!(spread_over(&[0, 0, 0, 1, 2, 3, 2, 3], &[0, 4]), 200);
    assert_eq!(spread_over(&[0, 0, 0, 1, 2, 3, 2, 3], &[0, 4, 5]), 303, "33 a second");
}
