//! Who is there, as others see it: `/presence` and `user_status_events`.

use roost_proto::claims::Role;
use roost_proto::{UserId, VnodeId};
use roost_tests::cluster::{Backend, Cluster, Setup, eventually, token_of};
use serde_json::{Value, json};

use crate::held_log::HeldLog;

/// Longer than a reconnect takes on the slowest machine, short enough to wait for once.
const LONG_LINGER_MS: u64 = 1_500;

fn changes(records: Vec<roost_tests::cluster::Record>) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    records.iter().map(|r| (text(&r.value["status"]), text(&r.value["cause"]))).collect()
}

/// P6: online with the first session, offline when the last one has been gone for the linger.
/// Two devices come and go one after the other.
pub(crate) async fn a_user_is_online_from_the_first_session_and_offline_after_the_last(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let mut events = cluster.tail("user_status_events").await;
    let bob = cluster.user_at(1).await;
    let before = cluster.presence(&bob).await;
    let never = json!({"user_id": bob, "status": "offline", "since": null, "last_seen": null, "sessions": 0});
    assert_eq!(before, never);
    let (phone, _) = cluster.connect(&bob, json!({"device": "phone"})).await;
    let shown = cluster.presence_is(&bob, "online").await;
    assert!(shown["since"].is_string() && shown["last_seen"].is_null(), "{shown}");
    let (laptop, _) = cluster.connect(&bob, json!({"device": "laptop"})).await;
    let both = eventually("both are counted", async || {
        let shown = cluster.presence(&bob).await;
        (shown["sessions"] == 2).then_some(shown)
    });
    assert_eq!(both.await["since"], shown["since"], "a second device is no change");
    phone.close().await;
    let one = eventually("one is left", async || {
        let shown = cluster.presence(&bob).await;
        (shown["sessions"] == 1).then_some(shown)
    });
    assert_eq!(one.await["status"], "online");
    laptop.close().await;
    let shown = cluster.presence_is(&bob, "offline").await;
    assert!(shown["since"].is_string() && shown["last_seen"].is_string(), "{shown}");
    assert_eq!(shown["sessions"], 0);
    let told = changes(events.records(&bob, 2).await);
    let expected = [("online", "connected"), ("offline", "disconnected")];
    assert_eq!(told, expected.map(|(s, c)| (s.to_owned(), c.to_owned())));
}

/// P6: who is back within the linger never flaps.
/// The only session closes and comes back three times, then goes for good: one `online`, one `offline`.
pub(crate) async fn a_quick_reconnect_is_not_seen_by_anybody(backend: Backend) {
    let setup = Setup::new(backend, 2).tune(|_, config| config.core.linger_ms = LONG_LINGER_MS);
    let Some(cluster) = setup.start().await else { return };
    let mut events = cluster.tail("user_status_events").await;
    let bob = cluster.user_at(1).await;
    let (mut session, _) = cluster.connect(&bob, json!({})).await;
    let since = cluster.presence_is(&bob, "online").await["since"].clone();
    for _ in 0..3 {
        session.close().await;
        session = cluster.connect(&bob, json!({})).await.0;
        assert_eq!(cluster.presence(&bob).await["since"], since);
    }
    session.close().await;
    cluster.presence_is(&bob, "offline").await;
    let told = changes(events.records(&bob, 2).await);
    assert_eq!(told.iter().map(|(status, _)| status.as_str()).collect::<Vec<_>>(), ["online", "offline"]);
}

/// What a user chooses is what others see, and it holds over a reconnect; invisible looks exactly like offline.
/// One session goes through all of it while another one stays.
pub(crate) async fn a_user_shows_what_it_chose(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let mut events = cluster.tail("user_status_events").await;
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    b.choose("s-1", "away").await;
    // The reply means that it is so: no waiting here.
    let shown = cluster.presence(&bob).await;
    assert_eq!((&shown["status"], &shown["sessions"]), (&json!("away"), &json!(1)));
    b.choose("s-2", "invisible").await;
    let hidden = cluster.presence(&bob).await;
    assert_eq!((&hidden["status"], &hidden["sessions"]), (&json!("offline"), &json!(0)));
    assert!(hidden["last_seen"].is_string(), "{hidden}");

    // Really gone, and back, still hidden: nothing of it shows.
    b.close().await;
    let user = UserId::new(&bob).expect("an id");
    let vnode = VnodeId(u16::try_from(cluster.route(&bob).await.vnode).expect("a vnode"));
    eventually("the user is gone", async || {
        let rows = cluster.store().presence(vnode, std::slice::from_ref(&user)).await.ok()?.rows;
        rows[0].roster.is_none().then_some(())
    })
    .await;
    assert_eq!(cluster.presence(&bob).await, hidden);
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    eventually("the user is back", async || {
        let rows = cluster.store().presence(vnode, std::slice::from_ref(&user)).await.ok()?.rows;
        rows[0].roster.as_ref().map(|_| ())
    })
    .await;
    assert_eq!(cluster.presence(&bob).await, hidden);
    b.choose("s-3", "online").await;
    assert_eq!(cluster.presence(&bob).await["status"], "online");
    let told = changes(events.records(&bob, 4).await);
    let statuses: Vec<_> = told.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["online", "away", "offline", "online"]);
}

/// P9: a status is acknowledged when it is kept, not before, however fast it follows the one before it.
/// The log is stopped; two choices come in one packet, and then a command that is answered without the log.
pub(crate) async fn a_status_is_not_acknowledged_before_it_is_kept(backend: Backend) {
    let gate = HeldLog::default();
    let between = gate.clone();
    let Some(cluster) = Setup::new(backend, 2).log(move |log| between.before(log)).start().await else {
        return;
    };
    let mut events = cluster.tail("user_status_events").await;
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    // Answered when everything before it is in the log: nothing is on its way when the log stops.
    b.ask("m-0", &bob, json!(0)).await;
    gate.close();
    let status = |id: &str, status: &str| json!({"type": "status", "id": id, "status": status});
    let send = |data: u64| json!({"type": "send", "id": "m-1", "to": bob, "data": data});
    b.send_all([status("s-1", "away"), status("s-2", "invisible"), send(1), send(2)]).await;
    let first = b.frame_of("reply").await;
    assert_eq!((&first["id"], &first["error"]["code"]), (&json!("m-1"), &json!("conflict")), "{first}");
    gate.open();
    for id in ["s-1", "s-2", "m-1"] {
        assert!(b.reply(id).await["ok"].is_object());
    }
    assert_eq!(cluster.presence(&bob).await["status"], "offline");
    let told = changes(events.records(&bob, 3).await);
    let expected = [("online", "connected"), ("away", "chosen"), ("offline", "chosen")];
    assert_eq!(told, expected.map(|(s, c)| (s.to_owned(), c.to_owned())));
}

/// A list is answered in its order, at most 500 at once.
/// 500 users on all nodes, one of them online.
pub(crate) async fn five_hundred_users_are_answered_at_once_and_in_order(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 3).await else { return };
    let mut users: Vec<_> = (0..499).map(|i| format!("u{i}")).collect();
    let bob = cluster.user("bob");
    users.insert(250, bob.clone());
    let (_b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    let path = format!("/presence?userIds={}", users.join(","));
    let authorization = format!("Bearer {}", token_of("service", Role::Service));
    let answer = roost_tests::wire::get(&cluster.url(), &path, &[("authorization", &authorization)]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let shown: Vec<_> =
        body["users"].as_array().expect("a list").iter().map(|u| u["user_id"].clone()).collect();
    assert_eq!(shown, users);
    assert_eq!(
        (&body["users"][250]["status"], &body["users"][0]["status"]),
        (&json!("online"), &json!("offline"))
    );
}
