"""Jobs that wait without what they say: it stands in the jobs topic, and is read again in time.

The log is the buffer. What is beyond a tenant's part of the look-ahead keeps its identity, its
sampling and its place, and lets go of prompt and bytes; before its turn comes the record is read
once more, by its offset, by a consumer without a group. If retention has taken it, or the topic was
made anew, the job ends in an error that its tenant may answer by sending it again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from aril.schemas import DecodeError, ErrorCode, Job, JobError, decode_request
from aril.worker.job import digest_of
from aril.worker.observe.logs import Sampled, get_logger
from aril.worker.takeover.readback import OutOfRangeError, ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aril.worker.job import Entry, Partition
    from aril.worker.takeover.readback import LogReader, LogRecord

failures = get_logger(__name__)
log = Sampled(failures)

KEPT_BYTES: Final = 64  # of a value: enough to see in which form it is
GAP: Final = 500  # records of others between two that are read in one go
RETRY_SECONDS: Final = 1.0


def put_away(entry: Entry) -> None:
    """Let go of what a waiting job says; it is large."""
    job, value = entry.job, entry.record.value
    if job is None or value is None or len(value) <= KEPT_BYTES:
        return
    entry.record = replace(
        entry.record,
        value=value[:KEPT_BYTES],
        left_out=entry.record.left_out + len(value) - KEPT_BYTES,
    )
    entry.job = job.model_copy(
        update={
            "prompt": None if job.prompt is None else "",
            "messages": None if job.messages is None else (),
            "token_ids": None if job.token_ids is None else (),
            "tools": None,
        }
    )
    entry.shelved = True


def take_back(entry: Entry, value: bytes) -> bool:
    """Give a job back what it says; False if that is something else."""
    job = entry.job
    try:
        asked = decode_request(value)
    except DecodeError:
        return False
    if job is None or not isinstance(asked, Job) or digest_of(value, asked) != entry.digest:
        return False
    entry.record = replace(
        entry.record, value=value, left_out=entry.record.left_out - len(value) + KEPT_BYTES
    )
    entry.job = asked.model_copy(update={"tenant": job.tenant})
    entry.shelved = False
    return True


class Shelf:
    """Fetches what was put away. Lives on the event loop."""

    def __init__(
        self,
        reader: LogReader | None,
        *,
        whole: Callable[[Entry], None],
        gone: Callable[[Entry, JobError], None],
    ) -> None:
        """Prepare; `whole` is told of each job that can be served, `gone` of all others.

        Without a reader nothing is put away.
        """
        self._reader = reader
        self._whole = whole
        self._gone = gone
        self._wanted: set[Entry] = set()
        self._then: dict[Entry, Callable[[], None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: WeakValueDictionary[Partition, asyncio.Lock] = WeakValueDictionary()

    def when_whole(self, entry: Entry, then: Callable[[], None]) -> None:
        """Call back once a job is whole, or known to be gone."""
        if entry.shelved:
            self._then[entry] = then
            self.fetch([entry])
        else:
            then()

    def fetch(self, entries: Iterable[Entry]) -> None:
        """See that these jobs are made whole; those that are on their way already stay so."""
        runs: dict[Partition, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.shelved and not entry.over and entry not in self._wanted:
                self._wanted.add(entry)
                runs[entry.source].append(entry)
        for source, wanted in runs.items():
            task = asyncio.create_task(self._fetch(source, wanted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Fetch nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fetch(self, source: Partition, entries: Sequence[Entry]) -> None:
        for run in _runs(sorted(entries, key=lambda entry: entry.record.offset)):
            await self._read(source, run)
            for entry in run:
                self._wanted.discard(entry)
                if entry.shelved:
                    text = "the jobs topic does not have it any more; it never had its turn"
                    self._gone(entry, JobError(ErrorCode.INTERNAL, text))
                else:
                    self._whole(entry)
                if (then := self._then.pop(entry, None)) is not None:
                    then()

    async def _read(self, source: Partition, run: Sequence[Entry]) -> None:
        """Read the log from the first of a run to its last, until that works."""
        at = {entry.record.offset: entry for entry in run}
        while wanted := [offset for offset, entry in at.items() if _lacks(entry)]:
            try:
                await self._read_once(source, at, min(wanted), max(wanted))
            except ReadError as error:
                log.warning(
                    "jobs_not_read_again",
                    topic=source.topic,
                    partition=source.partition,
                    error=str(error),
                )
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - ours, and unexpected: their tenants' turns wait
                failures.exception("shelf_failed", topic=source.topic, partition=source.partition)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _read_once(
        self, source: Partition, at: Mapping[int, Entry], first: int, last: int
    ) -> None:
        """Give back to the jobs at these offsets what the log has of it. Raises ReadError."""
        reader = self._reader
        assert reader is not None, "nothing was put away"  # noqa: S101 - ours
        found: dict[int, bytes] = {}

        def take(record: LogRecord) -> None:
            if record.offset in at and record.value is not None:
                found[record.offset] = record.value

        # One at a time of a partition: where it does not answer, others' readers are free.
        async with self._reading.setdefault(source, asyncio.Lock()):
            start = max(first, await reader.start_of(source))
            try:
                if start <= last:
                    await reader.read(source, start, last, take)
            except OutOfRangeError:
                if not await _is_behind_the_end(reader, source, start):
                    raise
        for offset, value in found.items():
            if _lacks(at[offset]):
                take_back(at[offset], value)
                await asyncio.sleep(0)  # each takes as long as a job that is read


async def _is_behind_the_end(reader: LogReader, source: Partition, offset: int) -> bool:
    """Tell whether a log is shorter by now than an offset that it does not have."""
    try:
        return await reader.start_of(source) <= offset
    except ReadError:
        return False


def _lacks(entry: Entry) -> bool:
    return entry.shelved and not entry.over


def _runs(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Cut entries in the order of their offsets where others' records lie between them."""
    runs = [[entries[0]]]
    for before, entry in itertools.pairwise(entries):
        if entry.record.offset - before.record.offset > GAP:
            runs.append([])
        runs[-1].append(entry)
    return runs
