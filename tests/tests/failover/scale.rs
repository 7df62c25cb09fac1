//! A cluster that grows by a node and shrinks again.

use std::time::Duration;

use roost_proto::events::{CHAT_EVENTS, USER_STATUS_EVENTS};
use roost_tests::processes::{Cluster, GRACE_MS, LIMIT, NodeSetup, Signal, VNODES, until_ok};
use tokio::time::Instant;

use super::TURN;
use roost_tests::conversation::Talk;
use roost_tests::presence::no_flap;
use roost_tests::topic_reader::{TopicReader, statuses};
use roost_tests::verdict::judge;

const NODES: [&str; 4] = ["one", "two", "three", "four"];
const READY: &str = "roost_vnodes_ready";
const TAKEN: &str = "roost_vnode_changes_total{change=\"takeover\"}";
const GIVEN: &str = "roost_vnode_changes_total{change=\"handoff\"}";
const PLANNED: &str = "roost_coordinator_moves_total";

/// What the processes count at `/metrics`: of each node how many vnodes it has, took and gave, and how many moves
/// were planned.
#[derive(Debug)]
struct Counted {
    has: Vec<u64>,
    took: Vec<u64>,
    gave: Vec<u64>,
    planned: u64,
}

impl Counted {
    async fn by(cluster: &Cluster, nodes: &[&str]) -> Self {
        let mut counted = Self { has: vec![], took: vec![], gave: vec![], planned: 0 };
        for node in nodes {
            counted.has.push(cluster.metric(node, READY).await as u64);
            counted.took.push(cluster.metric(node, TAKEN).await as u64);
            counted.gave.push(cluster.metric(node, GIVEN).await as u64);
        }
        counted.planned = cluster.coordinators_count(PLANNED).await as u64;
        counted
    }

    /// When nothing is on its way. The gauges follow what happened within a tick.
    async fn settled(cluster: &mut Cluster, nodes: &[&str]) -> Self {
        cluster.settled().await;
        until_ok("the nodes count every vnode", LIMIT, async || {
            let counted = Self::by(cluster, nodes).await;
            let all = counted.has.iter().sum::<u64>() == u64::from(VNODES);
            if all { Ok(counted) } else { Err(format!("{counted:?}")) }
        })
        .await
    }

    /// Whether everybody has the quota, rounded down or up.
    fn is_even(&self) -> bool {
        let quota = u64::from(VNODES) / self.has.len() as u64;
        let up = u64::from(!u64::from(VNODES).is_multiple_of(self.has.len() as u64));
        self.has.iter().all(|has| (quota..=quota + up).contains(has))
    }
}

fn more(after: &[u64], before: &[u64]) -> Vec<u64> {
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

/// P7, P8: a fourth node takes its share and nothing else moves; it is stopped, and only its share moves. All the
/// while users send to each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_node_takes_its_share_gives_it_back_and_nothing_else_moves() {
    let _turn = TURN.lock().await;
    let three = &NODES[..3];
    let Some(mut cluster) = Cluster::with_nodes(&[("one", ""), ("two", ""), ("three", "")]).await else {
        return;
    };
    let ring = cluster.settled().await;
    let chat = TopicReader::start(&cluster, CHAT_EVENTS).await;
    let status = TopicReader::start(&cluster, USER_STATUS_EVENTS).await;
    let names = cluster.users_at(&ring, &[("one", 10), ("two", 10), ("three", 10)]);
    let talk = Talk::open(&cluster, names.clone()).await;
    let everybody: Vec<usize> = (0..names.len()).collect();
    let began = Instant::now();
    let speech = talk.speak(&everybody, &everybody, Duration::from_millis(100));
    talk.goes_on(100).await;

    let before = Counted::settled(&mut cluster, three).await;
    let adding = Instant::now();
    cluster.start_node("four", NodeSetup::default());
    let with_four = Counted::settled(&mut cluster, &NODES).await;
    let added = adding.elapsed();
    talk.goes_on(100).await;
    let removing = Instant::now();
    cluster.node("four").process.signal(Signal::Terminate).await;
    let code = cluster.node_mut("four").process.ended().await;
    assert!(code.success(), "a node that was asked to stop: {code}");
    let without = Counted::settled(&mut cluster, three).await;
    let removed = removing.elapsed();
    talk.goes_on(100).await;
    speech.end().await;
    talk.all_arrived(began).await;
    cluster.kill_all();
    let ledger = talk.close().await;
    let published = statuses(&status.all().await);

    println!(
        "three nodes have {:?}; a fourth is added in {added:.2?} and removed in {removed:.2?}",
        before.has
    );
    println!("  with four    {with_four:?}");
    println!("  without four {without:?}");
    let share = with_four.has[3];
    assert!(before.is_even() && with_four.is_even() && without.is_even(), "quotas, rounded down or up");
    assert_eq!(with_four.planned - before.planned, share, "as many moves as the newcomer has vnodes");
    assert_eq!(more(&with_four.took, &before.took), [0, 0, 0], "nothing moves between the others");
    assert_eq!(with_four.took[3], share);
    assert_eq!(
        more(&with_four.gave, &before.gave).iter().sum::<u64>(),
        share,
        "each is handed over, none is claimed"
    );
    assert_eq!(without.planned - with_four.planned, share, "what the leaver had, and nothing else");
    assert_eq!(more(&without.took, &with_four.took).iter().sum::<u64>(), share);
    assert_eq!(more(&without.gave, &with_four.gave), [0, 0, 0], "nothing moves between the others");
    assert_eq!(judge(&ledger, &names, &chat, began).await, 1, "no data was lost, so no stream began anew");
    assert_eq!(
        no_flap(&ledger, &names, &published, Duration::from_millis(GRACE_MS)),
        0,
        "presence does not flap"
    );
    assert!(ledger.missed.is_empty(), "nobody was told of a gap: {:?}", ledger.missed);
}
