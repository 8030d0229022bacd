"""Where a request's body is judged: short ones at once, long ones beside the event loop."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from starlette.requests import Request

from aril.gateway.body import INLINE_BYTES, asked_of
from aril.gateway.failures import Refusal

MOST = 1 << 20


def posted(body: bytes) -> Request:
    """Return a request that brings a body in two parts."""
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    headers = [(b"content-type", b"application/json")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def judge(body: object) -> tuple[object, bool]:
    """Return what was brought, and whether the event loop waits."""
    return body, threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize("over", [0, 1])
async def test_a_long_body_holds_up_nobody(over: int) -> None:
    """Up to a bound a thread would cost more than it saves."""
    text = "x" * (INLINE_BYTES - 2 + over)
    assert await asked_of(posted(json.dumps(text).encode()), MOST, judge) == (text, not over)


@pytest.mark.parametrize("length", [1, 2 * INLINE_BYTES])
async def test_what_is_no_json_is_refused_wherever_it_is_read(length: int) -> None:
    """As is what `judge` refuses."""
    with pytest.raises(Refusal) as refused:
        await asked_of(posted(b"[" * length), MOST, judge)
    assert refused.value.status_code == 400

    def refuse(_: object) -> None:
        raise Refusal(418, "no")

    with pytest.raises(Refusal, match="no"):
        await asked_of(posted(json.dumps("x" * length).encode()), MOST, refuse)
