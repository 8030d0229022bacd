"""What a tenant may be told.

    Exception
    └── JobError         the job cannot be served: code, message, the limit and the given value
        └── DecodeError  the record itself is unusable: + a reason slug and whose record it was

Everything else that can go wrong is a fault of ours and reaches a tenant only as `internal`.
"""

from enum import StrEnum
from typing import Final, Self


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

    @property
    def meaning(self) -> str:
        """What has happened, in one sentence or two."""
        return _WORDS[self][0]

    @property
    def advice(self) -> str:
        """What the tenant should do about it."""
        return _WORDS[self][1]


_WORDS: Final[dict[ErrorCode, tuple[str, str]]] = {
    ErrorCode.INVALID_JOB: (
        (
            "The record is no job of this contract, or asks for what this service or its model"
            " cannot do. The message names the field."
        ),
        "Correct what is named; as it is, it fails each time.",
    ),
    ErrorCode.UNSUPPORTED_VERSION: (
        "The record's `v` is none that this service reads.",
        "Send the version that the message names.",
    ),
    ErrorCode.UNKNOWN_ADAPTER: (
        "There is no adapter of that name, or of that content, for this tenant.",
        "Check the name; put the adapter into the store, then send the job again.",
    ),
    ErrorCode.ADAPTER_INVALID: (
        "The adapter is there and cannot be served beside this backbone; the message says why.",
        "Mend its folder, wait half a minute (a refusal is remembered as long), send again.",
    ),
    ErrorCode.PROMPT_TOO_LONG: (
        "The prompt is longer than the contract, the model or the operator allows.",
        "Shorten it: `limit` is the most, `given` what came.",
    ),
    ErrorCode.LIMIT_EXCEEDED: (
        "Something else is more than the contract or this service allows; the message names it.",
        "Ask for less: `limit` is the most, `given` what was asked for.",
    ),
    ErrorCode.DEADLINE_EXCEEDED: (
        (
            "Its answer was not complete within `deadline_ms`, or within the most that the operator"
            " lets jobs live."
        ),
        "Send it again if it is still wanted, with more time; what came of the answer is visible.",
    ),
    ErrorCode.CANCELLED: ("Its tenant cancelled it.", "Nothing."),
    ErrorCode.OVERLOADED: (
        "The tenant is over one of its limits, or no memory was left for what the job needs.",
        "Send it again after `retry_after_ms`, or a while later where there is none.",
    ),
    ErrorCode.CRASH_LOOP: (
        "Several workers died while they ran nothing but this job.",
        "Do not send it again; tell the operator its id.",
    ),
    ErrorCode.INTERNAL: (
        "A fault of the service, or of this tenant's topics.",
        "Send it again; if it fails again, tell the operator its id.",
    ),
}

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

    def bare(self) -> Self:
        """Return it to be kept: without the frames it has passed through, and all they hold.

        One of them may hold the error itself, and only the garbage collector would find that.
        """
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


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
