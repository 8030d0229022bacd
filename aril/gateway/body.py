"""The body of a request: JSON, no longer than is allowed, read no further than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.gateway.failures import Refusal
from aril.openai.strict_json import BadJson, strict_json

if TYPE_CHECKING:
    from starlette.requests import Request

CLOSE: Final = {"connection": "close"}
"""What is left of the body is not waited for."""


async def json_of(request: Request, most: int) -> object:
    """Return what a request's body says. Raises `Refusal`: 413, 415, or 400 for no JSON.

    A body of another type is refused: a page of somebody else's may send that without asking.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "content-type: must be application/json", param="content-type")
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told[:18]) > most:
        raise too_large(most, int(told[:18]))
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise too_large(most, length)
        parts.append(part)
    try:
        return strict_json(b"".join(parts))
    except BadJson as error:
        raise Refusal(400, f"the body {error}", code="invalid_job") from None


def too_large(most: int, given: int, what: str = "body") -> Refusal:
    """Return what is told of a body, or of a part of one, that is longer than `most` bytes."""
    text = f"the {what} is longer than {most} bytes"
    return Refusal(413, text, limit=most, given=given, headers=CLOSE)
