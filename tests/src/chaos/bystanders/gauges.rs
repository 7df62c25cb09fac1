//! What is asserted of a cluster under attack, as numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, cmd};

use crate::chaos::scenario::NODES;
use crate::chaos::storm::{REVOKED, SUSPENSIONS, resident_mb};
use crate::processes::Cluster;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const MB: f64 = 1_000_000.0;
/// An attack that stops Redis for everybody stops it for who looks, too.
const REDIS_WITHIN: Duration = Duration::from_secs(120);

/// A connection of one's own, which waits as long as it takes.
pub(super) async fn redis(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(REDIS_WITHIN))
        .set_response_timeout(Some(REDIS_WITHIN));
    Ok(Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// Counters at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauges {
    pub suspensions: f64,
    pub declared_dead: f64,
    /// Of each node.
    pub resident_mb: BTreeMap<&'static str, f64>,
    /// Everything that Redis ever said, in bytes.
    pub redis_out: f64,
    pub redis_commands: f64,
    pub redis_keys: f64,
    pub redis_mb: f64,
}

impl Gauges {
    pub(super) async fn read(cluster: &Cluster, redis: &MultiplexedConnection) -> anyhow::Result<Self> {
        let mut redis = redis.clone();
        let mut gauges = Self::default();
        for series in REVOKED {
            gauges.declared_dead += cluster.coordinators_count(series).await;
        }
        for name in NODES {
            gauges.suspensions += cluster.metric(name, SUSPENSIONS).await;
            gauges.resident_mb.insert(name, resident_mb(cluster.node(name).process.pid()));
        }
        let info: String = cmd("INFO").arg("everything").query_async(&mut redis).await?;
        let value = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        gauges.redis_out = value("total_net_output_bytes");
        gauges.redis_commands = value("total_commands_processed");
        gauges.redis_mb = value("used_memory") / MB;
        gauges.redis_keys = cmd("DBSIZE").query_async::<u64>(&mut redis).await? as f64;
        Ok(gauges)
    }
}

/// The most that each node has in memory, looked at from a thread of its own until it is dropped.
#[derive(Debug)]
pub(super) struct Peak {
    stop: Arc<AtomicBool>,
    kb: BTreeMap<&'static str, Arc<AtomicU64>>,
}

impl Peak {
    pub(super) fn watch(cluster: &Cluster) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let pids = NODES.map(|name| (name, cluster.node(name).process.pid()));
        let kb: BTreeMap<_, Arc<AtomicU64>> = NODES.iter().map(|name| (*name, Arc::default())).collect();
        let (until, noted) = (Arc::clone(&stop), kb.clone());
        std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for (name, pid) in pids {
                    noted[name].fetch_max((resident_mb(pid) * 1024.0) as u64, Ordering::Relaxed);
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Self { stop, kb }
    }

    /// By how much the node grew that grew most.
    pub(super) fn above(&self, before: &Gauges) -> f64 {
        let grown = |(name, kb): (&&'static str, &Arc<AtomicU64>)| {
            kb.load(Ordering::Relaxed) as f64 / 1024.0 - before.resident_mb.get(*name).copied().unwrap_or(0.0)
        };
        self.kb.iter().map(grown).fold(0.0, f64::max)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
