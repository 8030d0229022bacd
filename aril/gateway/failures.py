"""Whatever goes wrong with a request, as OpenAI's clients know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from aril.errors import ArilError
from aril.openai.errors import BAD_REQUEST, SERVER, Withdrawn, failure_of
from aril.schemas import JobError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES: Final = {401: "invalid_api_key", 413: "body_too_large", 503: "unavailable"}
FIRST_OF_OURS: Final = 500


def by_its_code(_: Request, error: Exception) -> Response:
    """Answer with what the contract calls it."""
    failure = failure_of(error)
    return JSONResponse(failure.body, failure.status, failure.headers)


def by_its_status(_: Request, error: Exception) -> Response:
    """Answer with what HTTP calls it."""
    if not isinstance(error, HTTPException):
        raise TypeError(error)
    status = error.status_code
    body = {
        "message": error.detail,
        "type": TYPES.get(status, BAD_REQUEST if status < FIRST_OF_OURS else SERVER),
        "param": None,
        "code": CODES.get(status),
        "retryable": status in {429, 503},
    }
    return JSONResponse({"error": body}, status, dict(error.headers or {}))


HANDLERS: Final = {
    ArilError: by_its_code,
    JobError: by_its_code,
    Withdrawn: by_its_code,
    HTTPException: by_its_status,
    Exception: by_its_code,
}
