//! Watchers (rule 30): what they are told when publications or data are lost, and when they do not read.

use roost_backend::store::model::VnodeData;
use roost_proto::events::Status;
use roost_proto::frames::ChosenStatus;
use roost_ws_node::core::Rule;

use super::rig::{LEASE_TTL_MS, Rig};

const COMPARE_MS: u64 = 5000;
/// As by default.
const LINGER_MS: u64 = 10_000;
const GRACE_MS: u64 = 20_000;

/// Somebody at node 0 watches a user of node 1: the rig, both, and the user's name.
fn a_watcher_of_bob(off: Option<Rule>) -> (Rig, u64, u64, String) {
    let mut rig = Rig::new(&[0, 1], off);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (watcher, session) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.run(100);
    rig.watch(watcher, &[&bob], "w1");
    rig.run(100);
    assert_eq!(rig.told(watcher, "w1"), ["ok"]);
    assert_eq!(rig.seen_of(watcher, &bob), [Status::Online], "what is now comes with the answer");
    (rig, watcher, session, bob)
}

fn the_last_publication_is_lost(off: Option<Rule>) -> Vec<Status> {
    let (mut rig, watcher, session, bob) = a_watcher_of_bob(off);
    rig.choose(session, ChosenStatus::Away, "s1");
    rig.run(100);
    rig.live.deaf.insert(0);
    rig.choose(session, ChosenStatus::Invisible, "s2");
    rig.run(COMPARE_MS + 500);
    rig.seen_of(watcher, &bob)
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
    let (mut rig, watcher, session, bob) = a_watcher_of_bob(Some(Rule::ComparePresence));
    let carol = rig.user(1, 1);
    rig.watch(watcher, &[&carol], "w2");
    rig.run(100);
    rig.live.deaf.insert(0);
    rig.choose(session, ChosenStatus::Away, "s1");
    rig.run(100);
    rig.live.deaf.clear();
    rig.connect(1, &carol);
    rig.run(100);
    assert_eq!(rig.seen_of(watcher, &bob), [Status::Online, Status::Away]);
    assert_eq!(rig.seen_of(watcher, &carol), [Status::Offline, Status::Online]);
}

/// The store forgets a vnode; its home notices when it writes next, and puts back who is there.
fn the_roster_is_lost_while_a_user_is_there(off: Option<Rule>) -> Vec<Status> {
    let (mut rig, watcher, _, bob) = a_watcher_of_bob(off);
    // Until everything is written, and the outbox trimmed.
    rig.run(2000);
    rig.data[1] = VnodeData::default();
    rig.run(2 * COMPARE_MS);
    rig.connect(1, &bob);
    rig.run(GRACE_MS + 2 * COMPARE_MS);
    rig.seen_of(watcher, &bob)
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
    let (mut rig, watcher, _, bob) = a_watcher_of_bob(None);
    rig.freeze(1);
    rig.no_store.insert(0);
    rig.run(LEASE_TTL_MS + 1000);
    rig.wipe();
    rig.assign(0, 0);
    rig.assign(1, 0);
    rig.no_store.clear();
    rig.run(GRACE_MS);
    assert_eq!(rig.seen_of(watcher, &bob), [Status::Online], "there is time to come back");
    rig.run(LEASE_TTL_MS + 3 * COMPARE_MS);
    assert_eq!(rig.seen_of(watcher, &bob), [Status::Online, Status::Offline]);
}

#[test]
fn who_does_not_read_has_one_frame_waiting_for_each_user_and_ends_right() {
    let (mut rig, watcher, session, bob) = a_watcher_of_bob(None);
    rig.stalled.insert(watcher);
    for i in 0..100 {
        let status = if i % 2 == 0 { ChosenStatus::Away } else { ChosenStatus::Online };
        rig.choose(session, status, &format!("s{i}"));
        rig.run(50);
    }
    rig.hang_up(session);
    rig.run(LINGER_MS + 1000);
    let handed = rig.seen_of(watcher, &bob).len();
    rig.drain(watcher);
    rig.run(100);
    let seen = rig.seen_of(watcher, &bob);
    assert_eq!((seen.len(), seen.last()), (handed + 1, Some(&Status::Offline)));
}

/// While the store is away nothing can be said; whoever waited too long is told, and asks again.
#[test]
fn a_watch_that_cannot_be_answered_is_refused_in_time_and_can_be_repeated() {
    let (mut rig, watcher, session, bob) = a_watcher_of_bob(None);
    let carol = rig.user(1, 1);
    rig.no_store.insert(0);
    rig.watch(watcher, &[&bob, &carol], "w2");
    rig.run(21_000);
    assert_eq!(rig.told(watcher, "w2"), ["unavailable"]);
    rig.no_store.clear();
    rig.connect(1, &carol);
    rig.run(LEASE_TTL_MS);
    assert_eq!(rig.seen_of(watcher, &carol), [], "nothing before the answer");
    rig.watch(watcher, &[&bob, &carol], "w3");
    rig.run(100);
    assert_eq!((rig.told(watcher, "w3"), rig.seen_of(watcher, &carol)), (vec!["ok"], vec![Status::Online]));
    rig.unwatch(watcher, &[&bob], "u1");
    rig.choose(session, ChosenStatus::Away, "s1");
    rig.run(2 * COMPARE_MS);
    assert!(!rig.seen_of(watcher, &bob).contains(&Status::Away), "nothing of who is not watched any more");
}
