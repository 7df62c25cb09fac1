//! Runs in which one planned thing happens and nothing goes wrong: how few vnodes move (P7), and that nobody
//! notices (P8).

use std::collections::BTreeMap;

use roost_backend::store::NodeState;
use roost_proto::ids::{NodeId, VnodeId};
use roost_ring::{PlanInput, PlanNode, plan};

use super::World;
use super::coordinator::IN_FLIGHT_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// Whatever goes wrong in `faults`.
    Faults,
    Quiet,
    Join,
    /// A node stops, and leaves.
    Leave,
    /// A node stops, and another process takes its place.
    Restart,
}

impl Story {
    pub const ALL: [Self; 5] = [Self::Faults, Self::Quiet, Self::Join, Self::Leave, Self::Restart];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|story| format!("{story:?}") == name)
    }
}

/// When it happens: by then everyone has come, and everything is where it should be. Milliseconds.
pub(super) const HAPPENS_MS: u64 = 6_000;
/// From when a message was said to when its receiver has it. A session waits while its vnode is handed over, and
/// then until its new home takes it: a few round trips of at most 12 ms each, the view's period, a retry.
const LATE_MS: u64 = 1_500;

/// What is written down for the stories.
#[derive(Default)]
pub(crate) struct Book {
    owners: BTreeMap<VnodeId, NodeId>,
    /// Changes of owners, in order.
    pub moves: Vec<(u64, VnodeId, NodeId)>,
    before: Option<Before>,
    /// When each message was said, and the longest it took to be seen.
    pub said: BTreeMap<String, u64>,
    pub slowest_ms: u64,
    /// The longest that anyone was without a session.
    pub gap_ms: u64,
}

/// How it was before it happened.
struct Before {
    owners: Vec<Option<NodeId>>,
    generations: u64,
    /// Status events in the log, by partition.
    statuses: Vec<usize>,
    stopped: Option<NodeId>,
}

impl World {
    /// The one thing that happens.
    pub(super) fn tell_story(&mut self) {
        let table = self.control.table(self.store_now());
        let owners: Vec<_> = (0..self.setup.vnodes).map(|v| VnodeId(v as u16)).collect();
        let owner = |v: &VnodeId| table.rows.get(v).filter(|row| row.ready).map(|row| row.node());
        let owners: Vec<_> = owners.iter().map(owner).collect();
        if owners.contains(&None) {
            self.violations.push(format!("after {HAPPENS_MS} ms not every vnode has a home: {owners:?}"));
        }
        let stops = matches!(self.setup.story, Story::Leave | Story::Restart);
        let pid = self.between(0, self.setup.nodes as u64) as usize;
        let stopped = stops.then(|| self.processes[pid].node.clone());
        let statuses = self.log.status.iter().map(Vec::len).collect();
        let generations = self.generations_begun();
        self.book.before = Some(Before { owners, generations, statuses, stopped });
        match self.setup.story {
            Story::Faults | Story::Quiet => {}
            Story::Join => self.join(),
            Story::Leave => self.stop(pid, None),
            Story::Restart => {
                let back = self.between(0, 2000);
                self.stop(pid, Some(back));
            }
        }
    }

    /// The longest that a message took from being said to being seen.
    pub fn slowest_ms(&self) -> u64 {
        self.book.slowest_ms
    }

    fn generations_begun(&self) -> u64 {
        let living = self.processes.iter().filter_map(|p| p.core.as_ref());
        self.totals.generations_begun + living.map(|c| c.counters().generations_begun).sum::<u64>()
    }

    /// A vnode was granted to a node.
    pub(super) fn saw_granted(&mut self, vnode: VnodeId, node: NodeId) {
        if self.book.owners.insert(vnode, node.clone()).as_ref() != Some(&node) {
            self.book.moves.push((self.now, vnode, node));
        }
    }

    /// P7, the pace: no node gives or takes more than it may at a time.
    pub(super) fn saw_assigned(&mut self) {
        if self.book.before.is_none() {
            return;
        }
        let table = self.control.table(self.store_now());
        let mut busy: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (vnode, target) in &table.assignment.targets {
            let living = |n: &NodeId| table.nodes.get(n).is_some_and(|row| row.state != NodeState::Revoked);
            let holder = table.rows.get(vnode).map(|row| row.node()).filter(living);
            // What nobody holds has to be taken at once.
            if let Some(holder) = holder.filter(|holder| holder != target) {
                for node in [&holder, target] {
                    *busy.entry(node.clone()).or_default() += 1;
                }
            }
        }
        if let Some((node, moves)) = busy.into_iter().find(|(_, n)| *n > IN_FLIGHT_MAX) {
            let text = format!("P7: {node} takes part in {moves} moves at a time, not {IN_FLIGHT_MAX}");
            self.violations.push(text);
        }
    }

    pub(super) fn saw_message(&mut self, id: &str) {
        let soon = HAPPENS_MS - LATE_MS;
        if let Some(said) = self.book.said.get(id).filter(|said| **said >= soon) {
            let took = self.now - said;
            self.book.slowest_ms = self.book.slowest_ms.max(took);
            if took > LATE_MS {
                self.note(|| format!("!!! {id} took {took} ms"));
            }
        }
    }

    pub(super) fn saw_gap(&mut self, ms: u64) {
        if self.now >= HAPPENS_MS {
            self.book.gap_ms = self.book.gap_ms.max(ms);
        }
    }

    /// How many vnodes have to move at least.
    fn fewest_moves(&self, before: &Before) -> usize {
        let all: Vec<NodeId> =
            (0..self.setup.nodes + 1).filter_map(|i| NodeId::new(format!("n{i}")).ok()).collect();
        let old = &all[..self.setup.nodes];
        let without = |node: &NodeId| old.iter().filter(|n| *n != node).cloned().collect::<Vec<_>>();
        match (self.setup.story, &before.stopped) {
            (Story::Join, _) => replan(&before.owners, &all).0,
            (Story::Leave, Some(node)) => replan(&before.owners, &without(node)).0,
            (Story::Restart, Some(node)) => {
                let (away, owners) = replan(&before.owners, &without(node));
                away + replan(&owners, old).0
            }
            _ => 0,
        }
    }

    pub(super) fn check_story(&mut self) {
        let Some(before) = self.book.before.take() else { return };
        let mut wrong = Vec::new();
        let moves = self.book.moves.iter().filter(|(at, ..)| *at >= HAPPENS_MS).count();
        let fewest = self.fewest_moves(&before);
        if moves != fewest {
            wrong.push(format!("P7: {moves} moves where {fewest} would do: {:?}", self.book.moves));
        }
        let begun = self.generations_begun() - before.generations;
        if begun > 0 {
            wrong.push(format!("P8: {begun} generations were begun"));
        }
        for (partition, known) in self.log.status.iter().zip(&before.statuses) {
            for payload in partition.iter().skip(*known) {
                let payload = String::from_utf8_lossy(payload);
                wrong.push(format!("P8: published although nobody came or went: {payload}"));
            }
        }
        if self.book.slowest_ms > LATE_MS {
            wrong.push(format!("P8: a message took {} ms", self.book.slowest_ms));
        }
        if self.book.gap_ms > 0 {
            wrong.push(format!("P8: someone had no session for {} ms", self.book.gap_ms));
        }
        self.violations.extend(wrong);
    }
}

/// How many moves lead to balance on `nodes`, and how it is then.
fn replan(owners: &[Option<NodeId>], nodes: &[NodeId]) -> (usize, Vec<Option<NodeId>>) {
    let node = |id: &NodeId| PlanNode { id: id.clone(), weight: 1, pins: Vec::new(), in_flight: 0 };
    let nodes: Vec<_> = nodes.iter().map(node).collect();
    let moves = plan(&PlanInput { owners, nodes: &nodes, in_flight_max: usize::MAX });
    let mut after = owners.to_vec();
    for m in &moves {
        after[m.vnode.index()] = Some(m.to.clone());
    }
    (moves.len(), after)
}
