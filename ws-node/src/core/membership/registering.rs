//! A node's life in the table: it registers, renews, and ends (rules 19, 21, 23).

use roost_backend::store::*;
use roost_proto::ids::{Epoch, Sid, VnodeId};
use roost_proto::limits::VOID_AFTER_MS;

use crate::core::actions::{Action, Ending};
use crate::core::ask::Ask;
use crate::core::channels::answering::Outcome;
use crate::core::config::Rule;
use crate::core::homes::home::{Home, Phase};
use crate::core::input::Maybe;
use crate::core::keys::Now;
use crate::core::membership::{ASK_AGAIN_MS, Registration};
use crate::core::node::NodeCore;

impl NodeCore {
    pub(in crate::core) fn tick_ownership(&mut self, now: Now) {
        match self.membership.registration {
            Registration::Asked { at } if now.mono < at + ASK_AGAIN_MS => return,
            Registration::No | Registration::Asked { .. } => return self.register(now),
            Registration::Yes => {}
            Registration::Over => return,
        }
        // The mark is set with every renewal that goes out.
        if now.mono >= self.membership.rate_mark.0 + self.cfg.renew_every_ms() {
            self.renew_unless_asked(now);
        }
        self.claim_what_is_mine(now);
        self.hand_over_what_is_not(now);
    }

    pub(in crate::core) fn register(&mut self, now: Now) {
        if self.membership.view.vnodes == 0 {
            return;
        }
        if let Some(row) = self.membership.view.nodes.get(&self.cfg.node)
            && row.sid != self.membership.sid
            && row.sid.born() >= self.membership.sid.born()
        {
            if self.membership.registered_before {
                return self.replaced(now);
            }
            // Lives of one node are ordered even when its clock is behind (rule 21).
            self.membership.sid = Sid::new(&self.cfg.node, row.sid.born() + 1, self.cfg.random);
        }
        self.membership.registration = Registration::Asked { at: now.mono };
        self.fx.push(Action::Ask(Ask::Register(Box::new(Register {
            data_set: self.membership.view.data_set.clone(),
            node: self.cfg.node.clone(),
            row: NodeRow {
                sid: self.membership.sid.clone(),
                url: self.cfg.url.clone(),
                admin: self.cfg.admin.clone(),
                state: self.membership.state,
                beat: 0,
                weight: self.cfg.weight,
                pins: self.cfg.pins.clone(),
                load: self.load(),
                gone: Default::default(),
                reads: self.cfg.reads,
            },
        }))));
    }

    pub(in crate::core) fn load(&self) -> Load {
        Load {
            sessions: self.sessions.len() as u64,
            messages_per_s: self.membership.rate,
            accepts_per_s: self.sessions.accepts_per_s(),
            at_home: self.sessions.values().filter(|session| session.is_counted()).count() as u64,
            // Known to whoever reads the topic.
            lag: 0,
        }
    }

    pub(in crate::core) fn on_registered(&mut self, answer: Maybe<RegisterAnswer>, now: Now) {
        match answer {
            _ if self.membership.registration == Registration::Over => {}
            Some(RegisterAnswer::Registered) => {
                self.membership.registration = Registration::Yes;
                self.membership.registered_before = true;
                (self.membership.registered_at, self.membership.renewed_at) = (now.mono, now.wall);
                self.refresh_table(now);
                self.tick_ownership(now);
            }
            Some(RegisterAnswer::Replaced) => self.replaced(now),
            Some(RegisterAnswer::Revoked) => self.new_life(now),
            Some(RegisterAnswer::NewData(data_set)) => self.new_data_set(data_set, now),
            None => self.membership.registration = Registration::No,
        }
    }

    pub(super) fn renew_unless_asked(&mut self, now: Now) {
        if self.membership.renewing.is_none_or(|at| now.mono >= at + ASK_AGAIN_MS) {
            self.renew(now);
        }
    }

    pub(in crate::core) fn renew(&mut self, now: Now) {
        let elapsed = now.mono.saturating_sub(self.membership.rate_mark.0).max(1);
        let appended = self.fx.counters().appended;
        self.membership.rate = (appended - self.membership.rate_mark.1) as f64 * 1000.0 / elapsed as f64;
        self.membership.rate_mark = (now.mono, appended);
        self.sessions.beat();
        self.membership.renewing = Some(now.mono);
        let kept = |h: &&Home| h.phase() != Phase::Releasing && !self.homes.is_silent(h, &self.cfg, now);
        let rows = self.homes.values().filter(kept).map(|h| (h.vnode(), h.epoch())).collect();
        let renew = Renew {
            data_set: self.membership.view.data_set.clone(),
            sid: self.membership.sid.clone(),
            state: self.membership.state,
            load: self.load(),
            rows,
        };
        self.fx.push(Action::Ask(Ask::Renew { renew, sent: now.mono }));
    }

    pub(in crate::core) fn on_renewed(
        &mut self,
        sent: u64,
        rows: &[(VnodeId, Epoch)],
        answer: Maybe<RenewAnswer>,
        now: Now,
    ) {
        self.membership.renewing = None;
        match answer {
            Some(RenewAnswer::Renewed(kept)) => {
                // When it was asked counts: a process that was stopped may read this after it asked again.
                (self.membership.registered_at, self.membership.renewed_at) =
                    (self.membership.registered_at.max(sent), now.wall);
                let mut lost = false;
                for ((vnode, epoch), kept) in rows.iter().zip(kept) {
                    let Some(home) = self.homes.get_mut(vnode).filter(|h| h.epoch() == *epoch) else {
                        continue;
                    };
                    if kept {
                        home.extend_lease(sent + self.cfg.lease_ttl_ms);
                        self.fx.touch(*vnode);
                    } else if home.phase() != Phase::Releasing {
                        lost = true;
                        self.reclaim(*vnode, false, now);
                    }
                }
                let over = |h: &&Home| {
                    let silent = self.homes.is_silent(h, &self.cfg, now);
                    h.phase() != Phase::Releasing && silent && !h.leased(now)
                };
                let silent: Vec<_> = self.homes.values().filter(over).map(Home::vnode).collect();
                for vnode in silent {
                    lost = true;
                    self.reclaim(vnode, false, now);
                }
                if lost {
                    self.claim_what_is_mine(now);
                }
            }
            Some(RenewAnswer::NewData(data_set)) => self.new_data_set(data_set, now),
            Some(RenewAnswer::Replaced) => self.replaced(now),
            Some(RenewAnswer::NotRegistered) => self.not_registered(sent, now),
            Some(RenewAnswer::Revoked) => self.new_life(now),
            None => {}
        }
    }

    /// How long the machine slept since this node last heard that it is registered, which was at `registered_at` by
    /// the clock of its deadlines and at `renewed_at` by the wall clock: only the latter goes on meanwhile.
    fn slept_ms(&self, now: Now) -> u64 {
        if self.membership.renewed_at == 0 {
            return 0;
        }
        let awake = now.mono.saturating_sub(self.membership.registered_at);
        now.wall.saturating_sub(self.membership.renewed_at).saturating_sub(awake)
    }

    /// A renewal found no row of this sid. Was it registered when that was asked, and under this data set, then it was
    /// gone for so long that it was forgotten, and with it that its sid is over: what it still has to send would be
    /// second messages, and its topic goes (rule 21).
    fn not_registered(&mut self, asked: u64, now: Now) {
        let was = self.membership.registration == Registration::Yes && asked >= self.membership.registered_at;
        if !was || !self.cfg.on(Rule::Forgotten) {
            self.membership.registration = if self.membership.registration == Registration::Over {
                Registration::Over
            } else {
                Registration::No
            };
            return;
        }
        self.end_life(Ending::Forgotten, now);
    }

    /// A later life of this node is there: what this one owns is the other's, and refused to it (rule 21).
    fn replaced(&mut self, now: Now) {
        self.end_life(Ending::Replaced, now);
    }

    /// Nothing is asked of the store any more, and what ended it is told once.
    fn end_life(&mut self, why: Ending, now: Now) {
        if self.membership.registration == Registration::Over {
            return;
        }
        self.give_up_life(now);
        self.membership.registration = Registration::Over;
        self.fx.push(Action::End(why));
    }

    /// What this sid owns and has to send is nobody's any more.
    fn give_up_life(&mut self, now: Now) {
        for vnode in self.homes.vnodes() {
            self.end_home(vnode, now);
        }
        self.membership.claims.clear();
        let dropped = self.channels.drop_all();
        self.drop_items(dropped, Outcome::Unknown, now);
    }

    /// This sid was declared dead: another life begins, with no homes; sockets stay (rule 21).
    fn new_life(&mut self, now: Now) {
        self.give_up_life(now);
        self.tell_all_anew();
        self.membership.sid =
            Sid::new(&self.cfg.node, now.wall.max(self.membership.sid.born() + 1), self.cfg.random);
        self.membership.registration = Registration::No;
        self.membership.registered_before = false;
        self.tick_ownership(now);
    }

    /// The store's data is another one: nothing of the old rows holds (rule 19).
    pub(super) fn new_data_set(&mut self, data_set: DataSet, now: Now) {
        if self.membership.registration == Registration::Over {
            return;
        }
        if self.membership.view.data_set == data_set {
            self.membership.registration = Registration::No;
            return;
        }
        self.membership.view.data_set = data_set;
        self.membership.view.rows.clear();
        self.membership.view.nodes.clear();
        self.membership.view.assignment = Assignment::default();
        self.membership.registration = Registration::No;
        if self.slept_ms(now) > VOID_AFTER_MS {
            // With the old rows went the tombstone that would say so: to others its items are as good as new, and to
            // itself its leases.
            self.give_up_life(now);
            self.tell_all_anew();
            // Later than the old one, but not than a process that took its place meanwhile.
            self.membership.sid = Sid::new(&self.cfg.node, self.membership.sid.born() + 1, self.cfg.random);
        }
        for vnode in self.homes.vnodes() {
            self.reclaim(vnode, false, now);
        }
        self.refresh_table(now);
        self.tick_ownership(now);
    }
}
