//! A log from which retention has removed everything.

use async_trait::async_trait;
use prometheus::Registry;
use roost_backend::embedded::{EmbeddedArchive, EmbeddedLog};
use roost_backend::log::{Durability, Producer, Report, TopicSpec};

use super::*;
use crate::metrics::Metrics;

const TOPIC: &str = "client_results";
const REMOVED: u64 = 500;

/// Empty, and each partition goes on at [`REMOVED`].
struct Hollow(EmbeddedLog);

#[async_trait]
impl Log for Hollow {
    async fn ensure_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        self.0.ensure_topic(topic, spec).await
    }
    async fn remove_topic(&self, topic: &str) -> Result<bool, LogError> {
        self.0.remove_topic(topic).await
    }
    fn producer(
        &self,
        lane: Durability,
        reports: mpsc::Sender<Report>,
    ) -> Result<Arc<dyn Producer>, LogError> {
        self.0.producer(lane, reports)
    }
    async fn read_from_end(&self, topic: &str) -> Result<Box<dyn LogReader>, LogError> {
        self.0.read_from_end(topic).await
    }
    async fn read_from(&self, topic: &str, _: &[Position]) -> Result<Box<dyn LogReader>, LogError> {
        self.0.read_from_end(topic).await
    }
    async fn end(&self, _: &str, _: u32) -> Result<u64, LogError> {
        Ok(REMOVED)
    }
    async fn first(&self, _: &str, _: u32) -> Result<u64, LogError> {
        Ok(REMOVED)
    }
    async fn committed(&self, topic: &str) -> Result<BTreeMap<u32, u64>, LogError> {
        self.0.committed(topic).await
    }
    async fn commit(&self, topic: &str, at: &[Position]) -> Result<(), LogError> {
        self.0.commit(topic, at).await
    }
    async fn ping(&self) -> Result<(), LogError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_partition_with_nothing_left_stands_where_it_ends() {
    let log = EmbeddedLog::memory().unwrap();
    log.ensure_topic(TOPIC, TopicSpec::shared(TOPIC, 2)).await.unwrap();
    let archive: Arc<dyn Archive> = Arc::new(EmbeddedArchive::memory(Arc::new(|| 0)).unwrap());
    let (_living, living) = watch::channel(vec!["a".to_owned()]);
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let follower = Follower {
        topic: TOPIC,
        partitions: 2,
        id: "a".into(),
        living,
        log: Arc::new(Hollow(log)),
        archive: Arc::clone(&archive),
        progress: progress.clone(),
        metrics: Metrics::register(&Registry::new()).unwrap().of(TOPIC),
        backoff_max: BACKOFF_MIN,
    };
    let following = tokio::spawn(follower.run(stop.clone()));
    let all = BTreeMap::from([(0, REMOVED), (1, REMOVED)]);
    let there = async {
        while progress.get() != all {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), there).await.expect("it moves over what is gone");
    assert_eq!(archive.positions(TOPIC).await.unwrap(), all);
    stop.cancel();
    following.await.unwrap();
}
