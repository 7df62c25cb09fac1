//! What an application would have: it reads `client_events` and answers each event on `client_results`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use roost_backend::kafka::{KafkaConfig, KafkaLog};
use roost_backend::log::{Durability, Log, LogReader, LogRecord, Outgoing, Producer, Report};
use roost_proto::events::{CLIENT_EVENTS, ClientEvent};
use roost_proto::results::CLIENT_RESULTS;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Results on their way.
const REPORTS_MAX: usize = 1_024;
const RETRY: Duration = Duration::from_millis(200);

/// Answers until it is dropped. It keeps its place by itself, so it loses no event while it lives, and one that comes
/// twice is answered twice, in the same words.
pub struct Processor {
    _task: JoinSet<()>,
}

impl Processor {
    /// Answers what comes from now on.
    ///
    /// # Errors
    /// If Kafka is not reached.
    pub async fn start(brokers: String) -> anyhow::Result<Self> {
        let config = KafkaConfig { brokers, group: "chaos-processor".to_owned(), ..KafkaConfig::default() };
        let log = KafkaLog::connect(config).await?;
        let reader = log.read_from_end(CLIENT_EVENTS).await.context(CLIENT_EVENTS)?;
        let (reports, reported) = mpsc::channel(REPORTS_MAX);
        let producer = log.producer(Durability::Outbox, reports)?;
        let answering = Answering { producer, on_the_way: BTreeMap::new(), next: 0 };
        let mut task = JoinSet::new();
        // The reader asks the log where it ends.
        task.spawn(async move {
            let _log = log;
            answering.run(reader, reported).await;
        });
        Ok(Self { _task: task })
    }
}

struct Answering {
    producer: Arc<dyn Producer>,
    on_the_way: BTreeMap<u64, (u32, Bytes, Bytes)>,
    next: u64,
}

impl Answering {
    async fn run(mut self, mut reader: Box<dyn LogReader>, mut reported: mpsc::Receiver<Report>) {
        loop {
            tokio::select! {
                records = reader.next() => match records {
                    Ok(records) => records.iter().for_each(|record| self.answer(record)),
                    // It goes on where it was.
                    Err(_) => sleep(RETRY).await,
                },
                Some(Report { token, result }) = reported.recv() => {
                    let result_of = self.on_the_way.remove(&token);
                    if let (Err(_), Some(result_of)) = (result, result_of) {
                        sleep(RETRY).await;
                        self.produce(result_of);
                    }
                }
            }
        }
    }

    fn answer(&mut self, record: &LogRecord) {
        let event: ClientEvent = serde_json::from_slice(&record.payload).expect("client_events has them");
        let value = json!({
            "type": "event_accepted", "client_id": event.client_id, "event_id": event.event_id,
            "status": "accepted", "created_at": event.created_at, "data": *event.data,
        });
        self.produce((record.position.partition, record.key.clone(), Bytes::from(value.to_string())));
    }

    fn produce(&mut self, (partition, key, payload): (u32, Bytes, Bytes)) {
        let token = self.next;
        self.next += 1;
        let record = Outgoing {
            topic: CLIENT_RESULTS.into(),
            partition,
            key: key.clone(),
            payload: payload.clone(),
            token,
        };
        // A full queue says the same as a lost record: the event's time will show it.
        if self.producer.produce(record).is_ok() {
            self.on_the_way.insert(token, (partition, key, payload));
        }
    }
}
