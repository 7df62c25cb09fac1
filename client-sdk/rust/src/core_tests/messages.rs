//! What is shown, and how far it counts as read.

use super::*;

#[test]
fn a_hole_between_messages_is_answered_by_resuming_from_the_cursor() {
    let mut h = Harness::connected();
    h.frame(2, message(6));
    h.step(Input::Ack(at(1, 6)));
    h.frame(2, message(8));
    assert_eq!(h.shown(), [6]);
    assert_eq!(h.closed(), [(2, 1002)]);
    assert_eq!(h.connect("ws://a", 3).cursor, Some(at(1, 6)));
}

#[test]
fn a_cursor_shown_is_never_ahead_of_the_application() {
    let mut h = Harness::connected();
    for offset in 6..10 {
        h.frame(2, message(offset));
    }
    h.step(Input::Ack(at(1, 7)));
    assert!(matches!(h.written(2)[..], [ClientFrame::Ack(_)]));
    h.step(Input::Closed(2, None, String::new()));
    assert_eq!(h.connect("ws://a", 3).cursor, Some(at(1, 7)));
    h.frame(4, welcome("a", 10, true, 3));
    for offset in 8..11 {
        h.frame(4, message(offset));
    }
    assert_eq!(h.shown(), [6, 7, 8, 9, 10]);
    h.step(Input::Ack(at(1, 99)));
    assert!(
        matches!(h.actions.last(), Some(Action::Cursor(Some(c))) if *c == at(1, 7)),
        "{:?}",
        h.actions.last()
    );
}

#[test]
fn what_is_missed_is_told() {
    let mut h = Harness::new(false);
    h.connect("ws://a", 3);
    h.frame(2, welcome("a", 900, false, 0));
    h.frame(2, message(901));
    let reset = json!({"type": "reset", "stream": "user:alice", "cursor": at(2, 0), "through": "p1"});
    h.frame(2, reset);
    let events = h.events();
    let [
        ..,
        Event::Gap { from, cursor, through, .. },
        Event::Message(_),
        Event::Reset { from: f, cursor: c, .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((*from, *cursor, through.as_deref()), (Some(at(1, 5)), at(1, 900), Some("p0")));
    assert_eq!((*f, *c), (Some(at(1, 901)), at(2, 0)));
}

#[test]
fn the_inbox_of_somebody_else_is_not_taken() {
    let mut h = Harness::new(false);
    h.connect("ws://a", 3);
    let mut other = welcome("a", 5, true, 0);
    other["user"] = json!("mallory");
    h.frame(2, other);
    assert!(matches!(h.failure(), Failure::OtherUser { .. }));
}

#[test]
fn what_was_read_is_told_until_the_server_knows_it() {
    let mut h = Harness::connected();
    for offset in 6..9 {
        h.frame(2, message(offset));
    }
    for offset in [7, 6, 99] {
        h.step(Input::Read(at(1, offset)));
    }
    assert!(matches!(&h.written(2)[..], [ClientFrame::Read(read)] if read.cursor == at(1, 7)));
    h.step(Input::Closed(2, None, String::new()));
    h.connect("ws://a", 3);
    h.frame(4, welcome("a", 8, true, 3));
    assert!(matches!(&h.written(4)[..], [.., ClientFrame::Read(read)] if read.cursor == at(1, 7)));
    for offset in [7, 8, 8] {
        h.frame(4, json!({"type": "read", "cursor": at(1, offset)}));
    }
    let news: Vec<_> = h
        .events()
        .into_iter()
        .filter_map(|e| if let Event::Read { cursor } = e { Some(cursor) } else { None })
        .collect();
    assert_eq!(news, [at(1, 8)], "what another device said, once");
}

#[test]
fn a_close_writes_the_last_ack_and_ends() {
    let mut h = Harness::connected();
    for offset in 6..9 {
        h.frame(2, message(offset));
    }
    h.step(Input::Ack(at(1, 6)));
    h.step(Input::Ack(at(1, 8)));
    h.step(Input::Close);
    let acks: Vec<_> = h.written(2);
    assert!(
        matches!(&acks[..], [ClientFrame::Ack(_), ClientFrame::Ack(a)] if a.cursor == at(1, 8)),
        "{acks:?}"
    );
    assert_eq!(h.closed(), [(2, 1000)]);
    assert_eq!(h.core.state, State::Disconnected);
    assert!(matches!(h.actions.last(), Some(Action::End)));
}
