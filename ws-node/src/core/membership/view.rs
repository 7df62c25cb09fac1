//! What this node knows of the table: read from the store, corrected by what it knows better (rules 20–22).

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::*;
use roost_proto::ids::{Epoch, NodeId, VnodeId};
use roost_proto::records::OwnerChanged;

use crate::core::actions::Action;
use crate::core::homes::home::Home;
use crate::core::keys::Now;
use crate::core::node::NodeCore;

/// Least time between reads of the table that were asked for, in milliseconds.
const REFRESH_MS: u64 = 100;

impl NodeCore {
    pub(in crate::core) fn on_owner_changed(&mut self, took: &OwnerChanged, now: Now) {
        if took.vnode.index() >= self.membership.epochs.len()
            || took.epoch < self.membership.epochs[took.vnode.index()]
        {
            return;
        }
        self.saw_epoch(took.vnode, took.epoch);
        if self.homes.get(&took.vnode).is_some_and(|h| h.epoch() < took.epoch) {
            self.end_home(took.vnode, now);
        }
        let known = self.membership.view.nodes.get(&took.node).is_some_and(|n| n.sid == took.sid);
        if !known {
            self.refresh_table(now);
        }
        let row = Row { sid: took.sid.clone(), epoch: took.epoch, ready: true };
        self.learn_row(took.vnode, row, now);
        self.send_moved(took.vnode, &took.node, &took.url, took.epoch, now);
    }

    pub(super) fn saw_epoch(&mut self, vnode: VnodeId, epoch: Epoch) {
        let seen = &mut self.membership.epochs[vnode.index()];
        *seen = (*seen).max(epoch);
    }

    /// The table was read. An epoch only grows, except under another data set (rule 20).
    pub(in crate::core) fn on_view(&mut self, table: &Table, now: Now) {
        self.membership.view_at = now.mono;
        if self.membership.view.vnodes == 0 {
            self.membership.view.data_set = table.data_set.clone();
        }
        if table.data_set != self.membership.view.data_set {
            self.new_data_set(table.data_set.clone(), now);
        }
        let old = std::mem::replace(&mut self.membership.view, table.clone());
        for (vnode, row) in old.rows {
            let mine = self
                .homes
                .get(&vnode)
                .is_some_and(|h| h.epoch() == row.epoch && row.sid == self.membership.sid);
            let newer = table.rows.get(&vnode).is_some_and(|new| new.epoch >= row.epoch);
            // What this node has just claimed is not in a table read before that.
            if !newer && (mine || table.rows.contains_key(&vnode)) {
                self.membership.view.rows.insert(vnode, row);
            }
        }
        let rows: Vec<_> = self.membership.view.rows.iter().map(|(v, r)| (*v, r.epoch)).collect();
        for (vnode, epoch) in rows {
            if vnode.index() < self.membership.epochs.len() {
                self.saw_epoch(vnode, epoch);
                self.follow_row(vnode, now);
                self.pass_on_remembered(vnode, now);
            }
        }
        self.membership.sources = self.count_sources();
        self.end_replaced(now);
        self.release_orphaned_rows(table);
        self.tick_ownership(now);
        self.assign_homes(now);
    }

    /// Who else has vnodes that should be elsewhere, by where.
    fn count_sources(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let mut sources: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for (vnode, row) in
            self.membership.view.rows.iter().filter(|(_, row)| !self.membership.view.ended(&row.sid))
        {
            let (source, taker) = (row.node(), self.membership.view.assignment.targets.get(vnode));
            if let Some(taker) = taker.filter(|taker| **taker != source && source != self.cfg.node) {
                sources.entry(taker.clone()).or_default().insert(source);
            }
        }
        sources
    }

    /// Rows of this sid that it does not know to have: a claim whose answer was lost, or one from before the store
    /// went back. Normally they expire, but the store's clock may have stepped.
    fn release_orphaned_rows(&mut self, table: &Table) {
        let orphaned = |(vnode, row): (&VnodeId, &Row)| {
            let known = self.homes.get(vnode).is_some_and(|h| h.epoch() >= row.epoch)
                || self.membership.claims.get(vnode).is_some_and(|c| c.asked.is_some());
            (row.sid == self.membership.sid && !known).then_some((*vnode, row.epoch))
        };
        let rows: Vec<_> = table.rows.iter().filter_map(orphaned).collect();
        for (vnode, epoch) in rows {
            self.membership.view.rows.remove(&vnode);
            self.release_row(vnode, epoch);
        }
    }

    pub(super) fn learn_row(&mut self, vnode: VnodeId, row: Row, now: Now) {
        if self.membership.view.rows.get(&vnode).is_none_or(|old| old.epoch < row.epoch) {
            self.membership.view.rows.insert(vnode, row);
            self.follow_row(vnode, now);
        }
    }

    /// Homes whose vnode another sid has under a larger epoch.
    fn end_replaced(&mut self, now: Now) {
        let over = |h: &&Home| {
            self.membership
                .view
                .rows
                .get(&h.vnode())
                .is_some_and(|r| r.epoch > h.epoch() && r.sid != self.membership.sid)
        };
        let ended: Vec<_> = self.homes.values().filter(over).map(Home::vnode).collect();
        for vnode in ended {
            self.end_home(vnode, now);
        }
    }

    /// Has the table read now, at most ten times a second: what is waited for may take longer than a read.
    pub(in crate::core) fn refresh_table(&mut self, now: Now) {
        if now.mono >= self.membership.refresh_at {
            self.membership.refresh_at = now.mono + REFRESH_MS;
            self.fx.push(Action::RefreshTable);
        }
    }
}
