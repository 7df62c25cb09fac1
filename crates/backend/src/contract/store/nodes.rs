//! Ring, nodes, leader, assignment (promises 1, 2, 5, 6, 7).

use roost_proto::ids::{Epoch, Seq, VnodeId};

use super::*;

/// Promise 1.
pub async fn the_first_to_open_the_ring_names_the_data_set_and_its_size_stays(fixture: &dyn Fixture) {
    let first = fixture.open(CONFIG).await;
    let name = first.open_ring(VNODES).await.expect("a ring is made");
    assert!(!name.0.is_empty());
    let second = fixture.open(CONFIG).await;
    assert_eq!(second.open_ring(VNODES).await.expect("the same ring"), name);
    match second.open_ring(2 * VNODES).await {
        Err(StoreError::Vnodes { found, wanted }) => assert_eq!((found, wanted), (VNODES, 2 * VNODES)),
        other => panic!("another size must be refused, got {other:?}"),
    }
    let table = second.table().await.expect("the store answers");
    assert_eq!((table.vnodes, table.data_set, table.settling), (VNODES, name, false));
}

/// Promise 2, core rule 21.
pub async fn a_later_sid_replaces_and_an_earlier_does_not(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (early, late) = (sid("ws-1", 999), sid("ws-1", 1000));
    assert_eq!(a.register(&late).await, RegisterAnswer::Registered);
    assert_eq!(a.register(&late).await, RegisterAnswer::Registered, "a repeat is the same");
    assert_eq!(a.register(&early).await, RegisterAnswer::Replaced);
    let twin = Sid::new(&node("ws-1"), 1000, 0xdef);
    assert_eq!(a.register(&twin).await, RegisterAnswer::Replaced, "of two born together the first stays");
    assert_eq!(a.table().await.nodes[&node("ws-1")].sid, late);
    let later = sid("ws-1", 10_000);
    assert_eq!(a.register(&later).await, RegisterAnswer::Registered);
    let table = a.table().await;
    assert_eq!(table.nodes[&node("ws-1")], node_row(&later));
    assert!(table.ended(&late) && table.ended(&early) && !table.ended(&later));
}

pub async fn only_a_nodes_own_sid_removes_its_row(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let sid_now = a.join("ws-1", 2).await;
    let leave = |sid: Sid| Deregister { data_set: a.data_set.clone(), sid, tombstone: false };
    a.store.deregister(&leave(sid("ws-1", 1))).await.expect("the store answers");
    assert!(a.table().await.nodes.contains_key(&node("ws-1")));
    a.store.deregister(&leave(sid_now)).await.expect("the store answers");
    assert!(a.table().await.nodes.is_empty());
}

pub async fn a_node_that_left_may_leave_a_tombstone_of_its_sid(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let sid_now = a.join("ws-1", 2).await;
    let leave = |sid: Sid| Deregister { data_set: a.data_set.clone(), sid, tombstone: true };
    a.store.deregister(&leave(sid("ws-1", 1))).await.expect("the store answers");
    assert_eq!(a.table().await.nodes[&node("ws-1")], node_row(&sid_now), "of another life");
    for _ in 0..2 {
        a.store.deregister(&leave(sid_now.clone())).await.expect("the store answers");
        let gone = Gone { left: true, for_s: 0 };
        let wanted = NodeRow { state: NodeState::Revoked, gone, ..node_row(&sid_now) };
        assert_eq!(a.table().await.nodes[&node("ws-1")], wanted);
    }
    assert!(a.table().await.ended(&sid_now));
    assert_eq!(a.renew(&sid_now, &[]).await, RenewAnswer::Revoked);
    assert_eq!(a.register(&sid_now).await, RegisterAnswer::Revoked);
    let gone = a.table().await.nodes[&node("ws-1")].gone;
    assert_eq!(gone, Gone { left: true, for_s: 0 }, "it is the tombstone still");
    let next = a.join("ws-1", 3).await;
    assert_eq!(a.table().await.nodes[&node("ws-1")], node_row(&next), "nothing is left of it");
}

/// Promise 6.
pub async fn only_the_leader_forgets_and_only_who_is_gone(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let sid_now = a.join("ws-1", 2).await;
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    let forget = |token: &str, sid: &Sid, gone_for_s| Forget {
        data_set: a.data_set.clone(),
        token: token.into(),
        sid: sid.clone(),
        gone_for_s,
    };
    let done = async |request: Forget| a.store.forget(&request).await.expect("the store answers");
    assert!(!done(forget("boss", &sid_now, None)).await, "it lives");
    assert!(a.revoke("boss", &sid_now, 0).await);
    assert!(!done(forget("other", &sid_now, None)).await, "not the leader");
    assert!(!done(forget("boss", &sid("ws-1", 1), None)).await, "not the sid");
    assert!(done(forget("boss", &sid_now, Some(3600))).await);
    let row = a.table().await.nodes[&node("ws-1")].clone();
    assert_eq!((row.state, row.gone), (NodeState::Revoked, Gone { left: false, for_s: 3600 }));
    assert!(done(forget("boss", &sid_now, None)).await);
    assert!(!done(forget("boss", &sid_now, None)).await, "it is not there any more");
    assert!(a.table().await.nodes.is_empty());
    assert_eq!(a.renew(&sid_now, &[]).await, RenewAnswer::NotRegistered, "should it wake up");
    assert_eq!(a.claim(V, &sid_now).await, ClaimAnswer::NotRegistered);
}

/// Core rule 23: the beat is what a leader watches.
pub async fn a_renewal_shows_that_the_node_lives(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let sid = a.join("ws-1", 1).await;
    let before = a.table().await.nodes[&node("ws-1")].clone();
    assert_eq!(a.renew(&sid, &[]).await, RenewAnswer::Renewed(vec![]));
    let request = Renew { state: NodeState::Draining, ..a.renewal(&sid, &[]) };
    let answer = a.store.renew(&request).await.expect("the store answers");
    assert_eq!(answer, RenewAnswer::Renewed(vec![]));
    let after = a.table().await.nodes[&node("ws-1")].clone();
    let wanted = NodeRow {
        beat: before.beat + 2,
        state: NodeState::Draining,
        load: Load { sessions: 7, messages_per_s: 0.25, accepts_per_s: 11, at_home: 2, lag: 3 },
        ..before
    };
    assert_eq!(after, wanted);
    assert_eq!(a.register(&sid).await, RegisterAnswer::Registered);
    let again = a.table().await.nodes[&node("ws-1")].clone();
    assert_eq!(again.beat, wanted.beat, "who says it again does not begin to beat anew");
}

/// Core rule 21.
pub async fn a_sid_that_is_over_is_told_so_by_its_renewal(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let stranger = sid("ws-9", 1);
    assert_eq!(a.renew(&stranger, &[]).await, RenewAnswer::NotRegistered);
    let old = a.join("ws-1", 1).await;
    let new = a.join("ws-1", 2).await;
    assert_eq!(a.renew(&old, &[]).await, RenewAnswer::Replaced);
    assert_eq!(a.renew(&sid("ws-1", 3), &[]).await, RenewAnswer::NotRegistered, "a rewind lost its row");
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    assert!(a.revoke("boss", &new, 0).await);
    assert_eq!(a.renew(&new, &[]).await, RenewAnswer::Revoked);
    assert_eq!(a.register(&new).await, RegisterAnswer::Revoked, "a life does not begin again");
    assert_eq!(a.register(&old).await, RegisterAnswer::Replaced);
    assert!(a.table().await.ended(&new));
    assert_eq!(a.claim(V, &new).await, ClaimAnswer::NotRegistered);
}

/// Architecture §5, "Time".
pub async fn a_leader_stays_until_its_beat_is_seen_frozen(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    assert_eq!(a.lead("a", None).await, LeadAnswer::Leading);
    let LeadAnswer::Other(seen) = b.lead("b", None).await else { panic!("two leaders") };
    assert_eq!(seen, LeaderRow { token: "a".into(), beat: 1 });
    assert_eq!(a.lead("a", None).await, LeadAnswer::Leading, "it lives");
    let LeadAnswer::Other(seen) = b.lead("b", Some(seen)).await else { panic!("it was not frozen") };
    assert_eq!(seen.beat, 2);
    assert_eq!(b.lead("b", Some(seen)).await, LeadAnswer::Leading);
    let leader = LeaderRow { token: "b".into(), beat: 1 };
    assert_eq!(a.lead("a", None).await, LeadAnswer::Other(leader.clone()), "a frozen leader woke up");
    assert_eq!(a.table().await.leader, Some(leader));
}

/// A coordinator that is stopped in order.
pub async fn a_leader_that_resigns_is_followed_at_once(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    assert!(!a.resign("a").await, "nobody leads");
    assert_eq!(a.lead("a", None).await, LeadAnswer::Leading);
    assert!(!b.resign("b").await, "another leads");
    assert!(matches!(b.lead("b", None).await, LeadAnswer::Other(_)));
    assert!(a.resign("a").await);
    assert_eq!(a.table().await.leader, None);
    assert!(!a.resign("a").await, "a repeat finds nothing to do");
    assert_eq!(b.lead("b", None).await, LeadAnswer::Leading);
}

/// Promise 6, core rule 23.
pub async fn only_the_leader_revokes_and_only_what_it_saw(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let sid_now = a.join("ws-1", 2).await;
    assert!(!a.revoke("boss", &sid_now, 0).await, "nobody leads");
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    assert!(!a.revoke("other", &sid_now, 0).await, "not the leader");
    assert!(!a.revoke("boss", &sid("ws-1", 1), 0).await, "not the sid");
    assert!(!a.revoke("boss", &sid("ws-2", 1), 0).await, "no such node");
    assert_eq!(a.renew(&sid_now, &[]).await, RenewAnswer::Renewed(vec![]));
    assert!(!a.revoke("boss", &sid_now, 0).await, "it beat meanwhile");
    assert_eq!(a.table().await.nodes[&node("ws-1")].state, NodeState::Up);
    assert!(a.revoke("boss", &sid_now, 1).await);
    assert_eq!(a.table().await.nodes[&node("ws-1")].state, NodeState::Revoked);
}

/// Promise 6.
pub async fn only_the_leader_assigns_and_only_what_it_planned_from(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = ((VnodeId(1), node("ws-1")), (VnodeId(2), node("ws-2")));
    assert!(!a.assign("boss", 0, std::slice::from_ref(&one)).await, "nobody leads");
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    assert!(a.assign("boss", 0, std::slice::from_ref(&one)).await);
    assert!(!a.assign("boss", 0, std::slice::from_ref(&two)).await, "planned from an older version");
    assert!(!a.assign("other", 1, std::slice::from_ref(&two)).await, "not the leader");
    assert!(a.assign("boss", 1, std::slice::from_ref(&two)).await);
    let targets = [one, two].into_iter().collect();
    assert_eq!(a.table().await.assignment, Assignment { version: 2, targets });
}

pub async fn the_table_shows_everything_at_once(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    let (one, two) = (a.join("ws-1", 1).await, b.join("ws-2", 1).await);
    let (first, second) = (a.granted(VnodeId(0), &one).await, b.granted(VnodeId(63), &two).await);
    let done = b.store.set_ready(&b.rows(&two, &[(VnodeId(63), second)])).await.expect("the store answers");
    assert_eq!(done, [true]);
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    assert!(a.assign("boss", 0, &[(VnodeId(5), node("ws-2"))]).await);
    let (seen, also) = (a.table().await, b.table().await);
    assert_eq!((seen.vnodes, &seen.data_set, seen.settling), (VNODES, &a.data_set, false));
    assert_eq!(seen.nodes, [(node("ws-1"), node_row(&one)), (node("ws-2"), node_row(&two))].into());
    let rows = [
        (VnodeId(0), Row { sid: one, epoch: first, ready: false }),
        (VnodeId(63), Row { sid: two, epoch: second, ready: true }),
    ];
    assert_eq!(seen.rows, rows.into());
    assert_eq!(seen.assignment.targets, [(VnodeId(5), node("ws-2"))].into());
    assert_eq!(seen.leader, Some(LeaderRow { token: "boss".into(), beat: 1 }));
    assert_eq!((also.nodes, also.rows, also.assignment), (seen.nodes, seen.rows, seen.assignment));
}

/// Promise 7. "Usually" is enough: the change is repeated until the other process hears of one.
pub async fn changes_move_the_hints_of_every_process(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    let mut hints = b.store.hints();
    let mut born = 0;
    eventually("a hint", || {
        hints.borrow_and_update();
        born += 1;
        let (a, hints) = (a.clone(), hints.clone());
        async move {
            let mut hints = hints;
            a.join("ws-1", born).await;
            let heard = tokio::time::timeout(Duration::from_secs(1), hints.changed()).await;
            heard.is_ok_and(|changed| changed.is_ok()).then_some(())
        }
    })
    .await;
}

/// Promise 5.
pub async fn another_data_set_is_refused_everywhere(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let member = a.join("ws-1", 1).await;
    let epoch = a.granted(V, &member).await;
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    let stale = Process { data_set: DataSet("another".into()), ..a.clone() };
    let new = a.data_set.clone();
    assert_eq!(stale.register(&sid("ws-1", 2)).await, RegisterAnswer::NewData(new.clone()));
    assert_eq!(stale.claim(VnodeId(3), &member).await, ClaimAnswer::NewData(new.clone()));
    assert_eq!(stale.renew(&member, &[(V, epoch)]).await, RenewAnswer::NewData(new.clone()));
    assert_eq!(stale.lead("boss", None).await, LeadAnswer::NewData(new));
    assert!(!stale.revoke("boss", &member, 0).await);
    assert!(!stale.assign("boss", 0, &[(V, node("ws-2"))]).await);
    let rows = stale.rows(&member, &[(V, epoch)]);
    assert_eq!(stale.store.set_ready(&rows).await.expect("the store answers"), [false]);
    assert_eq!(stale.store.release(&rows).await.expect("the store answers"), [false]);
    let table = a.table().await;
    assert_eq!(table.nodes[&node("ws-1")], node_row(&member));
    assert_eq!(table.rows, [(V, Row { sid: member, epoch, ready: false })].into());
    assert_eq!((table.assignment.version, table.leader.map(|l| l.beat)), (0, Some(1)));
    // The data plane looks at the head alone: its fence needs no data set.
    let (me, top) = (sid("ws-1", 1), Epoch(epoch.0 + 1));
    let mut owner = a.own(V, &me, top).await;
    assert_eq!(owner.write(vec![]).await, []);
    assert_eq!(owner.fence.seq, Seq(1));
}
