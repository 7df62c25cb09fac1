//! A user makes streams that nobody reads: rooms, and inboxes of people who never were.

use futures_util::future::join_all;
use serde_json::json;

use super::flood::{Answered, Flood, Ids};
use super::round::Round;

const SESSIONS: usize = 16;
const AT_A_TIME: usize = 50;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let until = round.begin().await?;
    let sessions = (0..SESSIONS).map(|session| {
        let flood = Flood { door: round.door, user: round.user("founder"), at_a_time: AT_A_TIME, until };
        let (mut ids, mut n, round) = (Ids::new(), 0_usize, &*round);
        async move {
            let found = |_: &Answered| {
                n += 1;
                let name = round.user(&format!("new-{session}-{n}"));
                Some(if n.is_multiple_of(2) {
                    json!({"type": "publish", "id": ids.next(), "room": name, "data": 1})
                } else {
                    json!({"type": "send", "id": ids.next(), "to": name, "data": 1})
                })
            };
            flood.say(found).await
        }
    });
    let mut answered = Answered::sum(join_all(sessions).await);
    answered.notes.push(format!("{} streams were made", answered.ok));
    Ok(answered)
}
