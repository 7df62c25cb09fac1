//! Users in a conversation, with the SDK: each one sends numbered messages to others and notes what arrives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, poll};
use roost_client::{Client, Cursor, Event, Events, MessageId, SendError, State};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::history::What;
use crate::ledger::Ledger;
use crate::processes::{Cluster, Front, LIMIT, until};

/// Longer than any fault here: whatever is not confirmed by then is noted as a failure of its own.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Who has not been let in yet.
const CONNECTING_MAX: usize = 200;

/// One user, connected.
pub struct Person {
    pub name: String,
    pub client: Client,
    /// While this is false, the application takes nothing from the SDK.
    pub reads: watch::Sender<bool>,
}

/// The users of a test and their ledger.
pub struct Talk {
    pub people: Vec<Person>,
    /// Who takes part by another program; their numbers follow.
    pub elsewhere: Vec<String>,
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
        Self::open_with(&cluster.front(), names, Ledger::default(), SEND_TIMEOUT).await
    }

    /// The same, with a ledger that may have a history, and the time that the SDK has for a send.
    pub async fn open_with(
        front: &Front,
        names: Vec<String>,
        ledger: Ledger,
        send_timeout: Duration,
    ) -> Self {
        let ledger = Arc::new(Mutex::new(ledger));
        let (mut people, mut listening): (Vec<Person>, _) = (Vec::new(), Vec::new());
        for (user, name) in names.into_iter().enumerate() {
            // A few at a time: how fast thousands get in is not what is looked at here.
            if user >= CONNECTING_MAX {
                people[user - CONNECTING_MAX].client.connected(LIMIT).await.expect("everybody connects");
            }
            let builder = front.client_maker(&name)().device("phone").send_timeout(send_timeout);
            let (client, events) = builder.connect().await.expect("a usable client");
            let reads = watch::Sender::new(true);
            listening.push(tokio::spawn(listen(user, events, reads.subscribe(), Arc::clone(&ledger))));
            people.push(Person { name, client, reads });
        }
        for connected in join_all(people.iter().map(|p| p.client.connected(LIMIT))).await {
            connected.expect("everybody connects");
        }
        Self { people, elsewhere: Vec::new(), ledger, listening }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Writes down what is seen elsewhere.
    pub fn noter(&self) -> impl Fn(What) + Send + use<> {
        let ledger = Arc::clone(&self.ledger);
        move |what| lock(&ledger).note(what)
    }

    fn name(&self, user: usize) -> &str {
        let here = self.people.get(user).map(|person| &person.name);
        here.unwrap_or_else(|| &self.elsewhere[user - self.people.len()])
    }

    pub fn names(&self) -> Vec<String> {
        self.people.iter().map(|p| p.name.clone()).collect()
    }

    /// Each of `speakers` begins to send a message every `pace`, to each of `listeners` but itself in turn.
    pub fn speak(&self, speakers: &[usize], listeners: &[usize], pace: Duration) -> Speech {
        self.speak_padded(speakers, listeners, pace, 0)
    }

    /// The same, with so many bytes more in each message.
    pub fn speak_padded(
        &self,
        speakers: &[usize],
        listeners: &[usize],
        pace: Duration,
        padding: usize,
    ) -> Speech {
        let (stop, stopped) = watch::channel(false);
        let speaking = speakers.iter().enumerate().map(|(i, &from)| {
            let to: Vec<(usize, String)> = listeners
                .iter()
                .filter(|&&to| to != from)
                .map(|&to| (to, self.name(to).to_owned()))
                .collect();
            let speaker = Speaker {
                from,
                // Not all begin with the same one: everybody hears something all the time.
                begin: i * to.len() / speakers.len(),
                to,
                name: self.people[from].name.clone(),
                client: self.people[from].client.clone(),
                ledger: Arc::clone(&self.ledger),
                padding,
            };
            // Not all of them in the same moment.
            let offset = pace.mul_f64(from as f64 / self.people.len() as f64);
            tokio::spawn(speaker.speak(pace, offset, stopped.clone()))
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

async fn listen(
    user: usize,
    mut events: Events,
    mut reads: watch::Receiver<bool>,
    ledger: Arc<Mutex<Ledger>>,
) {
    let place = |cursor: Cursor| (cursor.generation.0, cursor.offset.0);
    loop {
        // Who is not told otherwise any more reads on.
        let _ = reads.wait_for(|reads| *reads).await;
        let Some(event) = events.recv().await else { return };
        let what = match event {
            Event::Message(m) => {
                What::Arrived { user, generation: m.generation.0, offset: m.offset.0, id: m.id.to_string() }
            }
            Event::Gap { from, cursor, .. } | Event::Reset { from, cursor, .. } => {
                What::Missed { user, from: from.map(place), to: place(cursor) }
            }
            Event::State { current: State::Connected { node, .. }, .. } => {
                What::State { user, node: Some(node.to_string()) }
            }
            Event::State { .. } => What::State { user, node: None },
            // Its state says the same.
            Event::NotConnected { .. } => continue,
            other => panic!("an event that this test does not know: {other:?}"),
        };
        lock(&ledger).note(what);
    }
}

struct Speaker {
    from: usize,
    begin: usize,
    to: Vec<(usize, String)>,
    name: String,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    padding: usize,
}

impl Speaker {
    /// Sends do not wait for each other: what keeps their order is the SDK.
    async fn speak(self, pace: Duration, offset: Duration, mut stopped: watch::Receiver<bool>) {
        let mut tick = interval_at(Instant::now() + offset, pace);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = FuturesUnordered::new();
        let mut turns = (self.begin..).map(|k| k % self.to.len());
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
            let what = match self.client.send_with_id(message.clone(), name, self.data(n)).await {
                Ok(_) => What::Acked { id },
                Err(SendError::Unknown { .. }) => {
                    lock(&self.ledger).note(What::Repeated { id: id.clone() });
                    continue;
                }
                Err(SendError::QueueFull { .. }) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) => What::Refused { id, why: error.to_string() },
            };
            return lock(&self.ledger).note(what);
        }
    }

    fn data(&self, n: u64) -> Value {
        if self.padding == 0 { json!({ "n": n }) } else { json!({ "n": n, "pad": "x".repeat(self.padding) }) }
    }
}
