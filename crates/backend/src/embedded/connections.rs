//! SQLite as the embedded back ends use it: one connection that writes, one that reads, and who may touch them when.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::file;

/// The embedded store may keep its tables in the same file; it holds the write lock for a transaction, a few
/// milliseconds, or for a checkpoint on a slow disk.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A commit survives the end of the process; a power cut may take the last ones, never the middle. The write-ahead
/// file is cut back to 64 MiB when a burst has made it larger.
const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA journal_size_limit = 67108864;";

/// On disk every call runs on a thread that may block; in memory it runs where it is, which takes microseconds, and
/// keeps a simulation under a paused clock on one thread and therefore repeatable.
pub(super) struct Connections {
    writer: Arc<Mutex<Connection>>,
    /// The same connection in memory, its own on disk, where SQLite reads beside a write.
    reader: Arc<Mutex<Connection>>,
    on_disk: bool,
    /// Locked while this is open: the owner keeps something in memory that a second process would not see.
    _lock: Option<File>,
}

impl Connections {
    pub(super) fn memory(schema: &str) -> rusqlite::Result<Self> {
        let db = Connection::open_in_memory()?;
        db.execute_batch(SETTINGS)?;
        db.execute_batch(schema)?;
        let db = Arc::new(Mutex::new(db));
        Ok(Self { reader: Arc::clone(&db), writer: db, on_disk: false, _lock: None })
    }

    /// The file at `path`, made if there is none; a file beside it, named by `lock`, keeps others out.
    ///
    /// # Errors
    /// What is in the way, in words.
    pub(super) fn open(path: &Path, schema: &str, lock: &str) -> Result<Self, String> {
        let lock = file::claim(path, lock)?;
        let connect = || {
            let db = Connection::open(path)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.execute_batch(SETTINGS)?;
            db.execute_batch(schema)?;
            Ok(Arc::new(Mutex::new(db)))
        };
        let refused = |e: rusqlite::Error| format!("{}: {e}", path.display());
        let (writer, reader) = (connect().map_err(refused)?, connect().map_err(refused)?);
        Ok(Self { writer, reader, on_disk: true, _lock: Some(lock) })
    }

    /// The connection that writes, for the start, before there is anybody to be held up.
    pub(super) fn writer(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic interrupted was rolled back when it was dropped.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// What SQLite said; nothing was written then.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        self.run(&self.writer, f).await
    }

    /// # Errors
    /// What SQLite said.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        self.run(&self.reader, f).await
    }

    async fn run<T: Send + 'static>(
        &self,
        connection: &Arc<Mutex<Connection>>,
        f: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let connection = Arc::clone(connection);
        let call = move || f(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        let answer = if self.on_disk {
            let ended = |e| format!("the write or read did not finish: {e}");
            tokio::task::spawn_blocking(call).await.map_err(ended)?
        } else {
            call()
        };
        answer.map_err(|e| format!("SQLite: {e}"))
    }
}
