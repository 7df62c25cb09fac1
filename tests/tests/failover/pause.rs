//! A node that sleeps past its lease, and two that have one name.

use std::time::Duration;

use roost_proto::events::CHAT_EVENTS;
use roost_tests::processes::{Cluster, LIMIT, NodeSetup, Signal, until};
use tokio::time::{Instant, sleep_until, timeout};

use super::TURN;
use roost_tests::conversation::Talk;
use roost_tests::proxy::Proxy;
use roost_tests::topic_reader::TopicReader;
use roost_tests::verdict::judge;
use roost_tests::wire::authority;

/// Short, so that the pause is past it before the node's own patience with Redis (2 s) is over: an answer that comes
/// later is not looked at, and the refusal seen by Redis alone.
const SHORT_LEASE_MS: u64 = 1_000;
/// What only an append has among what a node sends to Redis.
const APPEND: &str = "\"kind\":\"message\"";
const FENCED: &str = "roost_store_writes_total{outcome=\"fenced\"}";
/// How often the pause is repeated until the node itself has counted a refused write.
const PAUSES_MAX: usize = 5;
/// For the node to count it: a few ticks, on a machine with a lot else to do.
const COUNTED_WITHIN: Duration = Duration::from_secs(3);

/// P1: the node is stopped when it has checked its lease and sent an append that has not reached Redis; the append
/// arrives when others have the lease. Without the gate that moment is some microseconds long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_paused_past_its_lease_writes_nothing() {
    let _turn = TURN.lock().await;
    let Some(mut cluster) = Cluster::start(SHORT_LEASE_MS).await else { return };
    let gate = Proxy::start(&[authority(cluster.redis_url()).to_owned()]).await;
    // Pinned, so that it has the same users in every round.
    let setup = NodeSetup {
        pins: "0-20".to_owned(),
        redis_url: Some(format!("redis://{}", gate.addr)),
        ..NodeSetup::default()
    };
    cluster.start_node("paused", setup);
    cluster.start_node("second", NodeSetup::default());
    cluster.start_node("third", NodeSetup::default());
    let ring = cluster.settled().await;
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let names = cluster.users_at(&ring, &[("paused", 8), ("second", 5), ("third", 5)]);
    let talk = Talk::open(&cluster, names.clone()).await;
    let (listeners, speakers): (Vec<usize>, Vec<usize>) = (0..names.len()).partition(|user| *user < 8);
    let began = Instant::now();
    let speech = talk.speak(&speakers, &listeners, Duration::from_millis(25));

    let (mut counted, mut round) = (0.0, 0);
    while counted == 0.0 {
        assert!(round < PAUSES_MAX, "after {PAUSES_MAX} pauses the node has counted no refused write");
        round += 1;
        cluster.settled().await;
        talk.goes_on(100).await;
        gate.shut();
        until("an append is on its way", LIMIT, async || (gate.held(APPEND) > 0).then_some(())).await;
        cluster.node("paused").process.signal(Signal::Stop).await;
        let (paused, held) = (Instant::now(), gate.held(APPEND));
        let id = cluster.node_id("paused");
        until("others have what it had", LIMIT, async || {
            let ring = cluster.ring().await?;
            (ring.of(&id).is_empty() && ring.rows.values().all(|row| row.2)).then_some(())
        })
        .await;
        let taken_over = paused.elapsed();
        let since = Instant::now();
        until("its users' messages are confirmed without it", LIMIT, async || {
            (talk.ledger().acked_since(since) >= 50).then_some(())
        })
        .await;
        sleep_until(paused + Duration::from_millis(SHORT_LEASE_MS)).await;
        gate.open();
        until("Redis answers the late append", LIMIT, async || (gate.answered("deposed") > 0).then_some(()))
            .await;
        let (deposed, appended) = (gate.answered("deposed"), gate.answered("appended"));
        cluster.node("paused").process.signal(Signal::Continue).await;
        let asleep = paused.elapsed();
        assert_eq!(appended, 0, "a paused node writes nothing");
        let seen = timeout(
            COUNTED_WITHIN,
            until("it counts the refusal", LIMIT, async || {
                let fenced = cluster.metric("paused", FENCED).await;
                (fenced > 0.0).then_some(fenced)
            }),
        );
        counted = seen.await.unwrap_or(0.0);
        println!(
            "pause {round}: asleep for {asleep:.2?}, its vnodes elsewhere after {taken_over:.2?}; {held} appends on \
             their way, {deposed} writes refused by Redis, {counted} refusals counted by the node"
        );
    }

    cluster.settled().await;
    assert!(cluster.node_mut("paused").process.is_running(), "it goes on under a new sid");
    talk.goes_on(200).await;
    speech.end().await;
    talk.all_arrived(began).await;
    cluster.kill_all();
    let ledger = talk.close().await;
    assert_eq!(judge(&ledger, &names, &chat, began).await, 1, "no data was lost, so no stream began anew");
    assert!(ledger.missed.is_empty(), "nobody was told of a gap: {:?}", ledger.missed);
}

/// A second of its own, and what a busy machine adds.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Core rule 21: the sids of one `NODE_ID` are ordered, the later one wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_node_id_the_later_one_stays() {
    let _turn = TURN.lock().await;
    let nodes = [("first", ""), ("second", ""), ("double", "")];
    let Some(mut cluster) = Cluster::with_nodes(&nodes).await else { return };
    let ring = cluster.settled().await;
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let names = cluster.users_at(&ring, &[("first", 3), ("second", 3), ("double", 3)]);
    let talk = Talk::open(&cluster, names.clone()).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let began = Instant::now();
    let speech = talk.speak(&everybody, &everybody, Duration::from_millis(100));
    talk.goes_on(50).await;

    let doubled = Instant::now();
    let mut earlier = cluster.start_node("double", NodeSetup::default()).expect("it had a process");
    let replaced = "another process with this NODE_ID took over";
    let log = earlier.process.log_so_far();
    until("it is replaced", LIMIT, async || log().contains(replaced).then_some(())).await;
    let told = Instant::now();
    let code = earlier.process.ended().await;
    println!(
        "the earlier process ended after {:.2?}, {:.2?} after it said so: {code}",
        doubled.elapsed(),
        told.elapsed()
    );
    assert_eq!(code.code(), Some(1), "a replaced node ends as a failure");
    assert!(told.elapsed() < ENDS_WITHIN, "it is in the way for {:.2?}", told.elapsed());
    assert_eq!(log().matches(replaced).count(), 1, "it says why, once");
    cluster.settled().await;
    assert!(cluster.node_mut("double").process.is_running(), "the later one stays");
    let (id, url) = (cluster.node_id("double"), cluster.socket_url("double"));
    let shown = cluster.nodes().await.expect("the coordinator answers");
    let shown = shown["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["node"] == *id));
    assert_eq!(shown.expect("it is there")["url"], *url, "clients are sent to the later one");

    talk.goes_on(100).await;
    println!("everything goes on {:.2?} after the second process was started", doubled.elapsed());
    speech.end().await;
    talk.all_arrived(began).await;
    cluster.kill_all();
    let ledger = talk.close().await;
    assert_eq!(judge(&ledger, &names, &chat, began).await, 1, "no data was lost, so no stream began anew");
}
