//! What goes wrong, and when.

use roost_backend::store::model::{Control, VnodeData};
use roost_backend::store::{Assign, DataSet, NodeState, Resign, Table};
use roost_proto::ids::{NodeId, VnodeId};
use roost_ws_node::core::Input;

use super::store::{Peer, Request};
use super::{Broken, Happening, LEASE_TTL_MS, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Crash,
    Pause,
    Twin,
    /// A planned stop; the process comes back, or leaves for good.
    Drain,
    /// An operator empties a node, and takes it back.
    DrainUndrain,
    Join,
    /// An earlier leader's plan, that this one finds: two vnodes change places.
    Shuffle,
    LeaderCrash,
    LeaderStop,
    LeaderPause,
    LeaderCut,
    EveryCoordinatorDead,
    StoreDown,
    StoreCut,
    LogDown,
    LogCut,
    Isolated,
    Snapshot,
    Rewind,
    Wipe,
    CrashAndRewind,
    /// The data go back while process and connections stay, as when a primary followed an older copy and leads again.
    Flip,
    /// The data go back, and nothing has another name.
    Reload,
    /// A write is heard of, its answer is lost, and the data come back as they were just before.
    TakenBack,
    ClockStep,
    NodeClockStep,
    Disconnect,
    /// The links of a node break, and with them what is under way.
    LinksCut,
    /// They stay open, and nothing arrives by them.
    LinksDeaf,
    LinksSlow,
    /// No new ones can be opened, and those that were break.
    LinksRefused,
}

const ALL: &[Fault] = &[
    Fault::Crash,
    Fault::Crash,
    Fault::Pause,
    Fault::Pause,
    Fault::Twin,
    Fault::Drain,
    Fault::Drain,
    Fault::DrainUndrain,
    Fault::Join,
    Fault::Shuffle,
    Fault::Shuffle,
    Fault::Shuffle,
    Fault::LeaderCrash,
    Fault::LeaderStop,
    Fault::LeaderPause,
    Fault::LeaderCut,
    Fault::EveryCoordinatorDead,
    Fault::StoreDown,
    Fault::StoreCut,
    Fault::LogDown,
    Fault::LogCut,
    Fault::Isolated,
    Fault::Snapshot,
    Fault::Snapshot,
    Fault::Rewind,
    Fault::Rewind,
    Fault::Wipe,
    Fault::CrashAndRewind,
    Fault::CrashAndRewind,
    Fault::Flip,
    Fault::Flip,
    Fault::Reload,
    Fault::Reload,
    Fault::TakenBack,
    Fault::TakenBack,
    Fault::ClockStep,
    Fault::NodeClockStep,
    Fault::Disconnect,
    Fault::Disconnect,
    Fault::Disconnect,
    Fault::LinksCut,
    Fault::LinksCut,
    Fault::LinksDeaf,
    Fault::LinksDeaf,
    Fault::LinksSlow,
    Fault::LinksSlow,
    Fault::LinksRefused,
];

/// A node reads its wall clock when it starts: an hour forward or back.
const NODE_STEP_MS_MAX: u64 = 3_600_000;

impl World {
    pub(crate) fn fault(&mut self) {
        if !self.faulty() {
            return self.heal();
        }
        if self.now < self.quiet_until {
            return self.at(self.quiet_until, Happening::Fault);
        }
        let next = self.now + self.between(150, 1800);
        self.at(next, Happening::Fault);
        let fault = ALL[self.between(0, ALL.len() as u64) as usize];
        // Epochs are kept apart by the store's data or by its clock: a run takes away one of the two.
        let loses_data = matches!(
            fault,
            Fault::Rewind
                | Fault::Wipe
                | Fault::CrashAndRewind
                | Fault::Flip
                | Fault::Reload
                | Fault::TakenBack
        );
        let clock = matches!(fault, Fault::ClockStep | Fault::NodeClockStep);
        let allowed = if self.setup.seed.is_multiple_of(3) { !loses_data } else { !clock };
        self.inflict(if allowed { fault } else { Fault::Crash });
    }

    /// Lets one fault happen now.
    pub fn inflict(&mut self, fault: Fault) {
        self.note(|| format!("*** {fault:?}"));
        self.faults.push((self.now, fault));
        let alive = self.alive();
        let Some(pid) = alive.get(self.rng_index(alive.len())).copied() else { return };
        // Short ones, about a lease, and longer ones.
        let length = match self.between(0, 3) {
            0 => self.between(50, 600),
            1 => self.between(600, LEASE_TTL_MS),
            _ => self.between(LEASE_TTL_MS, 2 * LEASE_TTL_MS),
        };
        let until = self.now + length;
        match fault {
            Fault::Crash => self.crash(pid, length / 3),
            Fault::Pause => self.processes[pid].paused_until = until,
            Fault::Twin => {
                let node = self.processes[pid].node.clone();
                self.start(node);
            }
            Fault::Drain => {
                // Two nodes stay, if all goes well.
                let leaves = alive.len() > 2 && self.chance(40.0);
                let back = (!leaves).then(|| self.between(0, 3000));
                self.stop(pid, back);
            }
            Fault::DrainUndrain => {
                self.core_gets(pid, Input::Drain);
                self.at(until, Happening::ToCore { pid, event: Box::new(Input::Undrain) });
            }
            Fault::Join => self.join(),
            Fault::Shuffle => self.shuffle(),
            Fault::LeaderCrash => self.crash_coordinator(length),
            Fault::LeaderStop => self.stop_coordinator(length),
            Fault::LeaderPause => {
                let c = self.a_leader();
                self.coordinators[c].paused_until = until;
            }
            Fault::LeaderCut => {
                let c = self.a_leader();
                self.coordinators[c].no_store_until = until;
            }
            Fault::EveryCoordinatorDead => {
                while !self.leaders().is_empty() {
                    self.crash_coordinator(length);
                }
            }
            Fault::StoreDown => self.store_down_until = until,
            Fault::StoreCut => self.processes[pid].no_store_until = until,
            Fault::LogDown => self.log.down_until = until,
            Fault::LogCut => self.processes[pid].no_log_until = until,
            Fault::Isolated => {
                self.processes[pid].no_store_until = until;
                self.processes[pid].no_log_until = until;
                self.processes[pid].isolated_until = until;
            }
            Fault::Snapshot => self.snapshot = Some((self.control.clone(), self.data.clone())),
            Fault::Rewind => self.rewind(),
            Fault::Wipe => {
                self.control = Control::default();
                self.data = vec![VnodeData::default(); self.setup.vnodes as usize];
                self.saw_rosters();
                self.another_data_set();
            }
            Fault::CrashAndRewind => {
                self.crash(pid, length / 3);
                self.rewind();
            }
            Fault::Flip => self.flip(),
            Fault::Reload => self.reload(),
            Fault::TakenBack => self.takes_back = true,
            Fault::ClockStep => {
                let step = self.between(0, 7_200_000) as i64 - 3_600_000;
                self.store_skew = step;
            }
            Fault::NodeClockStep => {
                let node = self.processes[pid].node.clone();
                let step = self.between(0, 2 * NODE_STEP_MS_MAX) as i64 - NODE_STEP_MS_MAX as i64;
                self.node_skew.insert(node, step);
                self.crash(pid, length / 3);
            }
            Fault::LinksCut => self.cut_links(pid),
            Fault::LinksDeaf => self.deafen_links(pid),
            Fault::LinksSlow => self.links.slow_until = until,
            Fault::LinksRefused => {
                self.links.refused_until = until;
                for pid in alive {
                    self.cut_links(pid);
                }
            }
            Fault::Disconnect => {
                let user = self.rng_index(self.clients.len());
                self.drop_client(user);
            }
        }
    }

    /// A fourth node, if there is none.
    pub fn join(&mut self) {
        let node = NodeId::new(format!("n{}", self.setup.nodes)).expect("a plain name");
        if !self.alive().iter().any(|p| self.processes[*p].node == node) {
            self.start(node);
        }
    }

    fn shuffle(&mut self) {
        let table = self.control.table(self.store_now());
        let (a, b) = (self.a_vnode(), self.a_vnode());
        let target = |v| table.assignment.targets.get(&v).cloned();
        if let (Some(leader), Some(of_a), Some(of_b)) = (&table.leader, target(a), target(b)) {
            self.control.assign(&Assign {
                data_set: table.data_set.clone(),
                token: leader.token.clone(),
                from_version: table.assignment.version,
                targets: vec![(a, of_b), (b, of_a)],
            });
        }
    }

    fn a_vnode(&mut self) -> VnodeId {
        VnodeId(self.between(0, u64::from(self.setup.vnodes)) as u16)
    }

    /// The one that leads, as far as it knows; one that will lead if there is none.
    fn a_leader(&self) -> usize {
        let alive = self.leaders();
        let leads = |c: &usize| self.coordinators[*c].leader.as_ref().is_some_and(|l| l.is_leading());
        alive.iter().copied().find(leads).or(alive.first().copied()).unwrap_or(0)
    }

    fn crash_coordinator(&mut self, down: u64) {
        let c = self.a_leader();
        if self.coordinators[c].leader.is_some() {
            self.kill_coordinator(c);
            self.at(self.now + down, Happening::StartCoordinator);
        }
    }

    /// In good order: the lead is given up.
    fn stop_coordinator(&mut self, down: u64) {
        let c = self.a_leader();
        if self.coordinators[c].leader.as_ref().is_some_and(|l| l.is_leading()) {
            let resign = Resign { data_set: self.control.data_set.clone(), token: format!("c{c}") };
            self.ask_store(Peer::Coordinator(c), Request::Resign(resign));
        }
        self.crash_coordinator(down);
    }

    fn rng_index(&mut self, len: usize) -> usize {
        if len == 0 { 0 } else { self.between(0, len as u64) as usize }
    }

    pub(crate) fn crash(&mut self, pid: usize, down: u64) {
        let node = self.processes[pid].node.clone();
        self.kill(pid);
        self.at(self.now + 20 + down, Happening::Start { node });
    }

    fn rewind(&mut self) {
        // Not twice to the same moment: with the store's clock an hour off as well, and everyone dead who saw the
        // first life, epochs could be given twice. Nothing short of a counter outside the store would prevent it.
        if let Some(snapshot) = self.snapshot.take() {
            self.restart_with(snapshot);
        }
    }

    pub(super) fn restart_with(&mut self, (control, data): (Control, Vec<VnodeData>)) {
        (self.control, self.data) = (control, data);
        self.saw_rosters();
        self.another_data_set();
    }

    /// Whoever asks next finds the other history and names it.
    fn flip(&mut self) {
        let Some((control, data)) = self.snapshot.take() else { return };
        (self.control, self.data) = (control, data);
        self.saw_rosters();
        self.another_life();
        if !self.is_broken(Broken::RunIdAlone) {
            // Every script compares: what is on its way is refused.
            self.connections += 1;
            self.name_data_set();
        }
    }

    /// Only who had a vnode before can tell, and has to look before anybody else does: so this happens where nothing
    /// changed hands since, everyone is well, and all is quiet for a while.
    fn reload(&mut self) {
        if !self.snapshot.as_ref().is_some_and(|(control, data)| self.is_as_well_as(control, data)) {
            return;
        }
        self.note(|| "*** reloaded".into());
        let Some((mut control, data)) = self.snapshot.take() else { return };
        // The leases in the copy are over.
        control.expire_all_rows();
        (self.control, self.data) = (control, data);
        self.saw_rosters();
        self.another_life();
        self.quiet_until = self.now + 2 * LEASE_TTL_MS;
        for coordinator in &mut self.coordinators {
            coordinator.paused_until = coordinator.paused_until.max(self.quiet_until);
        }
    }

    /// Whether every vnode has the owner that it had then, who lives, is meant to have it, and is not about to lose it.
    fn is_as_well_as(&self, control: &Control, data: &[VnodeData]) -> bool {
        let (then, now) = (control.table(self.store_now()), self.control.table(self.store_now()));
        // What was asked long ago and arrives late is carried out, too: a vnode that changes hands then is looked at first
        // by who cannot tell.
        let moves = |h: &Happening| match h {
            Happening::Start { .. } | Happening::Stopping { .. } => true,
            Happening::Store { run, request, .. } => {
                *run == self.connections && matches!(**request, Request::Assign(_) | Request::Revoke(..))
            }
            _ => false,
        };
        let lives = |pid: &usize| {
            let process = &self.processes[*pid];
            let until = process.paused_until.max(process.no_store_until).max(self.store_down_until);
            self.now >= until
        };
        let alive = self.alive();
        let sids: Vec<_> = alive
            .iter()
            .filter_map(|pid| self.processes[*pid].core.as_ref())
            .map(|core| core.sid())
            .collect();
        let all_up = now.nodes.values().all(|row| row.state == NodeState::Up && sids.contains(&&row.sid));
        let held = |v: usize| {
            let vnode = VnodeId(v as u16);
            let head = |data: &VnodeData| {
                data.head().map(|(epoch, sid, generation, _)| (epoch, sid.clone(), generation))
            };
            let target = |t: &Table| t.assignment.targets.get(&vnode).cloned();
            let (Some(row), Some(head_now)) = (now.rows.get(&vnode), head(&self.data[v])) else {
                return false;
            };
            row.ready
                && (&row.sid, row.epoch) == (&head_now.1, head_now.0)
                && head(&data[v]).as_ref() == Some(&head_now)
                && target(&now) == Some(row.node())
                && target(&then) == Some(row.node())
        };
        then.data_set == now.data_set
            && then.nodes.iter().map(|(n, r)| (n, &r.sid)).eq(now.nodes.iter().map(|(n, r)| (n, &r.sid)))
            && alive.iter().all(lives)
            && sids.len() == now.nodes.len()
            && all_up
            && !self.happenings.values().any(moves)
            && (0..data.len()).all(held)
    }

    /// The store came up with other data: the first connection gives it a new name.
    fn another_data_set(&mut self) {
        self.connections += 1;
        self.another_life();
        self.name_data_set();
        self.store_down_until = self.store_down_until.max(self.now + 5);
    }

    fn another_life(&mut self) {
        self.run += 1;
        self.saw_other_data();
    }

    fn name_data_set(&mut self) {
        let name = DataSet(format!("d{}", self.run));
        let settling = self.store_now() + LEASE_TTL_MS;
        self.control.new_data_set(self.setup.vnodes, name, settling);
    }

    /// Faults end: everything is reachable, and every node has a process.
    fn heal(&mut self) {
        self.note(|| "*** healed".into());
        self.log.was_down_until = self.log.down_until;
        (self.store_down_until, self.log.down_until) = (0, 0);
        let now = self.now;
        for process in &mut self.processes {
            process.troubled_until = process.troubled_until();
            process.no_store_until = 0;
            process.no_log_until = 0;
            process.isolated_until = 0;
            process.paused_until = process.paused_until.min(now + 1);
        }
        for coordinator in &mut self.coordinators {
            coordinator.no_store_until = 0;
            coordinator.paused_until = coordinator.paused_until.min(now + 1);
        }
    }
}
