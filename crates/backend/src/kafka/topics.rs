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

use super::client::{Logging, OffThread, blocking, named, refusal};
use super::config::KafkaConfig;
use super::ends::{Control, Ends, drain_events};
use crate::log::{FOREIGN_BYTES_MAX, LogError, TopicSpec};

/// For one question about a topic.
const METADATA_LIMIT: Duration = Duration::from_secs(3);
/// For the controller to make a topic.
const CREATE_LIMIT: Duration = Duration::from_secs(10);
/// For a new topic to be known and led everywhere: milliseconds on one broker, a second or two on a busy cluster, some
/// more on one whose brokers have only just come up.
const USABLE_LIMIT: Duration = Duration::from_secs(15);
const USABLE_POLL: Duration = Duration::from_millis(50);
/// Between two tries to make a topic: each has a client of its own.
const CREATE_EVERY: Duration = Duration::from_secs(1);
/// For a topic that one broker knows to be known to the others.
const KNOWN_LIMIT: Duration = Duration::from_secs(5);
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
        // A topic in the making.
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => {}
        Some(e) => {
            let code = RDKafkaErrorCode::from(e);
            return match named(Some(code), format!("topic {topic}: {code}"), METADATA_LIMIT) {
                LogError::Missing(_) => Ok(None),
                other => Err(other),
            };
        }
    }
    let partitions = found.partitions();
    let led = !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0 && p.error().is_none());
    Ok(Some(Shape { partitions: partitions.len() as u32, led }))
}

/// How long something is tried again that passes by itself; then it is an error all the same.
pub(super) struct Patience {
    deadline: Instant,
}

impl Patience {
    fn of(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit }
    }

    /// With a broker that has not heard of a topic yet.
    pub(super) fn with_news() -> Self {
        Self::of(KNOWN_LIMIT)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Pauses before the next try.
    ///
    /// # Errors
    /// What was met, if it does not pass or has not passed in time.
    pub(super) async fn after(&self, unmet: LogError, passes: bool) -> Result<(), LogError> {
        if !passes || self.is_over() {
            return Err(unmet);
        }
        tracing::debug!("kafka: not yet: {unmet}");
        tokio::time::sleep(USABLE_POLL).await;
        Ok(())
    }
}

/// Makes the topic if there is none, and waits until each partition has a leader that knows it is. Brokers hear of a
/// topic one after the other, and any of them may be asked: that one of them does not know it means little.
pub(super) async fn ensure(
    control: &Arc<Control>,
    ends: &Ends,
    config: &KafkaConfig,
    topic: &str,
    spec: TopicSpec,
) -> Result<(), LogError> {
    let (patience, mut create_at) = (Patience::of(USABLE_LIMIT), Instant::now());
    // Why it could not be made, which says more than that it is not there.
    let mut refused = None;
    loop {
        let done = match shape(control, topic).await {
            Ok(Some(found)) => usable(ends, topic, &found, spec.partitions).await,
            Ok(None) if Instant::now() >= create_at => {
                create_at = Instant::now() + CREATE_EVERY;
                let made = create(config, topic, spec).await;
                if let Err(why) = &made
                    && refused.is_none()
                {
                    tracing::warn!("kafka: topic {topic} cannot be made yet: {why}");
                }
                refused = made.err();
                Err(missing(topic))
            }
            Ok(None) => Err(missing(topic)),
            Err(unmet) => Err(unmet),
        };
        let Err(unmet) = done else { return Ok(()) };
        let unmet = match unmet {
            LogError::Missing(_) => {
                refused.take_if(|why| !passes(why) || patience.is_over()).unwrap_or(unmet)
            }
            other => other,
        };
        let passes = passes(&unmet);
        patience.after(unmet, passes).await?;
    }
}

/// Whether a broker may say otherwise in a moment.
fn passes(unmet: &LogError) -> bool {
    matches!(unmet, LogError::Missing(_) | LogError::Unreachable(_) | LogError::Timeout(_))
}

/// The metadata names the leaders first; that they lead they learn a little later, so they are asked as well.
async fn usable(ends: &Ends, topic: &str, shape: &Shape, wanted: u32) -> Result<(), LogError> {
    let Shape { partitions: found, led } = *shape;
    if !led {
        return Err(LogError::Unreachable(format!("not every partition of {topic} has a leader")));
    }
    if found != wanted {
        return Err(LogError::Partitions { topic: topic.to_owned(), found, wanted });
    }
    ends.of(topic, (0..found).collect()).await.map(|_| ())
}

pub(super) fn missing(topic: &str) -> LogError {
    LogError::Missing(format!("there is no topic {topic}"))
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
            Err((topic, e)) => return Err(not_made(&topic, e)),
        }
    }
    Ok(())
}

fn not_made(topic: &str, code: RDKafkaErrorCode) -> LogError {
    let words = format!("topic {topic} could not be made: {code}");
    match code {
        // Fewer brokers are up than copies are wanted: of a cluster that is starting the others come.
        RDKafkaErrorCode::InvalidReplicationFactor => LogError::Unreachable(words),
        code => named(Some(code), words, CREATE_LIMIT),
    }
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
