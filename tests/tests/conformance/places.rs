//! Where users are at home, and what becomes of them when that changes.

use roost_ws_node::core::ShareConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use roost_client::{Client, Event, Events};
use roost_tests::cluster::{Backend, Cluster, Setup, TempDir, eventually, stop};
use roost_tests::wire::{LIMIT, Wire, get};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{cursor_of, pump};

/// P1 seen by a client: only home takes it, and every other node names home.
/// It connects to the wrong node, then to where that sends it.
pub(crate) async fn a_node_that_is_not_home_names_the_one_that_is(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let alice = cluster.user_at(2).await;
    let home = cluster.route(&alice).await;
    for wrong in [0, 1] {
        let mut wire = Wire::connect(cluster.node(wrong).url(), cluster.fields(&alice, json!({}))).await;
        let moved = wire.frame().await;
        let expected = json!({
            "type": "moved", "node": home.node, "url": home.url, "epoch": home.epoch, "after_ms": moved["after_ms"],
        });
        assert_eq!(moved, expected);
        assert!(moved["after_ms"].is_u64());
        let fields = cluster.fields(&alice, json!({"epoch": moved["epoch"]}));
        let mut there = Wire::connect(moved["url"].as_str().expect("a URL"), fields).await;
        let welcome = there.frame().await;
        assert_eq!((&welcome["type"], &welcome["node"]), (&json!("welcome"), &json!(home.node)));
        assert_eq!((&welcome["vnode"], &welcome["epoch"]), (&json!(home.vnode), &json!(home.epoch)));
    }
}

/// `/route` never names a home that is not ready: while there is none it says when to come again.
/// The only node dies.
pub(crate) async fn while_a_user_has_no_home_route_says_when_to_come_again(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 1).await else { return };
    let alice = cluster.user("alice");
    cluster.route(&alice).await;
    cluster.kill(0);
    let path = format!("/route?userId={alice}");
    let answer = eventually("the home is given up", async || {
        let answer = get(&cluster.url(), &path, &[]).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    let seconds = answer.header("retry-after").and_then(|s| s.parse::<u64>().ok());
    assert!(seconds.is_some_and(|s| s >= 1), "{answer:?}");
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("unavailable"), &json!(true)));
}

/// Between two messages of a talker at least.
const PACE: Duration = Duration::from_millis(5);

/// One who sends 0, 1, 2, … to another, one after the other; every one must be confirmed.
struct Talker {
    client: Client,
    to: String,
    confirmed: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Talker {
    fn start(client: Client, to: String) -> Self {
        let confirmed = Arc::new(AtomicU64::new(0));
        let (sender, receiver, count) = (client.clone(), to.clone(), Arc::clone(&confirmed));
        let task = tokio::spawn(async move {
            // Dense, but not so much that the hot window passes while a listener is on its way to its new home.
            let mut pace = tokio::time::interval(PACE);
            loop {
                pace.tick().await;
                let next = count.load(Ordering::Relaxed);
                sender.send(&receiver, next).await.expect("a send is confirmed in the end");
                count.store(next + 1, Ordering::Relaxed);
            }
        });
        Self { client, to, confirmed, task }
    }

    fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    async fn confirms_more(&self) {
        let enough = self.confirmed() + 20;
        eventually("sends are confirmed", async || (self.confirmed() > enough).then_some(())).await;
    }

    /// Stops after some send, and says so to the other one.
    async fn finish(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.is_err_and(|error| error.is_cancelled()), "a send failed");
        // The one under way goes on without its waiter; the next is confirmed after it.
        self.client.send(&self.to, "enough").await.expect("confirmed");
    }
}

/// Takes messages until one says "enough": the numbers before it must be all there, once and in order.
fn listen(mut events: Events) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut next = 0;
        loop {
            let event =
                tokio::time::timeout(LIMIT, events.recv()).await.expect("events come").expect("no end");
            match event {
                Event::Message(message) if message.data.get() == "\"enough\"" => return next,
                Event::Message(message) => {
                    assert_eq!(message.data.get(), next.to_string(), "from {}", message.from);
                    next += 1;
                }
                Event::State { .. } | Event::NotConnected { .. } => {}
                other => panic!("something was missed: {other:?}"),
            }
        }
    })
}

/// Enough for the traffic to be dense when the node goes.
fn busy(backend: Backend) -> Setup {
    Setup::new(backend, 3).tune(|_, config| {
        config.core.commands_per_s = 10_000;
        config.core.commands_burst = 10_000;
        config.core.shares = ShareConfig::unlimited();
    })
}

/// Everybody writes to the next one, around the node that will go: from one that stays to it, within it, from it,
/// and past it. `leave` is awaited in their middle. What arrived must be what was confirmed.
async fn converse(cluster: &mut Cluster, leave: impl AsyncFnOnce(&mut Cluster)) {
    let mut users = Vec::new();
    for home in [0, 1, 1, 2] {
        users.push(cluster.user_at(home).await);
    }
    let (mut clients, mut listeners) = (Vec::new(), Vec::new());
    for user in &users {
        let (client, events) = cluster.client(user).await;
        client.connected(LIMIT).await.expect("connected");
        clients.push(client);
        listeners.push(listen(events));
    }
    users.rotate_left(1);
    let mut talkers: Vec<_> =
        clients.into_iter().zip(users).map(|(client, to)| Talker::start(client, to)).collect();
    join_all(talkers.iter().map(Talker::confirms_more)).await;
    leave(cluster).await;
    cluster.settled().await;
    join_all(talkers.iter().map(Talker::confirms_more)).await;
    join_all(talkers.iter_mut().map(Talker::finish)).await;
    listeners.rotate_left(1);
    for (talker, listener) in talkers.iter().zip(listeners) {
        let (confirmed, arrived) = (talker.confirmed(), listener.await.expect("no panic"));
        // One may have been under way when its sender stopped waiting.
        assert!((confirmed..=confirmed + 1).contains(&arrived), "{arrived} arrived of {confirmed}");
    }
}

/// P8: a planned stop loses nothing and doubles nothing; sessions are told where to go.
/// One of three nodes is stopped while users on all of them write to each other, and while one client of the wire
/// alone is at home there.
pub(crate) async fn a_planned_stop_tells_sessions_where_to_go_and_loses_nothing(backend: Backend) {
    let Some(mut cluster) = busy(backend).start().await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    pump(&mut a, &bob, 1..=5, 0).await;
    for _ in 1..=4 {
        b.message().await;
    }
    let cursor = cursor_of(&b.message().await);
    converse(&mut cluster, async |cluster: &mut Cluster| {
        let leaving = tokio::spawn(stop(cluster.take(1)));
        let moved = b.frame_of("moved").await;
        assert_ne!(moved["node"], cluster.name(1));
        // What is sent in the meantime is kept for the new connection.
        pump(&mut a, &bob, 6..=10, 0).await;
        let fields = cluster.fields(&bob, json!({"cursor": cursor, "epoch": moved["epoch"]}));
        let mut there = Wire::connect(moved["url"].as_str().expect("a URL"), fields).await;
        let welcome = there.frame().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        assert_eq!(welcome["recovered"], true);
        for i in 6..=10 {
            assert_eq!(there.message().await["data"]["i"], i);
        }
        leaving.await.expect("no panic");
    })
    .await;
    let (code, _) = b.close_code().await;
    assert!((3000..3500).contains(&code), "a client that stays is told to come again, not {code}");
}

/// P8: a node that stops leaves nothing behind, and a session that cannot be told where to go is told to come again.
/// The only node is stopped, right after it got its vnodes.
pub(crate) async fn the_last_node_that_stops_gives_everything_up_and_tells_its_sessions_to_come_again(
    backend: Backend,
) {
    let Some(mut cluster) = Cluster::start(backend, 1).await else { return };
    let (mut a, _) = cluster.connect(&cluster.user("alice"), json!({})).await;
    let stopping = tokio::spawn(stop(cluster.take(0)));
    let (code, reason) = a.close_code().await;
    stopping.await.expect("no panic");
    let table = cluster.store().table().await.expect("the store answers");
    let left = (table.nodes.len(), table.rows.len());
    assert_eq!((code, left), (3001, (0, 0)), "closed with {reason:?}; nodes and rows that are left");
}

/// P2 and P3 over a failover.
/// One of three nodes is killed while users on all of them write to each other.
pub(crate) async fn after_a_crash_of_a_node_nothing_that_was_acknowledged_is_lost(backend: Backend) {
    let Some(mut cluster) = busy(backend).start().await else { return };
    converse(&mut cluster, async |cluster: &mut Cluster| cluster.kill(1)).await;
}

/// P2 on the embedded back end: what was not delivered survives a restart of everything, and so do ids and cursors.
/// Once the cluster is stopped in order, once it ends as in a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undelivered_messages_survive_a_restart_of_the_embedded_cluster() {
    let dir = TempDir::default();
    let backend = Backend::File(dir.path().to_owned());
    let Some(cluster) = Cluster::start(backend.clone(), 3).await else { return };
    let (alice, bob, bob_too) = (cluster.user("alice"), cluster.user("bob"), cluster.user("bob"));
    let mut first_at = None;
    let (b, welcome) = cluster.connect(&bob, json!({"device": "phone"})).await;
    let mut cursor = welcome["cursor"].clone();
    let generation = cursor["generation"].clone();
    b.close().await;
    let mut cluster = Some(cluster);
    for (life, in_order) in [(0, true), (1, false), (2, false)] {
        let running = match cluster.take() {
            Some(running) => running,
            None => Cluster::start(backend.clone(), 3).await.expect("nothing is needed"),
        };
        let (mut b, welcome) = running.connect(&bob, json!({"device": "phone", "cursor": cursor})).await;
        let missed = if life == 0 { 0 } else { 5 };
        assert_eq!((&welcome["recovered"], &welcome["replayed"]), (&json!(true), &json!(missed)));
        assert_eq!(welcome["cursor"]["generation"], generation, "it is the same life of the data");
        for i in 5 * life - missed + 1..=5 * life {
            let message = b.message().await;
            assert_eq!((&message["offset"], &message["data"]["i"]), (&json!(i), &json!(i)));
            cursor = cursor_of(&message);
        }
        b.close().await;
        let (mut a, _) = running.connect(&alice, json!({})).await;
        let at = a.ask("once-for-all-lives", &bob_too, json!(0)).await["ok"]["at"].clone();
        assert_eq!(*first_at.get_or_insert_with(|| at.clone()), at, "an id is known over a restart");
        pump(&mut a, &bob, 5 * life + 1..=5 * life + 5, 0).await;
        if in_order { running.stop().await } else { drop(running) }
    }
}
