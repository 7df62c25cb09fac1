//! Ten users ask for more receipts together than a vnode keeps, all of them in the victim's vnode: the victim's must still come.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::flood::{Answered, Flood, Ids};
use super::peer::{Heard, Peer, cursor};
use super::round::Round;

const SESSIONS: usize = 20;
/// One could ask for 2,400 in 20 s.
const USERS: usize = 10;
const AT_A_TIME: usize = 8;
/// A vnode keeps 10,000.
const MESSAGES: u64 = 11_000;
const NEIGHBOURS: usize = 40;
/// From an acknowledgement to its receipt, generously.
const RECEIPT_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let [alice, bob] = ["alice", "bob"].map(|name| round.user(name));
    let mut reader = round.door.come(&bob, &json!({"device": "phone"})).await?;
    let mut sender = round.door.come(&alice, &json!({})).await?;
    let send = json!({"type": "send", "id": "wanted", "to": bob, "data": "hello", "receipt": true});
    sender.ask(&send).await?;
    let message = message(&mut reader).await;
    let near = round.neighbours(&bob, NEIGHBOURS);
    let until = round.begin().await?;
    let accepted = Cell::new(0_u64);
    let sessions = (0..SESSIONS).map(|n| {
        let greedy = round.user(&format!("greedy{}", n % USERS));
        let flood = Flood { door: round.door, user: greedy, at_a_time: AT_A_TIME, until };
        let (mut ids, mut counted, mut n, near, accepted) = (Ids::new(), 0, 0, &near, &accepted);
        async move {
            let send = |answered: &Answered| {
                accepted.set(accepted.get() + answered.ok - counted);
                (counted, n) = (answered.ok, n + 1);
                let to = &near[n % near.len()];
                let frame = json!({"type": "send", "id": ids.next(), "to": to, "data": 1, "receipt": true});
                (accepted.get() < MESSAGES).then_some(frame)
            };
            flood.say(send).await
        }
    });
    let mut answered = Answered::sum(join_all(sessions).await);
    answered.notes.push(format!("{} of {MESSAGES} receipts were asked for", answered.ok));
    match message {
        Some(message) => {
            reader.say(&json!({"type": "read", "cursor": cursor(&message)})).await?;
            if !told(&mut sender).await {
                answered.flaws.push("the victim's receipt does not come".to_owned());
            }
        }
        None => answered.flaws.push("the victim's message does not arrive".to_owned()),
    }
    Ok(answered)
}

async fn message(peer: &mut Peer) -> Option<Value> {
    let message = async {
        loop {
            match peer.hear().await {
                Heard::Frame(frame) if frame["type"] == "message" => return Some(frame),
                Heard::Frame(..) => {}
                Heard::Closed(_) => return None,
            }
        }
    };
    timeout(RECEIPT_WITHIN, message).await.ok().flatten()
}

/// Whether a receipt says that it was read.
async fn told(peer: &mut Peer) -> bool {
    while let Some(message) = message(peer).await {
        let data = &message["data"];
        let names = data["ids"].as_array().is_some_and(|ids| ids.contains(&json!("wanted")));
        if message["kind"] == "receipt" && data["type"] == "read" && names {
            return true;
        }
    }
    false
}
