//! A granted vnode becomes a home: activated, its inheritance out, ready (rule 17).

use roost_backend::store::*;
use roost_proto::ids::{Epoch, Sid, VnodeId};
use roost_proto::records::{OwnerChanged, Record};

use crate::core::actions::Action;
use crate::core::ask::Ask;
use crate::core::effects::Token;
use crate::core::homes::home::{Home, Phase};
use crate::core::homes::inheriting::Heir;
use crate::core::input::Maybe;
use crate::core::keys::Now;
use crate::core::membership::ASK_AGAIN_MS;
use crate::core::node::NodeCore;

/// The same of an activation, which may bring much.
const ACTIVATE_AGAIN_MS: u64 = 10_500;

impl NodeCore {
    pub(in crate::core) fn activate(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        home.asked(Some(now.mono));
        if self.make_open_write(vnode, now) {
            return;
        }
        let Some(home) = self.homes.get(&vnode) else { return };
        let claim = self.membership.claims.get(&vnode);
        self.fx.push(Action::Ask(Ask::Activate(Activate {
            data_set: self.membership.view.data_set.clone(),
            vnode,
            epoch: home.epoch(),
            sid: self.membership.sid.clone(),
            prove: claim.is_some_and(|c| c.prove),
            held: claim.and_then(|c| c.held(now)),
            left: self.membership.left.get(&vnode).copied(),
        })));
    }

    pub(in crate::core) fn on_activated(
        &mut self,
        vnode: VnodeId,
        epoch: Epoch,
        answer: Maybe<ActivateAnswer>,
        now: Now,
    ) {
        let waiting = |h: &&mut Home| h.epoch() == epoch && h.phase() == Phase::Activating;
        let Some(home) = self.homes.get_mut(&vnode).filter(waiting) else { return };
        home.asked(None);
        match answer {
            None => {}
            Some(ActivateAnswer::NewData(data_set)) => self.new_data_set(data_set, now),
            Some(ActivateAnswer::Refused(stored)) => {
                self.saw_epoch(vnode, stored);
                if let Some(claim) = self.membership.claims.get_mut(&vnode) {
                    claim.not_before = 0;
                }
                self.take_home(vnode, now);
                self.claim_what_is_mine(now);
            }
            Some(ActivateAnswer::Activated(activated)) => self.inherit(vnode, activated, now),
        }
    }

    fn inherit(&mut self, vnode: VnodeId, activated: Activated, now: Now) {
        let remembered = self.homes.take_remembered(vnode);
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let before = self.membership.claims.remove(&vnode).and_then(|claim| claim.previous);
        let (sid, data_set) = (&self.membership.sid, self.membership.view.data_set.clone());
        home.inherit(activated, Heir { sid, before, data_set, remembered }, &self.cfg, now);
        self.fx.count().generations_begun += u64::from(home.generation() == home.epoch());
        self.fx.count().takeovers += 1;
        self.emit(vnode, now);
        self.fx.touch(vnode);
    }

    /// The inherited outbox is out: clients may come.
    pub(in crate::core) fn ask_ready(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let quiet = home.is_out();
        let asked = home.asked_at().is_some_and(|at| now.mono < at + ASK_AGAIN_MS);
        if home.phase() == Phase::Inheriting && quiet && !asked && home.leased(now) {
            home.asked(Some(now.mono));
            let rows = vec![(vnode, home.epoch())];
            let data_set = self.membership.view.data_set.clone();
            self.fx.push(Action::Ask(Ask::Ready(OwnRows {
                data_set,
                sid: self.membership.sid.clone(),
                rows,
            })));
        }
    }

    pub(in crate::core) fn on_readied(
        &mut self,
        vnode: VnodeId,
        epoch: Epoch,
        answer: Maybe<bool>,
        now: Now,
    ) {
        let waiting = |h: &&mut Home| h.epoch() == epoch && h.phase() == Phase::Inheriting;
        let Some(home) = self.homes.get_mut(&vnode).filter(waiting) else { return };
        home.asked(None);
        match answer {
            Some(true) => {
                home.ready(now.mono + self.cfg.grace_ms);
                self.membership
                    .view
                    .rows
                    .insert(vnode, Row { sid: self.membership.sid.clone(), epoch, ready: true });
                self.tell_predecessor(vnode, now);
                self.sweep_presence(vnode, now);
                self.welcome_back(vnode, now);
                self.say_kept(vnode, now);
                self.fx.touch(vnode);
            }
            Some(false) => self.claim_again(vnode, false, now),
            None => {}
        }
    }

    /// Rule 22: a predecessor cut off from the store alone learns it from the log.
    fn tell_predecessor(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get(&vnode) else { return };
        let Some(node) = home.previous().map(Sid::node).filter(|n| *n != self.cfg.node) else {
            return;
        };
        let took = OwnerChanged {
            vnode,
            epoch: home.epoch(),
            node: self.cfg.node.clone(),
            sid: self.membership.sid.clone(),
            url: self.cfg.url.clone(),
        };
        self.transport(&node, vnode, Record::OwnerChanged(took), Token::Other, now);
    }

    /// Requests about homes that got no answer are made again.
    pub(in crate::core) fn ask_again(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get(&vnode) else { return };
        let overdue = home.asked_at().is_none_or(|at| now.mono >= at + ASK_AGAIN_MS);
        match home.phase() {
            Phase::Activating if !home.leased(now) => self.claim_again(vnode, false, now),
            Phase::Activating if home.asked_at().is_none_or(|at| now.mono >= at + ACTIVATE_AGAIN_MS) => {
                self.activate(vnode, now);
            }
            Phase::Releasing if overdue => self.on_released(vnode, home.epoch(), now),
            Phase::Inheriting => self.ask_ready(vnode, now),
            Phase::Stopping if !home.leased(now) => self.end_home(vnode, now),
            Phase::Activating | Phase::Releasing | Phase::Stopping | Phase::Ready => {}
        }
    }
}
