//! Ring, nodes, rows, assignment, leader: who owns what.

use std::collections::BTreeMap;

use roost_proto::ids::{Epoch, NodeId, Sid, VnodeId};

use crate::store::*;

/// The control plane of one cluster. Times are the store's clock in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Control {
    pub vnodes: u32,
    pub data_set: DataSet,
    pub settling_until: u64,
    nodes: BTreeMap<NodeId, NodeRow>,
    rows: BTreeMap<VnodeId, (Row, u64)>,
    assignment: Assignment,
    leader: Option<LeaderRow>,
    /// The largest epoch granted: a row that was given up leaves no other trace, and the clock may stand still or
    /// go back (promise 3).
    granted: Epoch,
}

impl Control {
    pub fn open_ring(&mut self, vnodes: u32, fresh: DataSet) -> Result<DataSet, StoreError> {
        if self.vnodes == 0 {
            self.vnodes = vnodes;
            self.data_set = fresh;
        }
        if self.vnodes != vnodes {
            return Err(StoreError::Vnodes { found: self.vnodes, wanted: vnodes });
        }
        Ok(self.data_set.clone())
    }

    /// The data went away or back: what is found is another data set (core rule 19).
    pub fn new_data_set(&mut self, vnodes: u32, fresh: DataSet, settling_until: u64) {
        (self.vnodes, self.data_set, self.settling_until) = (vnodes, fresh, settling_until);
    }

    pub fn table(&self, now: u64) -> Table {
        let live = self.rows.iter().filter(|(_, (_, until))| *until > now);
        Table {
            vnodes: self.vnodes,
            data_set: self.data_set.clone(),
            settling: now < self.settling_until,
            nodes: self.nodes.clone(),
            rows: live.map(|(v, (row, _))| (*v, row.clone())).collect(),
            assignment: self.assignment.clone(),
            leader: self.leader.clone(),
        }
    }

    pub fn register(&mut self, request: &Register) -> RegisterAnswer {
        if request.data_set != self.data_set {
            return RegisterAnswer::NewData(self.data_set.clone());
        }
        let sid = &request.row.sid;
        match self.nodes.get(&request.node) {
            Some(row) if row.sid == *sid && row.state == NodeState::Revoked => {
                return RegisterAnswer::Revoked;
            }
            Some(row) if row.sid != *sid && row.sid.born() >= sid.born() => return RegisterAnswer::Replaced,
            _ => {}
        }
        let mut row = request.row.clone();
        // Said again, maybe late: a beat that went back would look like one that stands still.
        if let Some(before) = self.nodes.get(&request.node).filter(|before| before.sid == *sid) {
            row.beat = before.beat;
        }
        self.nodes.insert(request.node.clone(), row);
        RegisterAnswer::Registered
    }

    pub fn deregister(&mut self, request: &Deregister) {
        let node = request.sid.node();
        let Some(row) = self.nodes.get_mut(&node).filter(|row| row.sid == request.sid) else { return };
        if !request.tombstone {
            self.nodes.remove(&node);
        } else if row.state != NodeState::Revoked {
            row.state = NodeState::Revoked;
            row.gone = Gone { left: true, for_s: 0 };
        }
    }

    /// Core rule 16.
    pub fn claim(&mut self, request: &Claim, now: u64, lease_ttl_ms: u64) -> ClaimAnswer {
        if request.data_set != self.data_set {
            return ClaimAnswer::NewData(self.data_set.clone());
        }
        let node = request.sid.node();
        match self.nodes.get(&node) {
            Some(row) if row.sid == request.sid && row.state != NodeState::Revoked => {}
            _ => return ClaimAnswer::NotRegistered,
        }
        let settling = now < self.settling_until;
        let row = self.rows.get(&request.vnode).filter(|(_, until)| *until > now).map(|(row, _)| row);
        let mut epoch = Epoch(now.max(request.floor.0 + 1).max(self.granted.0 + 1));
        if let Some(row) = row {
            epoch = epoch.max(Epoch(row.epoch.0 + 1));
            let owner = self.nodes.get(&row.node());
            let over = owner.is_none_or(|owner| ended_by(owner, &row.sid));
            if row.sid != request.sid && !over && !(settling && request.held.is_some_and(|h| h > row.epoch)) {
                return ClaimAnswer::Held(row.clone());
            }
        }
        if settling && request.held.is_none() {
            return ClaimAnswer::Settling;
        }
        let target = self.assignment.targets.get(&request.vnode);
        let mine = target.map_or(request.pinned, |t| *t == node) || (settling && request.held.is_some());
        if !mine {
            return ClaimAnswer::NotYours;
        }
        let row = Row { sid: request.sid.clone(), epoch, ready: false };
        self.rows.insert(request.vnode, (row, now + lease_ttl_ms));
        self.granted = epoch;
        ClaimAnswer::Granted(epoch)
    }

    pub fn renew(&mut self, request: &Renew, now: u64, lease_ttl_ms: u64) -> RenewAnswer {
        if request.data_set != self.data_set {
            return RenewAnswer::NewData(self.data_set.clone());
        }
        match self.nodes.get_mut(&request.sid.node()) {
            None => return RenewAnswer::NotRegistered,
            Some(row) if row.sid == request.sid && row.state == NodeState::Revoked => {
                return RenewAnswer::Revoked;
            }
            Some(row) if row.sid == request.sid => {
                row.beat += 1;
                (row.state, row.load) = (request.state, request.load);
            }
            Some(row) if row.sid.born() >= request.sid.born() => return RenewAnswer::Replaced,
            Some(_) => return RenewAnswer::NotRegistered,
        }
        let renewed = request.rows.iter().map(|(vnode, epoch)| {
            let Some((row, until)) = self.rows.get_mut(vnode) else { return false };
            let mine = row.sid == request.sid && row.epoch == *epoch && *until > now;
            if mine {
                *until = now + lease_ttl_ms;
            }
            mine
        });
        RenewAnswer::Renewed(renewed.collect())
    }

    fn own_rows(
        &mut self,
        request: &OwnRows,
        now: u64,
        mut each: impl FnMut(&mut Self, VnodeId),
    ) -> Vec<bool> {
        let known = request.data_set == self.data_set;
        let mut done = Vec::with_capacity(request.rows.len());
        for (vnode, epoch) in &request.rows {
            let mine = known
                && self.rows.get(vnode).is_some_and(|(row, until)| {
                    row.sid == request.sid && row.epoch == *epoch && *until > now
                });
            if mine {
                each(self, *vnode);
            }
            done.push(mine);
        }
        done
    }

    pub fn set_ready(&mut self, request: &OwnRows, now: u64) -> Vec<bool> {
        self.own_rows(request, now, |control, vnode| {
            if let Some((row, _)) = control.rows.get_mut(&vnode) {
                row.ready = true;
            }
        })
    }

    pub fn release(&mut self, request: &OwnRows, now: u64) -> Vec<bool> {
        self.own_rows(request, now, |control, vnode| {
            control.rows.remove(&vnode);
        })
    }

    pub fn lead(&mut self, request: &Lead) -> LeadAnswer {
        if request.data_set != self.data_set {
            return LeadAnswer::NewData(self.data_set.clone());
        }
        match &mut self.leader {
            Some(leader) if leader.token == request.token => leader.beat += 1,
            Some(leader) if Some(&*leader) != request.frozen.as_ref() => {
                return LeadAnswer::Other(leader.clone());
            }
            _ => self.leader = Some(LeaderRow { token: request.token.clone(), beat: 1 }),
        }
        LeadAnswer::Leading
    }

    pub fn resign(&mut self, request: &Resign) -> bool {
        let leads = self.leads(&request.data_set, &request.token);
        if leads {
            self.leader = None;
        }
        leads
    }

    /// Whether this token leads now.
    pub fn leads(&self, data_set: &DataSet, token: &str) -> bool {
        *data_set == self.data_set && self.leader.as_ref().is_some_and(|l| l.token == token)
    }

    pub fn revoke(&mut self, request: &Revoke) -> bool {
        let leads = self.leads(&request.data_set, &request.token);
        match self.nodes.get_mut(&request.sid.node()) {
            Some(row) if leads && row.sid == request.sid && row.beat == request.beat => {
                row.state = NodeState::Revoked;
                true
            }
            _ => false,
        }
    }

    pub fn forget(&mut self, request: &Forget) -> bool {
        let leads = self.leads(&request.data_set, &request.token);
        let node = request.sid.node();
        let row = self.nodes.get_mut(&node);
        let over = |row: &&mut NodeRow| row.sid == request.sid && row.state == NodeState::Revoked;
        let Some(row) = row.filter(over).filter(|_| leads) else { return false };
        match request.gone_for_s {
            Some(for_s) => row.gone.for_s = for_s,
            None => drop(self.nodes.remove(&node)),
        }
        true
    }

    pub fn assign(&mut self, request: &Assign) -> bool {
        if !self.leads(&request.data_set, &request.token) || request.from_version != self.assignment.version {
            return false;
        }
        self.assignment.version += 1;
        self.assignment.targets.extend(request.targets.iter().cloned());
        true
    }

    /// Drops what a snapshot of another moment would lack: used by the simulation's faults.
    pub fn expire_all_rows(&mut self) {
        self.rows.clear();
    }

    /// The state of a sid, while it is its node's.
    pub fn state_of(&self, sid: &Sid) -> Option<NodeState> {
        self.nodes.get(&sid.node()).filter(|row| row.sid == *sid).map(|row| row.state)
    }

    /// The sid registered for a node.
    pub fn sid_of(&self, node: &NodeId) -> Option<&Sid> {
        self.nodes.get(node).map(|row| &row.sid)
    }
}
