//! Data that went away or back (core rules 18 and 19), for stores that are another process.

use roost_proto::ids::{Epoch, Offset, Seq, VnodeId};

use super::*;

const BOB: &str = "bob";

impl Process {
    /// The same process, once the store answers again and says which data this is.
    async fn refreshed(&self) -> (Self, Table) {
        let table = eventually("the store comes back", || async { self.store.table().await.ok() }).await;
        (Self { data_set: table.data_set.clone(), ..self.clone() }, table)
    }

    async fn proving(&self, sid: &Sid, epoch: Epoch, held: Option<(Epoch, Seq)>) -> Activated {
        let request = Activate { prove: true, held, ..self.activation(V, sid, epoch) };
        match self.activate(&request).await {
            ActivateAnswer::Activated(activated) => activated,
            other => panic!("wanted an activation, got {other:?}"),
        }
    }
}

/// A member that holds [`V`] with one message in it, and the process it is in.
async fn holder(fixture: &dyn Fixture) -> (Process, Sid, Owner) {
    let a = Process::start(fixture).await;
    let me = a.join("ws-1", 1).await;
    let epoch = a.granted(V, &me).await;
    let mut owner = a.own(V, &me, epoch).await;
    owner.write(vec![append(&inbox(BOB), "m1")]).await;
    (a, me, owner)
}

fn claim_held(process: &Process, sid: &Sid, held: Epoch) -> Claim {
    Claim { held: Some(held), floor: held, ..process.claim_of(V, sid) }
}

/// FLUSHALL: nobody reconnects, so the first control write must find it.
pub async fn losing_everything_under_a_connection_is_a_new_data_set(fixture: &dyn Fixture) {
    let (a, me, owner) = holder(fixture).await;
    fixture.lose_everything().await;
    let RenewAnswer::NewData(found) = a.renew(&me, &[(V, owner.fence.epoch)]).await else {
        panic!("the ring is gone")
    };
    assert!(found != a.data_set && !found.0.is_empty());
    let (a, table) = a.refreshed().await;
    assert_eq!((&a.data_set, table.vnodes, table.settling), (&found, VNODES, true));
    assert!(table.nodes.is_empty() && table.rows.is_empty());
    assert_eq!(a.store.open_ring(VNODES).await.expect("the ring is there"), found);
    assert_eq!(owner.put(&owner.write_of(vec![append(&inbox(BOB), "m2")])).await, WriteAnswer::Lost);
    assert_eq!(a.register(&me).await, RegisterAnswer::Registered);
    let ClaimAnswer::Granted(epoch) = a.put_claim(&claim_held(&a, &me, owner.fence.epoch)).await else {
        panic!("who holds an epoch is served while settling")
    };
    assert!(epoch > owner.fence.epoch);
    let begun = a.proving(&me, epoch, Some((owner.fence.epoch, owner.fence.seq))).await;
    assert_eq!((begun.generation, begun.seq, begun.previous), (epoch, Seq(0), None));
}

pub async fn the_table_alone_finds_that_the_ring_is_gone(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    fixture.lose_everything().await;
    let table = a.table().await;
    assert!(table.data_set != a.data_set && !table.data_set.0.is_empty());
    assert_eq!((table.vnodes, table.settling), (VNODES, true));
    fixture.lose_everything().await;
    let again = a.store.open_ring(VNODES).await.expect("the ring is made anew");
    assert!(again != table.data_set && a.table().await.settling);
}

/// Core rule 19.
pub async fn while_settling_only_what_is_held_is_granted(fixture: &dyn Fixture) {
    let (a, me, owner) = holder(fixture).await;
    fixture.lose_everything().await;
    let (a, _) = a.refreshed().await;
    let (claim, held) = (a.claim_of(V, &me), claim_held(&a, &me, owner.fence.epoch));
    assert_eq!(a.put_claim(&held).await, ClaimAnswer::NotRegistered);
    assert_eq!(a.register(&me).await, RegisterAnswer::Registered);
    assert_eq!(a.put_claim(&claim).await, ClaimAnswer::Settling, "a pin does not suffice");
    let unpinned = Claim { pinned: false, ..held };
    assert!(matches!(a.put_claim(&unpinned).await, ClaimAnswer::Granted(_)), "whatever the assignment says");
}

pub async fn settling_ends_with_the_lease_time(fixture: &dyn Fixture) {
    let a = Process::start_with(fixture, StoreConfig { lease_ttl_ms: 3000, ..CONFIG }).await;
    fixture.lose_everything().await;
    let (a, table) = a.refreshed().await;
    assert!(table.settling);
    let me = a.join("ws-1", 1).await;
    assert_eq!(a.claim(V, &me).await, ClaimAnswer::Settling);
    fixture.pass(3100).await;
    assert!(!a.table().await.settling);
    assert!(matches!(a.claim(V, &me).await, ClaimAnswer::Granted(_)));
}

/// A snapshot may name an earlier owner that lives: who holds a larger epoch is the later one.
pub async fn a_held_epoch_takes_the_row_back_while_settling(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let (one, two) = (a.join("ws-1", 1).await, a.join("ws-2", 1).await);
    let first = a.granted(V, &one).await;
    fixture.save().await;
    fixture.crash().await;
    let (a, table) = a.refreshed().await;
    assert!(table.settling);
    assert_eq!(table.rows[&V].epoch, first, "the row is in the snapshot, and its lease goes on");
    let row = Row { sid: one, epoch: first, ready: false };
    let same = claim_held(&a, &two, first);
    assert_eq!(a.put_claim(&same).await, ClaimAnswer::Held(row));
    let later = claim_held(&a, &two, Epoch(first.0 + 1));
    assert!(matches!(a.put_claim(&later).await, ClaimAnswer::Granted(_)));
    assert_eq!(a.table().await.rows[&V].sid, two);
}

pub async fn every_process_finds_the_same_new_data_set(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    fixture.save().await;
    for crash in [true, false] {
        if crash {
            fixture.crash().await;
        } else {
            fixture.lose_everything().await;
        }
        let ((a_now, _), (b_now, _)) = tokio::join!(a.refreshed(), b.refreshed());
        assert!(a_now.data_set != a.data_set);
        assert_eq!(a_now.data_set, b_now.data_set);
        assert_eq!(b.table().await.data_set, a_now.data_set, "and it stays");
    }
}

pub async fn a_new_data_set_moves_the_hints_of_every_process(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    eventually("a hint", || async {
        let mut hints = b.store.hints();
        fixture.lose_everything().await;
        a.table().await;
        let heard = tokio::time::timeout(Duration::from_secs(1), hints.changed()).await;
        heard.is_ok_and(|changed| changed.is_ok()).then_some(())
    })
    .await;
}

/// Core rule 18: the head still names my epoch and sid, and its seq is what was acknowledged to me.
pub async fn after_a_restart_with_its_data_the_holder_goes_on(fixture: &dyn Fixture) {
    let (a, me, owner) = holder(fixture).await;
    fixture.save().await;
    fixture.crash().await;
    let (held, generation) = (owner.fence.epoch, owner.generation);
    let (a, _) = a.refreshed().await;
    let ClaimAnswer::Granted(epoch) = a.put_claim(&claim_held(&a, &me, held)).await else {
        panic!("the holder is served while settling")
    };
    let request = Activate { held: Some((held, owner.fence.seq)), ..a.activation(V, &me, epoch) };
    let ActivateAnswer::Activated(activated) = a.activate(&request).await else { panic!("a larger epoch") };
    assert_eq!((activated.generation, activated.outbox.len()), (generation, 1));
    let mut owner = a.owner(V, &me, epoch, &activated);
    let next = owner.write(vec![append(&inbox(BOB), "m1"), append(&inbox(BOB), "m2")]).await;
    let known = OpResult::Duplicate { offset: Offset(1), at: NOW_MS };
    assert_eq!(next, [known, OpResult::Appended { offset: Offset(2) }]);
}

/// What made the fence go back (a run of Redis 7.0.15): a seq the store does not remember.
pub async fn after_a_restart_with_older_data_the_holder_is_rewound(fixture: &dyn Fixture) {
    let (a, me, mut owner) = holder(fixture).await;
    fixture.save().await;
    owner.write(vec![append(&inbox(BOB), "m2")]).await;
    fixture.crash().await;
    let (a, _) = a.refreshed().await;
    let write = owner.write_of(vec![append(&inbox(BOB), "m3")]);
    assert_eq!(owner.put(&write).await, WriteAnswer::Rewound);
    let held = (owner.fence.epoch, owner.fence.seq);
    let ClaimAnswer::Granted(epoch) = a.put_claim(&claim_held(&a, &me, held.0)).await else {
        panic!("the holder is served while settling")
    };
    let begun = a.proving(&me, epoch, Some(held)).await;
    assert_eq!((begun.generation, begun.outbox.len()), (epoch, 1));
    let mut owner = a.owner(V, &me, epoch, &begun);
    assert_eq!(
        owner.write(vec![append(&inbox(BOB), "m2")]).await,
        [OpResult::Appended { offset: Offset(1) }]
    );
    assert_eq!(owner.put(&write).await, WriteAnswer::Deposed, "a late copy of the old write");
}

pub async fn after_a_restart_from_before_its_activation_the_holder_is_lost(fixture: &dyn Fixture) {
    let (a, _, _) = holder(fixture).await;
    fixture.save().await;
    let two = a.join("ws-2", 1).await;
    let epoch = Epoch(a.table().await.rows[&V].epoch.0 + 1);
    let mut owner = a.own(V, &two, epoch).await;
    owner.write(vec![append(&inbox(BOB), "m2")]).await;
    fixture.crash().await;
    let (a, table) = a.refreshed().await;
    assert!(!table.nodes.contains_key(&node("ws-2")));
    assert_eq!(owner.put(&owner.write_of(vec![])).await, WriteAnswer::Lost);
    let begun = a.proving(&two, Epoch(epoch.0 + 1), Some((epoch, owner.fence.seq))).await;
    assert_eq!(begun.generation, Epoch(epoch.0 + 1));
}

/// Core rule 19: "a claim made under another run_id is dropped". The head in the snapshot names the same data set
/// as the claim, so only the connection can tell.
pub async fn a_claim_from_before_a_restart_activates_nothing(fixture: &dyn Fixture) {
    let (a, _, _) = holder(fixture).await;
    fixture.save().await;
    let two = a.join("ws-2", 1).await;
    let claimed = a.activation(V, &two, Epoch(a.table().await.rows[&V].epoch.0 + 1));
    fixture.crash().await;
    let answer = eventually("an answer", || async { a.store.activate(&claimed).await.ok() }).await;
    let (a, _) = a.refreshed().await;
    assert_eq!(answer, ActivateAnswer::NewData(a.data_set));
}

/// Core rule 19: the same process, and so the same run_id, whose data may have gone back meanwhile.
pub async fn another_history_under_living_connections_is_a_new_data_set(fixture: &dyn Fixture) {
    let (a, me, owner) = holder(fixture).await;
    let b = Process::start(fixture).await;
    for process in [&a, &b] {
        assert_eq!(process.table().await.data_set, a.data_set, "before");
    }
    fixture.follow_and_lead().await;
    let RenewAnswer::NewData(found) = a.renew(&me, &[(V, owner.fence.epoch)]).await else {
        panic!("the history is another")
    };
    assert!(found != a.data_set && !found.0.is_empty());
    assert_eq!(b.lead("boss", None).await, LeadAnswer::NewData(found.clone()));
    let (a, table) = a.refreshed().await;
    assert_eq!((&a.data_set, table.settling), (&found, true));
    let held = owner.fence.epoch;
    let ClaimAnswer::Granted(epoch) = a.put_claim(&claim_held(&a, &me, held)).await else {
        panic!("who holds an epoch is served while settling")
    };
    let request = Activate { held: Some((held, owner.fence.seq)), ..a.activation(V, &me, epoch) };
    let ActivateAnswer::Activated(activated) = a.activate(&request).await else { panic!("a larger epoch") };
    assert_eq!(activated.generation, owner.generation, "nothing was lost");
    let (b, _) = b.refreshed().await;
    let new = b.own(V, &sid("ws-2", 1), Epoch(epoch.0 + 1)).await;
    assert_eq!(new.generation, owner.generation, "it was stamped under the new name");
}

pub async fn a_claim_from_before_another_history_activates_nothing(fixture: &dyn Fixture) {
    let (a, _, _) = holder(fixture).await;
    let two = a.join("ws-2", 1).await;
    let claimed = a.activation(V, &two, Epoch(a.table().await.rows[&V].epoch.0 + 1));
    fixture.follow_and_lead().await;
    let ActivateAnswer::NewData(found) = a.activate(&claimed).await else { panic!("the history is another") };
    assert_eq!(a.table().await.data_set, found);
}

/// Core rule 17: a new owner has no seq to compare, so it cannot see that the data went back.
pub async fn a_new_owner_after_a_restart_begins_a_new_generation(fixture: &dyn Fixture) {
    let (a, me, owner) = holder(fixture).await;
    fixture.save().await;
    fixture.crash().await;
    let (a, _) = a.refreshed().await;
    let epoch = Epoch(owner.fence.epoch.0 + 1);
    let new = a.own(V, &sid("ws-2", 1), epoch).await;
    assert_eq!(new.generation, epoch);
    let after = Epoch(epoch.0 + 1);
    let again = a.own(V, &me, after).await;
    assert_eq!(again.generation, epoch, "which then goes on under that data set");
}

pub async fn a_store_that_is_away_says_so_and_comes_back_by_itself(fixture: &dyn Fixture) {
    let (a, me, owner) = holder(fixture).await;
    let before = a.store.commands();
    fixture.save().await;
    fixture.crash().await;
    let after = eventually("the store comes back", || async { a.store.ping().await.ok() }).await;
    assert_eq!((after, a.store.commands() > before), ((), true));
    let (a, _) = a.refreshed().await;
    let rows = [(V, owner.fence.epoch), (VnodeId(1), owner.fence.epoch)];
    assert_eq!(a.renew(&me, &rows).await, RenewAnswer::Renewed(vec![true, false]), "the same lease is back");
    let mut hints = a.store.hints();
    hints.borrow_and_update();
    let mut born = 0;
    eventually("a hint after the restart", || {
        born += 1;
        let (a, mut hints) = (a.clone(), hints.clone());
        async move {
            a.join("ws-3", born).await;
            tokio::time::timeout(Duration::from_millis(300), hints.changed()).await.ok()
        }
    })
    .await
    .expect("the counter lives as long as the store");
}
