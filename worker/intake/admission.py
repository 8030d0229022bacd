"""From a record to a job: what it asks for, whether it was asked before, what it cancels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import (
    Cancel,
    Conflict,
    Epoch,
    ErrorCode,
    Job,
    JobError,
    encode_conflict,
    encode_redirect,
    hash_of_record,
    reply_topic,
)
from aril.worker.intake.deadlines import deadline_of
from aril.worker.intake.judge import Judge, Refused
from aril.worker.job import Asked, Entry, digest_of
from aril.worker.queue.assignment import Identity
from aril.worker.replies.notices import Notice
from aril.worker.takeover.rule import next_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.intake.tenant_keys import TenantKeys
    from aril.worker.job import Record
    from aril.worker.observe.metrics import Metrics
    from aril.worker.queue.assignment import PartitionState
    from aril.worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Admitted:
    """A job that is new here. It is refused already where its entry has an error."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A job of ours that its tenant wants to end. The cancel's offset is finished with it."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that nobody can be told of: it goes to the dead letters."""

    reason: str
    error: JobError


@dataclass(frozen=True, slots=True)
class SentAgain:
    """A job that was sent before, by somebody who began to read behind where its answer begins."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Conflicting:
    """Another job under an id that is known: its sender is told that it is not answered."""

    notice: Notice
    error: JobError


# None: a record that asks for nothing more; its offset is seen to.
Outcome = Admitted | Cancelled | Conflicting | SentAgain | Unusable | None


class _Known(NamedTuple):
    """A record under an identity that is known here."""

    record: Record
    tenant: str
    job_id: str
    topic: str
    first: Asked
    again: Asked

    def notice(self, value: bytes) -> Notice:
        """Return a notice to its sender."""
        return Notice(self.job_id, self.topic, self.again.reply_partition, value)


class Admission:
    """Reads records of one worker's partitions, in order."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        metrics: Metrics,
        keys: TenantKeys | None = None,
        why_refused: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Prepare; `why_refused` tells what is wrong with a tenant's topic, if that is known."""
        self._why_refused = why_refused
        self._settings = settings
        self._metrics = metrics
        self._judge = Judge(settings, keys)
        self._keys = itertools.count(1)

    def next_key(self) -> int:
        """Return a name for a job in the engine that it never had."""
        return next(self._keys)

    def read(self, state: PartitionState, record: Record) -> Outcome:
        """Take a record in; return what is to be done about it."""
        verdict = self._judge.verdict(record)
        if isinstance(verdict, Cancel):
            return self._cancel(state, record, verdict)
        if isinstance(verdict, Job):
            return self._admit(state, record, verdict.tenant, verdict.id, verdict)
        if verdict.tenant is None or verdict.job_id is None:
            return Unusable(verdict.reason or "unreadable", verdict.error)
        return self._admit(state, record, verdict.tenant, verdict.job_id, verdict)

    def _admit(
        self, state: PartitionState, record: Record, tenant: str, job_id: str, asked: Job | Refused
    ) -> Outcome:
        read = asked if isinstance(asked, Job) else asked.job
        digest = digest_of(record.value, read)
        again = Asked(digest, None if read is None else read.reply_from, asked.reply_partition)
        topic = reply_topic(self._settings.replies_prefix, tenant)
        identity, first = state.identify(tenant, job_id, digest)
        if first is not None and identity is Identity.CONFLICT:
            known = _Known(record, tenant, job_id, topic, first, again)
            return self._conflict(known, "id: another job of this tenant has it")
        epoch = Epoch(state.epoch_generation, 1)
        if first is not None and identity is Identity.UNANSWERED:
            epoch = _above(first, epoch)
        elif first is not None:
            return self._repeated(state, _Known(record, tenant, job_id, topic, first, again))
        job = asked if isinstance(asked, Job) else None
        entry = Entry(
            key=self.next_key(),
            record=record.lean(),
            tenant=tenant,
            job_id=job_id,
            job=job,
            digest=digest,
            length=len(record.value or b""),
            generation=state.membership.generation,
            epoch=epoch,
            owned=(fresh := state.is_fresh(record.offset)),  # nobody can have answered it before
            touched=not fresh,
            begun_before=not fresh and state.was_under_way(record.offset),
            deadline_ms=deadline_of(record, job, self._settings.max_job_age * 1_000),
            reply_topic=topic,
            wanted_partition=again.reply_partition,
            reply_from=again.reply_from,
        )
        if isinstance(asked, Refused):
            entry.error, entry.dead_letter = asked.error, asked.reason
        else:
            entry.error = self._topic_refused(topic) or self._topic_refused(record.source.topic)
        state.add(entry)
        return Admitted(entry)

    def _topic_refused(self, topic: str) -> JobError | None:
        why = self._why_refused(topic)
        return None if why is None else JobError(ErrorCode.INTERNAL, f"{topic}: {why}")

    def _repeated(self, state: PartitionState, known: _Known) -> Outcome:
        """Answer nobody twice: the first record with an identity has it."""
        first, again = known.first, known.again
        if again.reply_partition != first.reply_partition:
            text = "reply_partition: the job was sent before with another one"
            return self._conflict(known, text)
        self._metrics.duplicates.inc()
        begins, reads = first.reply_from, again.reply_from
        if begins is not None and reads is not None and reads > begins:
            return SentAgain(known.notice(encode_redirect(known.job_id, begins)))
        entry = state.find(known.tenant, known.job_id)
        if entry is not None:
            entry.settled_with.append(known.record.offset)
        else:
            state.finish_offset(known.record.offset)
        return None

    def _conflict(self, known: _Known, message: str) -> Conflicting:
        self._metrics.duplicates.inc()
        first, again = known.first, known.again
        place = again.reply_from
        if (again.reply_partition, place) == (first.reply_partition, first.reply_from):
            place = None  # what is there is the first one's answer
        told = Conflict(hash_of_record(known.record.value or b""), place)
        notice = known.notice(encode_conflict(known.job_id, told))
        return Conflicting(notice, JobError(ErrorCode.INVALID_JOB, message))

    def _cancel(self, state: PartitionState, record: Record, cancel: Cancel) -> Outcome:
        entry = state.find(cancel.tenant, cancel.id)
        if entry is None:  # finished, or never seen: there is nothing to stop
            state.finish_offset(record.offset)
            return None
        entry.settled_with.append(record.offset)
        return Cancelled(entry)


def _above(first: Asked, epoch: Epoch) -> Epoch:
    """Return an epoch above all that was written of a job to which no end could be.

    Under it the new answer begins at index 0, which withdraws what may be visible of the old one.
    """
    return epoch if first.unanswered is None else max(epoch, next_attempt(first.unanswered))
