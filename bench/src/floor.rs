//! What the back ends alone take for the steps of one message.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use roost_backend::log::{Durability, Outgoing, TopicSpec};
use roost_backend::store::*;
use roost_proto::ids::{Epoch, MessageId, NodeId, Seq, Sid, StreamId, VnodeId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cluster::{Cluster, wall_ms};
use crate::quantile;

const SAMPLES: usize = 1000;
const LIMIT: Duration = Duration::from_secs(10);

/// Medians in microseconds.
pub(crate) struct Floor {
    pub read: u64,
    pub report: u64,
    pub write: u64,
}

impl Floor {
    /// Item to its home, write, event to the log, confirm back.
    pub(crate) fn message(&self) -> u64 {
        self.read + self.write + self.report + self.read
    }
}

pub(crate) async fn measure(cluster: &Cluster) -> Result<Floor> {
    let topic = format!("messages-floor-{:08x}", rand::random::<u32>());
    let log = &cluster.backends.log;
    log.ensure_topic(&topic, TopicSpec::kept_for(3_600_000, 1)).await?;
    let mut reader = log.read_from_end(&topic).await?;
    let (reports, mut reported) = mpsc::channel(1024);
    let producer = log.producer(Durability::Transport, reports)?;
    let (mut read, mut report) = (Vec::new(), Vec::new());
    for token in 0..SAMPLES as u64 {
        let record = Outgoing {
            topic: topic.as_str().into(),
            partition: 0,
            key: "0".into(),
            payload: vec![b'x'; 400].into(),
            token,
        };
        let start = Instant::now();
        producer.produce(record)?;
        let (seen, told) = tokio::join!(
            async { timeout(LIMIT, reader.next()).await.map(|r| r.map(|_| start.elapsed())) },
            async { timeout(LIMIT, reported.recv()).await.map(|_| start.elapsed()) },
        );
        read.push(seen??.as_micros() as u64);
        report.push(told?.as_micros() as u64);
    }
    let write = writes(cluster).await?;
    Ok(Floor { read: quantile(&mut read, 0.5), report: quantile(&mut report, 0.5), write })
}

/// Above every ring: nobody owns it, and no user is sent to it.
const VNODE: VnodeId = VnodeId(40_000);
/// Above the epochs that stores make of their clocks.
const EPOCHS_FROM: u64 = 1 << 41;

/// Single appends to that vnode.
async fn writes(cluster: &Cluster) -> Result<u64> {
    let store = &cluster.backends.store;
    let data_set = store.table().await?.data_set;
    let sid = Sid::new(&NodeId::new("floor")?, 1, rand::random());
    // With the clock in it, so that it is above that of every earlier run on the same store.
    let (vnode, epoch) = (VNODE, Epoch(EPOCHS_FROM + wall_ms()));
    let activate =
        Activate { data_set, vnode, epoch, sid: sid.clone(), prove: false, held: None, left: None };
    let activated = match store.activate(&activate).await? {
        ActivateAnswer::Activated(activated) => activated,
        other => bail!("the store does not give the floor its vnode: {other:?}"),
    };
    let stream = StreamId::new("user:floor")?;
    let (mut seq, mut samples) = (activated.seq, Vec::new());
    for n in 0..SAMPLES as u64 {
        let op = AppendOp {
            stream: stream.clone(),
            from: "floor".into(),
            id: MessageId::new(format!("{epoch}-{n}"))?,
            hash: n,
            at: n,
            rest: vec![b'x'; 300].into(),
            due: false,
            wanted: None,
            closes: None,
        };
        let fence = Fence { vnode, epoch, sid: sid.clone(), seq };
        let write = Write { fence, now_ms: n, trim: Seq(seq.0), ops: vec![Op::Append(op)] };
        let start = Instant::now();
        let answer = timeout(LIMIT, store.write(&write)).await.context("a write")??;
        samples.push(start.elapsed().as_micros() as u64);
        let WriteAnswer::Done { seq: next, .. } = answer else { bail!("the floor's write: {answer:?}") };
        seq = next;
    }
    Ok(quantile(&mut samples, 0.5))
}
