//! When clients should come: after a node died all of its users ask at once where their new home is.
//!
//! What is missing is worked out from the table alone: each vnode had some sessions a moment ago, and its home has
//! fewer now. Every coordinator finds the same, none of them counts requests (whoever asks a thousand times delays
//! nobody), and the delay goes by itself as the sessions come.

use std::collections::BTreeMap;

use roost_backend::store::Table;
use roost_proto::{NodeId, UserId, VnodeId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Sessions that have not come back are forgotten by half in this time, in milliseconds: most clients are back
/// within a few seconds, and who is not is probably gone.
const HALF_LIFE_MS: f64 = 10_000.0;
/// The longest delay; the time-outs of clients are about as long. In milliseconds.
const DELAY_MS_MAX: f64 = 15_000.0;
/// What a node takes in this time comes at once: below it a delay only costs. In milliseconds.
const BURST_MS: f64 = 250.0;
/// For a node that does not say how many it takes.
const ACCEPTS_PER_S: u64 = 500;

/// What is expected of each vnode, and the delay of each node that follows from it.
#[derive(Debug, Default, Clone)]
pub(super) struct Admission {
    /// Sessions of each vnode, as far as those of its nodes tell.
    expected: Vec<f64>,
    /// Over which the newcomers of a node are spread, in milliseconds.
    spread: BTreeMap<NodeId, f64>,
}

impl Admission {
    /// After another read of the table, `elapsed_ms` later.
    pub(super) fn next(&self, table: &Table, elapsed_ms: u64) -> Self {
        let mut vnodes: BTreeMap<NodeId, Vec<VnodeId>> = BTreeMap::new();
        for (vnode, row) in table.rows.iter().filter(|(_, row)| !table.ended(&row.sid)) {
            vnodes.entry(row.node()).or_default().push(*vnode);
        }
        let mut expected = self.expected.clone();
        expected.resize(table.vnodes as usize, 0.0);
        let keep = 0.5_f64.powf(elapsed_ms as f64 / HALF_LIFE_MS);
        let mut spread = BTreeMap::new();
        for (node, owned) in vnodes {
            let Some(row) = table.living_node(&node) else {
                continue;
            };
            let here = row.load.at_home as f64;
            let all: f64 = owned.iter().filter_map(|vnode| expected.get(vnode.index())).sum();
            let missing = (all - here).max(0.0) * keep;
            // Those who are more than expected may be in any of its vnodes; those still to come are forgotten in all
            // of them alike. So what is expected of all together is never more than who is here and who is missing.
            let (part, more) = if all > here {
                ((here + missing) / all, 0.0)
            } else {
                (1.0, (here - all) / owned.len() as f64)
            };
            for vnode in owned {
                if let Some(had) = expected.get_mut(vnode.index()) {
                    *had = *had * part + more;
                }
            }
            let per_s = if row.load.accepts_per_s == 0 { ACCEPTS_PER_S } else { row.load.accepts_per_s };
            let ms = missing * 1000.0 / per_s as f64;
            if ms > BURST_MS {
                spread.insert(node, ms.min(DELAY_MS_MAX));
            }
        }
        Self { expected, spread }
    }

    /// How long `user` should wait before it connects to `node`: each has a turn of its own, the same at every
    /// coordinator, and sooner as the others come in.
    pub(super) fn delay_ms(&self, node: &NodeId, user: &UserId) -> u64 {
        let Some(spread) = self.spread.get(node) else { return 0 };
        // Another seed than the ring's: the users of one node lie together there.
        let turn = xxh3_64_with_seed(user.as_str().as_bytes(), 1) as f64 / u64::MAX as f64;
        (turn * spread) as u64
    }

    /// The longest delay of any node, in milliseconds.
    pub(super) fn longest_ms(&self) -> u64 {
        self.spread.values().fold(0.0, |a: f64, b| a.max(*b)) as u64
    }
}

#[cfg(test)]
mod tests {
    use roost_backend::store::{Load, NodeRow, NodeState, Row};
    use roost_proto::{Epoch, Sid};

    use super::*;

    /// Nodes with their sessions, of 90 vnodes; each has an equal part of those that are not `of_nobody`.
    fn table(sessions: &[(&str, u64)]) -> Table {
        let mut table = Table { vnodes: 90, ..Table::default() };
        for (name, sessions) in sessions {
            let node = NodeId::new(name).unwrap();
            let load = Load { at_home: *sessions, accepts_per_s: 1000, ..Load::default() };
            let row = NodeRow {
                sid: Sid::new(&node, 1, 1),
                url: String::new(),
                admin: String::new(),
                state: NodeState::Up,
                beat: 0,
                weight: 1,
                pins: String::new(),
                load,
                gone: Default::default(),
                reads: 0,
            };
            table.nodes.insert(node, row);
        }
        for vnode in 0..90 {
            let (name, _) = sessions[vnode % sessions.len()];
            let sid = Sid::new(&NodeId::new(name).unwrap(), 1, 1);
            table.rows.insert(VnodeId(vnode as u16), Row { sid, epoch: Epoch(1), ready: true });
        }
        table
    }

    fn delays(admission: &Admission, node: &str) -> Vec<u64> {
        let node = NodeId::new(node).unwrap();
        (0..1000).map(|i| admission.delay_ms(&node, &UserId::new(format!("u{i}")).unwrap())).collect()
    }

    #[test]
    fn nobody_waits_while_nothing_is_missing() {
        let mut admission = Admission::default();
        for sessions in [0, 5_000, 4_900, 30_000] {
            admission = admission.next(&table(&[("a", sessions), ("b", sessions)]), 500);
            assert_eq!((delays(&admission, "a").iter().max(), admission.longest_ms()), (Some(&0), 0));
        }
    }

    #[test]
    fn the_users_of_a_dead_node_come_as_fast_as_the_others_take_them() {
        let before = Admission::default().next(&table(&[("a", 6_000), ("b", 6_000), ("c", 6_000)]), 500);
        let after = before.next(&table(&[("a", 6_000), ("b", 6_000)]), 500);
        let turns = delays(&after, "a");
        let (most, average) = (turns.iter().max().unwrap(), turns.iter().sum::<u64>() / 1000);
        // 3,000 more to each, at 1,000 a second.
        assert!((2_700..=3_000).contains(most) && (1_200..1_700).contains(&average), "{most} {average}");
        let half = after.next(&table(&[("a", 7_500), ("b", 7_500)]), 500);
        assert!((1_200..=1_500).contains(&half.longest_ms()), "{}", half.longest_ms());
        let back = half.next(&table(&[("a", 8_950), ("b", 8_950)]), 500);
        assert_eq!(back.longest_ms(), 0);
    }

    #[test]
    fn newcomers_do_not_wait_when_everybody_is_back_however_uneven_the_vnodes_are() {
        let before = Admission::default().next(&table(&[("a", 100), ("b", 100), ("c", 9_000)]), 500);
        let died = before.next(&table(&[("a", 100), ("b", 100)]), 500);
        assert!((4_000..=4_500).contains(&died.longest_ms()), "{}", died.longest_ms());
        let back = died.next(&table(&[("a", 4_600), ("b", 4_600)]), 500);
        assert_eq!(back.longest_ms(), 0);
    }

    #[test]
    fn all_clients_cut_at_once_come_back_in_turn_and_those_that_stay_away_are_forgotten() {
        let before = Admission::default().next(&table(&[("a", 50_000), ("b", 0)]), 500);
        let mut admission = before.next(&table(&[("a", 0), ("b", 0)]), 500);
        assert_eq!(admission.longest_ms(), 15_000, "a client's patience");
        assert!(delays(&admission, "b").iter().all(|ms| *ms == 0));
        for _ in 0..200 {
            admission = admission.next(&table(&[("a", 0), ("b", 0)]), 500);
        }
        assert_eq!(admission.longest_ms(), 0);
    }
}
