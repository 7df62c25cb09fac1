//! Judges a run by what it left: the history, and the topics as files. Needs no cluster and nobody's word.

mod inbox;
mod rooms;
mod watchers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use roost_backend::log::{LogRecord, Position};
use roost_proto::events::{CHAT_EVENTS, CLIENT_EVENTS, Status, UNDELIVERED_EVENTS, USER_STATUS_EVENTS};
use tokio::time::Instant;

use super::{HISTORY, dump};
use crate::chat::Chat;
use crate::history::{Line, Made, What, read};
use crate::ledger::{Flaw, Ledger};
use crate::topic_reader::statuses_and_differing;

/// Around a fault: for what is said a moment after it was taken, and for the last of those that come back.
const CALM: Duration = Duration::from_secs(2);

/// What one fault came to, all its rounds together.
#[derive(Debug, Default)]
pub struct Row {
    pub runs: usize,
    /// Sent from the beginning of this fault to that of the next one.
    pub messages: usize,
    pub acked: usize,
    pub lost: usize,
    pub doubled: usize,
    pub disordered: usize,
    pub refused: usize,
    pub presence: usize,
    /// Of each user and round.
    pub recovery: Vec<Duration>,
    /// Of each round, from the end of the fault until everything that was sent before is confirmed.
    pub backlog: Vec<Duration>,
    pub unrecovered: usize,
    pub died: usize,
    /// Records of `chat_events` that are equal to an earlier one.
    pub copies: usize,
    /// How often a user was told to read the history.
    pub told: usize,
    /// What was published to rooms and confirmed, and what is wrong there.
    pub published: usize,
    pub rooms: usize,
    /// Of whom a watcher was told something else than is true, long after.
    pub watchers: usize,
    pub receipts_asked: usize,
    pub receipts: usize,
    pub events_asked: usize,
    pub events: usize,
    /// Messages to users who never come, and what is wrong with reports.
    pub reports_due: usize,
    pub undelivered: usize,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub seed: u64,
    pub settings: String,
    pub rows: BTreeMap<String, Row>,
    /// Everything that must not be, in words.
    pub flaws: Vec<String>,
}

/// One round.
#[derive(Debug)]
struct Round {
    fault: String,
    began: Instant,
    ended: Instant,
    /// Since when recovery is counted.
    since: Instant,
    outage: bool,
    affected: Vec<usize>,
    recovered: Option<Instant>,
}

/// Everything that was read, before it is judged.
struct Case {
    names: Vec<String>,
    made: Made,
    ledger: Ledger,
    rounds: BTreeMap<usize, Round>,
    /// When Redis may have lost what it took in, and the round.
    lost: Vec<(Instant, usize)>,
    zero: Instant,
    end: Instant,
    verdict: Verdict,
}

/// Judges what a run left in this directory.
///
/// # Errors
/// If something is missing there.
pub fn check(dir: &Path) -> anyhow::Result<Verdict> {
    let lines = read(&dir.join(HISTORY))?;
    let mut case = Case::replay(&lines)?;
    let chat = dump::read(dir, CHAT_EVENTS)?;
    let logged = Chat::judge(&chat, &case.names, &case.ledger);
    let unfinished: BTreeSet<usize> = case.rounds.keys().copied().collect();
    let settled: BTreeSet<usize> = lines.iter().filter_map(|line| settled(&line.what)).collect();
    for round in unfinished.difference(&settled) {
        case.verdict.flaws.push(format!("round {round} was not finished"));
    }
    case.count_messages();
    let seen = case.ledger.flaws(case.start());
    let skipped = logged.skipped(&case.ledger, 0..case.names.len() - case.made.absent);
    // What arrived nowhere is lost if it is in no log, or if nobody was told to look there.
    let lost = logged.flaws.lost.iter().chain(&skipped);
    case.charge("lost", lost, |row| &mut row.lost);
    let doubled = seen.doubled.iter().chain(&logged.flaws.doubled);
    case.charge("doubled", doubled, |row| &mut row.doubled);
    let order = [&seen.disordered, &logged.flaws.disordered, &logged.flaws.two_in_one, &logged.flaws.other];
    case.charge("order", order.into_iter().flatten(), |row| &mut row.disordered);
    let refused = std::mem::take(&mut case.ledger.refused);
    case.charge("refused", refused.iter(), |row| &mut row.refused);
    case.count_copies(&lines, &logged.copies);
    case.judge_presence(&lines, &dump::read(dir, USER_STATUS_EVENTS)?);
    rooms::judge(&mut case, &lines, &chat);
    watchers::judge(&mut case, &lines);
    let inboxes = inbox::Inboxes::read(&chat);
    inbox::receipts(&mut case, &lines, &inboxes);
    inbox::events(&mut case, &lines, &inboxes, &dump::read_if_there(dir, CLIENT_EVENTS)?);
    inbox::undelivered(&mut case, &inboxes, &dump::read_if_there(dir, UNDELIVERED_EVENTS)?);
    case.time_recovery();
    Ok(case.verdict)
}

fn settled(what: &What) -> Option<usize> {
    match what {
        What::Settled { round, .. } => Some(*round),
        _ => None,
    }
}

fn is_before(position: Position, ends: &[u64]) -> bool {
    ends.get(position.partition as usize).is_some_and(|end| position.offset < *end)
}

impl Case {
    fn replay(lines: &[Line]) -> anyhow::Result<Self> {
        let zero = Instant::now();
        let mut case = Self {
            names: Vec::new(),
            made: Made::default(),
            ledger: Ledger::default(),
            rounds: BTreeMap::new(),
            lost: Vec::new(),
            zero,
            end: zero,
            verdict: Verdict::default(),
        };
        for Line { at_us, what } in lines {
            let at = zero + Duration::from_micros(*at_us);
            case.end = at;
            match what {
                What::Run { seed, settings, names, made } => {
                    case.names.clone_from(names);
                    case.made.clone_from(made);
                    (case.verdict.seed, case.verdict.settings) = (*seed, settings.clone());
                }
                What::Began { round, fault, affected, .. } => {
                    let (fault, affected) = (fault.clone(), affected.clone());
                    case.verdict.rows.entry(fault.clone()).or_default().runs += 1;
                    let begun = Round {
                        fault,
                        began: at,
                        ended: at,
                        since: at,
                        outage: false,
                        affected,
                        recovered: None,
                    };
                    case.rounds.insert(*round, begun);
                }
                What::Outage { round } => case.in_round(*round, |round| round.outage = true),
                What::Ended { round } => case.in_round(*round, |round| {
                    round.ended = at;
                    if round.outage {
                        round.since = at;
                    }
                }),
                What::DataLost { round, back_ms } => {
                    let since = at.checked_sub(Duration::from_millis(*back_ms)).unwrap_or(zero);
                    case.lost.push((since, *round));
                }
                What::Excluded { user, from, why } => {
                    let what = format!("{user} is shut out of {from}: {why}");
                    case.flaw_at(at, "refused", what, |row| &mut row.refused);
                }
                What::Recovered { round, missing } => {
                    case.in_round(*round, |round| round.recovered = Some(at));
                    if let Some(row) = case.row_of(*round) {
                        row.unrecovered += missing.len();
                    }
                    if !missing.is_empty() {
                        case.verdict.flaws.push(format!("round {round}: not recovered: {missing:?}"));
                    }
                }
                What::Died { round, process } => {
                    if let Some(row) = case.row_of(*round) {
                        row.died += 1;
                    }
                    case.verdict.flaws.push(format!("round {round}: {process} ended by itself"));
                }
                other => case.ledger.apply(at, other.clone()),
            }
        }
        ensure!(!case.names.is_empty(), "the history has no beginning");
        Ok(case)
    }

    fn in_round(&mut self, round: usize, change: impl FnOnce(&mut Round)) {
        if let Some(round) = self.rounds.get_mut(&round) {
            change(round);
        }
    }

    fn row_of(&mut self, round: usize) -> Option<&mut Row> {
        let fault = &self.rounds.get(&round)?.fault;
        self.verdict.rows.get_mut(fault)
    }

    /// The round that something at this moment is charged to: the last one that had begun.
    fn round_at(&self, at: Instant) -> Option<(usize, &Round)> {
        let last = self.rounds.iter().take_while(|(_, round)| round.began <= at).last();
        last.map(|(n, round)| (*n, round))
    }

    fn row_at(&mut self, at: Instant) -> &mut Row {
        let fault = self.round_at(at).map_or_else(|| "(before)".to_owned(), |(_, round)| round.fault.clone());
        self.verdict.rows.entry(fault).or_default()
    }

    fn instant(&self, line: &Line) -> Instant {
        self.zero + Duration::from_micros(line.at_us)
    }

    /// Whether Redis may have lost, in this time, what waited there.
    fn excused(&self, from: Instant, to: Instant) -> bool {
        let until = |round: &usize| {
            let round = self.rounds.get(round)?;
            Some(round.recovered.unwrap_or(self.end).max(round.ended))
        };
        self.lost.iter().any(|(since, round)| *since <= to && until(round).is_none_or(|until| from <= until))
    }

    /// Whether nothing was wrong with the cluster in this time, nor a moment before or after.
    fn is_calm(&self, from: Instant, to: Instant) -> bool {
        self.rounds.values().all(|round| {
            let until = round.recovered.unwrap_or(self.end);
            to + CALM < round.began || until + CALM < from
        })
    }

    /// Something that must not be, and that belongs to the fault of this moment.
    fn flaw_at(&mut self, at: Instant, kind: &str, what: String, count: fn(&mut Row) -> &mut usize) {
        let round = self.round_at(at).map(|(round, _)| round);
        self.verdict.flaws.push(format!("round {round:?}: {kind}: {what}"));
        *count(self.row_at(at)) += 1;
    }

    /// The same of a round.
    fn flaw_in(&mut self, round: usize, kind: &str, what: String, count: fn(&mut Row) -> &mut usize) {
        self.verdict.flaws.push(format!("round {round}: {kind}: {what}"));
        if let Some(row) = self.row_of(round) {
            *count(row) += 1;
        }
    }

    fn start(&self) -> Instant {
        self.ledger.sent.values().map(|s| s.at).min().unwrap_or_else(Instant::now)
    }

    fn count_messages(&mut self) {
        let sent: Vec<_> = self.ledger.sent.values().map(|s| (s.at, s.acked.is_some())).collect();
        for (at, acked) in sent {
            let row = self.row_at(at);
            row.messages += 1;
            row.acked += usize::from(acked);
        }
        let published: Vec<Instant> =
            self.ledger.published.values().filter(|p| p.acked.is_some()).map(|p| p.at).collect();
        published.into_iter().for_each(|at| self.row_at(at).published += 1);
        for at in self.ledger.missed.iter().map(|missed| missed.at).collect::<Vec<_>>() {
            self.row_at(at).told += 1;
        }
    }

    fn charge<'a>(
        &mut self,
        kind: &str,
        flaws: impl Iterator<Item = &'a Flaw>,
        count: fn(&mut Row) -> &mut usize,
    ) {
        for flaw in flaws {
            let sent = flaw.id.as_ref().and_then(|id| self.ledger.when(id));
            let what = format!("{:?}: {}", flaw.id, flaw.what);
            self.flaw_at(sent.unwrap_or_else(|| self.start()), kind, what, count);
        }
    }

    /// A copy belongs to the first fault whose end it is before, whenever its message was sent.
    fn count_copies(&mut self, lines: &[Line], copies: &[Position]) {
        let ends = lines.iter().filter_map(|line| match &line.what {
            What::Settled { round, chat_ends, .. } => Some((*round, chat_ends)),
            _ => None,
        });
        let ends: Vec<_> = ends.collect();
        for copy in copies {
            let first = ends.iter().find(|(_, ends)| is_before(*copy, ends));
            if let Some(row) = first.and_then(|(round, _)| self.row_of(*round)) {
                row.copies += 1;
            }
        }
    }

    /// At the end of each round: `/presence`, and the last status event of each user up to there.
    fn judge_presence(&mut self, lines: &[Line], events: &[LogRecord]) {
        let mut differing_before = 0;
        for line in lines {
            let What::Settled { round, online, offline, wrong, status_ends, .. } = &line.what else {
                continue;
            };
            let before = |record: &&LogRecord| is_before(record.position, status_ends);
            let (published, differing) =
                statuses_and_differing(&events.iter().filter(before).cloned().collect::<Vec<_>>());
            for user in &differing[differing_before.min(differing.len())..] {
                let what = format!("{user}: its number in user_status_events is another event's");
                self.flaw_in(*round, "presence", what, |row| &mut row.presence);
            }
            differing_before = differing.len();
            let truth = online.iter().map(|user| (user, Status::Online));
            let truth = truth.chain(offline.iter().map(|user| (user, Status::Offline)));
            let mut flaws: BTreeMap<&String, String> =
                wrong.iter().map(|(user, shown)| (user, format!("/presence says {shown}"))).collect();
            for (user, status) in truth {
                let last = published.get(user).and_then(|events| events.last());
                if last.map(|event| event.status) != Some(status) {
                    let words = flaws.entry(user).or_default();
                    words.push_str(&format!(" is {status:?}, published: {last:?}"));
                }
            }
            if let Some(row) = self.row_of(*round) {
                row.presence += flaws.len();
            }
            let words =
                flaws.into_iter().map(|(user, words)| format!("round {round}: presence: {user} {words}"));
            self.verdict.flaws.extend(words);
        }
    }

    /// From the beginning of a fault (of an outage: its end) to the moment when the first message to a user that was
    /// sent since then is both confirmed and delivered.
    fn time_recovery(&mut self) {
        let mut to: BTreeMap<usize, Vec<(Instant, Instant)>> = BTreeMap::new();
        for s in self.ledger.sent.values() {
            if let (Some(acked), Some(arrived)) = (s.acked, s.arrived) {
                to.entry(s.to).or_default().push((s.at, acked.max(arrived)));
            }
        }
        for round in self.rounds.values() {
            let row = self.verdict.rows.get_mut(&round.fault);
            let row = row.expect("each round has a row since it began");
            for user in &round.affected {
                let since = to.get(user).into_iter().flatten().filter(|(sent, _)| *sent >= round.since);
                row.recovery.extend(since.map(|(_, done)| *done - round.since).min());
            }
            let before = self.ledger.sent.values().filter(|s| s.at < round.ended).filter_map(|s| s.acked);
            row.backlog.extend(before.max().map(|last| last.saturating_duration_since(round.ended)));
        }
    }
}
