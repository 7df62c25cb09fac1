//! Topics: what they look like, and making one.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use tokio::time::Instant;

use super::client::{Logging, OffThread, blocking, refusal};
use super::config::KafkaConfig;
use super::ends::{Control, Ends, drain_events};
use crate::log::{FOREIGN_BYTES_MAX, LogError, TopicSpec};

/// For one question about a topic.
const METADATA_LIMIT: Duration = Duration::from_secs(3);
/// For the controller to make a topic.
const CREATE_LIMIT: Duration = Duration::from_secs(10);
/// For a new topic to get leaders everywhere: milliseconds on one broker, a second or two on a busy cluster.
const LEADERS_LIMIT: Duration = Duration::from_secs(15);
const LEADERS_POLL: Duration = Duration::from_millis(50);
/// The broker's default `segment.ms`. Only whole segments are removed, so shorter retention needs shorter ones.
const SEGMENT_MS: u64 = 7 * 24 * 3_600_000;

/// What a broker says about a topic.
pub(super) struct Shape {
    pub partitions: u32,
    /// Whether each of them has a leader.
    pub led: bool,
}

/// `None` if there is no such topic.
pub(super) async fn shape(control: &Arc<Control>, topic: &str) -> Result<Option<Shape>, LogError> {
    let (control, topic) = (Arc::clone(control), topic.to_owned());
    blocking(METADATA_LIMIT, move || {
        drain_events(&control);
        describe(control.client(), &topic)
    })
    .await
}

fn describe(client: &Client<Logging>, topic: &str) -> Result<Option<Shape>, LogError> {
    let metadata =
        client.fetch_metadata(Some(topic), METADATA_LIMIT).map_err(|e| refusal(&e, METADATA_LIMIT))?;
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
    match found.error() {
        None => {}
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(None),
        // A topic in the making.
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => {}
        Some(e) => return Err(LogError::Refused(format!("topic {topic}: {}", RDKafkaErrorCode::from(e)))),
    }
    let partitions = found.partitions();
    let led = !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0 && p.error().is_none());
    Ok(Some(Shape { partitions: partitions.len() as u32, led }))
}

/// Makes the topic if there is none, and waits until each partition has a leader that knows it is.
pub(super) async fn ensure(
    control: &Arc<Control>,
    ends: &Ends,
    config: &KafkaConfig,
    topic: &str,
    spec: TopicSpec,
) -> Result<(), LogError> {
    if shape(control, topic).await?.is_none() {
        create(config, topic, spec).await?;
    }
    let deadline = Instant::now() + LEADERS_LIMIT;
    loop {
        match usable(control, ends, topic, spec.partitions).await {
            Ok(true) => return Ok(()),
            Err(e @ (LogError::Partitions { .. } | LogError::Refused(_))) => return Err(e),
            // Not yet.
            Ok(false) | Err(LogError::Unreachable(_) | LogError::Timeout(_)) => {}
        }
        if Instant::now() >= deadline {
            return Err(LogError::Timeout(LEADERS_LIMIT));
        }
        tokio::time::sleep(LEADERS_POLL).await;
    }
}

/// The metadata names the leaders first; that they lead they learn a little later, so they are asked as well.
async fn usable(control: &Arc<Control>, ends: &Ends, topic: &str, wanted: u32) -> Result<bool, LogError> {
    let Some(Shape { partitions: found, led: true }) = shape(control, topic).await? else { return Ok(false) };
    if found != wanted {
        return Err(LogError::Partitions { topic: topic.to_owned(), found, wanted });
    }
    ends.of(topic, (0..found).collect()).await.map(|_| true)
}

async fn create(config: &KafkaConfig, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
    let refused = |e| refusal(&e, CREATE_LIMIT);
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    let retention = spec.retention_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string());
    let segment = spec.retention_ms.map_or(SEGMENT_MS, |ms| ms.min(SEGMENT_MS)).to_string();
    let bytes_max = FOREIGN_BYTES_MAX.to_string();
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(config.replication))
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention)
        .set("segment.ms", &segment);
    if spec.foreign {
        new = new.set("max.message.bytes", &bytes_max).set("message.timestamp.type", "LogAppendTime");
    }
    let (admin, options) = admin(config)?;
    let answers = tokio::time::timeout(CREATE_LIMIT * 2, admin.create_topics([&new], &options)).await;
    let answers = answers.map_err(|_| LogError::Timeout(CREATE_LIMIT * 2))?.map_err(refused)?;
    for answer in answers {
        match answer {
            // Another process was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, e)) => {
                return Err(LogError::Refused(format!("topic {topic} could not be made: {e}")));
            }
        }
    }
    Ok(())
}

/// Made for one call: topics are made at the start of a process, and an idle client costs threads.
fn admin(config: &KafkaConfig) -> Result<(OffThread<AdminClient<Logging>>, AdminOptions), LogError> {
    let admin = AdminClient::from_config_and_context(&config.admin(), Logging);
    let admin = admin.map_err(|e| refusal(&e, CREATE_LIMIT))?;
    let options =
        AdminOptions::new().request_timeout(Some(CREATE_LIMIT)).operation_timeout(Some(CREATE_LIMIT));
    Ok((OffThread::new(admin), options))
}

pub(super) async fn remove(config: &KafkaConfig, topic: &str) -> Result<bool, LogError> {
    let (admin, options) = admin(config)?;
    let answers = tokio::time::timeout(CREATE_LIMIT * 2, admin.delete_topics(&[topic], &options)).await;
    let answers = answers.map_err(|_| LogError::Timeout(CREATE_LIMIT * 2))?;
    match answers.map_err(|e| refusal(&e, CREATE_LIMIT))?.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        None | Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => Ok(false),
        Some(Err((topic, e))) => Err(LogError::Refused(format!("topic {topic} could not be removed: {e}"))),
    }
}
