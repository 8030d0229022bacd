"""A bad network between one worker and the broker: it cuts, delays, and swallows for a while."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

CHUNK = 65_536
LOOPBACK = "127.0.0.1"
# The second field of the first request tells what it asks for: 0 is an append.
API_KEY = slice(4, 6)
PRODUCE = b"\0\0"


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: StreamWriter, broker: StreamWriter) -> None:
        self.ends = (client, broker)
        self.appends = False  # records went over it

    def cut(self) -> None:
        """End it without a word."""
        for end in self.ends:
            end.transport.abort()


class FaultProxy:
    """Listens at `port` for connections to a broker; an async context manager.

    What is held back is not lost: as with a real network it arrives once that is well again, if
    both ends still wait.
    """

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._links: set[_Link] = set()
        self._flows: dict[str, asyncio.Event] = {}
        self.port = 0
        self.delay = 0.0  # at most, seconds a piece
        self.appends_only = False  # what is held back is held back of appends only

    async def __aenter__(self) -> Self:
        for way in ("up", "down"):
            self._flows[way] = asyncio.Event()
        self.heal()
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.heal()
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
                self._pump(link, "up", reader, broker), self._pump(link, "down", answers, client)
            )
        finally:
            self._links.discard(link)
            link.cut()

    async def _pump(self, link: _Link, way: str, source: StreamReader, sink: StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if way == "up" and data[API_KEY] == PRODUCE:
                    link.appends = True
                if self.delay:
                    await asyncio.sleep(random.uniform(0, self.delay))
                if link.appends or not self.appends_only:
                    await self._flows[way].wait()
                sink.write(data)
                await sink.drain()
        link.cut()
