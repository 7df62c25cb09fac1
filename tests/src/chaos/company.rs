//! What users do beside sending to each other: some sit in rooms and publish, some watch those who come and go, some ask
//! the application's processor, and some never come and are sent messages all the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use roost_client::{Client, JoinOptions, MessageId, SendError};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::options::Options;
use super::processor::Processor;
use crate::conversation::{SEND_TIMEOUT, Speech, Talk, at_pace, confirmed, status_word};
use crate::history::What;

pub const ROOMS: usize = 5;
/// Of all clients, so many sit in a room, and at least two in each.
const IN_ROOMS: f64 = 0.15;
/// Of all clients, so many watch those who come and go.
const WATCHERS: f64 = 0.05;
/// Of the rate of messages, so much is published to rooms beside them, and so much are events.
const PUBLISHED: f64 = 1.0 / 12.0;
const EVENTS: f64 = 1.0 / 60.0;
/// Users who give events to the processor.
const ASKERS: usize = 10;
/// Users who never come, those who send to them, and how often each of those does.
pub const ABSENT: usize = 3;
const CALLERS: usize = 2;
const CALL_EVERY: Duration = Duration::from_secs(1);
/// After the last event, for those that are still without an answer: then they are without one for good.
const LAST_ANSWERS: Duration = Duration::from_secs(20);

type Note = Arc<dyn Fn(What) + Send + Sync>;

/// All of that, until it ends.
pub struct Company {
    stop: watch::Sender<bool>,
    publishing: Vec<JoinHandle<()>>,
    asking: Vec<JoinHandle<()>>,
    calling: Speech,
    event_timeout: Duration,
    _processor: Processor,
}

impl Company {
    /// Everybody is where they will be when this returns, and everything goes on from now on.
    ///
    /// # Errors
    /// If the processor does not start.
    ///
    /// # Panics
    /// If somebody may not come in.
    pub async fn gather(
        options: &Options,
        talk: &Talk,
        talkers: &[usize],
        visitors: &[String],
        brokers: String,
    ) -> anyhow::Result<Self> {
        let note: Note = Arc::new(talk.noter());
        let members = ((options.clients as f64 * IN_ROOMS) as usize).max(2 * ROOMS).min(talkers.len());
        let watchers = ((options.clients as f64 * WATCHERS) as usize).max(1).min(talkers.len());
        join_all(talkers.iter().take(members).map(|user| join(talk, &note, *user))).await;
        join_all(talkers.iter().rev().take(watchers).map(|user| watch(talk, &note, *user, visitors))).await;
        let processor = Processor::start(brokers).await?;
        let (stop, stopped) = watch::channel(false);
        let every =
            |share: f64, of: usize| Duration::from_secs_f64(of as f64 / (options.rate as f64 * share));
        let spread = |pace: Duration, i: usize, of: usize| pace.mul_f64(i as f64 / of as f64);
        let (pace, askers) = (every(PUBLISHED, members), ASKERS.min(talkers.len()));
        let publishing = talkers.iter().take(members).enumerate().map(|(i, user)| {
            let publisher = Publisher::of(talk, &note, *user);
            tokio::spawn(publisher.publish(pace, spread(pace, i, members), stopped.clone()))
        });
        let publishing = publishing.collect();
        let pace = every(EVENTS, askers);
        let asking = talkers.iter().skip(members / 2).take(askers).enumerate().map(|(i, user)| {
            let asker = Asker::of(talk, &note, *user);
            tokio::spawn(asker.ask(pace, spread(pace, i, askers), stopped.clone()))
        });
        let asking = asking.collect();
        let first = talk.people.len();
        let absent: Vec<usize> = (first..first + talk.elsewhere.len()).collect();
        let calling = talk.speak(&talkers[..CALLERS.min(talkers.len())], &absent, CALL_EVERY);
        let event_timeout = Duration::from_millis(options.made(0).event_timeout_ms);
        Ok(Self { stop, publishing, asking, calling, event_timeout, _processor: processor })
    }

    /// Nothing new begins; returns when everything was confirmed that will be.
    ///
    /// # Panics
    /// If something that was published is not confirmed.
    pub async fn end(self) {
        self.stop.send_replace(true);
        self.calling.end().await;
        let ended = timeout(SEND_TIMEOUT, join_all(self.publishing)).await;
        assert!(ended.is_ok(), "publications are not confirmed within {SEND_TIMEOUT:?}");
        // Of an event that Redis lost nothing is known any more: nobody will answer.
        let aborts: Vec<_> = self.asking.iter().map(JoinHandle::abort_handle).collect();
        if timeout(self.event_timeout + LAST_ANSWERS, join_all(self.asking)).await.is_err() {
            aborts.into_iter().for_each(|asking| asking.abort());
        }
    }
}

fn room_of(talk: &Talk, user: usize) -> String {
    // The run is in the name of its users.
    let run = talk.people[user].name.split('-').next().unwrap_or_default();
    format!("{run}-room-{}", user % ROOMS)
}

async fn join(talk: &Talk, note: &Note, user: usize) {
    let room = room_of(talk, user);
    let joined = talk.people[user].client.join(&room, JoinOptions::default()).await;
    joined.expect("users come into their rooms");
    note(What::Joined { user, room });
}

/// What the answer says comes as an event, too; it is noted at once all the same.
async fn watch(talk: &Talk, note: &Note, user: usize, whom: &[String]) {
    note(What::Watching { user, whom: whom.to_vec() });
    let shown = talk.people[user].client.watch(whom).await.expect("who comes and goes may be watched");
    let statuses = shown.into_iter().map(|p| (p.user.to_string(), status_word(p.status).to_owned()));
    note(What::Shown { user, statuses: statuses.collect() });
}

/// One who publishes to a room.
struct Publisher {
    user: usize,
    name: String,
    room: String,
    client: Client,
    note: Note,
}

impl Publisher {
    fn of(talk: &Talk, note: &Note, user: usize) -> Self {
        let person = &talk.people[user];
        let (name, client) = (person.name.clone(), person.client.clone());
        Self { user, name, room: room_of(talk, user), client, note: Arc::clone(note) }
    }

    async fn publish(self, pace: Duration, offset: Duration, stopped: watch::Receiver<bool>) {
        let (this, mut numbers) = (&self, 1..);
        at_pace(pace, offset, stopped, || this.one(numbers.next().expect("another number"))).await;
    }

    async fn one(&self, n: u64) {
        let Self { user, name, room, client, note } = self;
        let id = format!("{name}-p{n}");
        note(What::Published { id: id.clone(), user: *user, room: room.clone(), n });
        let message = MessageId::new(&id).expect("a message id");
        let publish = || client.publish_with_id(message.clone(), room, json!({ "n": n }));
        confirmed(id, |what| note(what), publish).await;
    }
}

/// One who gives events to the processor.
struct Asker {
    user: usize,
    name: String,
    client: Client,
    note: Note,
}

impl Asker {
    fn of(talk: &Talk, note: &Note, user: usize) -> Self {
        let person = &talk.people[user];
        let (name, client) = (person.name.clone(), person.client.clone());
        Self { user, name, client, note: Arc::clone(note) }
    }

    async fn ask(self, pace: Duration, offset: Duration, stopped: watch::Receiver<bool>) {
        let (this, mut numbers) = (&self, 1_u64..);
        at_pace(pace, offset, stopped, || this.one(numbers.next().expect("another number"))).await;
    }

    async fn one(&self, n: u64) {
        let Self { user, name, client, note } = self;
        let id = format!("{name}-e{n}");
        note(What::Asked { id: id.clone(), user: *user });
        let event = MessageId::new(&id).expect("a message id");
        note(match client.event_with_id(event, json!({ "n": n })).await {
            Ok(_) => What::Answered { id, timed_out: false },
            Err(SendError::TimedOut { .. }) => What::Answered { id, timed_out: true },
            Err(error) => What::Unanswered { id, why: error.to_string() },
        });
    }
}
