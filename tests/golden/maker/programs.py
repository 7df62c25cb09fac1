"""The processes: a coordinator, two nodes and an archiver on real services, or `roost dev`."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import jwt

# In the set, so that its tokens can be looked at; it protects nothing.
SECRET = "the secret of the golden set, of more than 32 bytes"
PATIENCE_S = 40
VNODES = 64


def token(user, lives_s=100 * 365 * 86_400, **claims):
    claims = {"sub": user, "exp": int(time.time()) + lives_s, "rooms": ["lobby", "roll", "team-*"], **claims}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def until(what, look, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {patience_s} s: {what}")
        time.sleep(0.05)


class Http:
    """Asks, and keeps what was asked and answered."""

    def __init__(self):
        self.kept = []

    def ask(self, method, url, body=None, bearer=None, keep=True):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, method=method, data=data)
        if bearer:
            request.add_header("Authorization", "Bearer " + bearer)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        if keep:
            path = urllib.parse.urlsplit(url)
            path = path.path + ("?" + path.query if path.query else "")
            self.kept.append({"method": method, "path": path, "body": body, "status": status, "answer": text})
        return status, text

    def get(self, url, keep=True):
        try:
            status, text = self.ask("GET", url, keep=keep)
        except OSError:
            return None
        return json.loads(text) if status == 200 else None


class Programs:
    """Processes with one environment, and their ports in one row."""

    def __init__(self, folder, logs, port):
        self.folder, self.logs, self.port, self.running = folder, logs, port, {}
        self.http = Http()
        self.coordinator = f"http://127.0.0.1:{port}"

    def start(self, name, program, arguments=(), **variables):
        env = {"PATH": os.environ["PATH"], "JWT_SECRET": SECRET, "VNODES": str(VNODES), **variables}
        log = open(f"{self.logs}/{name}.log", "ab")
        self.running[name] = subprocess.Popen([f"{self.folder}/{program}", *arguments], env=env, stdout=log, stderr=log)

    def signal(self, name, which):
        self.running[name].send_signal(which)

    def stop(self, name):
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE_S)

    def kill_all(self):
        for process in self.running.values():
            process.kill()
            process.wait()

    def settled(self):
        """Until every vnode is ready where it is to stay: half of them at each node."""

        def look():
            ring = self.http.get(self.coordinator + "/ring", keep=False)
            ready = [row[1] for row in ring["rows"] if row[3]] if ring else []
            return not (ring and ring["moving"]) and all(ready.count(f"ws-{i}") == VNODES // 2 for i in (1, 2))

        until("every vnode has its home", look)

    def route(self, user, keep=False):
        url = self.coordinator + "/route?userId=" + urllib.parse.quote(user)
        return until(f"{user} has a home", lambda: self.http.get(url, keep=keep))


class Cluster(Programs):
    """A coordinator, the nodes ws-1 and ws-2, and an archiver."""

    # Short enough to be waited for, long enough that what waits is still there when Redis is copied.
    TIMES = {"LEASE_TTL_MS": "3000", "PRESENCE_LINGER_MS": "500", "PRESENCE_GRACE_MS": "2000", "STREAM_MAX_LEN": "20"}
    WAITS = {"UNDELIVERED_AFTER_MS": "4000", "EVENT_TIMEOUT_MS": "4000"}

    def __init__(self, folder, logs, port):
        super().__init__(folder, logs, port)
        self.archiver = f"http://127.0.0.1:{port + 9}"
        services = {name: os.environ[name] for name in ("REDIS_URL", "KAFKA_BROKERS", "DATABASE_URL")}
        common = {**services, **self.TIMES, **self.WAITS}
        self.start("coordinator", "coordinator", **common, **self.listening(0))
        for i, pins in ((1, "0-31"), (2, "32-63")):
            node = {"NODE_ID": f"ws-{i}", "ASSIGNED_VNODES": pins, "ARCHIVE_URL": self.archiver}
            self.start(f"ws-{i}", "ws-node", **common, **node, **self.listening(i))
        self.start("archiver", "archiver", **common, **self.listening(9))
        self.settled()

    def listening(self, i):
        port = self.port + i
        return {"LISTEN_ADDR": f"127.0.0.1:{port}", "ADMIN_ADDR": f"127.0.0.1:{port + 100}"}

    def node_url(self, i):
        return f"http://127.0.0.1:{self.port + i}"

    def admin_url(self, i):
        return f"http://127.0.0.1:{self.port + i + 100}"


class Dev(Programs):
    """`roost dev` with its files in `data`."""

    KEPT = {"PRESENCE_LINGER_MS": "500", "STREAM_MAX_LEN": "20"}

    def __init__(self, folder, logs, port, data):
        super().__init__(folder, logs, port)
        self.archiver = f"http://127.0.0.1:{port + 10}"
        arguments = ["dev", "--nodes", "2", "--port", str(port)]
        self.start("dev", "roost", arguments, ROOST_DATA_DIR=data, **self.KEPT, RUST_LOG="warn")
        self.settled()

    def node_url(self, i):
        return f"http://127.0.0.1:{self.port + i}"
