"""From a record to a job: what it asks for, whether it was asked before, what it cancels."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol

from schemas import Cancel, Epoch, ErrorCode, Job, JobError, reply_topic
from worker.intake.deadlines import deadline_of
from worker.intake.judge import Intake, Refused
from worker.job import Entry, Stage, digest_of
from worker.queue.assignment import Identity
from worker.replies.stream import ReplyStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.intake.tenant_keys import TenantKeys
    from worker.job import Record
    from worker.observe.metrics import Metrics
    from worker.queue.assignment import PartitionState
    from worker.settings import WorkerSettings


class Admitting(Protocol):
    """Who works on what is admitted."""

    def admitted(self, entry: Entry) -> None:
        """Begin with a job that is new."""

    def end(self, entry: Entry, error: JobError) -> None:
        """End a job with an error, at whatever stage it is."""

    def put_aside(
        self, record: Record, reason: str, error: JobError, settled: Callable[[], None]
    ) -> None:
        """Put a record aside that nobody is told of, then call ``settled``."""


class Admission:
    """Reads records of one worker's partitions, in order."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        worker: str,
        metrics: Metrics,
        jobs: Admitting,
        keys: TenantKeys | None = None,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._metrics = metrics
        self._jobs = jobs
        self._intake = Intake(settings, keys)
        self._keys = itertools.count(1)

    def next_key(self) -> int:
        """Return a name for a job in the engine that it never had."""
        return next(self._keys)

    def take(self, state: PartitionState, record: Record) -> None:
        """Take a record in."""
        verdict = self._intake.judge(record)
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
            key=self.next_key(),
            record=record,
            tenant=tenant,
            job_id=job_id,
            job=job,
            digest=digest,
            generation=state.membership.generation,
            owned=record.offset >= state.end_offset,  # fresh: nobody can have answered it before
            deadline_ms=deadline_of(record, job, self._settings.max_job_age * 1_000),
            reply_topic=reply_topic(self._settings.replies_prefix, tenant),
            wanted_partition=asked.reply_partition,
            stream=ReplyStream(
                job=job_id, epoch=Epoch(state.epoch_generation, 1), worker=self._worker
            ),
        )
        if isinstance(asked, Refused):
            entry.error, entry.dead_letter = asked.error, asked.reason
        state.add(entry)
        self._jobs.admitted(entry)

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
            self._jobs.end(entry, JobError(ErrorCode.CANCELLED, "cancelled by its tenant"))

    def _put_aside(
        self, state: PartitionState, record: Record, reason: str, error: JobError
    ) -> None:
        def settled() -> None:
            if not state.revoked:
                state.finish_offset(record.offset)

        self._jobs.put_aside(record, reason, error, settled)
