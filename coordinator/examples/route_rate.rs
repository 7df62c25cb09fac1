//! Serves `/route` for a ring of 1,024 ready vnodes until it is stopped, to see how many it answers:
//!
//! `cargo run --release -p roost-coordinator --example route_rate`, then
//! `wrk -t2 -c32 -d10s http://127.0.0.1:7990/route?userId=alice`

use std::sync::Arc;

use anyhow::{Context, bail};
use roost_backend::embedded::EmbeddedStore;
use roost_backend::store::*;
use roost_coordinator::{Coordinator, CoordinatorConfig, RequestLimits};
use roost_proto::{Epoch, NodeId, Sid, VnodeId};
use roost_service::Secret;
use roost_service::tokens::{KeySource, Verifier};
use tokio::net::TcpListener;

const VNODES: u16 = 1024;
/// Nobody renews here: longer than any measurement.
const LEASE_TTL_MS: u64 = 3_600_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = StoreConfig { lease_ttl_ms: LEASE_TTL_MS, ..StoreConfig::default() };
    let store = Arc::new(EmbeddedStore::memory(config, Arc::new(|| 1_700_000_000_000)));
    own_everything(&store).await?;
    let (public, admin) =
        (TcpListener::bind("127.0.0.1:7990").await?, TcpListener::bind("127.0.0.1:0").await?);
    let verifier =
        Verifier::new(KeySource::from_secret(&Secret::new("nobody has a token here"))?, None, None);
    let mut config = CoordinatorConfig::new(VNODES.into(), LEASE_TTL_MS, verifier);
    config.requests = RequestLimits::NONE;
    let coordinator = Coordinator::bind(config, store, public, admin).await?;
    println!("http://{}/route?userId=alice", coordinator.addr());
    Err(coordinator.join().await.into())
}

async fn own_everything(store: &EmbeddedStore) -> anyhow::Result<()> {
    let data_set = store.open_ring(VNODES.into()).await?;
    let node = NodeId::new("ws-1")?;
    let sid = Sid::new(&node, 1, 1);
    let row = NodeRow {
        sid: sid.clone(),
        url: "ws://127.0.0.1:7301/socket".into(),
        admin: "127.0.0.1:7401".into(),
        state: NodeState::Up,
        beat: 0,
        weight: 1,
        pins: "auto".into(),
        load: Load::default(),
        gone: Default::default(),
        reads: 0,
    };
    store.register(&Register { data_set: data_set.clone(), node, row }).await?;
    let mut rows = Vec::new();
    for vnode in (0..VNODES).map(VnodeId) {
        let (sid, floor) = (sid.clone(), Epoch(0));
        let claim = Claim { data_set: data_set.clone(), vnode, sid, held: None, floor, pinned: true };
        match store.claim(&claim).await? {
            ClaimAnswer::Granted(epoch) => rows.push((vnode, epoch)),
            other => bail!("vnode {vnode}: {other:?}"),
        }
    }
    let ready = store.set_ready(&OwnRows { data_set, sid, rows }).await?;
    ready.iter().all(|ready| *ready).then_some(()).context("not every vnode is ready")
}
