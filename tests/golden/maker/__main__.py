"""python -m maker PROGRAMS COMMIT OUT: lays the set down in OUT. Services are named by the environment."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time

import redis as redis_client

from . import kept
from .programs import SECRET, VNODES, Cluster, Dev, until
from .story import Story
from .wire import Tape

PORT = int(os.environ.get("ROOST_GOLDEN_PORT", "15100"))
PROCESSES = ("coordinator", "ws-1", "ws-2")


async def everything(story, redis, out):
    """All chapters on real services; Redis is copied before it is emptied."""
    alice, bob = story.apart()
    quiet, _ = await story.welcomed("quiet", "quiet")
    a, _ = await story.welcomed("alice", alice, device="desk", rooms=[{"room": "lobby", "presence": True, "info": {"name": "Alice"}}])
    b, _ = await story.welcomed("bob-phone", bob, device="phone", epoch=story.cluster.route(bob)["epoch"])
    got = await story.messages(a, b, bob)
    await story.room(a, b, bob)
    await story.pages(a)
    await story.presence(a, b, bob)
    await story.events(a)
    await story.server_api(a, bob)
    await story.mistakes()
    await story.tokens()
    await story.probed(a, bob)
    b = await story.resumed(b, bob, got)
    await story.moved(b, bob)
    await a.end()
    a, _ = await story.welcomed("alice-again", alice, device="desk", rooms=[{"room": "lobby", "presence": True}])
    await story.archived(bob)
    # Said to who is away, so that it is due, wanted and waiting when Redis is copied; due since before that.
    await a.ok(type="send", id="away-1", to="carol", data="nobody is there")
    await asyncio.to_thread(reported, "carol")
    await a.ok(type="send", id="away-2", to=bob, data="still due", receipt=True)
    await a.ok(type="event", id="e-3", data="still waits")
    copy_redis(story.cluster, redis, out)
    await quiet.hear("ping")
    b = await story.lost(bob, redis.flushall)
    # Who was shown is told again every second until it is answered.
    await asyncio.sleep(3)
    for name in ("ws-2", "ws-1"):
        await asyncio.to_thread(story.cluster.stop, name)
    for wire in (a, b, quiet):
        await asyncio.wait_for(wire.reader, 20)


def reported(user):
    """Until a message to this user is in `undelivered_events`."""

    def look():
        records = kept.topic(os.environ["KAFKA_BROKERS"], "undelivered_events")
        return any(record["key"] == user for record in records)

    until("it is reported", look)


def copy_redis(cluster, redis, out):
    """Nobody writes meanwhile; less than a lease."""
    for name in PROCESSES:
        cluster.signal(name, signal.SIGSTOP)
    try:
        rows = list(kept.keys(redis))
        kept.snapshot(redis, f"{out}/redis/dump.rdb")
    finally:
        for name in PROCESSES:
            cluster.signal(name, signal.SIGCONT)
    kept.lines(f"{out}/redis/keys.jsonl", rows)


async def some_history(story):
    """The part of the story that `roost dev` keeps in its files."""
    alice, bob = story.apart()
    a, _ = await story.welcomed("alice", alice, device="desk", rooms=[{"room": "lobby", "presence": True}])
    b, _ = await story.welcomed("bob-phone", bob, device="phone")
    await story.messages(a, b, bob)
    await story.room(a, b, bob)
    await story.pages(a)
    await story.presence(a, b, bob)
    await story.events(a)
    await b.end()
    await a.ok(type="send", id="away-1", to=bob, data="nobody is there", receipt=True)
    # Half a minute: the time of `e-2` runs out, and what nobody acknowledged is reported.
    await a.hear("message", kind="result")
    await asyncio.sleep(3)
    await a.ok(type="send", id="away-2", to=bob, data="still due", receipt=True)
    await a.ok(type="event", id="e-3", data="still waits")
    await asyncio.sleep(1)
    await a.end()


def on_services(programs, logs, out):
    tape, redis = Tape(), redis_client.Redis.from_url(os.environ["REDIS_URL"])
    cluster = Cluster(programs, logs, PORT)
    try:
        asyncio.run(everything(Story(cluster, tape), redis, out))
        for topic, records in kept.topics(os.environ["KAFKA_BROKERS"]).items():
            kept.lines(f"{out}/records/{topic}.jsonl", records)
    finally:
        cluster.kill_all()
        kept.lines(f"{out}/frames.jsonl", tape.lines)
        kept.lines(f"{out}/http.jsonl", cluster.http.kept)


def on_files(programs, logs, out):
    tape = Tape()
    with tempfile.TemporaryDirectory() as data:
        dev = Dev(programs, logs, PORT + 20, data)
        try:
            asyncio.run(some_history(Story(dev, tape)))
            dev.stop("dev")
        finally:
            dev.kill_all()
            kept.lines(f"{out}/dev/frames.jsonl", tape.lines)
        kept.databases(data, f"{out}/dev")


def main():
    programs, commit, out = sys.argv[1:]
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    about = {"commit": commit, "made_at_ms": int(time.time() * 1000), "vnodes": VNODES, "jwt_secret": SECRET}
    logs = os.environ.get("ROOST_GOLDEN_LOGS") or tempfile.mkdtemp()
    print(f"logs of the programs: {logs}", flush=True)
    on_services(programs, logs, out)
    on_files(programs, logs, out)
    about["done_at_ms"] = int(time.time() * 1000)
    with open(f"{out}/about.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
