"""Whatever goes wrong with a request, as OpenAI's clients know it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from aril.errors import ArilError, JobFailed
from aril.openai.errors import BAD_REQUEST, SERVER, ErrorBody, Failure, Withdrawn, failure_of
from aril.schemas import JobError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Scope

log = logging.getLogger(__name__)

TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES: Final = {401: "invalid_api_key", 413: "body_too_large", 503: "unavailable"}
RETRYABLE: Final = {429, 503}
FIRST_OF_OURS: Final = 500
LEFT: Final = 499
"""nginx's word for a caller that went away; nobody is there to read it, only logs and metrics."""
NEW_JOB: Final = "aril.new_job"
"""In the scope of a request that is given a job of its own each time that it is sent."""
THE_SAME: Final = "the same request is given the same: ask under another Idempotency-Key, or none"
EXPECTED: Final = (ArilError, JobError, HTTPException, Withdrawn)


class Refusal(HTTPException):
    """A request that is refused here, with what the contract would say beside the status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        limit: float | None = None,
        given: float | str | None = None,
        retry_after_ms: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code
        self.param = param
        self.limit = limit
        self.given = given
        self.retry_after_ms = retry_after_ms


def failure(error: Exception, scope: Scope) -> Failure:
    """Return what a caller is told of `error`. What nobody expected is logged, and not told.

    A job ends once. Whoever names one, by its key or its id, may ask as often as it likes: so that
    is not worth while, whatever the job's error says of other jobs.
    """
    if isinstance(error, ClientDisconnect):  # in the middle of what it sent
        error = Refusal(LEFT, "the caller has left")
    if isinstance(error, HTTPException):
        return Failure(error.status_code, _by_status(error))
    if not isinstance(error, EXPECTED):
        log.error("request_failed", exc_info=error)
    told = failure_of(error)
    if isinstance(error, JobFailed | Withdrawn) and not scope.get(NEW_JOB):
        return _for_good(told)
    return told


async def respond(request: Request, error: Exception) -> Response:
    """Answer a request that has failed before anything of its answer was sent."""
    told = failure(error, request.scope)
    own = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if (job := getattr(error, "job", None) or request.scope.get("aril.job")) is not None:
        own["x-request-id"] = job
    return JSONResponse(told.body, told.status, told.headers | own)


def _for_good(told: Failure) -> Failure:
    if not told.error["retryable"]:
        return told
    body = told.error.copy()
    body.pop("retry_after_ms", None)
    body |= {"retryable": False, "message": f"{body['message']} ({THE_SAME})"}
    return Failure(told.status, body)


def _by_status(error: HTTPException) -> ErrorBody:
    status = error.status_code
    body: ErrorBody = {
        "message": error.detail,
        "type": TYPES.get(status, BAD_REQUEST if status < FIRST_OF_OURS else SERVER),
        "param": None,
        "code": CODES.get(status),
        "retryable": status in RETRYABLE,
    }
    if isinstance(error, Refusal):
        body["param"] = error.param
        body["code"] = error.code or body["code"]
        if error.limit is not None:
            body["limit"] = error.limit
        if error.given is not None:
            body["given"] = error.given
        if error.retry_after_ms is not None:
            body["retry_after_ms"] = error.retry_after_ms
    return body


HANDLERS: Final = {
    ArilError: respond,
    JobError: respond,
    Withdrawn: respond,
    HTTPException: respond,
    ClientDisconnect: respond,
}
