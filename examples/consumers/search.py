#!/usr/bin/env python3
"""Full-text search beside Roost: a consumer group of its own on `chat_events`, and an index in SQLite.

    pip install kafka-python
    export KAFKA_BROKERS=127.0.0.1:9092
    python3 examples/consumers/search.py follow          # until Ctrl-C; start several, they share the partitions
    python3 examples/consumers/search.py find 'hello'    # beside it; the syntax is that of SQLite's FTS5

A record may come more than once: after a crash, when partitions move to another member of the group, and from a home
that was replaced. So the index knows what it has by (stream, generation, offset), the offsets are committed only
after the index, and nothing is lost or doubled. A moderator or a report looks the same, with something else in `take`.

The payload of a message is its sender's, and whatever its sender wrote: half of a surrogate pair (a cut emoji), which
Python reads and cannot write, or a number of a thousand digits. A consumer that dies of one dies at every start.
"""

import json
import os
import sqlite3
import sys
from contextlib import closing
from itertools import chain

from kafka import KafkaConsumer

sys.set_int_max_str_digits(0)  # a number of any length is no reason to lose the text beside it

GROUP = "example-search"
INDEX = os.environ.get("SEARCH_INDEX", "search.db")
SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (stream TEXT, generation INTEGER, offset INTEGER, sender TEXT, at TEXT,
                                 PRIMARY KEY (stream, generation, offset));
CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5(text);
"""


def open_index():
    index = sqlite3.connect(INDEX)
    index.executescript("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 10000;" + SCHEMA)
    return index


def read(record):
    """The message in a record, or nothing if Python cannot read it: that is said, and passed over."""
    try:
        return json.loads(record.value)
    except (ValueError, RecursionError) as error:
        print(f"{record.topic}/{record.partition}/{record.offset} is passed over: {error}", file=sys.stderr)


def take(index, message):
    """Puts one message into the index, unless it is there. Canaries are nobody's mail, and not all data is text."""
    data = message["data"]
    text = data.get("text") if isinstance(data, dict) else data
    if message["kind"] == "canary" or not isinstance(text, str):
        return
    row = [message[name] for name in ("stream", "generation", "offset", "from", "at")]
    # SQLite's texts are UTF-8, in which there is no half of a surrogate pair.
    text = text.encode(errors="replace").decode()
    added = index.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?)", row)
    if added.rowcount == 1:
        index.execute("INSERT INTO texts (rowid, text) VALUES (?, ?)", (added.lastrowid, text))


def follow():
    index = open_index()
    consumer = KafkaConsumer(
        "chat_events",
        group_id=GROUP,
        bootstrap_servers=os.environ.get("KAFKA_BROKERS", "127.0.0.1:9092").split(","),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    # Who leaves the group in good order is not waited for.
    with closing(consumer):
        while True:
            pages = consumer.poll(timeout_ms=1000)
            with index:
                for message in filter(None, map(read, chain.from_iterable(pages.values()))):
                    take(index, message)
            if pages:
                consumer.commit()
                print(f"{sum(map(len, pages.values()))} records", flush=True)


def find(words):
    select = """SELECT at, stream, sender, text FROM texts JOIN seen ON seen.rowid = texts.rowid
                WHERE texts MATCH ? ORDER BY at DESC LIMIT 20"""
    for row in open_index().execute(select, (words,)):
        print(*row, sep="  ")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["follow"]:
            try:
                follow()
            except KeyboardInterrupt:
                pass
        case ["find", words]:
            find(words)
        case _:
            sys.exit(__doc__)
