//! A user of Redis that may do what OPERATIONS says, and no more.

use redis::cmd;
use roost_tests::cluster::services::Services;
use roost_tests::conversation::Talk;
use roost_tests::processes::{Cluster, ClusterSetup, NodeSetup};
use tokio::time::Instant;

use super::TURN;

const OPERATIONS: &str = include_str!("../../../docs/OPERATIONS.md");

/// The line that an operator copies, under a coordinator and two nodes: they start, a message gets through, and nothing
/// is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_runs_under_the_documented_user_of_redis() {
    let _turn = TURN.lock().await;
    let Some(services) = Services::find().await else { return };
    let line =
        OPERATIONS.lines().find_map(|line| line.strip_prefix("ACL ")).expect("OPERATIONS gives a line");
    let client = redis::Client::open(services.redis_url()).expect("a valid address");
    let mut admin = client.get_multiplexed_async_connection().await.expect("Redis is reached");
    let rights: Vec<&str> = line.split_whitespace().collect();
    cmd("ACL").arg(rights).exec_async(&mut admin).await.expect("Redis takes the line");
    let mut cluster = Cluster::launch(services.as_user("roost", "secret"), ClusterSetup::default());
    for name in ["first", "second"] {
        cluster.start_node(name, NodeSetup::default());
    }
    let ring = cluster.settled().await;
    let names = cluster.users_at(&ring, &[("first", 1), ("second", 1)]);
    let talk = Talk::open(&cluster, names).await;
    let began = Instant::now();
    let speech = talk.speak(&[0], &[1], std::time::Duration::from_millis(50));
    talk.goes_on(10).await;
    speech.end().await;
    talk.all_arrived(began).await;
    let refused: i64 = cmd("ACL")
        .arg("LOG")
        .query_async::<Vec<redis::Value>>(&mut admin)
        .await
        .map_or(-1, |log| log.len() as i64);
    assert_eq!(refused, 0, "nothing was refused");
}
