//! What goes before a generation may go on: a write of unknown outcome, made again as it was (rule 18).

use roost_backend::store::{Write, WriteAnswer};
use roost_proto::ids::VnodeId;

use super::ask::Ask;
use super::events::{Maybe, Now};
use super::home::Phase;
use super::ownership::Claiming;
use super::{Action, NodeCore};

/// Between tries, without an answer or refused, in milliseconds.
const OPEN_AGAIN_MS: u64 = 250;

/// A write that is made again, unchanged, before anything else is written: what it gave a place has no other.
#[derive(Debug, Clone)]
pub(super) struct OpenWrite {
    write: Box<Write>,
    /// The call that is under way.
    call: Option<u64>,
    not_before: u64,
}

impl OpenWrite {
    pub fn new(write: &Write) -> Self {
        Self { write: Box::new(write.clone()), call: None, not_before: 0 }
    }
}

impl NodeCore {
    /// A write of unknown outcome goes first, under the epoch that it was made under: the head still has that if nothing
    /// was lost. True if there is one. Past the deadline another may have had the vnode, and nothing is proved.
    pub(super) fn make_open_write(&mut self, vnode: VnodeId, now: Now) -> bool {
        let Some(claim) = self.claims.get_mut(&vnode) else { return false };
        let held = claim.held(now).is_some();
        let Some(open) = claim.open.as_mut().filter(|_| held) else { return false };
        if now.mono < open.not_before {
            self.look_at_next_tick(vnode);
            return true;
        }
        let call = self.next_call;
        self.next_call += 1;
        open.call = Some(call);
        self.counters.writes += 1;
        self.writes.begin(call, open.write.size());
        self.out.push(Action::Ask(Ask::Write { call, write: open.write.clone() }));
        true
    }

    fn look_at_next_tick(&mut self, vnode: VnodeId) {
        if let Some(home) = self.homes.get_mut(&vnode) {
            home.asked_at = None;
        }
    }

    /// The answer to [`NodeCore::make_open_write`]; false if it is to another write. What the write did is told by
    /// the outbox that is inherited, and by the ids that its repeats find.
    pub(super) fn open_write_answered(
        &mut self,
        vnode: VnodeId,
        call: u64,
        answer: Maybe<&WriteAnswer>,
        now: Now,
    ) -> bool {
        let is_it = |c: &&mut Claiming| c.open.as_ref().is_some_and(|open| open.call == Some(call));
        let Some(claim) = self.claims.get_mut(&vnode).filter(is_it) else { return false };
        let Some(open) = &mut claim.open else { return false };
        open.call = None;
        match answer {
            None | Some(WriteAnswer::Refused) => {
                open.not_before = now.mono + OPEN_AGAIN_MS;
                self.look_at_next_tick(vnode);
                return true;
            }
            Some(WriteAnswer::Behind { seq, .. }) => open.write.fence.seq = *seq,
            Some(WriteAnswer::Done { seq, .. }) => {
                claim.held = claim.held.map(|(epoch, before)| (epoch, before.max(*seq)));
                claim.open = None;
            }
            Some(WriteAnswer::Deposed) => claim.open = None,
            Some(WriteAnswer::Lost | WriteAnswer::Rewound) => (claim.open, claim.prove) = (None, true),
        }
        if self.homes.get(&vnode).is_some_and(|home| home.phase == Phase::Activating) {
            self.activate(vnode, now);
        }
        true
    }
}
