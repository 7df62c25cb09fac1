//! Sixteen sessions resume from the beginning of an inbox of 60 kB messages, and read nothing; they say that they live.

use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::flood::{Answered, Flood, Ids, padding};
use super::peer::cursor;
use super::round::Round;

const SESSIONS: usize = 16;
const MESSAGES: usize = 300;
const BYTES: usize = 60_000;
/// The smallest receive buffer that Linux gives.
const BUFFER: u32 = 4_096;
const ALIVE_EVERY: Duration = Duration::from_secs(4);
/// What a server may have given to each socket although nobody reads: a credit of 256 kB, and as much in the kernel.
const CREDIT_BYTES: u64 = 2 * 256_000;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let user = round.user("hog");
    let first = fill(round, &user).await?;
    let until = round.begin().await?;
    let fields = json!({"cursor": {"generation": first["generation"], "offset": 0}});
    let coming = (0..SESSIONS).map(|_| round.door.come_narrow(&user, &fields, Some(BUFFER)));
    let mut answered = Answered::default();
    let mut peers: Vec<_> = join_all(coming).await.into_iter().filter_map(Result::ok).collect();
    answered.ok = peers.len() as u64;
    answered.bytes = SESSIONS as u64 * CREDIT_BYTES;
    while Instant::now() < until {
        sleep(ALIVE_EVERY.min(until - Instant::now())).await;
        let pong = json!({"type": "pong"});
        for peer in &mut peers {
            // Who was closed meanwhile is of no more use.
            let _ = peer.say(&pong).await;
        }
    }
    Ok(answered)
}

/// Sends to itself, and returns one of the messages.
async fn fill(round: &Round<'_>, user: &str) -> anyhow::Result<serde_json::Value> {
    let until = Instant::now() + super::PREPARED_WITHIN;
    let flood = Flood { door: round.door, user: user.to_owned(), at_a_time: 4, until };
    let (mut ids, data) = (Ids::new(), padding(BYTES));
    let send = |answered: &Answered| {
        let more = (answered.ok as usize) < MESSAGES;
        more.then(|| json!({"type": "send", "id": ids.next(), "to": user, "data": data}))
    };
    flood.say(send).await;
    let mut peer = round.door.come(user, &json!({})).await?;
    let page = json!({"type": "history", "id": "first", "stream": format!("user:{user}"), "limit": 1});
    let reply = peer.ask(&page).await?;
    let message =
        reply["ok"]["messages"].get(0).with_context(|| format!("nothing to resume from: {reply}"))?;
    Ok(cursor(message))
}
