//! Rows of nodes that are gone: they go in their time, and no sooner.

use roost_backend::store::{Gone, NodeState};

use super::cluster::*;
use crate::leader::LeaderConfig;

const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;

/// Two nodes, of which the second died; leaders forget after a day.
fn one_of_two_died(coordinators: usize) -> Cluster {
    let mut cluster = Cluster::new(16, 0);
    for i in 0..coordinators {
        let forget_after_s = DAY_MS / 1000;
        cluster.add_coordinator(LeaderConfig { forget_after_s, ..LeaderConfig::new(format!("c{i}"), TTL) });
    }
    for name in ["ws-1", "ws-2"] {
        cluster.add_node(name, "auto");
    }
    cluster.run_until(10_000, "the start", Cluster::settled);
    cluster.nodes[1].is = NodeIs::Dead;
    cluster.run_until(2 * TTL, "the other has all", Cluster::settled);
    cluster
}

fn gone(cluster: &Cluster) -> Option<Gone> {
    let table = cluster.table();
    let row = table.nodes.get(&node_id("ws-2")).inspect(|row| assert_eq!(row.state, NodeState::Revoked))?;
    Some(row.gone)
}

/// Everybody's machine sleeps, and wakes a moment later for all that the processes notice.
fn sleep(cluster: &mut Cluster, ms: u64) {
    cluster.slept_ms += ms;
    cluster.run(1000);
}

#[test]
fn the_row_of_a_node_goes_when_it_was_gone_for_so_long_also_asleep() {
    let mut cluster = one_of_two_died(1);
    sleep(&mut cluster, DAY_MS - HOUR_MS);
    assert!(gone(&cluster).is_some_and(|gone| gone.for_s >= 23 * 3600 && !gone.left));
    sleep(&mut cluster, HOUR_MS);
    assert_eq!(gone(&cluster), None);
    assert!(cluster.settled(), "the living keep what they have");
}

#[test]
fn the_next_leader_goes_on_from_what_was_noted() {
    let mut cluster = one_of_two_died(2);
    let first = cluster.leading()[0];
    sleep(&mut cluster, 20 * HOUR_MS);
    cluster.coordinators[first].frozen = true;
    cluster.run_until(5 * TTL, "another leads", |c| c.leading().iter().any(|i| *i != first));
    cluster.run(1000);
    sleep(&mut cluster, 3 * HOUR_MS);
    assert!(gone(&cluster).is_some_and(|gone| (23 * 3600..24 * 3600).contains(&gone.for_s)));
    sleep(&mut cluster, HOUR_MS);
    assert_eq!(gone(&cluster), None);
}

#[test]
fn a_name_that_came_back_is_not_forgotten() {
    let mut cluster = one_of_two_died(1);
    sleep(&mut cluster, DAY_MS - HOUR_MS);
    cluster.restart_node(1);
    cluster.run_until(10_000, "two share again", Cluster::settled);
    sleep(&mut cluster, DAY_MS);
    let rows = cluster.table().nodes;
    assert_eq!(rows.len(), 2);
    assert!(rows.values().all(|row| row.state == NodeState::Up && row.gone == Gone::default()));
}

/// What a leader asked for before it was cut off arrives when the name has another life.
#[test]
fn a_removal_that_arrives_late_removes_nobody_else() {
    let mut cluster = one_of_two_died(1);
    cluster.coordinators[0].hold_writes = true;
    sleep(&mut cluster, DAY_MS);
    assert!(!cluster.coordinators[0].held.is_empty(), "it was asked for");
    cluster.restart_node(1);
    cluster.run(1000);
    cluster.let_through(0);
    assert_eq!(cluster.table().nodes[&node_id("ws-2")].sid, cluster.nodes[1].sid);
}

#[test]
fn nobody_is_forgotten_unless_that_is_wanted_nor_while_everything_settles() {
    let mut cluster = one_of_two_died(1);
    cluster.coordinators.clear();
    cluster.add_coordinator(LeaderConfig::new("off", TTL));
    cluster.run_until(5 * TTL, "it leads", |c| !c.leading().is_empty());
    sleep(&mut cluster, 100 * DAY_MS);
    assert!(gone(&cluster).is_some());

    let mut cluster = one_of_two_died(1);
    cluster.restart_store("second", 10 * TTL);
    cluster.run(2 * TTL);
    sleep(&mut cluster, 100 * DAY_MS);
    assert!(gone(&cluster).is_some(), "the table may lack who lives");
}
