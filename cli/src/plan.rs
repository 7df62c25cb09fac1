//! `roost plan`: what would move if nodes came or went. Asks, works it out, changes nothing.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use roost_proto::{NodeId, VnodeId};
use roost_ring::{Move, Pins, PlanInput, PlanNode, plan};
use serde_json::Value;

use crate::ask::Coordinator;
use crate::out::say;

/// A handover of one vnode, measured: stop, empty, release, claim, ready. Milliseconds.
const HANDOVER_MS: u64 = 120;
/// Handovers that one node takes part in at a time, unless `MOVES_IN_FLIGHT_MAX` says otherwise.
const IN_FLIGHT: u64 = 8;
/// Of the vnodes that move: of an even spread every third may.
const RANGES_SHOWN: usize = 12;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// As if this node had come, with a weight if it is not 1: ws-4 or ws-4:2; may be given several times
    #[arg(long, value_name = "NODE[:WEIGHT]")]
    with: Vec<String>,
    /// As if this node were drained; may be given several times
    #[arg(long, value_name = "NODE")]
    without: Vec<NodeId>,
    #[command(flatten)]
    coordinator: Coordinator,
}

/// The cluster as it is, or would be.
#[derive(Debug)]
struct Cluster {
    owners: Vec<Option<NodeId>>,
    nodes: Vec<PlanNode>,
    sessions: BTreeMap<NodeId, u64>,
    accepts: BTreeMap<NodeId, u64>,
}

impl Cluster {
    fn read(ring: &Value, nodes: &Value, vnodes: u32) -> anyhow::Result<Self> {
        let mut cluster = Self {
            owners: vec![None; vnodes as usize],
            nodes: Vec::new(),
            sessions: BTreeMap::new(),
            accepts: BTreeMap::new(),
        };
        for row in nodes["nodes"].as_array().into_iter().flatten() {
            let id = NodeId::new(row["node"].as_str().context("a node has no name")?)?;
            if row["state"] == "revoked" {
                continue;
            }
            let weight = if row["state"] == "up" { row["weight"].as_u64().unwrap_or(1) } else { 0 };
            let pins = Pins::parse(row["pins"].as_str().unwrap_or("auto"), vnodes)?.vnodes().to_vec();
            cluster.nodes.push(PlanNode {
                id: id.clone(),
                weight: u32::try_from(weight)?,
                pins,
                in_flight: 0,
            });
            cluster.sessions.insert(id.clone(), row["load"]["sessions"].as_u64().unwrap_or(0));
            cluster.accepts.insert(id, row["load"]["accepts_per_s"].as_u64().unwrap_or(0));
        }
        // Where a vnode is on its way to counts, as for the planner.
        let held = ring["rows"].as_array().into_iter().flatten().map(|row| (&row[0], &row[1]));
        let moving = ring["moving"].as_array().into_iter().flatten().map(|row| (&row[0], &row[1]));
        for (vnode, node) in held.chain(moving) {
            let place = vnode.as_u64().and_then(|v| cluster.owners.get_mut(v as usize));
            *place.context("a vnode that the ring has not")? =
                node.as_str().and_then(|n| NodeId::new(n).ok());
        }
        Ok(cluster)
    }

    fn change(&mut self, args: &Args) -> anyhow::Result<()> {
        for text in &args.with {
            let (name, weight) = text.split_once(':').unwrap_or((text, "1"));
            let (id, weight) =
                (NodeId::new(name)?, weight.parse().with_context(|| format!("{text}: the weight"))?);
            if self.nodes.iter().any(|node| node.id == id && node.weight > 0) {
                bail!("{id} is there already");
            }
            self.nodes.retain(|node| node.id != id);
            self.nodes.push(PlanNode { id, weight, pins: Vec::new(), in_flight: 0 });
        }
        for id in &args.without {
            let node = self.nodes.iter_mut().find(|node| node.id == *id);
            node.with_context(|| format!("there is no {id}"))?.weight = 0;
        }
        Ok(())
    }

    fn shares(&self) -> BTreeMap<NodeId, u64> {
        let mut shares: BTreeMap<NodeId, u64> = self.nodes.iter().map(|n| (n.id.clone(), 0)).collect();
        for owner in self.owners.iter().flatten() {
            *shares.entry(owner.clone()).or_default() += 1;
        }
        shares
    }

    /// Carries out all moves there are.
    fn settle(&mut self) -> Vec<Move> {
        let in_flight_max = self.owners.len();
        let moves = plan(&PlanInput { owners: &self.owners, nodes: &self.nodes, in_flight_max });
        for step in &moves {
            self.owners[step.vnode.index()] = Some(step.to.clone());
        }
        moves
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (ring, nodes, vnodes) = args.coordinator.tables().await?;
    let mut cluster = Cluster::read(&ring, &nodes, vnodes)?;
    cluster.change(&args)?;
    let before = cluster.shares();
    let moves = cluster.settle();
    let after = cluster.shares();
    say!("{:<24} {:>8} {:>8} {:>8} {:>8} {:>10}", "node", "has", "gives", "takes", "will have", "sessions");
    for (node, had) in &before {
        let gives = moves.iter().filter(|m| m.from.as_ref() == Some(node)).count();
        let takes = moves.iter().filter(|m| m.to == *node).count();
        let sessions = cluster.sessions.get(node).copied().unwrap_or(0);
        let node_name = node.as_str();
        say!("{node_name:<24} {had:>8} {gives:>8} {takes:>8} {:>9} {sessions:>10}", after[node]);
    }
    if moves.is_empty() {
        say!("\nnothing moves: everything is where it should be");
        return Ok(());
    }
    let (sessions, ms) = cost(&cluster, &before, &moves);
    say!(
        "\n{} of {vnodes} vnodes move, with about {sessions} sessions, in about {:.1} s",
        moves.len(),
        ms as f64 / 1000.0
    );
    say!("vnodes {}", listed(&moves));
    Ok(())
}

/// Sessions that go with the moves, and how long it takes at least: the busiest node's handovers, or the newcomers
/// of the node that takes most, whichever is longer.
fn cost(cluster: &Cluster, before: &BTreeMap<NodeId, u64>, moves: &[Move]) -> (u64, u64) {
    let mut part: BTreeMap<&NodeId, u64> = BTreeMap::new();
    let mut coming: BTreeMap<(&NodeId, &NodeId), f64> = BTreeMap::new();
    for step in moves {
        *part.entry(&step.to).or_default() += 1;
        if let Some(from) = &step.from {
            *part.entry(from).or_default() += 1;
            let (had, sessions) =
                (before[from].max(1) as f64, cluster.sessions.get(from).copied().unwrap_or(0));
            *coming.entry((from, &step.to)).or_default() += sessions as f64 / had;
        }
    }
    let handovers = part.values().max().copied().unwrap_or(0).div_ceil(IN_FLIGHT) * HANDOVER_MS;
    let takes = |node: &NodeId| cluster.accepts.get(node).copied().filter(|n| *n > 0).unwrap_or(1000) as f64;
    // Of what a node takes each of the others may send its part.
    let senders = cluster.nodes.len().saturating_sub(1).max(1) as f64;
    let slowest = coming.iter().map(|((_, to), n)| n * 1000.0 * senders / takes(to)).fold(0.0, f64::max);
    (coming.values().sum::<f64>().round() as u64, handovers.max(slowest as u64))
}

/// As ranges, as `ASSIGNED_VNODES` has them; the first of them.
fn listed(moves: &[Move]) -> String {
    let mut vnodes: Vec<VnodeId> = moves.iter().map(|m| m.vnode).collect();
    vnodes.sort_unstable();
    let mut text = String::new();
    let (mut rest, mut ranges) = (vnodes.as_slice(), 0);
    while let Some(first) = rest.first() {
        if ranges == RANGES_SHOWN {
            return text + &format!(" and {} more", rest.len());
        }
        ranges += 1;
        let run = rest.iter().zip(first.0..).take_while(|(v, n)| v.0 == *n).count();
        let comma = if text.is_empty() { "" } else { "," };
        text += &match run {
            1 => format!("{comma}{first}"),
            _ => format!("{comma}{first}-{}", rest[run - 1]),
        };
        rest = &rest[run..];
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn three_nodes() -> Cluster {
        let names = ["ws-1", "ws-2", "ws-3"];
        let nodes: Vec<_> = names
            .iter()
            .map(|name| {
                json!({"node": name, "state": "up", "weight": 1, "pins": "auto",
                       "load": {"sessions": 300, "accepts_per_s": 100}})
            })
            .collect();
        let rows: Vec<_> = (0..12).map(|v| json!([v, names[v / 4], 7, true])).collect();
        Cluster::read(&json!({"rows": rows, "moving": []}), &json!({"nodes": nodes}), 12).unwrap()
    }

    #[test]
    fn a_fourth_node_takes_a_quarter_and_nothing_else_moves() {
        let mut cluster = three_nodes();
        cluster.nodes.push(PlanNode {
            id: NodeId::new("ws-4").unwrap(),
            weight: 1,
            pins: vec![],
            in_flight: 0,
        });
        let before = cluster.shares();
        let moves = cluster.settle();
        assert_eq!((moves.len(), cluster.shares().values().max()), (3, Some(&3)));
        assert!(moves.iter().all(|m| m.to.as_str() == "ws-4"));
        assert_eq!(cost(&cluster, &before, &moves).0, 225);
        assert!(cluster.settle().is_empty());
    }

    #[test]
    fn what_a_leaving_node_has_goes_to_the_others_as_fast_as_they_take_it() {
        let mut cluster = three_nodes();
        cluster.nodes[0].weight = 0;
        let before = cluster.shares();
        let moves = cluster.settle();
        assert_eq!(listed(&moves), "0-3");
        assert_eq!(
            cost(&cluster, &before, &moves),
            (300, 3000),
            "150 to each of two, which take 50 a second from one"
        );
    }

    #[test]
    fn vnodes_are_listed_as_ranges() {
        let to = NodeId::new("a").unwrap();
        let moves: Vec<_> =
            [9, 1, 2, 3, 5, 6].map(|v| Move { vnode: VnodeId(v), from: None, to: to.clone() }).into();
        assert_eq!(listed(&moves), "1-3,5-6,9");
    }
}
