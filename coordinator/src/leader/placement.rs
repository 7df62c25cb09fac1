//! From a table to the targets to be written next: what [`roost_ring::plan`] has to know, read off the table.
//!
//! Pure. Balance, pins and pace are the planner's; here is only who counts as alive, as owner, and as busy.

use std::collections::BTreeMap;

use roost_backend::store::{NodeState, Table};
use roost_proto::{NodeId, VnodeId};
use roost_ring::{PlanInput, PlanNode, plan};

/// What is to be written, and what was noticed on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Ascending by vnode.
    pub targets: Vec<(VnodeId, NodeId)>,
    /// How many of them are moves; the others write down an owner that the assignment does not name.
    pub moves: usize,
    /// No vnode is assigned to or held by a living node, though there are some: the cluster is starting.
    pub nobody_owns: bool,
    /// Vnodes that more than one node of weight pins.
    pub pins_overlapping: usize,
}

/// Decides what to assign, as of `table`; nothing if it is as it should be.
///
/// Alive is who is registered and not revoked; one that drains counts with a weight of 0. A vnode's owner is its
/// target if that is up (or drains and has it still); else the living sid that holds its row, which is then also
/// written down as its target: nodes that started on their pins without any coordinator, or whose assignment was
/// lost, keep what they have. A vnode that is not held and ready where it should be is in flight, for its holder as
/// well as for its target.
pub fn decide<'a>(table: &Table, pins: impl Fn(&NodeId) -> &'a [VnodeId], in_flight_max: usize) -> Decision {
    let mut nodes: BTreeMap<&NodeId, PlanNode> = table
        .living()
        .map(|(id, row)| {
            let weight = if row.state == NodeState::Up { row.weight } else { 0 };
            (id, PlanNode { id: id.clone(), weight, pins: pins(id).to_vec(), in_flight: 0 })
        })
        .collect();
    let mut decision = Decision { pins_overlapping: overlapping(nodes.values()), ..Decision::default() };
    let mut owners = Vec::with_capacity(table.vnodes as usize);
    for vnode in (0..table.vnodes).filter_map(|v| u16::try_from(v).ok()).map(VnodeId) {
        let holder = living_holder(table, vnode);
        let target = table.assignment.targets.get(&vnode);
        // One that drains claims nothing any more: what it does not hold, nobody will.
        let has_it = |target: &NodeId| holder.as_ref().is_some_and(|(holder, _)| holder == target);
        let takes = |target: &NodeId| nodes.get(target).is_some_and(|node| node.weight > 0 || has_it(target));
        let living_target = target.filter(|target| takes(target));
        if let (None, Some((holder, _))) = (living_target, &holder) {
            decision.targets.push((vnode, holder.clone()));
        }
        let owner = living_target.or(holder.as_ref().map(|(holder, _)| holder));
        for busy in in_flight(owner, holder.as_ref()) {
            if let Some(node) = nodes.get_mut(busy) {
                node.in_flight += 1;
            }
        }
        owners.push(owner.cloned());
    }
    decision.nobody_owns =
        !nodes.is_empty() && !owners.iter().flatten().any(|owner| nodes.contains_key(owner));
    let nodes: Vec<PlanNode> = nodes.into_values().collect();
    let moves = plan(&PlanInput { owners: &owners, nodes: &nodes, in_flight_max });
    decision.moves = moves.len();
    // A move goes before the owner it moves away from.
    let mut targets: BTreeMap<VnodeId, NodeId> = decision.targets.into_iter().collect();
    targets.extend(moves.into_iter().map(|m| (m.vnode, m.to)));
    decision.targets = targets.into_iter().collect();
    decision
}

/// The node whose present sid holds the row, and whether it is ready there.
fn living_holder(table: &Table, vnode: VnodeId) -> Option<(NodeId, bool)> {
    let row = table.rows.get(&vnode)?;
    let node = row.sid.node();
    table.living_node(&node).is_some_and(|known| known.sid == row.sid).then_some((node, row.ready))
}

/// Who is busy with a vnode: none, one or both of its owner and its holder.
fn in_flight<'a>(
    owner: Option<&'a NodeId>,
    holder: Option<&'a (NodeId, bool)>,
) -> impl Iterator<Item = &'a NodeId> + use<'a> {
    let (taker, giver) = match (owner, holder) {
        (Some(owner), Some((holder, ready))) if owner == holder => ((!ready).then_some(owner), None),
        (owner, holder) => (owner, holder.map(|(holder, _)| holder)),
    };
    taker.into_iter().chain(giver)
}

fn overlapping<'a>(nodes: impl Iterator<Item = &'a PlanNode>) -> usize {
    let mut times: BTreeMap<VnodeId, usize> = BTreeMap::new();
    for pin in nodes.filter(|node| node.weight > 0).flat_map(|node| &node.pins) {
        *times.entry(*pin).or_default() += 1;
    }
    times.values().filter(|times| **times > 1).count()
}
