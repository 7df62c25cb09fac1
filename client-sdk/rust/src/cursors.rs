//! Where a client is in its inbox, kept by the application over restarts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use roost_proto::{Cursor, DeviceId, UserId};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::error::BoxError;

/// Of a busy inbox the last cursor of so much time is kept; what came after it is shown again after a crash.
const SAVE_EVERY: Duration = Duration::from_millis(200);

/// A place for the cursor of one user on one device: a file, a row, whatever the application has. Both are called on a
/// thread that may wait, and never at the same time.
///
/// ```
/// use std::path::PathBuf;
/// use roost_client::{BoxError, Cursor, CursorStore};
///
/// struct InFile(PathBuf);
///
/// impl CursorStore for InFile {
///     fn load(&self, _user: &str, _device: Option<&str>) -> Result<Option<Cursor>, BoxError> {
///         match std::fs::read(&self.0) {
///             Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
///             Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
///             Err(e) => Err(e.into()),
///         }
///     }
///
///     fn save(&self, _user: &str, _device: Option<&str>, cursor: Cursor) -> Result<(), BoxError> {
///         let new = self.0.with_extension("new");
///         std::fs::write(&new, serde_json::to_vec(&cursor)?)?;
///         // All of it or nothing, whenever the machine stops.
///         Ok(std::fs::rename(new, &self.0)?)
///     }
/// }
/// ```
pub trait CursorStore: Send + Sync + 'static {
    /// What was saved last; nothing for who never was here.
    ///
    /// # Errors
    /// Whatever keeps it from knowing. The client is not made then: at the end of the inbox it would miss messages
    /// without a word.
    fn load(&self, user: &str, device: Option<&str>) -> Result<Option<Cursor>, BoxError>;

    /// Keeps `cursor` in the place of what was kept before: the application has taken everything up to it, and, with
    /// [`manual_ack`](crate::Builder::manual_ack), said that it is done. Without that a message that it was dealing with
    /// when its process ended is not shown again.
    ///
    /// # Errors
    /// Whatever keeps it from doing so: it is logged, and tried again with the next one.
    fn save(&self, user: &str, device: Option<&str>, cursor: Cursor) -> Result<(), BoxError>;
}

/// Brings the cursors of one client to its store.
pub(crate) struct Keeper {
    store: Arc<dyn CursorStore>,
    user: UserId,
    device: Option<DeviceId>,
}

impl Keeper {
    pub(crate) fn new(store: Arc<dyn CursorStore>, user: &UserId, device: Option<&DeviceId>) -> Self {
        Self { store, user: user.clone(), device: device.cloned() }
    }

    /// # Errors
    /// The store's.
    pub(crate) async fn load(&self) -> Result<Option<Cursor>, BoxError> {
        self.call(|store, user, device| store.load(user, device)).await
    }

    /// Keeps what is taken until `ended`, and what was taken by then.
    pub(crate) async fn run(self, mut cursors: watch::Receiver<Option<Cursor>>, ended: CancellationToken) {
        let mut kept = None;
        while !ended.is_cancelled() {
            tokio::select! {
                changed = cursors.changed() => if changed.is_err() { break },
                () = ended.cancelled() => break,
            }
            let cursor = *cursors.borrow_and_update();
            kept = self.keep(cursor, kept).await;
            tokio::select! {
                () = tokio::time::sleep(SAVE_EVERY) => {}
                () = ended.cancelled() => {}
            }
        }
        let last = *cursors.borrow();
        self.keep(last, kept).await;
    }

    /// Keeps `cursor` if it is another than what is `kept`; gives what is kept now. While the client has none, because
    /// the stream began anew and the application has not taken that yet, the older one says so best.
    async fn keep(&self, cursor: Option<Cursor>, kept: Option<Cursor>) -> Option<Cursor> {
        let Some(new) = cursor.filter(|_| cursor != kept) else { return kept };
        match self.call(move |store, user, device| store.save(user, device, new)).await {
            Ok(()) => cursor,
            Err(error) => {
                tracing::warn!(%error, "the cursor is not kept: messages may be shown again after a restart");
                kept
            }
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn CursorStore, &str, Option<&str>) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, BoxError> {
        let (store, user, device) = (Arc::clone(&self.store), self.user.clone(), self.device.clone());
        let called = move || call(&*store, user.as_str(), device.as_ref().map(DeviceId::as_str));
        spawn_blocking(called).await?
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("user", &self.user).finish_non_exhaustive()
    }
}
