//! Who gets a row, keeps it and loses it (promises 3 and 4, core rule 16).

use roost_proto::ids::{Epoch, VnodeId};

use super::*;

const W: VnodeId = VnodeId(4);

async fn assigned(process: &Process, vnode: VnodeId, to: &str) {
    assert_eq!(process.lead("boss", None).await, LeadAnswer::Leading);
    let version = process.table().await.assignment.version;
    assert!(process.assign("boss", version, &[(vnode, node(to))]).await);
}

pub async fn an_absent_row_goes_to_whom_the_assignment_names(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    assigned(&a, V, "ws-2").await;
    let pinned = a.claim_of(V, &one);
    assert_eq!(a.put_claim(&pinned).await, ClaimAnswer::NotYours, "an assignment comes before a pin");
    let unpinned = Claim { pinned: false, ..a.claim_of(V, &two) };
    let ClaimAnswer::Granted(epoch) = a.put_claim(&unpinned).await else { panic!("it is assigned to ws-2") };
    assert_eq!(a.table().await.rows[&V], Row { sid: two, epoch, ready: false });
}

pub async fn without_an_assignment_a_pin_suffices(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let one = a.join("ws-1", 1).await;
    let unpinned = Claim { pinned: false, ..a.claim_of(V, &one) };
    assert_eq!(a.put_claim(&unpinned).await, ClaimAnswer::NotYours);
    assert!(matches!(a.claim(V, &one).await, ClaimAnswer::Granted(_)));
}

pub async fn a_row_of_another_living_sid_is_held(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    let epoch = a.granted(V, &one).await;
    let row = Row { sid: one.clone(), epoch, ready: false };
    assert_eq!(a.claim(V, &two).await, ClaimAnswer::Held(row.clone()), "of two pins the first wins");
    assigned(&a, V, "ws-2").await;
    assert_eq!(a.claim(V, &two).await, ClaimAnswer::Held(row.clone()), "an assignment takes nothing away");
    let boast = Claim { held: Some(Epoch(epoch.0 + 1)), ..a.claim_of(V, &two) };
    assert_eq!(a.put_claim(&boast).await, ClaimAnswer::Held(row.clone()), "nothing is settling");
    assert_eq!(a.table().await.rows[&V], row);
}

pub async fn a_row_of_ones_own_or_of_an_ended_sid_is_taken(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let old = a.join("ws-1", 1).await;
    let first = a.granted(V, &old).await;
    let second = a.granted(V, &old).await;
    assert!(second > first, "claiming one's own row raises its epoch");
    let new = a.join("ws-1", 2).await;
    let third = a.granted(V, &new).await;
    assert!(third > second);
    assert_eq!(a.table().await.rows[&V], Row { sid: new, epoch: third, ready: false });
}

pub async fn a_row_of_a_revoked_or_removed_sid_is_taken(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    let (v, w) = (a.granted(V, &one).await, a.granted(W, &one).await);
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    assert!(a.revoke("boss", &one, 0).await);
    assert!(a.granted(V, &two).await > v);
    let leave = Deregister { data_set: a.data_set.clone(), sid: one, tombstone: false };
    a.store.deregister(&leave).await.expect("the store answers");
    assert!(a.granted(W, &two).await > w);
}

/// Core rule 21: after a rewind an earlier sid may be registered while the later one lives.
pub async fn a_row_of_a_later_sid_than_the_registered_is_held(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let late = a.join("ws-1", 10).await;
    let epoch = a.granted(V, &late).await;
    let leave = Deregister { data_set: a.data_set.clone(), sid: late.clone(), tombstone: false };
    a.store.deregister(&leave).await.expect("the store answers");
    let (early, other) = (a.join("ws-1", 9).await, a.join("ws-2", 1).await);
    let row = Row { sid: late, epoch, ready: false };
    assert!(!a.table().await.ended(&row.sid));
    assert_eq!(a.claim(V, &early).await, ClaimAnswer::Held(row.clone()));
    assert_eq!(a.claim(V, &other).await, ClaimAnswer::Held(row));
}

pub async fn who_is_not_registered_or_revoked_claims_nothing(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    assert_eq!(a.claim(V, &sid("ws-1", 1)).await, ClaimAnswer::NotRegistered);
    let new = a.join("ws-1", 2).await;
    assert_eq!(a.claim(V, &sid("ws-1", 1)).await, ClaimAnswer::NotRegistered, "replaced");
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    assert!(a.revoke("boss", &new, 0).await);
    assert_eq!(a.claim(V, &new).await, ClaimAnswer::NotRegistered, "revoked");
    assert!(a.table().await.rows.is_empty());
}

/// Promise 3.
pub async fn every_grant_is_above_all_that_was_seen_or_granted(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    let first = a.granted(V, &one).await;
    assert_eq!(a.store.release(&a.rows(&one, &[(V, first)])).await.expect("the store answers"), [true]);
    let second = a.granted(V, &two).await;
    assert!(second > first, "a row that was given up leaves its epoch behind");
    assert_eq!(a.store.release(&a.rows(&two, &[(V, second)])).await.expect("the store answers"), [true]);
    // An epoch seen before the data was lost: far above the clock, and above what prints without an exponent.
    let floor = Epoch((1 << 53) - 1000);
    let high = Claim { floor, ..a.claim_of(V, &one) };
    assert_eq!(a.put_claim(&high).await, ClaimAnswer::Granted(Epoch(floor.0 + 1)));
    assert_eq!(a.table().await.rows[&V].epoch, Epoch(floor.0 + 1));
    assert_eq!(a.granted(V, &one).await, Epoch(floor.0 + 2));
    assert_eq!(a.renew(&one, &[(V, Epoch(floor.0 + 2))]).await, RenewAnswer::Renewed(vec![true]));
}

pub async fn rows_become_ready_or_free_only_by_their_owner(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    let epoch = a.granted(V, &one).await;
    let older = Epoch(epoch.0 - 1);
    for (sid, epoch) in [(&two, epoch), (&one, older)] {
        let rows = a.rows(sid, &[(V, epoch), (W, epoch)]);
        assert_eq!(a.store.set_ready(&rows).await.expect("the store answers"), [false, false]);
        assert_eq!(a.store.release(&rows).await.expect("the store answers"), [false, false]);
    }
    assert_eq!(a.table().await.rows[&V], Row { sid: one.clone(), epoch, ready: false });
    let rows = a.rows(&one, &[(W, epoch), (V, epoch)]);
    assert_eq!(a.store.set_ready(&rows).await.expect("the store answers"), [false, true]);
    assert_eq!(a.store.set_ready(&rows).await.expect("the store answers"), [false, true], "a repeat");
    assert_eq!(a.table().await.rows[&V], Row { sid: one.clone(), epoch, ready: true });
    let again = a.granted(V, &one).await;
    assert!(!a.table().await.rows[&V].ready, "a new epoch is not ready yet");
    let rows = a.rows(&one, &[(V, again)]);
    assert_eq!(a.store.release(&rows).await.expect("the store answers"), [true]);
    assert_eq!(a.store.release(&rows).await.expect("the store answers"), [false]);
    assert!(a.table().await.rows.is_empty());
}

/// Promise 4: a row's life is counted from its last renewal, and being set ready is none.
pub async fn a_renewal_extends_what_is_the_callers_and_creates_nothing(fixture: &dyn Fixture) {
    let config = StoreConfig { lease_ttl_ms: 4000, ..CONFIG };
    let a = Process::start_with(fixture, config).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    let (v, w) = (a.granted(V, &one).await, a.granted(W, &two).await);
    let rows = [(V, v), (W, w), (V, Epoch(v.0 - 1)), (VnodeId(5), v)];
    assert_eq!(a.renew(&one, &rows).await, RenewAnswer::Renewed(vec![true, false, false, false]));
    assert!(!a.table().await.rows.contains_key(&VnodeId(5)));
    fixture.pass(2200).await;
    assert_eq!(a.renew(&one, &rows[..1]).await, RenewAnswer::Renewed(vec![true]));
    assert_eq!(a.store.set_ready(&a.rows(&two, &[(W, w)])).await.expect("the store answers"), [true]);
    fixture.pass(2200).await;
    let rows: Vec<_> = a.table().await.rows.into_keys().collect();
    assert_eq!(rows, [V], "renewed, and not renewed");
    assert_eq!(a.renew(&two, &[(W, w)]).await, RenewAnswer::Renewed(vec![false]));
    assert!(!a.table().await.rows.contains_key(&W), "a renewal creates nothing");
}

pub async fn a_row_that_is_not_renewed_ends(fixture: &dyn Fixture) {
    let config = StoreConfig { lease_ttl_ms: 300, ..CONFIG };
    let a = Process::start_with(fixture, config).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    let first = a.granted(V, &one).await;
    fixture.pass(400).await;
    assert!(a.table().await.rows.is_empty());
    assert_eq!(a.renew(&one, &[(V, first)]).await, RenewAnswer::Renewed(vec![false]));
    let rows = a.rows(&one, &[(V, first)]);
    assert_eq!(a.store.set_ready(&rows).await.expect("the store answers"), [false]);
    assert!(a.granted(V, &two).await > first);
}

pub async fn a_thousand_rows_are_renewed_in_one_call(fixture: &dyn Fixture) {
    let store = fixture.open(CONFIG).await;
    let data_set = store.open_ring(2048).await.expect("the ring opens");
    let a = Process { store, data_set };
    let one = a.join("ws-1", 1).await;
    let mut rows = Vec::new();
    for v in 0..1500 {
        rows.push((VnodeId(v), a.granted(VnodeId(v), &one).await));
    }
    let stranger = VnodeId(1999);
    rows.insert(1001, (stranger, rows[0].1));
    let before = a.store.commands();
    let RenewAnswer::Renewed(done) = a.renew(&one, &rows).await else { panic!("it is registered") };
    assert_eq!(a.store.commands() - before, 1, "one call is one command");
    let refused: Vec<_> = done.iter().enumerate().filter(|(_, done)| !**done).map(|(i, _)| i).collect();
    assert_eq!((done.len(), refused), (1501, vec![1001]));
    assert_eq!(a.table().await.rows.len(), 1500);
}
