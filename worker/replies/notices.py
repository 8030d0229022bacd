"""Notices: whoever sends a job under a known id is told what becomes of it.

The same job again is led to where the first one's answer begins, which its reader began behind;
another job under the id is told that it is not answered. A notice is no part of any answer, so any
owner may say it at any time, twice, or late: it is true as long as the log stands.

While a reply log does not answer, its notices wait, and one at a time tries it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.errors import KafkaError

from aril.schemas import ErrorCode, JobError, reply_partition
from aril.worker.job import Partition
from aril.worker.observe.logs import get_logger
from aril.worker.replies.producer import AppendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.job import Record
    from aril.worker.replies.pending_bytes import PendingBytes
    from aril.worker.replies.producer import LogWriter
    from aril.worker.replies.reply_logs import ReplyLogs

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class Notice(NamedTuple):
    """What is to be told, and where its reader reads."""

    job_id: str
    topic: str
    wanted: int | None  # the reply partition that the job asked for
    value: bytes  # of the record, in msgpack


class Notices:
    """All notices of a worker. Lives on the event loop."""

    def __init__(self, writer: LogWriter, *, pending: PendingBytes, logs: ReplyLogs) -> None:
        self._writer = writer
        self._pending = pending
        self._logs = logs
        self._waiting: Counter[Partition] = Counter()  # notices, by logs that are down
        self._turns: set[Partition] = set()  # logs that the next of them is to try
        self._trying: set[Partition] = set()  # and those that one is trying
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(
        self,
        record: Record,
        notice: Notice,
        *,
        done: Callable[[JobError | None], None],
        dropped: Callable[[], bool],
    ) -> None:
        """Append a notice about `record` until it is acknowledged, then call `done` with None.

        With an error where it can never be. Nothing is called once the work was dropped.
        """

        async def run() -> None:
            with self._pending.held(record):
                while not dropped():
                    try:
                        error = await self._append(record, notice, dropped)
                    except AppendError as failure:  # it waits until its log is to be tried again
                        log.warning("notice_failed", job=notice.job_id, error=str(failure))
                        continue
                    except (KafkaError, OSError) as failure:
                        log.warning(
                            "notice_failed", job=notice.job_id, error=type(failure).__name__
                        )
                        await asyncio.sleep(RETRY_SECONDS)
                        continue
                    if not dropped():
                        done(error)
                    return

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def try_one(self, log: Partition) -> bool:
        """Let one notice try a log that is down; False if none waits for it."""
        if self._waiting[log] and log not in self._trying:
            self._turns.add(log)
        return log in self._turns or log in self._trying

    async def stop(self) -> None:
        """Give up what is being written: the records stay unfinished."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _append(
        self, record: Record, notice: Notice, dropped: Callable[[], bool]
    ) -> JobError | None:
        job_id, topic, wanted, value = notice
        partitions = await self._writer.partitions(topic)
        if partitions is None:
            return JobError(ErrorCode.INVALID_JOB, f"tenant: there is no topic {topic}")
        if wanted is None or wanted >= partitions:  # a job is told so on this partition, too
            wanted = reply_partition(job_id, partitions)
        where = Partition(topic, wanted)
        tries = await self._may_append(where, dropped)
        try:
            if not dropped():
                await self._writer.append(
                    topic, wanted, job_id.encode(), [record.in_its_form(value)]
                )
                self._logs.worked(where)
        except AppendError as error:
            if error.hopeless:
                return JobError(ErrorCode.INTERNAL, f"reply topic: {error}")
            self._logs.failed(where, time.monotonic())
            raise
        finally:
            if tries:
                self._trying.discard(where)
        return None

    async def _may_append(self, where: Partition, dropped: Callable[[], bool]) -> bool:
        """Wait until a log is up or the work is dropped; True if it is down and this is to try."""
        self._waiting[where] += 1
        try:
            while self._logs.is_down(where) and not dropped():
                if where in self._turns:
                    self._turns.discard(where)
                    self._trying.add(where)
                    return True
                await asyncio.sleep(RETRY_SECONDS)
            return False
        finally:
            self._waiting[where] -= 1
            if not self._waiting[where]:
                del self._waiting[where]
                self._turns.discard(where)
