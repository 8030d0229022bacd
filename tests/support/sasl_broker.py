"""A broker that can do one thing: authenticate by SASL, and end sessions. For tests of connections.

It speaks four requests of Kafka's protocol over loopback. A heartbeat is answered at once, or when
the test lets it; on a connection whose session is over nothing is answered, as Kafka does it.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Final, Self

from aiokafka.client import AIOKafkaClient
from aiokafka.structs import BrokerMetadata

from aril.broker import LOOPBACK

if TYPE_CHECKING:
    from typing import Any

HANDSHAKE: Final = 17
VERSIONS: Final = 18
AUTHENTICATE: Final = 36
HEARTBEAT: Final = 12
NODE: Final = 1
_VERSIONS: Final = {HANDSHAKE: 1, VERSIONS: 0, AUTHENTICATE: 1, HEARTBEAT: 0}


class SaslBroker:
    """One broker; an async context manager."""

    def __init__(self, *, session_ms: int = 0) -> None:
        """Prepare; what is authenticated is told to last so long, 0: without end."""
        self.session_ms = session_ms
        self.refuses = False  # whoever authenticates
        self.shown: list[bytes] = []  # what was authenticated with, a connection each
        self.open = 0
        self.beats: list[int] = []  # on which connection, counted from 0
        self.answers = asyncio.Event()  # heartbeats wait for it
        self.answers.set()
        self.moved = asyncio.Condition()  # something of these has changed
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def client(self, **security: Any) -> AIOKafkaClient:
        """Return a client that knows this broker and is not started."""
        client = AIOKafkaClient(
            bootstrap_servers=f"{LOOPBACK}:{self.port}",
            security_protocol="SASL_PLAINTEXT",
            **{"sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": "p"}
            | security,
        )
        client.cluster._brokers = {NODE: BrokerMetadata(NODE, LOOPBACK, self.port, None)}
        return client

    async def until(self, what: Any) -> None:
        """Wait until something of this broker is so."""
        async with asyncio.timeout(30), self.moved:
            await self.moved.wait_for(what)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        number = -1
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                message = await reader.readexactly(size)
                key, _, correlation, named = struct.unpack_from(">hhih", message)
                rest = message[10 + named :]
                if key == AUTHENTICATE:
                    number = len(self.shown)
                    self.shown.append(rest[4:])
                if key == HEARTBEAT:
                    self.beats.append(number)
                await self._tell()
                if key == HEARTBEAT:
                    await self.answers.wait()
                body = struct.pack(">i", correlation) + self._answer(key)
                writer.write(struct.pack(">i", len(body)) + body)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # its client has gone, or the test is over
        finally:
            self.open -= 1
            writer.close()
            self._tasks.discard(task)
            await self._tell()

    async def _tell(self) -> None:
        async with self.moved:
            self.moved.notify_all()

    def _answer(self, key: int) -> bytes:
        if key == VERSIONS:
            known = b"".join(struct.pack(">hhh", each, 0, top) for each, top in _VERSIONS.items())
            return struct.pack(">hi", 0, len(_VERSIONS)) + known
        if key == HANDSHAKE:
            names = (b"PLAIN", b"OAUTHBEARER")
            return struct.pack(">hi", 0, len(names)) + b"".join(
                struct.pack(">h", len(name)) + name for name in names
            )
        if key == AUTHENTICATE:
            code = 58 if self.refuses else 0
            return struct.pack(">hhiq", code, -1, 0, self.session_ms)
        return struct.pack(">h", 0)
