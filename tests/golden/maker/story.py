"""What happens: every frame of docs/PROTOCOL.md, said or heard at least once."""

import asyncio
import json
import signal

from .programs import token, until
from .wire import Wire, cursor

SERVICE = "processor"
# More than the hot window, which is of 20 messages here.
ROLL = 25


class Story:
    def __init__(self, cluster, tape):
        self.cluster, self.tape = cluster, tape
        self.service = token(SERVICE, role="service")

    async def connect(self, name, user, url=None, claims=None, lives_s=None, **fields):
        """A session of `user`; its connection goes by `name`."""
        claims = claims or {}
        if lives_s:
            claims = {**claims, "lives_s": lives_s}
        url = url or self.cluster.route(user)["url"]
        return await Wire.open(self.tape, name, url, token=token(user, **claims), **fields)

    async def welcomed(self, name, user, **fields):
        wire = await self.connect(name, user, **fields)
        return wire, await wire.hear("welcome")

    async def api(self, path, body, status=200, node=None):
        base = self.cluster.coordinator if node is None else self.cluster.node_url(node)
        ask = self.cluster.http.ask
        seen, answer = await asyncio.to_thread(ask, "POST", base + path, body, self.service)
        if seen != status:
            raise SystemExit(f"{path} {body}: {seen} {answer}")

    async def get(self, url):
        await asyncio.to_thread(self.cluster.http.ask, "GET", url, None, self.service)

    def apart(self):
        """Two users at home on different nodes, the same in every run if the vnodes are pinned."""
        home = self.cluster.route("alice")["node"]
        others = (user for user in (f"bob{i or ''}" for i in range(1000)) if self.cluster.route(user)["node"] != home)
        return "alice", next(others)

    # --- chapters

    async def messages(self, a, b, bob):
        """A message with receipts, a repeat, a conflict; what another device of the reader is told."""
        at = (await a.ok(type="send", id="m-1", to=bob, data={"text": "hi"}, receipt=True))["at"]
        got = await b.hear("message", id="m-1")
        again = await a.ok(type="send", id="m-1", to=bob, data={"text": "hi"}, receipt=True)
        assert again["at"] == at, (again, at)
        await a.refused("conflict", type="send", id="m-1", to=bob, data="other")
        tablet, _ = await self.welcomed("bob-tablet", bob, device="tablet")
        await b.say(type="ack", cursor=cursor(got))
        await a.hear("message", kind="receipt")
        await b.say(type="read", cursor=cursor(got))
        await tablet.hear("read")
        await a.hear("message", kind="receipt")
        for n, data in enumerate([None, [1, 2.50, {"deep": ["er"]}], "héllo \U0001f980"]):
            await a.ok(type="send", id=f"kinds-{n}", to=bob, data=data)
        await b.ok(type="send", id="m-1", to="alice", data={"text": "hi yourself"})
        await tablet.end()
        return got

    async def room(self, a, b, bob):
        """A room with members, signals and pages; one that the token does not allow."""
        joined = await b.ok(type="join", id="j-1", room="lobby", presence=True, info={"name": "Bob"})
        await a.hear("member", user=bob, change="join")
        published = await a.ok(type="publish", id="p-1", room="lobby", data={"text": "hi all"})
        await b.hear("message", id="p-1")
        await b.ok(type="join", id="j-2", room="lobby", cursor=joined["cursor"], presence=True, info={"name": "Robert"})
        await b.hear("message", id="p-1")
        await b.ok(type="members", id="ms-1", room="lobby")
        await a.say(type="signal", room="lobby", kind="cursor", data={"x": 3, "y": 4})
        await b.hear("signal", room="lobby")
        await a.say(type="signal", to=bob, kind="typing", data=True)
        await b.hear("signal", kind="typing")
        await b.ok(type="history", id="h-1", stream="room:lobby")
        await b.ok(type="leave", id="l-1", room="lobby")
        await a.hear("member", user=bob, change="leave")
        await b.refused("not_found", type="leave", id="l-2", room="lobby")
        await b.refused("forbidden", type="join", id="j-3", room="secret")
        await b.refused("too_large", type="join", id="j-4", room="lobby", presence=True, info="x" * 1100)
        return published["cursor"]

    async def pages(self, a):
        for n in range(ROLL):
            await a.ok(type="publish", id=f"roll-{n}", room="roll", data=n)
        page = await a.ok(type="history", id="h-2", stream="room:roll", limit=5)
        await a.ok(type="history", id="h-3", stream="room:roll", limit=5, before=page["before"])
        assert (await a.ok(type="history", id="h-6", stream="room:roll", limit=100))["older"]
        await a.refused("forbidden", type="history", id="h-4", stream="user:carol")
        await a.refused("bad_request", type="history", id="h-5", stream="room:roll", limit=101)

    async def presence(self, a, b, bob):
        await a.ok(type="watch", id="w-1", users=[bob, "nobody-yet"])
        await b.ok(type="status", id="s-1", status="away")
        await a.hear("presence", user=bob, status="away")
        await b.ok(type="status", id="s-2", status="invisible")
        await a.hear("presence", user=bob, status="offline")
        await b.ok(type="status", id="s-3", status="online")
        await a.hear("presence", user=bob, status="online")
        await a.ok(type="unwatch", id="u-1", users=["nobody-yet"])
        narrow, _ = await self.welcomed("narrow", "narrow", claims={"watch": ["team-*"]})
        await narrow.refused("forbidden", type="watch", id="w-2", users=[bob])
        await narrow.end()

    async def tokens(self):
        """One that ends, one that is made good in time, and those that are not taken."""
        brief, _ = await self.welcomed("brief", "brief", lives_s=5)
        await brief.hear("token_expiring")
        await brief.ok(type="refresh", id="r-1", token=token("brief", lives_s=9))
        await brief.refused("unauthorized", type="refresh", id="r-2", token=token("somebody-else"))
        await brief.hear("token_expiring")
        await brief.ended(3501)
        stranger = await Wire.open(self.tape, "stranger", self.cluster.route("alice")["url"], token="nonsense")
        await stranger.ended(3500)
        eager, _ = await self.welcomed("eager", "eager")
        for n in range(6):
            await eager.say(type="refresh", id=f"eager-{n}", token=token("eager"))
        for n in range(6):
            await eager.hear("reply", id=f"eager-{n}")
        await eager.end()

    async def mistakes(self):
        clumsy, _ = await self.welcomed("clumsy", "clumsy")
        for text in ["no JSON", "[]", '{"type":"dance","id":"d-1"}', '{"type":"send","id":"x-1","to":"#room","data":1}',
                     '{"type":"send","id":"x-2","to":"bob","data":"\\u0000"}']:
            await clumsy.say_text(text, bad=True)
            await clumsy.hear("reply")
        await clumsy.refused("bad_request", type="connect", id="again")
        await clumsy.say(type="ping")
        await clumsy.hear("pong")
        for _ in range(10):
            await clumsy.say_text("{", bad=True)
        await clumsy.ended(3506)

    async def events(self, a):
        """An event with a result, one whose time runs out, a result of nobody's."""
        await a.ok(type="event", id="e-1", data="this is a sample event")
        result = {"type": "event_accepted", "client_id": "alice", "event_id": "e-1", "status": "accepted", "data": {"order": 7}}
        await self.api("/api/result", result)
        await a.hear("message", kind="result")
        await self.api("/api/result", {**result, "client_id": "nobody-ever"})
        await a.ok(type="event", id="e-2", data={"late": True})

    async def server_api(self, a, bob):
        await self.api("/api/send", {"id": "api-1", "to": "alice", "data": {"from": "a service"}})
        await a.hear("message", id="api-1")
        await self.api("/api/publish", {"id": "api-2", "room": "lobby", "data": [1]}, node=1)
        commands = [{"type": "send", "id": "api-3", "to": bob, "data": 3}, {"type": "publish", "id": "api-4", "room": "lobby", "data": 4}]
        await self.api("/api/batch", {"commands": commands}, node=2)
        eve, _ = await self.welcomed("eve", "eve")
        await self.api("/api/disconnect", {"user": "eve", "reason": "the account was closed"})
        await eve.ended(3503)
        await self.api("/api/presence", {"users": ["alice", bob, "eve"]})
        await self.api("/api/history", {"stream": "user:alice", "limit": 3})
        for path in ("/ring", "/nodes", f"/presence?userIds=alice,{bob}", "/route?userId=alice", "/route?userId="):
            await self.get(self.cluster.coordinator + path)

    async def probed(self, a, bob):
        """The home says nothing for longer than the first probe waits (a second), and less than its lease."""
        self.cluster.signal("ws-2", signal.SIGSTOP)
        await a.say(type="send", id="slow-1", to=bob, data="into silence")
        await asyncio.sleep(1.6)
        self.cluster.signal("ws-2", signal.SIGCONT)
        await a.hear("reply", id="slow-1")

    async def resumed(self, b, bob, got):
        """A device that comes back, a cursor, and one that proves nothing."""
        await b.end()
        b, _ = await self.welcomed("bob-phone-again", bob, device="phone")
        here = await b.hear("message")
        await b.say(type="ack", cursor=cursor(here))
        shown, _ = await self.welcomed("bob-shows", bob, cursor=cursor(got), rooms=[{"room": "roll"}, {"room": "secret"}])
        await shown.hear("message")
        await shown.end()
        lost, _ = await self.welcomed("bob-lost", bob, cursor={"generation": 1, "offset": 1})
        await lost.end()
        return b

    async def moved(self, b, bob):
        """To the wrong node, and from a node that gives everything away."""
        route = self.cluster.route("alice")
        other = self.cluster.node_url(2 if route["node"] == "ws-1" else 1).replace("http", "ws") + "/socket"
        wrong = await self.connect("alice-lost", "alice", url=other)
        await wrong.hear("moved")
        await wrong.end()
        await self.drain("POST")
        await b.hear("moved")
        await b.end()
        await self.drain("DELETE")
        back = lambda: self.cluster.route(bob)["node"] == "ws-2"
        await asyncio.to_thread(until, "its home comes back", back)
        await asyncio.to_thread(self.cluster.settled)

    async def drain(self, method):
        """Has ws-2 give everything away, or take vnodes again."""
        url = self.cluster.coordinator + "/api/nodes/ws-2/drain"
        status, answer = await asyncio.to_thread(self.cluster.http.ask, method, url, None, self.service)
        if status != 202:
            raise SystemExit(f"{method} {url}: {status} {answer}")

    async def lost(self, bob, forget):
        """The store loses its data while a home is away: it wakes, and tells the new one whom it showed."""
        b, _ = await self.welcomed("bob-stays", bob, device="phone")
        self.cluster.signal("ws-1", signal.SIGSTOP)
        forget()
        taken = lambda: self.cluster.route("alice")["node"] == "ws-2"
        await asyncio.to_thread(until, "another node takes the vnodes", taken)
        self.cluster.signal("ws-1", signal.SIGCONT)
        # It takes nothing back, so that it is answered by another.
        await asyncio.to_thread(self.cluster.http.ask, "POST", self.cluster.admin_url(1) + "/drain", None, self.service)
        await b.hear("reset", stream=f"user:{bob}")
        await b.ok(type="send", id="after-1", to="alice", data="after the loss")
        return b

    async def archived(self, bob):
        """What the archive says, once it has what was said last."""
        base, ask = self.cluster.archiver, self.cluster.http.ask

        def has_everything():
            status, answer = ask("GET", base + "/history?stream=room:lobby", None, self.service, keep=False)
            return status == 200 and any(message["id"] == "api-4" for message in json.loads(answer)["messages"])

        await asyncio.to_thread(until, "the archive has the last message", has_everything)
        for path in ("/history?stream=room:lobby&limit=2", f"/history?stream=user:{bob}", f"/presence/history?userId={bob}",
                     "/events?userId=alice", "/api/dead-letters"):
            await self.get(base + path)
