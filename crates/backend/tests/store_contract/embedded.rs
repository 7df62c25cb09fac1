//! The embedded store, with a clock of the test's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use roost_backend::contract::store::{Fixture, NOW_MS};
use roost_backend::embedded::EmbeddedStore;
use roost_backend::store::{Store, StoreConfig, StoreError};

/// A directory that goes with its owner.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("roost-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) struct Embedded {
    clock: Arc<AtomicU64>,
    dir: Option<TempDir>,
    /// All nodes of a process share one.
    store: Mutex<Option<(Arc<EmbeddedStore>, StoreConfig)>>,
}

impl Embedded {
    fn new(dir: Option<TempDir>) -> Self {
        Self { clock: Arc::new(AtomicU64::new(NOW_MS)), dir, store: Mutex::default() }
    }

    pub(crate) async fn memory() -> Option<Self> {
        Some(Self::new(None))
    }

    pub(crate) async fn file() -> Option<Self> {
        Some(Self::new(Some(TempDir::new())))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.as_ref().expect("a file").path().join("roost.db")
    }

    pub(crate) fn make(&self, config: StoreConfig) -> Result<EmbeddedStore, StoreError> {
        let clock = self.clock.clone();
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        match &self.dir {
            Some(_) => EmbeddedStore::open(&self.path(), config, clock),
            None => Ok(EmbeddedStore::memory(config, clock)),
        }
    }
}

#[async_trait]
impl Fixture for Embedded {
    async fn open(&self, config: StoreConfig) -> Arc<dyn Store> {
        let mut store = self.store.lock().expect("no test panicked with it");
        store.get_or_insert_with(|| (Arc::new(self.make(config).expect("it opens")), config)).0.clone()
    }

    async fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn reopen(&self, last: Arc<dyn Store>) -> Arc<dyn Store> {
        if self.dir.is_none() {
            return last;
        }
        drop(last);
        let (old, config) =
            self.store.lock().expect("no test panicked with it").take().expect("it was opened");
        assert_eq!(Arc::strong_count(&old), 1, "somebody still has a handle");
        drop(old);
        self.open(config).await
    }
}
