//! Who gets what, and how little moves.

use std::collections::BTreeMap;

use roost_backend::store::*;
use roost_proto::{Epoch, NodeId, Sid, VnodeId};

use super::cluster::*;
use crate::leader::{Leader, LeaderAction, LeaderConfig, LeaderEvent, decide};

#[test]
fn a_cluster_that_starts_is_assigned_once_and_evenly() {
    let mut cluster = Cluster::new(64, 2);
    // As with `docker compose up`: coordinators first, the nodes one after the other.
    cluster.run(3_000);
    for name in ["ws-1", "ws-2", "ws-3"] {
        cluster.add_node(name, "auto");
        cluster.run(600);
    }
    cluster.run_until(6_000, "every vnode ready and even", Cluster::settled);
    assert_eq!((cluster.assigns, cluster.moves), (1, 64), "nobody had to give anything back");
    assert_eq!(cluster.refused, 0, "and it was not planned twice");
}

#[test]
fn an_unchanged_cluster_is_left_alone() {
    let mut cluster = Cluster::new(64, 2);
    for name in ["ws-1", "ws-2", "ws-3"] {
        cluster.add_node(name, "auto");
    }
    cluster.run_until(10_000, "the start", Cluster::settled);
    let (before, assigns) = (cluster.table().assignment, cluster.assigns);
    cluster.run(120_000);
    assert_eq!(cluster.assigns, assigns);
    assert_eq!(cluster.table().assignment, before);
}

#[test]
fn a_newcomer_gets_its_share_and_nothing_else_moves() {
    let mut cluster = Cluster::new(64, 1);
    cluster.add_node("ws-1", "auto");
    cluster.run_until(10_000, "one node has all", Cluster::settled);
    let moves = cluster.moves;
    cluster.add_node("ws-2", "auto");
    cluster.run_until(20_000, "two share", Cluster::settled);
    assert_eq!((cluster.moves - moves, cluster.refused), (32, 0));
}

#[test]
fn nothing_is_planned_while_an_assignment_is_on_its_way() {
    let mut cluster = Cluster::new(64, 1);
    cluster.add_node("ws-1", "auto");
    cluster.run_until(10_000, "one node has all", Cluster::settled);
    cluster.coordinators[0].hold_writes = true;
    cluster.add_node("ws-2", "auto");
    cluster.run(5 * BEAT);
    assert_eq!(cluster.coordinators[0].held.len(), 1);
}

#[test]
fn no_node_takes_part_in_more_moves_than_allowed() {
    let mut cluster = Cluster::new(128, 0);
    cluster.add_coordinator(LeaderConfig { in_flight_max: 4, ..LeaderConfig::new("c", TTL) });
    cluster.add_node("ws-1", "auto");
    cluster.add_node("ws-2", "auto");
    cluster.run_until(10_000, "two share", Cluster::settled);
    cluster.add_node("ws-3", "auto");
    let mut seen = 0;
    cluster.run(BEAT);
    while !cluster.settled() {
        let table = cluster.table();
        let mut busy: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (vnode, target) in &table.assignment.targets {
            let row = table.rows.get(vnode);
            let holder = row.map(Row::node).filter(|holder| holder != target);
            if holder.is_some() || row.is_none_or(|row| !row.ready) {
                *busy.entry(target.clone()).or_default() += 1;
                holder.into_iter().for_each(|holder| *busy.entry(holder).or_default() += 1);
            }
        }
        seen = seen.max(busy.values().copied().max().unwrap_or(0));
        assert!(seen <= 4, "{busy:?}");
        assert!(cluster.now < 60_000);
        cluster.step();
    }
    assert_eq!(seen, 4, "and it is as quick as allowed");
}

#[test]
fn a_draining_node_gives_everything_and_gets_nothing() {
    let mut cluster = Cluster::new(64, 1);
    for name in ["ws-1", "ws-2", "ws-3"] {
        cluster.add_node(name, "auto");
    }
    cluster.run_until(10_000, "the start", Cluster::settled);
    cluster.nodes[0].draining = true;
    cluster.run_until(20_000, "the others have all", Cluster::settled);
    assert_eq!(cluster.ready().get(&node_id("ws-1")), None);
    cluster.deregister(0);
    let moves = cluster.moves;
    cluster.run(2 * TTL);
    assert_eq!((cluster.moves, cluster.revocations.len()), (moves, 0));
}

#[test]
fn what_a_draining_node_never_claimed_does_not_wait_for_it() {
    let mut cluster = Cluster::new(64, 1);
    for name in ["ws-1", "ws-2"] {
        cluster.add_node(name, "auto");
    }
    cluster.run_until(10_000, "the first assignment", |c| c.assigns == 1);
    // Stopped before it claimed anything: its 32 vnodes are far more than may be in flight.
    cluster.nodes[0].draining = true;
    cluster.run_until(3 * BEAT, "the other has all", Cluster::settled);
}

#[test]
fn nodes_that_started_on_their_pins_are_not_shuffled_by_the_first_coordinator() {
    let mut cluster = Cluster::new(64, 0);
    cluster.add_node("ws-1", "0-40");
    cluster.add_node("ws-2", "41-63");
    cluster.run(5_000);
    let rows = cluster.table().rows;
    assert_eq!(rows.len(), 64);
    cluster.add_coordinator(LeaderConfig::new("c", TTL));
    cluster.run(10_000);
    assert_eq!(cluster.table().rows, rows);
    assert_eq!((cluster.assigns, cluster.moves), (1, 0), "who has what is written down, once");
    assert_eq!(cluster.table().assignment.targets.len(), 64);
}

#[test]
fn a_pinned_vnode_is_lent_out_while_its_node_is_dead_and_comes_back() {
    let mut cluster = Cluster::new(64, 1);
    cluster.add_node("ws-1", "0-9");
    cluster.add_node("ws-2", "auto");
    cluster.run_until(10_000, "pins and the rest", |c| c.ready().values().sum::<usize>() == 64);
    assert_eq!(cluster.ready()[&node_id("ws-1")], 10);
    cluster.nodes[0].is = NodeIs::Dead;
    cluster.run_until(TTL, "lent out", Cluster::settled);
    cluster.restart_node(0);
    cluster.run_until(10_000, "and back", |c| c.ready().get(&node_id("ws-1")) == Some(&10));
    cluster.run(TTL);
    assert_eq!(cluster.ready()[&node_id("ws-2")], 54);
}

#[test]
fn pins_that_make_no_sense_are_ignored_and_shared_ones_counted() {
    let mut cluster = Cluster::new(64, 1);
    cluster.add_node("ws-1", "0-9999");
    cluster.add_node("ws-2", "what?");
    cluster.run_until(10_000, "shared as if there were no pins", Cluster::settled);
    cluster.add_node("ws-3", "0-7");
    cluster.add_node("ws-4", "4-11");
    cluster.run(10_000);
    let leader = &cluster.coordinators[0].leader;
    assert_eq!(leader.pins_overlapping(), 4);
    assert_eq!(cluster.ready()[&node_id("ws-3")], 8, "the first by name gets them");
    assert_eq!(cluster.ready()[&node_id("ws-4")], 4);
}

#[test]
fn a_node_that_restarts_at_once_keeps_its_vnodes() {
    let mut cluster = Cluster::new(64, 1);
    for name in ["ws-1", "ws-2", "ws-3"] {
        cluster.add_node(name, "auto");
    }
    cluster.run_until(10_000, "the start", Cluster::settled);
    let assignment = cluster.table().assignment;
    cluster.nodes[1].is = NodeIs::Dead;
    cluster.run(500);
    cluster.restart_node(1);
    cluster.run(2 * TTL);
    assert!(cluster.settled() && cluster.table().assignment == assignment);
}

fn table(
    nodes: &[(&str, NodeState)],
    rows: &[(u16, &str, bool)],
    targets: &[(u16, &str)],
    vnodes: u32,
) -> Table {
    let sid = |name: &str| Sid::new(&node_id(name), 1, 1);
    let node = |(name, state): &(&str, NodeState)| {
        let row = NodeRow {
            sid: sid(name),
            url: String::new(),
            admin: String::new(),
            state: *state,
            beat: 1,
            weight: 1,
            pins: "auto".into(),
            load: Load::default(),
            gone: Default::default(),
            reads: 0,
        };
        (node_id(name), row)
    };
    let row = |(v, name, ready): &(u16, &str, bool)| {
        (VnodeId(*v), Row { sid: sid(name), epoch: Epoch(1), ready: *ready })
    };
    Table {
        vnodes,
        nodes: nodes.iter().map(node).collect(),
        rows: rows.iter().map(row).collect(),
        assignment: Assignment {
            version: 1,
            targets: targets.iter().map(|(v, name)| (VnodeId(*v), node_id(name))).collect(),
        },
        ..Table::default()
    }
}

fn targets(decision: &crate::leader::Decision) -> Vec<(u16, &str)> {
    decision.targets.iter().map(|(v, node)| (v.0, node.as_str())).collect()
}

#[test]
fn a_vnode_on_its_way_to_a_dead_node_stays_where_it_is() {
    use NodeState::{Revoked, Up};
    let nodes = [("a", Up), ("b", Up), ("c", Revoked)];
    let held = [(0, "a", true), (1, "a", true), (2, "b", true), (3, "b", true)];
    let decision = decide(&table(&nodes, &held, &[(0, "c"), (1, "a"), (2, "b"), (3, "c")], 4), |_| &[], 8);
    assert_eq!((targets(&decision), decision.moves), (vec![(0, "a"), (3, "b")], 0));
}

#[test]
fn a_row_of_an_ended_life_is_nobodys() {
    use NodeState::Up;
    let mut table = table(&[("a", Up), ("b", Up)], &[(0, "a", true), (1, "b", true)], &[], 2);
    table.rows.get_mut(&VnodeId(0)).unwrap().sid = Sid::new(&node_id("a"), 0, 7);
    let decision = decide(&table, |_| &[], 8);
    assert_eq!((targets(&decision), decision.moves), (vec![(0, "a"), (1, "b")], 1));
}

#[test]
fn after_an_answer_only_a_table_asked_for_later_is_planned_from() {
    let mut leader = Leader::new(LeaderConfig { first_plan_wait_ms: 0, ..LeaderConfig::new("c", TTL) });
    let assigns =
        |actions: Vec<LeaderAction>| actions.iter().any(|a| matches!(a, LeaderAction::Assign { .. }));
    let event = |asked_at| {
        let table = table(&[("a", NodeState::Up)], &[], &[], 4);
        LeaderEvent::Table { table: table.into(), asked_at, boot_ms: asked_at }
    };
    leader.step(event(0), 0);
    leader.step(LeaderEvent::Led(Some(LeadAnswer::Leading)), 10);
    assert!(!assigns(leader.step(event(5), 20)), "asked before it led");
    assert!(assigns(leader.step(event(20), 30)));
    assert!(!assigns(leader.step(event(40), 50)), "no answer yet");
    assert!(!assigns(leader.step(LeaderEvent::Assigned(Some(true)), 60)));
    assert!(!assigns(leader.step(event(59), 70)), "it may not show what was assigned");
    assert!(assigns(leader.step(event(60), 80)));
}

#[test]
fn nothing_to_plan_without_a_node_or_a_ring() {
    let none = decide(&table(&[], &[], &[], 4), |_| &[], 8);
    assert!(none.targets.is_empty() && !none.nobody_owns);
    assert!(decide(&Table::default(), |_| &[], 8).targets.is_empty());
    let draining = decide(&table(&[("a", NodeState::Draining)], &[], &[(0, "a")], 2), |_| &[], 8);
    assert!(draining.targets.is_empty());
}
