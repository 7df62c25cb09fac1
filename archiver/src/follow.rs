//! Follows one topic: reads its share of the partitions and stores what it reads.
//!
//! There is one way out of everything that goes wrong, and of every change of the share: what was read and not stored is
//! forgotten, the archive is asked how far it is, and reading begins there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use roost_backend::archive::{Archive, ArchiveError, Stored};
use roost_backend::log::{Log, LogError, LogReader, LogRecord, Position};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::gather::{Gathering, bytes};
use crate::metrics::TopicMetrics;
use crate::share::share;

/// Records of one transaction: what a database takes in some tens of milliseconds; larger ones are hardly quicker.
/// After a failure batches begin with a quarter of the size and grow again: each must end within its time, whatever is
/// wrong with the database or with the records.
const BATCH_RECORDS: usize = 5_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Pages (a few hundred records each) that wait to be stored: two batches,
const PAGES_MAX: usize = 40;
/// and their size in KiB: four batches of the largest records.
const QUEUE_KIB: usize = 16 * 1024;
/// Without a record for this long, it is looked whether some were removed.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// After an error of the log, before a new reader begins.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// After somebody else has read on from where we were: the next beat tells whose the partition is.
const FENCED_PAUSE: Duration = Duration::from_millis(500);
/// The first pause while the database is away; each is twice the one before.
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// How far the partitions of this share are archived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<BTreeMap<u32, u64>>>);

impl Progress {
    pub(crate) fn get(&self) -> BTreeMap<u32, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, next: BTreeMap<u32, u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

pub(crate) struct Follower {
    pub topic: &'static str,
    pub partitions: u32,
    /// Who we are among the living.
    pub id: String,
    pub living: watch::Receiver<Vec<String>>,
    pub log: Arc<dyn Log>,
    pub archive: Arc<dyn Archive>,
    pub progress: Progress,
    pub metrics: TopicMetrics,
    /// The longest pause while the database is away.
    pub backoff_max: Duration,
}

/// Why reading began anew.
enum Ended {
    /// The share is another now.
    Regrouped,
    Fenced,
    Failed(ArchiveError),
    /// The log.
    Unread(String),
}

/// Records as read, and their place in the queue.
struct Page {
    records: Vec<LogRecord>,
    room: Option<OwnedSemaphorePermit>,
}

impl Page {
    /// Leaves `max` records and returns the others, if there are any. One page may be beyond the queue by this.
    fn split(&mut self, max: usize) -> Option<Self> {
        let rest = self.records.split_off(max.min(self.records.len()));
        (!rest.is_empty()).then_some(Self { records: rest, room: None })
    }
}

impl Follower {
    /// Until `stop`. A transaction under way is given up then: whoever reads on begins where the last one ended.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let following = async {
            let (mut pause, mut batch_max) = (BACKOFF_MIN, BATCH_RECORDS);
            loop {
                let stored = self.metrics.batches();
                let ended = self.follow(&mut batch_max).await;
                if self.metrics.batches() > stored {
                    pause = BACKOFF_MIN;
                }
                match ended {
                    Ended::Regrouped => {}
                    Ended::Fenced => {
                        tracing::info!(topic = self.topic, "another archiver has read on");
                        sleep(FENCED_PAUSE).await;
                    }
                    Ended::Failed(error) => {
                        // Full jitter, so that several do not come at once.
                        let wait = pause.mul_f64(rand::random_range(0.5..1.0));
                        tracing::warn!(topic = self.topic, %error, ?wait, "paused: the database does not take it");
                        sleep(wait).await;
                        batch_max = (batch_max / 4).max(1);
                        pause = (pause * 2).min(self.backoff_max);
                    }
                    Ended::Unread(error) => {
                        tracing::warn!(topic = self.topic, error, "the log cannot be read");
                        sleep(READ_AGAIN).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
        }
    }

    fn share(&self, living: &[String]) -> Vec<u32> {
        share(living, &self.id, self.topic, self.partitions)
    }

    /// As long as the share stays the same and all goes well.
    async fn follow(&self, batch_max: &mut usize) -> Ended {
        let mut living = self.living.clone();
        let mine = self.share(&living.borrow_and_update());
        let regrouped = async {
            // The sender lives as long as this.
            while living.changed().await.is_ok() {
                if self.share(&living.borrow_and_update()) != mine {
                    return Ended::Regrouped;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = self.read_and_store(&mine, batch_max) => ended,
            ended = regrouped => ended,
        }
    }

    async fn read_and_store(&self, mine: &[u32], batch_max: &mut usize) -> Ended {
        if mine.is_empty() {
            self.progress.set(BTreeMap::new());
            return std::future::pending().await;
        }
        let stored = match self.archive.positions(self.topic).await {
            Ok(stored) => stored,
            Err(error) => return Ended::Failed(error),
        };
        let mut next: BTreeMap<u32, u64> =
            mine.iter().map(|p| (*p, stored.get(p).copied().unwrap_or(0))).collect();
        if let Err(ended) = self.skip_removed(&mut next).await {
            return ended;
        }
        let from: Vec<_> = next.iter().map(|(&partition, &offset)| Position { partition, offset }).collect();
        let reader = match self.log.read_from(self.topic, &from).await {
            Ok(reader) => reader,
            Err(error) => return Ended::Unread(error.to_string()),
        };
        tracing::info!(topic = self.topic, partitions = ?mine, "archiving");
        let (queue, pages) = mpsc::channel(PAGES_MAX);
        tokio::select! {
            error = self.read(reader, queue) => Ended::Unread(error),
            ended = self.store(pages, next, batch_max) => ended,
        }
    }

    /// Reads ahead while a batch is being stored, until something goes wrong.
    async fn read(&self, mut reader: Box<dyn LogReader>, queue: mpsc::Sender<Page>) -> String {
        let room = Arc::new(Semaphore::new(QUEUE_KIB));
        loop {
            let records = match reader.next().await {
                Ok(records) => records,
                Err(error) => return error.to_string(),
            };
            let kib = (records.iter().map(bytes).sum::<usize>() / 1024 + 1).min(QUEUE_KIB);
            let permits = u32::try_from(kib).expect("no more than the queue has");
            let ended = || "nobody takes what is read".to_owned();
            let Ok(room) = Arc::clone(&room).acquire_many_owned(permits).await else { return ended() };
            if queue.send(Page { records, room: Some(room) }).await.is_err() {
                return ended();
            }
        }
    }

    /// Moves over what retention removed: where nothing is left, no record would tell. It is for who begins to read, and
    /// then for a partition that nothing comes from.
    async fn skip_removed(&self, next: &mut BTreeMap<u32, u64>) -> Result<(), Ended> {
        let first = async |&partition: &u32| {
            Ok::<_, LogError>((partition, self.log.first(self.topic, partition).await?))
        };
        let firsts = try_join_all(next.keys().map(first)).await;
        let mut gathering = Gathering::new(next);
        for (partition, first) in firsts.map_err(|error| Ended::Unread(error.to_string()))? {
            gathering.skip_to(partition, first);
        }
        self.keep(gathering, next).await
    }

    /// Stores what has gathered, if anything has.
    async fn keep(&self, gathering: Gathering, next: &mut BTreeMap<u32, u64>) -> Result<(), Ended> {
        self.tell_gaps(&gathering);
        let lost = gathering.lost;
        let batch = gathering.batch(self.topic);
        if !batch.spans.is_empty() {
            let began = Instant::now();
            match self.archive.store(&batch).await {
                Ok(Stored::Kept(tally)) => {
                    self.metrics.stored(&tally, lost, began.elapsed());
                    if tally.dead > 0 {
                        tracing::warn!(topic = self.topic, records = tally.dead, "put aside as dead letters");
                    }
                }
                Ok(Stored::Fenced) => return Err(Ended::Fenced),
                Err(error) => return Err(Ended::Failed(error)),
            }
        }
        next.extend(batch.spans.iter().map(|span| (span.partition, span.to)));
        self.progress.set(next.clone());
        Ok(())
    }

    /// Takes what has gathered and stores it in one transaction, over and over.
    async fn store(
        &self,
        mut pages: mpsc::Receiver<Page>,
        mut next: BTreeMap<u32, u64>,
        batch_max: &mut usize,
    ) -> Ended {
        let mut left: Option<Page> = None;
        loop {
            let mut page = match left.take() {
                Some(page) => page,
                None => match timeout(SILENT_FOR, pages.recv()).await {
                    Ok(Some(page)) => page,
                    Ok(None) => return Ended::Unread("the reader ended".to_owned()),
                    Err(_) => match self.skip_removed(&mut next).await {
                        Ok(()) => continue,
                        // The reader is well; one partition without a leader must not stop the others.
                        Err(Ended::Unread(error)) => {
                            tracing::debug!(
                                topic = self.topic,
                                error,
                                "where partitions begin is not known now"
                            );
                            continue;
                        }
                        Err(ended) => return ended,
                    },
                },
            };
            let (mut gathering, mut taken) = (Gathering::new(&next), Vec::new());
            loop {
                left = page.split(gathering.room(*batch_max));
                gathering.take(page.records);
                taken.push(page.room);
                if left.is_some() || gathering.is_full(*batch_max, BATCH_BYTES) {
                    break;
                }
                let Ok(another) = pages.try_recv() else { break };
                page = another;
            }
            if let Err(ended) = self.keep(gathering, &mut next).await {
                return ended;
            }
            *batch_max = (*batch_max * 2).min(BATCH_RECORDS);
        }
    }

    fn tell_gaps(&self, gathering: &Gathering) {
        if gathering.lost > 0 {
            tracing::error!(
                topic = self.topic,
                records = gathering.lost,
                "records were removed from the log before they were archived: they are lost"
            );
        }
        for partition in &gathering.went_back {
            tracing::error!(
                topic = self.topic,
                partition,
                "the log went back: it is archived from its beginning"
            );
        }
    }
}

#[cfg(test)]
mod tests;
