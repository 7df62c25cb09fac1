//! What comes into inboxes without anybody having sent it, receipts and results, and what is reported as undelivered. All
//! of it is judged by the topics: that it was shown, too, is judged with everything else in an inbox.
//!
//! What waited in Redis when that lost its data is excused, as PROTOCOL.md says: its receipt, its result or its report may
//! be missing, or come again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roost_backend::log::LogRecord;
use roost_client::{EventResult, Message, Receipt};
use roost_proto::events::ClientEvent;
use tokio::time::Instant;

use super::Case;
use crate::history::{Line, Place, What};

/// For a receipt after what it is about, of a cluster that is whole; and for whatever else is not due at once.
const SOON: Duration = Duration::from_secs(10);
/// For what takes a time of its own, on top of that, the grace of a new home included.
const SLACK: Duration = Duration::from_secs(20);
/// How long after something was sent a loss of data may make what follows from it come again.
const AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// The type of a result that the cluster makes itself.
const TIMED_OUT: &str = "event_timeout";

/// Messages in the inboxes of this run, each place once.
pub(super) struct Inboxes(BTreeMap<(String, Place), Message>);

impl Inboxes {
    pub(super) fn read(records: &[LogRecord]) -> Self {
        let message = |record: &LogRecord| {
            let m: Message = serde_json::from_slice(&record.payload).expect("chat_events has messages");
            let user = m.stream.user()?.to_string();
            Some(((user, (m.generation.0, m.offset.0)), m))
        };
        Self(records.iter().filter_map(message).collect())
    }
}

/// For each message, by its id, the receipts that name it: who was told, and where.
type Named = BTreeMap<String, BTreeSet<(String, Place)>>;

/// Each message whose sender asked is named in one `delivered` to the sender when it was taken, and in one `read` when it
/// was read; and nothing else is.
pub(super) fn receipts(case: &mut Case, lines: &[Line], inboxes: &Inboxes) {
    let (delivered, read) = named(inboxes);
    let said_read = said_read(case, lines);
    let asked = case.ledger.sent.iter().filter(|(_, s)| s.receipt);
    let asked: Vec<_> = asked.map(|(id, s)| (id.clone(), s.clone())).collect();
    for (id, s) in &asked {
        case.row_at(s.at).receipts_asked += 1;
        let sender = case.names[s.from].clone();
        for (kind, named, since) in
            [("delivered", &delivered, s.arrived), ("read", &read, said_read.get(id).copied())]
        {
            let to = named.get(id).cloned().unwrap_or_default();
            let due = since.map(|since| since + SOON).filter(|due| s.acked.is_some() && *due < case.end);
            let mut flaws = Vec::new();
            if to.iter().any(|(user, _)| *user != sender) {
                flaws.push(format!("that it was {kind} was told to {to:?}"));
            }
            if to.is_empty() && due.is_some_and(|due| !case.excused(s.at, due)) {
                flaws.push(format!("the sender was not told that it was {kind}"));
            }
            if to.len() > 1 && !case.excused(s.at, s.at + AGAIN_WITHIN) {
                flaws.push(format!("that it was {kind} was told {} times", to.len()));
            }
            for what in flaws {
                case.flaw_at(s.at, "receipts", format!("{id}: {what}"), |row| &mut row.receipts);
            }
        }
    }
    for id in delivered.keys().chain(read.keys()) {
        if case.ledger.sent.get(id).is_none_or(|s| !s.receipt) {
            let what = format!("{id}: nobody asked for a receipt");
            case.flaw_at(case.start(), "receipts", what, |row| &mut row.receipts);
        }
    }
}

fn named(inboxes: &Inboxes) -> (Named, Named) {
    let (mut delivered, mut read) = (Named::new(), Named::new());
    for (at, m) in &inboxes.0 {
        let (named, ids) = match m.receipt() {
            Some(Receipt::Delivered { ids, .. }) => (&mut delivered, ids),
            Some(Receipt::Read { ids, .. }) => (&mut read, ids),
            None => continue,
        };
        for id in ids {
            named.entry(id.to_string()).or_default().insert(at.clone());
        }
    }
    (delivered, read)
}

/// When the reader first said of each message that it is read, in the generation in which it was shown.
fn said_read(case: &Case, lines: &[Line]) -> BTreeMap<String, Instant> {
    let mut waiting: BTreeMap<usize, BTreeMap<Place, String>> = BTreeMap::new();
    let mut read = BTreeMap::new();
    for line in lines {
        match &line.what {
            What::Arrived { user, generation, offset, id } => {
                waiting.entry(*user).or_default().insert((*generation, *offset), id.clone());
            }
            What::Read { user, generation, offset } => {
                let places = waiting.entry(*user).or_default();
                let later = places.split_off(&(*generation, *offset + 1));
                let passed = std::mem::replace(places, later);
                let passed = passed.into_iter().filter(|((of, _), _)| of == generation);
                read.extend(passed.map(|(_, id)| (id, case.instant(line))));
            }
            _ => {}
        }
    }
    read
}

/// Results of one event, by their places.
#[derive(Default)]
struct Results {
    /// Of the processor, and of the cluster because none came in time.
    given: BTreeSet<Place>,
    timed_out: BTreeSet<Place>,
}

/// Each event has one result or one `event_timeout` in the inbox of its client, at most one of each, the result never
/// first; and it is given to processors once.
pub(super) fn events(case: &mut Case, lines: &[Line], inboxes: &Inboxes, given: &[LogRecord]) {
    let mut results = results(inboxes);
    let mut answered: BTreeSet<&str> = BTreeSet::new();
    for line in lines {
        if let What::Answered { id, .. } = &line.what {
            answered.insert(id);
        }
    }
    let given = given_to_processors(given);
    let time = Duration::from_millis(case.made.event_timeout_ms + case.made.grace_ms) + SLACK;
    for line in lines {
        let What::Asked { id, user } = &line.what else { continue };
        let (at, client) = (case.instant(line), case.names[*user].clone());
        case.row_at(at).events_asked += 1;
        let Results { given: of_processor, timed_out } =
            results.remove(&(client.clone(), id.clone())).unwrap_or_default();
        let mut flaws = Vec::new();
        if at + time < case.end && !case.excused(at, at + time) {
            if of_processor.is_empty() && timed_out.is_empty() {
                flaws.push("there is neither a result nor a timeout".to_owned());
            } else if !answered.contains(id.as_str()) {
                flaws.push("there is a result, and its client was not told".to_owned());
            }
        }
        if !case.excused(at, at + AGAIN_WITHIN) {
            if of_processor.len() > 1 || timed_out.len() > 1 {
                flaws.push(format!("{} results, {} timeouts", of_processor.len(), timed_out.len()));
            }
            if given.get(&(client, id.clone())).is_some_and(|times| times.len() > 1) {
                flaws.push("it was given to processors twice".to_owned());
            }
        }
        let first = of_processor.first();
        if timed_out.iter().any(|late| first.is_some_and(|first| first.0 == late.0 && first < late)) {
            flaws.push("it is told that there is no result after there was one".to_owned());
        }
        for what in flaws {
            case.flaw_at(at, "events", format!("{id}: {what}"), |row| &mut row.events);
        }
    }
    for (client, id) in results.into_keys() {
        let what = format!("{id}: a result of no event of {client}");
        case.flaw_at(case.start(), "events", what, |row| &mut row.events);
    }
}

fn results(inboxes: &Inboxes) -> BTreeMap<EventId, Results> {
    let mut results: BTreeMap<EventId, Results> = BTreeMap::new();
    for ((user, place), m) in &inboxes.0 {
        let Some(result) = EventResult::of(m) else { continue };
        let of_event = results.entry((user.clone(), result.event_id.to_string())).or_default();
        let places = if result.kind == TIMED_OUT { &mut of_event.timed_out } else { &mut of_event.given };
        places.insert(*place);
    }
    results
}

/// An event: its client, and its id.
type EventId = (String, String);
/// Vnode, epoch and seq, which copies of a record share.
type Numbers = (u16, u64, u64);

fn given_to_processors(records: &[LogRecord]) -> BTreeMap<EventId, BTreeSet<Numbers>> {
    let mut given: BTreeMap<EventId, BTreeSet<Numbers>> = BTreeMap::new();
    for record in records {
        let e: ClientEvent = serde_json::from_slice(&record.payload).expect("client_events has them");
        let numbers = (e.vnode.0, e.epoch.0, e.seq.0);
        given.entry((e.client_id.to_string(), e.event_id.to_string())).or_default().insert(numbers);
    }
    given
}

/// What was sent to who never comes is reported, each message once; and what somebody took at once in a calm cluster, and
/// so acknowledged, never is. Every report is a message as `chat_events` has it.
pub(super) fn undelivered(case: &mut Case, inboxes: &Inboxes, reports: &[LogRecord]) {
    let mut reported: BTreeMap<String, BTreeSet<Place>> = BTreeMap::new();
    for record in reports {
        let m: Message = serde_json::from_slice(&record.payload).expect("undelivered_events has messages");
        let user = m.stream.user().expect("an inbox").to_string();
        // Nodes have canaries, who write to themselves.
        if !case.names.contains(&user) {
            continue;
        }
        let (id, place) = (m.id.to_string(), (m.generation.0, m.offset.0));
        let logged = inboxes.0.get(&(user.clone(), place));
        let at = case.ledger.sent.get(&id).map_or_else(|| case.start(), |s| s.at);
        let mut flaw = |what: &str| {
            let what = format!("{id}, reported of {user} at {place:?}: {what}");
            case.flaw_at(at, "undelivered", what, |row| &mut row.undelivered);
        };
        if record.key != user.as_bytes() {
            flaw("its key is not the user");
        }
        if logged.is_none_or(|logged| logged.id != m.id || logged.data.get() != m.data.get()) {
            flaw("chat_events has something else there");
        }
        if m.receipt().is_some() {
            flaw("a receipt");
        }
        reported.entry(id).or_default().insert(place);
    }
    let time = Duration::from_millis(case.made.undelivered_after_ms + case.made.grace_ms) + SLACK;
    let absent = case.names.len() - case.made.absent;
    let sent: Vec<_> = case.ledger.sent.iter().map(|(id, s)| (id.clone(), s.clone())).collect();
    for (id, s) in sent.iter().filter(|(_, s)| s.acked.is_some()) {
        let times = reported.get(id).map_or(0, BTreeSet::len);
        let what = if s.to >= absent {
            case.row_at(s.at).reports_due += 1;
            let due = s.at + time < case.end && !case.excused(s.at, s.at + time);
            match times {
                0 if due => "nobody acknowledged it, and it is not reported",
                2.. if !case.excused(s.at, s.at + AGAIN_WITHIN) => "it is reported twice",
                _ => continue,
            }
        } else {
            let Some(arrived) = s.arrived.filter(|_| times > 0) else { continue };
            if !case.is_calm(s.at, arrived) || case.excused(s.at, s.at + AGAIN_WITHIN) {
                continue;
            }
            "it was acknowledged, and is reported"
        };
        case.flaw_at(s.at, "undelivered", format!("{id}: {what}"), |row| &mut row.undelivered);
    }
}
