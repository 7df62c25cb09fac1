//! The store of a simulated cluster: the model, reached over connections that lose, delay and die.

use roost_backend::store::*;
use roost_proto::ids::{Epoch, NodeId, Offset, StreamId, VnodeId};
use roost_ring::{PlanInput, PlanNode, plan};
use roost_ws_node::core::Rule;
use roost_ws_node::core::events::{Event, SessionKey};

use super::{Happening, LEASE_TTL_MS, World};

pub(crate) enum Request {
    Table,
    Register(Register),
    Claim(Claim, u64),
    Activate(Activate),
    Ready(OwnRows),
    Release(OwnRows),
    Renew(Renew, u64),
    Write(u64, Write),
    Read {
        session: SessionKey,
        vnode: VnodeId,
        stream: StreamId,
        generation: Epoch,
        after: Offset,
        limit: usize,
    },
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Told,
    /// The caller gave up waiting before.
    Late,
}

/// How long a caller waits.
const TIMEOUT_MS: u64 = 400;
const LEADER: &str = "sim";

impl World {
    pub(crate) fn ask_store(&mut self, pid: usize, request: Request) {
        let cut = self.now < self.store_down_until || self.now < self.processes[pid].no_store_until;
        let dice = if self.faulty() { self.between(0, 1000) } else { 999 };
        if cut || dice < 15 {
            let event = unanswered(&request);
            return self.answer(pid, self.now + TIMEOUT_MS, event);
        }
        let run = self.run;
        if dice < 45 {
            // The caller is told nothing; the request takes effect soon, or much later.
            let late = if dice < 25 { self.between(1, TIMEOUT_MS) } else { self.between(TIMEOUT_MS, 6000) };
            let event = unanswered(&request);
            self.answer(pid, self.now + TIMEOUT_MS, event);
            let request = Box::new(request);
            return self.at(self.now + late, Happening::Store { pid, run, request, answer: Fate::Late });
        }
        let delay = self.between(1, 6);
        let request = Box::new(request);
        self.at(self.now + delay, Happening::Store { pid, run, request, answer: Fate::Told });
    }

    fn answer(&mut self, pid: usize, at: u64, event: Option<Event>) {
        if let Some(event) = event {
            self.at(at, Happening::ToCore { pid, event: Box::new(event) });
        }
    }

    pub(crate) fn store_request(&mut self, pid: usize, run: u64, request: Request, fate: Fate) {
        // A restarted store has none of the old connections.
        if run != self.run || self.now < self.store_down_until {
            if fate == Fate::Told {
                let event = unanswered(&request);
                self.answer(pid, self.now + 5, event);
            }
            return;
        }
        let event = self.apply(request);
        if fate == Fate::Told {
            let at = self.now + self.between(1, 6);
            self.answer(pid, at, Some(event));
        }
    }

    fn apply(&mut self, request: Request) -> Event {
        let now = self.store_now();
        let blind = self.setup.off == Some(Rule::DataSetNamed);
        let known = self.control.data_set.clone();
        let named = |data_set: &mut DataSet| {
            if blind {
                *data_set = known.clone();
            }
        };
        match request {
            Request::Table => {
                let mut table = self.control.table(now);
                if blind {
                    table.data_set = DataSet("d0".into());
                }
                Event::View(Box::new(table))
            }
            Request::Register(mut r) => {
                named(&mut r.data_set);
                Event::Registered(Some(self.control.register(&r)))
            }
            Request::Claim(mut c, sent) => {
                named(&mut c.data_set);
                if self.setup.off == Some(Rule::HeldWhileSettling) && c.held.is_none() {
                    self.control.settling_until = 0;
                }
                let answer = Some(self.control.claim(&c, now, LEASE_TTL_MS));
                Event::Claimed { vnode: c.vnode, sent, answer }
            }
            Request::Activate(mut a) => {
                let (vnode, epoch) = (a.vnode, a.epoch);
                let answer = if blind {
                    a.data_set = DataSet("d0".into());
                    self.data[vnode.index()].activate(&a)
                } else if a.data_set != known {
                    ActivateAnswer::NewData(known)
                } else {
                    self.data[vnode.index()].activate(&a)
                };
                Event::Activated { vnode, epoch, answer: Some(answer) }
            }
            Request::Ready(mut r) => {
                named(&mut r.data_set);
                let (vnode, epoch) = r.rows[0];
                Event::Readied { vnode, epoch, answer: Some(self.control.set_ready(&r, now)[0]) }
            }
            Request::Release(mut r) => {
                named(&mut r.data_set);
                let (vnode, epoch) = r.rows[0];
                self.control.release(&r, now);
                Event::Released { vnode, epoch }
            }
            Request::Renew(mut r, sent) => {
                named(&mut r.data_set);
                let rows = r.rows.clone();
                Event::Renewed { sent, rows, answer: Some(self.control.renew(&r, now, LEASE_TTL_MS)) }
            }
            Request::Write(call, write) => self.write(call, write),
            Request::Read { session, vnode, stream, generation, after, limit } => {
                let answer = Some(self.data[vnode.index()].read(&stream, generation, after, limit));
                Event::Read { session, generation, after, answer }
            }
        }
    }

    fn write(&mut self, call: u64, mut write: Write) -> Event {
        let vnode = write.fence.vnode;
        let data = &mut self.data[vnode.index()];
        let off = self.setup.off;
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
        let answer = Some(data.write(&write, &self.store_config));
        Event::Written { vnode, call, answer }
    }

    /// The leader, reduced to what matters here: it revokes whom it has not heard of for a lease, and plans.
    pub(crate) fn lead(&mut self) {
        let every = 250;
        self.at(self.now + every, Happening::Lead);
        if self.now < self.store_down_until {
            self.seen_beats.clear();
            return;
        }
        let now = self.store_now();
        let table = self.control.table(now);
        let data_set = table.data_set.clone();
        self.control.lead(&Lead { data_set: data_set.clone(), token: LEADER.into(), frozen: None });
        if table.settling {
            return;
        }
        let mut living = Vec::new();
        for (node, row) in &table.nodes {
            let seen =
                self.seen_beats.entry(node.clone()).or_insert((row.sid.to_string(), row.beat, self.now));
            if (seen.0.as_str(), seen.1) != (row.sid.as_str(), row.beat) {
                *seen = (row.sid.to_string(), row.beat, self.now);
            }
            if row.state == NodeState::Up && self.now >= seen.2 + LEASE_TTL_MS {
                let revoke = Revoke {
                    data_set: data_set.clone(),
                    token: LEADER.into(),
                    sid: row.sid.clone(),
                    beat: row.beat,
                };
                self.control.revoke(&revoke);
            } else if row.state != NodeState::Revoked {
                let weight = u32::from(row.state == NodeState::Up);
                living.push(PlanNode { id: node.clone(), weight, pins: vec![], in_flight: 0 });
            }
        }
        let owners: Vec<Option<NodeId>> = (0..self.setup.vnodes)
            .map(|v| table.assignment.targets.get(&VnodeId(v as u16)).cloned())
            .collect();
        let moves = plan(&PlanInput { owners: &owners, nodes: &living, in_flight_max: 2 });
        let mut targets: Vec<_> = moves.into_iter().map(|m| (m.vnode, m.to)).collect();
        let able: Vec<_> = living.iter().filter(|n| n.weight > 0).collect();
        if targets.is_empty() && self.faulty() && !able.is_empty() && self.chance(12.0) {
            // A move for no reason, to have handoffs.
            let to = able[self.between(0, able.len() as u64) as usize].id.clone();
            targets.push((VnodeId(self.between(0, u64::from(self.setup.vnodes)) as u16), to));
        }
        if !targets.is_empty() {
            let from_version = table.assignment.version;
            self.note(|| format!("assigned {targets:?}"));
            self.control.assign(&Assign { data_set, token: LEADER.into(), from_version, targets });
        }
    }
}

/// What the caller is told when no answer comes.
fn unanswered(request: &Request) -> Option<Event> {
    Some(match request {
        Request::Table => return None,
        Request::Register(_) => Event::Registered(None),
        Request::Claim(c, sent) => Event::Claimed { vnode: c.vnode, sent: *sent, answer: None },
        Request::Activate(a) => Event::Activated { vnode: a.vnode, epoch: a.epoch, answer: None },
        Request::Ready(r) => Event::Readied { vnode: r.rows[0].0, epoch: r.rows[0].1, answer: None },
        Request::Release(r) => Event::Released { vnode: r.rows[0].0, epoch: r.rows[0].1 },
        Request::Renew(r, sent) => Event::Renewed { sent: *sent, rows: r.rows.clone(), answer: None },
        Request::Write(call, w) => Event::Written { vnode: w.fence.vnode, call: *call, answer: None },
        Request::Read { session, generation, after, .. } => {
            Event::Read { session: *session, generation: *generation, after: *after, answer: None }
        }
    })
}
