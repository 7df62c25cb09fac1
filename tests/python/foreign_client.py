"""A client that knows nothing of Roost but docs/PROTOCOL.md: `websockets` and `PyJWT`, nothing of ours.

Runs `roost dev` from the given folder of binaries on ports of its own and does what a stranger would do: ask
/route, connect to different nodes, exchange messages both ways, reconnect with a cursor, repeat an id, go to the
wrong node, show bad tokens, restart the cluster. Prints one line a check; exits with 1 at the first that fails.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import jwt
import websockets

PORT = int(os.environ.get("ROOST_TEST_DEV_PORT", "17000"))
COORDINATOR = f"http://127.0.0.1:{PORT}"
SECRET = "a secret of the foreign client, long enough for HS256"
PATIENCE_S = 30


def check(what, ok, seen=None):
    print(f"{'ok  ' if ok else 'FAIL'} {what}", flush=True)
    if not ok:
        print(f"     saw: {seen!r}", flush=True)
        raise SystemExit(1)


def get(path):
    with urllib.request.urlopen(COORDINATOR + path, timeout=5) as answer:
        return json.load(answer)


def route(user):
    return get("/route?userId=" + urllib.parse.quote(user))


def token(user, secret=None, **claims):
    return jwt.encode({"sub": user, "exp": int(time.time()) + 600, **claims}, secret or SECRET, algorithm="HS256")


class Client:
    """One connection of one user."""

    def __init__(self, user, socket):
        self.user, self.socket, self.backlog = user, socket, []

    @classmethod
    async def connect(cls, user, url=None, **fields):
        if url is None:
            url = route(user)["url"]
        socket = await websockets.connect(url, subprotocols=["roost.v1"])
        client = cls(user, socket)
        await client.say(type="connect", token=fields.pop("token", None) or token(user), **fields)
        return client

    async def say(self, **frame):
        await self.socket.send(json.dumps(frame))

    async def next(self, kind, **fields):
        """The next frame of this kind; others stay for later. Answers pings."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for i, frame in enumerate(self.backlog):
                if frame["type"] == kind and all(frame.get(k) == v for k, v in fields.items()):
                    return self.backlog.pop(i)
            left = deadline - time.monotonic()
            frame = json.loads(await asyncio.wait_for(self.socket.recv(), left))
            if frame["type"] == "ping":
                await self.say(type="pong")
            self.backlog.append(frame)

    async def send(self, to, data, message_id=None):
        message_id = message_id or str(uuid.uuid4())
        await self.say(type="send", id=message_id, to=to, data=data)
        return await self.next("reply", id=message_id)

    async def close(self):
        await self.socket.close()


async def closed_with(client):
    try:
        while True:
            await asyncio.wait_for(client.socket.recv(), PATIENCE_S)
    except websockets.exceptions.ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def two_users_on_different_nodes():
    first = "alice"
    home = route(first)["node"]
    second = next(u for u in (f"bob{i}" for i in range(1000)) if route(u)["node"] != home)
    return first, second


async def conversation():
    alice, bob = two_users_on_different_nodes()
    a, b = await Client.connect(alice), await Client.connect(bob, device="phone")
    wa, wb = await a.next("welcome"), await b.next("welcome")
    check("two users are at home on different nodes", wa["node"] != wb["node"], (wa, wb))
    check("a new device starts at the tail", wb["recovered"] and wb["replayed"] == 0, wb)

    reply = await a.send(bob, {"text": "hi"})
    got = await b.next("message")
    check("a message arrives and is confirmed", "ok" in reply and got["data"] == {"text": "hi"}, (reply, got))
    check("it says who sent it", got["from"] == alice and got["stream"] == f"user:{bob}", got)
    reply = await b.send(alice, {"text": "hi yourself"})
    got_back = await a.next("message")
    check("and the other way", "ok" in reply and got_back["from"] == bob, got_back)

    cursor = {"generation": got["generation"], "offset": got["offset"]}
    await b.close()
    ids = [str(uuid.uuid4()) for _ in range(20)]
    first = [await a.send(bob, {"n": n}, ids[n]) for n in range(20)]
    check("sends to an absent user are confirmed", all("ok" in r for r in first), first)
    again = await a.send(bob, {"n": 7}, ids[7])
    check("a repeated id gets the same answer", again["ok"] == first[7]["ok"], (again, first[7]))
    other = await a.send(bob, {"n": "another"}, ids[7])
    check("with another body it is a conflict", other["error"]["code"] == "conflict", other)

    b = await Client.connect(bob, device="phone", cursor=cursor)
    welcome = await b.next("welcome")
    missed = [await b.next("message") for _ in range(20)]
    check("a cursor brings exactly what was missed", welcome["recovered"] and welcome["replayed"] == 20, welcome)
    check("in order, once each", [m["id"] for m in missed] == ids, missed)
    offsets = [m["offset"] for m in missed]
    check("without a gap", offsets == list(range(cursor["offset"] + 1, cursor["offset"] + 21)), offsets)
    await a.send(bob, {"text": "live"})
    live = await b.next("message")
    check("and then what is new", live["data"] == {"text": "live"}, live)

    wrong = await Client.connect(alice, url=route(bob)["url"])
    moved = await wrong.next("moved")
    check("a node that is not home names the home", moved["url"] == route(alice)["url"], moved)
    await wrong.close()
    await a.close()
    await b.close()
    return bob, {"generation": live["generation"], "offset": live["offset"]}


async def refusals():
    for what, bad in [
        ("another secret", token("alice", secret="another secret of at least thirty-two bytes")),
        ("no signature", jwt.encode({"sub": "alice", "exp": 4102444800}, None, algorithm="none")),
        ("nonsense", "nonsense"),
        ("no subject", jwt.encode({"exp": 4102444800}, SECRET, algorithm="HS256")),
    ]:
        client = await Client.connect("alice", token=bad)
        check(f"a token with {what} is refused with 3500", (code := await closed_with(client)) == 3500, code)
    client = await Client.connect("alice", token=token("alice", exp=int(time.time()) - 60))
    check("an expired token is refused with 3501", (code := await closed_with(client)) == 3501, code)
    for path, status in [("/route", 400), ("/route?userId=", 400), ("/route?userId=%23room", 400)]:
        try:
            get(path)
            check(f"{path} is refused", False)
        except urllib.error.HTTPError as error:
            body = json.load(error)
            ok = error.code == status and body["error"]["code"] == "bad_request"
            check(f"{path} is refused with {status}", ok, (error.code, body))


async def after_a_restart(bob, cursor, ids):
    b = await Client.connect(bob, device="phone", cursor=cursor)
    welcome = await b.next("welcome")
    got = [(await b.next("message"))["id"] for _ in ids]
    check("what was undelivered survives a restart", welcome["recovered"] and got == ids, (welcome, got))
    await b.close()


async def leave_some(bob):
    a = await Client.connect("alice")
    await a.next("welcome")
    ids = [str(uuid.uuid4()) for _ in range(5)]
    for message_id in ids:
        await a.send(bob, {"later": True}, message_id)
    await a.close()
    return ids


def start(binaries, data):
    env = {**os.environ, "JWT_SECRET": SECRET, "ROOST_DATA_DIR": data}
    process = subprocess.Popen([f"{binaries}/roost", "dev", "--port", str(PORT)], env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if all(row[3] for row in get("/ring")["rows"]) and len(get("/ring")["rows"]) == get("/ring")["vnodes"]:
                return process
        except OSError:
            pass
        time.sleep(0.1)
    process.kill()
    check("the cluster comes up", False)


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=PATIENCE_S)


def main():
    binaries = sys.argv[1] if len(sys.argv) > 1 else "target/debug"
    with tempfile.TemporaryDirectory() as data:
        process = start(binaries, data)
        try:
            bob, cursor = asyncio.run(conversation())
            asyncio.run(refusals())
            ids = asyncio.run(leave_some(bob))
            stop(process)
            process = start(binaries, data)
            asyncio.run(after_a_restart(bob, cursor, ids))
        finally:
            if process.poll() is None:
                stop(process)
    print("all checks passed")


if __name__ == "__main__":
    main()
