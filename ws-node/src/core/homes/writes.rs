//! Which vnode may write next: so many bytes are under way for the node at once, and who waits has its turn.

use std::collections::{BTreeSet, VecDeque};

use roost_proto::ids::VnodeId;

use crate::core::flow::Flow;

/// Under way to the store at once, in bytes: some 20 ms of its time.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Writes {
    flow: Flow,
    waiting: VecDeque<VnodeId>,
    waits: BTreeSet<VnodeId>,
}

impl Default for Writes {
    fn default() -> Self {
        Self { flow: Flow::new(BYTES_MAX), waiting: VecDeque::new(), waits: BTreeSet::new() }
    }
}

impl Writes {
    /// Whether a vnode may write now. If not it has its turn ([`Writes::next`]).
    pub(crate) fn may(&mut self, vnode: VnodeId) -> bool {
        let may = self.flow.has_room() && self.waiting.is_empty();
        if !may && self.waits.insert(vnode) {
            self.waiting.push_back(vnode);
        }
        may
    }

    /// The vnode whose turn it is, if one more may write.
    pub(crate) fn next(&mut self) -> Option<VnodeId> {
        let vnode = self.flow.has_room().then(|| self.waiting.pop_front()).flatten()?;
        self.waits.remove(&vnode);
        Some(vnode)
    }

    pub(crate) fn begin(&mut self, call: u64, bytes: usize) {
        self.flow.begin(call, bytes);
    }

    pub(crate) fn end(&mut self, call: u64, answered: bool) {
        self.flow.end(call, answered);
    }

    /// In bytes, for the metrics.
    pub(crate) fn bytes(&self) -> usize {
        self.flow.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vnodes_that_wait_have_their_turn_before_others() {
        let mut writes = Writes::default();
        assert!(writes.may(VnodeId(0)));
        writes.begin(1, BYTES_MAX);
        for vnode in [1, 2, 1] {
            assert!(!writes.may(VnodeId(vnode)));
        }
        assert_eq!(writes.next(), None);
        writes.end(1, true);
        assert!(!writes.may(VnodeId(3)), "others wait");
        let order: Vec<_> = std::iter::from_fn(|| writes.next()).map(|vnode| vnode.0).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(writes.may(VnodeId(4)));
    }
}
