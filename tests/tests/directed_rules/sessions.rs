//! What a session is told about its place: rules 25 and 26.

use roost_backend::store::DEVICES_KEPT;
use roost_backend::store::model::VnodeData;
use roost_proto::ids::{Cursor, Epoch, Offset};

use super::rig::Rig;

/// Ten sessions at home in each of the first three vnodes, which are node 0's; node 1 takes a hundred a second.
fn thirty_sessions(homes: &[usize]) -> (Rig, Vec<u64>) {
    let mut rig = Rig::with(homes, None, |cfg| cfg.accepts_per_s = 100);
    let users: Vec<String> = (0..30).map(|i| rig.user(i / 10, i % 10)).collect();
    let sessions = users.iter().map(|user| rig.connect(0, user)).collect();
    (rig, sessions)
}

/// The inbox of `bob`, at home on node 1, holds m1 to m5, of which m3 to m5 are in the hot window.
struct Inbox {
    rig: Rig,
    sender: u64,
    bob: String,
    generation: Epoch,
}

fn inbox_of_five() -> Inbox {
    let mut rig = Rig::with(&[0, 1], None, |cfg| cfg.credit = 2);
    rig.store.stream_max_len = 3;
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let sender = rig.connect(0, &alice);
    for id in ["m1", "m2", "m3", "m4", "m5"] {
        rig.say(sender, &bob, id);
    }
    rig.run(1000);
    let generation = rig.data[1].head().unwrap().2;
    Inbox { rig, sender, bob, generation }
}

/// Whether it was recovered, how much was said to be replayed, and what came, up to the live m6.
fn connected_with(cursor: Option<(i64, u64)>, device: Option<&str>) -> (bool, u64, Vec<String>) {
    let Inbox { mut rig, sender, bob, generation } = inbox_of_five();
    let known = rig.connect_at(1, &bob, Some("known"), None);
    let acked = Cursor::new(generation, Offset(4));
    rig.ack(known, acked);
    rig.run(1000);
    rig.hang_up(known);
    let cursor = cursor.map(|(g, o)| Cursor::new(Epoch(generation.0.saturating_add_signed(g)), Offset(o)));
    let reader = rig.connect_at(1, &bob, device, cursor);
    rig.say(sender, &bob, "m6");
    rig.run(1000);
    let welcome = rig.welcome(reader);
    assert_eq!(welcome.cursor, Cursor::new(generation, Offset(5)));
    assert_eq!(welcome.through.as_deref(), (!welcome.recovered).then_some("1:5"));
    assert_eq!(rig.closed(reader), [0; 0]);
    (welcome.recovered, welcome.replayed, rig.inbox(reader))
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
    let Inbox { mut rig, bob, generation, .. } = inbox_of_five();
    let acked = Cursor::new(generation, Offset(4));
    for device in 0..=DEVICES_KEPT {
        let session = rig.connect_at(1, &bob, Some(&format!("d{device}")), None);
        rig.ack(session, acked);
        rig.run(1000);
        assert!(rig.welcome(session).recovered, "nothing was forgotten before");
        rig.hang_up(session);
    }
    let mut told = |device, cursor| {
        let session = rig.connect_at(1, &bob, device, cursor);
        rig.run(1000);
        let welcome = rig.welcome(session);
        let told = (welcome.recovered, welcome.replayed);
        assert_eq!(welcome.through.is_some(), !told.0);
        rig.hang_up(session);
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
    let Inbox { mut rig, sender, bob, .. } = inbox_of_five();
    let reader = rig.connect(1, &bob);
    rig.stalled.insert(reader);
    for i in 1..=n {
        rig.say(sender, &bob, &format!("n{i}"));
    }
    rig.run(1000);
    assert_eq!(rig.inbox(reader), ["n1", "n2"], "two are in flight to its socket");
    rig.drain(reader);
    rig.run(1000);
    (rig.closed(reader), rig.inbox(reader))
}

#[test]
fn a_live_session_that_fell_out_of_the_window_is_closed_and_nothing_is_skipped() {
    let sent = |n: u64| (1..=n).map(|i| format!("n{i}")).collect::<Vec<_>>();
    assert_eq!(a_live_session_is_slow(5), (vec![], sent(5)));
    assert_eq!(a_live_session_is_slow(6), (vec![3004], sent(2)));
}

#[test]
fn a_live_session_out_of_the_window_is_closed_when_its_home_comes_back() {
    let Inbox { mut rig, sender, bob, .. } = inbox_of_five();
    let (slow, quick) = (rig.connect(1, &bob), rig.connect(1, &bob));
    rig.stalled.insert(slow);
    for i in 1..=6 {
        rig.say(sender, &bob, &format!("n{i}"));
    }
    rig.run(1000);
    rig.control.expire_all_rows();
    rig.run(3000);
    assert_eq!(rig.closed(slow), [3004]);
    assert_eq!((rig.closed(quick), rig.resets(quick).len(), rig.inbox(quick).len()), (vec![], 0, 6));
}

/// Rule 26: the log does not have all of the stream yet when somebody comes who must read the history.
#[test]
fn through_is_told_only_when_the_log_has_everything_before_it() {
    let Inbox { mut rig, sender, bob, generation } = inbox_of_five();
    rig.no_log.insert(1);
    rig.say(sender, &bob, "m6");
    rig.run(100);
    let reader = rig.connect_at(1, &bob, None, Some(Cursor::new(generation, Offset(1))));
    rig.run(1000);
    assert!(!rig.is_welcome(reader), "m6 would be in neither");
    rig.say(sender, &bob, "m7");
    rig.run(100);
    rig.log_again();
    rig.run(100);
    let welcome = rig.welcome(reader);
    assert_eq!((welcome.recovered, welcome.cursor.offset), (false, Offset(6)));
    let known = rig.history_and_inbox(reader, &bob);
    assert_eq!(
        known.iter().filter(|id| *id == "m7").count(),
        2,
        "in the log by then, and live after the cursor"
    );
    assert_eq!(known[..6], ["m1", "m2", "m3", "m4", "m5", "m6"]);
}

#[test]
fn nobody_is_welcomed_with_a_gap_while_the_log_cannot_be_asked() {
    let Inbox { mut rig, bob, generation, .. } = inbox_of_five();
    rig.log_end_known = false;
    let reader = rig.connect_at(1, &bob, None, Some(Cursor::new(generation, Offset(1))));
    assert_eq!((rig.is_welcome(reader), rig.closed(reader)), (false, vec![1013]));
    let reader = rig.connect_at(1, &bob, None, Some(Cursor::new(generation, Offset(2))));
    assert!(rig.welcome(reader).recovered, "who needs no history needs no log");
}

#[test]
fn a_live_session_waits_for_its_reset_while_the_log_cannot_be_asked_without_hurry() {
    let Inbox { mut rig, sender, bob, .. } = inbox_of_five();
    let reader = rig.connect(1, &bob);
    rig.log_end_known = false;
    rig.data[1] = VnodeData::default();
    rig.say(sender, &bob, "m6");
    rig.run(3000);
    assert_eq!((rig.resets(reader).len(), rig.closed(reader)), (0, vec![]), "its socket stays");
    assert!(rig.log_end_asked <= 100, "asked {} times in 3 s", rig.log_end_asked);
    rig.log_end_known = true;
    rig.run(3000);
    assert_eq!((rig.resets(reader).len(), rig.closed(reader)), (1, vec![]));
}

/// P8: a session waits from when its home stops, so the next home stops when the sessions of the last one can go.
#[test]
fn no_home_stops_while_the_sessions_of_another_wait_for_their_new_one() {
    let (mut rig, sessions) = thirty_sessions(&[0, 0, 0, 1]);
    rig.freeze(1);
    (0..3).for_each(|v| rig.assign(v, 1));
    rig.run(3000);
    let held = |rig: &Rig| {
        let rows = rig.control.table(rig.store_now()).rows;
        rows.values().filter(|row| row.sid == *rig.nodes[0].sid()).count()
    };
    assert_eq!(held(&rig), 2, "one is given up, and nobody has taken it yet");
    rig.thaw(1);
    rig.run(3000);
    assert_eq!(held(&rig), 0);
    let waits: Vec<u64> = sessions.iter().map(|s| rig.moved(*s).unwrap().after_ms).collect();
    assert!(waits.iter().all(|ms| *ms <= 50 + 100), "those of one vnode, and a little: {waits:?}");
}

/// What a node takes is for all who hand over to it, and not for those who do not.
#[test]
fn who_hands_over_alone_sends_as_many_sessions_as_the_other_takes() {
    let spread_over = |homes: &[usize], moving: &[usize]| {
        let (mut rig, sessions) = thirty_sessions(homes);
        moving.iter().for_each(|v| rig.assign(*v, 1));
        // The others cannot give up what they should: they are still at it.
        (2..rig.nodes.len()).for_each(|node| rig.freeze(node));
        rig.run(3000);
        sessions[..10].iter().map(|s| rig.moved(*s).unwrap().after_ms).max().unwrap()
    };
    assert_eq!(spread_over(&[0, 0, 0, 1, 2, 3, 2, 3], &[0]), 100);
    assert_eq!(spread_over(&[0, 0, 0, 1, 2, 3, 2, 3], &[0, 4]), 200);
    assert_eq!(spread_over(&[0, 0, 0, 1, 2, 3, 2, 3], &[0, 4, 5]), 303, "33 a second");
}
