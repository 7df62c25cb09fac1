//! Random claims, renewals, revocations and the rest, against a store and against the model: every answer equal,
//! and the whole table after each step.
//!
//! The two have different clocks, so epochs are compared by the grant they came from: both count upwards.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use roost_proto::ids::{Epoch, VnodeId};

use super::*;
use crate::store::model::Control;

/// A seed that failed is added here and stays.
const SEEDS: [u64; 3] = [1, 2, 3];
const STEPS: usize = 300;
const NODES: [&str; 3] = ["ws-1", "ws-2", "ws-3"];
/// A clock of the model's own, far below any store's, and standing still.
const MODEL_NOW: u64 = 1000;

struct Run {
    process: Process,
    model: Control,
    random: StdRng,
    /// Epochs of the grants so far: the model's, the store's.
    grants: Vec<(Epoch, Epoch)>,
    born: u64,
}

/// Promises 2 to 6, and the model's word on everything between them.
pub async fn any_sequence_of_claims_gets_the_models_answers(fixture: &dyn Fixture) {
    let process = Process::start(fixture).await;
    let mut run = Run {
        model: Control::default(),
        random: StdRng::seed_from_u64(0),
        grants: vec![(Epoch(0), Epoch(0))],
        born: 1,
        process,
    };
    run.model.open_ring(VNODES, run.process.data_set.clone()).expect("a ring is made");
    for seed in SEEDS {
        run.random = StdRng::seed_from_u64(seed);
        for step in 0..STEPS {
            let at = format!("seed {seed}, step {step}");
            run.step(&at).await;
            run.compare(&at).await;
        }
        // The next seed starts while everything settles, where the store can be made to.
        if fixture.change_data_set().await {
            let old = run.process.data_set.clone();
            let store = run.process.store.clone();
            let found = eventually("another data set", || async {
                store.table().await.ok().map(|table| table.data_set).filter(|found| *found != old)
            });
            run.process.data_set = found.await;
            run.model.new_data_set(VNODES, run.process.data_set.clone(), u64::MAX);
        }
    }
}

impl Run {
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).expect("not empty").clone()
    }

    /// One of the last grants, as (the model's epoch, the store's).
    fn grant(&mut self) -> (Epoch, Epoch) {
        let last = self.grants.len().saturating_sub(6);
        *self.grants[last..].choose(&mut self.random).expect("not empty")
    }

    fn sid(&mut self) -> Sid {
        let name = self.one(&NODES);
        let registered = self.model.sid_of(&node(name)).cloned();
        match registered {
            Some(sid) if self.random.random_ratio(8, 10) => sid,
            _ => sid(name, self.born.saturating_sub(self.random.random_range(0..3))),
        }
    }

    fn vnode(&mut self) -> VnodeId {
        VnodeId(self.random.random_range(0..4))
    }

    async fn step(&mut self, at: &str) {
        match self.random.random_range(0..21) {
            0..3 => self.register(at).await,
            3 => {
                let (data_set, tombstone) = (self.process.data_set.clone(), self.one(&[true, false]));
                let request = Deregister { data_set, sid: self.sid(), tombstone };
                self.model.deregister(&request);
                self.process.store.deregister(&request).await.expect("the store answers");
            }
            4..11 => self.claim(at).await,
            11..14 => self.renew(at).await,
            14..17 => self.own_rows(at).await,
            17 => {
                let (token, seen) = (self.one(&["a", "b"]), self.process.table().await.leader);
                let frozen = seen.filter(|_| self.random.random_ratio(1, 2));
                let request = Lead {
                    data_set: self.process.data_set.clone(),
                    token: token.into(),
                    frozen: frozen.clone(),
                };
                assert_eq!(self.process.lead(token, frozen).await, self.model.lead(&request), "{at}");
            }
            18 => {
                let (sid, token) = (self.sid(), self.one(&["a", "b"]));
                let beat = self.model.table(MODEL_NOW).nodes.get(&sid.node()).map_or(0, |row| row.beat);
                let beat = beat + self.one(&[0, 0, 1]);
                let data_set = self.process.data_set.clone();
                let request = Revoke { data_set, token: token.into(), sid: sid.clone(), beat };
                assert_eq!(self.process.revoke(token, &sid, beat).await, self.model.revoke(&request), "{at}");
            }
            19 => {
                let request = Forget {
                    data_set: self.process.data_set.clone(),
                    token: self.one(&["a", "b"]).into(),
                    sid: self.sid(),
                    gone_for_s: self.one(&[None, None, Some(0), Some(7200)]),
                };
                let done = self.process.store.forget(&request).await.expect("the store answers");
                assert_eq!(done, self.model.forget(&request), "{at}");
            }
            _ => {
                let version = self.model.table(MODEL_NOW).assignment.version;
                let from_version = version.saturating_sub(self.one(&[0, 0, 1]));
                let targets = vec![(self.vnode(), node(self.one(&NODES)))];
                let (token, data_set) = (self.one(&["a", "b"]), self.process.data_set.clone());
                let answer = self.process.assign(token, from_version, &targets).await;
                let request = Assign { data_set, token: token.into(), from_version, targets };
                assert_eq!(answer, self.model.assign(&request), "{at}");
            }
        }
    }

    async fn register(&mut self, at: &str) {
        let name = self.one(&NODES);
        self.born += self.one(&[0, 1]);
        let sid = sid(name, self.born - self.one(&[0, 0, 1]));
        let request =
            Register { data_set: self.process.data_set.clone(), node: node(name), row: node_row(&sid) };
        assert_eq!(self.process.register(&sid).await, self.model.register(&request), "{at}");
    }

    async fn claim(&mut self, at: &str) {
        let (sid, vnode, pinned) = (self.sid(), self.vnode(), self.random.random_ratio(2, 3));
        let held = self.random.random_ratio(1, 3).then(|| self.grant());
        let floor = if self.random.random_ratio(1, 3) { self.grant() } else { Default::default() };
        let base = Claim { pinned, ..self.process.claim_of(vnode, &sid) };
        let of_model = Claim { held: held.map(|h| h.0), floor: floor.0, ..base.clone() };
        let of_store = Claim { held: held.map(|h| h.1), floor: floor.1, ..base };
        let wanted = self.model.claim(&of_model, MODEL_NOW, CONFIG.lease_ttl_ms);
        let found = self.process.put_claim(&of_store).await;
        match (&wanted, &found) {
            (ClaimAnswer::Granted(wanted), ClaimAnswer::Granted(found)) => {
                let last = self.grants.last().copied().unwrap_or_default();
                assert!(*found > last.1 && *found > floor.1, "{at}: grants grow");
                self.grants.push((*wanted, *found));
            }
            (ClaimAnswer::Held(wanted), ClaimAnswer::Held(found)) => {
                assert_eq!(self.as_model(found), *wanted, "{at}");
            }
            (wanted, found) => assert_eq!(found, wanted, "{at}: {of_store:?}"),
        }
    }

    fn rows(&mut self) -> Vec<(VnodeId, (Epoch, Epoch))> {
        let now: Vec<_> = self.model.table(MODEL_NOW).rows.into_iter().collect();
        let count = self.random.random_range(0..4);
        let row = |_| match now.choose(&mut self.random).cloned() {
            Some((vnode, row)) if self.random.random_ratio(3, 4) => {
                let grant = self.grants.iter().find(|g| g.0 == row.epoch).copied();
                (vnode, grant.expect("every row was granted"))
            }
            _ => (self.vnode(), self.grant()),
        };
        (0..count).map(row).collect()
    }

    async fn renew(&mut self, at: &str) {
        let (sid, rows) = (self.sid(), self.rows());
        let state = self.one(&[NodeState::Up, NodeState::Draining]);
        let rows_of = |store: bool| rows.iter().map(|(v, e)| (*v, if store { e.1 } else { e.0 })).collect();
        let base = Renew { state, ..self.process.renewal(&sid, &[]) };
        let of_model = Renew { rows: rows_of(false), ..base.clone() };
        let of_store = Renew { rows: rows_of(true), ..base };
        let wanted = self.model.renew(&of_model, MODEL_NOW, CONFIG.lease_ttl_ms);
        let found = self.process.store.renew(&of_store).await.expect("the store answers");
        assert_eq!(found, wanted, "{at}: {of_store:?}");
    }

    async fn own_rows(&mut self, at: &str) {
        let (sid, rows) = (self.sid(), self.rows());
        let rows_of = |store: bool| rows.iter().map(|(v, e)| (*v, if store { e.1 } else { e.0 })).collect();
        let base = self.process.rows(&sid, &[]);
        let of_model = OwnRows { rows: rows_of(false), ..base.clone() };
        let of_store = OwnRows { rows: rows_of(true), ..base };
        let (wanted, found) = if self.random.random_ratio(1, 2) {
            (self.model.set_ready(&of_model, MODEL_NOW), self.process.store.set_ready(&of_store).await)
        } else {
            (self.model.release(&of_model, MODEL_NOW), self.process.store.release(&of_store).await)
        };
        assert_eq!(found.expect("the store answers"), wanted, "{at}: {of_store:?}");
    }

    /// The store's row with the model's epoch for the same grant.
    fn as_model(&self, row: &Row) -> Row {
        let grant = self.grants.iter().find(|grant| grant.1 == row.epoch);
        Row { epoch: grant.expect("every row was granted").0, ..row.clone() }
    }

    async fn compare(&self, at: &str) {
        let (wanted, found) = (self.model.table(MODEL_NOW), self.process.table().await);
        let rows: std::collections::BTreeMap<_, _> =
            found.rows.iter().map(|(vnode, row)| (*vnode, self.as_model(row))).collect();
        assert_eq!(rows, wanted.rows, "{at}");
        assert_eq!(found.nodes, wanted.nodes, "{at}");
        assert_eq!(found.assignment, wanted.assignment, "{at}");
        assert_eq!((found.leader, found.settling), (wanted.leader, wanted.settling), "{at}");
    }
}
