//! Death, real and apparent, of nodes, leaders and the store.

use std::collections::BTreeSet;

use roost_backend::store::{DataSet, Lead, LeadAnswer, LeaderRow, Table};

use super::cluster::*;
use crate::leader::{Leader, LeaderAction, LeaderConfig, LeaderEvent, RevokeCause};

fn three_nodes(coordinators: usize) -> Cluster {
    let mut cluster = Cluster::new(64, coordinators);
    for name in ["ws-1", "ws-2", "ws-3"] {
        cluster.add_node(name, "auto");
    }
    cluster.run_until(10_000, "the start", Cluster::settled);
    cluster.run(1_000);
    cluster
}

#[test]
fn a_dead_process_is_replaced_before_its_lease_ends() {
    let mut cluster = three_nodes(1);
    cluster.nodes[1].is = NodeIs::Dead;
    let took = cluster.run_until(TTL, "everything at the others", Cluster::settled);
    // Two beats missed, and a few steps for the table to be read, the refusal, the plan and the claims.
    assert!(took <= 4 * BEAT, "{took} ms");
    assert_eq!(cluster.revocations.len(), 1);
    assert_eq!(
        (&cluster.revocations[0].1, cluster.revocations[0].2),
        (&cluster.nodes[1].sid, RevokeCause::Refused)
    );
}

#[test]
fn a_node_that_only_is_silent_has_its_whole_lease() {
    for is in [NodeIs::Frozen, NodeIs::Gone] {
        let mut cluster = three_nodes(1);
        let last_beat_before = cluster.now;
        cluster.nodes[1].is = is;
        let took = cluster.run_until(2 * TTL, "everything at the others", Cluster::settled);
        assert_eq!(cluster.revocations.len(), 1);
        assert_eq!(cluster.revocations[0].2, RevokeCause::Silent);
        assert!(cluster.revocations[0].0 - last_beat_before >= TTL - BEAT, "{is:?}");
        assert!(took <= TTL + 3 * BEAT, "{is:?}: {took} ms");
    }
}

#[test]
fn a_node_that_wakes_up_after_its_revocation_gets_a_new_life_and_its_share() {
    let mut cluster = three_nodes(1);
    let first_life = cluster.nodes[1].sid.clone();
    cluster.nodes[1].is = NodeIs::Frozen;
    cluster.run(2 * TTL);
    cluster.nodes[1].is = NodeIs::Alive;
    cluster.run_until(20_000, "three share again", Cluster::settled);
    assert_ne!(cluster.nodes[1].sid, first_life);
}

#[test]
fn a_node_that_misses_beats_but_comes_back_within_its_lease_keeps_everything() {
    let mut cluster = three_nodes(1);
    let moves = cluster.moves;
    for _ in 0..5 {
        cluster.nodes[1].is = NodeIs::Frozen;
        cluster.run(TTL - 2 * BEAT);
        cluster.nodes[1].is = NodeIs::Alive;
        cluster.run(2 * BEAT);
    }
    assert!(cluster.revocations.is_empty() && cluster.moves == moves && cluster.settled());
}

#[test]
fn a_wrong_admin_address_alone_costs_nothing_and_a_slow_sid_at_most_one_early_end() {
    let mut cluster = three_nodes(1);
    cluster.nodes[1].wrong_admin = true;
    cluster.run(5 * TTL);
    assert!(cluster.revocations.is_empty(), "it beats, so nobody asks");
    // The compare-and-set fails if the beat moves while the revocation is on its way: that was the one chance.
    let sid = cluster.nodes[1].sid.clone();
    cluster.coordinators[0].hold_writes = true;
    cluster.nodes[1].is = NodeIs::Frozen;
    cluster.run_until(TTL, "an early revocation is asked for", |c| !c.coordinators[0].held.is_empty());
    cluster.nodes[1].is = NodeIs::Alive;
    cluster.run(BEAT);
    cluster.coordinators[0].hold_writes = false;
    cluster.let_through(0);
    cluster.run(BEAT);
    assert!(cluster.revocations.is_empty() && cluster.refused == 1);
    cluster.nodes[1].is = NodeIs::Frozen;
    cluster.run(TTL - BEAT);
    assert!(cluster.revocations.is_empty(), "no second early one for the same sid");
    cluster.run(3 * BEAT);
    assert_eq!(
        cluster.revocations.iter().map(|r| (&r.1, r.2)).collect::<Vec<_>>(),
        [(&sid, RevokeCause::Silent)]
    );
}

#[test]
fn a_refusal_counts_only_as_long_as_the_beat_stands_still() {
    let mut cluster = three_nodes(1);
    cluster.nodes[1].wrong_admin = true;
    for round in 1..=5 {
        cluster.nodes[1].is = NodeIs::Frozen;
        cluster.run_until(TTL, "it is asked for", |c| c.probes.len() == round);
        cluster.nodes[1].is = NodeIs::Alive;
        cluster.run(3 * BEAT);
    }
    assert!(cluster.revocations.is_empty() && cluster.refused == 0);
}

#[test]
fn a_node_that_dies_while_it_drains_is_replaced_like_any_other() {
    let mut cluster = three_nodes(1);
    cluster.nodes[1].draining = true;
    cluster.run(2 * BEAT);
    cluster.nodes[1].is = NodeIs::Dead;
    cluster.run_until(4 * BEAT, "it is declared dead", |c| c.revocations.len() == 1);
    assert_eq!(cluster.revocations[0].2, RevokeCause::Refused);
}

#[test]
fn an_outage_of_the_store_revokes_nobody_and_moves_nothing() {
    for outage in [1_500, 2_900, 4_000, 5_000, 5_900, 7_000, 30_000, 30_450] {
        for store in [StoreIs::Down, StoreIs::ReadOnly] {
            let mut cluster = three_nodes(2);
            cluster.nodes[1].wrong_admin = true;
            let (moves, leading) = (cluster.moves, cluster.leading());
            cluster.store = store;
            cluster.run(outage);
            cluster.store = StoreIs::Up;
            cluster.run(2 * TTL);
            assert_eq!(cluster.revocations, [], "{store:?} for {outage} ms");
            assert!(cluster.moves == moves && cluster.settled(), "{store:?} for {outage} ms");
            if store == StoreIs::Down {
                assert_eq!(cluster.leading(), leading, "for {outage} ms");
            }
        }
    }
}

#[test]
fn a_node_that_died_during_an_outage_of_the_store_is_found_after_it() {
    let mut cluster = three_nodes(1);
    cluster.store = StoreIs::Down;
    cluster.run(10_000);
    cluster.nodes[2].is = NodeIs::Gone;
    cluster.run(20_000);
    cluster.store = StoreIs::Up;
    cluster.run_until(TTL + 4 * BEAT, "everything at the others", Cluster::settled);
    assert_eq!(cluster.revocations.len(), 1);
}

#[test]
fn of_several_coordinators_exactly_one_leads() {
    let mut cluster = three_nodes(3);
    for _ in 0..20 {
        cluster.run(3_000);
        assert_eq!(cluster.leading().len(), 1);
    }
}

#[test]
fn a_standby_leads_when_the_leaders_beat_stood_still_for_a_lease() {
    let mut cluster = three_nodes(2);
    let moves = cluster.moves;
    let old = cluster.leading()[0];
    cluster.coordinators[old].frozen = true;
    cluster.run(TTL - 2 * BEAT);
    assert_eq!(cluster.leading(), [old], "not before");
    let new = 1 - old;
    cluster.run_until(4 * BEAT, "the other leads", |c| c.coordinators[new].leader.is_leading());
    cluster.coordinators[old].frozen = false;
    cluster.run(2 * BEAT);
    assert_eq!(cluster.leading(), [new], "the one that woke up has learned it");
    assert!(cluster.moves == moves && cluster.revocations.is_empty(), "a change of leader moves nothing");
    cluster.nodes[0].is = NodeIs::Dead;
    cluster.run_until(TTL, "the new leader does its work", Cluster::settled);
}

#[test]
fn what_a_leader_asked_for_before_it_froze_is_refused_when_another_leads() {
    let mut cluster = three_nodes(2);
    let old = cluster.leading()[0];
    cluster.coordinators[old].hold_writes = true;
    cluster.add_node("ws-4", "auto");
    cluster.nodes[0].is = NodeIs::Dead;
    let both = |c: &Cluster| {
        let held = &c.coordinators[old].held;
        let assign = held.iter().any(|a| matches!(a, LeaderAction::Assign { .. }));
        assign && held.iter().any(|a| matches!(a, LeaderAction::Revoke { .. }))
    };
    cluster.run_until(TTL, "it wants to revoke and to assign", both);
    cluster.coordinators[old].frozen = true;
    cluster.run_until(20_000, "the other leads and sets things right", Cluster::settled);
    let (before, held) = (cluster.table(), cluster.coordinators[old].held.len());
    assert_eq!(cluster.refused, 0);
    cluster.let_through(old);
    assert_eq!(cluster.refused, held);
    assert_eq!(cluster.table().assignment, before.assignment);
    assert_eq!(cluster.table().nodes, before.nodes);
}

#[test]
fn a_leader_that_slept_revokes_nobody_for_what_it_missed() {
    let mut cluster = three_nodes(1);
    cluster.coordinators[0].frozen = true;
    cluster.run(60_000);
    cluster.coordinators[0].frozen = false;
    cluster.run(2 * TTL);
    assert!(cluster.revocations.is_empty() && cluster.settled());
}

#[test]
fn while_the_data_settles_nothing_is_revoked_or_planned() {
    let mut cluster = three_nodes(1);
    let owners: BTreeSet<_> = cluster.table().rows.into_iter().map(|(v, row)| (v, row.node())).collect();
    let (assigns, moves) = (cluster.assigns, cluster.moves);
    cluster.wipe("second", TTL);
    cluster.nodes[2].is = NodeIs::Dead;
    cluster.run(TTL - 100);
    assert!(cluster.leading() == [0], "it leads under the new data set");
    assert_eq!((cluster.assigns, cluster.revocations.len()), (assigns, 0));
    cluster.run_until(10_000, "the lost third is given away", Cluster::settled);
    // Whoever held something claimed it while settling and keeps it: only the dead node's share moved.
    let lost = owners.iter().filter(|(_, node)| *node == node_id("ws-3")).count();
    assert_eq!(cluster.moves - moves, lost);
    let table = cluster.table();
    let kept = |(vnode, node): &(_, _)| *node == node_id("ws-3") || table.rows[vnode].node() == *node;
    assert!(owners.iter().all(kept));
}

#[test]
fn a_death_while_the_data_settles_is_dealt_with_after_it() {
    for is in [NodeIs::Dead, NodeIs::Gone] {
        let mut cluster = three_nodes(1);
        cluster.restart_store("snapshot", 3 * TTL);
        cluster.nodes[2].is = is;
        cluster.run(3 * TTL - 100);
        assert!(cluster.revocations.is_empty(), "{is:?}");
        cluster.run_until(TTL, "the dead node's share is given away", Cluster::settled);
        assert_eq!(cluster.revocations.len(), 1);
    }
}

fn lead(actions: &[LeaderAction]) -> Option<&Lead> {
    actions.iter().find_map(|action| if let LeaderAction::Lead(lead) = action { Some(lead) } else { None })
}

fn table_of(data_set: &str, asked_at: u64) -> LeaderEvent {
    let table = Table { vnodes: 4, data_set: DataSet(data_set.into()), ..Table::default() };
    LeaderEvent::Table { table: table.into(), asked_at, boot_ms: asked_at }
}

#[test]
fn nobody_asks_to_lead_before_the_ring_is_known() {
    let mut leader = Leader::new(LeaderConfig::new("c", TTL));
    assert!(leader.step(LeaderEvent::Tick, 0).is_empty());
    assert_eq!(lead(&leader.step(table_of("one", 0), 10)).unwrap().data_set.0, "one");
    assert!(!leader.is_leading());
}

#[test]
fn what_was_asked_about_the_data_before_says_nothing_about_the_new() {
    let mut leader = Leader::new(LeaderConfig::new("c", TTL));
    assert!(lead(&leader.step(table_of("one", 0), 10)).is_some());
    // The data changes while the call is on its way.
    assert!(lead(&leader.step(table_of("two", 20), 30)).is_none(), "one call at a time");
    let actions = leader.step(LeaderEvent::Led(Some(LeadAnswer::Leading)), 40);
    assert!(!leader.is_leading());
    assert_eq!(lead(&actions).unwrap().data_set.0, "two");
    leader.step(LeaderEvent::Led(Some(LeadAnswer::Leading)), 50);
    assert!(leader.is_leading());
    // A table that was read before the change comes late.
    leader.step(table_of("one", 15), 60);
    assert!(leader.is_leading());
    leader.step(LeaderEvent::Tick, 50 + BEAT);
    let actions =
        leader.step(LeaderEvent::Led(Some(LeadAnswer::NewData(DataSet("three".into())))), 60 + BEAT);
    assert!(!leader.is_leading());
    assert_eq!(lead(&actions).unwrap().data_set.0, "three");
}

#[test]
fn a_standby_that_heard_nothing_for_a_while_watches_the_leader_anew() {
    let mut leader = Leader::new(LeaderConfig::new("c", TTL));
    let other = LeaderRow { token: "other".into(), beat: 7 };
    leader.step(table_of("one", 0), 0);
    let mut frozen_at = Vec::new();
    let mut waiting = true;
    for now in (0..40_000).step_by(250) {
        let away = (3_000..9_000).contains(&now);
        if waiting {
            let answer = (!away).then(|| LeadAnswer::Other(other.clone()));
            waiting = false;
            leader.step(LeaderEvent::Led(answer), now);
        } else if let Some(lead) = lead(&leader.step(LeaderEvent::Tick, now)) {
            waiting = true;
            frozen_at.extend(lead.frozen.is_some().then_some(now));
        }
    }
    let first = frozen_at[0];
    assert!((9_000 + TTL..9_000 + TTL + 3 * BEAT).contains(&first), "{first}");
}
