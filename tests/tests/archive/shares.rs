//! One user's many questions, and another's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::StatusCode;
use roost_archiver::Archiver;
use roost_backend::archive::{
    Answered, Archive, ArchiveError, ArchivePosition, Asked, Batch, DeadLetter, Moment, Replayed, Stored,
};
use roost_backend::embedded::EmbeddedLog;
use roost_proto::StreamId;
use roost_proto::claims::Role;
use roost_proto::events::StatusEvent;
use roost_proto::ids::Cursor;
use roost_tests::archive::{Reader, archive, archiver};
use roost_tests::cluster::{Backend, eventually, token_of};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// An archive that keeps who asks for Alice's messages waiting.
struct Gated {
    archive: Arc<dyn Archive>,
    gate: Semaphore,
    asking: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Archive for Gated {
    async fn positions(&self, topic: &str) -> Result<BTreeMap<u32, u64>, ArchiveError> {
        self.archive.positions(topic).await
    }
    async fn store(&self, batch: &Batch) -> Result<Stored, ArchiveError> {
        self.archive.store(batch).await
    }
    async fn beat(&self, id: &str) -> Result<Vec<String>, ArchiveError> {
        self.archive.beat(id).await
    }
    async fn leave(&self, id: &str) -> Result<(), ArchiveError> {
        self.archive.leave(id).await
    }
    async fn messages(
        &self,
        stream: &StreamId,
        place: ArchivePosition<Cursor>,
        limit: usize,
    ) -> Result<Vec<(Cursor, Bytes)>, ArchiveError> {
        if stream.as_str() == "user:alice" {
            let asking = self.asking.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(asking, Ordering::SeqCst);
            let _open = self.gate.acquire().await;
            self.asking.fetch_sub(1, Ordering::SeqCst);
        }
        self.archive.messages(stream, place, limit).await
    }
    async fn changes(&self, asked: &Asked) -> Result<Vec<(Moment, StatusEvent)>, ArchiveError> {
        self.archive.changes(asked).await
    }
    async fn events(&self, asked: &Asked) -> Result<Vec<(Moment, Answered)>, ArchiveError> {
        self.archive.events(asked).await
    }
    async fn dead_letters(&self, before: Option<u64>, limit: usize) -> Result<Vec<DeadLetter>, ArchiveError> {
        self.archive.dead_letters(before, limit).await
    }
    async fn replay(&self, id: u64) -> Result<Replayed, ArchiveError> {
        self.archive.replay(id).await
    }
    async fn discard(&self, id: u64) -> Result<bool, ArchiveError> {
        self.archive.discard(id).await
    }
    async fn trim(&self, before_ms: u64) -> Result<(), ArchiveError> {
        self.archive.trim(before_ms).await
    }
}

/// An archiver with a closed gate before Alice's messages.
async fn gated() -> (Archiver, Arc<Gated>) {
    let (archive, _) = archive(&Backend::Memory).await.expect("an archive in memory");
    let (gate, asking, most) = (Semaphore::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let gated = Arc::new(Gated { archive, gate, asking, most });
    let log = Arc::new(EmbeddedLog::memory().expect("a log in memory"));
    (archiver(log, Arc::clone(&gated) as Arc<dyn Archive>).await, gated)
}

const ALICES: &str = "/history?stream=user:alice";

fn reader(archiver: &Archiver, user: &str) -> Arc<Reader> {
    Arc::new(Reader::new(archiver, token_of(user, Role::User)))
}

async fn somebody_asks(gated: &Gated) {
    let asks = async || (gated.asking.load(Ordering::SeqCst) > 0).then_some(());
    eventually("Alice's question is at the database", asks).await;
}

/// Shares: one user with 200 requests at once has one at the database, and others notice nothing.
/// The database answers Alice not at all, until Bob and all of her other requests were answered.
#[tokio::test]
async fn who_asks_too_much_is_told_so_and_another_is_answered() {
    let (archiver, gated) = gated().await;
    let (alice, bob) = (reader(&archiver, "alice"), reader(&archiver, "bob"));
    let mut many = JoinSet::new();
    for _ in 0..200 {
        let alice = Arc::clone(&alice);
        many.spawn(async move { alice.ask(ALICES).await.0 });
    }
    somebody_asks(&gated).await;
    let answer = timeout(Duration::from_secs(5), bob.ask("/history?stream=user:bob")).await;
    assert_eq!(answer.expect("Bob waits for nobody").0, StatusCode::OK);
    for _ in 1..200 {
        let told = many.join_next().await.expect("the others").expect("an answer");
        assert_eq!(told, StatusCode::TOO_MANY_REQUESTS);
    }
    gated.gate.add_permits(1_000);
    assert_eq!(many.join_next().await.expect("the first").expect("an answer"), StatusCode::OK);
    assert_eq!(gated.most.load(Ordering::SeqCst), 1, "one at a time");
    archiver.shutdown(Duration::from_secs(5)).await;
}

/// Shares: nobody gets more of the database by leaving.
/// Alice's client goes away while the database works on its question, and asks once more.
#[tokio::test]
async fn a_question_that_was_left_is_still_its_users() {
    let (archiver, gated) = gated().await;
    let alice = reader(&archiver, "alice");
    tokio::select! {
        answer = alice.ask(ALICES) => panic!("{answer:?}"),
        () = somebody_asks(&gated) => {}
    }
    let (status, body) = alice.ask(ALICES).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::TOO_MANY_REQUESTS, &"rate_limited".into()));
    gated.gate.add_permits(1_000);
    let answered = async || (alice.ask(ALICES).await.0 == StatusCode::OK).then_some(());
    eventually("it is her turn again", answered).await;
    assert_eq!(gated.most.load(Ordering::SeqCst), 1, "one at a time");
    archiver.shutdown(Duration::from_secs(5)).await;
}
