//! One session asks for 200 pages at once of a room with messages of 60 kB: a page that is answered with 64 kB, out of
//! 6 MB that were read for it.

use serde_json::json;
use tokio::time::Instant;

use super::flood::{Answered, Flood, Ids, padding};
use super::round::Round;

/// Messages in the room, and bytes in each: one fits into an answer.
const MESSAGES: usize = 110;
const BYTES: usize = 60_000;
/// The burst that a session is allowed.
const AT_A_TIME: usize = 200;
const PAGE: usize = 100;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let (user, room) = (round.user("reader"), round.user("room"));
    fill(round, &user, &room).await;
    let until = round.begin().await?;
    let flood = Flood { door: round.door, user, at_a_time: AT_A_TIME, until };
    let mut ids = Ids::new();
    let page = move |_: &Answered| {
        let stream = format!("room:{room}");
        Some(json!({"type": "history", "id": ids.next(), "stream": stream, "limit": PAGE}))
    };
    Ok(flood.say(page).await)
}

/// At a pace that is nobody's attack.
async fn fill(round: &Round<'_>, user: &str, room: &str) {
    let until = Instant::now() + super::PREPARED_WITHIN;
    let flood = Flood { door: round.door, user: user.to_owned(), at_a_time: 1, until };
    let mut ids = Ids::new();
    let publish = |answered: &Answered| {
        let more = (answered.ok as usize) < MESSAGES;
        more.then(|| json!({"type": "publish", "id": ids.next(), "room": room, "data": padding(BYTES)}))
    };
    flood.say(publish).await;
}
