//! Several coordinators and nodes at once on the embedded store. The clock is paused: it jumps to the next timer
//! whenever nobody has anything to do.

#![allow(clippy::unwrap_used, reason = "what breaks here is the test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use roost_backend::store::*;
use roost_coordinator::Coordinator;
use roost_proto::NodeId;

const VNODES: u32 = 32;
const TTL: u64 = 6_000;
const BEAT: Duration = Duration::from_millis(TTL / roost_proto::limits::BEATS_PER_LEASE);
/// A node also looks what it was given; hints are not followed here.
const STEP: Duration = Duration::from_millis(200);

async fn nodes(store: &Arc<TestStore>, names: &[&str]) -> Vec<LiveNode> {
    names.iter().map(|name| LiveNode::start(Arc::clone(store), node_row(name), STEP)).collect()
}

async fn shares(store: &TestStore) -> BTreeMap<NodeId, usize> {
    let table = store.table().await.unwrap();
    let mut shares = BTreeMap::new();
    for row in table.rows.values().filter(|row| row.ready && !table.ended(&row.sid)) {
        *shares.entry(row.node()).or_default() += 1;
    }
    shares
}

/// Each has its part ready, and nobody else has any.
async fn shared_by(store: &TestStore, names: &[&str]) -> bool {
    let (shares, even) = (shares(store).await, VNODES as usize / names.len());
    let fair = |name: &&str| {
        shares.get(&NodeId::new(name).unwrap()).is_some_and(|share| (even..=even + 1).contains(share))
    };
    shares.len() == names.len() && shares.values().sum::<usize>() == VNODES as usize && names.iter().all(fair)
}

async fn start(store: &Arc<TestStore>) -> Coordinator {
    coordinator(store, config(VNODES, TTL)).await
}

/// P7 and the architecture's "any number of coordinators; one leads": provoked by dropping the one that does.
#[tokio::test(start_paused = true)]
async fn one_of_two_coordinators_leads_and_the_other_takes_over_when_it_is_gone() {
    let store = TestStore::ticking(TTL);
    let (a, b) = (start(&store).await, start(&store).await);
    let _nodes = nodes(&store, &["ws-1", "ws-2", "ws-3"]).await;
    until("three nodes share the ring", || shared_by(&store, &["ws-1", "ws-2", "ws-3"])).await;
    assert!(a.is_leading() != b.is_leading());
    let (leader, standby) = if a.is_leading() { (a, b) } else { (b, a) };
    let before = store.table().await.unwrap().assignment;
    for coordinator in [&leader, &standby] {
        until("both route", async || get(coordinator, "/route?userId=alice").await.status == 200).await;
    }
    drop(leader);
    let took = until("the standby leads", async || standby.is_leading()).await;
    assert!(took > 8 * BEAT && took < 18 * BEAT, "{took:?}: a lease after the last beat");
    assert_eq!(store.table().await.unwrap().assignment, before, "a change of leader moves nothing");
    let _fourth = nodes(&store, &["ws-4"]).await;
    until("a newcomer gets its share", || shared_by(&store, &["ws-1", "ws-2", "ws-3", "ws-4"])).await;
    standby.shutdown(Duration::from_secs(5)).await;
}

/// A beat is on its way as the leader is stopped: it must not lead again after it resigned.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_stopped_does_not_lead_again_by_a_call_on_its_way() {
    for phase in 0..6 {
        let store = TestStore::ticking(TTL);
        store.leads_take(BEAT * 9 / 10);
        let leader = start(&store).await;
        until("it leads", async || leader.is_leading()).await;
        tokio::time::sleep(BEAT * phase / 5).await;
        leader.shutdown(Duration::from_secs(5)).await;
        tokio::time::sleep(2 * BEAT).await;
        assert_eq!(store.table().await.unwrap().leader, None, "phase {phase}");
    }
}

/// A rolling restart: the leader is stopped in order, and gives the lead up.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_stopped_is_followed_within_two_beats() {
    let store = TestStore::ticking(TTL);
    let (a, b) = (start(&store).await, start(&store).await);
    until("one leads", async || a.is_leading() || b.is_leading()).await;
    let (leader, standby) = if a.is_leading() { (a, b) } else { (b, a) };
    leader.shutdown(Duration::from_secs(5)).await;
    let took = until("the standby leads", async || standby.is_leading()).await;
    assert!(took <= 2 * BEAT, "{took:?}");
}

/// Core rule 23: provoked by a node that stops renewing while nobody listens on its admin port.
#[tokio::test(start_paused = true)]
async fn a_node_whose_port_refuses_is_replaced_and_its_users_are_routed_on() {
    let store = TestStore::ticking(TTL);
    let coordinator = start(&store).await;
    let mut row = node_row("ws-1");
    let port = listener().await;
    row.admin = port.local_addr().unwrap().to_string();
    let dying = LiveNode::start(Arc::clone(&store), row, STEP);
    let _other = nodes(&store, &["ws-2"]).await;
    until("two nodes share the ring", || shared_by(&store, &["ws-1", "ws-2"])).await;
    drop(dying);
    drop(port);
    let took = until("the other has everything", || shared_by(&store, &["ws-2"])).await;
    assert!(took < 5 * BEAT, "{took:?}: before the lease is over");
    let routed = async || {
        for i in 0..50 {
            let reply = get(&coordinator, &format!("/route?userId=user-{i}")).await;
            if reply.status != 200 || reply.json()["node"] != "ws-2" {
                return false;
            }
        }
        true
    };
    until("everyone is routed to it", routed).await;
    let metrics = get_admin(&coordinator, "/metrics").await.text;
    assert!(metrics.contains("roost_coordinator_revocations_total{cause=\"refused\"} 1"), "{metrics}");
}

/// P9: provoked by cutting every process off from the store for several leases.
#[tokio::test(start_paused = true)]
async fn nobody_is_revoked_and_nothing_moves_for_an_outage_of_the_store() {
    let store = TestStore::ticking(TTL);
    let coordinator = start(&store).await;
    let _nodes = nodes(&store, &["ws-1", "ws-2"]).await;
    until("two nodes share the ring", || shared_by(&store, &["ws-1", "ws-2"])).await;
    let known = async || coordinator.view().load().ready_vnodes() == VNODES as usize;
    until("the coordinator knows", known).await;
    let before = store.table().await.unwrap();
    store.cut(true);
    tokio::time::sleep(Duration::from_millis(3 * TTL)).await;
    assert_eq!(get(&coordinator, "/route?userId=alice").await.status, 200);
    store.cut(false);
    tokio::time::sleep(Duration::from_millis(2 * TTL)).await;
    let after = store.table().await.unwrap();
    assert!(after.nodes.values().all(|row| row.state == NodeState::Up));
    assert_eq!(after.assignment, before.assignment);
    assert!(coordinator.is_leading() && shared_by(&store, &["ws-1", "ws-2"]).await);
}
