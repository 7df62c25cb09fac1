//! What one user may have of what all share, and what goes another way than leases (decision 16).

use roost_proto::ids::VnodeId;
use roost_ws_node::core::Rule;
use roost_ws_node::core::ShareConfig;

use super::rig::{Reach, Rig};

fn with_shares(off: Option<Rule>, shares: ShareConfig) -> Rig {
    Rig::with(&[0, 1], off, |cfg| cfg.shares = shares)
}

/// P3: there is a place again for the later one, and the earlier one has not come yet. Returns the order kept.
fn a_refusal_in_the_middle_of_a_stream(off: Option<Rule>) -> Vec<String> {
    let mut rig = with_shares(off, ShareConfig { to_one: (1, 2), ..ShareConfig::unlimited() });
    let (alice, bob, carol) = (rig.user(0, 0), rig.user(1, 0), rig.user(1, 1));
    let alice = rig.connect(0, &alice);
    for id in ["m1", "m2", "m3"] {
        rig.say(alice, &bob, id);
    }
    rig.run(100);
    assert_eq!((rig.told(alice, "m2"), rig.told(alice, "m3")), (vec!["ok"], vec!["rate_limited"]));
    rig.say(alice, &carol, "c1");
    rig.run(1500);
    assert_eq!(rig.told(alice, "c1"), ["ok"], "another receiver has another share");
    rig.say(alice, &bob, "m4");
    rig.run(1100);
    for id in ["m3", "m4"] {
        rig.say(alice, &bob, id);
        rig.run(1100);
        assert_eq!(rig.told(alice, id).last(), Some(&"ok"), "{id}");
    }
    rig.logged(&bob)
}

#[test]
fn what_a_share_refuses_is_repeated_before_anything_later_is_taken() {
    assert_eq!(a_refusal_in_the_middle_of_a_stream(None), ["m1", "m2", "m3", "m4"]);
    assert_eq!(a_refusal_in_the_middle_of_a_stream(Some(Rule::RefusalBlocks)), ["m1", "m2", "m4", "m3"]);
}

#[test]
fn all_sessions_of_a_user_have_one_share_and_another_has_its_own() {
    let mut rig = with_shares(None, ShareConfig { to_one: (1, 10), ..ShareConfig::unlimited() });
    let (alice, eve, bob) = (rig.user(0, 0), rig.user(0, 1), rig.user(1, 0));
    let sessions: Vec<_> = (0..4).map(|_| rig.connect(0, &eve)).collect();
    for n in 0..40 {
        rig.say(sessions[n % 4], &bob, &format!("e{n}"));
    }
    let alice = rig.connect(0, &alice);
    rig.say(alice, &bob, "a1");
    rig.run(200);
    let refused = (0..40).filter(|n| rig.told(sessions[n % 4], &format!("e{n}")) == ["rate_limited"]);
    assert_eq!(refused.count(), 30);
    assert_eq!(rig.told(alice, "a1"), ["ok"]);
}

/// Credit in bytes: copies are per socket, and the rest stays in the stream.
#[test]
fn a_socket_that_takes_nothing_is_sent_a_quarter_of_a_megabyte_and_misses_nothing() {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (sender, reader) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.stalled.insert(reader);
    let large = format!("\"{}\"", "x".repeat(60_000));
    let ids: Vec<_> = (0..30).map(|n| format!("m{n}")).collect();
    for id in &ids {
        rig.say_this(sender, &bob, id, &large);
        rig.run(100);
    }
    assert_eq!(rig.inbox(reader), ids[..4], "four of the largest");
    rig.run(5000);
    assert_eq!(rig.inbox(reader).len(), 4);
    rig.drain(reader);
    rig.run(2000);
    assert_eq!(rig.inbox(reader), ids);
}

/// Rule 23: leases are renewed over another connection. What does not answer is given up, and comes back by itself.
#[test]
fn a_vnode_whose_data_does_not_answer_is_not_renewed_for_ever() {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let sender = rig.connect(0, &alice);
    let before = rig.control.table(rig.store_now()).rows[&VnodeId(1)].clone();
    rig.writes = Box::new(|write| match write.fence.vnode {
        VnodeId(1) => Reach::Late,
        _ => Reach::Answered,
    });
    rig.say(sender, &bob, "m1");
    rig.run(4 * super::rig::LEASE_TTL_MS);
    let after = rig.control.table(rig.store_now()).rows.get(&VnodeId(1)).cloned();
    assert!(after.is_none_or(|row| row.epoch > before.epoch), "it was claimed anew, or nobody has it");
    rig.writes = Box::new(|_| Reach::Answered);
    rig.run(20_000);
    rig.say(sender, &bob, "m1");
    rig.run(2000);
    assert_eq!(rig.told(sender, "m1").last(), Some(&"ok"));
    assert_eq!(rig.logged(&bob), ["m1"], "once");
}
