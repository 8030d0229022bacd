"""What went wrong, as the OpenAI interface says it: an HTTP status, an error object, headers.

The object's `code` is the contract's (`docs/reference/errors.md`); beside OpenAI's four fields it
has `retryable` and, where there are such, `limit`, `given` and `retry_after_ms`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, NotRequired, TypedDict

from aril.errors import (
    BrokerUnavailable,
    ClientClosed,
    JobConflict,
    JobFailed,
    JobTimeout,
    ReplyUnreadable,
    StreamLost,
)
from aril.schemas import ErrorCode, JobError, limits

if TYPE_CHECKING:
    from collections.abc import Mapping

BAD_REQUEST: Final = "invalid_request_error"
OVERLOADED: Final = "rate_limit_error"
SERVER: Final = "server_error"
REUSED: Final = 422
"""As the draft of the Idempotency-Key header has it: the key is another request's."""
KEY: Final = "idempotency-key"
"""The header that names a job."""

STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.INVALID_JOB: 400,
    ErrorCode.UNSUPPORTED_VERSION: 400,
    ErrorCode.UNKNOWN_ADAPTER: 404,
    ErrorCode.ADAPTER_INVALID: 422,  # the request is well formed, what it names is not
    ErrorCode.PROMPT_TOO_LONG: 400,
    ErrorCode.LIMIT_EXCEEDED: 400,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.CANCELLED: 499,  # nginx's: the client went away. OpenAI's clients do not retry it
    ErrorCode.OVERLOADED: 429,
    ErrorCode.CRASH_LOOP: 500,
    ErrorCode.INTERNAL: 500,
}
# What happens between a client and the brokers has no code on the wire.
ELSEWHERE: Final[tuple[tuple[type[Exception], int, str, bool], ...]] = (
    (JobTimeout, 504, "timeout", True),
    (BrokerUnavailable, 503, "unavailable", True),
    (ClientClosed, 503, "unavailable", True),
    (StreamLost, 502, "stream_lost", True),
    (ReplyUnreadable, 502, "reply_unreadable", False),
)
# The beginning of the contract's messages: the field, as `sampling.stop[2]`.
_FIELD: Final = re.compile(r"([a-z_]+(?:\.[A-Za-z0-9_-]+|\[\d+\])*): ")


class ErrorBody(TypedDict):
    """OpenAI's error object, and what the contract says beyond it."""

    message: str
    type: str
    param: str | None
    code: str | None
    retryable: bool
    limit: NotRequired[float]
    given: NotRequired[object]
    retry_after_ms: NotRequired[int]


class Failure(NamedTuple):
    """An error response."""

    status: int
    error: ErrorBody

    @property
    def body(self) -> dict[str, ErrorBody]:
        """What the response's body is, before it is made JSON."""
        return {"error": self.error}

    @property
    def headers(self) -> dict[str, str]:
        """Headers by which OpenAI's clients know whether to ask again, and when."""
        headers = {"x-should-retry": "true" if self.error["retryable"] else "false"}
        if (wait := self.error.get("retry_after_ms")) is not None:
            headers |= {"retry-after-ms": str(wait), "retry-after": str(-(-wait // 1000))}
        return headers


class Refused(JobError):  # noqa: N818 - named for what happened
    """A request that cannot be served as it stands; `param` is the field, as the body names it."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: ErrorCode = ErrorCode.INVALID_JOB,
        limit: float | None = None,
        given: float | str | None = None,
    ) -> None:
        super().__init__(code, message, limit=limit, given=given)
        self.param = param


class Withdrawn(Exception):  # noqa: N818 - named for what happened
    """An answer began anew when some of it had been streamed: such a stream cannot take it back."""

    def __init__(self) -> None:
        super().__init__("the answer began anew; what was streamed of it does not hold")


def failure_of(error: Exception) -> Failure:
    """Return the response to `error`; what is nobody's fault but ours is told without its words."""
    if isinstance(error, Refused):
        return _by_code(error, error.param)
    if isinstance(error, JobFailed | JobError):
        return _by_code(error, param_of(error.code, error.message))
    if isinstance(error, Withdrawn):
        return _server(500, "withdrawn", str(error), retryable=True)
    for kind, status, code, retryable in ELSEWHERE:
        if isinstance(error, kind):
            return _server(status, code, str(error), retryable=retryable)
    if isinstance(error, JobConflict):
        return _reused(error)
    return _server(500, ErrorCode.INTERNAL, "a fault of the service", retryable=True)


def param_of(code: ErrorCode, message: str) -> str | None:
    """Return the field that a message of the contract is about, as bodies name it."""
    if code in {ErrorCode.UNKNOWN_ADAPTER, ErrorCode.ADAPTER_INVALID}:
        return "model"
    path, _ = split_field(message)
    return path


def split_field(message: str) -> tuple[str | None, str]:
    """Take a message of the contract apart: the field, as bodies name it, and the rest."""
    found = _FIELD.match(message)
    if found is None:
        return None, message
    path, message = found[1].removeprefix("sampling."), message[found.end() :]
    # What is wrong within a whole is told by its own words: `messages[0]: content: is required`.
    if path == "sampling" or path.endswith("]"):
        within, message = split_field(message)
        if within is not None:
            path = within if path == "sampling" else f"{path}.{within}"
    return path, message


def _by_code(error: JobFailed | JobError, param: str | None) -> Failure:
    status = STATUS[error.code]
    body: ErrorBody = {
        "message": error.message,
        "type": _type_of(status),
        "param": param,
        "code": str(error.code),
        "retryable": error.retryable if isinstance(error, JobFailed) else error.code.retryable,
    }
    if error.limit is not None:
        body["limit"] = error.limit
    if error.given is not None:
        body["given"] = error.given
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = min(error.retry_after_ms, limits.MAX_RETRY_AFTER_MS)
    return Failure(status, body)


def _type_of(status: int) -> str:
    if status == STATUS[ErrorCode.OVERLOADED]:
        return OVERLOADED
    return SERVER if status >= STATUS[ErrorCode.INTERNAL] else BAD_REQUEST


def _reused(error: JobConflict) -> Failure:
    body: ErrorBody = {
        "message": f"{KEY}: {error}",
        "type": BAD_REQUEST,
        "param": KEY,
        "code": "idempotency_key_reused",
        "retryable": False,
    }
    return Failure(REUSED, body)


def _server(status: int, code: str, message: str, *, retryable: bool) -> Failure:
    body: ErrorBody = {
        "message": message,
        "type": SERVER,
        "param": None,
        "code": str(code),
        "retryable": retryable,
    }
    return Failure(status, body)
