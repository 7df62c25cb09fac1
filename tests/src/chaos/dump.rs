//! Topics as files, so that a run can be judged long after its Kafka is gone.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use roost_backend::log::{LogRecord, Position};
use roost_proto::events::PARTITIONS;
use serde::{Deserialize, Serialize};

/// For an answer of Kafka, which is up when a topic is read.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
struct Kept {
    partition: u32,
    offset: u64,
    key: String,
    value: String,
}

fn path(dir: &Path, topic: &str) -> PathBuf {
    dir.join(format!("{topic}.jsonl"))
}

fn consumer(brokers: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "chaos").set("enable.auto.commit", "false");
    Ok(config.create()?)
}

/// Where each partition ends.
///
/// # Errors
/// If Kafka does not answer.
pub fn ends(brokers: &str, topic: &str) -> anyhow::Result<Vec<u64>> {
    let consumer = consumer(brokers)?;
    let end = |partition: u32| {
        let (_, end) = consumer.fetch_watermarks(topic, i32::try_from(partition)?, ANSWER_WITHIN)?;
        Ok(u64::try_from(end)?)
    };
    (0..PARTITIONS).map(end).collect()
}

/// Writes all that is in a topic to a file in `dir`. Blocks.
///
/// # Errors
/// If Kafka stops answering, or the file cannot be written.
pub fn write(brokers: &str, topic: &str, dir: &Path) -> anyhow::Result<()> {
    let ends = ends(brokers, topic)?;
    let consumer = consumer(brokers)?;
    let mut file = BufWriter::new(std::fs::File::create(path(dir, topic))?);
    for (partition, end) in ends.into_iter().enumerate().filter(|(_, end)| *end > 0) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, i32::try_from(partition)?, Offset::Offset(0))?;
        consumer.assign(&list)?;
        loop {
            let message = consumer.poll(ANSWER_WITHIN).context("Kafka has more and does not give it")??;
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec());
            let kept = Kept {
                partition: u32::try_from(message.partition())?,
                offset: u64::try_from(message.offset())?,
                key: text(message.key())?,
                value: text(message.payload())?,
            };
            serde_json::to_writer(&mut file, &kept)?;
            file.write_all(b"\n")?;
            if kept.offset + 1 >= end {
                break;
            }
        }
    }
    Ok(file.flush()?)
}

/// The same, and nothing if there is no such file: not every run has every topic.
///
/// # Errors
/// If it is not one of ours.
pub fn read_if_there(dir: &Path, topic: &str) -> anyhow::Result<Vec<LogRecord>> {
    if path(dir, topic).exists() { read(dir, topic) } else { Ok(Vec::new()) }
}

/// Reads the file of a topic.
///
/// # Errors
/// If it is not there, or not one of ours.
pub fn read(dir: &Path, topic: &str) -> anyhow::Result<Vec<LogRecord>> {
    let path = path(dir, topic);
    let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
    let record = |line: std::io::Result<String>| {
        let Kept { partition, offset, key, value } = serde_json::from_str(&line?)?;
        ensure!(partition < PARTITIONS, "{topic} has no partition {partition}");
        Ok(LogRecord {
            position: Position { partition, offset },
            at_ms: 0,
            key: Bytes::from(key),
            payload: Bytes::from(value),
        })
    };
    BufReader::new(file).lines().map(record).collect()
}
