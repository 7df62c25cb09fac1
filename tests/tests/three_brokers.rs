//! Programs on a Kafka of three brokers (`scripts/services up kafka-3`), which hear of a new topic one after the other.

use std::net::SocketAddr;

use roost_tests::cluster::services::Services;
use roost_tests::processes::{Cluster, ClusterSetup, NodeSetup, free_addr};

const NODES: [&str; 3] = ["one", "two", "three"];
/// The first finds no topics at all, the others those that all clusters share.
const STARTS: usize = 3;

/// Point of a first start: nobody is started twice. Each node makes a topic of its own, all of them and the archiver
/// the shared ones, and any broker may be asked for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_archivers_start_at_the_first_try() {
    for start in 1..=STARTS {
        let Some(services) = Services::of_three_brokers().await else { return };
        let mut cluster = Cluster::launch(services, ClusterSetup::default());
        for name in NODES {
            cluster.start_node(name, NodeSetup::default());
        }
        let database = std::env::var("DATABASE_URL").ok();
        let admin: SocketAddr = free_addr();
        let mut archiver = database.map(|url| cluster.start_archiver(&url, admin));
        cluster.settled().await;
        assert_eq!(cluster.running().len(), NODES.len(), "start {start}: a node has ended by itself");
        if let Some(archiver) = &mut archiver {
            assert!(archiver.is_running(), "start {start}: {}", archiver.log());
            archiver.kill();
        }
        cluster.kill_all();
    }
}
