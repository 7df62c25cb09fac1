//! What `chat_events` must say, given what users sent and saw.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use roost_backend::log::{LogRecord, Position};
use roost_client::Message;
use roost_proto::events::PARTITIONS;
use serde_json::Value;

use crate::history::Place;
use crate::ledger::{Flaw, Ledger};
use crate::processes::VNODES;

/// The kind of what users send.
const MESSAGE: &str = "message";

/// What is in `chat_events`.
#[derive(Debug, Default)]
pub struct Chat {
    pub flaws: ChatFlaws,
    /// Where there are records that are copies, equal to the byte (core rule 12).
    pub copies: Vec<Position>,
    /// How many a stream had at most.
    pub generations: usize,
    /// Where each message is: stream, generation and offset, in this order.
    places: BTreeMap<(usize, Place), String>,
}

/// What a message is called here: its id, and for receipts and results, whose ids are not their senders', all that makes
/// them one.
pub fn shown_id(m: &Message) -> String {
    if m.kind == MESSAGE { m.id.to_string() } else { format!("{}/{}/{}", m.kind, m.from, m.id) }
}

/// Whether this is a receipt or a result: nothing that a user of a test sent. No id of a message has a slash.
pub fn is_nobodys(id: &str) -> bool {
    id.contains('/')
}

/// What is wrong with it.
#[derive(Debug, Default)]
pub struct ChatFlaws {
    /// Confirmed messages that are not there.
    pub lost: Vec<Flaw>,
    /// Messages with more than one place in one generation of their stream.
    pub doubled: Vec<Flaw>,
    /// Places that name two messages.
    pub two_in_one: Vec<Flaw>,
    /// Holes in a stream, and messages of one sender out of order.
    pub disordered: Vec<Flaw>,
    /// Places where readers were not shown what the log has.
    pub other: Vec<Flaw>,
}

impl ChatFlaws {
    /// Of whatever kind.
    pub fn all(self) -> impl Iterator<Item = Flaw> {
        let Self { lost, doubled, two_in_one, disordered, other } = self;
        [lost, doubled, two_in_one, disordered, other].into_iter().flatten()
    }

    /// # Panics
    /// If there are any.
    pub fn refuse(&self) {
        let all = [&self.lost, &self.doubled, &self.two_in_one, &self.disordered, &self.other];
        assert!(all.iter().all(|flaws| flaws.is_empty()), "chat_events: {self:#?}");
    }
}

impl Chat {
    /// Judges the inboxes of these users by the ledger.
    ///
    /// # Panics
    /// If a record is not what is documented.
    pub fn judge(records: &[LogRecord], names: &[String], ledger: &Ledger) -> Self {
        let inboxes: Vec<String> = names.iter().map(|name| format!("user:{name}")).collect();
        Self::of_streams(records, &inboxes, names, ledger)
    }

    /// Judges these streams, each of which the ledger has as a receiver; `names` are those of the senders.
    ///
    /// # Panics
    /// If a record is not what is documented.
    pub fn of_streams(records: &[LogRecord], streams: &[String], names: &[String], ledger: &Ledger) -> Self {
        let mut chat = Self::default();
        let streams: BTreeMap<&str, usize> = streams.iter().map(String::as_str).zip(0..).collect();
        let mut payloads: BTreeMap<(usize, Place), &[u8]> = BTreeMap::new();
        for record in records {
            let m: Message = serde_json::from_slice(&record.payload).expect("chat_events has messages");
            assert_eq!(record.key, m.stream.as_str().as_bytes(), "the key of chat_events is the stream");
            // Nodes have canaries, who write to themselves.
            let Some(to) = streams.get(m.stream.as_str()).copied() else { continue };
            let vnode = roost_ring::vnode_of_stream(&m.stream, u32::from(VNODES));
            let partition = u32::from(vnode.0) % PARTITIONS;
            assert_eq!(record.position.partition, partition, "the partition of {}", m.stream);
            let place = (to, (m.generation.0, m.offset.0));
            let id = shown_id(&m);
            match payloads.get(&place) {
                Some(first) if *first == record.payload => chat.copies.push(record.position),
                Some(_) => {
                    let what = format!("it is at {place:?}, and so is {}", chat.places[&place]);
                    chat.flaws.two_in_one.push(Flaw::of(&id, what));
                }
                None => {
                    payloads.insert(place, &record.payload);
                    if let Some(sent) = ledger.sent.get(&id) {
                        assert_eq!((m.from.as_str(), to), (names[sent.from].as_str(), sent.to), "{id}");
                        let data: Value = serde_json::from_str(m.data.get()).expect("data is JSON");
                        assert_eq!(data["n"], sent.n, "the data of {id}");
                    }
                    chat.places.insert(place, id);
                }
            }
        }
        chat.judge_order(ledger);
        let second = chat.flaws.two_in_one.iter().filter_map(|flaw| flaw.id.as_deref());
        let there: BTreeSet<&str> = chat.places.values().map(String::as_str).chain(second).collect();
        let acked = ledger.sent.iter().filter(|(_, s)| s.acked.is_some());
        let lost = acked.filter(|(id, _)| !there.contains(id.as_str()));
        chat.flaws.lost = lost.map(|(id, _)| Flaw::of(id, "it is not in chat_events")).collect();
        chat.flaws.other = chat.shown_otherwise(ledger);
        chat
    }

    fn judge_order(&mut self, ledger: &Ledger) {
        let mut found: BTreeMap<(&str, u64), usize> = BTreeMap::new();
        let mut last: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        let mut last_n: BTreeMap<(usize, usize, u64), u64> = BTreeMap::new();
        let mut generations: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for ((user, (generation, offset)), id) in &self.places {
            generations.entry(*user).or_default().insert(*generation);
            let before = last.insert((*user, *generation), *offset).unwrap_or(0);
            if *offset != before + 1 {
                let what = format!("inbox of {user} in {generation}: {offset} after {before}");
                self.flaws.disordered.push(Flaw::of(id, what));
            }
            let times = found.entry((id, *generation)).or_default();
            *times += 1;
            if *times > 1 {
                self.flaws.doubled.push(Flaw::of(id, format!("once more at {offset} in {generation}")));
            }
            let Some(s) = ledger.sent.get(id) else { continue };
            let before = last_n.insert((s.from, s.to, *generation), s.n).unwrap_or(0);
            if s.n <= before {
                let what = format!("at {offset} in {generation}, after number {before} of its sender");
                self.flaws.disordered.push(Flaw::of(id, what));
            }
        }
        self.generations = generations.values().map(BTreeSet::len).max().unwrap_or(0);
    }

    /// Where readers were not shown what the log has: another message at a place, or none at one between two that
    /// they were shown. A message that came again in a new generation is shown once (core rule 32).
    pub fn shown_otherwise(&self, ledger: &Ledger) -> Vec<Flaw> {
        let mut other = Vec::new();
        let mut last: BTreeMap<usize, Place> = BTreeMap::new();
        let mut shown: BTreeSet<(usize, &str)> = BTreeSet::new();
        for a in &ledger.arrived {
            let logged = |offset: u64| self.places.get(&(a.user, (a.generation, offset)));
            let at = format!("inbox of {} in {}", a.user, a.generation);
            if logged(a.offset) != Some(&a.id) {
                let what = format!("{at}: shown at {}, where the log has {:?}", a.offset, logged(a.offset));
                other.push(Flaw::of(&a.id, what));
            }
            if let Some((_, before)) = last.get(&a.user).filter(|(generation, _)| *generation == a.generation)
            {
                let skipped = (before + 1..a.offset).map(|offset| (offset, logged(offset)));
                let unknown = skipped.filter(|(offset, id)| {
                    let told = covered(ledger, a.user, (a.generation, *offset));
                    !told && id.is_none_or(|id| !shown.contains(&(a.user, id.as_str())))
                });
                other.extend(unknown.map(|(offset, id)| Flaw {
                    id: id.cloned(),
                    what: format!("{at}: not shown at {offset}"),
                }));
            }
            last.insert(a.user, (a.generation, a.offset));
            shown.insert((a.user, &a.id));
        }
        other
    }

    /// What is in the log, was not shown to its reader, and is not in what the reader was told to read there (P5).
    /// For readers that were connected before the first message and after the last: those of these streams.
    pub fn skipped(&self, ledger: &Ledger, streams: Range<usize>) -> Vec<Flaw> {
        let shown: BTreeSet<(usize, &str)> = ledger.arrived.iter().map(|a| (a.user, a.id.as_str())).collect();
        let silent = self.places.iter().filter(|((user, place), id)| {
            streams.contains(user)
                && !shown.contains(&(*user, id.as_str()))
                && !covered(ledger, *user, *place)
        });
        let flaw = |((user, place), id): (&(usize, Place), &String)| {
            Flaw::of(id, format!("at {place:?} of {user}: neither shown nor told"))
        };
        silent.map(flaw).collect()
    }
}

/// Whether this user was told to read this place in the history.
fn covered(ledger: &Ledger, user: usize, place: Place) -> bool {
    let told = ledger.missed.iter().filter(|missed| missed.user == user);
    told.into_iter().any(|missed| missed.from < Some(place) && place <= missed.to)
}
