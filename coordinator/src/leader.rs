//! The leader: watches the nodes, revokes the dead, plans who owns what. Plain state: no clock, no I/O.
//!
//! Every coordinator runs one; whether it leads is what the store answers. Every write it asks for carries its
//! token and what it saw, so the store refuses whatever a leader that slept too long still wants (core rules 21
//! and 23, promise 6 of the store). `watch` judges who is dead, `placement` who should own what.

mod graves;
mod placement;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use roost_backend::store::{Assign, DataSet, Forget, Lead, LeadAnswer, LeaderRow, Revoke, Table};
use roost_proto::Sid;
use roost_proto::limits::BEATS_PER_LEASE;

use self::graves::Graves;
pub use self::placement::{Decision, decide};
use self::watch::Watches;

/// Vnodes one node gives or takes at a time. With the default ring on three nodes a vnode has some 60 of a node's
/// 20,000 sessions, so 8 of them are about the 500 sessions a node tells to move per second.
pub const IN_FLIGHT_MAX: usize = 8;

/// What a leader is told once. Times in milliseconds.
#[derive(Debug, Clone)]
pub struct LeaderConfig {
    /// Names this coordinator among all; no two share one.
    pub token: String,
    pub lease_ttl_ms: u64,
    pub in_flight_max: usize,
    /// How long a cluster in which nobody owns anything may gather nodes before the first plan. Its nodes come
    /// one after the other within a second or two; planning for the first alone would give it everything and take
    /// two thirds back at once.
    pub first_plan_wait_ms: u64,
    /// After so long the row of a node that is gone is removed; 0: never.
    pub forget_after_s: u64,
}

impl LeaderConfig {
    /// With the defaults: 8 moves per node, a third of a lease to gather, and nobody is forgotten.
    pub fn new(token: impl Into<String>, lease_ttl_ms: u64) -> Self {
        let first_plan_wait_ms = lease_ttl_ms / 3;
        Self {
            token: token.into(),
            lease_ttl_ms,
            in_flight_max: IN_FLIGHT_MAX,
            first_plan_wait_ms,
            forget_after_s: 0,
        }
    }

    fn beat_ms(&self) -> u64 {
        self.lease_ttl_ms / BEATS_PER_LEASE
    }

    /// A pause in the store's answers that is longer than this restarts every watch: nobody could beat meanwhile,
    /// and after an outage everybody must have time to. Half a lease leaves the living six beats.
    fn silence_ms_max(&self) -> u64 {
        self.lease_ttl_ms / 2
    }
}

/// What happened. Each action but `ProbeAdmin` is answered by exactly one event, `None` if the store did not
/// answer in time.
#[derive(Debug, Clone)]
pub enum LeaderEvent {
    /// Time passed: several times per beat.
    Tick,
    /// The table as read by a question asked at `asked_at`, on the clock of [`Leader::step`].
    Table {
        table: Arc<Table>,
        asked_at: u64,
        /// Now, by a clock that goes on while the machine sleeps.
        boot_ms: u64,
    },
    Led(Option<LeadAnswer>),
    Revoked {
        sid: Sid,
        done: Option<bool>,
    },
    Assigned(Option<bool>),
    Forgot {
        sid: Sid,
        done: Option<bool>,
    },
    /// Whether the admin port refused the connection; a time-out or any other failure is no refusal.
    Probed {
        sid: Sid,
        refused: bool,
    },
}

/// Why a sid is declared dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeCause {
    /// The same beat for a lease TTL.
    Silent,
    /// Two beats missed and its admin port refused twice: the process is gone.
    Refused,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum LeaderAction {
    Lead(Lead),
    Revoke {
        request: Revoke,
        cause: RevokeCause,
    },
    Assign {
        request: Assign,
        /// How many of the targets are moves; the others write down what is so already.
        moves: usize,
    },
    Forget(Forget),
    /// Connect to `addr` and say whether that was refused.
    ProbeAdmin {
        sid: Sid,
        addr: String,
    },
}

/// One coordinator's part in leading. Times are milliseconds of one monotonic clock.
#[derive(Debug)]
pub struct Leader {
    cfg: LeaderConfig,
    /// The data set known, and since when: an older table says nothing about it.
    data_set: Option<(DataSet, u64)>,
    role: Role,
    lead_due: u64,
    /// When the call that is not answered yet was asked.
    lead_asked: Option<u64>,
    watches: Watches,
    graves: Graves,
    planning: Planning,
}

#[derive(Debug)]
enum Role {
    Standby(Option<SeenLeader>),
    Leading {
        since: u64,
        /// When the store last let this leader write.
        confirmed: u64,
    },
}

/// Another's leadership, as this one sees it.
#[derive(Debug)]
struct SeenLeader {
    row: LeaderRow,
    since: u64,
    answered: u64,
}

/// Where the plan stands.
#[derive(Debug, Default)]
struct Planning {
    /// The last table, if there is still something to plan from it.
    table: Option<Arc<Table>>,
    unanswered: bool,
    /// Only a table asked for after the last answer shows what came of it.
    tables_from: u64,
    /// When the first node was seen while nobody owned anything.
    gathering_since: Option<u64>,
    pins_overlapping: usize,
}

impl Leader {
    pub fn new(cfg: LeaderConfig) -> Self {
        let watches = Watches::new(cfg.lease_ttl_ms, cfg.beat_ms());
        let graves = Graves::new(cfg.forget_after_s);
        Self {
            cfg,
            data_set: None,
            role: Role::Standby(None),
            lead_due: 0,
            lead_asked: None,
            watches,
            graves,
            planning: Planning::default(),
        }
    }

    /// The name it leads under.
    pub fn token(&self) -> &str {
        &self.cfg.token
    }

    /// Whether the store's last answer was that this coordinator leads.
    pub fn is_leading(&self) -> bool {
        matches!(self.role, Role::Leading { .. })
    }

    /// Vnodes that more than one living node pins: only the first by name gets each.
    pub fn pins_overlapping(&self) -> usize {
        self.planning.pins_overlapping
    }

    /// Takes one event in; what comes out is to be done now.
    pub fn step(&mut self, event: LeaderEvent, now: u64) -> Vec<LeaderAction> {
        let mut out = Vec::new();
        match event {
            LeaderEvent::Tick => {}
            LeaderEvent::Table { table, asked_at, boot_ms } => {
                self.bury(&table, asked_at, boot_ms, now, &mut out);
                self.on_table(table, asked_at, now, &mut out);
            }
            LeaderEvent::Led(answer) => self.on_led(answer, now),
            LeaderEvent::Revoked { sid, done } => self.watches.revoke_answered(&sid, done, now),
            LeaderEvent::Forgot { sid, .. } => self.graves.answered(&sid),
            LeaderEvent::Assigned(_) => {
                let planning = &mut self.planning;
                (planning.unanswered, planning.tables_from, planning.table) = (false, now, None);
            }
            LeaderEvent::Probed { sid, refused } => {
                if let Some(beat) = self.watches.probed(&sid, refused, now) {
                    self.revoke(sid, beat, RevokeCause::Refused, now, &mut out);
                }
            }
        }
        self.lead_if_due(now, &mut out);
        if self.is_leading() {
            let probes = self.watches.probes(now);
            out.extend(probes.into_iter().map(|(sid, addr)| LeaderAction::ProbeAdmin { sid, addr }));
            self.plan_if_due(now, &mut out);
        }
        out
    }

    fn lead_if_due(&mut self, now: u64, out: &mut Vec<LeaderAction>) {
        let Some((data_set, _)) = &self.data_set else { return };
        if self.lead_asked.is_some() || now < self.lead_due {
            return;
        }
        self.lead_asked = Some(now);
        self.lead_due = now + self.cfg.beat_ms();
        let frozen = match &self.role {
            // That the beat has not moved until the call arrives is what the store compares.
            Role::Standby(Some(seen))
                if now - seen.since >= self.cfg.lease_ttl_ms
                    && now - seen.answered <= self.cfg.silence_ms_max() =>
            {
                Some(seen.row.clone())
            }
            Role::Standby(_) | Role::Leading { .. } => None,
        };
        out.push(LeaderAction::Lead(Lead {
            data_set: data_set.clone(),
            token: self.cfg.token.clone(),
            frozen,
        }));
    }

    fn on_led(&mut self, answer: Option<LeadAnswer>, now: u64) {
        let asked_at = self.lead_asked.take();
        let of_old_data = asked_at < self.data_set.as_ref().map(|(_, since)| *since);
        match answer {
            None => {}
            Some(LeadAnswer::Leading | LeadAnswer::Other(_)) if of_old_data => {}
            Some(LeadAnswer::NewData(data_set)) => self.learn_data_set(data_set, now),
            Some(LeadAnswer::Other(row)) => self.stand_by(Some(row), now),
            Some(LeadAnswer::Leading) => match &mut self.role {
                Role::Leading { confirmed, .. } => {
                    // Nobody else could write either, so nobody could beat.
                    if now - *confirmed > self.cfg.silence_ms_max() {
                        self.watches.restart(now);
                    }
                    *confirmed = now;
                }
                Role::Standby(_) => self.role = Role::Leading { since: now, confirmed: now },
            },
        }
    }

    fn stand_by(&mut self, other: Option<LeaderRow>, now: u64) {
        let since = match (&self.role, &other) {
            (Role::Standby(Some(seen)), Some(row))
                if seen.row == *row && now - seen.answered <= self.cfg.silence_ms_max() =>
            {
                seen.since
            }
            _ => now,
        };
        self.role = Role::Standby(other.map(|row| SeenLeader { row, since, answered: now }));
        self.watches.clear();
        self.graves.clear();
        self.planning = Planning::default();
    }

    fn learn_data_set(&mut self, data_set: DataSet, now: u64) {
        if self.data_set.as_ref().is_some_and(|(known, _)| *known == data_set) {
            return;
        }
        self.data_set = Some((data_set, now));
        self.stand_by(None, now);
        self.lead_due = now;
    }

    fn on_table(&mut self, table: Arc<Table>, asked_at: u64, now: u64, out: &mut Vec<LeaderAction>) {
        match &self.data_set {
            Some((known, since)) if *known != table.data_set && asked_at < *since => return,
            Some((known, _)) if *known == table.data_set => {}
            _ => self.learn_data_set(table.data_set.clone(), now),
        }
        let Role::Leading { since, .. } = self.role else { return };
        if asked_at < since {
            return;
        }
        self.watches.observe(&table, asked_at, now);
        for (sid, beat) in self.watches.overdue(now) {
            self.revoke(sid, beat, RevokeCause::Silent, now, out);
        }
        if asked_at >= self.planning.tables_from {
            self.planning.table = Some(table);
        }
    }

    fn revoke(&self, sid: Sid, beat: u64, cause: RevokeCause, now: u64, out: &mut Vec<LeaderAction>) {
        let (Some((data_set, _)), Role::Leading { confirmed, .. }) = (&self.data_set, &self.role) else {
            return;
        };
        // A store that only answers reads shows everybody's beat standing still. Asked now, it might do it at the
        // moment it takes writes again.
        if now - confirmed > self.cfg.silence_ms_max() {
            return;
        }
        let (data_set, token) = (data_set.clone(), self.cfg.token.clone());
        out.push(LeaderAction::Revoke { request: Revoke { data_set, token, sid, beat }, cause });
    }

    /// Rows of nodes that are gone for so long.
    fn bury(&mut self, table: &Table, asked_at: u64, boot_ms: u64, now: u64, out: &mut Vec<LeaderAction>) {
        let (Some((data_set, _)), Role::Leading { since, confirmed }) = (&self.data_set, &self.role) else {
            return;
        };
        // Of other data, from before it led, or from a time in which not everybody has registered again.
        let tells = *data_set == table.data_set && asked_at >= *since && !table.settling;
        if !tells || now - *confirmed > self.cfg.silence_ms_max() {
            return;
        }
        self.graves.observe(table, boot_ms);
        for (sid, gone_for_s) in self.graves.due(boot_ms) {
            let (data_set, token) = (data_set.clone(), self.cfg.token.clone());
            out.push(LeaderAction::Forget(Forget { data_set, token, sid, gone_for_s }));
        }
    }

    fn plan_if_due(&mut self, now: u64, out: &mut Vec<LeaderAction>) {
        if self.planning.unanswered {
            return;
        }
        let Some(table) = self.planning.table.take() else { return };
        // While the data settles, those who held something claim it; planning would give it to others.
        if table.settling {
            return;
        }
        let decision = decide(&table, |node| self.watches.pins(node), self.cfg.in_flight_max);
        self.note_overlap(decision.pins_overlapping);
        if decision.nobody_owns {
            let since = *self.planning.gathering_since.get_or_insert(now);
            if now - since < self.cfg.first_plan_wait_ms {
                self.planning.table = Some(table);
                return;
            }
        } else {
            self.planning.gathering_since = None;
        }
        if decision.targets.is_empty() {
            return;
        }
        self.planning.unanswered = true;
        out.push(LeaderAction::Assign {
            request: Assign {
                data_set: table.data_set.clone(),
                token: self.cfg.token.clone(),
                from_version: table.assignment.version,
                targets: decision.targets,
            },
            moves: decision.moves,
        });
    }

    fn note_overlap(&mut self, overlapping: usize) {
        if overlapping > self.planning.pins_overlapping {
            tracing::warn!(overlapping, "several nodes pin the same vnodes: the first by name gets them");
        }
        self.planning.pins_overlapping = overlapping;
    }
}
