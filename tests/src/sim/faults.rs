//! What goes wrong, and when.

use roost_backend::store::DataSet;
use roost_backend::store::model::{Control, VnodeData};
use roost_ws_node::core::events::Event;

use super::{Happening, LEASE_TTL_MS, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Crash,
    Pause,
    Twin,
    Drain,
    StoreDown,
    StoreCut,
    LogDown,
    LogCut,
    Isolated,
    Snapshot,
    Rewind,
    Wipe,
    CrashAndRewind,
    ClockStep,
    Disconnect,
}

const ALL: &[Fault] = &[
    Fault::Crash,
    Fault::Crash,
    Fault::Pause,
    Fault::Pause,
    Fault::Twin,
    Fault::Drain,
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
    Fault::ClockStep,
    Fault::Disconnect,
    Fault::Disconnect,
    Fault::Disconnect,
];

impl World {
    pub(crate) fn fault(&mut self) {
        if !self.faulty() {
            return self.heal();
        }
        let next = self.now + self.between(150, 1800);
        self.at(next, Happening::Fault);
        let fault = ALL[self.between(0, ALL.len() as u64) as usize];
        // Epochs are kept apart by the store's data or by its clock: a run takes away one of the two.
        let loses_data = matches!(fault, Fault::Rewind | Fault::Wipe | Fault::CrashAndRewind);
        let allowed = if self.setup.seed.is_multiple_of(3) { !loses_data } else { fault != Fault::ClockStep };
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
                self.core_gets(pid, Event::Drain);
                self.at(self.now + length, Happening::ToCore { pid, event: Box::new(Event::ReleaseAll) });
                // The process ends some time later; another takes its place.
                let node = self.processes[pid].node.clone();
                self.at(self.now + length + 1500, Happening::Start { node });
            }
            Fault::StoreDown => self.store_down_until = until,
            Fault::StoreCut => self.processes[pid].no_store_until = until,
            Fault::LogDown => self.log.down_until = until,
            Fault::LogCut => self.processes[pid].no_log_until = until,
            Fault::Isolated => {
                self.processes[pid].no_store_until = until;
                self.processes[pid].no_log_until = until;
            }
            Fault::Snapshot => self.snapshot = Some((self.control.clone(), self.data.clone())),
            Fault::Rewind => self.rewind(),
            Fault::Wipe => {
                self.control = Control::default();
                self.data = vec![VnodeData::default(); self.setup.vnodes as usize];
                self.another_data_set();
            }
            Fault::CrashAndRewind => {
                self.crash(pid, length / 3);
                self.rewind();
            }
            Fault::ClockStep => {
                let step = self.between(0, 7_200_000) as i64 - 3_600_000;
                self.store_skew = step;
            }
            Fault::Disconnect => {
                let user = self.rng_index(self.clients.len());
                self.drop_client(user);
            }
        }
    }

    fn rng_index(&mut self, len: usize) -> usize {
        if len == 0 { 0 } else { self.between(0, len as u64) as usize }
    }

    fn crash(&mut self, pid: usize, down: u64) {
        let node = self.processes[pid].node.clone();
        self.kill(pid);
        self.at(self.now + 20 + down, Happening::Start { node });
    }

    fn rewind(&mut self) {
        // Not twice to the same moment: with the store's clock an hour off as well, and everyone dead who saw the
        // first life, epochs could be given twice. Nothing short of a counter outside the store would prevent it.
        if let Some((control, data)) = self.snapshot.take() {
            (self.control, self.data) = (control, data);
            self.another_data_set();
        }
    }

    /// The store came up with other data: the first connection gives it a new name.
    fn another_data_set(&mut self) {
        self.run += 1;
        let name = DataSet(format!("d{}", self.run));
        let settling = self.store_now() + LEASE_TTL_MS;
        self.control.new_data_set(self.setup.vnodes, name, settling);
        self.store_down_until = self.store_down_until.max(self.now + 5);
    }

    /// Faults end: everything is reachable, and every node has a process.
    fn heal(&mut self) {
        self.note(|| "*** healed".into());
        (self.store_down_until, self.log.down_until) = (0, 0);
        let now = self.now;
        for process in &mut self.processes {
            process.no_store_until = 0;
            process.no_log_until = 0;
            process.paused_until = process.paused_until.min(now + 1);
        }
    }
}
