//! The verdict on a conversation, printed and enforced.

use std::time::Duration;

use tokio::time::Instant;

use crate::chat::Chat;
use crate::ledger::{Ledger, quantile};
use crate::topic_reader::TopicReader;

/// Of a list of times: how many, the middle, the 95th percentile and the longest.
pub fn times(times: &[Duration]) -> String {
    let at = |q| quantile(times, q).as_millis();
    format!(
        "p50 {:>5} ms   p95 {:>5} ms   max {:>5} ms   ({} times)",
        at(0.5),
        at(0.95),
        at(1.0),
        times.len()
    )
}

/// Fails unless everything that was confirmed arrived once and in order, of what was sent since then, and all of it
/// is in `chat_events` once in a generation, at a place that names nothing else. Returns how many generations a
/// stream had at most.
pub async fn judge(ledger: &Ledger, names: &[String], chat: &TopicReader, since: Instant) -> usize {
    let Chat { flaws: logged, copies, generations, .. } = Chat::judge(&chat.all().await, names, ledger);
    let seen = ledger.flaws(since);
    let acked = ledger.acked_since(since);
    println!("                         at readers   in chat_events");
    let row = |what: &str, a: usize, b: usize| println!("  {what:<22} {a:>10} {b:>16}");
    row("acknowledged", acked, ledger.sent.len());
    row("lost", seen.lost.len(), logged.lost.len());
    row("doubled", seen.doubled.len(), logged.doubled.len());
    row("order broken", seen.disordered.len(), logged.disordered.len());
    row("place with another one", logged.other.len(), logged.two_in_one.len());
    println!("  equal copies in the log {}, repeated by the application {}", copies.len(), ledger.repeated);
    println!("  send to reply       {}", times(&ledger.reply_times()));
    println!("  send to delivery    {}", times(&ledger.delivery_times()));
    assert!(acked > 0, "nothing was acknowledged");
    assert!(ledger.refused.is_empty(), "refused: {:?}", ledger.refused);
    assert!(ledger.sent.values().all(|s| s.acked.is_some()), "every send is repeated until it is confirmed");
    seen.refuse("what arrived");
    logged.refuse();
    generations
}
