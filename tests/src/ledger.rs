//! What was sent, confirmed and received, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::chat::is_nobodys;
use crate::history::{History, Place, What};

/// One message, from the moment the application gave it to the SDK.
#[derive(Debug, Clone)]
pub struct Sent {
    pub from: usize,
    pub to: usize,
    /// 1, 2, 3… of this sender to this receiver.
    pub n: u64,
    /// The sender wants to be told what becomes of it.
    pub receipt: bool,
    pub at: Instant,
    pub acked: Option<Instant>,
    /// For the first time.
    pub arrived: Option<Instant>,
}

/// One message to a room.
#[derive(Debug, Clone)]
pub struct Published {
    pub from: usize,
    pub room: String,
    /// 1, 2, 3… of this user in this room.
    pub n: u64,
    pub at: Instant,
    pub acked: Option<Instant>,
}

/// One message that the SDK handed to the application.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub at: Instant,
    /// Whose inbox.
    pub user: usize,
    pub generation: u64,
    pub offset: u64,
    pub id: String,
}

/// Somebody was told that messages were missed, or that the stream began anew.
#[derive(Debug, Clone)]
pub struct Missed {
    pub at: Instant,
    pub user: usize,
    pub from: Option<Place>,
    pub to: Place,
}

/// Everything that the users of one test saw. Users are indices.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By message id.
    pub sent: BTreeMap<String, Sent>,
    /// By message id.
    pub published: BTreeMap<String, Published>,
    pub arrived: Vec<Arrived>,
    /// Connections won (true) and lost.
    pub states: Vec<(Instant, usize, bool)>,
    pub missed: Vec<Missed>,
    /// Sends that the SDK did not confirm in its time, and that the application repeated.
    pub repeated: usize,
    /// Answers that must not be: refusals, and sends withdrawn.
    pub refused: Vec<Flaw>,
    /// From whom, to whom: the last number.
    last_n: BTreeMap<(usize, usize), u64>,
    /// Where everything is written down too.
    history: Option<History>,
}

/// One thing that must not be, and the message it is about, if it is about one.
#[derive(Debug, Clone)]
pub struct Flaw {
    pub id: Option<String>,
    pub what: String,
}

impl Flaw {
    pub fn of(id: &str, what: impl Into<String>) -> Self {
        Self { id: Some(id.to_owned()), what: what.into() }
    }
}

/// What is wrong with what arrived. Empty lists are what is wanted.
#[derive(Debug, Default)]
pub struct Flaws {
    pub lost: Vec<Flaw>,
    pub doubled: Vec<Flaw>,
    pub disordered: Vec<Flaw>,
}

impl Flaws {
    /// # Panics
    /// If there are any.
    pub fn refuse(&self, what: &str) {
        assert!(
            self.lost.is_empty() && self.doubled.is_empty() && self.disordered.is_empty(),
            "{what}: {self:#?}"
        );
    }
}

impl Ledger {
    /// One that writes a history.
    pub fn with(history: History) -> Self {
        Self { history: Some(history), ..Self::default() }
    }

    /// This happened now.
    pub fn note(&mut self, what: What) {
        let now = Instant::now();
        if let Some(history) = &mut self.history {
            history.note(now, &what);
        }
        self.apply(now, what);
    }

    /// This happened then. What has to do with the cluster alone changes nothing.
    pub fn apply(&mut self, at: Instant, what: What) {
        match what {
            What::Sent { id, from, to, n, receipt } => {
                self.last_n.insert((from, to), n);
                self.sent.insert(id, Sent { from, to, n, receipt, at, acked: None, arrived: None });
            }
            What::Published { id, user, room, n } => {
                self.published.insert(id, Published { from: user, room, n, at, acked: None });
            }
            What::Acked { id } => {
                if let Some(sent) = self.sent.get_mut(&id) {
                    sent.acked = Some(at);
                } else if let Some(published) = self.published.get_mut(&id) {
                    published.acked = Some(at);
                }
            }
            What::Repeated { .. } => self.repeated += 1,
            What::Refused { id, why } => self.refused.push(Flaw::of(&id, why)),
            What::Arrived { user, generation, offset, id } => {
                if let Some(sent) = self.sent.get_mut(&id) {
                    sent.arrived.get_or_insert(at);
                }
                self.arrived.push(Arrived { at, user, generation, offset, id });
            }
            What::Missed { user, from, to } => self.missed.push(Missed { at, user, from, to }),
            What::State { user, node } => self.states.push((at, user, node.is_some())),
            _ => {}
        }
    }

    /// Notes the next message of one to another, under an id that begins with `prefix`; its number and its id.
    pub fn send(&mut self, prefix: &str, from: usize, to: usize, receipt: bool) -> (u64, String) {
        let n = self.last_n.get(&(from, to)).unwrap_or(&0) + 1;
        let id = format!("{prefix}-{to}-{n}");
        self.note(What::Sent { id: id.clone(), from, to, n, receipt });
        (n, id)
    }

    /// When this was given to the SDK, for a user or for a room; of what nobody sent, when it was first shown.
    pub fn when(&self, id: &str) -> Option<Instant> {
        let published = || Some(self.published.get(id)?.at);
        let shown = || self.arrived.iter().find(|a| a.id == id).map(|a| a.at);
        self.sent.get(id).map(|s| s.at).or_else(published).or_else(shown)
    }

    /// How many confirmed messages, of those given to the SDK since `since`, have not arrived.
    pub fn missing(&self, since: Instant) -> usize {
        let missing = |s: &&Sent| s.at >= since && s.acked.is_some() && s.arrived.is_none();
        self.sent.values().filter(missing).count()
    }

    /// Confirmed messages given to the SDK since then.
    pub fn acked_since(&self, since: Instant) -> usize {
        self.sent.values().filter(|s| s.at >= since && s.acked.is_some()).count()
    }

    /// Each confirmed message, of those given to the SDK since `since`, arrived; and each one at its receiver, once, in
    /// the order of its sender and of its inbox.
    pub fn flaws(&self, since: Instant) -> Flaws {
        let mut flaws = Flaws::default();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut others: BTreeSet<(usize, &str)> = BTreeSet::new();
        let mut last_n: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        let mut last_cursor: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for a in &self.arrived {
            let cursor = (a.generation, a.offset);
            if let Some(last) = last_cursor.insert(a.user, cursor)
                && cursor <= last
            {
                let what = format!("inbox of {}: {cursor:?} after {last:?}", a.user);
                flaws.disordered.push(Flaw::of(&a.id, what));
            }
            if is_nobodys(&a.id) {
                if !others.insert((a.user, &a.id)) {
                    flaws.doubled.push(Flaw::of(&a.id, format!("shown again at {cursor:?}")));
                }
                continue;
            }
            let Some(s) = self.sent.get(&a.id).filter(|s| s.to == a.user) else {
                let what = format!("it came to {}, who was not meant", a.user);
                flaws.disordered.push(Flaw::of(&a.id, what));
                continue;
            };
            if !seen.insert(&a.id) {
                flaws.doubled.push(Flaw::of(&a.id, format!("shown again at {cursor:?}")));
            }
            let last = last_n.insert((s.from, s.to), s.n).unwrap_or(0);
            if s.n <= last {
                flaws.disordered.push(Flaw::of(&a.id, format!("after number {last} of its sender")));
            }
        }
        let due = self.sent.iter().filter(|(_, s)| s.at >= since && s.acked.is_some());
        let lost = due.filter(|(id, _)| !seen.contains(id.as_str()));
        flaws.lost = lost.map(|(id, _)| Flaw::of(id, "it did not arrive")).collect();
        flaws
    }

    /// How long each send took to be confirmed.
    pub fn reply_times(&self) -> Vec<Duration> {
        self.sent.values().filter_map(|s| Some(s.acked? - s.at)).collect()
    }

    /// How long each message took to arrive.
    pub fn delivery_times(&self) -> Vec<Duration> {
        self.sent.values().filter_map(|s| Some(s.arrived? - s.at)).collect()
    }

    /// For each of these users, the longest that nothing arrived in the given span, counted from the last arrival
    /// before it and to the first one after it.
    pub fn gaps(&self, users: &[usize], from: Instant, to: Instant) -> Vec<Duration> {
        let gap = |user: &usize| {
            let at: Vec<Instant> = self.arrived.iter().filter(|a| a.user == *user).map(|a| a.at).collect();
            let pairs = at.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
            pairs.map(|pair| pair[1] - pair[0]).max()
        };
        users.iter().filter_map(gap).collect()
    }

    /// The longest that this user was without a connection after the first one.
    pub fn longest_absence(&self, user: usize) -> Duration {
        let mut lost: Option<Instant> = None;
        let mut connected_before = false;
        let mut longest = Duration::ZERO;
        for (at, _, connected) in self.states.iter().filter(|(_, u, _)| *u == user) {
            if *connected {
                longest = longest.max(lost.take().map_or(Duration::ZERO, |lost| *at - lost));
                connected_before = true;
            } else if connected_before {
                lost.get_or_insert(*at);
            }
        }
        longest
    }
}

/// The `q`-th part of a list, such as 0.95; zero of an empty one.
pub fn quantile(times: &[Duration], q: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or_default()
}
