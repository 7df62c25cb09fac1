//! The rules for writing and repeating commands, one by one.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use roost_proto::answers::Accepted;
use roost_proto::frames::Reply;
use roost_proto::limits::{DEDUP_WINDOW_MS, UNANSWERED_MAX};
use roost_proto::{ErrorBody, ErrorCode, MessageId, UserId};

use crate::backoff::Backoff;
use crate::error::SendError;
use crate::lanes::OrderingKey;
use crate::outbox::{Answer, Answered, Command, Outbox, What};

const NEVER: u64 = u64::MAX;

fn outbox(max: usize) -> Outbox {
    Outbox::new(max, Backoff::new(250, 20_000))
}

/// `"b1"` goes to bob, `"c1"` to carol, `"s1"` is a status; the frame's text is the id.
fn command(id: &str) -> Command {
    let lane = match &id[..1] {
        "s" => OrderingKey::Status,
        to => OrderingKey::To(UserId::new(to).unwrap()),
    };
    Command::frame(MessageId::new(id).unwrap(), lane, id)
}

fn push(outbox: &mut Outbox, ids: &[&str]) {
    for (i, id) in ids.iter().enumerate() {
        outbox.push(command(id), i as u64, NEVER).unwrap();
    }
}

fn written(outbox: &mut Outbox, now: u64) -> String {
    outbox.tick(now, false);
    outbox.take_ready(now).iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(" ")
}

fn answers(answered: Option<Answered>) -> Vec<Answer> {
    answered.map(Answered::answers).unwrap_or_default()
}

fn ok(outbox: &mut Outbox, id: &str, now: u64) -> Vec<Answer> {
    let ok = Accepted { at: "then".into(), cursor: None };
    answers(outbox.reply(Reply::ok(id, &ok), now, &mut StdRng::seed_from_u64(1)))
}

fn refuse(outbox: &mut Outbox, id: &str, code: ErrorCode, now: u64) -> Vec<Answer> {
    let error = ErrorBody::new(code, "no").retry_after(800);
    answers(outbox.reply(Reply::error(Some(id.into()), error), now, &mut StdRng::seed_from_u64(1)))
}

#[test]
fn later_sends_to_a_stream_wait_for_the_answer_to_a_refused_one() {
    let mut o = outbox(10);
    push(&mut o, &["b1", "b2", "c1"]);
    assert_eq!(written(&mut o, 0), "b1 b2 c1");
    assert!(refuse(&mut o, "b1", ErrorCode::RateLimited, 0).is_empty());
    refuse(&mut o, "b2", ErrorCode::RateLimited, 10);
    push(&mut o, &["b3", "c2"]);
    assert_eq!(written(&mut o, 799), "c2", "other streams go on");
    assert_eq!(o.wake_ms(), 800);
    assert_eq!(written(&mut o, 900), "b1");
    assert_eq!(written(&mut o, 900), "", "the repeat is not answered yet");
    assert_eq!(ok(&mut o, "b1", 900).len(), 1);
    assert_eq!(written(&mut o, 900), "b2");
    assert!(matches!(refuse(&mut o, "b2", ErrorCode::Conflict, 900)[..], [(_, Err(SendError::Refused(_)))]));
    assert_eq!(written(&mut o, 900), "b3");
}

#[test]
fn an_unknown_outcome_is_repeated_under_the_same_id() {
    let mut o = outbox(10);
    push(&mut o, &["b1"]);
    written(&mut o, 0);
    refuse(&mut o, "b1", ErrorCode::Unknown, 0);
    assert_eq!(written(&mut o, 800), "b1");
    let answers = ok(&mut o, "b1", 900);
    assert_eq!(answers[0].1.as_ref().unwrap().ok.get(), r#"{"at":"then"}"#);
    assert!(ok(&mut o, "b1", 900).is_empty(), "a second answer is nobody's");
}

#[test]
fn everything_unanswered_is_repeated_in_order_before_anything_new() {
    let mut o = outbox(10);
    push(&mut o, &["b1", "c1", "b2"]);
    written(&mut o, 0);
    ok(&mut o, "c1", 0);
    push(&mut o, &["b3"]);
    o.requeue();
    assert_eq!(written(&mut o, 0), "b1 b2 b3");
}

#[test]
fn a_refused_command_still_holds_its_stream_on_the_next_connection() {
    let mut o = outbox(10);
    push(&mut o, &["b1", "b2"]);
    written(&mut o, 0);
    refuse(&mut o, "b1", ErrorCode::Unavailable, 0);
    o.requeue();
    assert_eq!(written(&mut o, 0), "");
    assert_eq!(written(&mut o, 800), "b1");
    o.requeue();
    assert_eq!(written(&mut o, 800), "b1");
    ok(&mut o, "b1", 800);
    assert_eq!(written(&mut o, 800), "b2");
}

#[test]
fn no_more_than_the_limit_is_unanswered() {
    let mut o = outbox(1000);
    let ids: Vec<String> = (0..UNANSWERED_MAX + 2).map(|i| format!("b{i}")).collect();
    push(&mut o, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(o.take_ready(0).len(), UNANSWERED_MAX);
    ok(&mut o, "b7", 0);
    assert_eq!(written(&mut o, 0), format!("b{UNANSWERED_MAX}"));
    o.requeue();
    assert_eq!(o.take_ready(0).len(), UNANSWERED_MAX);
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let mut o = outbox(2);
    push(&mut o, &["b1", "b2"]);
    assert_eq!(o.push(command("b3"), 9, NEVER), Err(SendError::QueueFull { max: 2 }));
    assert_eq!(written(&mut o, 0), "b1 b2");
    ok(&mut o, "b1", 0);
    assert_eq!(o.push(command("b3"), 9, NEVER), Ok(()));
}

#[test]
fn an_id_that_waits_gets_one_answer_for_every_caller() {
    let mut o = outbox(3);
    push(&mut o, &["b1"]);
    o.push(command("b1"), 7, NEVER).unwrap();
    let other = Command { what: What::Frame(Arc::from("other")), ..command("b1") };
    let Err(SendError::Refused(e)) = o.push(other, 8, NEVER) else { panic!("another body was taken") };
    assert_eq!(e.code, ErrorCode::Conflict);
    assert_eq!(written(&mut o, 0), "b1");
    o.push(command("b1"), 8, NEVER).unwrap();
    assert_eq!(
        o.push(command("b1"), 9, NEVER),
        Err(SendError::QueueFull { max: 3 }),
        "callers are bounded too"
    );
    assert_eq!(written(&mut o, 0), "");
    let tickets: Vec<u64> = ok(&mut o, "b1", 0).iter().map(|a| a.0).collect();
    assert_eq!(tickets, [0, 7, 8]);
}

#[test]
fn what_never_left_is_withdrawn_and_what_left_is_still_repeated() {
    let mut o = outbox(10);
    o.push(command("b1"), 1, 1000).unwrap();
    written(&mut o, 0);
    o.push(command("b2"), 2, 1000).unwrap();
    assert_eq!(o.wake_ms(), 1000);
    let (answers, renew) = o.tick(1000, false);
    let id = MessageId::new("b1").unwrap();
    assert_eq!(answers, [(1, Err(SendError::Unknown { id })), (2, Err(SendError::NotSent))]);
    assert!(!renew);
    o.requeue();
    assert_eq!(written(&mut o, 2000), "b1");
    assert!(ok(&mut o, "b1", 2000).is_empty());
    assert_eq!(o.wake_ms(), 2000 + 30_000, "an early wake does no harm");
    assert_eq!(o.tick(40_000, true), (vec![], false));
    assert_eq!(o.wake_ms(), NEVER);
}

#[test]
fn a_connection_that_owes_an_answer_is_renewed() {
    let mut o = outbox(10);
    push(&mut o, &["b1"]);
    written(&mut o, 0);
    assert_eq!(o.tick(29_999, true), (vec![], false));
    assert_eq!(o.tick(30_000, false), (vec![], false), "not while there is none");
    let mut o = outbox(10);
    push(&mut o, &["b1"]);
    written(&mut o, 0);
    o.forgive(10_000);
    assert_eq!(o.tick(30_000, true), (vec![], false));
    assert_eq!(o.tick(40_000, true), (vec![], true));
}

#[test]
fn nothing_is_repeated_after_the_window_in_which_that_is_safe() {
    let mut o = outbox(10);
    push(&mut o, &["b1", "b2"]);
    written(&mut o, 5);
    refuse(&mut o, "b1", ErrorCode::Unknown, 5);
    o.requeue();
    let before = 4 + DEDUP_WINDOW_MS;
    assert_eq!(o.tick(before, false), (vec![], false));
    assert_eq!(written(&mut o, before), "b1");
    let (answers, renew) = o.tick(5 + DEDUP_WINDOW_MS, true);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|a| matches!(a.1, Err(SendError::Unknown { .. }))));
    assert!(renew, "this session may hold the stream for the one that was given up");
    assert_eq!(written(&mut o, 5 + DEDUP_WINDOW_MS), "");
}

#[test]
fn one_status_is_on_the_way_at_a_time() {
    let mut o = outbox(10);
    push(&mut o, &["s1", "s2", "b1"]);
    assert_eq!(written(&mut o, 0), "s1 b1");
    ok(&mut o, "s1", 0);
    assert_eq!(written(&mut o, 0), "s2");
}

#[test]
fn an_end_says_what_may_have_been_accepted() {
    let mut o = outbox(10);
    push(&mut o, &["b1"]);
    written(&mut o, 0);
    o.push(command("b2"), 5, NEVER).unwrap();
    let closed = |sent| Err(SendError::Closed { sent });
    assert_eq!(o.close(), [(0, closed(true)), (5, closed(false))]);
    assert_eq!(o.close(), []);
}
