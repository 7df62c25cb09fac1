//! A user has a fresh device with each connection, and each leaves a cursor.

use futures_util::future::join_all;
use redis::cmd;
use serde_json::json;
use tokio::time::Instant;

use super::flood::Answered;
use super::peer::cursor;
use super::round::Round;

const AT_A_TIME: usize = 8;
/// Two for each of the latest 64; the number of uses, a mark, and what was read.
const FIELDS_MAX: u64 = 2 * 64 + 3;

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let user = round.user("collector");
    let mut peer = round.door.come(&user, &json!({})).await?;
    peer.ask(&json!({"type": "send", "id": "one", "to": user, "data": 1})).await?;
    let page = json!({"type": "history", "id": "page", "stream": format!("user:{user}"), "limit": 1});
    let at = cursor(&peer.ask(&page).await?["ok"]["messages"][0]);
    drop(peer);
    let until = round.begin().await?;
    let mut answered = Answered::default();
    while Instant::now() < until {
        let names = (0..AT_A_TIME).map(|_| format!("{:0>128x}", rand::random::<u128>()));
        let fields: Vec<_> = names.map(|device| json!({"device": device, "cursor": at})).collect();
        let came = join_all(fields.iter().map(|fields| round.door.come(&user, fields))).await;
        for peer in came.into_iter().flatten() {
            answered.ok += 1;
            answered.bytes += peer.welcome.to_string().len() as u64;
        }
    }
    let pattern = format!("*:cursors:{user}");
    let keys: Vec<String> = cmd("KEYS").arg(pattern).query_async(&mut round.redis).await?;
    let mut fields = 0;
    for key in &keys {
        fields += cmd("HLEN").arg(key).query_async::<u64>(&mut round.redis).await?;
    }
    answered.notes.push(format!("{} devices came, {fields} cursors are kept", answered.ok));
    if fields > FIELDS_MAX {
        answered.flaws.push(format!("{fields} cursors of one user are kept"));
    }
    Ok(answered)
}
