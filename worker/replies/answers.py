"""Answers: what the engine brings, on its way into the reply topics.

A job is settled when its terminal is acknowledged and, where its record is put aside, the dead
letter too; only then may its offset count as finished. An append that fails, or whose fate is
unknown, breaks the answer off: the job has to go on under a higher attempt.

Nothing is written for a job that is not ours yet, an error no more than a token: at index 0 it
would withdraw what another owner has made visible.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from schemas import (
    DoneRecord,
    ErrorCode,
    ErrorRecord,
    JobError,
    ReleaseRecord,
    Timings,
    TokenLogprobs,
    Usage,
    encode_reply,
)
from worker.job import Stage
from worker.observe.logs import get_logger
from worker.replies.producer import AppendError
from worker.takeover.claims import Owned

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from worker.engine.request import FinishReason, Output
    from worker.job import Entry, Record
    from worker.observe.metrics import Metrics
    from worker.replies.pending_bytes import Outgoing
    from worker.replies.producer import LogWriter
    from worker.takeover.claims import Claims

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class Jobs(Protocol):
    """Who is told what became of the writing."""

    def settled(self, entry: Entry) -> None:
        """Mark a job's offset as finished."""

    def broken(self, entry: Entry) -> None:
        """Go on with a job whose last append failed, or may have."""

    def withdraw(self, entry: Entry) -> None:
        """Stop a job whose answer nobody can write."""


class Answers:
    """Writes the streams of all jobs of a worker."""

    def __init__(
        self,
        *,
        writer: LogWriter,
        claims: Claims,
        dlq_topic: str,
        base: str,
        metrics: Metrics,
        jobs: Jobs,
        outgoing: Outgoing,
    ) -> None:
        self._writer = writer
        self._claims = claims
        self._dlq_topic = dlq_topic
        self._base = base  # the backbone's name, told in every terminal
        self._metrics = metrics
        self._jobs = jobs
        self._outgoing = outgoing
        self._tasks: dict[Entry, asyncio.Task[None]] = {}
        self._aside: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return not self._tasks and not self._aside

    def tokens(self, entry: Entry, output: Output) -> None:
        """Pass on what a step brought."""
        now = time.time() * 1_000
        if entry.first_token_ms:
            self._metrics.inter_token_seconds.observe(max(0.0, now - entry.last_token_ms) / 1_000)
        else:
            entry.first_token_ms = now
            waited = max(0.0, now - entry.record.timestamp_ms)
            self._metrics.ttft_seconds.observe(waited / 1_000)
        entry.last_token_ms = now
        self._metrics.tokens.inc(len(output.ids))
        logprobs = output.logprobs and [TokenLogprobs(*row) for row in output.logprobs]
        entry.stream.add(output.ids, output.text, logprobs)
        self._write(entry)

    def done(self, entry: Entry, finish: FinishReason) -> None:
        """End an answer that is complete."""
        self._end(entry, finish)
        entry.stream.close(lambda index, text: self._done_record(entry, finish, index, text))
        self._write(entry)

    def fail(self, entry: Entry, error: JobError) -> None:
        """End an answer with an error, behind the tokens that it has."""
        entry.error = error
        self._end(entry, error.code.value)
        entry.stream.close(
            lambda index, _: ErrorRecord.of(
                error,
                job=entry.job_id,
                epoch=entry.epoch,
                worker=entry.stream.worker,
                index=index,
                metadata=entry.job.metadata if entry.job else None,
            )
        )
        self._write(entry)

    def answered(self, entry: Entry) -> None:
        """Note that an earlier owner has ended the answer: only the offset is left to be done."""
        self._end(entry, "answered_before")
        self._start(entry, self._settle(entry))

    def release(self, entry: Entry) -> None:
        """Tell the next owner that we stop on purpose, where it could take us for crashed."""
        stream = entry.stream
        begun = entry.owned and stream.in_log and not stream.ended
        epoch = stream.epoch if begun else self._claims.claimed(entry)
        if epoch is None:
            return
        entry.owned = False
        self._metrics.released.inc()
        record = ReleaseRecord(job=entry.job_id, epoch=epoch, worker=stream.worker)
        self._start_aside(self._append_release(entry, encode_reply(record)))

    def unanswerable(self, entry: Entry, reason: str, error: JobError) -> None:
        """Put a job aside whose tenant cannot be told."""
        self._end(entry, error.code.value)
        entry.dead_letter, entry.error = reason, error
        self._start(entry, self._settle(entry))

    def put_aside(
        self, record: Record, reason: str, error: JobError, settled: Callable[[], None]
    ) -> None:
        """Put a record aside that nobody is told of, then call ``settled``."""

        async def aside() -> None:
            with self._outgoing.held(record):
                if await self._put_aside(record, reason, error, lambda: False):
                    settled()

        self._start_aside(aside())

    async def farewell(self, seconds: float) -> None:
        """Wait until the releases are written, but not for long: they are a courtesy."""
        if self._aside:
            await asyncio.wait(self._aside, timeout=seconds)

    async def stop(self) -> None:
        """Give up what is being written: nothing of it was settled."""
        tasks = [*self._tasks.values(), *self._aside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_aside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _append_release(self, entry: Entry, record: bytes) -> None:
        key = entry.job_id.encode()
        try:
            await self._writer.append(entry.reply_topic, entry.reply_partition, key, [record])
        except AppendError as error:
            log.warning("release_failed", job=entry.job_id, error=str(error))

    def _end(self, entry: Entry, end: str) -> None:
        entry.stage = Stage.ENDED
        entry.weights = None
        self._metrics.jobs.labels(end=end).inc()
        whole = max(0.0, time.time() * 1_000 - entry.record.timestamp_ms)
        self._metrics.job_seconds.observe(whole / 1_000)

    def _write(self, entry: Entry) -> None:
        """See that the stream is being written; a running writer takes what was added."""
        if entry not in self._tasks:
            self._start(entry, self._write_stream(entry))

    def _start(self, entry: Entry, work: Coroutine[None, None, None]) -> None:
        self._tasks[entry] = asyncio.create_task(self._run(entry, work))

    async def _run(self, entry: Entry, work: Coroutine[None, None, None]) -> None:
        try:
            with self._outgoing.held(entry.record):
                await work
        finally:
            # In the same breath as the last look at the stream: nothing added is overlooked.
            self._tasks.pop(entry, None)

    async def _write_stream(self, entry: Entry) -> None:
        stream = entry.stream
        key = entry.job_id.encode()
        try:
            if not entry.owned and not await self._own(entry):
                return
            while not entry.dropped and (records := stream.take()):
                before = stream.written
                await self._writer.append(entry.reply_topic, entry.reply_partition, key, records)
                stream.written = stream.sent
                if stream.sent > before:
                    self._metrics.tokens_per_record.observe(stream.sent - before)
        except AppendError as error:
            self._metrics.append_failures.inc()
            if entry.dropped:
                return
            if not error.hopeless:
                self._jobs.broken(entry)
                return
            self._jobs.withdraw(entry)
            entry.dead_letter = "reply_unwritable"
            entry.error = JobError(ErrorCode.INTERNAL, f"reply topic: {error}")
            await self._settle(entry)
        else:
            if stream.ended and not entry.dropped:
                await self._settle(entry)

    async def _own(self, entry: Entry) -> bool:
        """Take the job over, to end it; False if there is nothing to write."""
        owned = await self._claims.own(entry)
        if owned is Owned.ANSWERED:
            await self._settle(entry)
        return owned is Owned.OURS

    async def _settle(self, entry: Entry) -> None:
        if entry.dead_letter is not None:
            error = entry.error or JobError(ErrorCode.INTERNAL, "no answer could be written")
            if not await self._put_aside(
                entry.record, entry.dead_letter, error, lambda: entry.dropped
            ):
                return
        if not entry.dropped:
            self._jobs.settled(entry)

    async def _put_aside(
        self, record: Record, reason: str, error: JobError, dropped: Callable[[], bool]
    ) -> bool:
        """Append to the dead letters until it is acknowledged; False if the work was dropped."""
        while not dropped():
            try:
                await self._writer.put_aside(
                    self._dlq_topic, record, reason, error.code.value, error.message
                )
            except AppendError as failure:
                log.warning("dead_letter_failed", reason=reason, error=str(failure))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._metrics.dead_letters.labels(reason=reason).inc()
                log.warning(
                    "record_put_aside",
                    reason=reason,
                    topic=record.source.topic,
                    partition=record.source.partition,
                    offset=record.offset,
                )
                return True
        return False

    def _done_record(self, entry: Entry, finish: FinishReason, index: int, text: str) -> DoneRecord:
        job = entry.job
        assert job is not None, "only a job can be complete"  # noqa: S101 - ours
        start, now = entry.record.timestamp_ms, time.time() * 1_000
        return DoneRecord(
            job=entry.job_id,
            epoch=entry.epoch,
            worker=entry.stream.worker,
            index=index,
            text=text,
            finish_reason=finish,
            usage=Usage(len(entry.prompt_ids), index),
            adapter=job.adapter and job.adapter.partition("@")[0],
            digest=entry.adapter_digest,
            base=self._base,
            seed=entry.seed,
            timings=Timings(
                max(0.0, entry.submitted_ms - start),
                max(0.0, (entry.first_token_ms or now) - start),
                max(0.0, now - start),
            ),
            metadata=job.metadata,
        )
