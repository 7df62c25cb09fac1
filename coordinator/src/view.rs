//! The view: the table as last read, in the form that questions about it are answered from.
//!
//! One task reads, everyone else takes the current [`Snapshot`]: no lock, no I/O. A stale snapshot is still used:
//! it makes a client take one more step, never a wrong one, because nodes answer `moved` and epochs fence.

mod admission;
mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use roost_backend::store::{Store, StoreError, Table};
use roost_service::Health;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use self::snapshot::{Home, Snapshot};
use crate::metrics::Metrics;

/// The periodic read (core rule 20), where half a beat is not shorter: the leader has to see when a beat is missing.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Between two reads at least, however many hints come: 20 a second. A handover of a thousand vnodes gives
/// thousands of hints, and a table of 1,024 vnodes is 150 KB.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// The longest wait for one table.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Names of the checks on `/readyz`.
pub const CHECKS: [&str; 2] = ["redis", "ring"];

/// The current snapshot and the task that replaces it.
pub struct View {
    store: Arc<dyn Store>,
    vnodes: u32,
    read_every: Duration,
    /// Without a table for this long the process is not ready: everyone's lease may have ended meanwhile.
    ready_within: Duration,
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<()>,
    health: Health,
    metrics: Metrics,
}

impl View {
    /// Reads the table for the first time.
    ///
    /// # Errors
    /// If the store does not give it.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        vnodes: u32,
        lease_ttl_ms: u64,
        beat: Duration,
        health: Health,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let asked_at = Instant::now();
        let table = read(&*store, vnodes).await?;
        let current = Snapshot::new(table, vnodes, asked_at, None);
        let view = Self {
            store,
            vnodes,
            read_every: READ_EVERY.min(beat / 2),
            ready_within: Duration::from_millis(lease_ttl_ms),
            current: ArcSwap::from_pointee(current),
            changed: watch::Sender::new(()),
            health,
            metrics,
        };
        view.note(Ok(()), Ok(()));
        Ok(view)
    }

    /// The table as last read.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Wakes after every read.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until every vnode has a ready home, as far as is known here.
    pub async fn all_ready(&self) {
        let mut reads = self.subscribe();
        while self.load().ready_vnodes() < self.vnodes as usize {
            reads.changed().await.expect("the sender is in `self`");
        }
    }

    /// Reads again and again, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut hints = self.store.hints();
        let mut last = Instant::now();
        loop {
            let hinted = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(last + self.read_every) => false,
                Ok(()) = hints.changed() => true,
            };
            if hinted {
                // Whatever else changes during the pause is in the same read.
                sleep_until(last + READ_PAUSE).await;
            }
            hints.mark_unchanged();
            last = Instant::now();
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = read(&*self.store, self.vnodes) => read,
            };
            let permitted = permitted(&*self.store).await;
            self.note(read.map(|table| self.publish(table, last)), permitted);
        }
    }

    fn publish(&self, table: Table, asked_at: Instant) {
        let previous = self.current.load_full();
        self.current.store(Arc::new(Snapshot::new(table, self.vnodes, asked_at, Some(&previous))));
        self.changed.send_replace(());
    }

    fn note(&self, read: Result<(), StoreError>, permitted: Result<(), String>) {
        self.metrics.view_read(read.is_ok());
        let current = self.load();
        let age = current.age();
        let redis = match read {
            Err(error) if age >= self.ready_within => {
                Err(format!("no table for {} s: {error}", age.as_secs()))
            }
            Err(error) => {
                tracing::debug!(%error, "the table could not be read");
                Ok(())
            }
            Ok(()) => permitted,
        };
        self.health.set("redis", redis);
        let ready = current.ready_vnodes();
        let nobody = || Err("no vnode has a ready home".to_owned());
        self.health.set("ring", if ready > 0 { Ok(()) } else { nobody() });
        self.metrics.ring(ready, current.living_nodes(), current.longest_delay_ms());
    }
}

/// What the store refuses this process, though it answers.
async fn permitted(store: &dyn Store) -> Result<(), String> {
    match timeout(READ_TIMEOUT, store.ping()).await {
        Ok(Err(error @ StoreError::Refused(_))) => Err(error.to_string()),
        _ => Ok(()),
    }
}

async fn read(store: &dyn Store, vnodes: u32) -> Result<Table, StoreError> {
    let table = match timeout(READ_TIMEOUT, store.table()).await {
        Ok(read) => read?,
        Err(_) => return Err(StoreError::Timeout(READ_TIMEOUT)),
    };
    // Another size would send every user elsewhere.
    if table.vnodes == vnodes {
        Ok(table)
    } else {
        Err(StoreError::Vnodes { found: table.vnodes, wanted: vnodes })
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("vnodes", &self.vnodes).finish_non_exhaustive()
    }
}
