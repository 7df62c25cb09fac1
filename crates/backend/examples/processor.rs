//! A processor of clients' events: a consumer group of its own on `client_events`, answers on `client_results`.
//! Nothing of Roost is in it but the shape of two records (docs/PROTOCOL.md, events and results).
//!
//! `KAFKA_BROKERS=127.0.0.1:9092 cargo run -p roost-backend --example processor`; several share the work.

use std::error::Error;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

/// For an answer to be on every in-sync replica.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let brokers = std::env::var("KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:9092".into());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let consumer: BaseConsumer = config
        .clone()
        .set("group.id", "example-processor")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()?;
    let producer: BaseProducer =
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0").create()?;
    consumer.subscribe(&["client_events"])?;
    loop {
        let Some(record) = consumer.poll(Duration::from_millis(500)) else { continue };
        let record = record?;
        let event: Value = match serde_json::from_slice(record.payload().unwrap_or_default()) {
            Ok(event) => event,
            // `data` is what a client wrote, and not everything in JSON is read by every library (`1e400`). To end here
            // would be to end here after every start; the client is told that no result came.
            Err(error) => {
                println!("offset {} is passed over: {error}", record.offset());
                continue;
            }
        };
        println!("{event}");
        let client = event["client_id"].as_str().unwrap_or_default();
        let result = json!({
            "type": "event_accepted",
            "client_id": client,
            "event_id": event["event_id"],
            "status": "accepted",
            "created_at": event["created_at"],
            "data": {"you_said": event["data"]},
        });
        let result = result.to_string();
        producer.send(BaseRecord::to("client_results").key(client).payload(&result)).map_err(|(e, _)| e)?;
        // In the log before its event counts as done: then nothing is lost, and what is done again is not doubled.
        producer.flush(FLUSH_LIMIT)?;
        consumer.commit_message(&record, CommitMode::Sync)?;
    }
}
