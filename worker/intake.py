"""Intake: what a record of the jobs topic turns out to be. Pure; judges, and does nothing.

Bad but attributable: the tenant gets an ``error``. Not attributable, or not readable: the original
bytes go to the dead letters with the reason. Which of the two, or both, is said by ``Refused``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas import Cancel, DecodeError, ErrorCode, Job, JobError, decode_request, is_tenant

if TYPE_CHECKING:
    from worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is not served.

    ``tenant`` and ``job_id`` are set when somebody can be told. ``reason`` is set when the bytes
    go to the dead letters: a slug for their headers.
    """

    error: JobError
    reason: str | None
    tenant: str | None
    job_id: str | None
    reply_partition: int | None


Verdict = Job | Cancel | Refused


class Intake:
    """Judges records under one worker's settings."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._prefix = settings.jobs_topic.removesuffix("*")

    def judge(self, topic: str, value: bytes | None) -> Verdict:
        """Return the job, the cancel, or why it is neither."""
        owner = self._owner_of(topic)
        try:
            request = decode_request(value if value is not None else b"")
        except DecodeError as error:
            return self._unreadable(error, owner)
        if owner is not None and request.tenant != owner:
            refusal = JobError(
                ErrorCode.INVALID_JOB, f"tenant: this topic is {owner}'s", given=request.tenant
            )
            return Refused(refusal, "tenant_mismatch", owner, request.id, None)
        if isinstance(request, Job) and (refused := self._over_limits(request)):
            return Refused(refused, None, request.tenant, request.id, request.reply_partition)
        return request

    def _owner_of(self, topic: str) -> str | None:
        """Return whose topic it is, where every tenant has its own."""
        if self._settings.tenant_from == "field":
            return None
        tenant = topic.removeprefix(self._prefix)
        return tenant if is_tenant(tenant) else None

    def _unreadable(self, error: DecodeError, owner: str | None) -> Refused:
        tenant = owner or error.tenant
        # Not a broken cancel: it names a job that may be running, and an error would end that.
        attributable = error.kind == "job" and error.job is not None and error.tenant == tenant
        return Refused(
            error,
            error.reason,
            tenant if attributable else None,
            error.job if attributable else None,
            error.reply_partition,
        )

    def _over_limits(self, job: Job) -> JobError | None:
        """Check what needs no tokenising; the rest is checked when the prompt is prepared."""
        settings, sampling = self._settings, job.sampling
        if sampling.max_tokens > settings.max_new_tokens:
            return JobError(
                ErrorCode.LIMIT_EXCEEDED,
                f"max_tokens: this service allows {settings.max_new_tokens}",
                limit=settings.max_new_tokens,
                given=sampling.max_tokens,
            )
        if job.token_ids is not None and len(job.token_ids) > settings.max_prompt_tokens:
            return prompt_too_long(len(job.token_ids), settings.max_prompt_tokens)
        return None


def prompt_too_long(given: int, limit: int) -> JobError:
    """Make the error for a prompt over the limit, both in tokens."""
    return JobError(
        ErrorCode.PROMPT_TOO_LONG,
        f"prompt: {given} tokens, this service allows {limit}",
        limit=limit,
        given=given,
    )


def topic_pattern(jobs_topic: str, dlq_topic: str) -> re.Pattern[str] | None:
    """Return the subscription pattern when every tenant has a jobs topic, else None.

    The dead letters often live under the same prefix; the worker must not read them as jobs.
    """
    if not jobs_topic.endswith("*"):
        return None
    prefix = re.escape(jobs_topic.removesuffix("*"))
    return re.compile(f"^(?!{re.escape(dlq_topic)}$){prefix}[a-z0-9][a-z0-9-]{{0,62}}$")
