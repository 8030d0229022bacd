"""Where an answer goes: the tenant's reply topic, and the partition of it.

A topic that was never asked for is looked up off the path of all others: a tenant without one
blocks nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

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


class ReplyRoutes:
    """Finds the partition of each job's answer: it is then ROUTED, or UNROUTABLE."""

    def __init__(
        self,
        writer: LogWriter,
        *,
        pending: PendingBytes,
        create: Callable[[str], Awaitable[None]] | None,
        happened: Callable[[Entry, Event], None],
    ) -> None:
        self._writer = writer
        self._pending = pending
        self._create = create  # makes a tenant's reply topic, where that is allowed
        self._happened = happened
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[str, asyncio.Task[int | None]] = {}  # one question a topic at a time

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
                partitions = await self._ask(entry)
            except (KafkaError, OSError) as error:
                log.warning("reply_topic_unknown", tenant=entry.tenant, error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if not entry.dropped:
                if partitions is None:
                    self._refuse(entry)
                else:
                    self._choose(entry, partitions)
            return

    async def _ask(self, entry: Entry) -> int | None:
        asking = self._asking.get(entry.reply_topic)
        if asking is None:
            asking = asyncio.create_task(self._find_or_create(entry))
            self._asking[entry.reply_topic] = asking
            asking.add_done_callback(lambda _: self._asking.pop(entry.reply_topic))
        return await asyncio.shield(asking)

    async def _find_or_create(self, entry: Entry) -> int | None:
        partitions = await self._writer.partitions(entry.reply_topic)
        if partitions is None and self._create is not None:
            await self._create(entry.tenant)
            self._writer.forget_missing(entry.reply_topic)
            partitions = await self._writer.partitions(entry.reply_topic)
        return partitions

    def _choose(self, entry: Entry, partitions: int) -> None:
        wanted = entry.wanted_partition
        if wanted is not None and wanted >= partitions:
            if not entry.ending:
                entry.error = JobError(
                    ErrorCode.INVALID_JOB,
                    f"reply_partition: {entry.reply_topic} has {partitions}",
                    limit=partitions - 1,
                    given=wanted,
                )
                self._happened(entry, Event.FAILED)
            wanted = None
        entry.reply_partition = (
            reply_partition(entry.job_id, partitions) if wanted is None else wanted
        )
        self._happened(entry, Event.ROUTED)

    def _refuse(self, entry: Entry) -> None:
        entry.dead_letter = UNROUTABLE
        missing = f"tenant: there is no topic {entry.reply_topic}"
        entry.error = JobError(ErrorCode.INVALID_JOB, missing)
        self._happened(entry, Event.UNROUTABLE)
