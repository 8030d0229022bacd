"""Taking jobs over: claims out, reply logs read back, in as few passes as there are partitions.

Jobs whose answers share a reply partition are claimed with one batch of appends and read back in
one pass; those that come meanwhile share the next. Fresh jobs never come here. What is decided is
`worker.takeover`'s; here stand the appends, the reads and the waiting.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas import DecodeError, ErrorCode, JobError, decode_reply, encode_reply
from worker.jobs import Partition
from worker.logs import get_logger
from worker.readback import ReadError
from worker.takeover import TakeOver, Verdict
from worker.writer import AppendError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from schemas import Epoch
    from worker.jobs import Entry
    from worker.metrics import Metrics
    from worker.partitions import PartitionState
    from worker.readback import LogReader, LogRecord
    from worker.writer import LogWriter

log = get_logger(__name__)

# One batch of claims: bounded, so that a long backlog does not wait for its last job's prefix.
CLAIMS_AT_ONCE = 256
# Claim duels end because each loser waits longer before it claims again.
FIRST_DELAY_SECONDS = 0.25
LAST_DELAY_SECONDS = 10.0


class Owned(enum.Enum):
    """What became of a job that we wanted to take over."""

    OURS = enum.auto()  # its stream is set up behind the visible prefix
    ANSWERED = enum.auto()  # its terminal stands already, or can never be written
    DROPPED = enum.auto()  # it is no longer this assignment's


@dataclass(slots=True, eq=False)
class _Waiting:
    """One job on its way into our hands."""

    entry: Entry
    takeover: TakeOver
    done: asyncio.Future[Owned]
    delay: float = field(default_factory=lambda: FIRST_DELAY_SECONDS)
    start: int = 0
    claimed_at: int = -1
    prefix_lost: bool = False  # retention has deleted where the answer may have begun


class Claims:
    """All take-overs of a worker. Lives on the event loop."""

    def __init__(
        self,
        *,
        writer: LogWriter,
        reader: LogReader,
        worker: str,
        clock_slack_ms: float,
        metrics: Metrics,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._worker = worker
        self._clock_slack_ms = clock_slack_ms
        self._metrics = metrics
        self._prove: Callable[[PartitionState, int], Awaitable[bool]]
        self._state_of: Callable[[Entry], PartitionState | None]
        self._waiting: dict[Partition, list[_Waiting]] = defaultdict(list)
        self._passes: dict[Partition, asyncio.Task[None]] = {}
        self._asked: dict[Entry, asyncio.Future[Owned]] = {}
        self._claimed: dict[Entry, Epoch] = {}  # of those: the claim that stands in the log, or may
        self._retries: set[asyncio.Task[None]] = set()

    def bind(
        self,
        *,
        prove: Callable[[PartitionState, int], Awaitable[bool]] | None = None,
        state_of: Callable[[Entry], PartitionState | None] | None = None,
    ) -> None:
        """Set who proves that a partition is ours, and who knows a job's partition."""
        if prove is not None:
            self._prove = prove
        if state_of is not None:
            self._state_of = state_of

    async def own(self, entry: Entry) -> Owned:
        """Make a job ours to write; at once if it is. Asked twice, it is taken over once."""
        if entry.dropped:
            return Owned.DROPPED
        if entry.owned:
            return Owned.OURS
        asked = self._asked.get(entry)
        if asked is None:
            asked = self._asked[entry] = asyncio.get_running_loop().create_future()
            takeover = TakeOver(
                job=entry.job_id,
                worker=self._worker,
                generation=entry.generation,
                epoch=entry.epoch,
            )
            self._queue(_Waiting(entry, takeover, asked))
        return await asyncio.shield(asked)

    def claimed(self, entry: Entry) -> Epoch | None:
        """Return the epoch that a job was claimed under while it is still being taken over."""
        return self._claimed.get(entry)

    async def stop(self) -> None:
        """Give up: jobs that were not taken over stay as they are."""
        tasks = [*self._passes.values(), *self._retries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(Owned.DROPPED)
        self._asked.clear()

    def _queue(self, each: _Waiting) -> None:
        source = Partition(each.entry.reply_topic, each.entry.reply_partition)
        self._waiting[source].append(each)
        if source not in self._passes:
            self._passes[source] = asyncio.create_task(self._run(source))

    async def _run(self, source: Partition) -> None:
        """Make passes over one reply partition as long as jobs wait for it."""
        try:
            while waiting := self._waiting[source]:
                batch = waiting[:CLAIMS_AT_ONCE]
                del waiting[:CLAIMS_AT_ONCE]
                try:
                    await self._pass(source, batch)
                except Exception:
                    # Ours, and unexpected: the jobs must not wait for an answer that never comes.
                    log.exception("take_over_failed", topic=source.topic, jobs=len(batch))
                    for each in batch:
                        each.takeover.append_failed()
                        self._again(each)
        finally:
            del self._waiting[source]
            del self._passes[source]

    async def _pass(self, source: Partition, batch: Sequence[_Waiting]) -> None:
        batch = [each for each in batch if not self._let_go(each)]
        if not batch:
            return
        begun = time.monotonic()
        claims = [
            (
                each.entry.job_id.encode(),
                encode_reply(each.takeover.claim(alone=each.entry.alone)),
            )
            for each in batch
        ]
        self._claimed |= {each.entry: each.takeover.epoch for each in batch}
        try:
            offsets = await self._writer.append_all(source.topic, source.partition, claims)
        except AppendError as error:
            self._metrics.append_failures.inc()
            log.warning("claims_failed", topic=source.topic, claims=len(batch), error=str(error))
            for each in batch:
                if error.hopeless:
                    each.entry.dead_letter = "reply_unwritable"
                    each.entry.error = JobError(ErrorCode.INTERNAL, f"reply topic: {error}")
                    self._settle(each, Owned.ANSWERED)
                else:
                    each.takeover.append_failed()
                    self._again(each)
            return
        for each, offset in zip(batch, offsets, strict=True):
            each.claimed_at, each.prefix_lost = offset, False
        self._metrics.claims.inc(len(batch))
        try:
            await self._read_back(source, batch)
        except ReadError as error:
            log.warning("read_back_failed", topic=source.topic, error=str(error))
            for each in batch:
                each.takeover.append_failed()  # what was read in part is worth nothing
                self._again(each)
            return
        self._metrics.takeover_seconds.observe(time.monotonic() - begun)
        for each in batch:
            self._judge(each)

    async def _read_back(self, source: Partition, batch: Sequence[_Waiting]) -> None:
        """Fold the log for every job of the batch, from its own start up to its own claim."""
        oldest_ms = min(each.entry.record.timestamp_ms for each in batch)
        log_start = await self._reader.start_of(source)
        # No answer is older than its job: what a tenant says can only shorten the way.
        floor = await self._reader.offset_at(source, int(oldest_ms - self._clock_slack_ms))
        for each in batch:
            told = each.entry.job.reply_from if each.entry.job is not None else None
            if told is None or told > each.claimed_at:
                told = floor
            each.start = max(told, floor)
            if told < log_start and floor <= log_start:
                each.prefix_lost, each.start = True, log_start
        by_key: dict[bytes, list[_Waiting]] = defaultdict(list)
        for each in batch:
            by_key[each.entry.job_id.encode()].append(each)
        count = 0

        def take(record: LogRecord) -> None:
            nonlocal count
            count += 1
            for each in by_key.get(record.key or b"", ()):
                if each.start <= record.offset <= each.claimed_at:
                    _fold(each, record.value)

        first = min(each.start for each in batch)
        await self._reader.read(source, first, max(each.claimed_at for each in batch), take)
        self._metrics.records_read_back.inc(count)

    def _judge(self, each: _Waiting) -> None:
        if self._let_go(each):
            return
        entry, takeover = each.entry, each.takeover
        history = takeover.history
        verdict = takeover.verdict(prefix_lost=each.prefix_lost)
        if verdict is Verdict.CONTESTED:
            retry = asyncio.create_task(self._prove_and_again(each))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)
            return
        if verdict is Verdict.OURS:
            if each.prefix_lost:
                log.warning("prefix_lost", job=entry.job_id, tenant=entry.tenant)
                takeover.prefix_unknown()
                history = takeover.history
            entry.resume_ids = tuple(history.stream.token_ids)
            entry.strikes = history.strikes
            entry.strikes_alone = history.strikes_alone
            entry.stream.begin(takeover.epoch, len(entry.resume_ids), claimed=not each.prefix_lost)
            entry.owned = True
        self._settle(each, Owned.OURS if verdict is Verdict.OURS else Owned.ANSWERED)

    async def _prove_and_again(self, each: _Waiting) -> None:
        """Claim above whoever stands above us, but only if the partition is ours."""
        state = self._state_of(each.entry)
        base = 0 if state is None else max(state.base, each.takeover.base_above())
        if state is not None and await self._prove(state, base):
            each.takeover.proved(base)
            log.warning("epoch_raised", job=each.entry.job_id, epoch=each.takeover.epoch)
        # Refused: a rebalance is on its way and will drop the job. No answer: ask again.
        else:
            each.takeover.append_failed()
        self._again(each)

    def _again(self, each: _Waiting) -> None:
        """Claim anew after a while."""
        delay, each.delay = each.delay, min(2 * each.delay, LAST_DELAY_SECONDS)

        async def later() -> None:
            await asyncio.sleep(delay)
            if not self._let_go(each):
                self._queue(each)

        task = asyncio.create_task(later())
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    def _let_go(self, each: _Waiting) -> bool:
        """Whether a job was dropped meanwhile; then whoever asked is told."""
        if not each.entry.dropped:
            return False
        self._settle(each, Owned.DROPPED)
        return True

    def _settle(self, each: _Waiting, owned: Owned) -> None:
        self._asked.pop(each.entry, None)
        self._claimed.pop(each.entry, None)
        if not each.done.done():
            each.done.set_result(owned)


def _fold(each: _Waiting, value: bytes | None) -> None:
    """Let a job's take-over see one record; what is no reply counts for no reader either."""
    try:
        reply = None if value is None else decode_reply(value)
    except DecodeError:
        return
    if reply is not None and reply.job == each.entry.job_id:
        each.takeover.read(reply)
