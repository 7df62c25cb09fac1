//! Whom a client watches, over connections.

use roost_proto::frames::OfUsers;
use roost_proto::{ErrorCode, UserId};

use super::*;

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| UserId::new(name).unwrap()).collect()
}

fn shown(user: &str, status: &str) -> Value {
    json!({"user": user, "status": status, "since": "then", "last_seen": null})
}

impl Harness {
    fn order_watch(&mut self, id: &str, what: What) {
        let command = Command { id: MessageId::new(id).unwrap(), lane: OrderingKey::Watch, what };
        self.step(Input::Command { command, ticket: 1, expires_ms: u64::MAX });
    }

    fn is_shown(&mut self, conn: ConnId, user: &str, status: &str) {
        let mut frame = shown(user, status);
        frame["type"] = json!("presence");
        self.frame(conn, frame);
    }

    fn answer_watch(&mut self, conn: ConnId, id: &str, all: &[(&str, &str)]) {
        let all: Vec<_> = all.iter().map(|(user, status)| shown(user, status)).collect();
        self.frame(conn, json!({"type": "reply", "id": id, "ok": {"users": all}}));
    }

    fn watches(&self, conn: ConnId) -> Vec<OfUsers> {
        let watch = |frame| if let ClientFrame::Watch(watch) = frame { Some(watch) } else { None };
        self.written(conn).into_iter().filter_map(watch).collect()
    }

    fn presences(&self) -> Vec<(String, String)> {
        let told = |event| if let Event::Presence(told) = event { told } else { Vec::new() };
        let status = |status| serde_json::to_value(status).unwrap().as_str().unwrap().to_owned();
        let told = self.events().into_iter().flat_map(told);
        told.map(|presence| (presence.user.to_string(), status(presence.status))).collect()
    }

    /// Watches bob (online) and carol (away) over connection 2.
    fn watching() -> Self {
        let mut h = Self::connected();
        h.order_watch("w1", What::Watch(users(&["bob", "carol"])));
        h.is_shown(2, "bob", "away");
        h.answer_watch(2, "w1", &[("bob", "online"), ("carol", "away")]);
        assert_eq!(h.presences(), [pair("bob", "online"), pair("carol", "away")]);
        h.actions.clear();
        h
    }

    /// Loses connection 2 and is welcomed over connection 4.
    fn welcomed_again(&mut self) {
        self.step(Input::Closed(2, None, String::new()));
        self.connect("ws://a", 3);
        self.frame(4, welcome("a", 5, true, 0));
    }
}

fn pair(user: &str, status: &str) -> (String, String) {
    (user.to_owned(), status.to_owned())
}

#[test]
fn who_is_watched_is_watched_again_and_only_what_differs_is_told() {
    let mut h = Harness::watching();
    h.is_shown(2, "carol", "online");
    h.welcomed_again();
    let [again] = &h.watches(4)[..] else { panic!("{:?}", h.written(4)) };
    assert_eq!(again.users, users(&["bob", "carol"]));
    let id = again.id.to_string();
    h.answer_watch(4, &id, &[("bob", "offline"), ("carol", "online")]);
    h.is_shown(4, "bob", "online");
    assert_eq!(h.presences(), [pair("carol", "online"), pair("bob", "offline"), pair("bob", "online")]);
}

#[test]
fn nothing_is_told_of_who_is_not_watched_any_more() {
    let mut h = Harness::watching();
    h.order_watch("w2", What::Watch(users(&["dave"])));
    h.order_watch("u1", What::Unwatch(users(&["bob", "dave"])));
    h.is_shown(2, "bob", "away");
    h.answer_watch(2, "w2", &[("dave", "online")]);
    h.is_shown(2, "dave", "away");
    assert_eq!(h.presences(), []);
    h.frame(2, json!({"type": "reply", "id": "u1", "ok": {}}));
    h.welcomed_again();
    assert_eq!(h.watches(4)[0].users, users(&["carol"]));
}

#[test]
fn who_may_not_be_watched_any_more_is_told_and_the_others_stay() {
    let mut h = Harness::watching();
    h.welcomed_again();
    let refuse = |h: &mut Harness, id: &str| {
        let code = ErrorCode::Forbidden;
        let error = json!({"code": code.as_str(), "message": "", "retryable": code.retryable()});
        h.frame(4, json!({"type": "reply", "id": id, "error": error}));
    };
    let both = h.watches(4)[0].id.to_string();
    refuse(&mut h, &both);
    let bob = h.watches(4)[1].clone();
    assert_eq!(bob.users, users(&["bob"]));
    refuse(&mut h, bob.id.as_str());
    let carol = h.watches(4)[2].clone();
    h.answer_watch(4, carol.id.as_str(), &[("carol", "away")]);
    h.is_shown(4, "carol", "offline");
    let lost = |event: &Event| matches!(event, Event::WatchLost { user, .. } if user.as_str() == "bob");
    assert_eq!(h.events().iter().filter(|event| lost(event)).count(), 1);
    assert_eq!(h.presences(), [pair("carol", "offline")]);
}

#[test]
fn with_a_fresh_token_everyone_is_watched_again() {
    let mut h = Harness::watching();
    h.refresh(2);
    let [again] = &h.watches(2)[..] else { panic!("{:?}", h.written(2)) };
    assert_eq!(again.users, users(&["bob", "carol"]));
    let id = again.id.to_string();
    h.answer_watch(2, &id, &[("bob", "online"), ("carol", "online")]);
    assert_eq!(h.presences(), [pair("carol", "online")]);
}

#[test]
fn more_than_a_frame_holds_is_watched_again_in_parts() {
    let mut h = Harness::connected();
    let names: Vec<_> = (0..1000).map(|i| format!("{i:0>100}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for (i, part) in names.chunks(500).enumerate() {
        h.order_watch(&format!("w{i}"), What::Watch(users(part)));
        h.answer_watch(2, &format!("w{i}"), &[]);
    }
    h.welcomed_again();
    for i in 0..2 {
        let part = h.watches(4)[i].clone();
        assert!(ClientFrame::Watch(part.clone()).to_json().len() <= 65_536);
        h.answer_watch(4, part.id.as_str(), &[]);
    }
    assert_eq!(h.watches(4).iter().map(|watch| watch.users.len()).sum::<usize>(), 1000);
}
