"""Errors as OpenAI's clients read them: status, object, and whether and when to ask again."""

from __future__ import annotations

import json

import pytest

from aril.errors import BrokerUnavailable, ClientClosed, JobFailed, JobTimeout, StreamLost
from aril.openai.errors import STATUS, Refused, Withdrawn, failure_of, split_field
from aril.schemas import ErrorCode, JobError


@pytest.mark.parametrize("code", [*ErrorCode])
def test_every_code_has_a_status(code: ErrorCode) -> None:
    """What may be asked again says so, and no client's mistake does."""
    failure = failure_of(JobFailed("j", code, "words", retryable=code.retryable))
    assert failure.status == STATUS[code]
    assert failure.error["code"] == code.value
    assert failure.error["retryable"] is code.retryable
    assert failure.headers["x-should-retry"] == ("true" if code.retryable else "false")
    if code.retryable:
        assert failure.status == 429 or failure.status >= 500
    assert json.loads(json.dumps(failure.body))["error"]["message"] == "words"


def test_when_to_ask_again() -> None:
    """In milliseconds, and in whole seconds that are not too few."""
    error = JobFailed("j", ErrorCode.OVERLOADED, "busy", retryable=True, retry_after_ms=1_200)
    failure = failure_of(error)
    assert failure.error["retry_after_ms"] == 1_200
    assert failure.error["type"] == "rate_limit_error"
    assert (failure.headers["retry-after-ms"], failure.headers["retry-after"]) == ("1200", "2")


def test_a_limit_is_told() -> None:
    """As the worker told it, with the field's name in the body."""
    message = "sampling.max_tokens: at most 10, not 20"
    error = JobFailed("j", ErrorCode.LIMIT_EXCEEDED, message, retryable=False, limit=10, given=20)
    body = failure_of(error).error
    assert (body["param"], body["limit"], body["given"]) == ("max_tokens", 10, 20)
    assert "retry_after_ms" not in body


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (JobTimeout("j", 1.0), 504),
        (BrokerUnavailable("no broker"), 503),
        (ClientClosed("closed"), 503),
        (StreamLost("gone"), 502),
        (Withdrawn(), 500),
        (JobError(ErrorCode.UNKNOWN_ADAPTER, "adapter: not there"), 404),
        (Refused("n: no"), 400),
    ],
)
def test_what_has_no_code_on_the_wire(error: Exception, status: int) -> None:
    """Is told as what it is."""
    assert failure_of(error).status == status


def test_a_fault_of_ours_is_told_without_its_words() -> None:
    """They may hold anything."""
    failure = failure_of(KeyError("secret"))
    assert failure.status == 500
    assert "secret" not in json.dumps(failure.body)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("sampling.stop[2]: too long", ("stop[2]", "too long")),
        ("sampling: min_tokens: more than max_tokens", ("min_tokens", "more than max_tokens")),
        ("messages[0]: content: is required", ("messages[0].content", "is required")),
        (
            "maps and arrays: nested at most 16 deep",
            (None, "maps and arrays: nested at most 16 deep"),
        ),
        ("no field", (None, "no field")),
    ],
)
def test_the_field_is_read_off_the_message(message: str, parts: tuple[str | None, str]) -> None:
    """As the contract words it."""
    assert split_field(message) == parts
