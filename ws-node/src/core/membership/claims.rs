//! Vnodes are claimed, claimed anew, and lost (rules 16, 18).

use std::collections::BTreeSet;

use roost_backend::store::*;
use roost_proto::ids::{Epoch, VnodeId};

use crate::core::actions::Action;
use crate::core::ask::Ask;
use crate::core::config::Rule;
use crate::core::homes::home::{Home, Phase};
use crate::core::input::Maybe;
use crate::core::keys::Now;
use crate::core::membership::claiming::Claiming;
use crate::core::membership::open_write::OpenWrite;
use crate::core::membership::{ASK_AGAIN_MS, Registration};
use crate::core::node::NodeCore;

/// A refused claim is tried again after this long, unless the table changes before.
const CLAIM_AGAIN_MS: u64 = 500;

impl NodeCore {
    /// The row or the data of a home is gone while nobody else is known to have it: claim it anew.
    pub(in crate::core) fn claim_again(&mut self, vnode: VnodeId, prove: bool, now: Now) {
        self.reclaim(vnode, prove, now);
        self.claim_what_is_mine(now);
    }

    pub(super) fn reclaim(&mut self, vnode: VnodeId, prove: bool, now: Now) {
        let Some(home) = self.homes.get(&vnode) else { return };
        let (phase, held_until) = (home.phase(), home.lease_until());
        let activated = matches!(phase, Phase::Inheriting | Phase::Ready);
        if !activated && phase != Phase::Activating {
            return self.end_home(vnode, now);
        }
        let held = (activated && home.leased(now)).then_some((home.epoch(), home.stands_at().1));
        // What was answered `lost` or `rewound` proves nothing anyway.
        let open = home.open_write().filter(|_| !prove && self.cfg.on(Rule::OpenWriteFirst));
        let open = open.map(OpenWrite::new);
        self.take_home(vnode, now);
        if activated {
            let floor = self.membership.epochs[vnode.index()];
            let (asked, not_before, previous) = (None, 0, None);
            let claim = Claiming { held, held_until, prove, open, floor, asked, not_before, previous };
            self.membership.claims.insert(vnode, claim);
        } else if let Some(claim) = self.membership.claims.get_mut(&vnode) {
            (claim.asked, claim.not_before) = (None, 0);
        }
        self.hold_sessions(vnode, now);
    }

    /// However a home ends: what is found later must not be less (rule 17).
    pub(super) fn note_left(&mut self, vnode: VnodeId, home: &Home) {
        if home.generation() != Epoch(0) && self.cfg.on(Rule::LeftSeq) {
            self.membership.left.insert(vnode, home.stands_at());
        }
    }

    /// Removes a home; its outbox still goes out under its old epoch.
    pub(super) fn take_home(&mut self, vnode: VnodeId, now: Now) -> Option<Home> {
        let mut home = self.homes.remove(&vnode)?;
        self.note_left(vnode, &home);
        let waiting = home.drop_all();
        self.refuse_waiting(waiting);
        self.keep_said(vnode, home.take_said());
        self.remember(&mut home);
        let outbox = home.take_outbox();
        if !outbox.is_empty() {
            self.homes.leave(vnode, home.epoch(), outbox);
            self.emit_draining(now);
        }
        if self.membership.view.rows.get(&vnode).is_some_and(|r| r.sid == self.membership.sid) {
            self.membership.view.rows.remove(&vnode);
        }
        Some(home)
    }

    /// The vnode is no longer here; its sessions are told where to go as soon as that is known.
    pub(in crate::core) fn end_home(&mut self, vnode: VnodeId, now: Now) {
        if self.take_home(vnode, now).is_some() {
            self.set_adrift(vnode, now);
        }
    }

    pub(super) fn claim_what_is_mine(&mut self, now: Now) {
        if self.membership.registration != Registration::Yes {
            return;
        }
        let activating = self.homes.values().filter(|h| h.phase() == Phase::Activating).count();
        let mut room = self.cfg.claims_max.saturating_sub(
            activating + self.membership.claims.values().filter(|c| c.asked.is_some()).count(),
        );
        // A node that drains takes nothing new, but what it held when the data went away is nobody else's.
        let candidates: Vec<VnodeId> = if self.membership.state != NodeState::Up {
            Vec::new()
        } else if self.membership.view.assignment.targets.is_empty() {
            self.cfg.pinned.clone()
        } else {
            let targets = self.membership.view.assignment.targets.iter();
            let pins =
                self.cfg.pinned.iter().filter(|v| !self.membership.view.assignment.targets.contains_key(v));
            targets.filter(|(_, n)| **n == self.cfg.node).map(|(v, _)| *v).chain(pins.copied()).collect()
        };
        let again: Vec<VnodeId> = self.membership.claims.keys().copied().collect();
        let candidates: BTreeSet<VnodeId> = candidates.into_iter().collect();
        // What was held here is claimed whatever assignment and row say: the store decides (rule 19).
        for vnode in again {
            let claim = &self.membership.claims[&vnode];
            if self.homes.contains_key(&vnode) {
                continue;
            }
            if claim.held(now).is_none() && !candidates.contains(&vnode) && claim.asked.is_none() {
                self.membership.claims.remove(&vnode);
                self.set_adrift(vnode, now);
            }
        }
        let mut wanted: Vec<VnodeId> = self.membership.claims.keys().copied().collect();
        wanted.extend(candidates.into_iter().filter(|v| !self.membership.claims.contains_key(v)));
        wanted.sort_unstable();
        for vnode in wanted {
            if room == 0 {
                break;
            }
            if self.homes.contains_key(&vnode) || !self.may_claim(vnode, now) {
                continue;
            }
            room -= 1;
            self.claim(vnode, now);
        }
    }

    fn may_claim(&self, vnode: VnodeId, now: Now) -> bool {
        if let Some(claim) = self.membership.claims.get(&vnode) {
            let waiting = claim.asked.is_some_and(|at| now.mono < at + ASK_AGAIN_MS);
            if waiting || now.mono < claim.not_before {
                return false;
            }
            if claim.held(now).is_some() {
                return true;
            }
        }
        let ended = |row: &Row| {
            row.sid == self.membership.sid
                || self.membership.view.ended(&row.sid)
                || !self.membership.view.nodes.contains_key(&row.node())
        };
        vnode.index() < self.membership.epochs.len()
            && self.membership.view.rows.get(&vnode).is_none_or(ended)
    }

    pub(in crate::core) fn claim(&mut self, vnode: VnodeId, now: Now) {
        let floor = self.membership.epochs[vnode.index()];
        let claim = self.membership.claims.entry(vnode).or_insert_with(|| Claiming {
            held: None,
            held_until: 0,
            prove: false,
            open: None,
            floor,
            asked: None,
            not_before: 0,
            previous: None,
        });
        if let Some(row) = self.membership.view.rows.get(&vnode).filter(|r| r.sid != self.membership.sid) {
            claim.previous = Some(row.sid.clone());
        }
        claim.asked = Some(now.mono);
        self.fx.count().claims += 1;
        let claim = Claim {
            data_set: self.membership.view.data_set.clone(),
            vnode,
            sid: self.membership.sid.clone(),
            held: claim.held(now).map(|(epoch, _)| epoch),
            // This node's clock stands in for what it cannot have seen, should the store have lost its data and
            // its time.
            floor: claim.floor.max(floor).max(Epoch(now.wall)),
            pinned: self.cfg.pinned.binary_search(&vnode).is_ok(),
        };
        self.fx.push(Action::Ask(Ask::Claim { claim, sent: now.mono }));
    }

    pub(in crate::core) fn on_claimed(
        &mut self,
        vnode: VnodeId,
        sent: u64,
        answer: Maybe<ClaimAnswer>,
        now: Now,
    ) {
        let Some(claim) = self.membership.claims.get_mut(&vnode).filter(|c| c.asked == Some(sent)) else {
            return;
        };
        claim.asked = None;
        claim.not_before = now.mono + CLAIM_AGAIN_MS;
        match answer {
            Some(ClaimAnswer::Granted(epoch)) => {
                self.saw_epoch(vnode, epoch);
                let home = Home::claimed(vnode, epoch, sent + self.cfg.lease_ttl_ms, now);
                self.homes.insert(home);
                self.membership
                    .view
                    .rows
                    .insert(vnode, Row { sid: self.membership.sid.clone(), epoch, ready: false });
                self.follow_row(vnode, now);
                self.activate(vnode, now);
            }
            Some(ClaimAnswer::Held(row)) => {
                self.saw_epoch(vnode, row.epoch);
                self.membership.claims.remove(&vnode);
                self.learn_row(vnode, row, now);
                self.set_adrift(vnode, now);
            }
            Some(ClaimAnswer::NotYours) => {
                self.membership.claims.remove(&vnode);
                self.refresh_table(now);
                self.set_adrift(vnode, now);
            }
            // Forgotten or revoked: which of them, a renewal is told.
            Some(ClaimAnswer::NotRegistered) if self.membership.registration == Registration::Yes => {
                self.renew_unless_asked(now);
            }
            Some(ClaimAnswer::NotRegistered) => {}
            Some(ClaimAnswer::NewData(data_set)) => self.new_data_set(data_set, now),
            Some(ClaimAnswer::Settling) | None if self.membership.state == NodeState::Draining => {
                self.membership.claims.remove(&vnode);
            }
            Some(ClaimAnswer::Settling) | None => {}
        }
    }
}
