"""Answers: what the engine brings, on its way into the reply topics.

Streams are written for jobs that are ours only: a record at index 0 under another epoch would
withdraw what another owner has made visible. An append that fails, or whose fate is unknown, breaks
the answer off: nothing more is written under its epoch.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aril.schemas import (
    DoneRecord,
    ErrorCode,
    ErrorRecord,
    JobError,
    MixedAdapter,
    ReleaseRecord,
    Timings,
    TokenLogprobs,
    Usage,
    encode_reply,
)
from aril.worker.accounting import count_tokens
from aril.worker.job import UNWRITABLE
from aril.worker.observe.logs import Sampled, get_logger
from aril.worker.replies.producer import AppendError
from aril.worker.replies.stream import ReplyStream
from aril.worker.stages import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aril.schemas import Epoch
    from aril.worker.engine.request import Output
    from aril.worker.job import Entry, Partition, Record
    from aril.worker.observe.metrics import Metrics
    from aril.worker.replies.pending_bytes import PendingBytes
    from aril.worker.replies.producer import LogWriter
    from aril.worker.replies.reply_logs import ReplyLogs

log = get_logger(__name__)

RETRY_SECONDS = 1.0


class Answers:
    """Writes the streams of all jobs of a worker."""

    def __init__(
        self,
        *,
        writer: LogWriter,
        worker: str,
        dlq_topic: str,
        base: str,
        base_digest: str | None = None,
        metrics: Metrics,
        pending: PendingBytes,
        logs: ReplyLogs,
        happened: Callable[[Entry, Event], None],
    ) -> None:
        self._writer = writer
        self._worker = worker
        self._dlq_topic = dlq_topic
        self._base = base  # the backbone's name, told in every terminal
        self._base_digest = base_digest
        self._metrics = metrics
        self._pending = pending
        self._logs = logs
        self._happened = happened
        self._told = Sampled(log)
        self._streams: dict[Entry, ReplyStream] = {}
        self._writing: dict[Entry, asyncio.Task[None]] = {}
        self._aside: set[asyncio.Task[Any]] = set()
        self._soundings: dict[Partition, asyncio.Task[None]] = {}  # no work: nobody waits for them

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return not self._writing and not self._aside

    def tokens(self, entry: Entry, output: Output) -> None:
        """Pass on what a step brought."""
        count_tokens(entry, len(output.ids), time.time() * 1_000, self._metrics)
        logprobs = output.logprobs and [TokenLogprobs(*row) for row in output.logprobs]
        self._stream(entry).add(output.ids, output.text, logprobs)
        self._write(entry)

    def rest(self, entry: Entry, text: str) -> None:
        """Take text that came without a token; it is in the terminal."""
        self._stream(entry).add((), text)

    def done(self, entry: Entry) -> None:
        """End an answer that is complete."""
        self._stream(entry).close(lambda index, text: self._done_record(entry, index, text))
        self._write(entry)

    def fail(self, entry: Entry) -> None:
        """End an answer with the job's error, behind the tokens that it has."""
        self._stream(entry).close(lambda index, _: self._error_record(entry, index))
        self._write(entry)

    def break_off(self, entry: Entry) -> None:
        """Let go of what was to be written under the present epoch."""
        self._streams.pop(entry, None)

    def release(self, entry: Entry, claimed: Epoch | None) -> None:
        """Tell the next owner that we stop on purpose, where it could take us for crashed.

        `claimed` is the epoch of a claim that stands in the log while the job is taken over.
        """
        stream = self._streams.pop(entry, None)
        begun = entry.claimed if stream is None else stream.in_log and not stream.ended
        epoch = entry.epoch if entry.owned and begun else claimed
        if epoch is None:
            return
        entry.owned = False
        self._metrics.released.inc()
        record = ReleaseRecord(job=entry.job_id, epoch=epoch, worker=self._worker)
        self._start_aside(
            self._append_release(entry, entry.record.in_its_form(encode_reply(record)))
        )

    def sound(self, entry: Entry, claimed: Epoch | None) -> None:
        """Find out whether a job's reply log answers, by a record that changes nothing there.

        That is a release: of the claim that may stand there in vain, else of none.
        """
        source = entry.reply_log
        if source in self._soundings:
            return
        epoch = entry.epoch if claimed is None else claimed
        record = ReleaseRecord(job=entry.job_id, epoch=epoch, worker=self._worker)

        async def sound() -> None:
            error = await self._append_release(
                entry, entry.record.in_its_form(encode_reply(record))
            )
            if error is None or error.hopeless:
                self._logs.worked(source)
            else:
                self._logs.failed(source, time.monotonic())

        task = self._soundings[source] = asyncio.create_task(sound())
        task.add_done_callback(lambda _: self._soundings.pop(source))

    def put_aside(
        self,
        record: Record,
        reason: str,
        error: JobError,
        *,
        done: Callable[[], None],
        dropped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Append a record to the dead letters until that is acknowledged, then call `done`.

        Not if the work was dropped meanwhile.
        """

        async def aside() -> None:
            with self._pending.held(record):
                if await self._put_aside(record, reason, error, dropped) and not dropped():
                    done()

        self._start_aside(aside())

    async def farewell(self, seconds: float) -> None:
        """Wait until the releases are written, but not for long: they are a courtesy."""
        if self._aside:
            await asyncio.wait(self._aside, timeout=seconds)

    async def stop(self) -> None:
        """Give up what is being written: nothing of it was settled."""
        tasks = [*self._writing.values(), *self._aside, *self._soundings.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stream(self, entry: Entry) -> ReplyStream:
        """Return the job's stream under its epoch; it goes on behind what is visible already."""
        stream = self._streams.get(entry)
        if stream is None:
            stream = ReplyStream(
                job=entry.job_id,
                epoch=entry.epoch,
                worker=self._worker,
                base_digest=self._base_digest,
                form=entry.record.in_its_form,
            )
            stream.begin(entry.epoch, len(entry.resume_ids), claimed=entry.claimed)
            self._streams[entry] = stream
        return stream

    def _start_aside(self, work: Coroutine[None, None, Any]) -> None:
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _append_release(self, entry: Entry, record: bytes) -> AppendError | None:
        key = entry.job_id.encode()
        try:
            await self._writer.append(entry.reply_topic, entry.reply_partition, key, [record])
        except AppendError as error:
            log.warning("release_failed", job=entry.job_id, error=str(error))
            return error
        return None

    def _write(self, entry: Entry) -> None:
        """See that the stream is being written; a running writer takes what was added."""
        if entry not in self._writing:
            self._writing[entry] = asyncio.create_task(self._run(entry, self._streams[entry]))

    async def _run(self, entry: Entry, stream: ReplyStream) -> None:
        event: Event | None = None
        try:
            with self._pending.held(entry.record):
                event = await self._write_stream(entry, stream)
        finally:
            # In the same breath as the last look at the stream: nothing added is overlooked.
            self._writing.pop(entry, None)
        if event is not None:
            self._happened(entry, event)

    async def _write_stream(self, entry: Entry, stream: ReplyStream) -> Event | None:
        """Append what the stream has to say, until it says no more; return what came of it."""
        key = entry.job_id.encode()
        try:
            while not entry.dropped and (records := stream.take()):
                before = stream.written
                await self._writer.append(entry.reply_topic, entry.reply_partition, key, records)
                stream.written = stream.sent
                self._logs.worked(entry.reply_log)
                if stream.sent > before:
                    self._metrics.tokens_per_record.observe(stream.sent - before)
        except AppendError as error:
            self._metrics.append_failures.inc()
            if not error.hopeless:
                self._logs.failed(entry.reply_log, time.monotonic())
            if entry.dropped:
                return None
            if not error.hopeless:
                return Event.BROKEN
            return self._unwritable(entry, f"reply topic: {error}")
        except Exception:  # ours: no record could be made of what the stream has to say
            log.exception("reply_failed", job=entry.job_id, tenant=entry.tenant)
            return None if entry.dropped else self._unwritable(entry, "no record could be made")
        if not stream.ended or entry.dropped:
            return None
        self.break_off(entry)
        return Event.WRITTEN

    def _unwritable(self, entry: Entry, why: str) -> Event:
        self.break_off(entry)
        entry.dead_letter = UNWRITABLE
        entry.error = JobError(ErrorCode.INTERNAL, why)
        return Event.UNWRITABLE

    async def _put_aside(
        self, record: Record, reason: str, error: JobError, dropped: Callable[[], bool]
    ) -> bool:
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
                self._told.warning(
                    "record_put_aside",
                    reason=reason,
                    topic=record.source.topic,
                    partition=record.source.partition,
                    offset=record.offset,
                )
                return True
        return False

    def _error_record(self, entry: Entry, index: int) -> ErrorRecord:
        assert entry.error is not None, "a job that fails has an error"  # noqa: S101 - ours
        entry.told_tokens = index
        return ErrorRecord.of(
            entry.error,
            job=entry.job_id,
            epoch=entry.epoch,
            worker=self._worker,
            index=index,
            metadata=entry.job.metadata if entry.job else None,
        )

    def _done_record(self, entry: Entry, index: int, text: str) -> DoneRecord:
        job, finish = entry.job, entry.finish
        assert job is not None, "only a job can be complete"  # noqa: S101 - ours
        assert finish is not None, "a complete answer says why it ended"  # noqa: S101 - ours
        entry.told_tokens = index
        start, now = entry.record.timestamp_ms, time.time() * 1_000
        return DoneRecord(
            job=entry.job_id,
            epoch=entry.epoch,
            worker=self._worker,
            index=index,
            text=text,
            finish_reason=finish,
            usage=Usage(len(entry.prompt_ids), index),
            adapter=job.adapter and job.adapter.partition("@")[0],
            digest=entry.digests[0] if job.adapter and entry.digests else None,
            adapters=tuple(
                MixedAdapter(each.name.partition("@")[0], digest, each.weight)
                for each, digest in zip(job.adapters or (), entry.digests, strict=False)
            ),
            activation=entry.activation,
            base=self._base,
            base_digest=self._base_digest,
            earlier_bases=entry.earlier_bases,
            seed=entry.seed,
            timings=Timings(
                max(0.0, entry.submitted_ms - start),
                max(0.0, (entry.first_token_ms or now) - start),
                max(0.0, now - start),
            ),
            prompt_logprobs=entry.prompt_logprobs,
            metadata=job.metadata,
        )
