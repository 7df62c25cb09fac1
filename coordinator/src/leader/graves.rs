//! Who is gone for so long that its row goes.
//!
//! The row of a node that is revoked, or that left, is the tombstone of its sid: should that process wake up, what
//! it still has would be second messages, and everybody knows it by the row. It goes when nothing of it can be on
//! its way any more; the process is told so when it asks ([decision 15](../../../docs/decisions/0015-janitor.md)).
//! Ages are counted by a clock that goes on while the machine sleeps, and noted in the row, so that the next leader
//! goes on from there.

use std::collections::BTreeMap;

use roost_backend::store::{NodeRow, NodeState, Table};
use roost_proto::Sid;

/// So much a change of the lead costs at most; a note is one small write for each row.
const NOTE_EVERY_S: u64 = 3600;
/// Rows noted or removed with one table: a hundred of them within a few seconds.
const AT_ONCE: usize = 8;

#[derive(Debug)]
pub(super) struct Graves {
    /// 0: nobody is forgotten.
    forget_after_s: u64,
    graves: BTreeMap<Sid, Grave>,
}

#[derive(Debug)]
struct Grave {
    /// What the row said when this leader saw it first, and when that was.
    before_s: u64,
    since_ms: u64,
    /// What it says now.
    noted_s: u64,
    asked: bool,
}

fn is_gone(row: &NodeRow) -> bool {
    row.state == NodeState::Revoked
}

impl Graves {
    pub(super) fn new(forget_after_s: u64) -> Self {
        Self { forget_after_s, graves: BTreeMap::new() }
    }

    pub(super) fn clear(&mut self) {
        self.graves.clear();
    }

    pub(super) fn observe(&mut self, table: &Table, boot_ms: u64) {
        if self.forget_after_s == 0 {
            return;
        }
        let still =
            |sid: &Sid| table.nodes.get(&sid.node()).is_some_and(|row| is_gone(row) && row.sid == *sid);
        self.graves.retain(|sid, _| still(sid));
        for row in table.nodes.values().filter(|row| is_gone(row)) {
            let noted_s = row.gone.for_s;
            let grave = self.graves.entry(row.sid.clone()).or_insert(Grave {
                before_s: noted_s,
                since_ms: boot_ms,
                noted_s,
                asked: false,
            });
            grave.noted_s = noted_s;
        }
    }

    /// What is to be noted of whom, or `None` for a row that goes.
    pub(super) fn due(&mut self, boot_ms: u64) -> Vec<(Sid, Option<u64>)> {
        let forget_after_s = self.forget_after_s;
        let due = |(sid, grave): (&Sid, &mut Grave)| {
            let gone_s = grave.before_s + boot_ms.saturating_sub(grave.since_ms) / 1000;
            let over = gone_s >= forget_after_s;
            let due = !grave.asked && (over || gone_s >= grave.noted_s + NOTE_EVERY_S);
            due.then(|| {
                grave.asked = true;
                (sid.clone(), (!over).then_some(gone_s))
            })
        };
        self.graves.iter_mut().filter_map(due).take(AT_ONCE).collect()
    }

    /// Whatever came of it is in the next table.
    pub(super) fn answered(&mut self, sid: &Sid) {
        if let Some(grave) = self.graves.get_mut(sid) {
            grave.asked = false;
        }
    }
}
