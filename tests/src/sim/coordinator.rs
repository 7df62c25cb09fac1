//! The coordinators: a real leader each, a view read at its own times, and what the carrier would do for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use roost_backend::store::{Row, Table};
use roost_coordinator::leader::{Leader, LeaderAction, LeaderConfig, LeaderEvent};
use roost_proto::ids::{Epoch, NodeId, VnodeId};
use roost_proto::limits::BEATS_PER_LEASE;

use super::store::{Peer, Request};
use super::{Broken, Happening, LEASE_TTL_MS, World};

/// As in `coordinator/src/carry.rs`.
const BEAT_MS: u64 = LEASE_TTL_MS / BEATS_PER_LEASE;
const TICK_MS: u64 = BEAT_MS / 4;
const PROBE_TIMEOUT_MS: u64 = 300;
/// Moves in flight per node: few, as there are few vnodes.
pub(super) const IN_FLIGHT_MAX: usize = 2;

/// One process of a coordinator.
pub(crate) struct Coordinator {
    pub leader: Option<Leader>,
    /// As last read, and when that was asked.
    view: Option<(Arc<Table>, u64)>,
    /// The highest epoch seen of each vnode (core rule 20).
    epochs: BTreeMap<VnodeId, Epoch>,
    /// Stopped by the scheduler until then; what arrives waits.
    pub paused_until: u64,
    backlog: VecDeque<LeaderEvent>,
    pub no_store_until: u64,
}

impl World {
    pub(crate) fn start_coordinator(&mut self) {
        let c = self.coordinators.len();
        self.note(|| format!("c{c} starts"));
        let mut cfg = LeaderConfig::new(format!("c{c}"), LEASE_TTL_MS);
        let waits = !self.is_broken(Broken::MovesWithoutWaiting);
        cfg.in_flight_max = if waits { IN_FLIGHT_MAX } else { usize::MAX };
        self.coordinators.push(Coordinator {
            leader: Some(Leader::new(cfg)),
            view: None,
            epochs: BTreeMap::new(),
            paused_until: 0,
            backlog: VecDeque::new(),
            no_store_until: 0,
        });
        let phase = self.between(0, TICK_MS);
        self.at(self.now + phase, Happening::LeaderTick { c });
        self.at(self.now, Happening::ReadTable { peer: Peer::Coordinator(c), periodic: true });
    }

    /// Those that have not died.
    pub(crate) fn leaders(&self) -> Vec<usize> {
        (0..self.coordinators.len()).filter(|c| self.coordinators[*c].leader.is_some()).collect()
    }

    pub(crate) fn kill_coordinator(&mut self, c: usize) {
        self.note(|| format!("c{c} dies"));
        self.coordinators[c].leader = None;
    }

    pub(crate) fn tick_coordinator(&mut self, c: usize) {
        if self.coordinators[c].leader.is_some() {
            let wakes = self.coordinators[c].paused_until;
            self.at(wakes.max(self.now + TICK_MS), Happening::LeaderTick { c });
            self.leader_gets(c, LeaderEvent::Tick);
        }
    }

    pub(crate) fn read_table_of(&mut self, c: usize, periodic: bool) {
        if self.coordinators[c].leader.is_none() {
            return;
        }
        let wakes = self.coordinators[c].paused_until;
        if periodic {
            let peer = Peer::Coordinator(c);
            self.at(wakes.max(self.now + BEAT_MS), Happening::ReadTable { peer, periodic });
        }
        if self.now >= wakes {
            self.ask_store(Peer::Coordinator(c), Request::Table(self.now));
        }
    }

    pub(crate) fn leader_gets(&mut self, c: usize, event: LeaderEvent) {
        let coordinator = &mut self.coordinators[c];
        if coordinator.leader.is_none() {
            return;
        }
        if self.now < coordinator.paused_until {
            if !matches!(event, LeaderEvent::Tick) {
                coordinator.backlog.push_back(event);
            }
            return;
        }
        let mut events = std::mem::take(&mut coordinator.backlog);
        events.push_back(event);
        for mut event in events {
            if let LeaderEvent::Table { table, asked_at, .. } = &event
                && !self.look(c, table, *asked_at)
            {
                continue;
            }
            if !matches!(event, LeaderEvent::Tick | LeaderEvent::Table { .. }) {
                self.note(|| format!("c{c} <- {event:?}"));
            }
            self.misdate(&mut event);
            let now = self.now;
            let Some(leader) = self.coordinators[c].leader.as_mut() else { return };
            for action in leader.step(event, now) {
                self.carry_for(c, action);
            }
        }
    }

    /// What a broken leader is told: how old a table is by the store's wall clock.
    fn misdate(&self, event: &mut LeaderEvent) {
        if let (LeaderEvent::Table { asked_at, .. }, true) =
            (event, self.is_broken(Broken::LeaderByWallClock))
        {
            *asked_at = asked_at.saturating_add_signed(self.store_skew);
        }
    }

    /// Takes a table into the view, unless a later one is there.
    fn look(&mut self, c: usize, table: &Arc<Table>, asked_at: u64) -> bool {
        let coordinator = &mut self.coordinators[c];
        if let Some((known, at)) = &coordinator.view {
            if asked_at < *at {
                return false;
            }
            if known.data_set != table.data_set {
                coordinator.epochs.clear();
            }
        }
        coordinator.view = Some((Arc::clone(table), asked_at));
        for (vnode, row) in &table.rows {
            let seen = coordinator.epochs.entry(*vnode).or_insert(row.epoch);
            *seen = row.epoch.max(*seen);
        }
        true
    }

    fn carry_for(&mut self, c: usize, action: LeaderAction) {
        self.note(|| format!("c{c} -> {action:?}"));
        match action {
            LeaderAction::Lead(lead) => self.ask_store(Peer::Coordinator(c), Request::Lead(lead)),
            LeaderAction::Revoke { request, cause } => {
                self.ask_store(Peer::Coordinator(c), Request::Revoke(request, cause));
            }
            LeaderAction::Forget(request) => self.ask_store(Peer::Coordinator(c), Request::Forget(request)),
            LeaderAction::Assign { request, .. } => {
                self.ask_store(Peer::Coordinator(c), Request::Assign(request));
            }
            LeaderAction::ProbeAdmin { sid, addr } => {
                let (refused, after) = self.probe(&addr);
                let event = Box::new(LeaderEvent::Probed { sid, refused });
                self.at(self.now + after, Happening::ToLeader { c, event });
            }
        }
    }

    /// Whether the port of that name refuses, and after how long that is known.
    fn probe(&mut self, addr: &str) -> (bool, u64) {
        let at = |p: &usize| self.processes[*p].admin() == addr;
        match self.alive().into_iter().find(at) {
            None => (true, self.between(1, 5)),
            Some(pid) if self.now < self.processes[pid].isolated_until => {
                (self.is_broken(Broken::SilenceIsRefusal), PROBE_TIMEOUT_MS)
            }
            // The kernel takes the connection even if the process is stopped.
            Some(_) => (false, self.between(1, 5)),
        }
    }

    /// What a client is answered at `/route` that asks one of the two: `Err` is how long it took to learn nothing.
    pub(crate) fn route(&mut self, vnode: VnodeId) -> Result<(NodeId, Epoch), u64> {
        let slot = self.between(0, 2) as usize;
        let Some(c) = self.leaders().get(slot).copied() else { return Err(2) };
        let coordinator = &self.coordinators[c];
        if self.now < coordinator.paused_until {
            return Err(500);
        }
        let unready = self.is_broken(Broken::RouteNamesUnready);
        let home = coordinator.view.as_ref().and_then(|(table, _)| home(table, vnode, unready));
        let home = home.filter(|row| coordinator.epochs.get(&vnode).is_none_or(|seen| row.epoch >= *seen));
        let (node, epoch) = home.map(|row| (row.node(), row.epoch)).ok_or(2_u64)?;
        self.saw_direction("a client", vnode, epoch);
        Ok((node, epoch))
    }
}

/// As in `coordinator/src/view/snapshot.rs`: ready, and of a life that is not known to be over.
fn home(table: &Table, vnode: VnodeId, unready: bool) -> Option<&Row> {
    let row = table.rows.get(&vnode).filter(|row| row.ready || unready)?;
    table.living_node(&row.node()).is_some_and(|node| node.sid == row.sid).then_some(row)
}
