//! Sixteen sessions of one user send their bursts of 200 messages of 60 kB at once, and go on.

use futures_util::future::join_all;
use serde_json::json;

use super::flood::{Answered, Flood, Ids, padding};
use super::round::Round;

/// All that one user may have.
const SESSIONS: usize = 16;
const AT_A_TIME: usize = 200;
const BYTES: usize = 60_000;
/// Each session has as many receivers as it has commands under way: none waits for another in a channel.
const RECEIVERS: usize = 200;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let until = round.begin().await?;
    let data = padding(BYTES);
    let sessions = (0..SESSIONS).map(|session| {
        let flood = Flood { door: round.door, user: round.user("burst"), at_a_time: AT_A_TIME, until };
        let (mut ids, mut n, data) = (Ids::new(), 0, data.clone());
        let receivers: Vec<String> =
            (0..RECEIVERS).map(|i| round.user(&format!("receiver-{session}-{i}"))).collect();
        async move {
            let send = |_: &Answered| {
                n += 1;
                Some(json!({"type": "send", "id": ids.next(), "to": receivers[n % RECEIVERS], "data": data}))
            };
            flood.say(send).await
        }
    });
    Ok(Answered::sum(join_all(sessions).await))
}
