//! A write of unknown outcome is made again before the generation may go on (rule 18).

use roost_backend::store::WriteAnswer;
use roost_proto::ids::VnodeId;

use crate::core::homes::home::Phase;
use crate::core::input::Maybe;
use crate::core::keys::Now;
use crate::core::membership::claiming::Claiming;
use crate::core::node::NodeCore;

/// Between tries, without an answer or refused, in milliseconds.
const OPEN_AGAIN_MS: u64 = 250;

impl NodeCore {
    /// A write of unknown outcome goes first, under the epoch that it was made under: the head still has that if nothing
    /// was lost. True if there is one. Past the deadline another may have had the vnode, and nothing is proved.
    pub(super) fn make_open_write(&mut self, vnode: VnodeId, now: Now) -> bool {
        let Some(claim) = self.membership.claims.get_mut(&vnode) else { return false };
        let held = claim.held(now).is_some();
        let Some(open) = claim.open.as_mut().filter(|_| held) else { return false };
        if now.mono < open.not_before {
            self.look_at_next_tick(vnode);
            return true;
        }
        let call = self.fx.next_call();
        open.call = Some(call);
        let write = open.write.clone();
        self.put_write(call, write);
        true
    }

    fn look_at_next_tick(&mut self, vnode: VnodeId) {
        if let Some(home) = self.homes.get_mut(&vnode) {
            home.asked(None);
        }
    }

    /// The answer to [`NodeCore::make_open_write`]; false if it is to another write. What the write did is told by
    /// the outbox that is inherited, and by the ids that its repeats find.
    pub(in crate::core) fn open_write_answered(
        &mut self,
        vnode: VnodeId,
        call: u64,
        answer: Maybe<&WriteAnswer>,
        now: Now,
    ) -> bool {
        let is_it = |c: &&mut Claiming| c.open.as_ref().is_some_and(|open| open.call == Some(call));
        let Some(claim) = self.membership.claims.get_mut(&vnode).filter(is_it) else { return false };
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
        if self.homes.get(&vnode).is_some_and(|home| home.phase() == Phase::Activating) {
            self.activate(vnode, now);
        }
        true
    }
}
