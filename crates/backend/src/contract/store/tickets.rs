//! Events that wait for a result (promise 16).

use roost_proto::events::numbered_bytes;
use roost_proto::ids::{Epoch, MessageId, Offset, Seq};

use super::*;

fn id(id: &str) -> MessageId {
    MessageId::new(id).expect("a valid message id")
}

fn event(client: &str, name: &str, hash: u64) -> EventOp {
    let rest = Bytes::from(format!("\"type\":\"event\",\"data\":\"größe {hash}\"}}"));
    EventOp { client: user(client), id: id(name), hash, at: NOW_MS + 7, rest }
}

fn closing(client: &str, name: &str, closes: Closes) -> Op {
    Op::Append(AppendOp {
        from: "#processor".into(),
        closes: Some(closes),
        ..message(&inbox(client), name, 1)
    })
}

fn answer(client: &str, name: &str) -> Op {
    closing(client, name, Closes::Answered(id(name)))
}

fn time_out(client: &str, name: &str) -> Op {
    closing(client, name, Closes::TimedOut(id(name)))
}

async fn left(a: &Process, epoch: u64) -> (Owner, Activated) {
    let me = sid("ws-1", 1);
    let request = a.activation(V, &me, Epoch(epoch));
    let ActivateAnswer::Activated(activated) = a.activate(&request).await else { panic!("no activation") };
    (a.owner(V, &me, Epoch(epoch), &activated), activated)
}

pub async fn an_event_waits_until_a_result_or_the_end_of_its_time(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (mut owner, _) = left(&a, 10).await;
    let of_zoe = event("zoë \"z\"", "e1", 1);
    let events = [
        of_zoe.clone(),
        event("bob", "e1", 1),
        event("bob", "e2", 1),
        event("bob", "e1", 1),
        event("bob", "e2", 9),
    ];
    let results = owner.write(events.into_iter().map(Op::Event).collect()).await;
    let again = OpResult::Duplicate { offset: Offset(0), at: NOW_MS + 7 };
    assert_eq!(
        results,
        [OpResult::Accepted, OpResult::Accepted, OpResult::Accepted, again, OpResult::Conflict]
    );

    let ticket =
        |client: &str, name: &str| ((user(client), id(name)), Ticket { since_ms: NOW_MS, at: NOW_MS + 7 });
    let (mut owner, before) = left(&a, 11).await;
    assert_eq!(before.tickets, [ticket("bob", "e1"), ticket("bob", "e2"), ticket("zoë \"z\"", "e1")]);
    let payload = numbered_bytes(V, Epoch(10), Seq(1), &of_zoe.rest);
    let first = OutboxEvent { seq: Seq(1), topic: EventTopic::Client, key: "zoë \"z\"".into(), payload };
    assert_eq!((before.outbox.len(), before.outbox.first()), (3, Some(&first)));

    let ops = vec![answer("bob", "e1"), time_out("bob", "e1"), time_out("bob", "e2"), answer("bob", "e2")];
    let appended = |offset| OpResult::Appended { offset: Offset(offset) };
    let again = OpResult::Duplicate { offset: Offset(2), at: NOW_MS };
    assert_eq!(
        owner.write(ops).await,
        [appended(1), OpResult::Duplicate { offset: Offset(1), at: NOW_MS }, appended(2), again]
    );
    let (_, after) = left(&a, 12).await;
    assert_eq!(after.tickets, [ticket("zoë \"z\"", "e1")]);
}

/// Known is who has an event waiting, an inbox, a session, or had one.
pub async fn a_result_for_somebody_unknown_is_not_taken(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (mut owner, _) = left(&a, 10).await;
    let result = |client: &str, name: &str| answer(client, name);
    assert_eq!(
        owner.write(vec![result("bob", "r1"), time_out("bob", "e1")]).await,
        [OpResult::Nobody, OpResult::Nobody]
    );
    let here = super::writes::online("bob");
    let gone = PresenceOp {
        user: user("zoë"),
        roster: None,
        seen: Some(Seen { chosen: Default::default(), since: 1, last_seen: 1, generation: Epoch(10) }),
        event: None,
    };
    let ops = vec![
        Op::Presence(here),
        result("bob", "r1"),
        Op::Presence(gone),
        result("zoë", "r1"),
        time_out("zoë", "e1"),
    ];
    let results = owner.write(ops).await;
    let appended = OpResult::Appended { offset: Offset(1) };
    assert_eq!((&results[1], &results[3], &results[4]), (&appended, &appended, &OpResult::Nobody));
    let ops = vec![Op::Append(message(&inbox("eve"), "m1", 1)), result("eve", "r1")];
    assert_eq!(owner.write(ops).await[1], OpResult::Appended { offset: Offset(2) });
}
