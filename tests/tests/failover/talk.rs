//! Users in a conversation, with the SDK: each one sends numbered messages to others and notes what arrives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, poll};
use roost_client::{Client, Event, Events, MessageId, SendError};
use roost_tests::processes::{Cluster, LIMIT, until};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::ledger::Ledger;

/// Longer than any fault here: whatever is not confirmed by then is noted as a failure of its own.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// One user, connected.
pub struct Person {
    pub name: String,
    pub client: Client,
}

/// The users of a test and their ledger.
pub struct Talk {
    pub people: Vec<Person>,
    ledger: Arc<Mutex<Ledger>>,
    listening: Vec<JoinHandle<()>>,
}

/// People speaking, until they are told to stop.
pub struct Speech {
    stop: watch::Sender<bool>,
    speaking: Vec<JoinHandle<()>>,
}

impl Speech {
    /// Nothing new is sent; returns when everything sent was confirmed.
    pub async fn end(self) {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(SEND_TIMEOUT, join_all(self.speaking)).await;
        assert!(ended.is_ok(), "sends are not confirmed within {SEND_TIMEOUT:?}");
    }
}

impl Talk {
    /// Connects all of them.
    pub async fn open(cluster: &Cluster, names: Vec<String>) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (mut people, mut listening) = (Vec::new(), Vec::new());
        for (user, name) in names.into_iter().enumerate() {
            let builder = cluster.client(&name).device("phone").send_timeout(SEND_TIMEOUT);
            let (client, events) = builder.connect().await.expect("a usable client");
            listening.push(tokio::spawn(listen(user, events, Arc::clone(&ledger))));
            people.push(Person { name, client });
        }
        for connected in join_all(people.iter().map(|p| p.client.connected(LIMIT))).await {
            connected.expect("everybody connects");
        }
        Self { people, ledger, listening }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub fn names(&self) -> Vec<String> {
        self.people.iter().map(|p| p.name.clone()).collect()
    }

    /// Each of `speakers` begins to send a message every `pace`, to each of `listeners` but itself in turn.
    pub fn speak(&self, speakers: &[usize], listeners: &[usize], pace: Duration) -> Speech {
        let (stop, stopped) = watch::channel(false);
        let speaking = speakers.iter().map(|&from| {
            let to: Vec<(usize, String)> = listeners
                .iter()
                .filter(|&&to| to != from)
                .map(|&to| (to, self.people[to].name.clone()))
                .collect();
            let speaker = Speaker {
                from,
                to,
                name: self.people[from].name.clone(),
                client: self.people[from].client.clone(),
                ledger: Arc::clone(&self.ledger),
            };
            tokio::spawn(speaker.speak(pace, stopped.clone()))
        });
        Speech { speaking: speaking.collect(), stop }
    }

    /// Waits until every confirmed message, of those sent since then, has arrived.
    pub async fn all_arrived(&self, since: Instant) {
        until("every confirmed message arrives", LIMIT, async || {
            (self.ledger().missing(since) == 0).then_some(())
        })
        .await;
    }

    /// Waits until this many messages sent from now on were confirmed and have arrived.
    pub async fn goes_on(&self, messages: usize) {
        let since = Instant::now();
        let what = format!("{messages} new messages are confirmed and arrive");
        until(&what, LIMIT, async || {
            let ledger = self.ledger();
            (ledger.acked_since(since) >= messages + ledger.missing(since)).then_some(())
        })
        .await;
    }

    /// These users leave.
    pub async fn leave(&self, users: &[usize]) {
        join_all(users.iter().map(|user| self.people[*user].client.close())).await;
    }

    /// Everybody leaves, and what was received is final.
    pub async fn close(self) -> Ledger {
        join_all(self.people.iter().map(|p| p.client.close())).await;
        drop(self.people);
        join_all(self.listening).await;
        std::mem::take(&mut *lock(&self.ledger))
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(user: usize, mut events: Events, ledger: Arc<Mutex<Ledger>>) {
    while let Some(event) = events.recv().await {
        let mut ledger = lock(&ledger);
        match event {
            Event::Message(message) => ledger.receive(user, &message),
            Event::Gap { .. } | Event::Reset { .. } => ledger.missed.push((Instant::now(), user)),
            Event::State { current, .. } => ledger.states.push((Instant::now(), user, current)),
            other => panic!("an event that this test does not know: {other:?}"),
        }
    }
}

struct Speaker {
    from: usize,
    to: Vec<(usize, String)>,
    name: String,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
}

impl Speaker {
    /// Sends do not wait for each other: what keeps their order is the SDK.
    async fn speak(self, pace: Duration, mut stopped: watch::Receiver<bool>) {
        let mut tick = interval(pace);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = FuturesUnordered::new();
        // Not all begin with the same one.
        let mut turns = (self.from..).map(|k| k % self.to.len());
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                _ = tick.tick() => {
                    let turn = turns.next().expect("there is always another turn");
                    let mut sending = self.send(turn).boxed();
                    // Its first poll is what gives it its place.
                    if poll!(&mut sending).is_pending() {
                        waiting.push(sending);
                    }
                }
                Some(()) = waiting.next() => {}
            }
        }
        while waiting.next().await.is_some() {}
    }

    /// One message, repeated until it is confirmed.
    async fn send(&self, turn: usize) {
        let (to, name) = &self.to[turn];
        let (n, id) = lock(&self.ledger).send(&self.name, self.from, *to);
        let message = MessageId::new(&id).expect("a message id");
        loop {
            match self.client.send_with_id(message.clone(), name, json!({ "n": n })).await {
                Ok(_) => return lock(&self.ledger).acked(&id),
                Err(SendError::Unknown { .. }) => lock(&self.ledger).repeated += 1,
                Err(SendError::QueueFull { .. }) => sleep(Duration::from_millis(100)).await,
                Err(error) => return lock(&self.ledger).refused.push(format!("{id}: {error}")),
            }
        }
    }
}
