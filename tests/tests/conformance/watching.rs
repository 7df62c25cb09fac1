//! Watching others' presence: `watch`, what comes with its answer, and the `presence` frames after it.

use roost_client::{Event, Status};
use roost_proto::{UserId, VnodeId};
use roost_tests::cluster::{Backend, Cluster, Setup, eventually, stop, token_to_watch};
use roost_tests::wire::{LIMIT, Wire};
use serde_json::{Value, json};

/// Who can come back within it does, on the slowest machine.
const LONG_GRACE_MS: u64 = 5_000;

/// What `/presence` says, as a watcher is told it.
async fn shown(cluster: &Cluster, user: &str) -> Value {
    let is = cluster.presence(user).await;
    json!({"user": user, "status": is["status"], "since": is["since"], "last_seen": is["last_seen"]})
}

/// The next `presence` frame, without its tag.
async fn told(watcher: &mut Wire) -> Value {
    let mut frame = watcher.frame_of("presence").await;
    frame.as_object_mut().expect("an object").remove("type");
    frame
}

/// The next frame is of this user and status, and says what `/presence` says.
async fn is_told(cluster: &Cluster, watcher: &mut Wire, user: &str, status: &str) {
    let frame = told(watcher).await;
    assert_eq!((&frame["user"], &frame["status"]), (&json!(user), &json!(status)), "{frame}");
    assert_eq!(frame, shown(cluster, user).await);
}

/// P6: what is, and then each change, in order; seen from another node.
/// A user comes with two devices, goes away and comes back, leaves, while somebody else changes too.
pub(crate) async fn a_watcher_is_given_what_is_and_then_every_change_in_order(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let [alice, bob, carol] = [cluster.user_at(0).await, cluster.user_at(1).await, cluster.user_at(2).await];
    let (_carol, _) = cluster.connect(&carol, json!({})).await;
    cluster.presence_is(&carol, "online").await;
    let (mut watcher, _) = cluster.connect(&alice, json!({})).await;
    let now = watcher.watch("w-1", &[&bob, &carol, &bob]).await;
    let nobody = json!({"user": bob, "status": "offline", "since": null, "last_seen": null});
    assert_eq!(now, [nobody, shown(&cluster, &carol).await], "each once, in the order asked");
    let (mut phone, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
    is_told(&cluster, &mut watcher, &bob, "online").await;
    let (laptop, _) = cluster.connect(&bob, json!({"device": "laptop"})).await;
    phone.choose("s-1", "away").await;
    is_told(&cluster, &mut watcher, &bob, "away").await;
    phone.choose("s-2", "online").await;
    is_told(&cluster, &mut watcher, &bob, "online").await;
    phone.close().await;
    laptop.close().await;
    is_told(&cluster, &mut watcher, &bob, "offline").await;
    // What is watched already may be watched again.
    assert_eq!(watcher.watch("w-2", &[&bob]).await, [shown(&cluster, &bob).await]);
    assert!(watcher.ask_about("u-1", "unwatch", &[&bob, "a stranger"]).await["ok"].is_object());
    let (_bob, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    let (mut carol2, _) = cluster.connect(&carol, json!({})).await;
    carol2.choose("s-1", "away").await;
    is_told(&cluster, &mut watcher, &carol, "away").await;
}

/// P6: an invisible user cannot be told from one who left, when hiding, when really going and when coming back.
/// The user does all of that; the only frame after the first is the one of coming out again.
pub(crate) async fn an_invisible_user_looks_to_watchers_as_after_going(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut watcher, _) = cluster.connect(&alice, json!({})).await;
    watcher.watch("w-1", &[&bob]).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    is_told(&cluster, &mut watcher, &bob, "online").await;
    b.choose("s-1", "invisible").await;
    is_told(&cluster, &mut watcher, &bob, "offline").await;
    let hidden = shown(&cluster, &bob).await;
    b.close().await;
    let (user, vnode) = (UserId::new(&bob).expect("an id"), cluster.route(&bob).await.vnode);
    let vnode = VnodeId(u16::try_from(vnode).expect("a vnode"));
    let in_roster = async || {
        let read = cluster.store().presence(vnode, std::slice::from_ref(&user)).await.ok()?;
        Some(read.rows[0].roster.is_some())
    };
    eventually("the user is gone", async || in_roster().await.filter(|there| !there)).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    eventually("the user is back", async || in_roster().await.filter(|there| *there)).await;
    assert_eq!(watcher.watch("w-2", &[&bob]).await, [hidden]);
    b.choose("s-2", "online").await;
    is_told(&cluster, &mut watcher, &bob, "online").await;
}

/// P6: who comes back within the grace never flaps; who does not is told offline, once.
/// The home of two watched users is killed; one of them comes back at once.
pub(crate) async fn of_a_dead_node_only_who_does_not_come_back_is_told_offline(backend: Backend) {
    let setup = Setup::new(backend, 3).tune(|_, config| config.core.grace_ms = LONG_GRACE_MS);
    let Some(mut cluster) = setup.start().await else { return };
    let [alice, bob, dave] = [cluster.user_at(0).await, cluster.user_at(1).await, cluster.user_at(1).await];
    let (_b, _) = cluster.connect(&bob, json!({})).await;
    let (_d, _) = cluster.connect(&dave, json!({})).await;
    for user in [&bob, &dave] {
        cluster.presence_is(user, "online").await;
    }
    let (mut watcher, _) = cluster.connect(&alice, json!({})).await;
    let before = watcher.watch("w-1", &[&bob, &dave]).await;
    assert_eq!(before[0]["status"], "online");
    cluster.kill(1);
    cluster.settled().await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    is_told(&cluster, &mut watcher, &dave, "offline").await;
    assert_eq!(shown(&cluster, &bob).await, before[0], "since before the crash");
    b.choose("s-1", "away").await;
    is_told(&cluster, &mut watcher, &bob, "away").await;
}

/// P8: a watcher follows its home, watches again there, and what changed meanwhile is in the answer.
/// The watcher's node is stopped in order; a watched user goes away before it watches again.
pub(crate) async fn a_watcher_whose_home_moves_watches_again_and_misses_nothing(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    let (mut watcher, _) = cluster.connect(&alice, json!({})).await;
    assert_eq!(watcher.watch("w-1", &[&bob]).await[0]["status"], "online");
    let stopping = tokio::spawn(stop(cluster.take(0)));
    watcher.frame_of("moved").await;
    // Bob's home may be on its way too: then this is answered later.
    b.choose("s-1", "away").await;
    let (mut watcher, _) = cluster.connect(&alice, json!({})).await;
    assert_eq!(watcher.watch("w-2", &[&bob]).await, [shown(&cluster, &bob).await]);
    b.choose("s-2", "online").await;
    is_told(&cluster, &mut watcher, &bob, "online").await;
    stopping.await.expect("the node stops");
}

/// Each refusal has its code, and a refused command watches nobody.
/// A token that names whom to watch, one that names nobody where that is needed, and more than the budget.
pub(crate) async fn what_may_not_be_watched_gets_its_code(backend: Backend) {
    let setup = Setup::new(backend, 3).tune(|i, config| {
        config.core.watched_per_session_max = 3;
        config.core.watch_needs_claim = i == 2;
    });
    let Some(cluster) = setup.start().await else { return };
    let [alice, bob, eve] = [cluster.user_at(0).await, cluster.user_at(1).await, cluster.user_at(2).await];
    let code = |reply: &Value| reply["error"]["code"].as_str().unwrap_or("ok").to_owned();
    let url = cluster.route(&alice).await.url;
    let mut named = Wire::connect(&url, json!({"token": token_to_watch(&alice, &["team-*", &bob])})).await;
    named.frame_of("welcome").await;
    assert_eq!(code(&named.ask_about("w-1", "watch", &["team-7", "carol"]).await), "forbidden");
    assert_eq!(code(&named.ask_about("w-2", "watch", &["team-7", &bob]).await), "ok");
    assert_eq!(code(&named.ask_about("w-3", "watch", &["team-1", "team-2"]).await), "too_large");
    assert_eq!(code(&named.ask_about("w-4", "watch", &["team-1", &bob, "team-1"]).await), "ok", "each once");
    assert_eq!(code(&named.ask_about("w-5", "watch", &["team-2"]).await), "too_large");
    assert_eq!(code(&named.ask_about("u-1", "unwatch", &["team-7"]).await), "ok");
    assert_eq!(code(&named.ask_about("w-6", "watch", &["team-2"]).await), "ok");
    for (id, users) in [("w-7", json!(["#rooms"])), ("w-8", json!(bob)), ("w-9", json!(null))] {
        named.send_text(&json!({"type": "watch", "id": id, "users": users}).to_string()).await;
        assert_eq!(code(&named.reply(id).await), "bad_request");
    }
    // Nobody of the refused command is watched.
    let (_b, _) = cluster.connect(&bob, json!({})).await;
    assert_eq!(told(&mut named).await["user"], json!(bob));
    let (mut unnamed, _) = cluster.connect(&eve, json!({})).await;
    assert_eq!(code(&unnamed.ask_about("w-1", "watch", &[&bob]).await), "forbidden");
    let url = cluster.route(&eve).await.url;
    let mut any = Wire::connect(&url, json!({"token": token_to_watch(&eve, &["*"])})).await;
    any.frame_of("welcome").await;
    assert_eq!(any.watch("w-1", &[&bob]).await[0]["status"], "online");
}

/// A token that allows less ends what it does not allow, at once and without closing anything.
/// The watcher shows one that names one of the two it watches.
pub(crate) async fn a_token_that_allows_less_ends_what_is_watched(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let [alice, bob, carol] = [cluster.user_at(0).await, cluster.user_at(1).await, cluster.user_at(1).await];
    let (mut watcher, _) = cluster.connect(&alice, json!({})).await;
    watcher.watch("w-1", &[&bob, &carol]).await;
    let token = token_to_watch(&alice, &[&carol]);
    watcher.send(json!({"type": "refresh", "id": "r-1", "token": token})).await;
    assert!(watcher.reply("r-1").await["ok"].is_object());
    let (_b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    let (_c, _) = cluster.connect(&carol, json!({})).await;
    is_told(&cluster, &mut watcher, &carol, "online").await;
}

/// P6: the SDK watches again by itself, and tells what changed meanwhile.
/// The home of the watcher is killed, and the watched user goes away.
pub(crate) async fn the_sdk_watches_on_after_a_crash_of_its_home(backend: Backend) {
    let Some(mut cluster) = Cluster::start(backend, 3).await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    let (client, mut events) = cluster.client(&alice).await;
    let shown = client.watch([&bob]).await.expect("watched");
    assert_eq!(shown.iter().map(|shown| shown.status).collect::<Vec<_>>(), [Status::Online]);
    cluster.kill(0);
    b.choose("s-1", "away").await;
    let told = async {
        loop {
            match events.recv().await.expect("the client goes on") {
                Event::Presence(told) if told[0].status == Status::Away => return told,
                _ => {}
            }
        }
    };
    let told = tokio::time::timeout(LIMIT, told).await.expect("told in time");
    assert_eq!(told.iter().map(|shown| shown.user.as_str()).collect::<Vec<_>>(), [bob.as_str()]);
    client.close().await;
}
