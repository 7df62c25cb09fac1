//! What one sender has got through to a home, and what it is to be told (rules 9, 14, 15).

use std::collections::VecDeque;

use roost_proto::ids::{Epoch, Sid, VnodeId};
use roost_proto::limits::RESULTS_BYTES_MAX;
use roost_proto::records::{ChannelId, Confirm, ItemResult};

use crate::core::config::{CoreConfig, Rule};

/// What a link was given is lost with it only if that was less than this ago, in milliseconds: a link that brings
/// nothing ends within three seconds.
const HEARD_AFTER_MS: u64 = 4000;

/// What one sender has got through.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    pub(super) chan: u64,
    pub(super) round: u32,
    /// The last round of which a repeat was answered.
    repeated: u32,
    /// When it was last told something by the link, on the monotonic clock.
    told_by_link: Option<u64>,
    /// The highest number taken.
    pub(super) last: u64,
    /// The highest number seen: more than `last` when something was dropped or lost (rule 14).
    pub(super) seen: u64,
    /// Results of `kept_from`, `kept_from + 1`, …, until the sender knows them.
    kept_from: u64,
    results: VecDeque<Option<ItemResult>>,
    /// The highest number confirmed so far.
    confirmed: u64,
    /// Tell again what is kept; ask for what is missing.
    answer: bool,
    pub(super) ask: bool,
    /// Something was dropped for want of room: asked for when there is some.
    pub(super) dropped: bool,
    /// The missing number last asked for because of a gap: once, the next time by a probe.
    asked: u64,
    /// The number last found missing by a probe, the unreadable records counted then, and how often in a row
    /// (rule 15).
    stuck: (u64, u64, u32),
}

impl Sender {
    pub(super) fn of(chan: u64) -> Self {
        Self { chan, kept_from: 1, ..Self::default() }
    }

    /// The sender knows the results up to here.
    pub(crate) fn prune(&mut self, acked: u64) {
        while self.kept_from <= acked && self.results.front().is_some_and(Option::is_some) {
            self.results.pop_front();
            self.kept_from += 1;
        }
        self.confirmed = self.confirmed.max(self.kept_from - 1);
    }

    pub(crate) fn take(&mut self, n: u64, result: Option<ItemResult>) {
        // More than one step only in the mutant of rule 9.
        while self.kept_from + (self.results.len() as u64) < n {
            self.results.push_back(Some(ItemResult::Void));
        }
        self.last = n;
        self.seen = self.seen.max(n);
        self.results.push_back(result);
    }

    /// Something after the next number came: asks for what is missing, once. What is lost again is found by a probe,
    /// or a record that nobody can read would have everything behind it sent in a circle.
    pub(crate) fn gap(&mut self) {
        if self.asked <= self.last {
            self.asked = self.last + 1;
            self.ask = true;
        }
    }

    pub(crate) fn repeat(&mut self) {
        self.answer = true;
    }

    /// What was taken came again in the topic. As the copy of what the link brought it says nothing; as the first of a
    /// round it says that its sender went back, and may lack a confirm (rule 34).
    pub(crate) fn came_again(&mut self, round: u32, cfg: &CoreConfig) {
        if round > self.repeated && cfg.on(Rule::RepeatsAnswered) {
            self.repeated = round;
            self.answer = true;
        }
    }

    pub(super) fn tell_by_link(&mut self, now: u64) {
        self.told_by_link = Some(now);
    }

    /// The link ended: what it was given lately may be lost.
    pub(super) fn link_ended(&mut self, now: u64) -> bool {
        let lately = self.told_by_link.take().is_some_and(|at| now < at + HEARD_AFTER_MS);
        self.answer |= lately;
        lately
    }

    /// Whether the next confirm answers who asked.
    pub(super) fn was_asked(&self) -> bool {
        self.answer
    }

    pub(crate) fn set(&mut self, n: u64, result: ItemResult) {
        if let Some(slot) = n.checked_sub(self.kept_from).and_then(|i| self.results.get_mut(i as usize)) {
            *slot = Some(result);
        }
    }

    /// True on the second probe in a row that finds the same number missing although records came in between that
    /// nobody could read.
    pub(crate) fn is_stuck(&mut self, undecodable: u64) -> bool {
        let missing = self.last + 1;
        let again = self.stuck.0 == missing && undecodable > self.stuck.1 && self.last < self.seen;
        let probes = if again { self.stuck.2 + 1 } else { 0 };
        self.stuck = (missing, undecodable, probes);
        probes >= 2
    }

    /// What to tell the sender now, if anything.
    pub(super) fn confirm(&mut self, vnode: VnodeId, epoch: Epoch, sid: &Sid) -> Option<Confirm> {
        let known = self.results.iter().take_while(|r| r.is_some()).count() as u64;
        let to = self.kept_from + known - 1;
        let ask = (self.ask && self.seen > self.last).then_some(self.last + 1);
        if to <= self.confirmed && !self.answer && ask.is_none() {
            return None;
        }
        let from = if self.answer { self.kept_from } else { self.confirmed + 1 };
        let skip = (from - self.kept_from) as usize;
        let mut bytes = 0;
        let fits = |result: &&ItemResult| {
            let first = bytes == 0;
            bytes += result.size();
            first || bytes <= RESULTS_BYTES_MAX
        };
        let known = self.results.iter().take(known as usize).skip(skip).flatten();
        let results: Vec<_> = known.take_while(fits).cloned().collect();
        // What does not fit into this record goes into the next.
        let told = from + results.len() as u64 - 1;
        self.confirmed = if told < to { told } else { self.confirmed.max(to) };
        (self.answer, self.ask) = (false, false);
        let channel = ChannelId { vnode, epoch, sid: sid.clone(), chan: self.chan, round: self.round };
        Some(Confirm { channel, from, results, ask, unreadable: false })
    }
}
