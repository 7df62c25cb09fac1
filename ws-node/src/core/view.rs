//! What this node knows of the table: read from the store, corrected by what it knows better (rules 20–22).

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::*;
use roost_proto::ids::{Epoch, NodeId, VnodeId};
use roost_proto::records::Took;

use super::ask::Ask;
use super::events::Now;
use super::home::Home;
use super::{Action, NodeCore};

impl NodeCore {
    pub(super) fn on_took(&mut self, took: &Took, now: Now) {
        if took.vnode.index() >= self.epochs.len() || took.epoch < self.epochs[took.vnode.index()] {
            return;
        }
        self.saw_epoch(took.vnode, took.epoch);
        if self.homes.get(&took.vnode).is_some_and(|h| h.epoch < took.epoch) {
            self.end_home(took.vnode, now);
        }
        let known = self.view.nodes.get(&took.node).is_some_and(|n| n.sid == took.sid);
        if !known {
            self.refresh(now);
        }
        let row = Row { sid: took.sid.clone(), epoch: took.epoch, ready: true };
        self.learn_row(took.vnode, row, now);
        self.send_moved(took.vnode, &took.node, &took.url, took.epoch, now);
    }

    pub(super) fn saw_epoch(&mut self, vnode: VnodeId, epoch: Epoch) {
        let seen = &mut self.epochs[vnode.index()];
        *seen = (*seen).max(epoch);
    }

    /// The table was read. An epoch only grows, except under another data set (rule 20).
    pub(super) fn on_view(&mut self, table: &Table, now: Now) {
        self.view_at = now.mono;
        if self.view.vnodes == 0 {
            self.view.data_set = table.data_set.clone();
        }
        if table.data_set != self.view.data_set {
            self.new_data_set(table.data_set.clone(), now);
        }
        let old = std::mem::replace(&mut self.view, table.clone());
        for (vnode, row) in old.rows {
            let mine = self.homes.get(&vnode).is_some_and(|h| h.epoch == row.epoch && row.sid == self.sid);
            let newer = table.rows.get(&vnode).is_some_and(|new| new.epoch >= row.epoch);
            // What this node has just claimed is not in a table read before that.
            if !newer && (mine || table.rows.contains_key(&vnode)) {
                self.view.rows.insert(vnode, row);
            }
        }
        let rows: Vec<_> = self.view.rows.iter().map(|(v, r)| (*v, r.epoch)).collect();
        for (vnode, epoch) in rows {
            if vnode.index() < self.epochs.len() {
                self.saw_epoch(vnode, epoch);
                self.follow_row(vnode, now);
                self.pass_on_remembered(vnode, now);
            }
        }
        self.givers = self.count_givers();
        self.end_replaced(now);
        self.give_up_strays(table);
        self.tick_ownership(now);
        self.place_sessions(now);
    }

    /// Who else has vnodes that should be elsewhere, by where.
    fn count_givers(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let mut givers: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for (vnode, row) in self.view.rows.iter().filter(|(_, row)| !self.view.ended(&row.sid)) {
            let (giver, taker) = (row.node(), self.view.assignment.targets.get(vnode));
            if let Some(taker) = taker.filter(|taker| **taker != giver && giver != self.cfg.node) {
                givers.entry(taker.clone()).or_default().insert(giver);
            }
        }
        givers
    }

    /// Rows of this sid that it does not know to have: a claim whose answer was lost, or one from before the store
    /// went back. Normally they expire, but the store's clock may have stepped.
    pub(super) fn give_up_strays(&mut self, table: &Table) {
        let stray = |(vnode, row): (&VnodeId, &Row)| {
            let known = self.homes.get(vnode).is_some_and(|h| h.epoch >= row.epoch)
                || self.claims.get(vnode).is_some_and(|c| c.asked.is_some());
            (row.sid == self.sid && !known).then_some((*vnode, row.epoch))
        };
        let rows: Vec<_> = table.rows.iter().filter_map(stray).collect();
        for row in rows {
            self.view.rows.remove(&row.0);
            let (data_set, sid) = (table.data_set.clone(), self.sid.clone());
            self.out.push(Action::Ask(Ask::Release(OwnRows { data_set, sid, rows: vec![row] })));
        }
    }

    pub(super) fn learn_row(&mut self, vnode: VnodeId, row: Row, now: Now) {
        if self.view.rows.get(&vnode).is_none_or(|old| old.epoch < row.epoch) {
            self.view.rows.insert(vnode, row);
            self.follow_row(vnode, now);
        }
    }

    /// Homes whose vnode another sid has under a larger epoch.
    pub(super) fn end_replaced(&mut self, now: Now) {
        let over =
            |h: &&Home| self.view.rows.get(&h.vnode).is_some_and(|r| r.epoch > h.epoch && r.sid != self.sid);
        let ended: Vec<_> = self.homes.values().filter(over).map(|h| h.vnode).collect();
        for vnode in ended {
            self.end_home(vnode, now);
        }
    }
}
