//! Writes go out, one of a vnode at a time, and their answers come back (rules 10, 18).

use roost_backend::store::*;
use roost_proto::ids::VnodeId;

use crate::core::actions::{Action, Observation};
use crate::core::ask::Ask;
use crate::core::homes::home::{Home, Phase};
use crate::core::input::Maybe;
use crate::core::keys::Now;
use crate::core::node::NodeCore;

/// First wait before a write of unknown outcome is tried again, doubled up to the second, in milliseconds.
const WRITE_AGAIN_MS: u64 = 50;

const WRITE_AGAIN_MAX_MS: u64 = 1000;

impl NodeCore {
    /// What a home does after anything about it changed: write, emit, tell.
    pub(in crate::core) fn settle_home(&mut self, vnode: VnodeId, now: Now) {
        if self.homes.map.get(&vnode).is_some_and(|home| home.wants_to_write(now)) {
            if self.homes.writes.may(vnode) {
                self.write(vnode, now);
            } else if let Some(home) = self.homes.map.get_mut(&vnode) {
                home.waits_to_write(now);
            }
        }
        self.emit(vnode, now);
        self.ask_ready(vnode, now);
        self.tell(vnode, now);
        self.release_if_done(vnode, now);
    }

    /// Those whose turn it is write.
    pub(in crate::core) fn write_in_turn(&mut self, now: Now) {
        while let Some(vnode) = self.homes.writes.next() {
            self.write(vnode, now);
        }
    }

    /// Sends the next write of a vnode, if there is one.
    pub(in crate::core) fn write(&mut self, vnode: VnodeId, now: Now) {
        let (call, sid) = (self.fx.next_call(), self.membership.sid().clone());
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        if let Some(write) = home.next_write(&sid, &self.cfg, now, call) {
            self.put_write(call, Box::new(write));
        }
    }

    pub(in crate::core) fn put_write(&mut self, call: u64, write: Box<Write>) {
        self.fx.count().writes += 1;
        self.homes.writes.begin(call, write.size());
        self.fx.push(Action::Ask(Ask::Write { call, write }));
    }

    /// The answer to a write (rule 18).
    pub(in crate::core) fn on_written(
        &mut self,
        vnode: VnodeId,
        call: u64,
        answer: Maybe<WriteAnswer>,
        now: Now,
    ) {
        self.homes.writes.end(call, answer.is_some());
        if answer.is_some() {
            self.homes.answered_at = now.mono;
        }
        if self.open_write_answered(vnode, call, answer.as_ref(), now) {
            return;
        }
        let is_it = |h: &&mut Home| h.call.as_ref().is_some_and(|c| c.id == call);
        let Some(home) = self.homes.map.get_mut(&vnode).filter(is_it) else { return };
        self.fx.touch(vnode);
        match answer {
            None => {
                self.fx.count().writes_unknown += 1;
                if let Some(call) = &mut home.call {
                    let wait = (WRITE_AGAIN_MS << call.tries.min(8)).min(WRITE_AGAIN_MAX_MS);
                    (call.again_at, call.tries) = (Some(now.mono + wait), call.tries + 1);
                }
            }
            // Its data answers: the lease is renewed, and the write is tried again. One that stops is not kept by it.
            Some(WriteAnswer::Refused) => {
                self.fx.count().writes_unknown += 1;
                let stops = home.phase == Phase::Stopping;
                if let Some(call) = &mut home.call {
                    call.again_at = Some(now.mono + WRITE_AGAIN_MAX_MS);
                    call.since = if stops { call.since } else { now.mono };
                }
            }
            Some(WriteAnswer::Done { seq, results }) => {
                let Some(call) = home.call.take() else { return };
                home.has_written(&call);
                self.fx.push(Action::Observe(Observation::Append, now.us.saturating_sub(call.sent_us)));
                self.apply(vnode, call, seq, results, now);
            }
            Some(WriteAnswer::Behind { seq, outbox }) => {
                home.catch_up(seq, outbox);
                if let Some(call) = &mut home.call {
                    call.again_at = Some(now.mono);
                }
                self.look_again(vnode, now);
            }
            Some(WriteAnswer::Deposed) => {
                self.fx.count().writes_fenced += 1;
                self.refresh_table(now);
                self.end_home(vnode, now);
            }
            Some(WriteAnswer::Lost | WriteAnswer::Rewound) => {
                self.fx.count().writes_fenced += 1;
                self.claim_again(vnode, true, now);
            }
        }
    }
}
