//! The producer of one [`Durability`](crate::log::Durability): an idempotent librdkafka producer and the thread that
//! serves its reports.
//!
//! librdkafka ends an idempotent producer for good when it cannot vouch for order any more (a "fatal" error, for
//! example when the broker lost track of the producer). The thread then reports everything in flight as unknown,
//! drops the producer, and only then makes another, so no record of the new one overtakes a report of the old.
//! The same is done when librdkafka has lost sight of a partition's leader, which it never finds again.
//! Requests already on the wire may still land; the channels and the outbox are made for that (core rules 3, 12).

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::client::{is_leader_lost, log_error, log_line};
use crate::log::in_flight::{InFlight, Round};
use crate::log::{LogError, Outgoing, Position, Producer, QueueFull, Report};

/// How often the thread looks whether it is to stop or to make the producer anew. Reports do not wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The pause before the next attempt to make the producer anew.
const MAKE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The reports of an ended producer are local, and wait only for whoever reads them.
const LAST_REPORTS_LIMIT: Duration = Duration::from_secs(5);

type Base = BaseProducer<Delivery>;

/// See the module's description. Dropping it gives up what is in flight: call `flush` first.
pub(super) struct KafkaProducer {
    shared: Arc<Shared>,
    /// Ends by itself soon after the drop, which does not wait for it.
    _thread: JoinHandle<()>,
}

struct Shared {
    /// Absent while the thread makes another, and at the end. The thread holds the only other reference, so that
    /// the producer is always dropped there.
    current: RwLock<Option<Arc<Base>>>,
    reporter: Arc<Reporter>,
}

/// Goes with a record and comes back with its report.
struct Tag {
    token: u64,
    round: Round,
}

impl KafkaProducer {
    /// # Errors
    /// [`LogError::Refused`] if librdkafka does not take the configuration.
    pub(super) fn spawn(config: ClientConfig, reports: mpsc::Sender<Report>) -> Result<Self, LogError> {
        let reporter = Arc::new(Reporter {
            reports,
            in_flight: InFlight::default(),
            stopping: AtomicBool::new(false),
            leader_lost: AtomicBool::new(false),
        });
        let first = make(&config, &reporter).map_err(|e| LogError::Refused(e.to_string()))?;
        let shared = Arc::new(Shared { current: RwLock::new(Some(Arc::clone(&first))), reporter });
        let thread = thread::Builder::new().name("kafka-reports".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&config, first)
        });
        let thread = thread.map_err(|e| LogError::Refused(format!("no thread for a producer: {e}")))?;
        Ok(Self { shared, _thread: thread })
    }
}

#[cfg(test)]
impl KafkaProducer {
    /// Upgrades until the thread has ended.
    pub(super) fn watch(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.shared.reporter.stopping.store(true, Ordering::Release);
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    fn produce(&self, record: Outgoing) -> Result<(), QueueFull> {
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        let producer = current.as_ref().ok_or(QueueFull)?;
        // The bound is librdkafka's, on records and bytes.
        let round = self.shared.reporter.in_flight.take(usize::MAX).ok_or(QueueFull)?;
        let base = BaseRecord::with_opaque_to(&record.topic, Box::new(Tag { token: record.token, round }))
            .partition(i32::try_from(record.partition).unwrap_or(i32::MAX))
            .key(&record.key[..])
            .payload(&record.payload[..]);
        match producer.send(base) {
            Ok(()) => Ok(()),
            Err((error, base)) => self.shared.reporter.refused(producer, &error, &base.delivery_opaque),
        }
    }

    async fn flush(&self, limit: Duration) -> bool {
        self.shared.reporter.in_flight.flush(limit).await
    }
}

fn make(config: &ClientConfig, reporter: &Arc<Reporter>) -> Result<Arc<Base>, KafkaError> {
    BaseProducer::from_config_and_context(config, Delivery(Arc::clone(reporter))).map(Arc::new)
}

impl Shared {
    /// The thread: reports until the end, and makes the producer anew when it broke.
    fn serve(&self, config: &ClientConfig, mut producer: Arc<Base>) {
        loop {
            producer.poll(LOOK_EVERY);
            let fatal = producer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
            let lost = self.reporter.leader_lost.swap(false, Ordering::AcqRel);
            let broken = fatal.or_else(|| lost.then(|| "it lost sight of a leader".to_owned()));
            if !self.stopping() && broken.is_none() {
                continue;
            }
            self.install(None);
            end(producer);
            let Some(reason) = broken.filter(|_| !self.stopping()) else { return };
            tracing::warn!("kafka: a producer ended and is made anew: {reason}");
            let Some(made) = self.make_again(config) else { return };
            self.install(Some(Arc::clone(&made)));
            producer = made;
        }
    }

    fn make_again(&self, config: &ClientConfig) -> Option<Arc<Base>> {
        while !self.stopping() {
            match make(config, &self.reporter) {
                Ok(producer) => return Some(producer),
                Err(e) => tracing::warn!("kafka: a producer could not be made: {e}"),
            }
            thread::sleep(MAKE_AGAIN_AFTER);
        }
        None
    }

    fn stopping(&self) -> bool {
        self.reporter.stopping.load(Ordering::Acquire)
    }

    fn install(&self, producer: Option<Arc<Base>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = producer;
    }
}

/// Reports everything still in flight as unknown, and drops the last reference.
fn end(producer: Arc<Base>) {
    producer.purge(PurgeConfig::default().queue().inflight());
    if let Err(e) = producer.flush(LAST_REPORTS_LIMIT) {
        tracing::warn!("kafka: a producer was dropped before its last reports were read: {e}");
    }
}

/// Where reports go. One per [`KafkaProducer`], shared by the producers of librdkafka that it has had.
struct Reporter {
    reports: mpsc::Sender<Report>,
    in_flight: InFlight,
    /// The [`KafkaProducer`] was dropped: from now on a report is lost rather than waited with.
    stopping: AtomicBool,
    /// See [`is_leader_lost`].
    leader_lost: AtomicBool,
}

impl Reporter {
    /// The record did not get into librdkafka's queue. Repeating helps if that was full or the producer is being
    /// replaced; everything else (too large, no such partition) is this record's own fate, and its report.
    fn refused(&self, producer: &Base, error: &KafkaError, tag: &Tag) -> Result<(), QueueFull> {
        let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        let taken = if full || producer.client().fatal_error().is_some() {
            Err(QueueFull)
        } else {
            match self.reports.try_send(Report { token: tag.token, result: Err(error.to_string()) }) {
                Err(TrySendError::Full(_)) => Err(QueueFull),
                Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            }
        };
        self.in_flight.done(tag.round);
        taken
    }

    /// Waits for room, unless whoever produces, or the receiver, is gone.
    fn send(&self, report: Report) {
        let Err(TrySendError::Full(report)) = self.reports.try_send(report) else { return };
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut room = pin!(self.reports.send(report));
        while room.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Delivery(Arc<Reporter>);

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
        if is_leader_lost(facility, message) {
            self.0.leader_lost.store(true, Ordering::Release);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = Box<Tag>;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: Box<Tag>) {
        let result = match result {
            Ok(message) => position(message.partition(), message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.send(Report { token: tag.token, result });
        self.0.in_flight.done(tag.round);
    }
}

/// A broker that recognises a repeat whose first copy it no longer remembers the offset of answers without one.
fn position(partition: i32, offset: i64) -> Result<Position, String> {
    match (u32::try_from(partition), u64::try_from(offset)) {
        (Ok(partition), Ok(offset)) => Ok(Position { partition, offset }),
        _ => Err("the record is in the log, at an offset the broker no longer knows".to_owned()),
    }
}
