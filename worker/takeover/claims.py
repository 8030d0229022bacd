"""Taking jobs over: claims out, reply logs read back, in as few passes as there are partitions.

Jobs whose answers share a reply partition are claimed with one batch of appends and read back in
one pass; those that come meanwhile share the next. Fresh jobs never come here. What is decided is
the rule's, what is read for which job the read-ahead's; here stand the appends, the reads and the
waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from aril.schemas import ErrorCode, JobError, encode_reply
from aril.worker.job import UNWRITABLE
from aril.worker.observe.logs import get_logger
from aril.worker.observe.traces.identity import Owner
from aril.worker.replies.producer import APPEND_SECONDS, AppendError
from aril.worker.stages import Event
from aril.worker.takeover.read_ahead import Pending, ReadAhead
from aril.worker.takeover.readback import ReadError
from aril.worker.takeover.rule import Verdict, crash_loop, sentence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aril.schemas import ClaimRecord, Epoch
    from aril.worker.job import Entry, Partition, Record
    from aril.worker.observe.metrics import Metrics
    from aril.worker.replies.pending_bytes import PendingBytes
    from aril.worker.replies.producer import LogWriter
    from aril.worker.replies.reply_logs import ReplyLogs
    from aril.worker.takeover.parking import Parking
    from aril.worker.takeover.readback import LogReader, LogRecord

log = get_logger(__name__)

# One batch of claims: bounded, so that a long backlog does not wait for its last job's prefix.
CLAIMS_AT_ONCE = 256
# Claim duels end because each loser waits longer before it claims again.
FIRST_DELAY_SECONDS = 0.25
LAST_DELAY_SECONDS = 10.0
# A suspect's claim holds the engine: for so long at first, twice that each time it was in vain.
FIRST_PATIENCE_SECONDS = 1.0


class Claims:
    """All take-overs of a worker. Lives on the event loop."""

    def __init__(
        self,
        *,
        writer: LogWriter,
        reader: LogReader,
        worker: str,
        base_digest: str | None = None,
        clock_slack_ms: float,
        metrics: Metrics,
        logs: ReplyLogs,
        pending: PendingBytes,
        parking: Parking,
        prove: Callable[[Entry, int], Awaitable[int | None]],
        happened: Callable[[Entry, Event], None],
    ) -> None:
        """Prepare. `prove` shows that a job's partition is ours, with a base of at least so much.

        It returns the base that epochs have from then on, None where nothing was proved.
        """
        self._writer = writer
        self._reader = reader
        self._worker = worker
        self._base_digest = base_digest
        self._clock_slack_ms = clock_slack_ms
        self._metrics = metrics
        self._logs = logs
        self._pending = pending
        self._parking = parking
        self._prove = prove
        self._happened = happened
        self._ahead: dict[Partition, ReadAhead] = defaultdict(ReadAhead)
        self._waiting: dict[Partition, list[Pending]] = defaultdict(list)
        self._passes: dict[Partition, asyncio.Task[None]] = {}
        self._asked: dict[Entry, Record] = {}  # as it was counted: it may be read again meanwhile
        self._claimed: dict[Entry, Epoch] = {}  # of those: the claim that stands in the log, or may
        self._retries: set[asyncio.Task[None]] = set()

    def expect(self, entry: Entry) -> None:
        """Learn of a job that will be taken over when its turn comes."""
        self._ahead[entry.reply_log].add(Pending(entry, self._worker))

    def forget(self, entry: Entry) -> None:
        """Expect a job no longer."""
        source = entry.reply_log
        if (ahead := self._ahead.get(source)) is not None:
            ahead.take(entry)
            if not ahead and source not in self._passes:
                del self._ahead[source]

    def take_over(self, entry: Entry) -> None:
        """Make a job ours to write: OURS at once if it is, else what the log says of it.

        UNREACHABLE if the log says nothing. Asked twice, it is taken over once. Nothing is heard of
        a job that was dropped meanwhile.
        """
        if not self._parking.reachable(entry):
            self._happened(entry, Event.UNREACHABLE)
        elif entry.owned:
            self._happened(entry, Event.OURS)
        elif entry not in self._asked:
            self._asked[entry] = entry.record
            self._pending.add(entry.record)
            expected = self._ahead[entry.reply_log].take(entry)
            self._queue(expected or Pending(entry, self._worker))

    @property
    def ending(self) -> bool:
        """Whether a job is being taken over so that its end can be told."""
        return any(entry.ending for entry in self._asked)

    def in_vain(self, entry: Entry) -> Epoch | None:
        """Return the epoch of a claim that stands in the log, or may, while the job is not ours."""
        return self._claimed.get(entry)

    def withdraw(self, entry: Entry) -> Epoch | None:
        """Give a job up, or be done with it.

        Return the epoch of a claim that stands in the log, or may, in vain.
        """
        return self._claimed.pop(entry, None)

    async def stop(self) -> None:
        """Give up: jobs that were not taken over stay as they are."""
        tasks = [*self._passes.values(), *self._retries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _queue(self, each: Pending) -> None:
        source = each.entry.reply_log
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
                    # Not those that have been told: they are somewhere else by now.
                    self._read_anew(source, [each for each in batch if each.entry in self._asked])
        finally:
            del self._waiting[source]
            del self._passes[source]
            if not self._ahead[source]:
                del self._ahead[source]

    async def _pass(self, source: Partition, batch: Sequence[Pending]) -> None:
        batch = [each for each in batch if not self._let_go(each)]
        if not batch:
            return
        begun = time.monotonic()
        claims = [
            (
                each.entry.job_id.encode(),
                each.entry.record.in_its_form(encode_reply(self._claim(each))),
            )
            for each in batch
        ]
        self._claimed |= {each.entry: each.takeover.epoch for each in batch}
        try:
            offsets = await self._writer.append_all(
                source.topic, source.partition, claims, seconds=_patience(batch)
            )
        except AppendError as error:
            self._metrics.append_failures.inc()
            log.warning("claims_failed", topic=source.topic, claims=len(batch), error=str(error))
            if not error.hopeless:
                self._give_way(source, batch)
                return
            for each in batch:
                each.entry.epoch = each.takeover.epoch  # what comes again has to be above it
                each.entry.dead_letter = UNWRITABLE
                each.entry.error = JobError(ErrorCode.INTERNAL, f"reply topic: {error}")
                if not self._let_go(each):
                    self._end_request(each.entry)  # some of the claims may have landed
                    self._happened(each.entry, Event.UNWRITABLE)
            return
        for each, offset in zip(batch, offsets, strict=True):
            each.claimed_at = offset
        self._metrics.claims.inc(len(batch))
        try:
            await self._read_back(source, batch)
        except ReadError as error:
            log.warning("read_back_failed", topic=source.topic, error=str(error))
            self._ahead[source].failed()
            self._give_way(source, batch)
            return
        self._logs.worked(source)
        self._metrics.takeover_seconds.observe(time.monotonic() - begun)
        for each in batch:
            self._judge(each)

    async def _read_back(self, source: Partition, batch: Sequence[Pending]) -> None:
        """Fold the log for every job of the batch up to its own claim, and for those that wait."""
        ahead = self._ahead[source]
        last = max(each.claimed_at for each in batch)
        if unread := ahead.unread(batch):
            oldest_ms = min(each.entry.record.timestamp_ms for each in unread)
            log_start = await self._reader.start_of(source)
            floor = await self._reader.offset_at(source, int(oldest_ms - self._clock_slack_ms))
            for each in unread:
                each.begin(floor=floor, log_start=log_start, last=last)
        fold = ahead.folding(batch)
        count = 0

        def take(record: LogRecord) -> None:
            nonlocal count
            count += 1
            fold(record)

        await self._reader.read(source, ahead.first(batch), last, take)
        ahead.passed(last)
        self._metrics.records_read_back.inc(count)

    def _give_way(self, source: Partition, batch: Sequence[Pending]) -> None:
        """Let all that asked for this log wait until it answers; the claims may land meanwhile."""
        self._logs.failed(source, time.monotonic())
        for each in batch:
            each.takeover.append_failed()
            each.entry.epoch = each.takeover.epoch
            each.entry.kept_waiting += each.entry.alone
        waiting, self._waiting[source] = self._waiting[source], []
        for each in (*batch, *waiting):
            if not self._let_go(each):
                self._end_request(each.entry)
                self._happened(each.entry, Event.UNREACHABLE)

    def _read_anew(self, source: Partition, batch: Sequence[Pending]) -> None:
        """Claim again after a pass that broke off, and read every job's log from its start."""
        self._ahead[source].failed()
        for each in batch:
            each.forget()
            each.takeover.append_failed()
            self._again(each)

    def _judge(self, each: Pending) -> None:
        if self._let_go(each):
            return
        entry, takeover = each.entry, each.takeover
        history = takeover.history
        verdict = takeover.verdict(prefix_lost=each.prefix_lost)
        entry.claimed_at = each.claimed_at
        if history.earlier is not None:
            epoch, writer = history.earlier
            entry.taken_from = Owner(writer, epoch.generation)
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
            entry.inherited = len(entry.resume_ids)
            self._compare_bases(entry, history.bases)
            entry.strikes = history.strikes
            entry.strikes_alone = history.strikes_alone
            entry.epoch, entry.claimed = takeover.epoch, not each.prefix_lost
            entry.owned = True
        self._tell(each, Event.ANSWERED if verdict is Verdict.ANSWERED else self._sentence(entry))

    def _claim(self, each: Pending) -> ClaimRecord:
        return replace(each.takeover.claim(alone=each.entry.alone), base_digest=self._base_digest)

    def _compare_bases(self, entry: Entry, bases: Sequence[str]) -> None:
        """Note whether what is visible came from a backbone with other weights than ours."""
        others = tuple(each for each in bases if each != self._base_digest)
        if self._base_digest is None or others == entry.earlier_bases:
            return
        entry.earlier_bases = others
        if not others:  # what they brought was withdrawn
            return
        self._metrics.takeovers_other_base.inc()
        log.warning(
            "taken_over_from_other_weights",
            job=entry.job_id,
            tenant=entry.tenant,
            theirs=others,
            ours=self._base_digest,
        )

    async def _prove_and_again(self, each: Pending) -> None:
        """Claim above whoever stands above us, but only if the partition is ours."""
        base = await self._prove(each.entry, each.takeover.base_above())
        if base is not None:
            each.takeover.proved(base)
            log.warning("epoch_raised", job=each.entry.job_id, epoch=each.takeover.epoch)
        # Refused: a rebalance is on its way and will drop the job. No answer: ask again.
        else:
            each.takeover.append_failed()
        self._again(each)

    def _again(self, each: Pending) -> None:
        """Claim anew after a while."""
        delay = min(FIRST_DELAY_SECONDS * 2**each.tries, LAST_DELAY_SECONDS)
        each.tries += 1

        async def later() -> None:
            await asyncio.sleep(delay)
            if not self._let_go(each):
                self._queue(each)

        task = asyncio.create_task(later())
        self._retries.add(task)
        task.add_done_callback(self._retries.discard)

    def _let_go(self, each: Pending) -> bool:
        """Whether a job was dropped meanwhile."""
        if not each.entry.dropped:
            return False
        self._forget_request(each.entry)
        return True

    def _sentence(self, entry: Entry) -> Event:
        event = sentence(entry.strikes, entry.strikes_alone, alone=entry.alone)
        if event is Event.CONVICTED and entry.error is None:
            entry.error = crash_loop(entry.strikes_alone)
        return event

    def _tell(self, each: Pending, event: Event) -> None:
        if not self._let_go(each):
            self._forget_request(each.entry)
            self._happened(each.entry, event)

    def _forget_request(self, entry: Entry) -> None:
        self._claimed.pop(entry, None)
        self._end_request(entry)

    def _end_request(self, entry: Entry) -> None:
        record = self._asked.pop(entry, None)
        if record is not None:
            self._pending.remove(record)


def _patience(batch: Sequence[Pending]) -> float:
    """Return for how many seconds claims may go without an answer."""
    alone = (each.entry.kept_waiting for each in batch if each.entry.alone)
    return min((APPEND_SECONDS, *(FIRST_PATIENCE_SECONDS * 2.0**tries for tries in alone)))
