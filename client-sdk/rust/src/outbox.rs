//! The commands that have no final answer yet, in the order in which the application gave them, and the rules for
//! writing and repeating them (`docs/PROTOCOL.md`, order and moving). No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rand::rngs::StdRng;
use roost_proto::answers::Accepted;
use roost_proto::frames::{Reply, RoomAt};
use roost_proto::limits::{DEDUP_WINDOW_MS, UNANSWERED_MAX, UNKNOWN_AFTER_MS};
use roost_proto::{ErrorBody, ErrorCode, Json, MessageId, RoomId, UserId};
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;
use crate::error::SendError;
use crate::lanes::{Lanes, OrderingKey, Seq};

/// The server answers `unknown` by itself after 20 s; a connection that says nothing for 10 s more is replaced.
const REPLY_TIMEOUT_MS: u64 = UNKNOWN_AFTER_MS + 10_000;
/// A refused command is not repeated sooner, nor later than this after it may be, whatever the server asks.
const RETRY_MS_MIN: u64 = 10;
const RETRY_MS_MAX: u64 = 60_000;

#[derive(Debug, Clone)]
pub struct Command {
    pub id: MessageId,
    pub lane: OrderingKey,
    pub what: What,
}

/// What a command says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// This frame. A repeat is equal to the byte: the server compares bodies.
    Frame(Arc<str>),
    /// This frame too, and what answers it is not the reply but the result that comes into the inbox.
    Event(Arc<str>),
    /// Be in a room. The frame is made when it is written, with the cursor as of then.
    Join(RoomAt),
    Leave(RoomId),
    Watch(Vec<UserId>),
    Unwatch(Vec<UserId>),
}

impl Command {
    /// A command whose frame is `text`.
    pub fn frame(id: MessageId, lane: OrderingKey, text: impl Into<Arc<str>>) -> Self {
        Self { id, lane, what: What::Frame(text.into()) }
    }

    /// A command about being in `room`.
    pub fn within(id: MessageId, room: &RoomId, what: What) -> Self {
        Self { id, lane: OrderingKey::Within(room.clone()), what }
    }
}

/// Names one waiting caller.
pub type Ticket = u64;
pub(crate) type Answer = (Ticket, Result<Done, SendError>);

/// A command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub id: MessageId,
    /// What it was answered; of an event, the record of its result.
    pub ok: Json,
}

impl Done {
    /// The command's answer.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, SendError> {
        read(&self.ok).map_err(SendError::Refused)
    }

    /// That of a message: it is accepted, whatever else can be read of it.
    pub(crate) fn accepted(&self) -> Accepted {
        self.ok.read().unwrap_or_default()
    }
}

/// Reads an answer, or what is inside one.
pub(crate) fn read<T: DeserializeOwned>(ok: &Json) -> Result<T, ErrorBody> {
    let wrong = |fault| format!("an answer that cannot be read: {fault}");
    ok.read().map_err(|fault| ErrorBody::new(ErrorCode::Internal, wrong(fault)))
}

/// A command with its final answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) id: MessageId,
    pub(crate) what: What,
    /// Nobody asked for it but the core.
    pub(crate) own: bool,
    pub(crate) waiters: Vec<Ticket>,
    pub(crate) result: Result<Json, ErrorBody>,
}

impl Answered {
    pub(crate) fn answers(self) -> Vec<Answer> {
        let Self { id, result, .. } = self;
        let result = result.map(|ok| Done { id, ok }).map_err(SendError::Refused);
        self.waiters.into_iter().map(|ticket| (ticket, result.clone())).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be written, for the first time or again.
    Queued,
    /// Written over the connection of now.
    Written { at: u64 },
    /// Answered with a retryable error: to be written again from `from` on.
    Refused { from: u64 },
    /// An event that was accepted: its result is to come.
    Stored,
}

#[derive(Debug)]
struct Pending {
    command: Command,
    waiters: Vec<(Ticket, u64)>,
    stage: Stage,
    first_written_ms: Option<u64>,
    backoff: Backoff,
    /// The core wants it done, even if nobody waits.
    own: bool,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    pending: BTreeMap<Seq, Pending>,
    by_id: HashMap<MessageId, Seq>,
    lanes: Lanes,
    /// When the refused ones may be written again.
    retries: BTreeSet<(u64, Seq)>,
    next: Seq,
    written: usize,
    waiters: usize,
    /// Commands that nobody asked for but the core: they take no place in the queue.
    own: usize,
    max: usize,
    backoff: Backoff,
    /// No deadline, other than of `retries`, lies before this time.
    deadline_ms: u64,
}

impl Outbox {
    pub(crate) fn new(max: usize, backoff: Backoff) -> Self {
        Self {
            pending: BTreeMap::new(),
            by_id: HashMap::new(),
            lanes: Lanes::default(),
            retries: BTreeSet::new(),
            next: 0,
            written: 0,
            waiters: 0,
            own: 0,
            max,
            backoff,
            deadline_ms: u64::MAX,
        }
    }

    /// Takes a command over; its caller waits until `expires_ms`. An id that is still waiting for its answer gets
    /// one more caller instead.
    ///
    /// # Errors
    /// Full, or the id is waiting with another body.
    pub(crate) fn push(
        &mut self,
        command: Command,
        ticket: Ticket,
        expires_ms: u64,
    ) -> Result<(), SendError> {
        let full = Err(SendError::QueueFull { max: self.max });
        if self.waiters >= self.max {
            return full;
        }
        if let Some(pending) = self.by_id.get(&command.id).and_then(|seq| self.pending.get_mut(seq)) {
            if pending.command.what != command.what {
                let message = "the id is waiting for its answer with another body";
                return Err(SendError::Refused(ErrorBody::new(ErrorCode::Conflict, message)));
            }
            pending.waiters.push((ticket, expires_ms));
        } else if self.pending.len() - self.own >= self.max {
            return full;
        } else {
            self.queue(command, vec![(ticket, expires_ms)], false);
        }
        self.waiters += 1;
        self.deadline_ms = self.deadline_ms.min(expires_ms);
        Ok(())
    }

    /// Takes over what the core itself wants, for as long as this connection lasts. These are bounded by the rooms
    /// and the watched users there are.
    pub(crate) fn push_own(&mut self, lane: OrderingKey, what: What) {
        // An id that the application may have used is passed over.
        let ids = (self.next..).filter_map(|n| MessageId::new(format!("sdk-{n}")).ok());
        if let Some(id) = ids.into_iter().find(|id| !self.by_id.contains_key(id)) {
            self.queue(Command { id, lane, what }, Vec::new(), true);
        }
    }

    fn queue(&mut self, command: Command, waiters: Vec<(Ticket, u64)>, own: bool) {
        self.by_id.insert(command.id.clone(), self.next);
        self.lanes.want(&command.lane, self.next, true);
        if command.lane.is_one_at_a_time() {
            self.lanes.hold(&command.lane, self.next);
        }
        self.own += usize::from(own);
        let (stage, backoff) = (Stage::Queued, self.backoff.clone());
        let pending = Pending { command, waiters, stage, first_written_ms: None, backoff, own };
        self.pending.insert(self.next, pending);
        self.next += 1;
    }

    /// Whether something of this lane has no answer yet.
    pub(crate) fn has(&self, lane: &OrderingKey) -> bool {
        self.lanes.has(lane)
    }

    /// Forgets what the core wanted for itself.
    pub(crate) fn withdraw_own(&mut self) {
        self.withdraw(|p| p.own);
    }

    /// Forgets every wish to be in `room`; who waits is told that it was left.
    pub(crate) fn withdraw_joins(&mut self, room: &RoomId) -> Vec<Answer> {
        let waiters = self.withdraw(|p| matches!(&p.command.what, What::Join(at) if at.room == *room));
        waiters.into_iter().map(|ticket| (ticket, Err(SendError::Left))).collect()
    }

    /// Gives who waits for the result of this event. It is forgotten, unless it was written and has no answer yet: of one
    /// whose answer is `unknown` the server wants the repeat before it takes any later event.
    pub(crate) fn withdraw_event(&mut self, id: &MessageId) -> Vec<Ticket> {
        let Some(seq) = self.by_id.get(id).copied() else { return Vec::new() };
        let event = self.pending.get_mut(&seq).filter(|p| matches!(p.command.what, What::Event(_)));
        let Some(p) = event else { return Vec::new() };
        let waiters: Vec<Ticket> = std::mem::take(&mut p.waiters).into_iter().map(|w| w.0).collect();
        self.waiters -= waiters.len();
        if p.stage == Stage::Stored || p.first_written_ms.is_none() {
            self.remove(seq);
        }
        waiters
    }

    fn withdraw(&mut self, unwanted: impl Fn(&Pending) -> bool) -> Vec<Ticket> {
        let seqs: Vec<Seq> = self.pending.iter().filter(|(_, p)| unwanted(p)).map(|(seq, _)| *seq).collect();
        let gone: Vec<Pending> = seqs.into_iter().filter_map(|seq| self.remove(seq)).collect();
        let waiters: Vec<Ticket> = gone.iter().flat_map(|p| &p.waiters).map(|w| w.0).collect();
        self.waiters -= waiters.len();
        waiters
    }

    /// What may be written now over a connection that was welcomed: first what was written before, then the rest,
    /// both in order. (Within a lane what was written before always comes first.)
    pub(crate) fn take_ready(&mut self, now: u64) -> Vec<(MessageId, What)> {
        let mut ready = Vec::new();
        while self.written < UNANSWERED_MAX
            && let Some(seq) = self.lanes.first()
            && let Some(p) = self.pending.get_mut(&seq)
        {
            self.lanes.unwant(&p.command.lane, seq);
            p.stage = Stage::Written { at: now };
            p.first_written_ms.get_or_insert(now);
            self.written += 1;
            self.deadline_ms = self.deadline_ms.min(now + REPLY_TIMEOUT_MS);
            ready.push((p.command.id.clone(), p.command.what.clone()));
        }
        ready
    }

    /// Takes an answer: final, or a reason to repeat.
    pub(crate) fn reply(&mut self, reply: Reply, now: u64, rng: &mut StdRng) -> Option<Answered> {
        let Some(seq) = reply.id.as_deref().and_then(|id| self.by_id.get(id_key(id).as_ref()?).copied())
        else {
            tracing::debug!(id = ?reply.id, error = ?reply.error, "answer to nothing that waits");
            return None;
        };
        let result = match (reply.ok, reply.error) {
            (Some(ok), _) => Ok(ok),
            (None, Some(error)) => Err(error),
            (None, None) => Err(ErrorBody::new(ErrorCode::Internal, "an answer that says nothing")),
        };
        if let Some(error) = result.as_ref().err().filter(|e| e.retryable) {
            self.refused(seq, error, now, rng);
            return None;
        }
        if let Some(p) = self.pending.get_mut(&seq).filter(|p| matches!(p.command.what, What::Event(_)))
            && result.is_ok()
            // Who waited has the result already if it came before.
            && !p.waiters.is_empty()
        {
            let (lane, before) = (p.command.lane.clone(), std::mem::replace(&mut p.stage, Stage::Stored));
            self.leave_lane(&lane, seq, before);
            return None;
        }
        let Pending { command: Command { id, what, .. }, waiters, own, .. } = self.remove(seq)?;
        self.waiters -= waiters.len();
        let waiters = waiters.into_iter().map(|w| w.0).collect();
        Some(Answered { id, what, own, waiters, result })
    }

    fn refused(&mut self, seq: Seq, error: &ErrorBody, now: u64, rng: &mut StdRng) {
        let Some(p) = self.pending.get_mut(&seq) else { return };
        if !matches!(p.stage, Stage::Written { .. }) {
            return;
        }
        let wait = error.retry_after_ms.unwrap_or_else(|| p.backoff.next_ms(rng));
        let from = now + wait.clamp(RETRY_MS_MIN, RETRY_MS_MAX);
        tracing::debug!(id = %p.command.id, %error, wait_ms = from - now, "will be repeated");
        p.stage = Stage::Refused { from };
        self.lanes.hold(&p.command.lane, seq);
        self.retries.insert((from, seq));
        self.written -= 1;
    }

    /// Over a new connection everything unanswered is to be written again.
    pub(crate) fn requeue(&mut self) {
        for (seq, p) in &mut self.pending {
            if matches!(p.stage, Stage::Written { .. }) {
                p.stage = Stage::Queued;
                self.lanes.want(&p.command.lane, *seq, false);
            }
        }
        self.written = 0;
    }

    /// Nothing was read for a while, so nothing is late before a full timeout from now.
    pub(crate) fn forgive(&mut self, now: u64) {
        for p in self.pending.values_mut() {
            if let Stage::Written { at } = &mut p.stage {
                *at = now;
            }
        }
        self.deadline_ms = self.deadline_ms.min(now + REPLY_TIMEOUT_MS);
    }

    /// Answers the callers whose time is up. `live` says whether replies can be expected; `true` comes back if the
    /// connection owes an answer for too long, or was left waiting for a command that is given up.
    pub(crate) fn tick(&mut self, now: u64, live: bool) -> (Vec<Answer>, bool) {
        while let Some((_, seq)) = self.retries.first().copied().filter(|(from, _)| *from <= now) {
            self.retries.pop_first();
            if let Some(p) = self.pending.get_mut(&seq) {
                p.stage = Stage::Queued;
                self.lanes.want(&p.command.lane, seq, false);
            }
        }
        let (mut answers, mut renew) = (Vec::new(), false);
        if now < self.deadline_ms {
            return (answers, renew);
        }
        self.deadline_ms = u64::MAX;
        let mut gone = Vec::new();
        for (seq, p) in &mut self.pending {
            let stored = p.stage == Stage::Stored;
            let end = p.first_written_ms.filter(|_| !stored).map_or(u64::MAX, |t| t + DEDUP_WINDOW_MS);
            let given_up = now >= end;
            p.waiters.retain(|&(ticket, expires_ms)| {
                let over = given_up || now >= expires_ms;
                if over {
                    answers.push((ticket, Err(timed_out(&p.command.id, p.first_written_ms, stored))));
                }
                !over
            });
            let done = stored || p.first_written_ms.is_none();
            if given_up || (p.waiters.is_empty() && done && !p.own) {
                renew |= given_up;
                gone.push(*seq);
                continue;
            }
            let late = match p.stage {
                Stage::Written { at } if live => at + REPLY_TIMEOUT_MS,
                _ => u64::MAX,
            };
            renew |= late <= now;
            let expiry = p.waiters.iter().map(|w| w.1).min().unwrap_or(u64::MAX);
            self.deadline_ms =
                self.deadline_ms.min(expiry).min(end).min(if late > now { late } else { u64::MAX });
        }
        self.waiters -= answers.len();
        for seq in gone {
            self.remove(seq);
        }
        (answers, renew)
    }

    /// When [`Outbox::tick`] or [`Outbox::take_ready`] may next have something to do.
    pub(crate) fn wake_ms(&self) -> u64 {
        self.deadline_ms.min(self.retries.first().map_or(u64::MAX, |(from, _)| *from))
    }

    /// Ends everything.
    pub(crate) fn close(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        for p in std::mem::take(&mut self.pending).into_values() {
            let sent = p.first_written_ms.is_some();
            answers.extend(p.waiters.into_iter().map(|w| (w.0, Err(SendError::Closed { sent }))));
        }
        *self = Self::new(self.max, self.backoff.clone());
        answers
    }

    fn remove(&mut self, seq: Seq) -> Option<Pending> {
        let p = self.pending.remove(&seq)?;
        self.by_id.remove(&p.command.id);
        self.own -= usize::from(p.own);
        self.leave_lane(&p.command.lane, seq, p.stage);
        Some(p)
    }

    /// What was at `stage` is not written any more, and holds nothing.
    fn leave_lane(&mut self, lane: &OrderingKey, seq: Seq, stage: Stage) {
        self.lanes.remove(lane, seq);
        match stage {
            Stage::Written { .. } => self.written -= 1,
            Stage::Refused { from } => drop(self.retries.remove(&(from, seq))),
            Stage::Queued | Stage::Stored => {}
        }
    }
}

fn id_key(id: &str) -> Option<MessageId> {
    MessageId::new(id).ok()
}

/// What never left is withdrawn; what left may have been accepted.
fn timed_out(id: &MessageId, first_written_ms: Option<u64>, stored: bool) -> SendError {
    match first_written_ms {
        None => SendError::NotSent,
        Some(_) if stored => SendError::NoResult { id: id.clone() },
        Some(_) => SendError::Unknown { id: id.clone() },
    }
}
