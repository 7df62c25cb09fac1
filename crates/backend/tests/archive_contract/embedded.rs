use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use roost_backend::archive::{Archive, ArchiveError};
use roost_backend::contract::archive::Fixture;
use roost_backend::embedded::EmbeddedArchive;

/// An archive in a file, so that another connection can change its tables.
struct Embedded {
    path: PathBuf,
    clock: Arc<AtomicU64>,
    archive: Arc<EmbeddedArchive>,
}

fn open(path: &std::path::Path, clock: &Arc<AtomicU64>) -> Result<EmbeddedArchive, ArchiveError> {
    let clock = Arc::clone(clock);
    EmbeddedArchive::open(path, Arc::new(move || clock.load(Ordering::Relaxed)))
}

async fn fixture() -> Option<Embedded> {
    let path = std::env::temp_dir().join(format!("roost-archive-{:016x}", rand::random::<u64>()));
    let clock = Arc::new(AtomicU64::new(1_795_243_200_000));
    let archive = Arc::new(open(&path, &clock).expect("an archive in a file"));
    Some(Embedded { path, clock, archive })
}

impl Drop for Embedded {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", ".archive-lock"] {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }
}

#[async_trait]
impl Fixture for Embedded {
    fn archive(&self) -> Arc<dyn Archive> {
        Arc::clone(&self.archive) as Arc<dyn Archive>
    }

    async fn refuse(&self, refuse: bool) {
        let db = rusqlite::Connection::open(&self.path).expect("the file");
        let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON messages WHEN NEW.kind = 'refused'
                       BEGIN SELECT RAISE(ABORT, 'refused by the test'); END";
        db.execute_batch(if refuse { trigger } else { "DROP TRIGGER refuse" }).expect("a trigger");
    }

    async fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }
}

roost_backend::archive_contract!(fixture());

#[tokio::test]
async fn a_file_that_is_open_cannot_be_opened_again() {
    let fixture = fixture().await.expect("an archive");
    let second = open(&fixture.path, &fixture.clock);
    assert!(matches!(second, Err(ArchiveError::Config(_))));
}
