//! A conversation of 20 users, in the middle of which nodes go and come.

use std::time::Duration;

use roost_proto::events::{CHAT_EVENTS, Status, StatusCause, USER_STATUS_EVENTS};
use roost_tests::processes::{Cluster, GRACE_MS, Signal};
use tokio::time::{Instant, sleep_until};

use super::TURN;
use roost_tests::conversation::Talk;
use roost_tests::presence::{Truth, no_flap};
use roost_tests::topic_reader::{TopicReader, statuses};
use roost_tests::verdict::{judge, times};

/// P2, P3, P6, P8: of three nodes one gets SIGTERM and is started again, and another gets SIGKILL, while 20 users
/// send to each other. Then half of them leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_one_node_is_stopped_and_another_killed() {
    let _turn = TURN.lock().await;
    let nodes = [("pinned", "0-20"), ("second", ""), ("third", "")];
    let Some(mut cluster) = Cluster::with_nodes(&nodes).await else { return };
    let second = Duration::from_secs(1);
    let ring = cluster.settled().await;
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let status = TopicReader::start(&cluster, USER_STATUS_EVENTS).await;
    let names = cluster.users_at(&ring, &[("pinned", 7), ("second", 7), ("third", 6)]);
    let talk = Talk::open(&cluster, names.clone()).await;
    // They leave when their home can no longer tell anybody.
    let vanishing = Talk::open(&cluster, cluster.users_at(&ring, &[("pinned", 2), ("second", 2)])).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let speech = talk.speak(&everybody, &everybody, second / 5);
    let began = Instant::now();

    sleep_until(began + 3 * second).await;
    let stopped = Instant::now();
    cluster.node("pinned").process.signal(Signal::Terminate).await;
    vanishing.leave(&[0, 1]).await;
    let code = cluster.node_mut("pinned").process.ended().await;
    let stopping = stopped.elapsed();
    assert!(code.success(), "a node that was asked to stop: {code}");
    cluster.restart_node("pinned");

    sleep_until((began + 9 * second).max(Instant::now() + second)).await;
    let ring = cluster.ring().await.expect("the coordinator answers");
    let at_second = |user: &usize| cluster.home_in(&ring, &names[*user]) == "second";
    let hit: Vec<usize> = everybody.iter().copied().filter(at_second).collect();
    let killed = Instant::now();
    cluster.node_mut("second").process.kill();
    vanishing.leave(&[2, 3]).await;

    sleep_until((began + 15 * second).max(Instant::now() + 3 * second)).await;
    let spoken = began.elapsed();
    speech.end().await;
    talk.all_arrived(began).await;

    let left = Instant::now();
    let (leaving, staying): (Vec<usize>, Vec<usize>) = everybody.iter().partition(|user| *user % 2 == 1);
    talk.leave(&leaving).await;
    let gone: Vec<String> = leaving.iter().map(|u| names[*u].clone()).chain(vanishing.names()).collect();
    let truth = Truth::new(staying.iter().map(|u| &names[*u]), gone.iter());
    truth.is_told(&cluster, &status).await;
    let true_after = left.elapsed();
    cluster.settled().await;

    // What was acknowledged holds without any process of ours.
    cluster.kill_all();
    let vanished = vanishing.names();
    vanishing.close().await;
    let ledger = talk.close().await;
    let published = statuses(&status.all().await);
    let (stop_end, kill_end) = (stopped + stopping + second, killed + 4 * second);
    let at_pinned: Vec<usize> = (0..7).collect();
    println!("20 users for {spoken:.1?}; one node stopped (in {stopping:.2?}) and started, another killed");
    println!("  longest time without a delivery, of the users of one node");
    println!(
        "    before            {}",
        times(&ledger.gaps(&everybody, began + second, stopped - second / 2))
    );
    println!("    SIGTERM           {}", times(&ledger.gaps(&at_pinned, stopped, stop_end)));
    println!("    SIGKILL           {}", times(&ledger.gaps(&hit, killed, kill_end)));
    println!("  presence true {true_after:.2?} after half of them left");
    let generations = judge(&ledger, &names, &chat, began).await;
    let late = no_flap(&ledger, &names, &published, Duration::from_millis(GRACE_MS));
    println!("  offline for a while, having been away for longer than the grace: {late}");
    assert_eq!(generations, 1, "no data was lost, so no stream began anew");
    assert!(ledger.missed.is_empty(), "nobody was told of a gap: {:?}", ledger.missed);
    truth.agrees(&published);
    for user in &vanished[2..] {
        let last = published[user].last().expect("at least online");
        assert_eq!((last.status, last.cause), (Status::Offline, StatusCause::Lost), "{last:?}");
    }
}
