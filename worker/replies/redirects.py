"""Redirects: whoever sends a job again is told where the answer to the first one begins.

Their reader began behind it and sees nothing of it. What is told is no part of any answer, so any
owner may say it at any time, twice, or late: it is true as long as the log stands.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from schemas import ErrorCode, JobError, encode_redirect, reply_partition
from worker.observe.logs import get_logger
from worker.replies.producer import AppendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.job import Asked, Record
    from worker.replies.pending_bytes import PendingBytes
    from worker.replies.producer import LogWriter

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class Redirects:
    """All redirects of a worker. Lives on the event loop."""

    def __init__(self, writer: LogWriter, *, pending: PendingBytes) -> None:
        self._writer = writer
        self._pending = pending
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(
        self,
        record: Record,
        *,
        job_id: str,
        topic: str,
        first: Asked,
        done: Callable[[JobError | None], None],
        dropped: Callable[[], bool],
    ) -> None:
        """Append a redirect until it is acknowledged, then call `done` with None.

        With an error where it can never be. Nothing is called once the work was dropped.
        """

        async def run() -> None:
            with self._pending.held(record):
                while not dropped():
                    try:
                        error = await self._append(job_id, topic, first)
                    except (AppendError, KafkaError, OSError) as failure:
                        log.warning("redirect_failed", job=job_id, error=type(failure).__name__)
                        await asyncio.sleep(RETRY_SECONDS)
                        continue
                    if not dropped():
                        done(error)
                    return

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up what is being written: the records stay unfinished."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _append(self, job_id: str, topic: str, first: Asked) -> JobError | None:
        partitions = await self._writer.partitions(topic)
        if partitions is None:
            return JobError(ErrorCode.INVALID_JOB, f"tenant: there is no topic {topic}")
        wanted = first.reply_partition
        if wanted is None or wanted >= partitions:  # the first was told so on this partition, too
            wanted = reply_partition(job_id, partitions)
        assert first.reply_from is not None, "who told none is redirected to none"  # noqa: S101 - ours
        value = encode_redirect(job_id, first.reply_from)
        try:
            await self._writer.append(topic, wanted, job_id.encode(), [value])
        except AppendError as error:
            if error.hopeless:
                return JobError(ErrorCode.INTERNAL, f"reply topic: {error}")
            raise
        return None
