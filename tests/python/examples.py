"""The client in README.md and examples/consumers/search.py, as they stand there, on what killed them once.

The client talks between ids that have to be encoded, on a `roost dev` of its own, and is sent what no server passes on
any more by one that is played here; the consumer reads it from a Kafka that is played, too. Exits with 1 at the first
check that fails.
"""

import asyncio
import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import websockets

from foreign_client import COORDINATOR, PATIENCE_S, SECRET, check, start, stop

ROOT = Path(__file__).resolve().parents[2]
ANN, ZOE = "ann+work@example.com", "zoë b"
# What a message may hold that is there already, or that no rule forbids.
PAYLOADS = [r'"cut \ud83d"', r'{"text":"cut \ud83d","\ude00":1}', '{"n":' + "9" * 5000 + "}", "1e400", '"the last"']
KAFKA = """
import json, pathlib
class Record:
    topic, partition = "chat_events", 0
    def __init__(self, offset, value):
        self.offset, self.value = offset, value
class KafkaConsumer:
    def __init__(self, *topics, **how):
        self.pages = [[Record(n, line.encode()) for n, line in enumerate(pathlib.Path("records").read_text().splitlines())]]
    def poll(self, timeout_ms):
        if not self.pages:
            raise KeyboardInterrupt
        return {0: self.pages.pop()}
    def commit(self): pass
    def close(self): pass
"""


def message(offset, data):
    """A frame, and a record of `chat_events`: its payload is text, to the byte."""
    about = {"type": "message", "stream": "user:bob", "generation": 1, "offset": offset, "id": f"m{offset}"}
    head = json.dumps(about | {"kind": "message", "from": "alice", "at": "2026-11-21T11:05:45.325Z"})
    return f'{head[:-1]}, "data": {data}}}'


@contextlib.contextmanager
def client(where, coordinator, *args):
    """The client of README.md, and what it said at last."""
    code = re.search(r"Save it as `client.py`.*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    code = code.replace("http://127.0.0.1:7300", coordinator)
    (where / ".roost").mkdir(exist_ok=True)
    (where / ".roost/jwt-secret").write_text(SECRET)
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
    said = []
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=where, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    reader = threading.Thread(target=lambda: said.extend(line.decode() for line in process.stdout), daemon=True)
    reader.start()
    try:
        yield said, process
    finally:
        process.kill()
        process.wait()


def saw(said, text):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if any(text in line for line in said):
            return True
        time.sleep(0.05)
    return False


def ids_that_are_encoded(where):
    with client(where, COORDINATOR, ANN) as (heard, _):
        check(f"{ANN} connects", saw(heard, "-- at"), heard)
        with client(where, COORDINATOR, ZOE, ANN, "hello 👋") as (said, _):
            check(f"{ZOE} connects, and is answered", saw(said, "-- hello 👋 {'at'"), said)
        check("and is heard", saw(heard, f"{ZOE} {{'text': 'hello 👋'}}"), heard)


def payloads_that_python_does_not_write(where):
    asked = []

    class Route(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["userId"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"url": node}).encode())

        def log_message(self, *_):
            pass

    async def serve(ws):
        await ws.recv()
        cursor = {"generation": 1, "offset": 0}
        await ws.send(json.dumps({"type": "welcome", "node": "played", "cursor": cursor, "recovered": True}))
        for offset, payload in enumerate(PAYLOADS, 1):
            await ws.send(message(offset, payload))
        await ws.wait_closed()

    async def play():
        nonlocal node
        async with websockets.serve(serve, "127.0.0.1", 0, subprotocols=["roost.v1"]) as server:
            node = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.set()
            await asyncio.Future()

    node, ready = None, threading.Event()
    threading.Thread(target=lambda: asyncio.run(play()), daemon=True).start()
    ready.wait(PATIENCE_S)
    coordinator = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Route)
    threading.Thread(target=coordinator.serve_forever, daemon=True).start()
    with client(where, f"http://127.0.0.1:{coordinator.server_port}", ZOE) as (heard, process):
        check("the client reads on after what Python cannot write", saw(heard, "alice the last"), heard[-5:])
        check("and lives", process.poll() is None and asked == [[ZOE]], asked)
    coordinator.shutdown()


def a_consumer(where):
    (where / "kafka.py").write_text(KAFKA)
    records = [message(n, payload) for n, payload in enumerate(PAYLOADS, 1)] + ["nonsense", message(9, '"and on"')]
    (where / "records").write_text("\n".join(records))
    search = [sys.executable, str(ROOT / "examples/consumers/search.py")]
    env = {**os.environ, "PYTHONPATH": str(where), "PYTHONIOENCODING": "utf-8"}
    ran = subprocess.run([*search, "follow"], cwd=where, env=env, capture_output=True, text=True)
    check("search.py reads on after what Python cannot write", ran.returncode == 0, ran.stderr[-500:])
    found = subprocess.run([*search, "find", "cut OR last OR on"], cwd=where, env=env, capture_output=True, text=True)
    check("and finds all texts", len(found.stdout.splitlines()) == 4, found)


def main():
    binaries = sys.argv[1] if len(sys.argv) > 1 else "target/debug"
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        payloads_that_python_does_not_write(where)
        a_consumer(where)
        process = start(binaries, data)
        try:
            ids_that_are_encoded(where)
        finally:
            stop(process)
    print("all checks passed")


if __name__ == "__main__":
    main()
