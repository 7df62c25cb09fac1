//! Users in a conversation, with the SDK: each one sends numbered messages to others and notes what arrives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, poll};
use roost_client::{Client, Cursor, Event, Events, MessageId, SendError, SendOptions, State};
use roost_proto::events::Status;
use roost_proto::frames::Presence;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::chat::shown_id;
use crate::history::{Place, What};
use crate::ledger::Ledger;
use crate::processes::{Cluster, Front, LIMIT, until};

/// Longer than any fault here: whatever is not confirmed by then is noted as a failure of its own.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// What users do besides sending and taking; nothing unless told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// Of each one's sends, each so-manieth asks for a receipt.
    pub receipt_every: u64,
    /// Of what arrives, each so-manieth message is said to be read up to there.
    pub read_every: u64,
}

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
    habits: Habits,
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
        Self::open_as(front, names, ledger, send_timeout, Habits::default()).await
    }

    /// The same, with habits. Events wait as long as sends for what becomes of them.
    pub async fn open_as(
        front: &Front,
        names: Vec<String>,
        ledger: Ledger,
        send_timeout: Duration,
        habits: Habits,
    ) -> Self {
        let ledger = Arc::new(Mutex::new(ledger));
        let (mut people, mut listening): (Vec<Person>, _) = (Vec::new(), Vec::new());
        for (user, name) in names.into_iter().enumerate() {
            // A few at a time: how fast thousands get in is not what is looked at here.
            if user >= CONNECTING_MAX {
                people[user - CONNECTING_MAX].client.connected(LIMIT).await.expect("everybody connects");
            }
            let builder = front.client_maker(&name)().device("phone");
            let builder = builder.send_timeout(send_timeout).event_timeout(send_timeout);
            let (client, events) = builder.connect().await.expect("a usable client");
            let reads = watch::Sender::new(true);
            let reader = Reader {
                user,
                client: (habits.read_every > 0).then(|| client.clone()),
                read_every: habits.read_every,
                ledger: Arc::clone(&ledger),
            };
            listening.push(tokio::spawn(reader.listen(events, reads.subscribe())));
            people.push(Person { name, client, reads });
        }
        for connected in join_all(people.iter().map(|p| p.client.connected(LIMIT))).await {
            connected.expect("everybody connects");
        }
        Self { people, elsewhere: Vec::new(), habits, ledger, listening }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Writes down what is seen elsewhere.
    pub fn noter(&self) -> impl Fn(What) + Send + Sync + use<> {
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
                receipt_every: self.habits.receipt_every,
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

/// Who takes what comes for one user.
struct Reader {
    user: usize,
    /// To say what was read, if that is said.
    client: Option<Client>,
    read_every: u64,
    ledger: Arc<Mutex<Ledger>>,
}

impl Reader {
    async fn listen(self, mut events: Events, mut reads: watch::Receiver<bool>) {
        let mut taken = 0_u64;
        loop {
            // Who is not told otherwise any more reads on.
            let _ = reads.wait_for(|reads| *reads).await;
            let Some(event) = events.recv().await else { return };
            let read = match &event {
                Event::Message(m) if !m.stream.is_room() => {
                    taken += 1;
                    Some(m.cursor()).filter(|_| self.read_every > 0 && taken.is_multiple_of(self.read_every))
                }
                _ => None,
            };
            if let Some(what) = noted(self.user, event) {
                lock(&self.ledger).note(what);
            }
            if let (Some(cursor), Some(client)) = (read, &self.client) {
                let (generation, offset) = place(cursor);
                lock(&self.ledger).note(What::Read { user: self.user, generation, offset });
                client.read(cursor).await;
            }
        }
    }
}

fn place(cursor: Cursor) -> Place {
    (cursor.generation.0, cursor.offset.0)
}

/// What is kept of an event.
fn noted(user: usize, event: Event) -> Option<What> {
    Some(match event {
        Event::Message(m) => {
            let ((generation, offset), id) = (place(m.cursor()), shown_id(&m));
            match m.stream.room() {
                None => What::Arrived { user, generation, offset, id },
                Some(room) => What::ShownInRoom { user, room: room.to_string(), generation, offset, id },
            }
        }
        Event::Gap { stream, from, cursor, .. } | Event::Reset { stream, from, cursor, .. } => {
            let (from, to) = (from.map(place), place(cursor));
            match stream.room() {
                None => What::Missed { user, from, to },
                Some(room) => What::MissedInRoom { user, room: room.to_string(), from, to },
            }
        }
        Event::State { current: State::Connected { node, .. }, .. } => {
            What::State { user, node: Some(node.to_string()) }
        }
        Event::State { .. } => What::State { user, node: None },
        Event::Presence(shown) => {
            let status = |p: Presence| (p.user.to_string(), status_word(p.status).to_owned());
            What::Shown { user, statuses: shown.into_iter().map(status).collect() }
        }
        Event::RoomLost { room, error } => {
            What::Excluded { user, from: room.to_string(), why: error.message }
        }
        Event::WatchLost { user: whom, error } => {
            What::Excluded { user, from: whom.to_string(), why: error.message }
        }
        // The application said so itself; and of a try that failed its state says the same.
        Event::Read { .. } | Event::NotConnected { .. } => return None,
        other => panic!("an event that this test does not know: {other:?}"),
    })
}

/// As it is written.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Online => "online",
        Status::Away => "away",
        Status::Offline => "offline",
    }
}

/// Begins the next of these every `pace`, without waiting for those before, from `offset` on; after the stop it waits for
/// those that were begun. Their first poll is what gives them their place.
pub async fn at_pace<F: Future<Output = ()> + Send>(
    pace: Duration,
    offset: Duration,
    mut stopped: watch::Receiver<bool>,
    mut next: impl FnMut() -> F,
) {
    let mut tick = interval_at(Instant::now() + offset, pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            _ = tick.tick() => {
                let mut doing = next().boxed();
                if poll!(&mut doing).is_pending() {
                    waiting.push(doing);
                }
            }
            Some(()) = waiting.next() => {}
        }
    }
    while waiting.next().await.is_some() {}
}

/// Repeats this until it is confirmed or refused, and notes which.
pub async fn confirmed<T, F: Future<Output = Result<T, SendError>> + Send>(
    id: String,
    note: impl Fn(What),
    mut attempt: impl FnMut() -> F,
) {
    loop {
        match attempt().await {
            Ok(_) => return note(What::Acked { id }),
            Err(SendError::Unknown { .. }) => note(What::Repeated { id: id.clone() }),
            Err(SendError::QueueFull { .. }) => sleep(Duration::from_millis(100)).await,
            Err(error) => return note(What::Refused { id, why: error.to_string() }),
        }
    }
}

struct Speaker {
    from: usize,
    begin: usize,
    to: Vec<(usize, String)>,
    name: String,
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    receipt_every: u64,
    padding: usize,
}

impl Speaker {
    /// Sends do not wait for each other: what keeps their order is the SDK.
    async fn speak(self, pace: Duration, offset: Duration, stopped: watch::Receiver<bool>) {
        let (speaker, mut turns) = (&self, self.begin..);
        at_pace(pace, offset, stopped, || speaker.send(turns.next().expect("there is always another turn")))
            .await;
    }

    /// One message, repeated until it is confirmed.
    async fn send(&self, turn: usize) {
        let (to, name) = &self.to[turn % self.to.len()];
        let receipt = self.receipt_every > 0 && (turn as u64).is_multiple_of(self.receipt_every);
        let (n, id) = lock(&self.ledger).send(&self.name, self.from, *to, receipt);
        let message = MessageId::new(&id).expect("a message id");
        let send = || {
            let options = SendOptions { id: Some(message.clone()), receipt };
            self.client.send_with(name, self.data(n), options)
        };
        confirmed(id, |what| lock(&self.ledger).note(what), send).await;
    }

    fn data(&self, n: u64) -> Value {
        if self.padding == 0 { json!({ "n": n }) } else { json!({ "n": n, "pad": "x".repeat(self.padding) }) }
    }
}
