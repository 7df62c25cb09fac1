"""Sockets whose frames are kept, each as the text that went over the wire."""

import asyncio
import json
import time
import uuid

import websockets

PATIENCE_S = 40


class Tape:
    """All frames of all connections, in the order in which they were said or heard here."""

    def __init__(self):
        self.lines = []

    def note(self, connection, direction, **what):
        self.lines.append({"connection": connection, "from": direction, **what})


class Wire:
    """One connection. It answers pings and keeps what nobody has asked for yet."""

    def __init__(self, tape, name, socket):
        self.tape, self.name, self.socket, self.heard, self.closed = tape, name, socket, [], None
        self.news = asyncio.Event()
        self.reader = asyncio.create_task(self.read())

    @classmethod
    async def open(cls, tape, name, url, **fields):
        socket = await websockets.connect(url, subprotocols=["roost.v1"], ping_interval=None, max_queue=None)
        wire = cls(tape, name, socket)
        await wire.say(type="connect", **fields)
        return wire

    async def read(self):
        try:
            async for text in self.socket:
                self.tape.note(self.name, "server", text=text)
                frame = json.loads(text)
                if frame["type"] == "ping":
                    await self.say(type="pong")
                self.heard.append(frame)
                self.news.set()
        except websockets.exceptions.ConnectionClosed:
            pass
        self.closed = (self.socket.close_code, self.socket.close_reason)
        self.tape.note(self.name, "server", closed=self.closed[0], reason=self.closed[1])
        self.news.set()

    async def say(self, **frame):
        await self.say_text(as_text(frame))

    async def say_text(self, text, **marks):
        """`bad`: it is no frame. `refused`: it is one, and out of its limits or not allowed."""
        self.tape.note(self.name, "client", text=text, **marks)
        await self.socket.send(text)

    async def hear(self, kind_of_frame, /, **fields):
        """The next frame of this type with these fields; others stay for later."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for i, frame in enumerate(self.heard):
                if frame["type"] == kind_of_frame and all(frame.get(name) == value for name, value in fields.items()):
                    return self.heard.pop(i)
            left = deadline - time.monotonic()
            if self.closed or left <= 0:
                raise SystemExit(f"{self.name}: no {kind_of_frame} {fields}; closed {self.closed}, heard {self.heard[-3:]}")
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def ask(self, **frame):
        """Says a command and returns its reply."""
        frame.setdefault("id", str(uuid.uuid4()))
        await self.say(**frame)
        return await self.hear("reply", id=frame["id"])

    async def ok(self, **frame):
        reply = await self.ask(**frame)
        if "ok" not in reply:
            raise SystemExit(f"{self.name}: {frame} was answered {reply}")
        return reply["ok"]

    async def refused(self, code, /, **frame):
        await self.say_text(as_text(frame), refused=True)
        reply = await self.hear("reply", id=frame["id"])
        if reply.get("error", {}).get("code") != code:
            raise SystemExit(f"{self.name}: {frame} was answered {reply}, not {code}")

    async def end(self):
        await self.socket.close()
        await self.reader

    async def ended(self, code):
        await asyncio.wait_for(self.reader, PATIENCE_S)
        if self.closed[0] != code:
            raise SystemExit(f"{self.name}: closed with {self.closed}, not {code}")


def as_text(frame):
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def cursor(frame):
    return {"generation": frame["generation"], "offset": frame["offset"]}
