"""A bad network between one worker and the broker: it cuts, delays, and swallows for a while.

It reads along as far as it takes to tell appends and commits from the rest, and to have the broker
give the proxy's address for its own: so all of a worker's connections come this way, whichever
library makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

CHUNK = 65_536
LOOPBACK = "127.0.0.1"
# A request or an answer begins with its length, without these four bytes; a request goes on with
# what it asks for.
LENGTH_BYTES = 4
PORT_BYTES = 4  # of an address, behind its host, in each version of each answer that has any
API_KEY = slice(4, 6)
PRODUCE = (0).to_bytes(2)
OFFSET_COMMIT = (8).to_bytes(2)
# What names a request, in it and behind the length of its answer.
NUMBER, ANSWERED_NUMBER = slice(8, 12), slice(4, 8)
LANDING_SECONDS = 5.0

# A commit is lost with its connection; or only its answer is; it goes through, and is told of; it
# is held back until `release`, even if its sender is gone by then.
Fate = Literal["dropped", "unanswered", "sent", "held"]


class Frames:
    """Cuts a stream of bytes into requests, or answers."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived; return those that are whole now."""
        self._rest += data
        found = []
        while len(self._rest) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._rest[:LENGTH_BYTES])
            if len(self._rest) < end:
                break
            found.append(self._rest[:end])
            self._rest = self._rest[end:]
        return found


def address_of(port: int) -> bytes:
    """Return what an answer says of a broker that listens at a port."""
    return LOOPBACK.encode() + port.to_bytes(PORT_BYTES)


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: StreamWriter, broker: StreamWriter) -> None:
        self.ends = (client, broker)
        self.appends = False  # records went over it
        self.last_answer = b""  # number of the request whose answer is kept, and ends it
        self.answered = asyncio.Event()  # that answer came

    def cut(self) -> None:
        """End it without a word."""
        for end in self.ends:
            end.transport.abort()


class FaultProxy:
    """Listens at `bootstrap` for connections to a broker; an async context manager.

    What is held back is not lost: as with a real network it arrives once that is well again, if
    both ends still wait.
    """

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._links: set[_Link] = set()
        self._flows: dict[str, asyncio.Event] = {}
        self._fate: tuple[Fate, asyncio.Event] | None = None  # of the next commit
        self._released = asyncio.Event()
        self.landed = asyncio.Event()  # the commit that was held is answered
        self.port = 0
        self.delay = 0.0  # at most, seconds a piece
        self.appends_only = False  # what is held back is held back of appends only

    @property
    def bootstrap(self) -> str:
        """What whoever is to come this way is told of the brokers."""
        return f"{LOOPBACK}:{self.port}"

    async def __aenter__(self) -> Self:
        for way in ("up", "down"):
            self._flows[way] = asyncio.Event()
        self.heal()
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._theirs, self._ours = (address_of(each) for each in (self._broker_port, self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.heal()
        self.release()
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        for link in self._links:
            link.cut()

    def hold(self, *ways: str, appends_only: bool = False) -> None:
        """Hold back what goes `up` to the broker, or comes `down` from it."""
        self.appends_only = appends_only
        for way in ways:
            self._flows[way].clear()

    def heal(self) -> None:
        """Let everything through."""
        self.delay = 0.0
        for flow in self._flows.values():
            flow.set()

    def catch_commit(self, fate: Fate) -> asyncio.Event:
        """Decide on the next commit; return what is set once that has happened to it."""
        caught = asyncio.Event()
        self._fate = (fate, caught)
        return caught

    def release(self) -> None:
        """Let the commit go that was held."""
        self._released.set()

    async def _serve(self, reader: StreamReader, client: StreamWriter) -> None:
        try:
            answers, broker = await asyncio.open_connection(LOOPBACK, self._broker_port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, broker)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump_up(link, reader, broker), self._pump_down(link, answers, client)
            )
        finally:
            self._links.discard(link)
            link.cut()

    async def _pump_up(self, link: _Link, source: StreamReader, sink: StreamWriter) -> None:
        requests = Frames()
        with contextlib.suppress(OSError):  # a TimeoutError, too
            while data := await source.read(CHUNK):
                for request in requests.feed(data):
                    link.appends |= request[API_KEY] == PRODUCE
                    await self._way(link, "up")
                    if request[API_KEY] == OFFSET_COMMIT and self._fate is not None:
                        await self._decide(link, request, sink)
                    else:
                        sink.write(request)
                    await sink.drain()
        link.cut()

    async def _pump_down(self, link: _Link, source: StreamReader, sink: StreamWriter) -> None:
        answers = Frames()
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                for answer in answers.feed(data):
                    if link.last_answer and answer[ANSWERED_NUMBER] == link.last_answer:
                        link.answered.set()
                        link.cut()
                        return
                    await self._way(link, "down")
                    sink.write(answer.replace(self._theirs, self._ours))
                    await sink.drain()
        link.cut()

    async def _way(self, link: _Link, way: str) -> None:
        if self.delay:
            await asyncio.sleep(random.uniform(0, self.delay))
        if link.appends or not self.appends_only:
            await self._flows[way].wait()

    async def _decide(self, link: _Link, commit: bytes, sink: StreamWriter) -> None:
        assert self._fate is not None
        (fate, caught), self._fate = self._fate, None
        if fate == "dropped":
            link.cut()
            caught.set()
        elif fate == "sent":
            sink.write(commit)
            caught.set()
        elif fate == "unanswered":
            await self._swallow_answer(link, commit, sink)
            caught.set()
        else:
            caught.set()
            await self._released.wait()
            await self._swallow_answer(link, commit, sink)
            self.landed.set()

    async def _swallow_answer(self, link: _Link, commit: bytes, sink: StreamWriter) -> None:
        """Send a commit and keep its answer; whoever sent it may be gone by now."""
        link.last_answer = commit[NUMBER]
        sink.write(commit)
        async with asyncio.timeout(LANDING_SECONDS):
            await link.answered.wait()
