"""Where an answer goes: the tenant's reply topic, and the partition of it.

A topic that was never asked for is looked up off the path of all others: a tenant without one
blocks nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.errors import KafkaError

from aril.schemas import ErrorCode, JobError, reply_partition
from aril.worker.job import UNROUTABLE
from aril.worker.observe.logs import get_logger
from aril.worker.stages import Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aril.worker.job import Entry
    from aril.worker.replies.pending_bytes import PendingBytes
    from aril.worker.replies.producer import LogWriter

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class _Found(NamedTuple):
    """What is known of a reply topic: how many partitions, None for no topic; what is wrong."""

    partitions: int | None
    wrong: str | None = None


class ReplyRoutes:
    """Finds the partition of each job's answer: it is then ROUTED, or UNROUTABLE."""

    def __init__(
        self,
        writer: LogWriter,
        *,
        pending: PendingBytes,
        create: Callable[[str], Awaitable[None]] | None,
        first_use: Callable[[str], Awaitable[str | None]] | None = None,
        happened: Callable[[Entry, Event], None],
    ) -> None:
        self._writer = writer
        self._first_use = first_use  # tells what is wrong with a topic that was not used before
        self._pending = pending
        self._create = create  # makes a tenant's reply topic, where that is allowed
        self._happened = happened
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[str, asyncio.Task[_Found]] = {}  # one question a topic at a time

    def look_up(self, entry: Entry) -> None:
        """Find where an answer goes; at once, if its tenant was met before."""
        partitions = self._writer.known_partitions(entry.reply_topic)
        if partitions is not None:
            self._choose(entry, partitions)
            return
        task = asyncio.create_task(self._hold(entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold(self, entry: Entry) -> None:
        with self._pending.held(entry.record):
            await self._look_up(entry)

    async def _look_up(self, entry: Entry) -> None:
        while not entry.dropped:
            try:
                partitions, wrong = await self._ask(entry)
            except (KafkaError, OSError) as error:
                log.warning("reply_topic_unknown", tenant=entry.tenant, error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not entry.dropped:
                if partitions is None:
                    self._refuse(entry)
                else:
                    if wrong is not None and not entry.ending:
                        self._fail(entry, JobError(ErrorCode.INTERNAL, wrong))
                    self._choose(entry, partitions)
            return

    async def _ask(self, entry: Entry) -> _Found:
        asking = self._asking.get(entry.reply_topic)
        if asking is None:
            asking = asyncio.create_task(self._find_or_create(entry))
            self._asking[entry.reply_topic] = asking
            asking.add_done_callback(lambda _: self._asking.pop(entry.reply_topic))
        return await asyncio.shield(asking)

    async def _find_or_create(self, entry: Entry) -> _Found:
        topic = entry.reply_topic
        partitions = await self._writer.partitions(topic)
        if partitions is None and self._create is not None:
            await self._create(entry.tenant)
            self._writer.forget_missing(topic)
            partitions = await self._writer.partitions(topic)
        if partitions is None or self._first_use is None:
            return _Found(partitions)
        wrong = await self._first_use(topic)
        return _Found(partitions, None if wrong is None else f"{topic}: {wrong}")

    def _choose(self, entry: Entry, partitions: int) -> None:
        wanted = entry.wanted_partition
        if wanted is not None and wanted >= partitions:
            if not entry.ending:
                text = f"reply_partition: {entry.reply_topic} has {partitions}"
                limit = partitions - 1
                self._fail(entry, JobError(ErrorCode.INVALID_JOB, text, limit=limit, given=wanted))
            wanted = None
        entry.reply_partition = (
            reply_partition(entry.job_id, partitions) if wanted is None else wanted
        )
        self._happened(entry, Event.ROUTED)

    def _fail(self, entry: Entry, error: JobError) -> None:
        entry.error = error
        self._happened(entry, Event.FAILED)

    def _refuse(self, entry: Entry) -> None:
        entry.dead_letter = UNROUTABLE
        missing = f"tenant: there is no topic {entry.reply_topic}"
        entry.error = JobError(ErrorCode.INVALID_JOB, missing)
        self._happened(entry, Event.UNROUTABLE)
