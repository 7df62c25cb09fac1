//! How rooms are joined, kept and left.

use roost_proto::frames::{InRoom, Join, RoomAt};
use roost_proto::limits::ROOMS_PER_SESSION_MAX;
use roost_proto::{ErrorCode, Json, RoomId};
use serde_json::value::to_raw_value;

use super::*;
use crate::signals::{Audience, Outgoing};

const NEVER: u64 = u64::MAX;

fn room(name: &str) -> RoomId {
    RoomId::new(name).unwrap()
}

fn told(name: &str, tail: u64, recovered: bool, replayed: u64) -> Value {
    json!({"room": name, "cursor": at(1, tail), "recovered": recovered, "replayed": replayed, "through": "p9"})
}

fn error(code: ErrorCode) -> Value {
    json!({"code": code.as_str(), "message": "", "retryable": code.retryable()})
}

fn said(name: &str, offset: u64) -> Value {
    json!({"type": "message", "stream": format!("room:{name}"), "generation": 1, "offset": offset,
        "id": format!("{name}{offset}"), "kind": "message", "from": "bob", "at": "", "data": {}})
}

fn welcome_with(node: &str, rooms: Value) -> Value {
    let mut frame = welcome(node, 5, true, 0);
    frame["rooms"] = rooms;
    frame
}

impl Harness {
    fn ask(&mut self, id: &str, name: &str, what: What) {
        let command = Command::within(MessageId::new(id).unwrap(), &room(name), what);
        self.step(Input::Command { command, ticket: 1, expires_ms: NEVER });
    }

    fn join(&mut self, id: &str, name: &str, presence: bool) {
        let at = RoomAt { room: room(name), cursor: None, presence, info: None };
        self.ask(id, name, What::Join(at));
    }

    fn leave(&mut self, id: &str, name: &str) {
        self.ask(id, name, What::Leave(room(name)));
    }

    fn reply(&mut self, conn: ConnId, id: &str, ok: Value) {
        self.frame(conn, json!({"type": "reply", "id": id, "ok": ok}));
    }

    fn refuse(&mut self, conn: ConnId, id: &str, code: ErrorCode) {
        self.frame(conn, json!({"type": "reply", "id": id, "error": error(code)}));
    }

    /// In `lobby`, at 3, over connection 2.
    fn in_lobby(presence: bool) -> Self {
        let mut h = Self::connected();
        h.join("j1", "lobby", presence);
        h.reply(2, "j1", told("lobby", 3, true, 0));
        assert!(matches!(h.actions.last(), Some(Action::Answer(1, Ok(_)))), "{:?}", h.actions);
        h.actions.clear();
        h
    }

    /// Loses connection 2 and gets connection 4 up to its `connect`.
    fn reconnect(&mut self) -> Connect {
        self.step(Input::Closed(2, None, String::new()));
        self.connect("ws://a", 3)
    }

    fn joins(&self, conn: ConnId) -> Vec<Join> {
        let join = |f| if let ClientFrame::Join(join) = f { Some(join) } else { None };
        self.written(conn).into_iter().filter_map(join).collect()
    }

    fn leaves(&self, conn: ConnId) -> Vec<InRoom> {
        let leave = |f| if let ClientFrame::Leave(leave) = f { Some(leave) } else { None };
        self.written(conn).into_iter().filter_map(leave).collect()
    }

    fn answers(&self) -> Vec<Result<(), SendError>> {
        let answer = |a: &Action| match a {
            Action::Answer(_, result) => Some(result.clone().map(|_| ())),
            _ => None,
        };
        self.actions.iter().filter_map(answer).collect()
    }
}

#[test]
fn a_room_is_kept_over_a_reconnect_with_the_cursor_of_what_was_received() {
    let mut h = Harness::in_lobby(false);
    h.frame(2, said("lobby", 4));
    h.frame(2, said("lobby", 5));
    assert!(h.actions.iter().all(|a| !matches!(a, Action::Deliver(Item { cursor: Some(_), .. }))));
    let connect = h.reconnect();
    let [RoomAt { room, cursor, .. }] = &connect.rooms[..] else { panic!("{connect:?}") };
    assert_eq!((room.as_str(), *cursor), ("lobby", Some(at(1, 5))));
    h.frame(4, welcome_with("a", json!([told("lobby", 7, true, 2)])));
    (6..=8).for_each(|offset| h.frame(4, said("lobby", offset)));
    assert_eq!(h.shown(), [4, 5, 6, 7, 8]);
    assert!(h.joins(4).is_empty());
}

#[test]
fn a_move_neither_loses_nor_doubles_what_a_room_says() {
    let mut h = Harness::in_lobby(false);
    h.frame(2, moved("ws://b", 4));
    h.frame(2, said("lobby", 4));
    h.wait(350);
    assert_eq!(h.open("ws://b").rooms[0].cursor, Some(at(1, 4)));
    h.frame(2, said("lobby", 5));
    h.frame(2, said("lobby", 6));
    h.frame(3, welcome_with("b", json!([told("lobby", 5, true, 1)])));
    h.frame(2, said("lobby", 7));
    (5..=7).for_each(|offset| h.frame(3, said("lobby", offset)));
    assert_eq!(h.shown(), [4, 5, 6, 7]);
    assert_eq!(h.closed(), [(2, 1000)]);
}

#[test]
fn what_a_room_cannot_replay_is_told_and_a_hole_is_not_passed_over() {
    let mut h = Harness::in_lobby(false);
    h.frame(2, said("lobby", 5));
    assert_eq!((h.shown().len(), h.closed()), (0, vec![(2, 1002)]));
    h.connect("ws://a", 3);
    h.frame(4, welcome_with("a", json!([told("lobby", 900, false, 0)])));
    h.frame(4, said("lobby", 901));
    let reset = json!({"type": "reset", "stream": "room:lobby", "cursor": at(1, 2000), "through": "p3"});
    h.frame(4, reset.clone());
    h.frame(4, reset);
    h.frame(4, said("lobby", 2001));
    let events: Vec<_> = h.events().into_iter().filter(|e| !matches!(e, Event::State { .. })).collect();
    let [
        Event::Gap { stream, from, cursor, through },
        Event::Message(_),
        Event::Reset { from: f, cursor: c, .. },
        Event::Message(_),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((stream.as_str(), *from, *cursor), ("room:lobby", Some(at(1, 3)), at(1, 900)));
    assert_eq!((through.as_deref(), *f, *c), (Some("p9"), Some(at(1, 901)), at(1, 2000)));
}

#[test]
fn a_room_that_is_refused_for_now_is_joined_again_and_one_refused_for_good_is_told() {
    let mut h = Harness::in_lobby(false);
    h.join("j2", "staff", false);
    h.reply(2, "j2", told("staff", 0, true, 0));
    h.reconnect();
    let now = json!({"room": "lobby", "error": error(ErrorCode::Unavailable)});
    let never = json!({"room": "staff", "error": error(ErrorCode::Forbidden)});
    h.frame(4, welcome_with("a", json!([now, never])));
    let lost = |e: &Event| matches!(e, Event::RoomLost { room, .. } if room.as_str() == "staff");
    assert_eq!(h.events().iter().filter(|e| lost(e)).count(), 1);
    let [join] = &h.joins(4)[..] else { panic!("{:?}", h.joins(4)) };
    assert_eq!((join.room.as_str(), join.cursor), ("lobby", Some(at(1, 3))));
    let id = join.id.to_string();
    h.refuse(4, &id, ErrorCode::Unavailable);
    h.wait(20_000);
    assert_eq!(h.joins(4).len(), 2, "with backoff, by itself");
    h.reply(4, &id, told("lobby", 4, true, 1));
    h.frame(4, said("lobby", 4));
    assert_eq!(h.shown(), [4]);
    h.refuse(4, &id, ErrorCode::Forbidden);
    assert!(
        h.events().iter().filter(|e| matches!(e, Event::RoomLost { .. })).count() == 1,
        "answered before"
    );
}

#[test]
fn a_join_of_its_own_ends_with_its_connection() {
    let mut h = Harness::in_lobby(false);
    h.reconnect();
    let now = json!([{"room": "lobby", "error": error(ErrorCode::Unavailable)}]);
    h.frame(4, welcome_with("a", now.clone()));
    h.step(Input::Closed(4, None, String::new()));
    assert_eq!(h.connect("ws://a", 3).rooms.len(), 1);
    h.frame(6, welcome_with("a", now));
    let [join] = &h.joins(6)[..] else { panic!("{:?}", h.joins(6)) };
    h.reply(6, &join.id.to_string(), told("lobby", 3, true, 0));
    assert_eq!(h.joins(6).len(), 1, "one for each connection that needs it");
}

#[test]
fn a_room_joined_over_the_old_connection_meanwhile_is_joined_over_the_new() {
    let mut h = Harness::connected();
    h.join("j1", "lobby", false);
    h.frame(2, moved("ws://b", 4));
    h.wait(350);
    assert!(h.open("ws://b").rooms.is_empty(), "it has no answer yet");
    h.reply(2, "j1", told("lobby", 3, true, 0));
    h.frame(2, said("lobby", 4));
    h.frame(3, welcome_with("b", json!([])));
    let [join] = &h.joins(3)[..] else { panic!("{:?}", h.joins(3)) };
    assert_eq!(join.cursor, Some(at(1, 4)));
}

#[test]
fn an_unanswered_join_is_repeated_under_its_id() {
    let mut h = Harness::connected();
    h.join("j1", "lobby", true);
    h.reconnect();
    h.frame(4, welcome("a", 5, true, 0));
    let [join] = &h.joins(4)[..] else { panic!("{:?}", h.joins(4)) };
    assert_eq!((join.id.as_str(), join.presence), ("j1", true));
}

#[test]
fn who_joins_again_shows_what_was_received_by_then() {
    let mut h = Harness::in_lobby(false);
    h.frame(2, said("lobby", 4));
    h.join("j2", "lobby", true);
    assert_eq!(h.joins(2)[0].cursor, Some(at(1, 4)));
    h.frame(2, said("lobby", 5));
    h.reply(2, "j2", told("lobby", 5, true, 1));
    h.frame(2, said("lobby", 5));
    h.frame(2, said("lobby", 6));
    assert_eq!(h.shown(), [4, 5, 6]);
    assert!(h.reconnect().rooms[0].presence, "what it changed is kept");
}

#[test]
fn with_a_fresh_token_every_room_is_joined_again_and_one_that_it_does_not_allow_is_told() {
    let mut h = Harness::in_lobby(true);
    h.frame(2, said("lobby", 4));
    h.refresh(2);
    let again = h.joins(2)[0].clone();
    assert_eq!((again.presence, again.cursor), (true, Some(at(1, 4))));
    h.reply(2, again.id.as_str(), told("lobby", 5, true, 1));
    h.frame(2, said("lobby", 5));
    assert_eq!(h.shown(), [4, 5]);
    h.refresh(2);
    let refused = h.joins(2)[1].id.to_string();
    h.refuse(2, &refused, ErrorCode::Forbidden);
    assert!(matches!(h.events().last(), Some(Event::RoomLost { room: r, .. }) if *r == room("lobby")));
    h.refresh(2);
    assert_eq!(h.joins(2).len(), 2, "what was lost is joined by the application");
    h.join("j2", "lobby", true);
    h.reply(2, "j2", told("lobby", 5, true, 0));
    h.frame(2, said("lobby", 6));
    assert_eq!(h.shown(), [4, 5, 6]);
}

#[test]
fn after_a_leave_nothing_is_shown_and_no_connection_names_the_room() {
    let mut h = Harness::in_lobby(false);
    h.frame(2, moved("ws://b", 4));
    h.wait(350);
    assert_eq!(h.open("ws://b").rooms.len(), 1);
    h.leave("l1", "lobby");
    h.frame(2, said("lobby", 4));
    h.frame(3, welcome_with("b", json!([told("lobby", 3, true, 0)])));
    h.frame(3, said("lobby", 4));
    assert!(h.shown().is_empty() && h.closed() == [(2, 1000)], "{:?}", h.closed());
    assert_eq!(h.leaves(3).len(), 1, "its own command does it");
    h.refuse(3, "l1", ErrorCode::NotFound);
    assert_eq!(h.answers(), [Ok(())], "who is not in the room has left it");
    h.step(Input::Closed(3, None, String::new()));
    assert!(h.connect("ws://b", 4).rooms.is_empty());
}

#[test]
fn a_room_left_without_a_connection_is_left_over_the_next_that_named_it() {
    let mut h = Harness::in_lobby(false);
    h.frame(2, moved("ws://b", 4));
    h.wait(350);
    assert_eq!(h.open("ws://b").rooms.len(), 1);
    let id = MessageId::new("l1").unwrap();
    let command = Command::within(id, &room("lobby"), What::Leave(room("lobby")));
    let expires_ms = h.now + 100;
    h.step(Input::Command { command, ticket: 1, expires_ms });
    h.wait(100);
    assert_eq!(h.answers(), [Err(SendError::NotSent)]);
    h.frame(3, welcome_with("b", json!([told("lobby", 3, true, 0)])));
    assert_eq!(h.leaves(3).len(), 1, "{:?}", h.written(3));
}

#[test]
fn a_leave_ends_a_join_that_waits() {
    let mut h = Harness::connected();
    h.join("j1", "lobby", false);
    h.refuse(2, "j1", ErrorCode::Unavailable);
    h.leave("l1", "lobby");
    assert_eq!(h.answers(), [Err(SendError::Left)]);
    assert_eq!(h.leaves(2).len(), 1, "it need not wait for the join");
    h.wait(20_000);
    assert_eq!(h.joins(2).len(), 1);
}

#[test]
fn rooms_that_everyone_joins_are_taken_on_until_they_are_left() {
    let mut h = Harness::new(false);
    h.connect("ws://a", 3);
    h.frame(2, welcome_with("a", json!([told("public", 7, true, 0)])));
    h.frame(2, said("public", 8));
    assert_eq!(h.shown(), [8]);
    let connect = h.reconnect();
    assert_eq!((connect.rooms[0].room.as_str(), connect.rooms[0].cursor), ("public", Some(at(1, 8))));
    h.frame(4, welcome_with("a", json!([told("public", 8, true, 0)])));
    h.leave("l1", "public");
    h.reply(4, "l1", json!({}));
    h.step(Input::Closed(4, None, String::new()));
    h.connect("ws://a", 3);
    h.frame(6, welcome_with("a", json!([told("public", 8, true, 0)])));
    h.frame(6, said("public", 9));
    assert_eq!((h.shown(), h.leaves(6).len()), (vec![8], 1), "it stays left");
}

#[test]
fn members_are_told_at_every_join_and_with_every_welcome() {
    let mut h = Harness::connected();
    h.join("j1", "lobby", true);
    let mut ok = told("lobby", 0, true, 0);
    ok["members"] = json!([{"user": "bob", "info": {"name": "Bob"}}]);
    h.reply(2, "j1", ok);
    h.frame(2, json!({"type": "member", "room": "lobby", "user": "carol", "change": "join"}));
    h.frame(2, json!({"type": "member", "room": "elsewhere", "user": "carol", "change": "join"}));
    h.reconnect();
    let mut now = told("lobby", 0, true, 0);
    now["member_count"] = json!(1200);
    h.frame(4, welcome_with("a", json!([now])));
    let events: Vec<_> = h.events().into_iter().filter(|e| !matches!(e, Event::State { .. })).collect();
    let [Event::Members { members: first, .. }, Event::Member { user, .. }, Event::Members { members, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    let info = first.listed.as_ref().unwrap()[0].info.as_ref().map(Json::get);
    assert_eq!((first.count, info), (1, Some(r#"{"name":"Bob"}"#)));
    assert_eq!(user.as_str(), "carol");
    assert_eq!((members.count, &members.listed), (1200, &None));
}

#[test]
fn a_connect_names_no_more_rooms_than_a_frame_holds_and_the_others_follow() {
    let mut h = Harness::connected();
    let info = Json::from(to_raw_value(&"x".repeat(1000)).unwrap());
    for i in 0..ROOMS_PER_SESSION_MAX {
        let name = format!("room-{i}");
        let at = RoomAt { room: room(&name), cursor: None, presence: true, info: Some(info.clone()) };
        h.ask(&format!("j{i}"), &name, What::Join(at));
        h.reply(2, &format!("j{i}"), told(&name, 0, true, 0));
    }
    h.actions.clear();
    h.join("more", "more", false);
    assert_eq!(h.answers(), [Err(SendError::TooManyRooms { max: ROOMS_PER_SESSION_MAX })]);
    let connect = h.reconnect();
    let bytes = ClientFrame::Connect(connect.clone()).to_json().len();
    assert!((60_000..=65_536).contains(&bytes), "{bytes}");
    let named: Vec<_> = connect.rooms.iter().map(|at| told(at.room.as_str(), 0, true, 0)).collect();
    h.frame(4, welcome_with("a", json!(named)));
    assert_eq!(connect.rooms.len() + h.joins(4).len(), ROOMS_PER_SESSION_MAX);
}

#[test]
fn signals_are_for_now_or_never() {
    let mut h = Harness::in_lobby(false);
    let signal = |text: &str| {
        let to = Audience::Room(room("lobby"));
        Input::Signal(Outgoing { to, kind: "cursor".into(), text: text.into() })
    };
    h.step(signal("1"));
    h.step(Input::Closed(2, None, String::new()));
    h.step(signal("2"));
    h.connect("ws://a", 3);
    h.frame(4, welcome_with("a", json!([told("lobby", 3, true, 0)])));
    let offered =
        |a: &Action| if let Action::Offer(c, text) = a { Some((*c, text.to_string())) } else { None };
    let offered: Vec<_> = h.actions.iter().filter_map(offered).collect();
    assert_eq!(offered, [(2, "1".to_owned())]);
    h.frame(4, json!({"type": "signal", "room": "lobby", "from": "bob", "kind": "typing", "data": true}));
    h.frame(4, json!({"type": "signal", "room": "left", "from": "bob", "kind": "typing", "data": true}));
    h.frame(4, json!({"type": "signal", "from": "bob", "kind": "typing", "data": true}));
    let signals = h.events().into_iter().filter(|e| matches!(e, Event::Signal(_)));
    assert_eq!(signals.count(), 2);
}
