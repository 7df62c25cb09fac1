//! What the cores ask, done to the store model and the log, or kept from them.

use roost_backend::log::{Durability, Outgoing};
use roost_backend::store::{ActivateAnswer, Write, WriteAnswer};
use roost_proto::events::{CHAT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS};
use roost_proto::frames::ServerFrame;
use roost_proto::ids::VnodeId;
use roost_proto::records::{self, Record};
use roost_ws_node::core::{Action, Ask, Ending, Input, Rule, SendQueue, SessionKey};

use super::{Harness, LEASE_TTL_MS, LateWrite, ROAD_MS, Reach, Road, STORE_MS};

const STORE_TIMEOUT_MS: u64 = 400;
const LOG_MS: u64 = 2;

impl Harness {
    pub(super) fn later(&mut self, ms: u64, node: usize, event: Input) {
        self.next += 1;
        self.pending.insert((self.now + ms, self.next), (node, event));
    }

    pub(super) fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Produce { durability: Durability::Transport, record } => self.send(node, &record),
            Action::Produce { durability: Durability::Outbox, record } if self.no_log.contains(&node) => {
                self.unlogged.push((node, record));
            }
            Action::Produce { durability: Durability::Outbox, record } => self.log(node, record),
            Action::Link(order) => self.link(node, order),
            Action::LogEnd { session, ask, partition } => {
                self.log_end_asked += 1;
                let answer = self.log_end_known.then(|| self.chat[partition as usize].len() as u64);
                self.later(LOG_MS, node, Input::LogEnd { session, ask, partition, answer });
            }
            Action::Frame { session, frame, queue } => self.frame(node, session, &frame, queue),
            Action::Fan { sessions, frame } => {
                for session in sessions {
                    self.frame(node, session, &frame, SendQueue::Message);
                }
            }
            Action::Close { session, code, .. } => {
                self.closes.push((session.0, code));
                self.later(1, node, Input::Closed { session });
            }
            Action::Observe(..) => {}
            Action::Follow { channel, ask } => self.follow(node, channel, ask),
            Action::Unfollow { channel } => self.unfollow(node, channel),
            Action::Publish { channel, payload } => self.publish(&channel, &payload),
            Action::Answer { call, reply } => self.answers.push((call, *reply)),
            Action::End(Ending::Replaced) => self.replaced.push(node),
            Action::End(Ending::Forgotten) => self.forgotten.push(node),
            Action::RefreshTable => self.look(node),
            Action::ReadResults { partition, ask } => drop(self.readings.insert(partition, (node, ask))),
            Action::LeaveResults { partition } => drop(self.readings.remove(&partition)),
            Action::ResultsDone { partition, next, .. } => self.handed_out.push((partition, next)),
            Action::Ask(ask) => self.ask_store(node, ask),
        }
    }

    fn send(&mut self, from: usize, record: &Outgoing) {
        let told = Input::Reported { token: record.token, ok: true };
        let to = record.topic.strip_prefix("messages-").unwrap();
        let to: Vec<_> =
            (0..self.nodes.len()).filter(|n| self.nodes[*n].sid().node().as_str() == to).collect();
        if self.not_taken > 0 {
            self.not_taken -= 1;
            return self.later(ROAD_MS, from, Input::Reported { token: record.token, ok: false });
        }
        for read in records::read(&record.payload) {
            self.send_one(from, &to, read.unwrap());
        }
        self.later(ROAD_MS, from, told);
    }

    fn send_one(&mut self, from: usize, to: &[usize], record: Record) {
        let size = serde_json::to_vec(&record).unwrap().len();
        self.sent.push((self.now, from, size, record.clone()));
        let arrives = match (self.road)(from, &record) {
            Road::Goes => Input::Record(record),
            Road::Lost => return,
            Road::Held => {
                return self.on_road.extend(to.iter().map(|to| (*to, Input::Record(record.clone()))));
            }
            Road::Garbled => Input::Undecodable,
            Road::As(other) => Input::Record(*other),
        };
        for to in to {
            let copy =
                if let Input::Record(r) = &arrives { Input::Record(r.clone()) } else { Input::Undecodable };
            self.later(ROAD_MS, *to, copy);
        }
    }

    pub(super) fn log(&mut self, node: usize, record: Outgoing) {
        if &*record.topic == CHAT_EVENTS {
            let message = serde_json::from_slice(&record.payload).unwrap();
            self.chat[record.partition as usize].push((self.now, message));
        }
        if &*record.topic == USER_STATUS_EVENTS {
            self.statuses.push(serde_json::from_slice(&record.payload).unwrap());
        }
        if &*record.topic == UNDELIVERED_EVENTS {
            self.undelivered.push((self.now, serde_json::from_slice(&record.payload).unwrap()));
        }
        self.later(LOG_MS, node, Input::Reported { token: record.token, ok: true });
    }

    fn frame(&mut self, node: usize, session: SessionKey, frame: &[u8], queue: SendQueue) {
        let of = |wanted| if queue == wanted { (1, frame.len()) } else { (0, 0) };
        let (messages, signals) = (of(SendQueue::Message), of(SendQueue::Signal));
        let frame = ServerFrame::parse(std::str::from_utf8(frame).unwrap()).unwrap();
        self.frames.push((session.0, frame));
        if self.stalled.contains(&session.0) {
            let [m, s] = self.undrained.entry(session.0).or_default();
            *m = (m.0 + messages.0, m.1 + messages.1);
            *s = (s.0 + signals.0, s.1 + signals.1);
        } else if messages.0 + signals.0 > 0 {
            self.later(1, node, Input::Drained { session, messages, signals });
        }
    }

    /// A write takes effect, and what it publishes goes out.
    pub(super) fn write(&mut self, write: &Write) -> WriteAnswer {
        let vnode = write.fence.vnode;
        let answer = self.data[vnode.index()].write(write, &self.store);
        self.publish_written(vnode);
        answer
    }

    fn ask_store(&mut self, node: usize, ask: Ask) {
        let cut = self.no_store.contains(&node);
        let mut wait = if cut { STORE_TIMEOUT_MS } else { 2 * STORE_MS };
        let now = self.store_now();
        let event = match ask {
            Ask::Register(r) => Input::Registered((!cut).then(|| self.control.register(&r))),
            Ask::Claim { claim: c, sent } => {
                if self.off == Some(Rule::HeldWhileSettling) && c.held.is_none() {
                    self.control.settling_until = 0;
                }
                let answer = (!cut).then(|| self.control.claim(&c, now, LEASE_TTL_MS));
                Input::Claimed { vnode: c.vnode, sent, answer }
            }
            Ask::Activate(a) => {
                let (vnode, epoch) = (a.vnode, a.epoch);
                let current = a.data_set == self.control.data_set;
                let mut answer = match cut {
                    true => None,
                    false if current => Some(self.data[vnode.index()].activate(&a)),
                    false => Some(ActivateAnswer::NewData(self.control.data_set.clone())),
                };
                if self.activations_untold > 0 {
                    self.activations_untold -= 1;
                    (answer, wait) = (None, STORE_TIMEOUT_MS);
                }
                Input::Activated { vnode, epoch, answer }
            }
            Ask::Ready(r) => {
                let (vnode, epoch) = r.rows[0];
                let answer = (!cut).then(|| self.control.set_ready(&r, now)[0]);
                Input::Readied { vnode, epoch, answer }
            }
            Ask::Release(r) => {
                if !cut {
                    self.control.release(&r, now);
                }
                let (vnode, epoch) = r.rows[0];
                Input::Released { vnode, epoch }
            }
            Ask::Renew { renew: r, sent } => {
                let answer = (!cut).then(|| self.control.renew(&r, now, LEASE_TTL_MS));
                Input::Renewed { sent, rows: r.rows, answer }
            }
            Ask::Write { call, write } => {
                let vnode = write.fence.vnode;
                let reach = if cut { Reach::Answered } else { (self.writes)(&write) };
                let answered = reach == Reach::Underway;
                let answer = match reach {
                    Reach::Answered => (!cut).then(|| self.write(&write)),
                    Reach::Untold => {
                        self.write(&write);
                        None
                    }
                    Reach::Late | Reach::Underway => {
                        self.late_writes.push(LateWrite { node, call, write: *write, answered });
                        None
                    }
                };
                if answered {
                    return;
                }
                wait = if answer.is_none() { STORE_TIMEOUT_MS } else { wait };
                Input::Written { vnode, call, answer }
            }
            Ask::Read { ask, session, vnode, stream, generation, after, limit } => {
                let answer = (!cut).then(|| self.data[vnode.index()].read(&stream, generation, after, limit));
                Input::Read { ask, session, stream, generation, after, answer }
            }
            Ask::Presence { vnode, users, ask } => {
                let answer = (!cut).then(|| self.data[vnode.index()].presences(&users));
                Input::PresenceRead { vnode, users, ask, answer }
            }
            Ask::PresenceStandings(vnodes) => {
                let standing = |vnode: &VnodeId| self.data[vnode.index()].presence_standing();
                let answer = (!cut).then(|| vnodes.iter().map(standing).collect());
                Input::PresenceStandings { vnodes, answer }
            }
            Ask::Page { ask, session, id, vnode, stream, before, limit } => {
                let answer = (!cut).then(|| self.data[vnode.index()].page(&stream, before, limit));
                Input::Paged { ask, session, id, stream, before, answer }
            }
            Ask::Standings(rooms) => return self.standings(node, rooms),
        };
        self.later(wait, node, event);
    }
}
