"""The transport's twin in memory: test a program that uses the client without a broker.

    broker = MemoryBroker(reply_partitions=4)
    async with Client("", "acme", transport=MemoryTransport(broker, "acme")) as client:
        ...

A test plays the workers: it takes records from `broker.jobs` and appends replies.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aril.errors import BrokerUnavailable
from aril.transport import Fetched, OutOfRange, Partitions

if TYPE_CHECKING:
    from collections.abc import Sequence

POLL_SECONDS: Final = 0.1


@dataclass(slots=True)
class ReplyLog:
    """One reply partition: records from offset `start` on."""

    start: int = 0
    records: list[Fetched] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.start + len(self.records)


class MemoryBroker:
    """One jobs topic and one tenant's reply topic, kept in lists."""

    def __init__(self, *, reply_partitions: int = 1) -> None:
        self.jobs: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self.headers: list[list[tuple[str, bytes]]] = []  # of each record sent, in order
        self.replies = [ReplyLog() for _ in range(reply_partitions)]
        self.changed = asyncio.Event()
        self.failing = False

    def append(self, partition: int, key: bytes | None, value: bytes | None) -> int:
        """Append a reply; return its offset."""
        replies = self.replies[partition]
        replies.records.append(Fetched(partition, replies.end, key, value))
        self.changed.set()
        return replies.end - 1

    def expire(self, partition: int, start: int) -> None:
        """Delete the replies below offset `start`, as retention does."""
        replies = self.replies[partition]
        del replies.records[: start - replies.start]
        replies.start = start


class MemoryTransport:
    """A client's connection to a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, *, poll_records: int = 500) -> None:
        self._broker = broker
        self._poll_records = poll_records
        self.followed: dict[int, int] = {}

    async def open(self) -> Partitions:
        """See `Transport`."""
        self._check()
        return Partitions(1, len(self._broker.replies))

    async def close(self) -> None:
        """See `Transport`."""
        self.followed.clear()

    async def send(
        self,
        partition: int,  # noqa: ARG002 - there is one
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """See `Transport`."""
        self._check()
        self._broker.headers.append([*headers])
        await self._broker.jobs.put((key, value))

    async def log_start(self, partition: int) -> int:
        """See `Transport`."""
        self._check()
        return self._broker.replies[partition].start

    async def log_end(self, partition: int) -> int:
        """See `Transport`."""
        self._check()
        return self._broker.replies[partition].end

    def follow(self, partition: int, offset: int) -> None:
        """See `Transport`."""
        self.followed[partition] = offset
        self._broker.changed.set()

    def unfollow(self, partition: int) -> None:
        """See `Transport`."""
        del self.followed[partition]

    async def poll(self) -> Sequence[Fetched]:
        """See `Transport`."""
        self._check()
        if not (records := self._fetch()):
            self._broker.changed.clear()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._broker.changed.wait()
            except TimeoutError:
                return []
            records = self._fetch()
        return records

    def _fetch(self) -> list[Fetched]:
        records: list[Fetched] = []
        for partition, offset in self.followed.items():
            replies = self._broker.replies[partition]
            if not replies.start <= offset <= replies.end:
                raise OutOfRange(partition)
            first = offset - replies.start
            records += replies.records[first : first + self._poll_records]
            self.followed[partition] = min(replies.end, offset + self._poll_records)
        return records

    def _check(self) -> None:
        if self._broker.failing:
            raise BrokerUnavailable("the broker is down")
