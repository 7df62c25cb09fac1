//! Redis loses its data, and the cluster its coordinator.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::cmd;
use roost_proto::events::CHAT_EVENTS;
use roost_tests::processes::{Cluster, LEASE_TTL_MS, LIMIT, until};
use tokio::time::{Instant, sleep};

use super::TURN;
use roost_tests::conversation::Talk;
use roost_tests::topic_reader::TopicReader;
use roost_tests::verdict::judge;

/// What an emptied Redis may cost: settling for a lease, and a second each for noticing, claiming and connecting.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);

/// P2, P5, P9: FLUSHALL in the middle of a conversation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_emptied_under_load_takes_nothing_acknowledged_with_it() {
    let _turn = TURN.lock().await;
    let nodes = [("first", ""), ("second", ""), ("third", "")];
    let Some(mut cluster) = Cluster::with_nodes(&nodes).await else { return };
    let ring = cluster.settled().await;
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let names = cluster.users_at(&ring, &[("first", 3), ("second", 3), ("third", 3)]);
    let talk = Talk::open(&cluster, names.clone()).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let began = Instant::now();
    let speech = talk.speak(&everybody, &everybody, Duration::from_millis(50));
    talk.goes_on(200).await;

    let emptied = Instant::now();
    cluster.redis::<()>(&cmd("FLUSHALL")).await;
    until("a new message to everyone is confirmed", LIMIT, async || {
        let ledger = talk.ledger();
        let new = ledger.sent.values().filter(|s| s.at > emptied && s.acked.is_some());
        (new.map(|s| s.to).collect::<BTreeSet<_>>().len() == names.len()).then_some(())
    })
    .await;
    let resumed_after = emptied.elapsed();
    // Nothing sent from now on has anything to do with what was lost.
    let resumed = Instant::now();
    talk.goes_on(200).await;
    speech.end().await;
    talk.all_arrived(resumed).await;
    cluster.settled().await;
    cluster.kill_all();
    let ledger = talk.close().await;

    println!("Redis emptied: every inbox takes new messages after {resumed_after:.2?}");
    let told: BTreeSet<usize> = ledger.missed.iter().map(|missed| missed.user).collect();
    println!("  told that messages may be missing: {} of {} users", told.len(), names.len());
    let generations = judge(&ledger, &names, &chat, resumed).await;
    assert_eq!(generations, 2, "the streams begin anew, once");
    let missing = ledger.sent.iter().filter(|(_, s)| s.acked.is_some() && s.arrived.is_none());
    let untold: Vec<_> = missing.filter(|(_, s)| !told.contains(&s.to)).collect();
    assert!(untold.is_empty(), "nothing is skipped silently (P5): {untold:?} began {began:?}");
    assert!(resumed_after <= RESUMED_WITHIN, "it took {resumed_after:?}");
}

/// "With every coordinator dead, connected clients notice nothing", and the next one leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_coordinator_is_noticed_by_no_connected_client() {
    let _turn = TURN.lock().await;
    let nodes = [("first", ""), ("second", ""), ("third", "")];
    let Some(mut cluster) = Cluster::with_nodes(&nodes).await else { return };
    let ring = cluster.settled().await;
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let names = cluster.users_at(&ring, &[("first", 3), ("second", 3), ("third", 3)]);
    let talk = Talk::open(&cluster, names.clone()).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let began = Instant::now();
    let speech = talk.speak(&everybody, &everybody, Duration::from_millis(100));
    talk.goes_on(50).await;

    let leader = ring.leader.expect("somebody leads");
    cluster.kill_coordinator(0);
    let dead = Instant::now();
    // Two leases: none of them may need a coordinator to be renewed.
    while dead.elapsed() < Duration::from_millis(2 * LEASE_TTL_MS) {
        talk.goes_on(20).await;
        sleep(Duration::from_millis(100)).await;
    }
    let noticed = talk.ledger().states.iter().filter(|(at, ..)| *at > dead).count();
    assert_eq!(noticed, 0, "a connection was lost or moved");

    cluster.start_coordinator(0);
    let started = Instant::now();
    until("the new coordinator leads", LIMIT, async || {
        cluster.ring().await.filter(|ring| ring.leader.as_ref().is_some_and(|l| *l != leader))
    })
    .await;
    println!("the new coordinator leads {:.2?} after it was started", started.elapsed());
    cluster.node_mut("third").process.kill();
    let killed = Instant::now();
    cluster.settled().await;
    println!("and gave a dead node's vnodes to others within {:.2?}", killed.elapsed());
    talk.goes_on(100).await;
    speech.end().await;
    talk.all_arrived(began).await;
    cluster.kill_all();
    let ledger = talk.close().await;
    assert_eq!(judge(&ledger, &names, &chat, began).await, 1, "no data was lost, so no stream began anew");
}
