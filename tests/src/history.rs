//! What happened in a run, line by line: what users sent and saw, and what was done to the cluster.
//!
//! A [`Ledger`](crate::ledger::Ledger) is made of these while a run goes on, and again from the file afterwards:
//! whoever judges needs nothing but the file. Users are numbers; their names are in the first line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Generation and offset.
pub type Place = (u64, u64);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// With what the run was made, and what users are called.
    Run {
        seed: u64,
        settings: String,
        names: Vec<String>,
        #[serde(default)]
        made: Made,
    },
    /// The application gave this to the SDK; `n` is 1, 2, 3… from this sender to this receiver.
    Sent {
        id: String,
        from: usize,
        to: usize,
        n: u64,
        /// The sender wants to be told what becomes of it.
        #[serde(default)]
        receipt: bool,
    },
    /// It was confirmed.
    Acked { id: String },
    /// There was no answer in the SDK's time, and the application asked again.
    Repeated { id: String },
    /// It ended otherwise.
    Refused { id: String, why: String },
    /// The SDK handed a message of the inbox to the application of this user; what is no message of somebody has the id
    /// that [`shown_id`](crate::chat::shown_id) gives it.
    Arrived { user: usize, generation: u64, offset: u64, id: String },
    /// It said that everything after `from`, up to `to`, has to be read from the history.
    Missed { user: usize, from: Option<Place>, to: Place },
    /// A connection was won (with this node) or lost.
    State { user: usize, node: Option<String> },
    /// The application of this user said that everything up to there is read.
    Read { user: usize, generation: u64, offset: u64 },
    /// This user came into a room before anything was published there, to stay.
    Joined { user: usize, room: String },
    /// The application gave this to the SDK for a room; `n` is 1, 2, 3… of this user in this room. Confirmed and refused
    /// as a message.
    Published { id: String, user: usize, room: String, n: u64 },
    /// The SDK handed a message of a room to the application of this user.
    ShownInRoom { user: usize, room: String, generation: u64, offset: u64, id: String },
    /// It said that everything of the room after `from`, up to `to`, has to be read from the history.
    MissedInRoom { user: usize, room: String, from: Option<Place>, to: Place },
    /// This user watches these.
    Watching { user: usize, whom: Vec<String> },
    /// A watcher was told what these show.
    Shown { user: usize, statuses: BTreeMap<String, String> },
    /// The SDK said that a room is lost to this user, or somebody cannot be watched any more.
    Excluded { user: usize, from: String, why: String },
    /// The application gave an event to the SDK.
    Asked { id: String, user: usize },
    /// The call returned: with a result, or because none came in time.
    Answered { id: String, timed_out: bool },
    /// It ended otherwise.
    Unanswered { id: String, why: String },
    /// What Redis took in in the last `back_ms` may be gone, and it may come again.
    DataLost { round: usize, back_ms: u64 },
    /// A fault begins; these users' home is hit, or stands behind what is.
    Began { round: usize, fault: String, detail: String, affected: Vec<usize> },
    /// What was done is undone.
    Ended { round: usize },
    /// Who recovers from this fault is counted from its end.
    Outage { round: usize },
    /// Everyone who was hit has new messages again and nothing waits for a confirmation; or, within the limit, not
    /// everyone.
    Recovered { round: usize, missing: Vec<usize> },
    /// A process ended that nobody had ended.
    Died { round: usize, process: String },
    /// Long after the fault: who should be online, whom `/presence` shows otherwise, and where each partition of
    /// `user_status_events` and of `chat_events` ends.
    Settled {
        round: usize,
        online: Vec<String>,
        offline: Vec<String>,
        wrong: BTreeMap<String, String>,
        status_ends: Vec<u64>,
        chat_ends: Vec<u64>,
    },
}

/// What a checker must know of how a run was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Made {
    /// Of the names, so many at the end are of users who never come.
    pub absent: usize,
    pub grace_ms: u64,
    pub undelivered_after_ms: u64,
    pub event_timeout_ms: u64,
}

/// With the time since the run began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub at_us: u64,
    #[serde(flatten)]
    pub what: What,
}

impl What {
    fn is_milestone(&self) -> bool {
        !matches!(
            self,
            Self::Sent { .. }
                | Self::Acked { .. }
                | Self::Arrived { .. }
                | Self::Read { .. }
                | Self::Published { .. }
                | Self::ShownInRoom { .. }
                | Self::Shown { .. }
                | Self::Asked { .. }
                | Self::Answered { .. }
        )
    }
}

/// The file of a run that goes on.
#[derive(Debug)]
pub struct History {
    file: BufWriter<File>,
    began: Instant,
}

impl History {
    /// Begins now.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self { file: BufWriter::new(file), began: Instant::now() })
    }

    /// # Panics
    /// If the file cannot be written.
    pub fn note(&mut self, at: Instant, what: &What) {
        let at_us = u64::try_from((at - self.began).as_micros()).expect("a run is shorter than that");
        let line = Line { at_us, what: what.clone() };
        serde_json::to_writer(&mut self.file, &line).expect("a line is written");
        self.file.write_all(b"\n").expect("a line is written");
        // Whoever looks at a run that stopped finds at least the fault in it.
        if what.is_milestone() {
            self.file.flush().expect("lines are written");
        }
    }
}

/// Reads the file of a run.
///
/// # Errors
/// If there is none, or a line is not one of ours.
pub fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let line = |(n, text): (usize, std::io::Result<String>)| {
        serde_json::from_str(&text?).with_context(|| format!("{}:{}", path.display(), n + 1))
    };
    BufReader::new(file).lines().enumerate().map(line).collect()
}
