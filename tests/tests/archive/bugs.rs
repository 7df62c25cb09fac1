//! What becomes of an archiver that has a bug.

use std::sync::Arc;

use roost_backend::embedded::EmbeddedLog;
use roost_proto::events::CLIENT_EVENTS;
use roost_service::TaskEnded;
use roost_tests::archive::{archive, archiver};
use roost_tests::broken::Broken;
use roost_tests::cluster::Backend;
use roost_tests::processes::LIMIT;
use tokio::time::timeout;

/// Decision 17: an archiver of which a part is gone says so. The reader of one of its topics panics.
#[tokio::test]
async fn an_archiver_of_which_a_part_is_broken_says_which() {
    let (archive, _) = archive(&Backend::Memory).await.expect("an archive in memory");
    let broken = Broken::new(CLIENT_EVENTS);
    let log = broken.before(Arc::new(EmbeddedLog::memory().expect("a log in memory")));
    let archiver = archiver(log, archive).await;
    broken.now();
    let bug = timeout(LIMIT, archiver.join()).await.expect("it is noticed");
    assert_eq!(bug, TaskEnded::Panicked(CLIENT_EVENTS));
}
