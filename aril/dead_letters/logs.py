"""Reading logs from one place to another, without a group: dead letters, and what was answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from aril.connecting.sessions import renew_sessions
from aril.dead_letters.letter import Place, Raw
from aril.errors import BrokerUnavailable, TopicMissing
from aril.fetching.leaders import Leaders
from aril.fetching.offsets import EARLIEST, LATEST, Offsets
from aril.fetching.place import Place as Partition
from aril.fetching.tolerant import skip_unreadable
from aril.kafka import kafka_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from aril.worker.settings import WorkerSettings

REQUEST_TIMEOUT_MS: Final = 15_000
POLL_MS: Final = 500
# A request waits for the fetch in flight to its broker.
FETCH_WAIT_MS: Final = 50
SILENT_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0

ByPartition = dict[int, int]
"""Offsets by partition."""


class Logs:
    """The logs of a cluster. An async context manager; methods raise `BrokerUnavailable`."""

    def __init__(self, settings: WorkerSettings) -> None:
        common: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            **settings.kafka_security(),
        }
        self._bootstrap = settings.bootstrap
        self._admin = AIOKafkaAdminClient(**common)
        self._consumer = AIOKafkaConsumer(
            **common,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        for client in (self._admin, self._consumer):
            renew_sessions(client._client)  # noqa: SLF001 - aiokafka has no other way to it
        client = self._consumer._client  # noqa: SLF001 - aiokafka's own ends are not all true
        self._leaders = Leaders(client)
        self._offsets = Offsets(client, self._leaders)
        self._topics: Mapping[str, list[int]] = {}

    async def __aenter__(self) -> Self:
        try:
            with kafka_errors(no_broker=f"no broker answers at {self._bootstrap}"):
                await self._admin.start()
                await self._consumer.start()
                # All topics at once: asking for one by name would have some clusters create it.
                told = await self._admin.describe_topics()
        except BaseException:
            await self._close()
            raise
        skip_unreadable(self._consumer)
        self._topics = {
            each["topic"]: sorted(part["partition"] for part in each["partitions"]) for each in told
        }
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        try:
            await self._offsets.close()
            await self._leaders.close()
            # aiokafka's fetcher forgets that it was stopped if that comes right behind an `assign`.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._consumer.stop()
        finally:
            await self._admin.close()

    def partitions(self, topic: str) -> list[int]:
        """Return a topic's partitions; none if there is no such topic."""
        return self._topics.get(topic, [])

    async def starts(self, topic: str) -> ByPartition:
        """Return where each partition of a topic begins. Raises `TopicMissing`, too."""
        with kafka_errors():
            return _by_partition(await self._offsets.find_all(self._places(topic), EARLIEST))

    async def ends(self, topic: str) -> ByPartition:
        """Return the offsets that the next records will get. Raises `TopicMissing`, too."""
        with kafka_errors():
            return _by_partition(await self._offsets.find_all(self._places(topic), LATEST))

    async def at(self, topic: str, partition: int, at_ms: int, *, otherwise: int) -> int:
        """Return the first offset of a partition whose record is not older than that."""
        with kafka_errors():
            found = await self._offsets.find(Partition(topic, partition), max(0, at_ms))
        return found if found >= 0 else otherwise

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncIterator[Raw]:
        """Give the records of a partition from `start` up to, and without, `end`."""
        if start >= end:
            return
        where = TopicPartition(topic, partition)
        self._consumer.assign([where])
        self._consumer.seek(where, start)
        position, heard = start, time.monotonic()
        while position < end:
            with kafka_errors():
                found = (await self._consumer.getmany(where, timeout_ms=POLL_MS)).get(where, [])
                # Not the last record's offset: markers take offsets and are not handed out.
                moved = await self._consumer.position(where)
            for each in found:
                if each.offset < end:
                    place = Place(topic, partition, each.offset)
                    headers = tuple((name, value) for name, value in each.headers)
                    yield Raw(place, each.timestamp, each.key, each.value, headers)
            if moved > position:
                position, heard = moved, time.monotonic()
            elif time.monotonic() - heard > SILENT_SECONDS:
                raise BrokerUnavailable(f"{topic}/{partition} is silent at offset {position}")
        self._consumer.pause(where)

    async def delete(self, topic: str, before: ByPartition) -> None:
        """Delete the records of partitions below these offsets."""
        asked = {
            TopicPartition(topic, partition): RecordsToDelete(offset)
            for partition, offset in before.items()
        }
        with kafka_errors():
            await self._admin.delete_records(asked)

    def _places(self, topic: str) -> list[Partition]:
        if topic not in self._topics:
            raise TopicMissing(f"topic {topic} does not exist; `aril topics` creates it")
        return [Partition(topic, partition) for partition in self._topics[topic]]


def _by_partition(found: Mapping[Partition, int]) -> ByPartition:
    return {where.partition: offset for where, offset in found.items()}
