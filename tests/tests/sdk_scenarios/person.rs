//! A user with a client of the SDK, and what that client told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use roost_client::{Builder, Client, Event, Message, State};
use roost_proto::claims::Role;
use roost_tests::cluster::{Cluster, eventually, now_s, token, token_of};
use roost_tests::wire::{LIMIT, request_with};
use serde_json::Value;
use tokio::task::JoinSet;

pub(crate) struct Person {
    pub name: String,
    pub client: Client,
    told: Arc<Mutex<Vec<Event>>>,
    _listening: JoinSet<()>,
}

/// A client of `user` that asks at `url`, with short waits.
pub(crate) fn builder(url: &str, user: &str) -> Builder {
    let waits = (Duration::from_millis(20), Duration::from_millis(300));
    Client::builder(url).token(token(user, now_s() + 3_600)).user(user).backoff(waits.0, waits.1)
}

impl Person {
    /// With a client made by this builder; it may not be connected yet.
    pub(crate) async fn with(builder: Builder) -> Self {
        let (client, mut events) = builder.connect().await.expect("a usable client");
        let told = Arc::new(Mutex::new(Vec::new()));
        let (mut listening, heard) = (JoinSet::new(), Arc::clone(&told));
        listening.spawn(async move {
            while let Some(event) = events.recv().await {
                lock(&heard).push(event);
            }
        });
        Self { name: client.user().to_string(), client, told, _listening: listening }
    }

    /// Connected, and asks at `url`.
    pub(crate) async fn at(url: &str, user: &str) -> Self {
        let person = Self::with(builder(url, user)).await;
        person.client.connected(LIMIT).await.expect("connected");
        person
    }

    /// Connected, and at home at this node.
    pub(crate) async fn home(cluster: &Cluster, node: usize) -> Self {
        Self::at(&cluster.url(), &cluster.user_at(node).await).await
    }

    /// What was told so far.
    pub(crate) fn told(&self) -> Vec<Event> {
        lock(&self.told).clone()
    }

    /// What was told so far, as far as it is this.
    pub(crate) fn told_of<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> Vec<T> {
        self.told().into_iter().filter_map(wanted).collect()
    }

    /// Waits until something was told.
    pub(crate) async fn hears<T>(&self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        eventually(what, async || self.told().iter().find_map(&wanted)).await
    }

    /// The states so far, in a word each.
    pub(crate) fn states(&self) -> Vec<&'static str> {
        self.told_of(|event| match event {
            Event::State { current, .. } => Some(match current {
                State::Disconnected => "disconnected",
                State::Connecting => "connecting",
                State::Connected { .. } => "connected",
                State::Reconnecting => "reconnecting",
                State::Failed(_) => "failed",
                _ => "another",
            }),
            _ => None,
        })
    }

    /// The messages of the inbox so far, or of rooms.
    pub(crate) fn messages(&self, of_room: bool) -> Vec<Message> {
        let message = |event| if let Event::Message(message) = event { Some(message) } else { None };
        self.told_of(message).into_iter().filter(|m| m.stream.is_room() == of_room).collect()
    }

    /// What the messages of the inbox said so far.
    pub(crate) fn got(&self) -> Vec<Value> {
        self.messages(false).iter().map(data_of).collect()
    }

    /// Waits until the inbox has so many messages, and gives what they said.
    pub(crate) async fn gets(&self, n: usize) -> Vec<Value> {
        let enough = async || Some(self.got()).filter(|got| got.len() >= n);
        eventually(&format!("{} has {n} messages", self.name), enough).await
    }

    /// Sends these numbers, one behind the other, and waits until all are confirmed.
    pub(crate) async fn sends(&self, to: &str, numbers: std::ops::Range<u64>) {
        for sent in join_all(numbers.map(|n| self.client.send(to, n))).await {
            sent.expect("confirmed");
        }
    }
}

fn lock(told: &Mutex<Vec<Event>>) -> MutexGuard<'_, Vec<Event>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn data_of(message: &Message) -> Value {
    serde_json::from_str(message.data.get()).expect("data is JSON")
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

/// Has an operator, or a back end of the application, ask for something.
pub(crate) async fn ask(cluster: &Cluster, path: &str, body: Value) {
    let authorization = format!("Bearer {}", token_of("backend", Role::Service));
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = body.to_string();
    eventually("it is done", async || {
        let answer = request_with("POST", &cluster.url(), path, &headers, &body).await;
        // It may be repeated, and must be while a node is gone and not replaced.
        assert!(answer.status < 300 || answer.status >= 500, "{path}: {answer:?}");
        (answer.status < 300).then_some(())
    })
    .await;
}
