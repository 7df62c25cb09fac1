//! Ten users leave more messages unacknowledged in the victim's vnode together than it reports in time: the victim's must still
//! have all of its time.

use std::cell::Cell;

use futures_util::future::join_all;
use roost_proto::events::UNDELIVERED_EVENTS;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::flood::{Answered, Flood, Ids};
use super::round::Round;
use crate::topic_reader::TopicReader;

const SESSIONS: usize = 20;
/// One could leave 3,100 in 27 s.
const USERS: usize = 10;
const AT_A_TIME: usize = 10;
const MESSAGES: u64 = 9_000;
const NEIGHBOURS: usize = 40;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let [alice, bob] = ["alice", "bob"].map(|name| round.user(name));
    let reports = TopicReader::start(round.cluster, UNDELIVERED_EVENTS).await;
    let near = round.neighbours(&bob, NEIGHBOURS);
    let mut sender = round.door.come(&alice, &json!({})).await?;
    round.begin().await?;
    let sent = Instant::now();
    sender.ask(&json!({"type": "send", "id": "waits", "to": bob, "data": "hello"})).await?;
    // It has to be seen before its time is over.
    let until = sent + round.undelivered_after.mul_f64(0.9);
    let accepted = Cell::new(0_u64);
    let sessions = (0..SESSIONS).map(|n| {
        let flooder = round.user(&format!("flooder{}", n % USERS));
        let flood = Flood { door: round.door, user: flooder, at_a_time: AT_A_TIME, until };
        let (mut ids, mut counted, mut n, near, accepted) = (Ids::new(), 0, 0, &near, &accepted);
        async move {
            let send = |answered: &Answered| {
                accepted.set(accepted.get() + answered.ok - counted);
                (counted, n) = (answered.ok, n + 1);
                let to = &near[n % near.len()];
                (accepted.get() < MESSAGES)
                    .then(|| json!({"type": "send", "id": ids.next(), "to": to, "data": 1}))
            };
            flood.say(send).await
        }
    });
    let mut answered = Answered::sum(join_all(sessions).await);
    let early = reports.records().iter().filter(|record| record.key == bob.as_bytes()).any(|record| {
        let message: Value = serde_json::from_slice(&record.payload).unwrap_or_default();
        message["id"] == "waits"
    });
    let (looked, time) = (sent.elapsed(), round.undelivered_after);
    answered.notes.push(format!("{} messages are unacknowledged after {looked:.1?}", answered.ok));
    if early && looked < time {
        answered
            .flaws
            .push(format!("the victim's message is reported after less than {looked:.1?} of {time:?}"));
    }
    Ok(answered)
}
