//! Thirty-two connections ask for the presence of 500 users at a time: half of them without a token, half with a
//! user's.

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::flood::Answered;
use super::round::Round;
use crate::cluster::{now_s, token};

const CONNECTIONS: usize = 32;
/// As many as one request may name.
const USERS: usize = 500;
/// Longer than any run.
const TOKEN_S: u64 = 3_600;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let users: Vec<String> = (0..USERS).map(|n| format!("p{n}")).collect();
    let url = format!("{}/presence?userIds={}", round.door.front, users.join(","));
    let bearer = token(&round.user("asker"), now_s() + TOKEN_S);
    let until = round.begin().await?;
    let asking = (0..CONNECTIONS).map(|n| ask(&url, n.is_multiple_of(2).then_some(bearer.as_str()), until));
    let all = join_all(asking).await;
    let anonymous: u64 = all.iter().skip(1).step_by(2).map(|answered| answered.ok).sum();
    let mut answered = Answered::sum(all);
    if anonymous > 0 {
        answered.flaws.push(format!("{anonymous} requests without a token were answered"));
    }
    Ok(answered)
}

/// One connection, one request after the other.
async fn ask(url: &str, bearer: Option<&str>, until: Instant) -> Answered {
    let http = reqwest::Client::new();
    let mut answered = Answered::default();
    while Instant::now() < until {
        let mut request = http.get(url);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let Ok(Ok(answer)) = timeout_at(until, request.send()).await else { continue };
        answered.status(answer.status().as_u16());
        // Nobody's presence tells how many sessions there are, but to services.
        let body: Value = answer.json().await.unwrap_or_default();
        answered.bytes += body.to_string().len() as u64;
        if body["users"][0].get("sessions").is_some_and(|n| !n.is_null()) && answered.flaws.is_empty() {
            answered.flaws.push("the number of sessions is told to who is no service".to_owned());
        }
    }
    answered
}
