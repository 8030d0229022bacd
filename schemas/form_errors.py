"""What is wrong with bytes that are no record, whichever form they are in."""

from aril.schemas import limits
from aril.schemas.errors import DecodeError, ErrorCode


def malformed(reason: str, message: str) -> DecodeError:
    """Make the error for bytes that break the format."""
    return DecodeError(ErrorCode.INVALID_JOB, message, reason=reason)


def too_much(reason: str, what: str, limit: int, given: int) -> DecodeError:
    """Make the error for more than a bound of the record's shape allows."""
    message = f"{what}: at most {limit}, not {given}"
    return DecodeError(ErrorCode.LIMIT_EXCEEDED, message, reason=reason, limit=limit, given=given)


def too_deep() -> DecodeError:
    """Make the error for what is nested too deep; how deep it is was not counted."""
    message = f"maps and arrays: nested at most {limits.MAX_DEPTH} deep"
    return DecodeError(ErrorCode.LIMIT_EXCEEDED, message, reason="too_deep", limit=limits.MAX_DEPTH)
