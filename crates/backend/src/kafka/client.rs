//! What all librdkafka clients here share: where their log lines go, what their errors are called, and that they
//! are dropped where it may take time.

use std::ops::Deref;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::log::LogError;

/// What librdkafka logs when a broker on its way up or down answers a request with "the leader is nobody": it skips
/// that update, and may not produce to the partition, or read it, ever again (confluentinc/librdkafka#5430, in 2.12).
const LEADER_LOST: (&str, &str) = ("METADATAUPDATE", "not found in cache");

/// Whether a log line says that the client must be made anew.
pub(super) fn is_leader_lost(facility: &str, message: &str) -> bool {
    facility == LEADER_LOST.0 && message.contains(LEADER_LOST.1)
}

/// Sends librdkafka's log lines to `tracing`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Logging {}

/// librdkafka calls a lost connection an error and mends it by itself, so nothing it says is worse than a warning.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        Emerg | Alert | Critical | Error | Warning => tracing::warn!(facility, "kafka: {message}"),
        Notice | Info | Debug => tracing::debug!(facility, "kafka: {message}"),
    }
}

/// The same events come as log lines.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    tracing::debug!("kafka: {error}: {reason}");
}

/// Names what librdkafka answered to a call that was to take `limit` at most.
pub(super) fn refusal(error: &KafkaError, limit: Duration) -> LogError {
    let code = match error {
        // It has one, too.
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    };
    named(code, error.to_string(), limit)
}

/// The same, of an answer that comes as a bare code.
pub(super) fn named(code: Option<RDKafkaErrorCode>, words: String, limit: Duration) -> LogError {
    use RDKafkaErrorCode as Code;
    match code {
        Some(Code::OperationTimedOut | Code::RequestTimedOut) => LogError::Timeout(limit),
        // Also of a broker that has not heard of a new topic yet.
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            LogError::Missing(words)
        }
        Some(
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            // A broker that has not caught up with who leads: a topic was made a moment ago.
            | Code::UnknownLeaderEpoch
            | Code::FencedLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::ReplicaNotAvailable
            // A broker that comes up or goes down, and a controller or a group's coordinator that moves.
            | Code::BrokerNotAvailable
            | Code::KafkaStorageError
            | Code::NotController
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NetworkException,
        ) => LogError::Unreachable(words),
        _ => LogError::Refused(words),
    }
}

/// Runs `f`, which blocks for `limit` at most, where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    limit: Duration,
    f: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    // librdkafka keeps to its timeout, give or take a round; this bound is for the wait for a free thread as well.
    match tokio::time::timeout(limit * 2, tokio::task::spawn_blocking(f)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => Err(LogError::Unreachable(format!("the call to Kafka did not finish: {e}"))),
        Err(_) => Err(LogError::Timeout(limit * 2)),
    }
}

/// A client that is dropped on a thread of its own: librdkafka joins its threads then, and a consumer first says
/// goodbye, which has no deadline.
pub(super) struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffThread<T> {
    pub(super) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for OffThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("taken only by drop")
    }
}

impl<T: Send + 'static> Drop for OffThread<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        let spawned = std::thread::Builder::new().name("kafka-drop".to_owned()).spawn(move || drop(client));
        if let Err(e) = spawned {
            // The closure, and the client with it, was dropped here and now.
            tracing::warn!("kafka: no thread to drop a client on: {e}");
        }
    }
}
