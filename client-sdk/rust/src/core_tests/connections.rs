//! How connections come and go.

use super::*;

#[test]
fn connect_names_the_token_the_epoch_and_the_cursor() {
    let mut h = Harness::new(false);
    let connect = h.connect("ws://a/socket", 3);
    assert_eq!(connect.token.as_deref(), Some("token"));
    assert_eq!((connect.epoch, connect.cursor), (Some(Epoch(3)), Some(at(1, 5))));
    assert_eq!(h.core.state, State::Connecting);
}

#[test]
fn a_stormed_node_is_connected_to_when_it_said_so() {
    let mut h = Harness::new(false);
    let route = Route { url: "ws://a".into(), epoch: Epoch(3), connect_after_ms: 400 };
    h.step(Input::Routed(h.routing(), Ok(route)));
    h.actions.clear();
    h.wait(399);
    assert!(!h.opens());
    assert_eq!(h.core.wake_ms(), 400);
    h.wait(1);
    assert_eq!(h.opening().1, "ws://a");
}

#[test]
fn a_bad_token_fails_at_once_without_a_callback() {
    let mut h = Harness::new(false);
    h.send("x1");
    h.connect("ws://a", 3);
    h.step(Input::Closed(2, Some(3500), "expired".into()));
    assert!(matches!(h.failure(), Failure::BadToken(_)));
    assert!(h.actions.iter().any(|a| matches!(a, Action::Answer(1, Err(SendError::Closed { sent: false })))));
    assert!(matches!(h.actions.last(), Some(Action::End)));
    h.actions.clear();
    h.send("x2");
    assert!(matches!(h.actions[..], [Action::Answer(1, Err(SendError::Closed { sent: false }))]));
}

#[test]
fn a_bad_token_is_replaced_once_by_a_fresh_one() {
    let mut h = Harness::new(true);
    h.connect("ws://a", 3);
    assert!(!h.opening().2);
    h.step(Input::Closed(2, Some(3500), String::new()));
    h.connect("ws://a", 3);
    assert!(h.opening().2);
    h.frame(4, welcome("a", 5, true, 0));
    h.step(Input::Closed(4, Some(3501), String::new()));
    h.connect("ws://a", 3);
    assert!(h.opening().2, "after a welcome it may be asked again");
    h.step(Input::Closed(6, Some(3501), String::new()));
    assert!(matches!(h.failure(), Failure::BadToken(_)));
}

fn expiring(in_ms: u64) -> Value {
    json!({"type": "token_expiring", "in_ms": in_ms})
}

#[test]
fn a_token_that_ends_soon_is_replaced_while_connected() {
    let mut h = Harness::new(true);
    h.connect("ws://a", 3);
    h.frame(2, welcome("a", 5, true, 0));
    h.actions.clear();
    h.frame(2, expiring(60_000));
    assert!(matches!(h.actions[..], [Action::Token(2)]));
    h.step(Input::Token(2, Ok("fresh".into())));
    let written = h.written(2);
    let [ClientFrame::Refresh(refresh)] = &written[..] else { panic!("no refresh but {written:?}") };
    assert_eq!(refresh.token, "fresh");
    h.frame(2, json!({"type": "reply", "id": refresh.id, "ok": {}}));
    assert!(h.core.state.is_connected() && h.core.refreshing.is_none());
    h.actions.clear();
    h.step(Input::Token(2, Err("the callback failed".into())));
    h.frame(2, expiring(1_000));
    h.step(Input::Token(2, Ok("of another user".into())));
    let id = h.core.refreshing.clone().unwrap();
    let error = json!({"code": "unauthorized", "message": "no", "retryable": false});
    h.frame(2, json!({"type": "reply", "id": id, "error": error}));
    assert!(h.core.state.is_connected(), "the old token goes on to its end");
    h.step(Input::Closed(2, Some(3501), String::new()));
    h.connect("ws://a", 3);
    assert!(h.opening().2, "and then a fresh one is asked for");
}

#[test]
fn a_fresh_token_for_a_connection_that_is_left_is_not_written_to_it() {
    let mut h = Harness::new(true);
    h.connect("ws://a", 3);
    h.frame(2, welcome("a", 5, true, 0));
    h.frame(2, expiring(60_000));
    h.frame(2, moved("ws://b", 4));
    h.actions.clear();
    h.step(Input::Token(2, Ok("fresh".into())));
    assert!(h.written(2).is_empty());
}

#[test]
fn without_a_callback_the_application_is_told_that_the_token_ends() {
    let mut h = Harness::connected();
    h.frame(2, expiring(60_000));
    assert!(matches!(h.events()[..], [Event::TokenExpiring { in_ms: 60_000 }]));
}

#[test]
fn the_range_of_a_close_code_decides() {
    for (code, comes_back) in
        [(3001, true), (3499, true), (1012, true), (1009, false), (3503, false), (3999, false)]
    {
        let mut h = Harness::connected();
        h.step(Input::Closed(2, Some(code), "because".into()));
        if comes_back {
            assert_eq!(h.core.state, State::Reconnecting, "{code}");
            h.connect("ws://a", 3);
        } else {
            assert_eq!(h.failure(), Failure::Closed { code, reason: "because".into() });
        }
    }
}

#[test]
fn waits_grow_until_a_connection_lasted() {
    let mut h = Harness::new(false);
    let mut longest = 0;
    for _ in 0..20 {
        h.step(Input::Routed(h.routing(), Err(Trouble::retry("refused"))));
        let wait = h.core.wake_ms() - h.now;
        assert!(wait <= 20_000);
        longest = longest.max(wait);
        h.wait(wait);
    }
    assert!(longest > 5_000, "{longest}");
    for (lasts_ms, limit) in [(9_999, 20_000), (10_000, 250)] {
        h.connect("ws://a", 3);
        let conn = h.opening().0;
        h.frame(conn, welcome("a", 5, true, 0));
        h.now += lasts_ms;
        h.step(Input::Closed(conn, None, String::new()));
        assert!(h.core.wake_ms() - h.now <= limit);
    }
    h.wait(250);
    h.step(Input::Routed(
        h.routing(),
        Err(Trouble::Retry { after_ms: 3_000, cause: Cause::NotNow, why: String::new() }),
    ));
    assert!(h.core.wake_ms() - h.now >= 3_000, "Retry-After is respected");
}

#[test]
fn silence_is_a_dead_connection_unless_nothing_is_read() {
    let mut h = Harness::connected();
    h.wait(34_999);
    h.step(Input::Heard(2));
    h.wait(34_999);
    assert!(h.core.state.is_connected());
    h.step(Input::Paused(true));
    h.wait(100_000);
    h.step(Input::Paused(false));
    h.wait(34_999);
    assert!(h.core.state.is_connected());
    h.wait(1);
    assert_eq!(h.core.state, State::Reconnecting);
    assert_eq!(h.closed(), [(2, 1002)]);
}

#[test]
fn an_answer_is_owed_only_while_it_is_read() {
    let mut h = Harness::connected();
    h.send("x1");
    h.step(Input::Paused(true));
    h.wait(60_000);
    h.step(Input::Paused(false));
    h.step(Input::Heard(2));
    assert!(h.core.state.is_connected());
    h.wait(29_999);
    assert!(h.core.state.is_connected());
    h.step(Input::Heard(2));
    h.wait(1);
    assert_eq!(h.core.state, State::Reconnecting);
}

#[test]
fn no_new_try_begins_while_the_application_is_behind() {
    let mut h = Harness::connected();
    h.step(Input::Paused(true));
    h.step(Input::Closed(2, None, String::new()));
    h.wait(60_000);
    assert!(!h.opens());
    h.step(Input::Paused(false));
    assert!(h.opens());
}

#[test]
fn a_welcome_that_does_not_come_is_not_waited_for() {
    let mut h = Harness::new(false);
    h.connect("ws://a", 3);
    h.wait(15_000);
    assert_eq!(h.closed(), [(2, 1002)]);
    h.connect("ws://a", 3);
}

#[test]
fn an_error_in_place_of_the_welcome_is_obeyed() {
    let reply = |code, retryable| {
        let error = json!({"code": code, "message": "", "retryable": retryable, "retry_after_ms": 700});
        json!({"type": "reply", "id": null, "error": error})
    };
    let mut h = Harness::new(false);
    h.connect("ws://a", 3);
    h.frame(2, reply("unavailable", true));
    assert!(h.core.wake_ms() - h.now >= 700);
    h.connect("ws://a", 3);
    h.frame(4, reply("forbidden", false));
    assert_eq!(h.failure(), Failure::Refused { status: 403, message: String::new() });
}

#[test]
fn a_server_that_says_nothing_is_asked_before_it_is_given_up() {
    let mut h = Harness::new(true);
    h.connect("ws://a", 3);
    h.frame(2, welcome("a", 5, true, 0));
    h.actions.clear();
    h.wait(29_999);
    assert!(h.written(2).is_empty(), "the server asks whom it does not hear");
    h.wait(1);
    assert!(matches!(h.written(2)[..], [ClientFrame::Ping(_)]), "it does not ask whom it hears");
    h.frame(2, json!({"type": "pong"}));
    h.actions.clear();
    h.wait(30_000);
    assert!(matches!(h.written(2)[..], [ClientFrame::Ping(_)]), "once in each silence");
    h.wait(5_000);
    assert!(!h.core.state.is_connected(), "35 s of silence");
}
