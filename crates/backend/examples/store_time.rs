//! How long the store's calls take: in memory, in a file, and on the Redis that `REDIS_URL` names (an empty one; it
//! is emptied again).
//!
//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --release -p roost-backend --example store_time`

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use roost_backend::embedded::EmbeddedStore;
use roost_backend::redis::RedisStore;
use roost_backend::store::*;
use roost_proto::ids::{Epoch, MessageId, NodeId, Seq, Sid, StreamId, VnodeId};

const VNODES: u16 = 1024;
const NODES: u16 = 8;
const NOW_MS: u64 = 1_795_240_800_000;

type Failure = Box<dyn std::error::Error>;

fn report(what: &str, calls: u32, since: Instant) {
    println!("  {what}: {:?} each, {calls} calls", since.elapsed() / calls);
}

/// Appends to one inbox; what came before is trimmed from the outbox.
fn write(sid: &Sid, vnode: VnodeId, seq: Seq, appends: u64) -> Result<Write, Failure> {
    let fence = Fence { vnode, epoch: Epoch(NOW_MS), sid: sid.clone(), seq };
    let stream = StreamId::new("user:bob")?;
    let ops = (1..=appends).map(|i| {
        let id = MessageId::new(format!("m-{}-{i}", seq.0))?;
        let rest = Bytes::from(format!("\"id\":\"{id}\",\"data\":{{\"text\":\"{}\"}}}}", "x".repeat(100)));
        let (stream, from) = (stream.clone(), "alice".into());
        Ok(Op::Append(AppendOp {
            stream,
            from,
            id,
            hash: i,
            at: NOW_MS,
            rest,
            due: false,
            wanted: None,
            closes: None,
        }))
    });
    let ops = ops.collect::<Result<_, Failure>>()?;
    Ok(Write { fence, now_ms: NOW_MS, trim: seq, ops })
}

/// Writes one after the other.
async fn writes(
    store: &dyn Store,
    sid: &Sid,
    vnode: VnodeId,
    calls: u32,
    appends: u64,
) -> Result<(), Failure> {
    let data_set = store.open_ring(VNODES.into()).await?;
    let (epoch, sid_here) = (Epoch(NOW_MS), sid.clone());
    let activate = Activate { data_set, vnode, epoch, sid: sid_here, prove: false, held: None, left: None };
    let ActivateAnswer::Activated(activated) = store.activate(&activate).await? else {
        return Err("somebody else is here".into());
    };
    let mut seq = activated.seq;
    for _ in 0..calls {
        match store.write(&write(sid, vnode, seq, appends)?).await? {
            WriteAnswer::Done { seq: now, .. } => seq = now,
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

fn node_row(sid: &Sid, n: u16) -> NodeRow {
    NodeRow {
        sid: sid.clone(),
        url: format!("wss://ws-{n}.example/socket"),
        admin: format!("10.0.0.{n}:9100"),
        state: NodeState::Up,
        beat: 0,
        weight: 100,
        pins: String::new(),
        load: Load::default(),
        gone: Default::default(),
        reads: 0,
    }
}

/// A full table. The rows of the first node, and its sid.
async fn fill(store: &dyn Store) -> Result<(Sid, Vec<(VnodeId, Epoch)>), Failure> {
    let data_set = store.open_ring(VNODES.into()).await?;
    let mut sids = Vec::new();
    for n in 0..NODES {
        let node = NodeId::new(format!("ws-{n}"))?;
        let sid = Sid::new(&node, NOW_MS, n.into());
        let request = Register { data_set: data_set.clone(), node, row: node_row(&sid, n) };
        store.register(&request).await?;
        sids.push(sid);
    }
    let boss = "boss".to_string();
    store.lead(&Lead { data_set: data_set.clone(), token: boss.clone(), frozen: None }).await?;
    let targets = (0..VNODES).map(|v| (VnodeId(v), sids[usize::from(v % NODES)].node())).collect();
    store.assign(&Assign { data_set: data_set.clone(), token: boss, from_version: 0, targets }).await?;
    let mut rows = Vec::new();
    let started = Instant::now();
    for v in 0..VNODES {
        let sid = sids[usize::from(v % NODES)].clone();
        let (data_set, vnode) = (data_set.clone(), VnodeId(v));
        let claim = Claim { data_set, vnode, sid, held: None, floor: Epoch(0), pinned: false };
        match store.claim(&claim).await? {
            ClaimAnswer::Granted(epoch) => rows.push((vnode, epoch)),
            other => return Err(format!("{other:?}").into()),
        }
    }
    report("claim", VNODES.into(), started);
    Ok((sids.swap_remove(0), rows))
}

async fn measure(name: &str, store: &dyn Store) -> Result<(), Failure> {
    println!("{name}");
    let (sid, rows) = fill(store).await?;
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(store.table().await?.rows.len(), usize::from(VNODES));
    }
    report("table of 1,024 rows, 1,024 targets, 8 nodes", 1000, started);
    let data_set = store.open_ring(VNODES.into()).await?;
    let renew = Renew { data_set, sid: sid.clone(), state: NodeState::Up, load: Load::default(), rows };
    let started = Instant::now();
    for _ in 0..1000 {
        store.renew(&renew).await?;
    }
    report("renew of 1,024 rows, 128 of them one's own", 1000, started);
    let started = Instant::now();
    writes(store, &sid, VnodeId(0), 20_000, 1).await?;
    report("write of 1 append", 20_000, started);
    let started = Instant::now();
    writes(store, &sid, VnodeId(1), 2000, 50).await?;
    report("write of 50 appends", 2000, started);
    let started = Instant::now();
    let all = join_all((2..66).map(|v| writes(store, &sid, VnodeId(v), 1000, 1))).await;
    all.into_iter().collect::<Result<Vec<()>, _>>()?;
    report("write of 1 append, 64 vnodes at a time", 64_000, started);
    let started = Instant::now();
    for _ in 0..10_000 {
        store.ping().await?;
    }
    report("ping", 10_000, started);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = StoreConfig { lease_ttl_ms: 600_000, ..Default::default() };
    let clock = Arc::new(|| NOW_MS);
    measure("memory", &EmbeddedStore::memory(config, clock.clone())).await?;
    let dir = std::env::temp_dir().join(format!("roost-store-time-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let measured = measure("file", &EmbeddedStore::open(&dir.join("roost.db"), config, clock)?).await;
    std::fs::remove_dir_all(&dir)?;
    measured?;
    let Ok(url) = std::env::var("REDIS_URL") else {
        println!("Redis is not measured: REDIS_URL is not set");
        return Ok(());
    };
    let mut admin = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    if redis::cmd("DBSIZE").query_async::<u64>(&mut admin).await? != 0 {
        return Err("REDIS_URL names a database that holds keys".into());
    }
    let measured = measure("Redis", &RedisStore::connect(&url, config).await?).await;
    redis::cmd("FLUSHDB").exec_async(&mut admin).await?;
    measured
}
