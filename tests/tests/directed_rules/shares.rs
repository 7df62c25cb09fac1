//! What one user may have of what all share, and what goes another way than leases (decision 16).

use roost_proto::ids::VnodeId;
use roost_ws_node::core::{Rule, ShareConfig};

use super::harness::{Harness, Reach};

fn with_shares(off: Option<Rule>, shares: ShareConfig) -> Harness {
    Harness::with(&[0, 1], off, |cfg| cfg.shares = shares)
}

/// P3: there is a place again for the later one, and the earlier one has not come yet. Returns the order kept.
fn a_refusal_in_the_middle_of_a_stream(off: Option<Rule>) -> Vec<String> {
    let mut harness = with_shares(off, ShareConfig { to_one: (1, 2), ..ShareConfig::unlimited() });
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(1, 0), harness.user(1, 1));
    let alice = harness.connect(0, &alice);
    for id in ["m1", "m2", "m3"] {
        harness.say(alice, &bob, id);
    }
    harness.run(100);
    assert_eq!((harness.told(alice, "m2"), harness.told(alice, "m3")), (vec!["ok"], vec!["rate_limited"]));
    harness.say(alice, &carol, "c1");
    harness.run(1500);
    assert_eq!(harness.told(alice, "c1"), ["ok"], "another receiver has another share");
    harness.say(alice, &bob, "m4");
    harness.run(1100);
    for id in ["m3", "m4"] {
        harness.say(alice, &bob, id);
        harness.run(1100);
        assert_eq!(harness.told(alice, id).last(), Some(&"ok"), "{id}");
    }
    harness.logged(&bob)
}

#[test]
fn what_a_share_refuses_is_repeated_before_anything_later_is_taken() {
    assert_eq!(a_refusal_in_the_middle_of_a_stream(None), ["m1", "m2", "m3", "m4"]);
    assert_eq!(a_refusal_in_the_middle_of_a_stream(Some(Rule::RefusalBlocks)), ["m1", "m2", "m4", "m3"]);
}

#[test]
fn all_sessions_of_a_user_have_one_share_and_another_has_its_own() {
    let mut harness = with_shares(None, ShareConfig { to_one: (1, 10), ..ShareConfig::unlimited() });
    let (alice, eve, bob) = (harness.user(0, 0), harness.user(0, 1), harness.user(1, 0));
    let sessions: Vec<_> = (0..4).map(|_| harness.connect(0, &eve)).collect();
    for n in 0..40 {
        harness.say(sessions[n % 4], &bob, &format!("e{n}"));
    }
    let alice = harness.connect(0, &alice);
    harness.say(alice, &bob, "a1");
    harness.run(200);
    let refused = (0..40).filter(|n| harness.told(sessions[n % 4], &format!("e{n}")) == ["rate_limited"]);
    assert_eq!(refused.count(), 30);
    assert_eq!(harness.told(alice, "a1"), ["ok"]);
}

/// Names cost nothing: those that bob never wrote to have one rate together, whom he wrote to has another.
#[test]
fn ten_made_up_senders_do_to_an_inbox_what_one_may() {
    let defaults = ShareConfig::default();
    let shares =
        ShareConfig { to_one: defaults.to_one, from_new: defaults.from_new, ..ShareConfig::unlimited() };
    let mut harness = with_shares(None, shares);
    let bob = harness.user(1, 0);
    let (alice, reader) = (harness.user(0, 10), harness.connect(1, &bob));
    let sender = harness.connect(0, &alice);
    harness.say(reader, &alice, "hello");
    harness.run(100);
    let made_up: Vec<_> = (0..10)
        .map(|n| {
            let name = harness.user(0, n);
            harness.connect(0, &name)
        })
        .collect();
    for (n, session) in made_up.iter().enumerate() {
        for m in 0..100 {
            harness.say(*session, &bob, &format!("e{n}-{m}"));
        }
    }
    for n in 0..100 {
        harness.say(sender, &bob, &format!("a{n}"));
    }
    harness.run(500);
    let taken = harness.logged(&bob);
    let of_alice = taken.iter().filter(|id| id.starts_with('a')).count();
    assert_eq!(of_alice, 100, "who was written to is nobody's stranger");
    let of_made_up = taken.len() - of_alice;
    assert!((80..=100).contains(&of_made_up), "a thousand that were said at once: {of_made_up}");
}

/// P3: what is said before `welcome` is bounded in bytes, and what found no room is repeated before anything later.
#[test]
fn what_found_no_room_before_welcome_is_refused_in_its_turn() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(1, 0), harness.user(1, 1));
    harness.writes = Box::new(|write| match write.fence.vnode {
        VnodeId(0) => Reach::Underway,
        _ => Reach::Answered,
    });
    let sender = harness.connect(0, &alice);
    let large = format!("\"{}\"", "x".repeat(60_000));
    let ids: Vec<_> = (1..=6).map(|n| format!("m{n}")).collect();
    for id in &ids {
        harness.say_this(sender, &bob, id, &large);
    }
    harness.say(sender, &bob, "m7");
    harness.say(sender, &carol, "c1");
    harness.run(200);
    assert!(harness.frames.is_empty(), "it is not welcome yet");
    harness.writes = Box::new(|_| Reach::Answered);
    harness.land();
    harness.run(500);
    for (id, answer) in ["m1", "m2", "m3", "m4", "c1"]
        .map(|id| (id, "ok"))
        .into_iter()
        .chain(["m5", "m6", "m7"].map(|id| (id, "rate_limited")))
    {
        assert_eq!(harness.told(sender, id), [answer], "{id}");
    }
    harness.say(sender, &bob, "m7");
    for id in &ids[4..] {
        harness.say_this(sender, &bob, id, &large);
        harness.run(500);
    }
    harness.say(sender, &bob, "m7");
    harness.run(500);
    assert_eq!(harness.logged(&bob), ["m1", "m2", "m3", "m4", "m5", "m6", "m7"]);
}

/// Each user that is watched anew may be one to look up in the store.
#[test]
fn who_watches_others_again_and_again_is_refused_and_another_is_not() {
    let shares = ShareConfig { watched: (1, 20), ..ShareConfig::unlimited() };
    let mut harness = with_shares(None, shares);
    let (eve, alice) = (harness.user(0, 0), harness.user(0, 1));
    let users: Vec<_> = (0..10).map(|n| harness.user(1, n)).collect();
    let users: Vec<_> = users.iter().map(String::as_str).collect();
    let (eve, alice) = (harness.connect(0, &eve), harness.connect(0, &alice));
    for n in 0..4 {
        harness.watch(eve, &users, &format!("w{n}"));
        harness.run(100);
        harness.unwatch(eve, &users, &format!("u{n}"));
        harness.run(100);
    }
    harness.watch(alice, &users, "w0");
    harness.run(100);
    let answers: Vec<_> = (0..4).map(|n| harness.told(eve, &format!("w{n}"))).collect();
    assert_eq!(answers, [["ok"], ["ok"], ["rate_limited"], ["rate_limited"]]);
    assert_eq!(harness.told(alice, "w0"), ["ok"]);
}

/// Credit in bytes: copies are per socket, and the rest stays in the stream.
#[test]
fn a_socket_that_takes_nothing_is_sent_a_quarter_of_a_megabyte_and_misses_nothing() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.stalled.insert(reader);
    let large = format!("\"{}\"", "x".repeat(60_000));
    let ids: Vec<_> = (0..30).map(|n| format!("m{n}")).collect();
    for id in &ids {
        harness.say_this(sender, &bob, id, &large);
        harness.run(100);
    }
    assert_eq!(harness.inbox(reader), ids[..4], "four of the largest");
    harness.run(5000);
    assert_eq!(harness.inbox(reader).len(), 4);
    harness.drain(reader);
    harness.run(2000);
    assert_eq!(harness.inbox(reader), ids);
}

/// The same of a vnode that waits for its turn to write, behind one whose write is not answered.
#[test]
fn a_vnode_that_waits_behind_a_write_without_an_answer_is_not_renewed_for_ever() {
    let mut harness = Harness::new(&[0, 1, 1, 1], None);
    let (alice, bob, carol) = (harness.user(0, 0), harness.user(1, 0), harness.user(2, 0));
    let sender = harness.connect(0, &alice);
    harness.run(2000);
    let before = harness.control.table(harness.store_now()).rows[&VnodeId(2)].clone();
    let mut first = true;
    harness.writes = Box::new(move |write| match write.fence.vnode {
        VnodeId(1) if std::mem::take(&mut first) => Reach::Late,
        VnodeId(1) => Reach::Underway,
        _ => Reach::Answered,
    });
    harness.say(sender, &bob, "m1");
    harness.run(1000);
    harness.say(sender, &carol, "m2");
    harness.run(4 * super::harness::LEASE_TTL_MS);
    let after = harness.control.table(harness.store_now()).rows.get(&VnodeId(2)).cloned();
    assert!(after.is_none_or(|row| row.epoch > before.epoch), "it was claimed anew, or nobody has it");
    harness.writes = Box::new(|_| Reach::Answered);
    harness.land();
    harness.run(30_000);
    for (id, to) in [("m1", &bob), ("m2", &carol)] {
        harness.say(sender, to, id);
        harness.run(2000);
        assert_eq!(harness.told(sender, id).last(), Some(&"ok"), "{id}");
        assert_eq!(harness.logged(to), [id], "once");
    }
}

/// Rule 23: leases are renewed over another connection. What does not answer is given up, and comes back by itself.
#[test]
fn a_vnode_whose_data_does_not_answer_is_not_renewed_for_ever() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let sender = harness.connect(0, &alice);
    let before = harness.control.table(harness.store_now()).rows[&VnodeId(1)].clone();
    harness.writes = Box::new(|write| match write.fence.vnode {
        VnodeId(1) => Reach::Late,
        _ => Reach::Answered,
    });
    harness.say(sender, &bob, "m1");
    harness.run(4 * super::harness::LEASE_TTL_MS);
    let after = harness.control.table(harness.store_now()).rows.get(&VnodeId(1)).cloned();
    assert!(after.is_none_or(|row| row.epoch > before.epoch), "it was claimed anew, or nobody has it");
    harness.writes = Box::new(|_| Reach::Answered);
    harness.run(20_000);
    harness.say(sender, &bob, "m1");
    harness.run(2000);
    assert_eq!(harness.told(sender, "m1").last(), Some(&"ok"));
    assert_eq!(harness.logged(&bob), ["m1"], "once");
}
