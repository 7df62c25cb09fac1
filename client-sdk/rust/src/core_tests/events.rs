//! How an event comes to its result.

use super::*;
use crate::event_calls::EventResult;

fn result(offset: u64, kind: &str, event: &str) -> Value {
    let mut frame = message(offset);
    frame["kind"] = json!("result");
    frame["from"] = json!("#processor");
    frame["data"] =
        json!({"type": kind, "client_id": "alice", "event_id": event, "status": 7, "data": {"n": 1}});
    frame
}

impl Harness {
    fn event(&mut self, id: &str, ticket: u64, expires_ms: u64) {
        let text = json!({"type": "event", "id": id, "data": 1}).to_string();
        let command = Command {
            id: MessageId::new(id).unwrap(),
            lane: OrderingKey::Events,
            what: What::Event(text.into()),
        };
        self.step(Input::Command { command, ticket, expires_ms });
    }

    fn stored(&mut self, conn: ConnId, id: &str) {
        self.frame(conn, json!({"type": "reply", "id": id, "ok": {"at": "then"}}));
    }

    /// The answers so far: the record of a result, or the error.
    fn outcomes(&self) -> Vec<(u64, Result<String, SendError>)> {
        let record = |done: Done| done.ok.get().to_owned();
        let answer = |a: &Action| match a {
            Action::Answer(ticket, answer) => Some((*ticket, answer.clone().map(record))),
            _ => None,
        };
        self.actions.iter().filter_map(answer).collect()
    }

    /// The results among the messages that were shown.
    fn results(&self) -> Vec<EventResult> {
        let message = |event| if let Event::Message(message) = event { Some(message) } else { None };
        self.events().into_iter().filter_map(message).filter_map(|m| EventResult::of(&m)).collect()
    }

    fn events_written(&self, conn: ConnId) -> usize {
        self.written(conn).iter().filter(|frame| matches!(frame, ClientFrame::Event(_))).count()
    }

    /// Loses connection 2 and is welcomed over connection 4.
    fn comes_back(&mut self) {
        self.step(Input::Closed(2, None, String::new()));
        self.connect("ws://a", 3);
        self.frame(4, welcome("a", 5, true, 0));
    }

    /// Half an hour, in which the server only says that it is there; whether the connection lasts.
    fn wait_long(&mut self, conn: ConnId) -> bool {
        for _ in 0..180 {
            self.wait(10_000);
            self.frame(conn, json!({"type": "ping"}));
        }
        self.core.state.is_connected()
    }
}

#[test]
fn an_event_is_answered_by_its_result_whether_or_not_the_reply_came() {
    for replied in [true, false] {
        let mut h = Harness::connected();
        h.event("e1", 1, u64::MAX);
        if replied {
            h.stored(2, "e1");
        }
        assert_eq!(h.outcomes(), [], "stored is not done");
        h.frame(2, result(6, "event_accepted", "e1"));
        let [(1, Ok(record))] = &h.outcomes()[..] else { panic!("{:?}", h.outcomes()) };
        let [shown] = &h.results()[..] else { panic!("it is a message of the inbox, too") };
        assert_eq!(shown.record.get(), record);
        assert_eq!((shown.kind.as_str(), shown.event_id.as_str()), ("event_accepted", "e1"));
        assert_eq!(shown.data.as_ref().map(|data| data.get()), Some(r#"{"n":1}"#));
        assert_eq!(shown.status, None, "a status that is not a text spoils nothing");
    }
}

#[test]
fn an_event_is_repeated_until_it_is_stored_and_then_waits_over_connections() {
    let mut h = Harness::connected();
    h.event("e1", 1, u64::MAX);
    h.event("e2", 2, u64::MAX);
    h.stored(2, "e1");
    h.comes_back();
    assert_eq!((h.events_written(2), h.events_written(4)), (2, 1), "the unanswered one is repeated");
    h.stored(4, "e2");
    h.frame(4, result(6, "event_accepted", "e2"));
    h.frame(4, result(7, "event_rejected", "e1"));
    h.frame(4, result(7, "event_rejected", "e1"));
    assert_eq!(h.outcomes().iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [2, 1]);
    assert!(h.wait_long(4), "nothing is owed");
}

#[test]
fn the_result_of_somebody_elses_event_answers_nothing() {
    let mut h = Harness::connected();
    h.event("e1", 1, u64::MAX);
    h.send("m1");
    h.frame(2, result(6, "event_accepted", "e0"));
    h.frame(2, result(7, "event_accepted", "m1"));
    assert_eq!(h.outcomes(), []);
    assert_eq!(h.results().len(), 2);
}

#[test]
fn a_timeout_that_the_cluster_tells_ends_the_waiting_and_a_later_result_is_a_message() {
    let mut h = Harness::connected();
    h.event("e1", 1, u64::MAX);
    h.stored(2, "e1");
    h.frame(2, result(6, "event_timeout", "e1"));
    assert_eq!(h.outcomes(), [(1, Err(SendError::TimedOut { id: MessageId::new("e1").unwrap() }))]);
    h.frame(2, result(7, "event_accepted", "e1"));
    assert_eq!((h.outcomes().len(), h.results().len()), (1, 2));
}

fn unknown(id: &str) -> Value {
    let error = json!({"code": "unknown", "message": "", "retryable": true});
    json!({"type": "reply", "id": id, "error": error})
}

/// While Kafka is away the server cannot confirm an event, and tells that no result came. Then it answers `unknown`, and
/// takes no later event of the connection before the repeat.
#[test]
fn an_event_whose_result_came_first_is_repeated_if_its_answer_is_unknown() {
    for result_first in [true, false] {
        let mut h = Harness::connected();
        h.event("e1", 1, u64::MAX);
        let mut frames = [result(6, "event_timeout", "e1"), unknown("e1")];
        if !result_first {
            frames.reverse();
        }
        frames.into_iter().for_each(|frame| h.frame(2, frame));
        assert_eq!(h.outcomes().len(), 1, "its caller has what there is to have");
        h.wait(10_000);
        assert_eq!(h.events_written(2), 2, "result first: {result_first}");
        h.event("e2", 2, u64::MAX);
        h.stored(2, "e1");
        h.stored(2, "e2");
        h.frame(2, result(7, "event_accepted", "e2"));
        assert_eq!((h.events_written(2), h.outcomes().len()), (3, 2));
        h.comes_back();
        assert_eq!(h.events_written(4), 0, "nothing is left of either");
    }
}

#[test]
fn a_stored_event_whose_caller_waited_long_enough_is_forgotten() {
    let mut h = Harness::connected();
    h.event("e1", 1, 1_000_000);
    h.stored(2, "e1");
    assert!(h.wait_long(2), "a stored event owes the connection nothing");
    assert_eq!(h.outcomes(), [(1, Err(SendError::NoResult { id: MessageId::new("e1").unwrap() }))]);
    assert_eq!(h.core.outbox.wake_ms(), u64::MAX);
    h.comes_back();
    assert_eq!(h.events_written(4), 0);
}
