//! Watchers (rule 30): what they are told when publications or data are lost, and when they do not read.

use roost_backend::store::model::VnodeData;
use roost_proto::events::Status;
use roost_proto::frames::ChosenStatus;
use roost_ws_node::core::Rule;

use super::harness::{Harness, LEASE_TTL_MS};

const COMPARE_MS: u64 = 5000;
/// As by default.
const LINGER_MS: u64 = 10_000;
const GRACE_MS: u64 = 20_000;

/// Somebody at node 0 watches a user of node 1: the rig, both, and the user's name.
fn a_watcher_of_bob(off: Option<Rule>) -> (Harness, u64, u64, String) {
    let mut harness = Harness::new(&[0, 1], off);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (watcher, session) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.run(100);
    harness.watch(watcher, &[&bob], "w1");
    harness.run(100);
    assert_eq!(harness.told(watcher, "w1"), ["ok"]);
    assert_eq!(harness.seen_of(watcher, &bob), [Status::Online], "what is now comes with the answer");
    (harness, watcher, session, bob)
}

fn the_last_publication_is_lost(off: Option<Rule>) -> Vec<Status> {
    let (mut harness, watcher, session, bob) = a_watcher_of_bob(off);
    harness.choose(session, ChosenStatus::Away, "s1");
    harness.run(100);
    harness.live.deaf.insert(0);
    harness.choose(session, ChosenStatus::Invisible, "s2");
    harness.run(COMPARE_MS + 500);
    harness.seen_of(watcher, &bob)
}

#[test]
fn a_lost_publication_is_found_by_comparing() {
    let all = [Status::Online, Status::Away, Status::Offline];
    assert_eq!(the_last_publication_is_lost(None), all);
    assert_eq!(the_last_publication_is_lost(Some(Rule::ComparePresence)), all[..2]);
}

/// Without comparing: the next one says by itself that one is missing.
#[test]
fn a_publication_that_does_not_follow_makes_everything_be_read() {
    let (mut harness, watcher, session, bob) = a_watcher_of_bob(Some(Rule::ComparePresence));
    let carol = harness.user(1, 1);
    harness.watch(watcher, &[&carol], "w2");
    harness.run(100);
    harness.live.deaf.insert(0);
    harness.choose(session, ChosenStatus::Away, "s1");
    harness.run(100);
    harness.live.deaf.clear();
    harness.connect(1, &carol);
    harness.run(100);
    assert_eq!(harness.seen_of(watcher, &bob), [Status::Online, Status::Away]);
    assert_eq!(harness.seen_of(watcher, &carol), [Status::Offline, Status::Online]);
}

/// The store forgets a vnode; its home notices when it writes next, and puts back who is there.
fn the_roster_is_lost_while_a_user_is_there(off: Option<Rule>) -> Vec<Status> {
    let (mut harness, watcher, _, bob) = a_watcher_of_bob(off);
    // Until everything is written, and the outbox trimmed.
    harness.run(2000);
    harness.data[1] = VnodeData::default();
    harness.run(2 * COMPARE_MS);
    harness.connect(1, &bob);
    harness.run(GRACE_MS + 2 * COMPARE_MS);
    harness.seen_of(watcher, &bob)
}

#[test]
fn after_a_loss_of_data_nobody_is_told_gone_who_is_there() {
    let seen = the_roster_is_lost_while_a_user_is_there(None);
    assert!(seen.iter().all(|status| *status == Status::Online), "{seen:?}");
    let off = the_roster_is_lost_while_a_user_is_there(Some(Rule::HoldOffline));
    assert!(off.contains(&Status::Offline), "{off:?}");
}

/// With the data went the only process that knew: nobody is left to publish that the user is gone.
#[test]
fn who_was_lost_with_the_data_and_does_not_come_back_is_told_gone_after_the_grace() {
    let (mut harness, watcher, _, bob) = a_watcher_of_bob(None);
    harness.freeze(1);
    harness.no_store.insert(0);
    harness.run(LEASE_TTL_MS + 1000);
    harness.wipe();
    harness.assign(0, 0);
    harness.assign(1, 0);
    harness.no_store.clear();
    harness.run(GRACE_MS);
    assert_eq!(harness.seen_of(watcher, &bob), [Status::Online], "there is time to come back");
    harness.run(LEASE_TTL_MS + 3 * COMPARE_MS);
    assert_eq!(harness.seen_of(watcher, &bob), [Status::Online, Status::Offline]);
}

#[test]
fn who_does_not_read_has_one_frame_waiting_for_each_user_and_ends_right() {
    let (mut harness, watcher, session, bob) = a_watcher_of_bob(None);
    harness.stalled.insert(watcher);
    for i in 0..100 {
        let status = if i % 2 == 0 { ChosenStatus::Away } else { ChosenStatus::Online };
        harness.choose(session, status, &format!("s{i}"));
        harness.run(50);
    }
    harness.hang_up(session);
    harness.run(LINGER_MS + 1000);
    let handed = harness.seen_of(watcher, &bob).len();
    harness.drain(watcher);
    harness.run(100);
    let seen = harness.seen_of(watcher, &bob);
    assert_eq!((seen.len(), seen.last()), (handed + 1, Some(&Status::Offline)));
}

/// While the store is away nothing can be said; whoever waited too long is told, and asks again.
#[test]
fn a_watch_that_cannot_be_answered_is_refused_in_time_and_can_be_repeated() {
    let (mut harness, watcher, session, bob) = a_watcher_of_bob(None);
    let carol = harness.user(1, 1);
    harness.no_store.insert(0);
    harness.watch(watcher, &[&bob, &carol], "w2");
    harness.run(21_000);
    assert_eq!(harness.told(watcher, "w2"), ["unavailable"]);
    harness.no_store.clear();
    harness.connect(1, &carol);
    harness.run(LEASE_TTL_MS);
    assert_eq!(harness.seen_of(watcher, &carol), [], "nothing before the answer");
    harness.watch(watcher, &[&bob, &carol], "w3");
    harness.run(100);
    assert_eq!(
        (harness.told(watcher, "w3"), harness.seen_of(watcher, &carol)),
        (vec!["ok"], vec![Status::Online])
    );
    harness.unwatch(watcher, &[&bob], "u1");
    harness.choose(session, ChosenStatus::Away, "s1");
    harness.run(2 * COMPARE_MS);
    assert!(
        !harness.seen_of(watcher, &bob).contains(&Status::Away),
        "nothing of who is not watched any more"
    );
}
