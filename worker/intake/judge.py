"""What a record of the jobs topic turns out to be. Pure; judges, and does nothing.

Bad but attributable: the tenant gets an ``error``. Not attributable, or not readable: the original
bytes go to the dead letters with the reason. Which of the two, or both, is said by ``Refused``.

Where the owner of a record is known beforehand, by its topic or by its signature, what the record
says must agree, and only that owner is told. A signature that does not hold tells nothing about
anybody: such a record is not decoded at all, and the tenant that it names hears nothing of it. The
same goes for a topic whose name is no tenant's, as `jobs.shared` is under the pattern `jobs.*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.schemas import (
    Cancel,
    DecodeError,
    ErrorCode,
    Job,
    JobError,
    decode_request,
    is_tenant,
    limits,
)
from aril.schemas.signature import SignatureError

if TYPE_CHECKING:
    from aril.worker.intake.tenant_keys import TenantKeys
    from aril.worker.job import Record
    from aril.worker.settings import WorkerSettings


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
    job: Job | None = None  # what was asked, where that can be read


Verdict = Job | Cancel | Refused


class Judge:
    """Judges records under one worker's settings."""

    def __init__(self, settings: WorkerSettings, keys: TenantKeys | None = None) -> None:
        """Prepare; ``keys`` are needed where tenants sign."""
        if (settings.tenant_from == "signature") != (keys is not None):
            raise ValueError("keys of tenants go with tenant_from=signature, and with nothing else")
        self._settings = settings
        self._keys = keys
        self._prefix = settings.jobs_topic.removesuffix("*")

    def verdict(self, record: Record) -> Verdict:
        """Return the job, the cancel, or why it is neither."""
        owner = self._owner_of(record)
        if isinstance(owner, Refused):
            return owner
        try:
            request = decode_request(record.value if record.value is not None else b"")
        except DecodeError as error:
            return self._unreadable(error, owner)
        if owner is not None and request.tenant != owner:
            return self._mismatch(request, owner)
        if isinstance(request, Job) and (refused := self._over_limits(record, request)):
            tenant, job_id = request.tenant, request.id
            return Refused(refused, None, tenant, job_id, request.reply_partition, request)
        return request

    def _owner_of(self, record: Record) -> str | Refused | None:
        """Return whose record it is, where that does not hang on what it says.

        None: whoever its field names. Refused: nobody's, and what it says is not believed.
        """
        if self._keys is not None:
            try:
                return self._keys.signer_of(record)
            except SignatureError as fault:
                return Refused(fault.bare(), fault.fault.value, None, None, None)
        if self._settings.tenant_from == "field":
            return None
        tenant = record.source.topic.removeprefix(self._prefix)
        if is_tenant(tenant):
            return tenant
        error = JobError(ErrorCode.INVALID_JOB, "tenant: the topic's name ends in no tenant's")
        return Refused(error, "topic_without_tenant", None, None, None)

    def _mismatch(self, request: Job | Cancel, owner: str) -> Refused:
        """Refuse what names another tenant than its owner, who is told: it is the owner's mistake.

        Not of a cancel, though: an error would be the end of a job that may have that id.
        """
        whose = "topic" if self._keys is None else "signature"
        error = JobError(
            ErrorCode.INVALID_JOB, f"tenant: this {whose} is {owner}'s", given=request.tenant
        )
        told = isinstance(request, Job)
        return Refused(
            error, "tenant_mismatch", owner if told else None, request.id if told else None, None
        )

    def _unreadable(self, error: DecodeError, owner: str | None) -> Refused:
        tenant = owner or error.tenant
        # Not a broken cancel: it names a job that may be running, and an error would end that.
        attributable = error.kind == "job" and error.job is not None and error.tenant == tenant
        return Refused(
            error.bare(),
            error.reason,
            tenant if attributable else None,
            error.job if attributable else None,
            error.reply_partition,
        )

    def _over_limits(self, record: Record, job: Job) -> JobError | None:
        """Check what needs no tokenising; the rest is checked when the prompt is prepared."""
        settings, sampling = self._settings, job.sampling
        for what, given, limit in (
            ("key", len(record.key or b""), limits.MAX_KEY_BYTES),
            ("headers", record.headers_bytes, limits.MAX_HEADERS_BYTES),
        ):
            if given > limit:
                text = f"{what}: at most {limit} bytes, not {given}"
                return JobError(ErrorCode.LIMIT_EXCEEDED, text, limit=limit, given=given)
        asked = max(sampling.max_tokens or 1, sampling.min_tokens)
        if asked > settings.max_new_tokens:
            return JobError(
                ErrorCode.LIMIT_EXCEEDED,
                f"max_tokens: this service allows {settings.max_new_tokens}",
                limit=settings.max_new_tokens,
                given=asked,
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
