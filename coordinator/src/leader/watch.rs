//! Who is dead: each node's beat, watched on this process's own monotonic clock.
//!
//! Redis' wall clock may jump, so a row's age says nothing. Only a beat that stands still while the store answers
//! does, and only after a whole lease; sooner only if the process is plainly gone (core rule 23). A wrong
//! judgement costs a move: the one declared dead is fenced.

use std::collections::BTreeMap;

use roost_backend::store::{NodeRow, Table};
use roost_proto::{NodeId, Sid, VnodeId};
use roost_ring::Pins;

/// Beats that must be missing before a process is asked for, and before it is declared gone.
const BEATS_LATE: u64 = 1;
const BEATS_MISSED: u64 = 2;

#[derive(Debug)]
pub(super) struct Watches {
    lease_ttl_ms: u64,
    beat_ms: u64,
    nodes: BTreeMap<NodeId, Watch>,
    /// When the last table was asked for.
    asked_at: u64,
    settling: bool,
}

/// One life of one node.
#[derive(Debug)]
struct Watch {
    sid: Sid,
    admin: String,
    beat: u64,
    /// Since when this beat is known: it was there before.
    since: u64,
    pins_text: String,
    pins: Vec<VnodeId>,
    probing: bool,
    probe_not_before: u64,
    refused_at: Option<u64>,
    /// The one early revocation of this sid was asked for.
    early_spent: bool,
    /// A revocation was asked for then; it is asked for again a beat later if the table says nothing of it.
    revoke_not_before: u64,
}

impl Watches {
    pub(super) fn new(lease_ttl_ms: u64, beat_ms: u64) -> Self {
        Self { lease_ttl_ms, beat_ms, nodes: BTreeMap::new(), asked_at: 0, settling: false }
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// The store was away: nothing that was not seen since then counts.
    pub(super) fn restart(&mut self, now: u64) {
        for watch in self.nodes.values_mut() {
            watch.see(watch.beat, now);
        }
    }

    pub(super) fn observe(&mut self, table: &Table, asked_at: u64, now: u64) {
        (self.asked_at, self.settling) = (asked_at, table.settling);
        self.nodes.retain(|node, _| table.living_node(node).is_some());
        for (node, row) in table.living() {
            match self.nodes.get_mut(node).filter(|watch| watch.sid == row.sid) {
                Some(watch) => watch.update(node, row, table.vnodes, now),
                None => drop(self.nodes.insert(node.clone(), Watch::new(node, row, table.vnodes, now))),
            }
        }
    }

    /// What a node pins, as far as it can be understood.
    pub(super) fn pins(&self, node: &NodeId) -> &[VnodeId] {
        self.nodes.get(node).map_or(&[], |watch| &watch.pins)
    }

    /// The sids, with their beats, that were silent for a lease.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<(Sid, u64)> {
        if self.settling {
            return Vec::new();
        }
        let (asked_at, ttl, again) = (self.asked_at, self.lease_ttl_ms, now + self.beat_ms);
        let overdue = |watch: &&mut Watch| watch.still_ms(asked_at) >= ttl && now >= watch.revoke_not_before;
        let each = |watch: &mut Watch| {
            watch.revoke_not_before = again;
            (watch.sid.clone(), watch.beat)
        };
        self.nodes.values_mut().filter(overdue).map(each).collect()
    }

    pub(super) fn revoke_answered(&mut self, sid: &Sid, done: Option<bool>, now: u64) {
        let again = if done.is_some() { now + self.beat_ms } else { now };
        if let Some(watch) = self.of(sid) {
            // An answer, yes or no, has its reason in the next table.
            watch.revoke_not_before = again;
        }
    }

    /// The admin ports to be tried now.
    pub(super) fn probes(&mut self, now: u64) -> Vec<(Sid, String)> {
        if self.settling {
            return Vec::new();
        }
        let (asked_at, late_ms) = (self.asked_at, BEATS_LATE * self.beat_ms);
        let due = |watch: &&mut Watch| {
            watch.may_be_gone(asked_at, late_ms) && !watch.probing && now >= watch.probe_not_before
        };
        let each = |watch: &mut Watch| {
            watch.probing = true;
            (watch.sid.clone(), watch.admin.clone())
        };
        self.nodes.values_mut().filter(due).map(each).collect()
    }

    /// Takes a probe's outcome in; the beat to revoke if the process is gone now beyond doubt.
    pub(super) fn probed(&mut self, sid: &Sid, refused: bool, now: u64) -> Option<u64> {
        let (beat_ms, asked_at, settling) = (self.beat_ms, self.asked_at, self.settling);
        let watch = self.of(sid)?;
        watch.probing = false;
        watch.probe_not_before = now + beat_ms / 2;
        if !refused || settling || !watch.may_be_gone(asked_at, BEATS_LATE * beat_ms) {
            watch.refused_at = None;
            return None;
        }
        let twice = now - *watch.refused_at.get_or_insert(now) >= beat_ms / 2;
        if !twice || !watch.may_be_gone(asked_at, BEATS_MISSED * beat_ms) {
            return None;
        }
        watch.early_spent = true;
        watch.revoke_not_before = now + beat_ms;
        Some(watch.beat)
    }

    fn of(&mut self, sid: &Sid) -> Option<&mut Watch> {
        self.nodes.get_mut(&sid.node()).filter(|watch| watch.sid == *sid)
    }
}

impl Watch {
    fn new(node: &NodeId, row: &NodeRow, vnodes: u32, now: u64) -> Self {
        Self {
            sid: row.sid.clone(),
            admin: row.admin.clone(),
            beat: row.beat,
            since: now,
            pins: read_pins(node, &row.pins, vnodes),
            pins_text: row.pins.clone(),
            probing: false,
            probe_not_before: 0,
            refused_at: None,
            early_spent: false,
            revoke_not_before: 0,
        }
    }

    fn update(&mut self, node: &NodeId, row: &NodeRow, vnodes: u32, now: u64) {
        if self.beat != row.beat {
            self.see(row.beat, now);
        }
        if self.admin != row.admin {
            self.admin.clone_from(&row.admin);
        }
        if self.pins_text != row.pins {
            self.pins = read_pins(node, &row.pins, vnodes);
            self.pins_text.clone_from(&row.pins);
        }
    }

    /// For how long its beat is known to have stood still: from when it came to when it was last asked for.
    fn still_ms(&self, asked_at: u64) -> u64 {
        asked_at.saturating_sub(self.since)
    }

    /// Whether to look if its process is there at all. (One that drains closes its admin port last, after its row is
    /// removed.)
    fn may_be_gone(&self, asked_at: u64, missed_ms: u64) -> bool {
        self.still_ms(asked_at) > missed_ms && !self.early_spent
    }

    /// Starts the clock anew; a refusal counts only as long as the beat stands still.
    fn see(&mut self, beat: u64, now: u64) {
        (self.beat, self.since, self.refused_at) = (beat, now, None);
    }
}

fn read_pins(node: &NodeId, text: &str, vnodes: u32) -> Vec<VnodeId> {
    match Pins::parse(text, vnodes) {
        Ok(pins) => pins.vnodes().to_vec(),
        Err(error) => {
            tracing::warn!(%node, pins = text, %error, "pins that cannot be understood are ignored");
            Vec::new()
        }
    }
}
