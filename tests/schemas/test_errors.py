"""The closed set of errors."""

import pytest

from aril.schemas import DecodeError, ErrorCode, JobError


def test_codes_are_the_contract() -> None:
    """The set is closed: a reader of version 1 knows these codes and no other."""
    assert {code.value for code in ErrorCode} == {
        "invalid_job",
        "unsupported_version",
        "unknown_adapter",
        "adapter_invalid",
        "prompt_too_long",
        "limit_exceeded",
        "deadline_exceeded",
        "cancelled",
        "overloaded",
        "crash_loop",
        "internal",
    }


def test_retryable_codes() -> None:
    """Only what may go away by itself is worth sending again unchanged."""
    assert {code for code in ErrorCode if code.retryable} == {
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.OVERLOADED,
        ErrorCode.INTERNAL,
    }


def test_error_in_words() -> None:
    """An error prints its code and its message."""
    error = JobError(ErrorCode.LIMIT_EXCEEDED, "too many", limit=1, given=2)
    assert str(error) == "limit_exceeded: too many"
    assert (error.limit, error.given) == (1, 2)


def test_decode_errors_are_job_errors() -> None:
    """Whoever answers job errors answers decode errors with the same words."""
    with pytest.raises(JobError):
        raise DecodeError(ErrorCode.INVALID_JOB, "no", reason="empty")
