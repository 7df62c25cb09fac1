//! How long the planner takes for 1,000 nodes and 16,384 vnodes, and how even the result is.
//!
//! `cargo run --release -p roost-ring --example plan_time`

use std::collections::HashMap;
use std::time::{Duration, Instant};

use roost_proto::NodeId;
use roost_ring::{Move, PlanInput, PlanNode, plan};

/// Runs per figure; the median and the slowest are printed.
const RUNS: usize = 51;

fn main() {
    for (nodes, vnodes) in [(10, 1024), (100, 16_384), (1000, 16_384)] {
        let mut cluster: Vec<_> = (0..nodes).map(node).collect();
        let mut owners = vec![None; vnodes];
        let moves = measure("from empty", &owners, &cluster, usize::MAX);
        apply(&mut owners, &moves);
        print_skew(&owners, nodes);
        measure("nothing changed", &owners, &cluster, usize::MAX);
        cluster.push(node(nodes));
        measure("one node added, 8 in flight", &owners, &cluster, 8);
        let moves = measure("one node added, unbounded", &owners, &cluster, usize::MAX);
        apply(&mut owners, &moves);
        print_skew(&owners, nodes + 1);
    }
}

fn node(i: usize) -> PlanNode {
    let id = NodeId::new(format!("ws-{i}")).expect("letters, a dash and digits make a node id");
    PlanNode { id, weight: 1, pins: vec![], in_flight: 0 }
}

fn measure(what: &str, owners: &[Option<NodeId>], nodes: &[PlanNode], in_flight_max: usize) -> Vec<Move> {
    let input = PlanInput { owners, nodes, in_flight_max };
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(plan(&input));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let moves = plan(&input);
    println!(
        "{:>5} nodes x {:>5} vnodes, {what:<28} {:>6} moves  median {:>9.1?}  slowest {:>9.1?}",
        nodes.len(),
        owners.len(),
        moves.len(),
        times[RUNS / 2],
        times[RUNS - 1],
    );
    moves
}

fn apply(owners: &mut [Option<NodeId>], moves: &[Move]) {
    for m in moves {
        owners[m.vnode.index()] = Some(m.to.clone());
    }
}

/// Whole vnodes cannot be cut: the least possible max/mean is ceil(V/N) / (V/N).
fn print_skew(owners: &[Option<NodeId>], nodes: usize) {
    let mut counts: HashMap<&NodeId, usize> = HashMap::new();
    for owner in owners.iter().flatten() {
        *counts.entry(owner).or_default() += 1;
    }
    let mean = owners.len() as f64 / nodes as f64;
    let max = counts.values().copied().max().unwrap_or(0);
    println!(
        "{nodes:>5} nodes x {:>5} vnodes, skew max/mean {:.4} (least possible {:.4})",
        owners.len(),
        max as f64 / mean,
        owners.len().div_ceil(nodes) as f64 / mean,
    );
}
