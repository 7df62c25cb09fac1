//! `/ring` and `/nodes`: the table as people and the console read it. Made once per snapshot.

use std::collections::BTreeMap;

use bytes::Bytes;
use roost_backend::store::{DataSet, Gone, Load, NodeState};
use roost_proto::{Epoch, NodeId, Sid, VnodeId};
use serde::Serialize;
use warp::http::header::{AGE, HeaderValue};
use warp::reply::Response;

use super::json_bytes;
use crate::view::Snapshot;

/// How users and rooms are placed on the ring ([`roost_ring::vnode`]).
const HASH: &str = "xxh3_64";

#[derive(Serialize)]
struct Ring<'a> {
    vnodes: u32,
    hash: &'static str,
    data_set: &'a DataSet,
    settling: bool,
    leader: Option<&'a str>,
    assignment: AssignmentSummary,
    /// vnode, node, epoch, ready.
    rows: Vec<(VnodeId, NodeId, Epoch, bool)>,
    /// vnode, target: those that are not held by the node they are assigned to.
    moving: Vec<(VnodeId, &'a NodeId)>,
}

#[derive(Serialize)]
struct AssignmentSummary {
    version: u64,
    targets: usize,
}

pub(super) fn ring(snapshot: &Snapshot) -> Response {
    let body = snapshot.ring_body.get_or_init(|| {
        let table = &snapshot.table;
        let targets = &table.assignment.targets;
        let elsewhere = |vnode: &VnodeId, target: &NodeId| {
            table.rows.get(vnode).is_none_or(|row| row.node() != *target || table.ended(&row.sid))
        };
        encoded(&Ring {
            vnodes: table.vnodes,
            hash: HASH,
            data_set: &table.data_set,
            settling: table.settling,
            leader: table.leader.as_ref().map(|leader| leader.token.as_str()),
            assignment: AssignmentSummary { version: table.assignment.version, targets: targets.len() },
            rows: table.rows.iter().map(|(v, row)| (*v, row.node(), row.epoch, row.ready)).collect(),
            moving: targets.iter().filter(|(v, to)| elsewhere(v, to)).map(|(v, to)| (*v, to)).collect(),
        })
    });
    with_age(body, snapshot)
}

#[derive(Serialize)]
struct Nodes<'a> {
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a NodeId,
    sid: &'a Sid,
    url: &'a str,
    state: NodeState,
    weight: u32,
    pins: &'a str,
    beat: u64,
    load: Load,
    vnodes: Vnodes,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
}

/// Vnodes of one node: assigned to it, held by its present life, and ready.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Vnodes {
    assigned: usize,
    owned: usize,
    ready: usize,
}

pub(super) fn nodes(snapshot: &Snapshot) -> Response {
    let body = snapshot.nodes_body.get_or_init(|| {
        let table = &snapshot.table;
        let mut counts: BTreeMap<NodeId, Vnodes> = BTreeMap::new();
        for target in table.assignment.targets.values() {
            counts.entry(target.clone()).or_default().assigned += 1;
        }
        for row in table.rows.values().filter(|row| !table.ended(&row.sid)) {
            let count = counts.entry(row.node()).or_default();
            count.owned += 1;
            count.ready += usize::from(row.ready);
        }
        let nodes = table.nodes.iter().map(|(node, row)| Node {
            node,
            sid: &row.sid,
            url: &row.url,
            state: row.state,
            weight: row.weight,
            pins: &row.pins,
            beat: row.beat,
            load: row.load,
            vnodes: counts.get(node).copied().unwrap_or_default(),
            gone: (row.state == NodeState::Revoked).then_some(row.gone),
        });
        encoded(&Nodes { nodes: nodes.collect() })
    });
    with_age(body, snapshot)
}

fn encoded(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("plain fields with text keys always encode").into()
}

/// Says how old the table is, in whole seconds (RFC 9111 §5.1).
fn with_age(body: &Bytes, snapshot: &Snapshot) -> Response {
    let mut response = json_bytes(body.clone());
    response.headers_mut().insert(AGE, HeaderValue::from(snapshot.age().as_secs()));
    response
}
