//! One table, and what is worked out from it once instead of at every question.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use roost_backend::store::Table;
use roost_proto::{Epoch, NodeId, Sid, UserId, VnodeId};
use serde::Serialize;
use tokio::time::Instant;

use super::admission::Admission;

/// The table as of one read.
#[derive(Debug)]
pub struct Snapshot {
    pub table: Arc<Table>,
    /// When the read was begun: what it says was true then or later.
    pub asked_at: Instant,
    /// The ready home of each vnode.
    homes: Vec<Option<Arc<Home>>>,
    /// The highest epoch seen of each vnode under this data set.
    epochs: Vec<Epoch>,
    ready: usize,
    admission: Admission,
    /// The bodies of `/ring` and `/nodes`, once someone has asked.
    pub(crate) ring_body: OnceLock<Bytes>,
    pub(crate) nodes_body: OnceLock<Bytes>,
}

/// Where a vnode is at home and ready.
#[derive(Debug, PartialEq, Eq)]
pub struct Home {
    pub node: NodeId,
    pub epoch: Epoch,
    sid: Sid,
    url: String,
    /// The answer to `/route` between the user's id and the delay, from `,"vnode"` on.
    pub(crate) route_rest: String,
}

#[derive(Serialize)]
struct RouteRest<'a> {
    vnode: VnodeId,
    node: &'a NodeId,
    url: &'a str,
    epoch: Epoch,
}

impl Home {
    fn new(vnode: VnodeId, epoch: Epoch, sid: Sid, url: &str) -> Self {
        let node = sid.node();
        let rest = serde_json::to_string(&RouteRest { vnode, node: &node, url, epoch });
        let rest = rest.expect("plain fields always encode");
        let route_rest = format!(",{},\"connect_after_ms\":", &rest[1..rest.len() - 1]);
        Self { node, epoch, sid, url: url.to_owned(), route_rest }
    }

    fn is(&self, epoch: Epoch, sid: &Sid, url: &str) -> bool {
        self.epoch == epoch && self.sid == *sid && self.url == url
    }
}

impl Snapshot {
    /// What `table` says, after `previous`: an epoch only grows, except under a new data set (core rule 20).
    pub(crate) fn new(mut table: Table, vnodes: u32, asked_at: Instant, previous: Option<&Self>) -> Self {
        let previous = previous.filter(|previous| previous.table.data_set == table.data_set);
        let all = || (0..vnodes).filter_map(|v| u16::try_from(v).ok()).map(VnodeId);
        let mut epochs = previous.map_or_else(|| vec![Epoch(0); vnodes as usize], |p| p.epochs.clone());
        for (vnode, seen) in all().zip(&mut epochs) {
            let Some(row) = table.rows.get(&vnode) else { continue };
            if row.epoch >= *seen {
                *seen = row.epoch;
                continue;
            }
            match previous.and_then(|previous| previous.table.rows.get(&vnode)) {
                Some(newer) => drop(table.rows.insert(vnode, newer.clone())),
                None => drop(table.rows.remove(&vnode)),
            }
        }
        let homes: Vec<_> = all().map(|vnode| home(&table, vnode, previous)).collect();
        let ready = homes.iter().flatten().count();
        let elapsed = previous.map_or(0, |p| asked_at.duration_since(p.asked_at).as_millis() as u64);
        let admission = previous.map_or(&Admission::default(), |p| &p.admission).next(&table, elapsed);
        let (ring_body, nodes_body) = (OnceLock::new(), OnceLock::new());
        Self { table: Arc::new(table), asked_at, homes, epochs, ready, admission, ring_body, nodes_body }
    }

    /// The home of `vnode` while it is ready.
    pub fn home(&self, vnode: VnodeId) -> Option<&Home> {
        self.homes.get(vnode.index())?.as_deref()
    }

    /// How long `user` should wait before it connects to its home.
    pub fn delay_ms(&self, home: &Home, user: &UserId) -> u64 {
        self.admission.delay_ms(&home.node, user)
    }

    /// The longest of these delays, in milliseconds.
    pub fn longest_delay_ms(&self) -> u64 {
        self.admission.longest_ms()
    }

    /// How long ago its read was begun.
    pub fn age(&self) -> Duration {
        self.asked_at.elapsed()
    }

    pub fn ready_vnodes(&self) -> usize {
        self.ready
    }

    pub fn living_nodes(&self) -> usize {
        self.table.living().count()
    }
}

/// Ready, and of a life that is not known to be over; kept from the last time if nothing changed, which is nearly
/// always so.
fn home(table: &Table, vnode: VnodeId, previous: Option<&Snapshot>) -> Option<Arc<Home>> {
    let row = table.rows.get(&vnode).filter(|row| row.ready)?;
    let node = table.living_node(&row.node()).filter(|node| node.sid == row.sid)?;
    let before = previous.and_then(|previous| previous.homes.get(vnode.index())?.as_ref());
    match before.filter(|before| before.is(row.epoch, &row.sid, &node.url)) {
        Some(same) => Some(Arc::clone(same)),
        None => Some(Arc::new(Home::new(vnode, row.epoch, row.sid.clone(), &node.url))),
    }
}

#[cfg(test)]
mod tests {
    use roost_backend::store::{DataSet, Load, NodeRow, NodeState, Row};

    use super::*;

    fn sid(born: u64) -> Sid {
        Sid::new(&NodeId::new("ws-1").unwrap(), born, 1)
    }

    fn table(data_set: &str, rows: &[(u16, u64, u64, bool)]) -> Table {
        let node = NodeRow {
            sid: sid(2),
            url: "ws://h/\"socket".into(),
            admin: String::new(),
            state: NodeState::Up,
            beat: 1,
            weight: 1,
            pins: "auto".into(),
            load: Load::default(),
            gone: Default::default(),
            reads: 0,
        };
        let row = |(v, born, epoch, ready): &(u16, u64, u64, bool)| {
            (VnodeId(*v), Row { sid: sid(*born), epoch: Epoch(*epoch), ready: *ready })
        };
        Table {
            vnodes: 4,
            data_set: DataSet(data_set.into()),
            nodes: [(NodeId::new("ws-1").unwrap(), node)].into(),
            rows: rows.iter().map(row).collect(),
            ..Table::default()
        }
    }

    fn snapshot(table: Table, previous: Option<&Snapshot>) -> Snapshot {
        Snapshot::new(table, 4, Instant::now(), previous)
    }

    fn epochs(snapshot: &Snapshot) -> Vec<Option<u64>> {
        (0..4).map(|v| snapshot.home(VnodeId(v)).map(|home| home.epoch.0)).collect()
    }

    #[test]
    fn only_ready_rows_of_the_present_life_are_homes() {
        let mut table = table("one", &[(0, 2, 5, true), (1, 2, 6, false), (2, 1, 7, true)]);
        assert_eq!(epochs(&snapshot(table.clone(), None)), [Some(5), None, None, None]);
        table.nodes.values_mut().for_each(|row| row.state = NodeState::Draining);
        assert_eq!(epochs(&snapshot(table.clone(), None)), [Some(5), None, None, None], "it still is home");
        table.nodes.values_mut().for_each(|row| row.state = NodeState::Revoked);
        assert_eq!(epochs(&snapshot(table.clone(), None)), [None; 4]);
        table.nodes.clear();
        assert_eq!(epochs(&snapshot(table, None)), [None; 4]);
    }

    #[test]
    fn an_epoch_only_grows_except_under_a_new_data_set() {
        let first = snapshot(table("one", &[(0, 2, 5, true), (1, 2, 5, true)]), None);
        let second = snapshot(table("one", &[(0, 2, 4, true), (2, 2, 9, true)]), Some(&first));
        assert_eq!(epochs(&second), [Some(5), None, Some(9), None]);
        let third =
            snapshot(table("one", &[(0, 2, 6, true), (1, 2, 4, true), (2, 2, 8, true)]), Some(&second));
        assert_eq!(
            epochs(&third),
            [Some(6), None, Some(9), None],
            "a row that is gone leaves its epoch behind"
        );
        let fourth = snapshot(table("two", &[(0, 2, 1, true), (1, 2, 1, true)]), Some(&third));
        assert_eq!(epochs(&fourth), [Some(1), Some(1), None, None]);
    }

    #[test]
    fn what_did_not_change_is_not_made_again() {
        let first = snapshot(table("one", &[(0, 2, 5, true), (1, 2, 5, true)]), None);
        let mut table = table("one", &[(0, 2, 5, true), (1, 2, 6, true)]);
        let second = snapshot(table.clone(), Some(&first));
        let same = |v: usize, a: &Snapshot, b: &Snapshot| {
            Arc::ptr_eq(a.homes[v].as_ref().unwrap(), b.homes[v].as_ref().unwrap())
        };
        assert!(same(0, &first, &second) && !same(1, &first, &second));
        table.nodes.values_mut().for_each(|row| row.url = "ws://other/socket".into());
        assert!(!same(0, &second, &snapshot(table, Some(&second))), "the url is part of the answer");
    }

    #[test]
    fn the_rest_of_a_route_is_json_from_the_comma_to_the_delay() {
        let snapshot = snapshot(table("one", &[(3, 2, 5, true)]), None);
        let text = format!("{{\"user_id\":\"x\"{}0}}", snapshot.home(VnodeId(3)).unwrap().route_rest);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "user_id": "x", "vnode": 3, "node": "ws-1", "url": "ws://h/\"socket", "epoch": 5, "connect_after_ms": 0
        });
        assert_eq!(json, expected);
    }
}
