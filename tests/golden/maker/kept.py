"""What is kept: the records of Kafka, the keys of Redis, the files of `roost dev`."""

import base64
import json
import os
import shutil
import sqlite3

from confluent_kafka import Consumer, TopicPartition

PARTITIONS = 8


def lines(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def text(data):
    return None if data is None else data.decode()


def topics(brokers):
    """The records of every topic, by topic; partition by partition, in order."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "golden", "enable.auto.commit": False})
    try:
        names = [name for name in consumer.list_topics(timeout=10).topics if not name.startswith("__")]
        return {name: records(consumer, name) for name in sorted(names)}
    finally:
        consumer.close()


def topic(brokers, name):
    """The records of one topic."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "golden", "enable.auto.commit": False})
    try:
        return records(consumer, name)
    finally:
        consumer.close()


def records(consumer, name):
    ends, rows = {}, []
    for partition in range(PARTITIONS):
        first, end = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)
        if first < end:
            ends[partition] = (first, end)
    consumer.assign([TopicPartition(name, partition, first) for partition, (first, _) in ends.items()])
    while ends:
        record = consumer.poll(10)
        if record is None or record.error():
            raise SystemExit(f"{name} to {ends}: {record and record.error()}")
        partition, offset = record.partition(), record.offset()
        if partition in ends and offset < ends[partition][1]:
            rows.append({"partition": partition, "offset": offset, "key": text(record.key()), "value": text(record.value())})
        if partition in ends and offset + 1 >= ends[partition][1]:
            del ends[partition]
    return sorted(rows, key=lambda row: (row["partition"], row["offset"]))


def content(redis, key, kind):
    if kind == "string":
        return text(redis.get(key))
    if kind == "hash":
        return {text(field): text(value) for field, value in sorted(redis.hgetall(key).items())}
    if kind == "stream":
        entries = redis.xrange(key)
        return [[text(i), {text(field): text(value) for field, value in fields.items()}] for i, fields in entries]
    raise SystemExit(f"{key} is a {kind}, of which nothing is known here")


def keys(redis):
    """Every key: what it is, how long it has to live, what is in it, and the bytes that RESTORE takes."""
    for key in sorted(redis.keys("*")):
        kind, ttl_ms = text(redis.type(key)), redis.pttl(key)
        row = {"key": text(key), "type": kind, "ttl_ms": None if ttl_ms < 0 else ttl_ms}
        yield {**row, "content": content(redis, key, kind), "dump": base64.b64encode(redis.dump(key)).decode()}


def snapshot(redis, to):
    """The file that Redis would start from."""
    redis.save()
    folder, name = redis.config_get("dir")["dir"], redis.config_get("dbfilename")["dbfilename"]
    os.makedirs(os.path.dirname(to), exist_ok=True)
    shutil.copyfile(os.path.join(folder, name), to)
    os.chmod(to, 0o644)


def databases(folder, to):
    """The SQLite files, each in one piece and as small as it gets."""
    os.makedirs(to, exist_ok=True)
    for name in ("store.db", "log.db", "archive.db"):
        with sqlite3.connect(os.path.join(folder, name)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        shutil.copyfile(os.path.join(folder, name), os.path.join(to, name))
        os.chmod(os.path.join(to, name), 0o644)
