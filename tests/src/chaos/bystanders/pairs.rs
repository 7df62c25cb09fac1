//! Six pairs that send once a second, and what they notice. On a thread of their own: what attackers have to do must
//! not be in their times.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::flood::Ids;
use super::peer::{Door, Heard, Peer, cursor};

pub(super) const PAIRS: usize = 6;
const PACE: Duration = Duration::from_secs(1);
/// The protocol's own limit for an answer: what has none by then is `unknown`.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One message of a bystander.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub at: Instant,
    /// When it was answered, and if it was refused with what.
    pub reply: Option<(Instant, Result<(), String>)>,
    pub arrived: Option<Instant>,
}

/// What all of them saw.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sent: BTreeMap<String, Sent>,
    /// When a connection ended or was told to move, and whose.
    lost: Vec<(Instant, String)>,
}

/// What became of the messages of a while.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub sent: usize,
    pub ok: usize,
    pub delivered: usize,
    pub refused: BTreeMap<String, usize>,
    pub lost: Vec<String>,
    /// From send to delivery; of what never arrived the longest time there is.
    pub delivery: Vec<Duration>,
}

impl Ledger {
    fn report(&self, from: Instant, to: Instant) -> Report {
        let within = |at: &Instant| (from..to).contains(at);
        let mut report = Report::default();
        for sent in self.sent.values().filter(|sent| within(&sent.at)) {
            report.sent += 1;
            report.delivered += usize::from(sent.arrived.is_some());
            report.delivery.push(sent.arrived.map_or(Duration::MAX, |at| at - sent.at));
            match &sent.reply {
                Some((_, Ok(()))) => report.ok += 1,
                Some((_, Err(code))) => *report.refused.entry(code.clone()).or_default() += 1,
                None => *report.refused.entry("no answer".to_owned()).or_default() += 1,
            }
        }
        report.lost = self.lost.iter().filter(|(at, _)| within(at)).map(|(_, who)| who.clone()).collect();
        report
    }

    fn settled(&self, from: Instant, to: Instant) -> bool {
        let within = self.sent.values().filter(|sent| (from..to).contains(&sent.at));
        within.into_iter().all(|sent| sent.reply.is_some() && sent.arrived.is_some())
    }
}

/// All pairs, until they are dropped.
pub(super) struct Pairs {
    stop: Arc<AtomicBool>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Drop for Pairs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Pairs {
    /// The first of each two sends to the second.
    pub(super) fn begin(door: &Door, names: Vec<String>) -> Self {
        let pairs = Self { stop: Arc::default(), ledger: Arc::default() };
        let (stop, ledger, front) = (Arc::clone(&pairs.stop), Arc::clone(&pairs.ledger), door.front.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                // Connections of an HTTP client belong to the runtime that it was made in.
                let door = Door { front, http: reqwest::Client::new() };
                for pair in names.chunks_exact(2) {
                    let [from, to] = [0, 1].map(|i| pair[i].clone());
                    tokio::spawn(listen(door.clone(), to.clone(), Arc::clone(&ledger)));
                    tokio::spawn(speak(door.clone(), from, to, Arc::clone(&ledger)));
                }
                while !stop.load(Ordering::Relaxed) {
                    sleep(LOOK_EVERY).await;
                }
            });
        });
        pairs
    }

    /// Waits until everybody has been heard once.
    pub(super) async fn warm(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let arrived = lock(&self.ledger).sent.values().filter(|sent| sent.arrived.is_some()).count();
            if arrived >= 2 * PAIRS {
                return true;
            }
            sleep(LOOK_EVERY).await;
        }
        false
    }

    /// What became of what was sent in that time, once it is known, or will not be.
    pub(super) async fn report(&self, from: Instant, to: Instant) -> Report {
        while !lock(&self.ledger).settled(from, to) && to.elapsed() < PATIENCE {
            sleep(LOOK_EVERY).await;
        }
        lock(&self.ledger).report(from, to)
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One after the other, as a person types; the next waits for the reply to the last.
async fn speak(door: Door, from: String, to: String, ledger: Arc<Mutex<Ledger>>) {
    let mut ids = Ids::new();
    let mut tick = interval(PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Some(mut peer) = connected(&door, &from, &json!({}), &ledger).await else { continue };
        loop {
            tokio::select! {
                heard = peer.hear() => {
                    if over(&from, &heard, &ledger) {
                        break;
                    }
                }
                _ = tick.tick() => {
                    if !say(&mut peer, &from, &to, ids.next(), &ledger).await {
                        break;
                    }
                }
            }
        }
    }
}

/// Sends one message and waits for its reply; false if the connection is of no use any more.
async fn say(peer: &mut Peer, from: &str, to: &str, id: String, ledger: &Mutex<Ledger>) -> bool {
    let frame = json!({"type": "send", "id": id, "to": to, "data": "how are you?"});
    lock(ledger).sent.insert(id.clone(), Sent { at: Instant::now(), reply: None, arrived: None });
    if peer.say(&frame).await.is_err() {
        return false;
    }
    let reply = async {
        loop {
            match peer.hear().await {
                Heard::Frame(reply) if reply["type"] == "reply" && reply["id"] == *id => {
                    return Some(reply);
                }
                heard if over(from, &heard, ledger) => return None,
                _ => {}
            }
        }
    };
    let Ok(reply) = tokio::time::timeout(PATIENCE, reply).await else { return true };
    let Some(reply) = reply else { return false };
    let outcome = match reply["error"]["code"].as_str() {
        Some(code) => Err(code.to_owned()),
        None => Ok(()),
    };
    let mut ledger = lock(ledger);
    let sent = ledger.sent.get_mut(&id).expect("put there before it was said");
    sent.reply = Some((Instant::now(), outcome));
    true
}

/// Notes what arrives, and acknowledges it.
async fn listen(door: Door, user: String, ledger: Arc<Mutex<Ledger>>) {
    let mut at = Value::Null;
    loop {
        let fields = if at.is_null() { json!({}) } else { json!({"cursor": at}) };
        let Some(mut peer) = connected(&door, &user, &fields, &ledger).await else { continue };
        loop {
            let heard = peer.hear().await;
            if over(&user, &heard, &ledger) {
                break;
            }
            let Heard::Frame(frame) = heard else { continue };
            if frame["type"] != "message" {
                continue;
            }
            if let Some(id) = frame["id"].as_str() {
                let mut ledger = lock(&ledger);
                let sent = ledger.sent.get_mut(id);
                sent.map(|sent| sent.arrived.get_or_insert_with(Instant::now));
            }
            at = cursor(&frame);
            // If it cannot be said the next read ends.
            let _ = peer.say(&json!({"type": "ack", "cursor": at})).await;
        }
    }
}

async fn connected(door: &Door, user: &str, fields: &Value, ledger: &Mutex<Ledger>) -> Option<Peer> {
    match door.come(user, fields).await {
        Ok(peer) => Some(peer),
        Err(error) => {
            lock(ledger).lost.push((Instant::now(), format!("{user}: {error:#}")));
            None
        }
    }
}

/// Whether this connection ends; then it is noted.
fn over(user: &str, heard: &Heard, ledger: &Mutex<Ledger>) -> bool {
    let why = match heard {
        Heard::Closed(code) => format!("{user}: closed with {code}"),
        Heard::Frame(frame) if frame["type"] == "moved" => format!("{user}: moved"),
        Heard::Frame(..) => return false,
    };
    lock(ledger).lost.push((Instant::now(), why));
    true
}
