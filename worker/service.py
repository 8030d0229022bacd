"""The service: from records to settled offsets. Wires intake, dispatcher, answers and ledger.

Here stand the rules that need more than one of them: what a second record with a known identity
means, what a cancel does to a job at each stage, when a job's time is up, how a job whose append
failed goes on, and which jobs go on across a rebalance.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import TYPE_CHECKING

from schemas import Cancel, Epoch, ErrorCode, Job, JobError, reply_topic
from worker.intake import Intake, Refused
from worker.jobs import Entry, Stage, digest_of
from worker.kept import KeptJobs
from worker.logs import get_logger
from worker.partitions import Identity
from worker.replies import ReplyStream
from worker.takeover import next_attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.answers import Answers
    from worker.dispatch import Dispatcher
    from worker.engine.request import Output
    from worker.jobs import Partition, Record
    from worker.metrics import Metrics
    from worker.partitions import PartitionState
    from worker.routes import ReplyRoutes
    from worker.settings import WorkerSettings

log = get_logger(__name__)

RETRY_SECONDS = 1.0
# Entries of jobs that ended stay in the deadline heap until it is this much larger than needed.
STALE_DEADLINES = 1_024


class Service:
    """All jobs of one worker. Lives on the event loop."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        worker: str,
        routes: ReplyRoutes,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._routes = routes
        self._metrics = metrics
        self._intake = Intake(settings)
        self._states: dict[Partition, PartitionState] = {}
        self._kept = KeptJobs()
        self._keys = itertools.count(1)
        self._deadlines: list[tuple[float, int, Entry]] = []
        self._dispatcher: Dispatcher
        self._answers: Answers

    def bind(self, dispatcher: Dispatcher, answers: Answers) -> None:
        """Set the two that call back into this one."""
        self._dispatcher = dispatcher
        self._answers = answers

    # --- what the consumer calls

    def on_assigned(self, states: Iterable[PartitionState]) -> None:
        """Take note of partitions that were won; jobs of those that came back go on."""
        self._states = {state.source: state for state in states}
        for entry in self._kept.meet(self._states):
            self._drop(entry)
        self._metrics.partitions.set(len(self._states))

    def on_records(self, state: PartitionState, records: list[Record]) -> None:
        """Take records in."""
        for record in records:
            kept = self._kept.take(state.source, record.offset)
            if kept is None:
                self._take(state, record)
            else:
                self._go_on(state, kept)

    def on_revoked(self, states: Iterable[PartitionState]) -> None:
        """Stop these partitions' jobs, but for running ones: they may come back in a moment.

        What runs goes on writing under its epoch until the next assignment is known: should the
        partition be somebody else's by then, its claim is above that epoch.
        """
        states = list(states)
        for state in states:
            state.revoked = True
            self._states.pop(state.source, None)
        for entry in self._kept.part(states):
            self._drop(entry)
        self._deadlines = [each for each in self._deadlines if each[2].kept]
        heapq.heapify(self._deadlines)
        self._metrics.partitions.set(len(self._states))

    def release_all(self) -> None:
        """Stop every job on purpose: we are leaving."""
        for state in self._states.values():
            for entry in state.entries:
                self._drop(entry)
        for entry in self._kept:
            self._drop(entry)

    def state_of(self, entry: Entry) -> PartitionState | None:
        """Return the assignment that a job belongs to, if that is the present one."""
        return None if entry.dropped or entry.kept else self._states.get(entry.source)

    def on_lost_jobs(self, source: Partition, count: int) -> None:
        """Count jobs that retention deleted unanswered."""
        self._metrics.lost.inc(count)
        log.error("jobs_lost", topic=source.topic, partition=source.partition, count=count)

    def is_full(self, source: Partition) -> bool:
        """Tell whether reading a partition should rest for now."""
        return self._dispatcher.is_full(source)

    # --- what the engine calls

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """Pass on what steps brought; outputs of jobs that were withdrawn are dropped."""
        for output in outputs:
            entry = self._dispatcher.find(output.key)
            if entry is None:
                continue
            if output.ids:
                self._answers.tokens(entry, output)
            if output.error is not None:
                self._dispatcher.ended(entry)
                self._answers.fail(entry, output.error)
            elif output.finish is not None:
                self._dispatcher.ended(entry)
                if output.text and not output.ids:
                    entry.stream.add((), output.text)
                self._answers.done(entry, output.finish)

    # --- what the writing calls

    def settled(self, entry: Entry) -> None:
        """Mark a job's offset as finished: its terminal is acknowledged."""
        entry.settled = True
        state = self.state_of(entry)
        if state is not None:
            state.finish(entry)

    def broken(self, entry: Entry) -> None:
        """Go on with a job whose last append failed, or may have: claim it under the next attempt.

        What landed is learned by reading back, as if another worker had written it.
        """
        if entry.stage is Stage.RUNNING:
            self._dispatcher.withdraw(entry)
        self._metrics.interrupted.inc()
        self._give_up_stream(entry)
        log.warning(
            "job_interrupted",
            job=entry.job_id,
            tenant=entry.tenant,
            attempt=entry.epoch.attempt,
        )
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._begin_again, entry)

    def run_alone(self, entry: Entry) -> None:
        """Let a job wait until it can run with nothing beside it: its writers kept crashing."""
        self._answers.release(entry)
        self._give_up_stream(entry)
        entry.alone = True
        self._dispatcher.add(entry)

    def withdraw(self, entry: Entry) -> None:
        """Stop a job whose answer nobody can write."""
        self._dispatcher.withdraw(entry)

    # --- what the look-up of reply topics calls

    def routed(self, entry: Entry) -> None:
        """Send a job on its way, now that it is known where its answer goes."""
        if entry.error is None and entry.deadline_ms <= time.time() * 1_000:
            entry.error = self._too_late(entry)
        if entry.error is not None:
            self._answers.fail(entry, entry.error)
        else:
            self._dispatcher.add(entry)

    def unanswerable(self, entry: Entry) -> None:
        """Put a job aside whose tenant has no reply topic."""
        missing = JobError(ErrorCode.INVALID_JOB, f"tenant: there is no topic {entry.reply_topic}")
        self._answers.unanswerable(entry, "missing_reply_topic", missing)

    # --- time

    def tick(self) -> None:
        """End the jobs whose time is up."""
        now = time.time() * 1_000
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, entry = heapq.heappop(self._deadlines)
            if not entry.dropped and entry.stage is not Stage.ENDED:
                self._end(entry, self._too_late(entry))
        unfinished = sum(state.unfinished for state in self._states.values())
        self._metrics.unfinished_jobs.set(unfinished)
        if len(self._deadlines) > 2 * unfinished + STALE_DEADLINES:
            self._deadlines = [each for each in self._deadlines if each[2].stage is not Stage.ENDED]
            heapq.heapify(self._deadlines)

    # --- records

    def _take(self, state: PartitionState, record: Record) -> None:
        verdict = self._intake.judge(record.source.topic, record.value)
        if isinstance(verdict, Cancel):
            self._cancel(state, record, verdict)
        elif isinstance(verdict, Job):
            self._admit(state, record, verdict.tenant, verdict.id, verdict)
        elif verdict.tenant is None or verdict.job_id is None:
            self._put_aside(state, record, verdict.reason or "unreadable", verdict.error)
        else:
            self._admit(state, record, verdict.tenant, verdict.job_id, verdict)

    def _admit(
        self, state: PartitionState, record: Record, tenant: str, job_id: str, asked: Job | Refused
    ) -> None:
        digest = digest_of(record.value)
        identity, first = state.identify(tenant, job_id, digest)
        if identity is not Identity.NEW:
            self._repeated(state, record, identity, first)
            return
        job = asked if isinstance(asked, Job) else None
        entry = Entry(
            key=next(self._keys),
            record=record,
            tenant=tenant,
            job_id=job_id,
            job=job,
            digest=digest,
            generation=state.membership.generation,
            owned=record.offset >= state.end_offset,  # fresh: nobody can have answered it before
            deadline_ms=self._deadline_of(record, job),
            reply_topic=reply_topic(self._settings.replies_prefix, tenant),
            wanted_partition=asked.reply_partition,
            stream=ReplyStream(
                job=job_id, epoch=Epoch(state.epoch_generation, 1), worker=self._worker
            ),
        )
        if isinstance(asked, Refused):
            entry.error, entry.dead_letter = asked.error, asked.reason
        state.add(entry)
        heapq.heappush(self._deadlines, (entry.deadline_ms, entry.key, entry))
        self._routes.route(entry)

    def _repeated(
        self, state: PartitionState, record: Record, identity: Identity, first: Entry | None
    ) -> None:
        """Answer nobody twice: the first record with an identity has it."""
        self._metrics.duplicates.inc()
        if identity is Identity.CONFLICT:
            error = JobError(ErrorCode.INVALID_JOB, "id: another job of this tenant has it")
            self._put_aside(state, record, "duplicate_id", error)
        elif first is not None:
            first.settled_with.append(record.offset)
        else:
            state.finish_offset(record.offset)

    def _cancel(self, state: PartitionState, record: Record, cancel: Cancel) -> None:
        entry = state.find(cancel.tenant, cancel.id)
        if entry is None:  # finished, or never seen: there is nothing to stop
            state.finish_offset(record.offset)
            return
        entry.settled_with.append(record.offset)
        if entry.stage is not Stage.ENDED:
            self._end(entry, JobError(ErrorCode.CANCELLED, "cancelled by its tenant"))

    def _put_aside(
        self, state: PartitionState, record: Record, reason: str, error: JobError
    ) -> None:
        def settled() -> None:
            if not state.revoked:
                state.finish_offset(record.offset)

        self._answers.put_aside(record, reason, error, settled)

    def _end(self, entry: Entry, error: JobError) -> None:
        """End a job with an error, at whatever stage it is."""
        if entry.stage is Stage.ARRIVED:  # told as soon as it is known where
            entry.error = entry.error or error
            return
        self._dispatcher.withdraw(entry)
        self._answers.fail(entry, error)

    def _deadline_of(self, record: Record, job: Job | None) -> float:
        age_ms = self._settings.max_job_age * 1_000
        if job is not None and job.deadline_ms is not None:
            age_ms = min(age_ms, job.deadline_ms)
        return record.timestamp_ms + age_ms

    def _too_late(self, entry: Entry) -> JobError:
        limit = entry.deadline_ms - entry.record.timestamp_ms
        given = time.time() * 1_000 - entry.record.timestamp_ms
        return JobError(
            ErrorCode.DEADLINE_EXCEEDED,
            f"not answered within {limit:.0f} ms",
            limit=round(limit),
            given=round(given),
        )

    def _begin_again(self, entry: Entry) -> None:
        if not entry.dropped:
            self._routes.route(entry)

    def _give_up_stream(self, entry: Entry) -> None:
        """End what was written under the present epoch; the next one begins with a claim."""
        entry.key = next(self._keys)
        entry.owned = False
        entry.stream = ReplyStream(
            job=entry.job_id, epoch=next_attempt(entry.epoch), worker=self._worker
        )
        entry.resume_ids = ()
        entry.first_token_ms = 0.0
        entry.stage = Stage.ARRIVED

    def _go_on(self, state: PartitionState, entry: Entry) -> None:
        """Move a job that ran across a rebalance to the new assignment: its record is back."""
        entry.kept = False
        entry.generation = state.membership.generation
        entry.settled_with.clear()  # they are delivered again, too
        self._metrics.kept.inc()
        state.add(entry)
        if entry.settled:
            state.finish(entry)

    def _drop(self, entry: Entry) -> None:
        """Stop a job that is not ours any more; nothing more of it is written or committed."""
        entry.dropped = True
        entry.kept = False
        self._dispatcher.withdraw(entry)
        self._answers.release(entry)
