//! Who owns what, from this node's side: register, claim, activate, set ready, renew, hand over
//! (rules 16–23).

use std::collections::BTreeSet;

use roost_backend::store::*;
use roost_proto::events::StatusCause;
use roost_proto::ids::{Epoch, Seq, Sid, VnodeId};
use roost_proto::limits::VOID_AFTER_MS;
use roost_proto::records::{Record, Took};

use super::answering::Outcome;
use super::ask::Ask;
use super::channel::Channel;
use super::config::Rule;
use super::due::HomeDue;
use super::events::{Ending, Maybe, Now};
use super::home::{Home, Phase};
use super::outbox::Outbox;
use super::presence::Member;
use super::proof::OpenWrite;
use super::receipts::HomeReceipts;
use super::rooms::members::HomeRooms;
use super::tickets::HomeTickets;
use super::{Action, NodeCore, Registration, Token};

/// An unanswered request is made again after this long, in milliseconds: longer than the store's own timeout.
const ASK_AGAIN_MS: u64 = 2500;
/// The same of an activation, which may bring much.
const ACTIVATE_AGAIN_MS: u64 = 10_500;
/// A refused claim is tried again after this long, unless the table changes before.
const CLAIM_AGAIN_MS: u64 = 500;

/// A vnode on its way to this node.
#[derive(Debug, Clone)]
pub(super) struct Claiming {
    /// What this node held when it began, and until when that proves anything: past the lease's deadline another
    /// may have had the vnode, even if the data went back to before that.
    pub(super) held: Option<(Epoch, Seq)>,
    held_until: u64,
    /// It was found that the data went away or back.
    pub(super) prove: bool,
    /// Of unknown outcome when it began: listeners may hold what a store that went back has not.
    pub(super) open: Option<OpenWrite>,
    floor: Epoch,
    pub(super) asked: Option<u64>,
    not_before: u64,
    /// Whose row was there before, as far as this node knew.
    previous: Option<Sid>,
}

impl Claiming {
    pub(super) fn held(&self, now: Now) -> Option<(Epoch, Seq)> {
        self.held.filter(|_| now.mono < self.held_until)
    }
}

impl NodeCore {
    pub(super) fn tick_ownership(&mut self, now: Now) {
        match self.registration {
            Registration::Asked { at } if now.mono < at + ASK_AGAIN_MS => return,
            Registration::No | Registration::Asked { .. } => return self.register(now),
            Registration::Yes => {}
            Registration::Over => return,
        }
        // The mark is set with every renewal that goes out.
        if now.mono >= self.rate_mark.0 + self.cfg.renew_every_ms() {
            self.renew_unless_asked(now);
        }
        self.claim_what_is_mine(now);
        self.hand_over_what_is_not(now);
    }

    pub(super) fn register(&mut self, now: Now) {
        if self.view.vnodes == 0 {
            return;
        }
        if let Some(row) = self.view.nodes.get(&self.cfg.node)
            && row.sid != self.sid
            && row.sid.born() >= self.sid.born()
        {
            if self.registered_before {
                return self.replaced(now);
            }
            // Lives of one node are ordered even when its clock is behind (rule 21).
            self.sid = Sid::new(&self.cfg.node, row.sid.born() + 1, self.cfg.random);
        }
        self.registration = Registration::Asked { at: now.mono };
        self.out.push(Action::Ask(Ask::Register(Box::new(Register {
            data_set: self.view.data_set.clone(),
            node: self.cfg.node.clone(),
            row: NodeRow {
                sid: self.sid.clone(),
                url: self.cfg.url.clone(),
                admin: self.cfg.admin.clone(),
                state: self.state,
                beat: 0,
                weight: self.cfg.weight,
                pins: self.cfg.pins.clone(),
                load: self.load(),
                gone: Default::default(),
            },
        }))));
    }

    fn load(&self) -> Load {
        Load {
            sessions: self.sessions.len() as u64,
            messages_per_s: self.rate,
            accepts_per_s: self.accepting.per_s(),
            at_home: self.sessions.values().filter(|session| session.counted).count() as u64,
            // Known to whoever reads the topic.
            lag: 0,
        }
    }

    pub(super) fn on_registered(&mut self, answer: Maybe<RegisterAnswer>, now: Now) {
        match answer {
            _ if self.registration == Registration::Over => {}
            Some(RegisterAnswer::Registered) => {
                self.registration = Registration::Yes;
                self.registered_before = true;
                (self.registered_at, self.renewed_at) = (now.mono, now.wall);
                self.refresh(now);
                self.tick_ownership(now);
            }
            Some(RegisterAnswer::Replaced) => self.replaced(now),
            Some(RegisterAnswer::Revoked) => self.new_life(now),
            Some(RegisterAnswer::NewData(data_set)) => self.new_data_set(data_set, now),
            None => self.registration = Registration::No,
        }
    }

    fn renew_unless_asked(&mut self, now: Now) {
        if self.renewing.is_none_or(|at| now.mono >= at + ASK_AGAIN_MS) {
            self.renew(now);
        }
    }

    pub(super) fn renew(&mut self, now: Now) {
        let elapsed = now.mono.saturating_sub(self.rate_mark.0).max(1);
        let appended = self.counters.appended;
        self.rate = (appended - self.rate_mark.1) as f64 * 1000.0 / elapsed as f64;
        self.rate_mark = (now.mono, appended);
        self.accepting.beat();
        self.renewing = Some(now.mono);
        let kept = |h: &&Home| h.phase != Phase::Releasing && !h.is_silent(&self.cfg, now);
        let rows = self.homes.values().filter(kept).map(|h| (h.vnode, h.epoch)).collect();
        let renew = Renew {
            data_set: self.view.data_set.clone(),
            sid: self.sid.clone(),
            state: self.state,
            load: self.load(),
            rows,
        };
        self.out.push(Action::Ask(Ask::Renew { renew, sent: now.mono }));
    }

    pub(super) fn on_renewed(
        &mut self,
        sent: u64,
        rows: &[(VnodeId, Epoch)],
        answer: Maybe<RenewAnswer>,
        now: Now,
    ) {
        self.renewing = None;
        match answer {
            Some(RenewAnswer::Renewed(kept)) => {
                // When it was asked counts: a process that was stopped may read this after it asked again.
                (self.registered_at, self.renewed_at) = (self.registered_at.max(sent), now.wall);
                let mut lost = false;
                for ((vnode, epoch), kept) in rows.iter().zip(kept) {
                    let Some(home) = self.homes.get_mut(vnode).filter(|h| h.epoch == *epoch) else {
                        continue;
                    };
                    if kept {
                        home.lease_until = home.lease_until.max(sent + self.cfg.lease_ttl_ms);
                        self.dirty.insert(*vnode);
                    } else if home.phase != Phase::Releasing {
                        lost = true;
                        self.reclaim(*vnode, false, now);
                    }
                }
                let over =
                    |h: &&Home| h.phase != Phase::Releasing && h.is_silent(&self.cfg, now) && !h.leased(now);
                let silent: Vec<_> = self.homes.values().filter(over).map(|h| h.vnode).collect();
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
        if self.renewed_at == 0 {
            return 0;
        }
        let awake = now.mono.saturating_sub(self.registered_at);
        now.wall.saturating_sub(self.renewed_at).saturating_sub(awake)
    }

    /// A renewal found no row of this sid. Was it registered when that was asked, and under this data set, then it was
    /// gone for so long that it was forgotten, and with it that its sid is over: what it still has to send would be
    /// second messages, and its topic goes (rule 21).
    fn not_registered(&mut self, asked: u64, now: Now) {
        let was = self.registration == Registration::Yes && asked >= self.registered_at;
        if !was || !self.cfg.on(Rule::Forgotten) {
            self.registration =
                if self.registration == Registration::Over { Registration::Over } else { Registration::No };
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
        if self.registration == Registration::Over {
            return;
        }
        self.give_up_life(now);
        self.registration = Registration::Over;
        self.out.push(Action::End(why));
    }

    /// What this sid owns and has to send is nobody's any more.
    fn give_up_life(&mut self, now: Now) {
        for vnode in self.homes.keys().copied().collect::<Vec<_>>() {
            self.end_home(vnode, now);
        }
        self.claims.clear();
        let channels = std::mem::take(&mut self.channels).into_values();
        self.drop_items(channels.flat_map(Channel::into_dropped), Outcome::Unknown, now);
    }

    /// This sid was declared dead: another life begins, with no homes; sockets stay (rule 21).
    fn new_life(&mut self, now: Now) {
        self.give_up_life(now);
        self.tell_all_anew();
        self.sid = Sid::new(&self.cfg.node, now.wall.max(self.sid.born() + 1), self.cfg.random);
        self.registration = Registration::No;
        self.registered_before = false;
        self.tick_ownership(now);
    }

    /// The store's data is another one: nothing of the old rows holds (rule 19).
    pub(super) fn new_data_set(&mut self, data_set: DataSet, now: Now) {
        if self.registration == Registration::Over {
            return;
        }
        if self.view.data_set == data_set {
            self.registration = Registration::No;
            return;
        }
        self.view.data_set = data_set;
        self.view.rows.clear();
        self.view.nodes.clear();
        self.view.assignment = Assignment::default();
        self.registration = Registration::No;
        if self.slept_ms(now) > VOID_AFTER_MS {
            // With the old rows went the tombstone that would say so: to others its items are as good as new, and to
            // itself its leases.
            self.give_up_life(now);
            self.tell_all_anew();
            // Later than the old one, but not than a process that took its place meanwhile.
            self.sid = Sid::new(&self.cfg.node, self.sid.born() + 1, self.cfg.random);
        }
        for vnode in self.homes.keys().copied().collect::<Vec<_>>() {
            self.reclaim(vnode, false, now);
        }
        self.refresh(now);
        self.tick_ownership(now);
    }

    /// The row or the data of a home is gone while nobody else is known to have it: claim it anew.
    pub(super) fn claim_again(&mut self, vnode: VnodeId, prove: bool, now: Now) {
        self.reclaim(vnode, prove, now);
        self.claim_what_is_mine(now);
    }

    pub(super) fn reclaim(&mut self, vnode: VnodeId, prove: bool, now: Now) {
        let Some(home) = self.homes.get(&vnode) else { return };
        let (phase, held_until) = (home.phase, home.lease_until);
        let activated = matches!(phase, Phase::Inheriting | Phase::Ready);
        if !activated && phase != Phase::Activating {
            return self.end_home(vnode, now);
        }
        let held = (activated && home.leased(now)).then_some((home.epoch, home.seq));
        // What was answered `lost` or `rewound` proves nothing anyway.
        let open = home.call.as_ref().filter(|_| !prove && self.cfg.on(Rule::OpenWriteFirst));
        let open = open.map(|call| OpenWrite::new(&call.write));
        self.take_home(vnode, now);
        if activated {
            let floor = self.epochs[vnode.index()];
            let (asked, not_before, previous) = (None, 0, None);
            let claim = Claiming { held, held_until, prove, open, floor, asked, not_before, previous };
            self.claims.insert(vnode, claim);
        } else if let Some(claim) = self.claims.get_mut(&vnode) {
            (claim.asked, claim.not_before) = (None, 0);
        }
        self.hold_sessions(vnode, now);
    }

    /// However a home ends: what is found later must not be less (rule 17).
    pub(super) fn note_left(&mut self, vnode: VnodeId, home: &Home) {
        if home.generation != Epoch(0) && self.cfg.on(Rule::LeftSeq) {
            self.left.insert(vnode, (home.generation, home.seq));
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
        let outbox = std::mem::take(&mut home.outbox);
        if !outbox.is_empty() {
            self.leftovers.insert((vnode, home.epoch), outbox);
            self.emit_leftovers(now);
        }
        if self.view.rows.get(&vnode).is_some_and(|r| r.sid == self.sid) {
            self.view.rows.remove(&vnode);
        }
        Some(home)
    }

    /// The vnode is no longer here; its sessions are told where to go as soon as that is known.
    pub(super) fn end_home(&mut self, vnode: VnodeId, now: Now) {
        if self.take_home(vnode, now).is_some() {
            self.set_adrift(vnode, now);
        }
    }

    pub(super) fn claim_what_is_mine(&mut self, now: Now) {
        if self.registration != Registration::Yes {
            return;
        }
        let activating = self.homes.values().filter(|h| h.phase == Phase::Activating).count();
        let mut room = self
            .cfg
            .claims_max
            .saturating_sub(activating + self.claims.values().filter(|c| c.asked.is_some()).count());
        // A node that drains takes nothing new, but what it held when the data went away is nobody else's.
        let candidates: Vec<VnodeId> = if self.state != NodeState::Up {
            Vec::new()
        } else if self.view.assignment.targets.is_empty() {
            self.cfg.pinned.clone()
        } else {
            let targets = self.view.assignment.targets.iter();
            let pins = self.cfg.pinned.iter().filter(|v| !self.view.assignment.targets.contains_key(v));
            targets.filter(|(_, n)| **n == self.cfg.node).map(|(v, _)| *v).chain(pins.copied()).collect()
        };
        let again: Vec<VnodeId> = self.claims.keys().copied().collect();
        let candidates: BTreeSet<VnodeId> = candidates.into_iter().collect();
        // What was held here is claimed whatever assignment and row say: the store decides (rule 19).
        for vnode in again {
            let claim = &self.claims[&vnode];
            if self.homes.contains_key(&vnode) {
                continue;
            }
            if claim.held(now).is_none() && !candidates.contains(&vnode) && claim.asked.is_none() {
                self.claims.remove(&vnode);
                self.set_adrift(vnode, now);
            }
        }
        let mut wanted: Vec<VnodeId> = self.claims.keys().copied().collect();
        wanted.extend(candidates.into_iter().filter(|v| !self.claims.contains_key(v)));
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
        if let Some(claim) = self.claims.get(&vnode) {
            let waiting = claim.asked.is_some_and(|at| now.mono < at + ASK_AGAIN_MS);
            if waiting || now.mono < claim.not_before {
                return false;
            }
            if claim.held(now).is_some() {
                return true;
            }
        }
        let ended = |row: &Row| {
            row.sid == self.sid || self.view.ended(&row.sid) || !self.view.nodes.contains_key(&row.node())
        };
        vnode.index() < self.epochs.len() && self.view.rows.get(&vnode).is_none_or(ended)
    }

    fn claim(&mut self, vnode: VnodeId, now: Now) {
        let floor = self.epochs[vnode.index()];
        let claim = self.claims.entry(vnode).or_insert_with(|| Claiming {
            held: None,
            held_until: 0,
            prove: false,
            open: None,
            floor,
            asked: None,
            not_before: 0,
            previous: None,
        });
        if let Some(row) = self.view.rows.get(&vnode).filter(|r| r.sid != self.sid) {
            claim.previous = Some(row.sid.clone());
        }
        claim.asked = Some(now.mono);
        self.counters.claims += 1;
        let claim = Claim {
            data_set: self.view.data_set.clone(),
            vnode,
            sid: self.sid.clone(),
            held: claim.held(now).map(|(epoch, _)| epoch),
            // This node's clock stands in for what it cannot have seen, should the store have lost its data and
            // its time.
            floor: claim.floor.max(floor).max(Epoch(now.wall)),
            pinned: self.cfg.pinned.binary_search(&vnode).is_ok(),
        };
        self.out.push(Action::Ask(Ask::Claim { claim, sent: now.mono }));
    }

    pub(super) fn on_claimed(&mut self, vnode: VnodeId, sent: u64, answer: Maybe<ClaimAnswer>, now: Now) {
        let Some(claim) = self.claims.get_mut(&vnode).filter(|c| c.asked == Some(sent)) else { return };
        claim.asked = None;
        claim.not_before = now.mono + CLAIM_AGAIN_MS;
        match answer {
            Some(ClaimAnswer::Granted(epoch)) => {
                self.saw_epoch(vnode, epoch);
                let home = Home::claimed(vnode, epoch, sent + self.cfg.lease_ttl_ms, now);
                self.homes.insert(vnode, home);
                self.view.rows.insert(vnode, Row { sid: self.sid.clone(), epoch, ready: false });
                self.follow_row(vnode, now);
                self.activate(vnode, now);
            }
            Some(ClaimAnswer::Held(row)) => {
                self.saw_epoch(vnode, row.epoch);
                self.claims.remove(&vnode);
                self.learn_row(vnode, row, now);
                self.set_adrift(vnode, now);
            }
            Some(ClaimAnswer::NotYours) => {
                self.claims.remove(&vnode);
                self.refresh(now);
                self.set_adrift(vnode, now);
            }
            // Forgotten or revoked: which of them, a renewal is told.
            Some(ClaimAnswer::NotRegistered) if self.registration == Registration::Yes => {
                self.renew_unless_asked(now);
            }
            Some(ClaimAnswer::NotRegistered) => {}
            Some(ClaimAnswer::NewData(data_set)) => self.new_data_set(data_set, now),
            Some(ClaimAnswer::Settling) | None if self.state == NodeState::Draining => {
                self.claims.remove(&vnode);
            }
            Some(ClaimAnswer::Settling) | None => {}
        }
    }

    pub(super) fn activate(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        home.asked_at = Some(now.mono);
        if self.make_open_write(vnode, now) {
            return;
        }
        let Some(home) = self.homes.get(&vnode) else { return };
        let claim = self.claims.get(&vnode);
        self.out.push(Action::Ask(Ask::Activate(Activate {
            data_set: self.view.data_set.clone(),
            vnode,
            epoch: home.epoch,
            sid: self.sid.clone(),
            prove: claim.is_some_and(|c| c.prove),
            held: claim.and_then(|c| c.held(now)),
            left: self.left.get(&vnode).copied(),
        })));
    }

    pub(super) fn on_activated(
        &mut self,
        vnode: VnodeId,
        epoch: Epoch,
        answer: Maybe<ActivateAnswer>,
        now: Now,
    ) {
        let waiting = |h: &&mut Home| h.epoch == epoch && h.phase == Phase::Activating;
        let Some(home) = self.homes.get_mut(&vnode).filter(waiting) else { return };
        home.asked_at = None;
        match answer {
            None => {}
            Some(ActivateAnswer::NewData(data_set)) => self.new_data_set(data_set, now),
            Some(ActivateAnswer::Refused(stored)) => {
                self.saw_epoch(vnode, stored);
                if let Some(claim) = self.claims.get_mut(&vnode) {
                    claim.not_before = 0;
                }
                self.take_home(vnode, now);
                self.claim_what_is_mine(now);
            }
            Some(ActivateAnswer::Activated(activated)) => self.inherit(vnode, activated, now),
        }
    }

    fn inherit(&mut self, vnode: VnodeId, activated: Activated, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let claim = self.claims.remove(&vnode);
        home.phase = Phase::Inheriting;
        home.generation = activated.generation;
        home.seq = activated.seq;
        home.data_set = self.view.data_set.clone();
        home.set_clock(activated.clock_ms, now);
        let inherited = if self.cfg.on(Rule::InheritFirst) { activated.outbox } else { Vec::new() };
        home.outbox = Outbox::inherited(activated.seq, inherited);
        if self.cfg.on(Rule::DueInherited) {
            home.due = HomeDue::inherited(activated.due);
            home.receipts = HomeReceipts::inherited(activated.wanted, activated.owed);
            home.tickets = HomeTickets::inherited(activated.tickets);
        }
        // A repeated activation finds this sid in the head: then the row tells who was before.
        let before = claim.and_then(|c| c.previous);
        let alone = activated.previous.as_ref() == Some(&self.sid);
        home.previous = activated.previous.filter(|p| *p != self.sid).or(before);
        if home.generation == home.epoch {
            self.counters.generations_begun += 1;
        }
        // What this node itself knows about its users goes before what the roster says: after a loss of data the
        // roster is written again from here (rule 18).
        let grace = now.mono + self.cfg.grace_ms;
        let begun = home.generation == home.epoch;
        home.rooms = HomeRooms::inherited(activated.rooms, begun, grace);
        // Another had it in between, under other data, and may have ended before it was told whom the store lost.
        let data_set = &home.data_set;
        let untold = |r: &super::recall::Remembered| !begun && !alone && r.data_set != *data_set;
        let remembered = self.remembered.remove(&vnode);
        let recalls = remembered.as_ref().is_some_and(untold);
        let remembered = remembered.filter(|_| begun || alone || recalls);
        let mut members = remembered.map(|r| r.members).unwrap_or_default();
        for member in members.values_mut() {
            if begun || recalls {
                member.lost = member.stored.take().filter(Member::is_shown).or(member.lost.take());
            }
            // Its sessions are counted again as they are opened again.
            let due = member.due.filter(|_| member.sessions == 0).unwrap_or((grace, StatusCause::Lost));
            (member.stored, member.pending, member.sessions, member.due) = (None, false, 0, Some(due));
        }
        for (user, entry) in activated.roster {
            match members.get_mut(&user) {
                Some(member) if !recalls => member.stored = Some(entry),
                _ => drop(members.insert(user, Member::inherited(entry, grace))),
            }
        }
        home.members = members;
        // What came while the head was not raised yet was not taken: ask for it.
        for sender in home.senders.values_mut() {
            sender.ask = sender.seen > sender.last;
        }
        self.counters.takeovers += 1;
        self.emit(vnode, now);
        self.dirty.insert(vnode);
    }

    /// The inherited outbox is out: clients may come.
    pub(super) fn ask_ready(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get_mut(&vnode) else { return };
        let quiet = home.outbox.is_empty();
        let asked = home.asked_at.is_some_and(|at| now.mono < at + ASK_AGAIN_MS);
        if home.phase == Phase::Inheriting && quiet && !asked && home.leased(now) {
            home.asked_at = Some(now.mono);
            let rows = vec![(vnode, home.epoch)];
            let data_set = self.view.data_set.clone();
            self.out.push(Action::Ask(Ask::Ready(OwnRows { data_set, sid: self.sid.clone(), rows })));
        }
    }

    pub(super) fn on_readied(&mut self, vnode: VnodeId, epoch: Epoch, answer: Maybe<bool>, now: Now) {
        let waiting = |h: &&mut Home| h.epoch == epoch && h.phase == Phase::Inheriting;
        let Some(home) = self.homes.get_mut(&vnode).filter(waiting) else { return };
        home.asked_at = None;
        match answer {
            Some(true) => {
                home.phase = Phase::Ready;
                // Only now may those come back whom the last home had: the inherited outbox may have waited for
                // the log longer than the grace.
                let grace = now.mono + self.cfg.grace_ms;
                for (at, cause) in home.members.values_mut().filter_map(|m| m.due.as_mut()) {
                    if *cause == StatusCause::Lost {
                        *at = grace;
                    }
                }
                home.rooms.ready(grace);
                home.due.ready(grace);
                self.view.rows.insert(vnode, Row { sid: self.sid.clone(), epoch, ready: true });
                self.tell_predecessor(vnode, now);
                self.sweep_presence(vnode, now);
                self.welcome_back(vnode, now);
                self.say_kept(vnode, now);
                self.dirty.insert(vnode);
            }
            Some(false) => self.claim_again(vnode, false, now),
            None => {}
        }
    }

    /// Rule 22: a predecessor cut off from the store alone learns it from the log.
    fn tell_predecessor(&mut self, vnode: VnodeId, _now: Now) {
        let Some(home) = self.homes.get(&vnode) else { return };
        let Some(node) = home.previous.as_ref().map(Sid::node).filter(|n| *n != self.cfg.node) else {
            return;
        };
        let took = Took {
            vnode,
            epoch: home.epoch,
            node: self.cfg.node.clone(),
            sid: self.sid.clone(),
            url: self.cfg.url.clone(),
        };
        self.transport(&node, vnode, Record::Took(took), Token::Other);
    }

    /// Requests about homes that got no answer are made again.
    pub(super) fn ask_again(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.get(&vnode) else { return };
        let overdue = home.asked_at.is_none_or(|at| now.mono >= at + ASK_AGAIN_MS);
        match home.phase {
            Phase::Activating if !home.leased(now) => self.claim_again(vnode, false, now),
            Phase::Activating if home.asked_at.is_none_or(|at| now.mono >= at + ACTIVATE_AGAIN_MS) => {
                self.activate(vnode, now);
            }
            Phase::Releasing if overdue => self.on_released(vnode, home.epoch, now),
            Phase::Inheriting => self.ask_ready(vnode, now),
            Phase::Stopping if !home.leased(now) => self.end_home(vnode, now),
            Phase::Activating | Phase::Releasing | Phase::Stopping | Phase::Ready => {}
        }
    }
}
