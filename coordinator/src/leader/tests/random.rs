//! Anything may happen, in any order; then it is quiet, and everything must be right.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::cluster::*;

const SEEDS: u64 = 30;
const FAULTS: usize = 25;

/// P7, and that every vnode has a home: provoked by random deaths, freezes, drains, newcomers, outages, losses of
/// data and changes of leader.
#[test]
fn after_any_schedule_of_faults_everything_is_assigned_evenly_and_then_left_alone() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut cluster = Cluster::new(64, 2);
        for i in 0..rng.random_range(1..=4) {
            cluster.add_node(&format!("ws-{i}"), "auto");
        }
        for fault in 0..FAULTS {
            provoke(&mut cluster, &mut rng, fault);
            cluster.run(rng.random_range(0..6_000));
        }
        calm(&mut cluster);
        cluster.run_until(60_000, &format!("seed {seed}: everything even"), Cluster::settled);
        cluster.run(2 * TTL);
        let (assigns, version) = (cluster.assigns, cluster.table().assignment.version);
        cluster.run(30_000);
        assert!(cluster.settled(), "seed {seed}");
        assert_eq!((cluster.assigns, cluster.table().assignment.version), (assigns, version), "seed {seed}");
        assert_eq!(cluster.leading().len(), 1, "seed {seed}");
    }
}

fn provoke(cluster: &mut Cluster, rng: &mut StdRng, fault: usize) {
    let node = rng.random_range(0..cluster.nodes.len());
    match rng.random_range(0..15) {
        0 => cluster.nodes[node].is = NodeIs::Dead,
        1 => cluster.nodes[node].is = NodeIs::Gone,
        2 | 3 => cluster.nodes[node].is = NodeIs::Frozen,
        4 if cluster.nodes[node].is == NodeIs::Frozen => cluster.nodes[node].is = NodeIs::Alive,
        4 | 5 => cluster.restart_node(node),
        6 => cluster.nodes[node].draining = true,
        7 if cluster.nodes.len() < 7 => drop(cluster.add_node(&format!("new-{fault}"), "auto")),
        8 => cluster.store = StoreIs::Down,
        9 => cluster.store = StoreIs::ReadOnly,
        10 | 11 => cluster.store = StoreIs::Up,
        12 => cluster.coordinators[rng.random_range(0..2)].frozen ^= true,
        13 if fault.is_multiple_of(5) => cluster.wipe(&format!("data-{fault}"), TTL),
        14 if fault.is_multiple_of(5) => cluster.restart_store(&format!("snapshot-{fault}"), TTL),
        _ => cluster.nodes[node].wrong_admin ^= true,
    }
}

/// Everything that was broken is whole again, or gone for good.
fn calm(cluster: &mut Cluster) {
    cluster.store = StoreIs::Up;
    for coordinator in &mut cluster.coordinators {
        coordinator.frozen = false;
    }
    for node in 0..cluster.nodes.len() {
        match cluster.nodes[node].is {
            _ if cluster.nodes[node].draining => cluster.deregister(node),
            NodeIs::Frozen => cluster.nodes[node].is = NodeIs::Alive,
            NodeIs::Alive | NodeIs::Dead | NodeIs::Gone => {}
        }
    }
    if cluster.nodes.iter().all(|node| node.is != NodeIs::Alive) {
        cluster.restart_node(0);
    }
}
