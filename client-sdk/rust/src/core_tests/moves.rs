//! How home moves.

use super::*;

#[test]
fn a_move_makes_the_new_connection_before_it_breaks_the_old() {
    let mut h = Harness::connected();
    h.send("x1");
    h.frame(2, moved("ws://b/socket", 4));
    h.actions.clear();
    h.send("x2");
    h.frame(2, message(6));
    h.frame(2, json!({"type": "ping"}));
    assert!(matches!(h.written(2)[..], [ClientFrame::Pong(_)]), "nothing new over the old one");
    assert!(!h.opens());
    h.wait(350);
    h.step(Input::Ack(at(1, 6)));
    let connect = h.open("ws://b/socket");
    assert_eq!((connect.epoch, connect.cursor), (Some(Epoch(4)), Some(at(1, 6))));
    h.frame(2, message(7));
    h.frame(2, json!({"type": "reply", "id": "x1", "ok": {"at": "then"}}));
    assert!(h.closed().is_empty() && h.core.state.is_connected());
    h.frame(3, welcome("b", 8, true, 2));
    assert_eq!(h.closed(), [(2, 1000)]);
    h.frame(2, message(8));
    h.frame(3, message(7));
    h.frame(3, message(8));
    assert_eq!(h.shown(), [6, 7, 8]);
    let repeated = h.written(3);
    assert!(matches!(&repeated[1..], [ClientFrame::Send(s)] if s.id.as_str() == "x2"), "{repeated:?}");
    assert!(matches!(&h.core.state, State::Connected { node, .. } if node.as_str() == "b"));
    assert!(!h.events().iter().any(|e| matches!(e, Event::State { current: State::Reconnecting, .. })));
}

#[test]
fn a_move_to_a_node_that_does_not_answer_goes_back_to_the_coordinator() {
    let mut h = Harness::connected();
    h.frame(2, moved("ws://b/socket", 4));
    h.wait(350);
    let (conn, ..) = h.opening();
    h.step(Input::Opened(conn, Err(Trouble::retry("refused"))));
    assert!(h.closed().is_empty(), "the old one still delivers");
    h.frame(2, message(6));
    h.connect("ws://c/socket", 5);
    h.frame(5, welcome("c", 6, true, 1));
    assert_eq!(h.closed(), [(2, 1000)]);
    assert_eq!(h.shown(), [6]);
}

#[test]
fn an_older_move_does_not_replace_a_newer_one() {
    let mut h = Harness::connected();
    h.frame(2, moved("ws://c", 5));
    h.frame(2, moved("ws://b", 4));
    h.wait(350);
    assert_eq!(h.opening().1, "ws://c");
    h.frame(2, moved("ws://d", 6));
    h.wait(350);
    assert_eq!(h.opening().1, "ws://d");
    h.step(Input::Opened(3, Ok("token".into())));
    assert!(h.closed().contains(&(3, 1000)), "what was abandoned is closed when it opens");
}

#[test]
fn nodes_that_send_the_client_in_circles_are_left_for_the_coordinator() {
    let mut h = Harness::new(false);
    h.connect("ws://a", 3);
    for (conn, epoch) in [(2, 4), (3, 5), (4, 6)] {
        h.frame(conn, moved("ws://b", epoch));
        h.wait(350);
        h.open("ws://b");
    }
    h.actions.clear();
    h.frame(5, moved("ws://b", 7));
    h.wait(20_000);
    h.routing();
}
