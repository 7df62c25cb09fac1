//! The store of a simulated cluster: the model, reached over connections that lose, delay and die.

use std::sync::Arc;

use roost_backend::store::*;
use roost_coordinator::leader::{LeaderEvent, RevokeCause};
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{StreamId, VnodeId};
use roost_ws_node::core::{Ask, Input, Rule};

use super::{Broken, Happening, LEASE_TTL_MS, World};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Node(usize),
    Coordinator(usize),
}

/// What a peer is told.
pub(crate) enum Told {
    Core(Box<Input>),
    Leader(Box<LeaderEvent>),
}

impl From<Input> for Told {
    fn from(event: Input) -> Self {
        Self::Core(Box::new(event))
    }
}

impl From<LeaderEvent> for Told {
    fn from(event: LeaderEvent) -> Self {
        Self::Leader(Box::new(event))
    }
}

#[derive(Debug)]
pub(crate) enum Request {
    /// With when it was asked.
    Table(u64),
    Ask(Ask),
    Deregister(Deregister),
    Lead(Lead),
    Revoke(Revoke, RevokeCause),
    Forget(Forget),
    Assign(Assign),
    Resign(Resign),
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Told,
    /// The caller gave up waiting before.
    Late,
}

/// How long a caller waits.
pub(super) const TIMEOUT_MS: u64 = 400;

impl World {
    pub(crate) fn ask_store(&mut self, peer: Peer, request: Request) {
        let cut_until = match peer {
            Peer::Node(pid) => self.processes[pid].no_store_until,
            Peer::Coordinator(c) => self.coordinators[c].no_store_until,
        };
        let cut = self.now < self.store_down_until.max(cut_until);
        let dice = if self.faulty() { self.between(0, 1000) } else { 999 };
        if cut || dice < 15 {
            return self.answer(peer, self.now + TIMEOUT_MS, unanswered(&request));
        }
        let run = self.connections;
        if dice < 45 {
            // The caller is told nothing; the request takes effect soon, or much later.
            let late = if dice < 25 { self.between(1, TIMEOUT_MS) } else { self.between(TIMEOUT_MS, 6000) };
            self.answer(peer, self.now + TIMEOUT_MS, unanswered(&request));
            let request = Box::new(request);
            return self.at(self.now + late, Happening::Store { peer, run, request, answer: Fate::Late });
        }
        let delay = self.between(1, 6);
        let request = Box::new(request);
        self.at(self.now + delay, Happening::Store { peer, run, request, answer: Fate::Told });
    }

    fn answer(&mut self, peer: Peer, at: u64, told: Option<Told>) {
        match (peer, told) {
            (Peer::Node(pid), Some(Told::Core(event))) => self.at(at, Happening::ToCore { pid, event }),
            (Peer::Coordinator(c), Some(Told::Leader(event))) => {
                self.at(at, Happening::ToLeader { c, event });
            }
            (_, None) => {}
            (_, Some(_)) => unreachable!("nodes ask for nodes, coordinators for coordinators"),
        }
    }

    pub(crate) fn store_request(&mut self, peer: Peer, run: u64, request: Request, fate: Fate) {
        // A restarted store has none of the old connections.
        if run != self.connections || self.now < self.store_down_until {
            if fate == Fate::Told {
                self.answer(peer, self.now + 5, unanswered(&request));
            }
            return;
        }
        let hint = matches!(
            request,
            Request::Ask(Ask::Register(_) | Ask::Ready(_) | Ask::Release(_))
                | Request::Deregister(_)
                | Request::Revoke(..)
                | Request::Forget(_)
                | Request::Assign(_)
        );
        if self.takes_back && is_all_appends(&request) {
            return self.take_back(peer, request);
        }
        let told = self.apply(peer, request);
        if hint {
            self.hint();
        }
        if fate == Fate::Told {
            let at = self.now + self.between(1, 6);
            self.answer(peer, at, told);
        }
    }

    /// Listeners hear of a write that its owner gets no answer to, and the store comes back as it was just before.
    fn take_back(&mut self, peer: Peer, request: Request) {
        self.takes_back = false;
        let before = (self.control.clone(), self.data.clone());
        self.answer(peer, self.now + TIMEOUT_MS, unanswered(&request));
        self.apply(peer, request);
        self.note(|| "*** taken back".into());
        self.restart_with(before);
    }

    /// Whoever hears that the table changed reads it. Hints get lost.
    fn hint(&mut self) {
        let nodes = self.alive().into_iter().map(Peer::Node);
        let peers: Vec<_> = nodes.chain(self.leaders().into_iter().map(Peer::Coordinator)).collect();
        for peer in peers {
            if self.chance(60.0) {
                let at = self.now + self.between(1, 20);
                self.at(at, Happening::ReadTable { peer, periodic: false });
            }
        }
    }

    fn apply(&mut self, peer: Peer, request: Request) -> Option<Told> {
        let now = self.store_now();
        match request {
            Request::Ask(ask) => Some(self.asked(peer, ask).into()),
            Request::Table(asked_at) => {
                let mut table = self.control.table(now);
                if self.setup.off == Some(Rule::DataSetNamed) {
                    table.data_set = DataSet("d0".into());
                }
                Some(match peer {
                    Peer::Node(_) => Input::View(Box::new(table)).into(),
                    Peer::Coordinator(_) => {
                        let (table, boot_ms) = (Arc::new(table), self.now);
                        LeaderEvent::Table { table, asked_at, boot_ms }.into()
                    }
                })
            }
            Request::Deregister(d) => {
                if d.data_set == self.control.data_set {
                    self.control.deregister(&d);
                }
                None
            }
            Request::Lead(mut l) => {
                if self.is_broken(Broken::LeadIgnoresFrozen) {
                    l.frozen = self.control.table(now).leader;
                }
                let answer = self.control.lead(&l);
                if answer == LeadAnswer::Leading {
                    self.saw_led(&l);
                }
                Some(LeaderEvent::Led(Some(answer)).into())
            }
            Request::Resign(r) => {
                if self.control.resign(&r) {
                    self.saw_resigned();
                }
                None
            }
            Request::Revoke(mut r, cause) => {
                if self.is_broken(Broken::RevokeIgnoresBeat) {
                    let row = self.control.table(now).nodes.remove(&r.sid.node());
                    r.beat = row.map_or(r.beat, |row| row.beat);
                }
                let done = self.control.revoke(&r);
                if done {
                    self.saw_revoked(&r, cause);
                }
                Some(LeaderEvent::Revoked { sid: r.sid, done: Some(done) }.into())
            }
            Request::Forget(f) => {
                let done = Some(self.control.forget(&f));
                Some(LeaderEvent::Forgot { sid: f.sid, done }.into())
            }
            Request::Assign(a) => {
                let done = self.control.assign(&a);
                self.saw_assigned();
                Some(LeaderEvent::Assigned(Some(done)).into())
            }
        }
    }

    /// What a core asked.
    fn asked(&mut self, peer: Peer, ask: Ask) -> Input {
        let now = self.store_now();
        let blind = self.setup.off == Some(Rule::DataSetNamed);
        let known = self.control.data_set.clone();
        let named = |data_set: &mut DataSet| {
            if blind {
                *data_set = known.clone();
            }
        };
        match ask {
            Ask::Register(mut r) => {
                named(&mut r.data_set);
                let answer = self.control.register(&r);
                self.saw_beats();
                Input::Registered(Some(answer))
            }
            Ask::Claim { claim: mut c, sent } => {
                named(&mut c.data_set);
                if self.setup.off == Some(Rule::HeldWhileSettling) && c.held.is_none() {
                    self.control.settling_until = 0;
                }
                let answer = self.control.claim(&c, now, LEASE_TTL_MS);
                if matches!(answer, ClaimAnswer::Granted(_)) {
                    self.saw_granted(c.vnode, c.sid.node());
                }
                Input::Claimed { vnode: c.vnode, sent, answer: Some(answer) }
            }
            Ask::Activate(mut a) => {
                let (vnode, epoch) = (a.vnode, a.epoch);
                let mut answer = if blind {
                    a.data_set = DataSet("d0".into());
                    self.data[vnode.index()].activate(&a)
                } else if a.data_set != known {
                    ActivateAnswer::NewData(known)
                } else {
                    self.data[vnode.index()].activate(&a)
                };
                if let ActivateAnswer::Activated(activated) = &mut answer {
                    self.saw_activated(vnode, peer, activated);
                    if self.is_broken(Broken::RosterTrusted) {
                        activated.roster.iter_mut().for_each(|(_, e)| e.generation = activated.generation);
                    }
                }
                Input::Activated { vnode, epoch, answer: Some(answer) }
            }
            Ask::Ready(mut r) => {
                named(&mut r.data_set);
                let (vnode, epoch) = r.rows[0];
                let done = self.control.set_ready(&r, now)[0];
                if done {
                    self.saw_ready(vnode, epoch);
                    self.saw_home(vnode, peer);
                }
                Input::Readied { vnode, epoch, answer: Some(done) }
            }
            Ask::Release(mut r) => {
                named(&mut r.data_set);
                let (vnode, epoch) = r.rows[0];
                if self.control.release(&r, now)[0] {
                    self.saw_released(vnode, epoch, &r.sid);
                }
                Input::Released { vnode, epoch }
            }
            Ask::Renew { renew: mut r, sent } => {
                named(&mut r.data_set);
                let rows = r.rows.clone();
                let answer = Some(self.control.renew(&r, now, LEASE_TTL_MS));
                self.saw_beats();
                Input::Renewed { sent, rows, answer }
            }
            Ask::Write { call, write } => self.write(peer, call, *write),
            Ask::Read { ask, session, vnode, stream, generation, after, limit } => {
                let answer = Some(self.data[vnode.index()].read(&stream, generation, after, limit));
                Input::Read { ask, session, stream, generation, after, answer }
            }
            Ask::Standings(rooms) => {
                let standing =
                    |(vnode, stream): &(VnodeId, StreamId)| self.data[vnode.index()].standing(stream);
                let answer = Some(rooms.iter().map(standing).collect());
                Input::Standings { rooms, answer }
            }
            Ask::Presence { vnode, users, ask } => {
                let answer = Some(self.data[vnode.index()].presences(&users));
                Input::PresenceRead { vnode, users, ask, answer }
            }
            Ask::PresenceStandings(vnodes) => {
                let standing = |vnode: &VnodeId| self.data[vnode.index()].presence_standing();
                let answer = Some(vnodes.iter().map(standing).collect());
                Input::PresenceStandings { vnodes, answer }
            }
            Ask::Page { ask, session, id, vnode, stream, before, limit } => {
                let answer = Some(self.data[vnode.index()].page(&stream, before, limit));
                Input::Paged { ask, session, id, stream, before, answer }
            }
        }
    }

    fn write(&mut self, peer: Peer, call: u64, mut write: Write) -> Input {
        let (vnode, epoch) = (write.fence.vnode, write.fence.epoch);
        if self.is_broken(Broken::ChoiceForgotten) {
            for op in &mut write.ops {
                if let Op::Presence(PresenceOp { roster: Some(entry), .. }) = op {
                    entry.chosen = ChosenStatus::Online;
                }
            }
        }
        let deaf = self.is_broken(Broken::EpochFence);
        let data = &mut self.data[vnode.index()];
        let off = self.setup.off;
        if let (Some((epoch, sid, _, seq)), true) = (data.head(), deaf) {
            (write.fence.epoch, write.fence.sid, write.fence.seq) = (epoch, sid.clone(), seq);
        }
        if let Some((epoch, sid, _, seq)) = data.head().map(|(e, s, g, q)| (e, s.clone(), g, q))
            && epoch == write.fence.epoch
            && sid == write.fence.sid
            && ((off == Some(Rule::SeqFence) && seq > write.fence.seq)
                || (off == Some(Rule::Rewound) && seq < write.fence.seq))
        {
            write.fence.seq = seq;
        }
        if off == Some(Rule::IdsByTime) {
            data.forget_ids_outside_windows();
        }
        let (due, tickets) = (data.all_due(), data.all_tickets());
        let answer = data.write(&write, &self.store_config);
        let published = data.take_published(vnode);
        if let (WriteAnswer::Done { .. }, Some((_, _, generation, _))) = (&answer, data.head()) {
            self.saw_write(vnode, generation, epoch);
            self.saw_reports(&write, &answer, &due);
            self.saw_timeouts(&write, &answer, &tickets);
            self.saw_presence_kept(peer, &write);
            self.saw_presence_kept_by(&write);
        }
        for (channel, payload) in published {
            self.publish(&channel, &payload);
        }
        Input::Written { vnode, call, answer: Some(answer) }
    }
}

/// Of the reports and the presence in a write the book is kept as if they were for good.
fn is_all_appends(request: &Request) -> bool {
    let Request::Ask(Ask::Write { write, .. }) = request else { return false };
    let room = |op: &Op| matches!(op, Op::Append(append) if append.stream.is_room());
    write.ops.iter().all(|op| matches!(op, Op::Append(append) if append.closes.is_none()))
        && write.ops.iter().any(room)
}

/// What the caller is told when no answer comes.
fn unanswered(request: &Request) -> Option<Told> {
    let event = match request {
        Request::Table(_) | Request::Deregister(_) | Request::Resign(_) => return None,
        Request::Ask(ask) => unanswered_ask(ask),
        Request::Lead(_) => return Some(LeaderEvent::Led(None).into()),
        Request::Revoke(r, _) => {
            return Some(LeaderEvent::Revoked { sid: r.sid.clone(), done: None }.into());
        }
        Request::Assign(_) => return Some(LeaderEvent::Assigned(None).into()),
        Request::Forget(f) => {
            return Some(LeaderEvent::Forgot { sid: f.sid.clone(), done: None }.into());
        }
    };
    Some(event.into())
}

/// What a core is told when no answer comes: the question may take effect all the same, even later.
fn unanswered_ask(ask: &Ask) -> Input {
    match ask {
        Ask::Register(_) => Input::Registered(None),
        Ask::Claim { claim, sent } => Input::Claimed { vnode: claim.vnode, sent: *sent, answer: None },
        Ask::Activate(a) => Input::Activated { vnode: a.vnode, epoch: a.epoch, answer: None },
        Ask::Ready(own) => {
            let (vnode, epoch) = own.rows[0];
            Input::Readied { vnode, epoch, answer: None }
        }
        Ask::Release(own) => {
            let (vnode, epoch) = own.rows[0];
            Input::Released { vnode, epoch }
        }
        Ask::Renew { renew, sent } => Input::Renewed { sent: *sent, rows: renew.rows.clone(), answer: None },
        Ask::Write { call, write } => Input::Written { vnode: write.fence.vnode, call: *call, answer: None },
        Ask::Read { ask, session, stream, generation, after, .. } => {
            let (stream, generation, after) = (stream.clone(), *generation, *after);
            Input::Read { ask: *ask, session: *session, stream, generation, after, answer: None }
        }
        Ask::Page { ask, session, id, stream, before, .. } => {
            let (id, stream, before) = (id.clone(), stream.clone(), *before);
            Input::Paged { ask: *ask, session: *session, id, stream, before, answer: None }
        }
        Ask::Standings(rooms) => Input::Standings { rooms: rooms.clone(), answer: None },
        Ask::Presence { vnode, users, ask } => {
            Input::PresenceRead { vnode: *vnode, users: users.clone(), ask: *ask, answer: None }
        }
        Ask::PresenceStandings(vnodes) => Input::PresenceStandings { vnodes: vnodes.clone(), answer: None },
    }
}
