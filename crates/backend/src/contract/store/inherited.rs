//! What a new owner takes over, however much it is (promise 17).

use roost_proto::events::message_rest;
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset};
use roost_proto::live::Version;
use serde_json::value::RawValue;

use super::*;

const MANY: u64 = 600;

fn id(n: u64) -> MessageId {
    MessageId::new(format!("m-{n}")).expect("letters and digits")
}

/// Of every kind more than one step of a store brings at once.
fn everything(n: u64) -> Vec<Op> {
    let bob = inbox(&format!("bob {}", n % 7));
    let data = RawValue::from_string(format!("{{\"n\":{n},\"from\":\"eve\",\"at\":\"x\"}}")).expect("JSON");
    let from = format!("zoë \"{}\", \\", n % 5);
    let wanted = ReceiptRequest { from: user("alice"), id: id(n), since_ms: NOW_MS, delivered: false };
    let append = AppendOp {
        due: true,
        wanted: Some(wanted),
        rest: message_rest(&id(n), "message", &from, NOW_MS, &data),
        from,
        ..message(&bob, id(n).as_str(), 1)
    };
    let name = user(&format!("u{n}"));
    let roster = RosterEntry {
        chosen: roost_proto::frames::ChosenStatus::Online,
        since: NOW_MS,
        last_seen: None,
        sessions: 1,
        generation: Epoch(10),
    };
    let roster = PresenceOp { user: name.clone(), roster: Some(roster), seen: None, event: None };
    let owed = PendingReceipt {
        from: name.clone(),
        to: user("alice"),
        data: roost_proto::Json::of_frame("{}".into()),
    };
    let room = StreamId::new(format!("room:r{}", n % 3)).expect("a valid stream");
    let member = MemberOp {
        stream: room,
        user: name.clone(),
        entry: Some(MemberEntry::default()),
        version: Version { epoch: Epoch(10), n },
        last: false,
        note: Bytes::from_static(b"{}"),
    };
    let event = EventOp {
        client: name,
        id: id(n),
        hash: 1,
        at: NOW_MS,
        rest: Bytes::from_static(b"\"type\":\"event\"}"),
    };
    vec![
        Op::Append(append),
        Op::Presence(roster),
        Op::Receipts { wanted: vec![], owed: vec![(id(n), Some(owed))] },
        Op::Member(member),
        Op::Event(event),
    ]
}

pub async fn much_is_taken_over_whole(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let me = sid("ws-1", 1);
    let mut owner = a.own(V, &me, Epoch(10)).await;
    let mut model = crate::store::model::VnodeData::default();
    model.activate(&a.activation(V, &me, Epoch(10)));
    for first in (0..MANY).step_by(20) {
        let ops: Vec<Op> = (first..first + 20).flat_map(everything).collect();
        let write = Write { fence: owner.fence.clone(), now_ms: NOW_MS, trim: Seq(0), ops: ops.clone() };
        model.write(&write, &CONFIG);
        owner.write(ops).await;
    }
    let next = a.activation(V, &me, Epoch(11));
    let ActivateAnswer::Activated(found) = a.activate(&next).await else { panic!("the epoch is larger") };
    let ActivateAnswer::Activated(wanted) = model.activate(&next) else { panic!("the epoch is larger") };
    assert_eq!(found.due.len() as u64, MANY);
    assert_eq!(found.due[0].from, "zoë \"0\", \\", "whatever else the message says");
    assert_eq!(found.due[0].cursor, Cursor::new(Epoch(10), Offset(1)));
    assert_eq!(found, wanted);
}
