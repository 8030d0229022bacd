"""What a tenant may be told.

    Exception
    └── JobError         the job cannot be served: code, message, the limit and the given value
        └── DecodeError  the record itself is unusable: + a reason slug and whose record it was

Everything else that can go wrong is a fault of ours and reaches a tenant only as `internal`.
"""

from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """The closed set of codes that an `error` record of version 1 may carry."""

    INVALID_JOB = "invalid_job"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_ADAPTER = "unknown_adapter"
    ADAPTER_INVALID = "adapter_invalid"
    PROMPT_TOO_LONG = "prompt_too_long"
    LIMIT_EXCEEDED = "limit_exceeded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    OVERLOADED = "overloaded"
    CRASH_LOOP = "crash_loop"
    INTERNAL = "internal"

    @property
    def retryable(self) -> bool:
        """Whether the same job, sent again under a new id, may succeed with nothing changed."""
        return self in _RETRYABLE


_RETRYABLE: Final = frozenset(
    {ErrorCode.DEADLINE_EXCEEDED, ErrorCode.OVERLOADED, ErrorCode.INTERNAL}
)


class JobError(Exception):
    """A job that cannot be served, in words fit for its tenant.

    The message names the field and the limit and never holds prompt text. `limit` is the bound
    that was passed and `given` the value that passed it, each None where there is no such thing.
    `retry_after_ms` is when a job that came too early may come again, if that is known.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        limit: float | None = None,
        given: float | str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.limit = limit
        self.given = given
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class DecodeError(JobError):
    """Bytes that are not a record of this contract.

    `reason` is a short slug for headers and metrics. `kind`, `tenant`, `job` and `reply_partition`
    are set where they could be read and are valid: a `job` of a known tenant is answered with an
    error record, everything else can only be put aside.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        reason: str,
        limit: float | None = None,
        given: float | str | None = None,
        kind: str | None = None,
        tenant: str | None = None,
        job: str | None = None,
        reply_partition: int | None = None,
    ) -> None:
        super().__init__(code, message, limit=limit, given=given)
        self.reason = reason
        self.kind = kind
        self.tenant = tenant
        self.job = job
        self.reply_partition = reply_partition
