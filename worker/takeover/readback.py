"""Reading a reply log back, from a job's start up to a claim. Belongs to no consumer group."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from aril.connecting.sessions import renew_sessions
from aril.fetching.tolerant import skip_unreadable
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aril.worker.job import Partition
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)

# Partitions that are read at the same time, each over a connection of its own.
READERS = 4
POLL_MS = 500
FETCH_WAIT_MS = 20  # the claim that is waited for is in the log already
SILENT_SECONDS = 15.0
STOP_SECONDS = 5.0


class ReadError(Exception):
    """A log could not be read; nothing is known of it."""


class OutOfRangeError(ReadError):
    """The log has no such offset: it begins later, or ends before."""


class LogRecord(NamedTuple):
    """One record as it was read back."""

    offset: int
    key: bytes | None
    value: bytes | None


class LogReader(Protocol):
    """What taking over needs of the reply logs. Every method raises ReadError."""

    async def start_of(self, source: Partition) -> int:
        """Return the first offset that the log still holds."""

    async def offset_at(self, source: Partition, timestamp_ms: int) -> int:
        """Return the first offset whose record is not older than that moment."""

    async def read(
        self, source: Partition, start: int, last: int, take: Callable[[LogRecord], None]
    ) -> None:
        """Hand out every record of the log from `start` up to and including `last`."""


class KafkaLogReader:
    """A few consumers without a group, each assigned to the partition that it is read for."""

    def __init__(self, settings: WorkerSettings, client_id: str) -> None:
        self._options = {
            "bootstrap_servers": settings.bootstrap,
            "client_id": f"{client_id}-readback",
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "fetch_max_wait_ms": FETCH_WAIT_MS,
            **settings.kafka_security(),
        }
        self._idle: list[AIOKafkaConsumer] = []
        self._room = asyncio.Semaphore(READERS)

    async def start_of(self, source: Partition) -> int:
        """See LogReader."""
        where = TopicPartition(*source)
        async with self._consumer(where) as consumer:
            found: int = (await consumer.beginning_offsets([where]))[where]
            return found

    async def offset_at(self, source: Partition, timestamp_ms: int) -> int:
        """See LogReader."""
        where = TopicPartition(*source)
        async with self._consumer(where) as consumer:
            found = (await consumer.offsets_for_times({where: max(0, timestamp_ms)}))[where]
            if found is None:  # nothing so young: clocks differ by more than the slack
                start: int = (await consumer.beginning_offsets([where]))[where]
                return start
            offset: int = found.offset
            return offset

    async def read(
        self, source: Partition, start: int, last: int, take: Callable[[LogRecord], None]
    ) -> None:
        """See LogReader."""
        where = TopicPartition(*source)
        loop = asyncio.get_running_loop()
        async with self._consumer(where) as consumer:
            consumer.seek(where, start)
            heard = loop.time()
            position = start
            while position <= last:
                batch = (await consumer.getmany(where, timeout_ms=POLL_MS)).get(where, [])
                for record in batch:
                    if record.offset <= last:
                        take(LogRecord(record.offset, record.key, record.value))
                # Not the last record's offset: markers take offsets and are not handed out.
                moved = await consumer.position(where)
                if moved > position:
                    position, heard = moved, loop.time()
                elif loop.time() - heard > SILENT_SECONDS:
                    raise ReadError(f"{source.topic}/{source.partition} is silent at {position}")

    async def stop(self) -> None:
        """Close the connections."""
        idle, self._idle = self._idle, []
        for consumer in idle:
            await _stop_quietly(consumer)

    @asynccontextmanager
    async def _consumer(self, where: TopicPartition) -> AsyncIterator[AIOKafkaConsumer]:
        """Borrow a consumer; one that failed is not used again."""
        async with self._room:
            consumer = self._idle.pop() if self._idle else None
            try:
                if consumer is None:
                    consumer = AIOKafkaConsumer(**self._options)
                    renew_sessions(consumer._client)  # noqa: SLF001 - aiokafka has no other way to it
                    await _start_wholly(consumer)
                    skip_unreadable(consumer)  # what nobody can read counts for no reader
                consumer.assign([where])
                yield consumer
            except BaseException as error:
                if consumer is not None:
                    await _stop_quietly(consumer)
                if isinstance(error, errors.OffsetOutOfRangeError):
                    raise OutOfRangeError(type(error).__name__) from error
                if isinstance(error, errors.KafkaError | OSError):
                    raise ReadError(type(error).__name__) from error
                raise
            self._idle.append(consumer)


async def _start_wholly(consumer: AIOKafkaConsumer) -> None:
    """Start one; a cancelled start ends first, as aiokafka would leave its connection open."""
    starting = asyncio.ensure_future(consumer.start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting}, timeout=STOP_SECONDS)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        raise


async def _stop_quietly(consumer: AIOKafkaConsumer) -> None:
    with contextlib.suppress(errors.KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(STOP_SECONDS):
            await consumer.stop()
