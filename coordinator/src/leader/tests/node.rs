//! A node as the leader knows it: what a ws-node does with the control plane, and nothing else.

use std::collections::BTreeMap;

use roost_backend::store::*;
use roost_proto::{Epoch, NodeId, Sid, VnodeId};

use super::cluster::{BEAT, Cluster, NodeIs, TTL, WALL};

/// From claim to ready, and from the wish to hand over to the release.
const WORK: u64 = 100;

pub(super) struct Node {
    pub id: NodeId,
    pub sid: Sid,
    pub is: NodeIs,
    pub draining: bool,
    /// Its admin address is wrong: whoever asks is refused.
    pub wrong_admin: bool,
    /// Since when it could renew.
    pub well_since: u64,
    pins: String,
    registered: bool,
    beat_due: u64,
    seen_changes: u64,
    homes: BTreeMap<VnodeId, Home>,
}

struct Home {
    epoch: Epoch,
    since: u64,
    ready: bool,
    leaving: Option<u64>,
}

impl Node {
    pub(super) fn new(id: NodeId, pins: &str, now: u64) -> Self {
        Self {
            sid: Sid::new(&id, WALL + now, 1),
            id,
            is: NodeIs::Alive,
            draining: false,
            wrong_admin: false,
            well_since: now,
            pins: pins.into(),
            registered: false,
            beat_due: 0,
            seen_changes: 0,
            homes: BTreeMap::new(),
        }
    }

    /// Its renewal fails, and is tried again after a while.
    pub(super) fn try_in_vain(&mut self, now: u64, again_after: u64) {
        if now >= self.beat_due {
            self.beat_due = now + again_after;
        }
    }

    pub(super) fn new_life(&mut self, now: u64) {
        self.sid = Sid::new(&self.id, WALL + now, 1);
        (self.registered, self.beat_due) = (false, 0);
        self.homes.clear();
    }
}

impl Cluster {
    pub(super) fn step_node(&mut self, i: usize, table: &Table) {
        let data_set = self.control.data_set.clone();
        if !self.nodes[i].registered {
            if self.now >= self.nodes[i].beat_due {
                self.register(i, &data_set);
            }
            return;
        }
        if self.now >= self.nodes[i].beat_due && !self.renew(i, data_set.clone()) {
            return;
        }
        let node = &self.nodes[i];
        let busy = node.homes.values().any(|home| !home.ready || home.leaving.is_some());
        // Rows of the silent end without a change that anybody made.
        if busy || node.seen_changes != self.changes || node.beat_due == self.now + BEAT {
            self.nodes[i].seen_changes = self.changes;
            self.claim(i, table);
            self.advance(i, table);
        }
    }

    fn register(&mut self, i: usize, data_set: &DataSet) {
        let node = &mut self.nodes[i];
        let row = NodeRow {
            sid: node.sid.clone(),
            url: format!("ws://{}/socket", node.id),
            admin: node.id.to_string(),
            state: if node.draining { NodeState::Draining } else { NodeState::Up },
            beat: 0,
            weight: 1,
            pins: node.pins.clone(),
            load: Load::default(),
            gone: Default::default(),
            reads: 0,
        };
        let request = Register { data_set: data_set.clone(), node: node.id.clone(), row };
        node.registered = self.control.register(&request) == RegisterAnswer::Registered;
        self.changes += 1;
    }

    fn renew(&mut self, i: usize, data_set: DataSet) -> bool {
        let (now, node) = (self.now, &mut self.nodes[i]);
        node.beat_due = now + BEAT;
        let rows: Vec<_> = node.homes.iter().map(|(vnode, home)| (*vnode, home.epoch)).collect();
        let state = if node.draining { NodeState::Draining } else { NodeState::Up };
        let request = Renew { data_set, sid: node.sid.clone(), state, load: Load::default(), rows };
        match self.control.renew(&request, WALL + now, TTL) {
            // What was not kept is seen in the table, and claimed again.
            RenewAnswer::Renewed(_) => true,
            RenewAnswer::Revoked => {
                node.new_life(now);
                false
            }
            _ => {
                node.registered = false;
                false
            }
        }
    }

    fn claim(&mut self, i: usize, table: &Table) {
        let node = &self.nodes[i];
        if node.draining && !table.settling {
            return;
        }
        let pins = roost_ring::Pins::parse(&node.pins, self.vnodes).unwrap_or_default();
        for vnode in (0..self.vnodes as u16).map(VnodeId) {
            let pinned = pins.vnodes().contains(&vnode);
            let target = table.assignment.targets.get(&vnode);
            let node = &self.nodes[i];
            let held = node.homes.get(&vnode).map(|home| home.epoch);
            let mine = target.map_or(pinned, |target| *target == node.id);
            let row_is_mine = table.rows.get(&vnode).is_some_and(|row| row.sid == node.sid);
            // What it held when the data went away is claimed again, whatever the assignment says.
            let lost = held.is_some() && !row_is_mine;
            let free = table.rows.get(&vnode).is_none_or(|row| table.ended(&row.sid));
            if (held.is_none() && mine && free) || lost {
                let (floor, sid) = (held.unwrap_or_default(), node.sid.clone());
                let data_set = table.data_set.clone();
                let request = Claim { data_set, vnode, sid, held, floor, pinned };
                let answer = self.control.claim(&request, WALL + self.now, TTL);
                if let ClaimAnswer::Granted(epoch) = answer {
                    let home = Home { epoch, since: self.now, ready: false, leaving: None };
                    self.nodes[i].homes.insert(vnode, home);
                    self.changes += 1;
                } else if lost && !table.settling {
                    self.nodes[i].homes.remove(&vnode);
                }
            }
        }
    }

    /// What was claimed becomes ready, what is to go is released: each takes a moment.
    fn advance(&mut self, i: usize, table: &Table) {
        let (now, node) = (self.now, &mut self.nodes[i]);
        let up = |id: &NodeId| table.nodes.get(id).is_some_and(|row| row.state == NodeState::Up);
        let (mut ready, mut release) = (Vec::new(), Vec::new());
        for (vnode, home) in &mut node.homes {
            let target = table.assignment.targets.get(vnode);
            if !home.ready && now >= home.since + WORK {
                home.ready = true;
                ready.push((*vnode, home.epoch));
            } else if home.ready && target.is_some_and(|target| *target != node.id && up(target)) {
                if now >= *home.leaving.get_or_insert(now) + WORK {
                    release.push((*vnode, home.epoch));
                }
            } else {
                home.leaving = None;
            }
        }
        for (vnode, _) in &release {
            node.homes.remove(vnode);
        }
        self.changes += u64::from(!ready.is_empty() || !release.is_empty());
        let rows = |rows| OwnRows { data_set: table.data_set.clone(), sid: node.sid.clone(), rows };
        self.control.set_ready(&rows(ready), WALL + now);
        self.control.release(&rows(release), WALL + now);
    }
}
