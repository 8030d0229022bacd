"""The transport's twin in memory: test a program that uses the client without a broker.

    broker = MemoryBroker(reply_partitions=4)
    async with Client("", "acme", transport=MemoryTransport(broker)) as client:
        ...

A test plays the workers: it takes records from `broker.jobs` and appends replies. Of several
tenants, each has a topic of its own where the broker is told their names: `topics`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aril.errors import BrokerUnavailable, TopicMissing
from aril.transport import Fetched, OutOfRange, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

POLL_SECONDS: Final = 0.1


@dataclass(slots=True)
class ReplyLog:
    """One reply partition: records from offset `start` on."""

    start: int = 0
    records: list[Fetched] = field(default_factory=list)
    times: list[int] = field(default_factory=list)  # of each record, in ms since 1970

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.start + len(self.records)


class MemoryBroker:
    """One jobs topic, and reply topics kept in lists: one for whoever asks, or each its own."""

    def __init__(self, *, reply_partitions: int = 1, topics: Iterable[str] = ()) -> None:
        """Prepare; with `topics` there are these reply topics and no others."""
        self.jobs: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self.headers: list[list[tuple[str, bytes]]] = []  # of each record sent, in order
        self.replies: list[ReplyLog] = [ReplyLog() for _ in range(reply_partitions)]
        self.topics: dict[str, list[ReplyLog]] = {
            topic: [ReplyLog() for _ in range(reply_partitions)] for topic in topics
        }
        self.changed: asyncio.Event = asyncio.Event()
        self.failing = False

    def logs(self, topic: str | None) -> list[ReplyLog]:
        """Return the partitions of a reply topic. Raises `TopicMissing`."""
        if not self.topics or topic is None:
            return self.replies
        if topic not in self.topics:
            raise TopicMissing(f"topic {topic} does not exist; `aril topics` creates it")
        return self.topics[topic]

    def append(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        *,
        topic: str | None = None,
        time_ms: int | None = None,
    ) -> int:
        """Append a reply, now or as of another time; return its offset."""
        log = self.logs(topic)[partition]
        log.times.append(int(time.time() * 1_000) if time_ms is None else time_ms)
        log.records.append(Fetched(Place(topic or "", partition), log.end, key, value))
        self.changed.set()
        return log.end - 1

    def expire(self, partition: int, start: int, *, topic: str | None = None) -> None:
        """Delete the replies below offset `start`, as retention does."""
        log = self.logs(topic)[partition]
        del log.records[: start - log.start]
        del log.times[: start - log.start]
        log.start = start


class MemoryTransport:
    """A connection to a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, *, poll_records: int = 500) -> None:
        self._broker = broker
        self._poll_records = poll_records
        self.followed: dict[Place, int] = {}

    async def open(self) -> None:
        """See `Transport`."""
        self._check()

    async def close(self) -> None:
        """See `Transport`."""
        self.followed.clear()

    async def partitions(self, topic: str) -> int:
        """See `Transport`. A topic that is no reply topic is one of jobs, of one partition."""
        self._check()
        if self._broker.topics and topic not in self._broker.topics:
            if topic.startswith("replies."):
                self._broker.logs(topic)
            return 1
        return 1 if topic.startswith("jobs") else len(self._broker.logs(topic))

    async def send(
        self,
        place: Place,  # noqa: ARG002 - there is one
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """See `Transport`."""
        self._check()
        self._broker.headers.append([*headers])
        await self._broker.jobs.put((key, value))

    async def log_start(self, place: Place) -> int:
        """See `Transport`."""
        self._check()
        return self._log(place).start

    async def log_end(self, place: Place) -> int:
        """See `Transport`."""
        self._check()
        return self._log(place).end

    async def offset_at(self, place: Place, time_ms: int) -> int:
        """See `Transport`."""
        self._check()
        log = self._log(place)
        found = (at for at, when in enumerate(log.times, log.start) if when >= time_ms)
        return next(found, log.end)

    def position(self, place: Place) -> int | None:
        """See `Transport`."""
        return self.followed.get(place)

    def follow(self, place: Place, offset: int) -> None:
        """See `Transport`."""
        self.followed[place] = offset
        self._broker.changed.set()

    def unfollow(self, place: Place) -> None:
        """See `Transport`."""
        self.followed.pop(place, None)

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
        for place, offset in [*self.followed.items()]:
            log = self._log(place)
            if not log.start <= offset <= log.end:
                del self.followed[place]
                raise OutOfRange(place)
            first = offset - log.start
            found = log.records[first : first + self._poll_records]
            records += [record._replace(place=place) for record in found]
            self.followed[place] = min(log.end, offset + self._poll_records)
        return records

    def _log(self, place: Place) -> ReplyLog:
        return self._broker.logs(place.topic)[place.partition]

    def _check(self) -> None:
        if self._broker.failing:
            raise BrokerUnavailable("the broker is down")
