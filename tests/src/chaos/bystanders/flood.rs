//! A session that says one command after the other, as many at a time as it likes. What is `rate_limited` it repeats
//! under its id, the earliest first: what comes after a refusal would only be refused.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::peer::{BROKEN, Door, Socket};

/// Before a session that was closed comes again: it obeys no close code.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Before a refused command is repeated: the shortest time that is asked for.
const REPEATED_AFTER: Duration = Duration::from_millis(20);

/// What an attack was answered.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Commands that were done.
    pub ok: u64,
    /// Commands that were `rate_limited`, or requests that were 429: the point of the limits.
    pub limited: u64,
    /// Other refusals, by their code.
    pub refused: BTreeMap<String, u64>,
    /// Sockets that were closed, by the close code.
    pub closed: BTreeMap<u16, u64>,
    /// All that was sent to the attacker.
    pub bytes: u64,
    /// What must not have come of it.
    pub flaws: Vec<String>,
    /// What is worth a line.
    pub notes: Vec<String>,
}

/// Of a reply, what is counted.
#[derive(Deserialize)]
struct Reply {
    r#type: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    ok: Option<IgnoredAny>,
    #[serde(default)]
    error: Option<Code>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

impl Reply {
    fn is_limited(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.code == "rate_limited")
    }
}

impl Answered {
    pub(super) fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.limited += other.limited;
        self.bytes += other.bytes;
        for (code, n) in other.refused {
            *self.refused.entry(code).or_default() += n;
        }
        for (code, n) in other.closed {
            *self.closed.entry(code).or_default() += n;
        }
        self.flaws.extend(other.flaws);
        self.notes.extend(other.notes);
    }

    pub(super) fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|one| sum.add(one));
        sum
    }

    /// One more close.
    pub(super) fn closed_with(&mut self, code: u16) {
        *self.closed.entry(code).or_default() += 1;
    }

    /// The answer to one request.
    pub(super) fn status(&mut self, status: u16) {
        match status {
            200..=299 => self.ok += 1,
            429 => self.limited += 1,
            other => *self.refused.entry(other.to_string()).or_default() += 1,
        }
    }

    fn reply(&mut self, reply: &Reply) {
        match &reply.error {
            Some(_) if reply.is_limited() => self.limited += 1,
            Some(error) => *self.refused.entry(error.code.clone()).or_default() += 1,
            None if reply.ok.is_some() => self.ok += 1,
            None => {}
        }
    }
}

/// One flood of one session.
pub(super) struct Flood<'a> {
    pub door: &'a Door,
    pub user: String,
    /// Commands without a reply at a time.
    pub at_a_time: usize,
    pub until: Instant,
}

impl Flood<'_> {
    /// Says what `next` gives, until it gives nothing or the time is over. A socket that is closed is opened again.
    pub(super) async fn say(&self, mut next: impl FnMut(&Answered) -> Option<Value>) -> Answered {
        let mut answered = Answered::default();
        while Instant::now() < self.until {
            let Ok(peer) = self.door.come(&self.user, &json!({})).await else { break };
            if self.over(peer.socket, &mut next, &mut answered).await {
                break;
            }
            sleep(AGAIN_AFTER).await;
        }
        answered
    }

    /// Over one socket; true if there is nothing more to say. It writes while it reads: a server that waits for its
    /// answers to be read would wait for ever for one that does not.
    async fn over(
        &self,
        socket: Socket,
        next: &mut impl FnMut(&Answered) -> Option<Value>,
        answered: &mut Answered,
    ) -> bool {
        let (mut sink, mut stream) = socket.split();
        let places = Semaphore::new(self.at_a_time);
        let (said, heard, all_said) = (Cell::new(0_u64), Cell::new(0_u64), Cell::new(false));
        let answers = RefCell::new(answered);
        let under_way: RefCell<HashMap<String, Utf8Bytes>> = RefCell::default();
        let again: RefCell<VecDeque<(String, Utf8Bytes)>> = RefCell::default();
        let writing = async {
            loop {
                // Never closed here.
                let Ok(place) = places.acquire().await else { return };
                place.forget();
                let refused = again.borrow_mut().pop_front();
                let (id, text) = if let Some(refused) = refused {
                    sleep(REPEATED_AFTER).await;
                    refused
                } else {
                    let Some(frame) = next(&answers.borrow()) else { break };
                    (frame["id"].as_str().unwrap_or_default().to_owned(), frame.to_string().into())
                };
                said.set(said.get() + 1);
                under_way.borrow_mut().insert(id, text.clone());
                if sink.send(Message::Text(text)).await.is_err() {
                    break;
                }
            }
            all_said.set(true);
            if heard.get() < said.get() {
                // Whoever reads says when it is over.
                std::future::pending::<()>().await;
            }
        };
        let reading = async {
            while !(all_said.get() && heard.get() == said.get()) {
                let text = match stream.next().await {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(Message::Close(frame))) => {
                        answers.borrow_mut().closed_with(frame.map_or(BROKEN, |f| f.code.into()));
                        return false;
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => {
                        answers.borrow_mut().closed_with(BROKEN);
                        return false;
                    }
                };
                let mut answers = answers.borrow_mut();
                answers.bytes += text.len() as u64;
                let Ok(frame) = serde_json::from_str::<Reply>(&text) else { continue };
                if frame.r#type == "reply" {
                    answers.reply(&frame);
                    let said = frame.id.as_ref().and_then(|id| under_way.borrow_mut().remove_entry(id));
                    if let Some(said) = said.filter(|_| frame.is_limited()) {
                        again.borrow_mut().push_back(said);
                    }
                    heard.set(heard.get() + 1);
                    places.add_permits(1);
                }
            }
            true
        };
        tokio::select! {
            () = writing => true,
            done = reading => done,
            () = sleep_until(self.until) => true,
        }
    }
}

/// A text of so many bytes.
pub(super) fn padding(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Ids that nobody had before.
#[derive(Debug)]
pub(super) struct Ids {
    series: String,
    n: u64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { series: format!("{:016x}", rand::random::<u64>()), n: 0 }
    }

    pub(super) fn next(&mut self) -> String {
        self.n += 1;
        format!("{}-{}", self.series, self.n)
    }
}
