//! Somebody who is away has a message of a friend's, and ten strangers send more than the hot window holds: the victim
//! must still be able to resume.

use std::cell::Cell;

use futures_util::future::join_all;
use serde_json::json;

use super::flood::{Answered, Flood, Ids};
use super::peer::Heard;
use super::round::Round;

/// Each with a name of its own.
const SESSIONS: usize = 10;
const AT_A_TIME: usize = 8;
/// The hot window, and ten more.
const MESSAGES: u64 = 1_010;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let [victim, friend] = ["victim", "friend"].map(|name| round.user(name));
    let device = json!({"device": "phone"});
    let first = round.door.come(&victim, &device).await?;
    let away = json!({"device": "phone", "cursor": first.welcome["cursor"]});
    drop(first);
    let mut from = round.door.come(&friend, &json!({})).await?;
    from.ask(&json!({"type": "send", "id": "important", "to": victim, "data": "important"})).await?;
    let until = round.begin().await?;
    let accepted = Cell::new(0_u64);
    let sessions = (0..SESSIONS).map(|n| {
        let stranger = round.user(&format!("stranger{n}"));
        let flood = Flood { door: round.door, user: stranger, at_a_time: AT_A_TIME, until };
        let (mut ids, mut counted, victim, accepted) = (Ids::new(), 0, &victim, &accepted);
        async move {
            let send = |answered: &Answered| {
                accepted.set(accepted.get() + answered.ok - counted);
                counted = answered.ok;
                let more = accepted.get() < MESSAGES;
                more.then(|| json!({"type": "send", "id": ids.next(), "to": victim, "data": 1}))
            };
            flood.say(send).await
        }
    });
    let mut answered = Answered::sum(join_all(sessions).await);
    answered.notes.push(format!("{} messages of strangers are in the victim's inbox", answered.ok));
    let mut back = round.door.come(&victim, &away).await?;
    let (recovered, replayed) = (&back.welcome["recovered"], back.welcome["replayed"].as_u64().unwrap_or(0));
    if *recovered != true {
        answered.flaws.push(format!("the victim cannot resume: recovered {recovered}"));
        return Ok(answered);
    }
    for _ in 0..replayed {
        match back.hear().await {
            Heard::Frame(message) if message["id"] == "important" => return Ok(answered),
            Heard::Frame(..) => {}
            Heard::Closed(code) => {
                answered.flaws.push(format!("the victim is closed with {code} while it resumes"));
                return Ok(answered);
            }
        }
    }
    answered.flaws.push("the friend's message is not there".to_owned());
    Ok(answered)
}
